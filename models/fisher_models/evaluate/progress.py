"""What is being done: a line that changes on a terminal, a line per step elsewhere; on stderr."""

import sys
from typing import Self

from rich.console import Console


class Progress:
    """Call it with a text; `lasting` texts are steps, and the only ones that are printed where there is no terminal."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._status = self._console.status("")

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._status.stop()

    def __call__(self, text: str, *, lasting: bool = False) -> None:
        """Show a text until the next one."""
        self._status.update(text)
        if lasting and not self._console.is_terminal:
            print(text, file=sys.stderr, flush=True)
