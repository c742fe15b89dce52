"""What a model card is written from, read and checked: the results of an evaluation, and a run of pre-training."""

import contextlib
import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from fisher_models.bundle import Bundle
from fisher_models.errors import ModelError
from fisher_models.evaluate.encoders import UNTRAINED
from fisher_models.pretrain import checkpoint
from fisher_models.pretrain.report import NAME as METRICS

_IDENTIFYING = 17  # characters of a bundle's digest that an encoder's identity begins with
_WHAT = "a results.json of this version's `fisher-models evaluate recorded --out`"
Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Difference:
    """To another contestant, paired; the mark is + or - where the interval excludes 0."""

    value: float
    low: float
    high: float
    mark: str


@dataclass(frozen=True, slots=True)
class Figure:
    """What a contestant reached, in one protocol or in the mean; the mean has no interval."""

    value: float
    interval: tuple[float, float] | None
    differences: Mapping[str, Difference]


@dataclass(frozen=True, slots=True)
class Row:
    """One protocol; None for a contestant that cannot see its signals."""

    name: str
    metric: str
    units: int
    figures: Mapping[str, Figure | None]


@dataclass(frozen=True, slots=True)
class Results:
    """What was judged."""

    reference: str
    untrained: str | None  # the contestant with random weights
    names: Sequence[str]  # of the contestants
    own: Sequence[str]  # those that are the bundle and nothing else
    rows: Sequence[Row]
    means: Mapping[str, Figure]  # over the protocols that all see; empty where there is none
    seen_by_all: int


@dataclass(frozen=True, slots=True)
class Course:
    """A metric's first and last value, with the steps they are of."""

    first_step: int
    first: float
    last_step: int
    last: float


@dataclass(frozen=True, slots=True)
class Run:
    """A finished run of pre-training."""

    facts: Mapping[str, str]  # in words
    seconds: float
    recorded: bool  # whether recordings were trained on
    losses: Mapping[str, float]  # by name their weight; the sum is "loss" and not among them
    courses: Mapping[str, Course]  # of every metric


def read_results(path: Path, bundle: Bundle) -> Results:
    """ModelError where the file is something else, or is not about these weights."""
    with _reading(path, _WHAT):
        found = json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_number)
        encoders: Mapping[str, Mapping[str, str]] = found["encoders"]
        names = list(encoders)
        alone = {name: next(iter(of.items())) for name, of in encoders.items() if len(of) == 1}
        means = found["means"]
        results = Results(
            reference=str(found["reference"]),
            untrained=next((name for name in names if UNTRAINED.fullmatch(name)), None),
            names=names,
            own=[name for name, (_, made) in alone.items() if made.startswith(bundle.digest[:_IDENTIFYING])],
            rows=[_row(one, names) for one in found["protocols"]],
            means={name: _figure(means[name], "value") for name in names} if means else {},
            seen_by_all=int(means[names[0]]["protocols"]) if means else 0,
        )
    if results.own:
        return results
    if other := [made for name, made in alone.values() if name == bundle.name]:
        raise ModelError(f"{path} is of another {bundle.name} ({other[0]}) than {bundle.digest[:_IDENTIFYING]}")
    raise ModelError(f"{path} says nothing of {bundle.name}; its contestants are {', '.join(names)}")


def _row(one: Json, names: Sequence[str]) -> Row:
    metric, found = str(one["headline"]), one["results"]
    figures = {name: None if found[name] is None else _figure(found[name], metric) for name in names}
    return Row(str(one["name"]), metric, int(one["units"]), figures)


def _figure(found: Json, key: str) -> Figure:
    apart = {
        other: Difference(float(d["value"]), float(d["low"]), float(d["high"]), str(d["mark"]))
        for other, d in found["differences"].items()
    }
    return Figure(float(found[key]), (float(found["low"]), float(found["high"])) if "low" in found else None, apart)


def read_run(folder: Path, bundle: Bundle) -> Run:
    """ModelError where it is no finished run, or the bundle's weights are not its."""
    path = folder / checkpoint.NAME
    if bundle.weights != "trained":
        raise ModelError(f"--run: {bundle.name} says that its weights are {bundle.weights}; no run made them")
    with _reading(path, "a checkpoint of `fisher-models pretrain`"):
        if not path.is_file():
            raise ModelError(f"--run: {path} is missing")
        said, same = _checkpoint(path, bundle)
        settings, step = said["identity"], int(said["step"])
        if step != (steps := int(settings["run.steps"])):
            raise ModelError(f"--run: {folder} is at step {step} of {steps}; a card is of a finished run")
        if not same:
            raise ModelError(f"--run: the weights of {bundle.name} are not those of {path}")
        facts, recorded = _facts(said, settings), bool(settings["corpus.recorded.share"])
        weights = {key.removeprefix("losses."): value for key, value in settings.items() if key.startswith("losses.")}
        seconds = float(said["seconds"])
    courses = _courses(folder / METRICS)
    losses = {name: float(weight) for name, weight in weights.items() if name in courses}
    return Run(facts, seconds, recorded, losses, courses)


