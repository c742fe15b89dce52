"""A protocol: which windows of a labelled set train, which test, and what is asked of them. Data, and its plan.

A plan is a list of episodes. Every split is sealed: no recording, and no value of the column that the protocol seals,
lies on both sides. Run-to-failure and onset protocols learn normal from the beginning of each run itself.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fisher_models.errors import RecordingError
from fisher_models.evaluate.takes import Cut, Rule, Take

Task = Literal["diagnosis", "anomaly", "run-to-failure", "onset"]
TASKS: tuple[Task, ...] = ("diagnosis", "anomaly", "run-to-failure", "onset")
Indices = NDArray[np.int64]
Texts = NDArray[np.str_]
Bools = NDArray[np.bool_]

HEALTHY = frozenset({"normal", "healthy", "aligned", "good"})
NORMAL_SHARE, JUDGED_SHARE, FAILING_SHARE = 0.25, 0.6, 0.9  # of a run to failure; 60 to 90 % is neither


@dataclass(frozen=True, slots=True)
class Sides:
    """Conditions on the rows to learn from, and on those to judge."""

    train: tuple[Rule, ...]
    test: tuple[Rule, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """What is measured on one set. Windows are judged one by one; recordings by the majority of their windows."""

    name: str
    task: Task
    folders: tuple[str, ...]  # data sets below the data folder, taken together
    channels: tuple[str, ...]
    cut: Cut
    target: str = "label"  # the column that diagnosis predicts and that says what is normal
    normal: frozenset[str] = HEALTHY
    where: tuple[Rule, ...] = ()
    sides: Sides | None = None  # one episode
    leave_out: str = ""  # or: a column, each of whose values (or folds of them) is the test set once
    folds: int = 0  # 0: every value by itself
    normal_s: float = 0.0  # onset: so much of each run's beginning is normal
    unit_windows: int = 0  # what a bootstrap draws: blocks of so many windows; 0: whole recordings
    reached: Mapping[str, float] = field(default_factory=dict)  # what the indicators are known to reach, by metric
    reached_by: str = "indicators"

    def __post_init__(self) -> None:
        own = self.task in ("diagnosis", "anomaly")
        if own and (self.sides is not None) == bool(self.leave_out):
            raise RecordingError(f"{self.name}: give conditions for train and test, or a column to leave out")
        if self.task == "onset" and not self.normal_s > 0:
            raise RecordingError(f"{self.name}: onset needs normal_s, how long the beginning of a run is normal")


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """Every window of a protocol's takes as a row, in order."""

    take: Indices  # (n,) index of the take
    at: Indices  # (n,) index of the window within its take
    end_s: NDArray[np.float64]  # (n,) from the start of the take
    anomalous: Bools | None  # (n,) where the set marks samples


@dataclass(frozen=True, slots=True, eq=False)
class Episode:
    """Rows to learn from and rows to judge."""

    train: Indices
    test: Indices
    truth: Texts | Bools  # (test,) the class, or whether anomalous
    learnt: Texts  # (train,) the class; of anomaly protocols all are normal
    units: Texts  # (test,) what a bootstrap draws together
    files: Texts  # (test,) which file each comes from; a vote over a recording's windows is one over a file's


def plan(protocol: Protocol, takes: Sequence[Take], layout: Layout) -> list[Episode]:
    """The protocol's episodes. RecordingError where a split is not sealed, or one side lacks what it needs."""
    if protocol.task in ("diagnosis", "anomaly"):
        found = _left_out(protocol, takes) if protocol.sides is None else _stated(protocol.sides, takes)
        return [_episode(protocol, takes, layout, train, test) for train, test in found]
    return [_run(protocol, takes, layout, take) for take in range(len(takes))]


def _stated(sides: Sides, takes: Sequence[Take]) -> list[tuple[Bools, Bools]]:
    def holding(rules: Sequence[Rule]) -> Bools:
        return np.array([all(rule.holds(take.fields) for rule in rules) for take in takes])

    return [(holding(sides.train), holding(sides.test))]


