"""`fisher-models evaluate rmis` and `siren`: which folders, by whose rules, for which encoders; and the table."""

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar

from fisher_models.errors import ModelError, RecordingError
from fisher_models.evaluate.benchmarks import PUBLISHED, RMIS_SETS, SIREN_SETS, Run, Scores, run_rmis, run_siren
from fisher_models.evaluate.cli import CONTESTANTS
from fisher_models.evaluate.dcase_scores import RmisRules, SirenRules
from fisher_models.evaluate.encoders import load_encoder
from fisher_models.evaluate.features import Store
from fisher_models.evaluate.progress import Progress

Rules = TypeVar("Rules", RmisRules, SirenRules)


def rmis(arguments: argparse.Namespace) -> int:
    """RMIS."""

    def run(ready: Run, rules: RmisRules) -> Scores:
        return run_rmis(ready, rules, multi_split=arguments.multi_split)

    follow = RmisRules.paper() if arguments.rules == "paper" else RmisRules()
    return _judge(arguments, "rmis", RMIS_SETS, run, follow)


def siren(arguments: argparse.Namespace) -> int:
    """SIREN."""
    follow = SirenRules.expected() if arguments.rules == "paper" else SirenRules()
    return _judge(arguments, "siren", SIREN_SETS, run_siren, follow)


def _judge(
    arguments: argparse.Namespace, benchmark: str, sets: Sequence[str], run: Callable[[Run, Rules], Scores],
    follow: Rules,
) -> int:  # fmt: skip
    rules = _rules(follow, arguments.set)
    roots = _roots(arguments.data, arguments.root, sets)
    encoders = [load_encoder(name, backend=arguments.backend) for name in arguments.encoder or CONTESTANTS[:3]]
    if len({encoder.name for encoder in encoders}) < len(encoders):
        raise ModelError("an encoder is given twice")
    with Progress() as progress:
        scores = run(Run(encoders, roots, Store(arguments.cache), progress, arguments.lists), rules)
    if arguments.json:
        print(json.dumps({"benchmark": benchmark, "rules": asdict(rules), "scores": scores}, indent=1, allow_nan=False))
    else:
        print(benchmark_table(scores, benchmark=benchmark))
    return 0


def _rules(rules: Rules, changes: Sequence[str]) -> Rules:
    """With single rules changed. ModelError for one that is not known, or a value of another kind."""
    values: dict[str, Any] = {}
    known = asdict(rules)
    for text in changes:
        name, _, value = text.partition("=")
        if name not in known:
            raise ModelError(f"--set {text}: no such rule; known are {', '.join(known)}")
        if isinstance(known[name], bool):
            if value not in ("true", "false"):
                raise ModelError(f"--set {text}: the value is true or false")
            values[name] = value == "true"
        elif value.isdigit() and int(value) > 0:
            values[name] = int(value)
        else:
            raise ModelError(f"--set {text}: the value is a positive whole number")
    return replace(rules, **values)


def _roots(data: Path | None, named: Sequence[str], sets: Sequence[str]) -> dict[str, Path]:
    roots = {} if data is None else {key: data / key for key in sets if (data / key).is_dir()}
    for text in named:
        key, _, folder = text.partition("=")
        roots[key] = Path(folder)
    for key, root in roots.items():
        if key not in sets:
            raise RecordingError(f"--root: {key!r} is no set of this benchmark; known are {', '.join(sets)}")
        if not root.is_dir():
            raise RecordingError(f"{key}: {root} is not a folder")
    if not roots:
        raise RecordingError(f"no set was found; name the folder of one or more of {', '.join(sets)}")
    return roots


def benchmark_table(scores: Mapping[str, Mapping[str, float]], *, benchmark: str) -> str:
    """A row per set and mean, a column per encoder, in percent; beside them the published ones on the whole sets."""
    names = list(next(iter(scores.values())))
    order = RMIS_SETS if benchmark == "rmis" else (*SIREN_SETS[:-1], "mafaulda vibration", "mafaulda sound")
    published = {f"({name})": dict(zip(order, values, strict=True)) for name, values in PUBLISHED[benchmark].items()}
    rows = [["set", *names, *published]]
    for row, values in scores.items():
        given = [f"{of[row]:.2f}" if row in of else "" for of in published.values()]
        rows.append([row, *(f"{values[name]:.2f}" for name in names), *given])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([*lines, "", "In percent. In parentheses: as published, on the whole sets, for orientation."])