def _checkpoint(path: Path, bundle: Bundle) -> tuple[Json, bool]:
    """What it says of its run, and whether its teacher is the bundle."""
    with safe_open(path, framework="numpy") as file:
        metadata = file.metadata() or {}
        if metadata.get("schema") != checkpoint.SCHEMA:
            raise ValueError(f"its schema is {metadata.get('schema')!r}")
        keys, state = set(file.keys()), bundle.state()
        same = all(
            f"teacher.{key}" in keys and _is_of(value, file.get_tensor(f"teacher.{key}"))
            for key, value in state.items()
        )
    said: Json = json.loads(metadata["progress"])
    return said, same


def _is_of(stored: Any, theirs: Any) -> bool:
    """Whether a bundle's tensor is the run's, as it is or rounded to float16; positions may have lost rows."""
    if stored.ndim != theirs.ndim:
        return False
    cut = theirs[tuple(slice(n) for n in stored.shape)]
    wide = stored.astype(np.float32)
    return np.array_equal(wide, cut) or np.array_equal(wide, cut.astype(np.float16).astype(np.float32))


def _facts(said: Json, settings: Json) -> dict[str, str]:
    return {
        "data": _data(settings),
        "steps": f"{said['step']:,}",
        "sub-bands seen": f"{said['sub_bands']:,}",
        "seed": str(settings["run.seed"]),
        "masked": f"{settings['mask.ratio']:.0%} of the patches",
        "optimizer": f"AdamW, rate {settings['optimizer.rate']:g}, {settings['optimizer.schedule']}",
        "precision asked for": str(settings["run.precision"]),
    }


def _data(said: Json) -> str:
    kinds = {kind: said[f"corpus.{kind}"] for kind in ("vibration", "sound", "current")}
    parts = ", ".join(f"{value / sum(kinds.values()):.0%} {kind}" for kind, value in kinds.items())
    rates, share = said["corpus.rates_hz"], said["corpus.recorded.share"]
    made = f"generated signals ({parts}; {min(rates) / 1000:g} to {max(rates) / 1000:g} kHz)"
    if not share:
        return f"{made} and nothing else: no recording was trained on"
    sets = "; ".join(_set(Path(manifest), said) for manifest in said["corpus.recorded.manifests"])
    return f"{made}, and recordings in {share:.0%} of the batches: {sets}"


def _set(manifest: Path, said: Json) -> str:
    """A set with the licences and authors of what was used of it; the licences allowed, where it is not at hand."""
    allowed, splits = tuple(said["corpus.recorded.licences"]), said["corpus.recorded.splits"]
    name = f"{manifest.parent.name} ({'/'.join(splits)})"
    try:
        with manifest.open(encoding="utf-8-sig", newline="") as lines:
            rows = [row for row in csv.DictReader(lines) if row["split_hint"] in splits]
            used = [row for row in rows if row["licence"].startswith(allowed)]
    except (OSError, KeyError):
        return f"{name}, licences beginning with {' or '.join(allowed)}"
    authors = sorted({row["authors"] for row in used if row.get("authors")})
    return ", ".join([name, *sorted({row["licence"] for row in used}), *authors])


def _courses(path: Path) -> dict[str, Course]:
    found: dict[str, Course] = {}
    with _reading(path, "a run's metrics, a JSON object per line"):
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line, parse_constant=_no_number)
            step = int(row.pop("step"))
            for key, value in row.items():
                before = found.get(key, Course(step, float(value), step, float(value)))
                found[key] = Course(before.first_step, before.first, step, float(value))
        if "loss" not in found:
            raise ValueError("no line has a loss")
    return found


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no number")


@contextlib.contextmanager
def _reading(path: Path, what: str) -> Iterator[None]:
    """ModelError where what is read is not what it should be."""
    try:
        yield
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, SafetensorError) as error:
        why = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise ModelError(f"{path} is not {what}: {why}") from error