def _left_out(protocol: Protocol, takes: Sequence[Take]) -> list[tuple[Bools, Bools]]:
    column = protocol.leave_out
    if any(column not in take.fields for take in takes):
        raise RecordingError(f"{protocol.name}: the manifest has no column {column!r} to leave out by")
    values = np.array([take.fields[column] for take in takes])
    # What only anomalies have, such as a specimen, needs no fold of its own where normal is all that is learnt.
    kept = values if protocol.task == "diagnosis" else values[_normal(protocol, takes)]
    groups = np.unique(kept)
    if len(groups) < 2:
        raise RecordingError(f"{protocol.name}: column {column!r} has fewer than two values; nothing can be left out")
    count = min(protocol.folds or len(groups), len(groups))
    fold = np.random.default_rng(0).permutation(len(groups)) % count if protocol.folds else np.arange(len(groups))
    sides = []
    for one in range(count):
        out = np.isin(values, groups[fold == one])
        test = out | ~np.isin(values, groups) if protocol.task == "anomaly" else out
        sides.append((~test, test))
    return sides


def _normal(protocol: Protocol, takes: Sequence[Take]) -> Bools:
    return np.array([take.fields[protocol.target] in protocol.normal for take in takes])


def _episode(protocol: Protocol, takes: Sequence[Take], layout: Layout, in_train: Bools, in_test: Bools) -> Episode:
    if protocol.task == "anomaly":
        in_train = in_train & _normal(protocol, takes)
    recordings = np.array([take.recording for take in takes])
    if shared := sorted(set(recordings[in_train]) & set(recordings[in_test])):
        raise RecordingError(f"{protocol.name}: recording {shared[0]} is on both sides of the split")
    targets = np.array([take.fields[protocol.target] for take in takes])
    train, test = np.flatnonzero(in_train[layout.take]), np.flatnonzero(in_test[layout.take])
    if not (len(train) and len(test)):
        raise RecordingError(f"{protocol.name}: no windows to {'judge' if len(train) else 'learn from'}")
    truth: Texts | Bools = targets[layout.take[test]]
    if protocol.task == "anomaly":
        truth = ~_normal(protocol, takes)[layout.take[test]]
        if truth.all() or not truth.any():
            raise RecordingError(f"{protocol.name}: the test side has no {'normal' if truth.all() else 'anomaly'}")
    elif len(np.unique(targets[in_train])) < 2:
        raise RecordingError(f"{protocol.name}: the training side has one class only")
    return Episode(
        train, test, truth, targets[layout.take[train]], _units(protocol, takes, layout, test),
        np.array([take.fields["file"] for take in takes])[layout.take[test]],
    )  # fmt: skip


def _run(protocol: Protocol, takes: Sequence[Take], layout: Layout, take: int) -> Episode:
    rows = np.flatnonzero(layout.take == take)
    if protocol.task == "run-to-failure":
        early, judged, failing = (int(share * len(rows)) for share in (NORMAL_SHARE, JUDGED_SHARE, FAILING_SHARE))
        train, test = rows[:early], np.concatenate([rows[early:judged], rows[failing:]])
        truth: Bools = np.arange(len(test)) >= judged - early
    else:
        if layout.anomalous is None:
            raise RecordingError(f"{protocol.name}: onset needs a mark per sample beside each recording")
        learnt = layout.end_s[rows] <= protocol.normal_s
        train, test = rows[learnt], rows[~learnt]
        if layout.anomalous[train].any():
            raise RecordingError(f"{takes[take].recording}: its first {protocol.normal_s:g} s are not all normal")
        truth = layout.anomalous[test]
    if not len(train) or truth.all() or not truth.any():
        raise RecordingError(f"{protocol.name}: {takes[take].recording} has too few windows, or of one kind only")
    names = np.full(len(test), takes[take].recording)
    return Episode(train, test, truth, np.full(len(train), "normal"), names, names)


def _units(protocol: Protocol, takes: Sequence[Take], layout: Layout, rows: Indices) -> Texts:
    size = protocol.unit_windows
    names = [takes[take].recording for take in layout.take[rows]]
    if not size:
        return np.array(names)
    return np.array([f"{name}/{at // size}" for name, at in zip(names, layout.at[rows], strict=True)])
