"""`fisher-models evaluate recorded` and `manifest`: contestants side by side, printed and written."""

import argparse
import json
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

from fisher_models.errors import ModelError, RecordingError
from fisher_models.evaluate.cli import CONTESTANTS
from fisher_models.evaluate.encoders import INDICATORS, NO_ENVELOPE, Encoder, load_encoder
from fisher_models.evaluate.features import Store
from fisher_models.evaluate.fusion import Contestant, contestant
from fisher_models.evaluate.judge import Judged, check_names, judge
from fisher_models.evaluate.local import LOCAL
from fisher_models.evaluate.plot import plots
from fisher_models.evaluate.progress import Progress
from fisher_models.evaluate.protocol import HEALTHY, Protocol, Sides
from fisher_models.evaluate.report import document, reproduced, table
from fisher_models.evaluate.takes import Cut, Rule, read_takes, rules


def recorded(arguments: argparse.Namespace) -> int:
    """The protocols on the recorded sets; 1 where `--check` finds a figure that is not reproduced."""
    names = [name for name in arguments.protocol.split(",") if name] or list(LOCAL)
    if unknown := [name for name in names if name not in LOCAL]:
        raise RecordingError(f"{unknown[0]!r} is no protocol; known are {', '.join(LOCAL)}")
    if not arguments.data.is_dir():
        raise RecordingError(f"--data: {arguments.data} is not a folder")
    if arguments.check and arguments.contestant is None:
        arguments.contestant = [INDICATORS, NO_ENVELOPE]
    judged = _judge_all([LOCAL[name] for name in names], arguments.data, arguments)
    held = reproduced(judged)
    if arguments.check and not held:
        raise RecordingError(f"--check needs {INDICATORS} or {NO_ENVELOPE} among the contestants")
    return 1 if arguments.check and not all(one.holds for one in held) else 0


def manifest(arguments: argparse.Namespace) -> int:
    """One protocol on one labelled set."""
    listed: Path = arguments.manifest
    where = rules(*arguments.where)
    channels = tuple(name for name in arguments.channels.split(",") if name) or _shared_channels(listed, where)
    sides = Sides(rules(*arguments.train), rules(*arguments.test)) if arguments.train or arguments.test else None
    if sides is not None and not (sides.train and sides.test):
        raise RecordingError("--train and --test go together: what to learn from, and what to judge")
    protocol = Protocol(
        name=listed.parent.name or "set", task=arguments.task, folders=(listed.parent.name,), channels=channels,
        cut=Cut(arguments.window_s, arguments.hop_s, arguments.rate_hz), target=arguments.target,
        normal=frozenset(arguments.normal.split("|")) if arguments.normal else HEALTHY, where=where, sides=sides,
        leave_out=arguments.leave_out, folds=arguments.folds, normal_s=arguments.normal_s,
        unit_windows=arguments.unit_windows,
    )  # fmt: skip
    _judge_all([protocol], listed, arguments)
    return 0


def _shared_channels(manifest: Path, where: Iterable[Rule]) -> tuple[str, ...]:
    takes = read_takes(manifest, where=where)
    first = [recording.channel for recording in takes[0].channels]
    shared = [name for name in first if all(name in {r.channel for r in take.channels} for take in takes)]
    if not shared:
        raise RecordingError(f"{manifest}: no channel is in every file; name some with --channels")
    return tuple(shared)


def _judge_all(protocols: Sequence[Protocol], data: Path, arguments: argparse.Namespace) -> list[Judged]:
    """Judge, print and write; `data` is the sets' folder, or a single set's manifest."""
    if arguments.draws < 1:
        raise ModelError("--draws must be 1 or more")
    if arguments.out:
        try:
            arguments.out.mkdir(parents=True, exist_ok=True)  # found out now, not after an hour
        except OSError as error:
            raise RecordingError(f"--out: {arguments.out} cannot be made a folder: {error.strerror}") from error
    contestants = _contestants(arguments)
    reference = arguments.reference or contestants[0].name
    if reference not in {one.name for one in contestants}:
        raise ModelError(f"--reference: {reference!r} is not among the contestants")
    store = Store(arguments.cache)
    judged = []
    with Progress() as progress:
        for number, protocol in enumerate(protocols, start=1):
            progress(f"{number} of {len(protocols)}: {protocol.name}", lasting=True)
            judged.append(
                judge(protocol, contestants, data=data, store=store, draws=arguments.draws, progress=progress)
            )
            if number == len(protocols) or protocols[number].folders != protocol.folders:
                store.forget()
    text = table(judged, reference)
    found = json.dumps({**document(judged, reference), "encoders": _encoders(contestants)}, indent=1, allow_nan=False)
    print(found if arguments.json else text)
    if arguments.out:
        (arguments.out / "table.txt").write_text(text + "\n", encoding="utf-8")
        (arguments.out / "results.json").write_text(found + "\n", encoding="utf-8")
        if not arguments.no_plots:
            plots(judged, arguments.out)
    return judged


def _contestants(arguments: argparse.Namespace) -> list[Contestant]:
    @cache
    def encoder(name: str) -> Encoder:
        return load_encoder(name, backend=arguments.backend, stretch=arguments.stretch)

    found = [contestant(text, encoder) for text in arguments.contestant or CONTESTANTS]
    check_names(found)
    return found


def _encoders(contestants: Iterable[Contestant]) -> dict[str, dict[str, str]]:
    """Of each contestant its encoders' identities: what was judged stays known when a name gets other weights."""
    return {one.name: {part.encoder.name: part.encoder.identity for part in one.parts} for one in contestants}
