"""What a run says while it goes: a progress bar on a terminal, plain lines elsewhere, and a line of JSON each time."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

NAME = "metrics.jsonl"
_QUIET_S = 10.0  # between plain lines


class Report:
    """Of one process; all but the first of several say nothing."""

    def __init__(self, folder: Path, *, steps: int, step: int, silent: bool = False) -> None:
        self._path = None if silent else folder / NAME
        self._steps, self._said = steps, 0.0
        self._console = Console(stderr=True, quiet=silent)
        self._bar: Progress | None = None
        if self._path is not None:
            _keep_before(self._path, step)
            if self._console.is_terminal:
                columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
                self._bar = Progress(*columns, console=self._console, transient=True)
                self._task = self._bar.add_task("", total=steps, completed=step)

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def note(self, text: str) -> None:
        """A line of its own."""
        self._console.print(f"fisher-models: {text}", highlight=False, markup=False, soft_wrap=True)

    def record(self, step: int, values: Mapping[str, float], *, shown: bool = False) -> None:
        """Values after `step` steps: always into the file; as a line where `shown`, or now and then on no terminal."""
        if self._path is None:
            return
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **{key: _short(value) for key, value in values.items()}}) + "\n")
        text = "  ".join(f"{key} {_short(value):g}" for key, value in values.items())
        if self._bar is not None:
            self._bar.update(self._task, completed=step, description="" if shown else text)
        now = time.monotonic()
        if shown or (self._bar is None and now - self._said >= _QUIET_S):
            self._said = now
            self.note(f"step {step} of {self._steps}  {text}")


def _short(value: float) -> float:
    return float(f"{value:.5g}")


def _keep_before(path: Path, step: int) -> None:
    """Drop what was recorded after the checkpoint that the run goes on from: it happens again."""
    if not path.exists():
        return
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step and step > 0]
    path.write_text("".join(kept), encoding="utf-8")
