"""Progress of long work: a bar on a terminal, plain lines elsewhere, nothing with --json; always on stderr."""

import sys
import time
from types import TracebackType
from typing import Self

from rich.console import Console as RichConsole
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

LINE_EVERY_S = 10.0


class Console:
    """`progress(done, total)` may be called from any thread, as often as wanted."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._bar: Progress | None = None
        self._said_s = 0.0

    def __enter__(self) -> Self:
        if not self._quiet and sys.stderr.isatty():
            self._bar = Progress(
                TextColumn("{task.completed:.0f} of {task.total:.0f}"),
                BarColumn(),
                TimeRemainingColumn(),
                console=RichConsole(stderr=True),
                transient=True,
            )
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()

    def progress(self, done: int, total: int) -> None:
        """Show how far the work is. A new total begins a new bar: first listening, then learning."""
        if self._quiet:
            return
        if self._bar:
            task = next((t for t in self._bar.tasks if t.total == total), None)
            identifier = task.id if task else self._bar.add_task("", total=total)
            self._bar.update(identifier, completed=done)
        elif time.monotonic() - self._said_s >= LINE_EVERY_S or done >= total:
            self._said_s = time.monotonic()
            print(f"{done} of {total}", file=sys.stderr, flush=True)
