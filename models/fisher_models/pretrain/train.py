"""A run from its configuration to its bundle: resumed where it was left, looked at now and then, always saved.

SIGINT and SIGTERM end a sitting after the current step, with a checkpoint; the same command goes on from there.
"""

import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import FrameType

import torch

from fisher_models.bundle import Bundle
from fisher_models.errors import TrainingError
from fisher_models.families import frontend_spec
from fisher_models.pretrain import checkpoint, heldout, labelled, monitors
from fisher_models.pretrain.checkpoint import Progress
from fisher_models.pretrain.config import Settings
from fisher_models.pretrain.data import Batch, Feed
from fisher_models.pretrain.ranks import Rank, any_rank, joined, wait_for_all
from fisher_models.pretrain.report import Report
from fisher_models.pretrain.trainer import Trainer


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """How a sitting ended."""

    step: int
    steps: int
    interrupted: bool  # by a signal
    bundle: Bundle | None  # of the teacher, once all steps are done; in the first process


def run(settings: Settings, *, minutes: float | None = None) -> Outcome:
    """Train until all steps are done, `minutes` are over, or a signal comes; then save, and export at the end.

    Raises TrainingError and what export raises.
    """
    if settings.run.threads:
        torch.set_num_threads(settings.run.threads)
    with joined(settings.run.device) as rank, _stoppable() as stopped:
        trainer = Trainer(settings, rank)
        folder = settings.run.out
        if rank.first:
            folder.mkdir(parents=True, exist_ok=True)
        progress = checkpoint.load(folder, trainer.parts, settings.identity()) or Progress()
        with Report(folder, steps=settings.run.steps, step=progress.step, silent=not rank.first) as report:
            sitting = _Sitting(settings, trainer, report, rank)
            if progress.step:
                report.note(f"going on at step {progress.step} of {folder}")
            until = None if minutes is None else time.monotonic() + 60 * minutes
            progress = sitting.go(progress, until, stopped)
        bundle = None
        if rank.first and progress.step == settings.run.steps:
            bundle = _exported(settings, trainer, progress)
        wait_for_all()
        return Outcome(progress.step, settings.run.steps, bool(stopped), bundle)


class _Sitting:
    """The loop, from one checkpoint to the next."""

    def __init__(self, settings: Settings, trainer: Trainer, report: Report, rank: Rank) -> None:
        self._settings, self._trainer, self._report, self._rank = settings, trainer, report, rank
        self._frontend = frontend_spec(settings.model.sizes())
        self._feed = Feed(settings.corpus, self._frontend, seed=settings.run.seed, rank=rank)
        self._seen: _Seen | None = None

    def go(self, progress: Progress, until: float | None, stopped: list[int]) -> Progress:
        """Steps until the end, a time, or a signal; saved as it goes and when it ends."""
        monitor, steps = self._settings.monitor, self._settings.run.steps
        if progress.step == 0:
            self._look(0, knn=True)
        began, at = time.monotonic(), progress.step
        saved = progress.step
        before, counted = began, progress.sub_bands  # of the last record
        while progress.step < steps:
            batch = self._feed.batch(progress.step)
            found = self._trainer.step(progress.step, batch)
            done = progress.step + 1
            progress = Progress(done, progress.sub_bands + len(batch.bands) * self._rank.world, progress.seconds)
            ending = done == steps
            if done % monitor.log_every == 0 or ending or done == at + 1:
                now = time.monotonic()
                self._record(done, found, (progress.sub_bands - counted) / (now - before))
                before, counted = now, progress.sub_bands
                over = bool(stopped) or (until is not None and now >= until)
                if any_rank(over, self._rank.device):
                    ending = True
            elif self._rank.world == 1 and (stopped or (until is not None and time.monotonic() >= until)):
                ending = True
            looked = time.monotonic()
            if done % monitor.look_every == 0 or done == steps:
                self._look(done, knn=done % monitor.knn_every == 0 or done == steps)
            began += time.monotonic() - looked  # looking is no training
            if done % monitor.save_every == 0 or ending:
                progress = replace(progress, seconds=progress.seconds + time.monotonic() - began)
                began = time.monotonic()
                self._save(progress)
                saved = done
            if ending:
                break
        assert saved == progress.step
        return progress

    def _record(self, step: int, found: Mapping[str, torch.Tensor], per_s: float) -> None:
        values = {name: float(value) for name, value in found.items()}
        if not all(value == value and abs(value) != float("inf") for value in values.values()):
            wrong = ", ".join(name for name, value in values.items() if not abs(value) < float("inf"))
            raise TrainingError(
                f"step {step}: {wrong} is not finite; the last checkpoint is whole: lower optimizer.rate and begin anew"
            )
        self._report.record(step, {**values, "sub_bands_per_s": per_s})

    def _look(self, step: int, *, knn: bool) -> None:
        """Collapse monitors, and nearest neighbours where asked; by the first process while the others wait."""
        if self._rank.first:
            self._seen = self._seen or _Seen(self._settings, self._rank)
            values = monitors.look(self._trainer.embed, [(b.bands, b.centres) for b in self._seen.batches])
            if knn:
                values |= heldout.judge(self._trainer.embed, self._seen.machines, self._rank.device)
                values |= labelled.judge(self._trainer.embed, self._seen.recordings, self._rank.device)
            self._report.record(step, values, shown=True)
        wait_for_all()

    def _save(self, progress: Progress) -> None:
        if self._rank.first:
            checkpoint.save(self._settings.run.out, self._trainer.parts, progress, self._settings.identity())
        wait_for_all()


class _Seen:
    """What the monitors look at: the same in every run of one configuration."""

    def __init__(self, settings: Settings, rank: Rank) -> None:
        spec = frontend_spec(settings.model.sizes())
        knn = settings.monitor.knn
        plain = settings.corpus.model_copy(
            update={"crops": 1, "gain_db": 0.0, "recorded": type(settings.corpus.recorded)(), "sub_bands": 32}
        )
        feed = Feed(plain, spec, seed=heldout.SEED + 1, rank=Rank(0, 1, rank.device))
        self.batches: list[Batch] = [feed.batch(step) for step in range(max(4, settings.monitor.bands // 32))]
        self.machines = heldout.make(knn, spec, rank.device)
        self.recordings = labelled.load(knn, spec)


def _exported(settings: Settings, trainer: Trainer, progress: Progress) -> Bundle:
    from fisher_models.export import export  # needs onnx, which training does not

    origin = (
        f"fisher-models pretrain: {settings.model.preset}, seed {settings.run.seed}, {progress.step} steps, "
        f"{progress.sub_bands} sub-bands"
    )
    return export(
        settings.model.sizes(),
        trainer.state(),
        out=settings.run.out / settings.run.bundle,
        weights="trained",
        origin=origin,
    )


@contextmanager
def _stoppable() -> Iterator[list[int]]:
    """Signals that came, while they do no more than be noted; a second one ends the process as usual."""
    came: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        came.append(number)
        signal.signal(number, usual[signal.Signals(number)])

    usual = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield came
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)
