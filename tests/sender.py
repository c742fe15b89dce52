"""A thread that sends until it is told to stop."""

import threading
from typing import Self


class Sender:
    """`with ...:` runs `send` beside the test; it looks at `halt`."""

    def __init__(self, name: str) -> None:
        self.halt = threading.Event()
        self.thread = threading.Thread(target=self.send, name=name, daemon=True)

    def send(self) -> None:
        """What the thread does; ends soon after `halt` is set."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.halt.set()
        self.thread.join()
