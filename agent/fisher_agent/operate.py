"""What the operator's commands do: through the daemon where one runs, in this process where none does."""

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fisher_agent import app, client
from fisher_agent.banks import Activate, BankLibrary, list_banks
from fisher_agent.captures import CAPTURES, CaptureFiles
from fisher_agent.config import Config, MachineConfig
from fisher_agent.control import record_files
from fisher_agent.errors import NotLearnt, Unavailable
from fisher_agent.files import parse_channels, read_many
from fisher_agent.gather import Gatherer
from fisher_agent.report import Names
from fisher_agent.sources import open_source
from fisher_agent.sources.replay import blocks
from fisher_agent.stages import Verdict
from fisher_agent.stats import Stats
from fisher_agent.store import Store
from fisher_agent.tags import tag_of
from fisher_agent.tasks import set_within, surely
from fisher_agent.waveforms import Recording

Progress = Callable[[int, int], None]
FIRST_FRAME_S = 15.0


@contextmanager
def open_state(config: Config) -> Iterator[Store]:
    """The state directory for writing, where no daemon holds it."""
    store = app.open_store(config)
    try:
        yield store
    finally:
        store.close()


@contextmanager
def _library(config: Config) -> Iterator[BankLibrary]:
    """The banks for writing: the lock keeps a second process out."""
    with open_state(config) as store:
        yield app.library(config, past=store.past)


def enroll(
    config: Config,
    machine_id: str,
    *,
    duration_s: float | None,
    files: Sequence[Path] | None,
    mode: str | None,
    fault: str | None,
    rate_hz: float | None,
    channels: Sequence[str],
    progress: Progress,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Learn normal running, or a fault; returns `{"bank", "lines", "report"}`. A dry run leaves everything as it is."""
    machine = config.machine(machine_id)
    seconds = duration_s or config.enroll.duration_s
    request: dict[str, Any] = {
        "machine": machine_id,
        "duration_s": seconds,
        "files": [str(f.resolve()) for f in files] if files else None,
        "mode": mode,
        "fault": fault,
        "rate": rate_hz,
        "channels": parse_channels(channels) if channels else None,
        "dry_run": dry_run,
    }
    if client.daemon_answers(config):
        result: dict[str, Any] = client.ask(config, "enroll", progress=progress, **request)
        return result
    with _library(config) as library:
        if files:
            recording = record_files(request, machine, config)
        else:
            recording = asyncio.run(_listen(config, machine, seconds, progress))
        activate: Activate = "never" if dry_run else "now"
        bank, report = library.learn(machine, recording, fault=fault, mode=mode, activate=activate, progress=progress)
    return {"bank": bank.version, "lines": report.lines(), "report": report.as_dict()}


async def _listen(config: Config, machine: MachineConfig, seconds: float, progress: Progress) -> Recording:
    """Record a machine's channels from its sources until there is enough of every one of them."""
    recording = Recording()
    whole = [c.id for c in machine.channels if c.snapshot]
    enough = asyncio.Event()
    stats = Stats()
    wanted = {c.source for c in machine.channels} | ({tag[0]} if (tag := tag_of(machine)) else set())
    names = Names.of(config)

    async def read(name: str) -> None:
        source_config = next(s for s in config.sources if s.name == name)
        source = open_source(source_config, config, client_id=names.client_id(f"enroll-{name}"), stats=stats)
        async with source:
            async for frames in source.frames():
                for frame in frames:
                    if frame.machine == machine.id:
                        recording.add(frame)
                if recording.heard_s(whole=whole) >= seconds:
                    enough.set()

    readers = [asyncio.create_task(surely(read(name)), name=f"enroll {name}") for name in sorted(wanted)]
    started_s = time.monotonic()
    try:
        while not enough.is_set():
            for reader in readers:
                if reader.done() and reader.exception():
                    raise reader.exception() or Unavailable("a source ended")
            await set_within(enough, 1.0)
            progress(int(min(recording.heard_s(whole=whole), seconds)), int(seconds))
            if recording.duration_s == 0 and time.monotonic() - started_s > FIRST_FRAME_S:
                raise Unavailable(
                    f"nothing is heard of {machine.id} in {FIRST_FRAME_S:.0f} s ({stats.total('rejected')} messages "
                    "did not parse); try `fisher-agent check --connect`"
                )
    finally:
        for reader in readers:
            reader.cancel()
        await asyncio.gather(*readers, return_exceptions=True)
    return recording


def score(
    config: Config, machine_id: str, files: Sequence[Path], *, rate_hz: float | None, channels: Sequence[str]
) -> list[dict[str, Any]]:
    """Score recordings against the active bank; one row per verdict. The daemon may go on meanwhile."""
    machine = config.machine(machine_id)
    engine = app.open_engine(config)
    library = BankLibrary(config, app.bank_files(config), engine)
    bank, problem = library.load(machine)
    if bank is None:
        raise NotLearnt(
            problem or f"{machine_id} is not enrolled; run `fisher-agent enroll --machine {machine_id}` first"
        )
    pipeline = engine.pipeline(Stats())
    pipeline.judges[machine.id] = library.judge(machine, bank)
    gatherer = Gatherer(machine, config.window)
    frames = read_many(
        files, machine=machine, rate_hz=rate_hz, channel_map=parse_channels(channels), window=config.window
    )
    # Whole channels one after another would leave the later ones hopelessly late; in blocks they come as from sensors.
    uncut = {(machine.id, c.id) for c in machine.channels if c.snapshot}
    rows = []
    for frame in blocks(frames, uncut=uncut):
        rows += [_row(v) for v in pipeline.process(gatherer.push(frame))]
    rows += [_row(v) for v in pipeline.process(gatherer.flush())]
    engine.embedder.close()
    return rows


def _row(verdict: Verdict) -> dict[str, Any]:
    top = verdict.top if verdict.scored else None
    return {
        "t": verdict.t_ns / 1e9,
        "score": verdict.score if verdict.scored else None,
        "p_value": verdict.p_value if verdict.scored else None,
        "running": verdict.running,
        "mode": verdict.mode or "",
        "unknown_mode": verdict.unknown_mode,
        "quality": str(verdict.quality),
        "fault": verdict.fault or "",
        "top_channel": top.channel if top else "",
        "top_band_hz": [top.peak_band.hz_low, top.peak_band.hz_high] if top and top.peak_band else [],
        "distances": {r.channel: r.distance for r in verdict.readings},
        "note": verdict.note,
    }


def score_lines(rows: Sequence[dict[str, Any]]) -> list[str]:
    """A table, and what it comes to."""
    scores = [r["score"] for r in rows if r["score"] is not None]
    lines = [
        f"{r['t']:.3f}  {'-' if r['score'] is None else format(r['score'], '.3f'):>8}  {r['quality']:7}  "
        f"{r['top_channel']} {r['fault']} {r['note']}".rstrip()
        for r in rows
    ]
    over = sum(s >= 1 for s in scores)
    return [*lines, f"{len(rows)} windows, {len(scores)} scored, {over} at or over the limit (1.0)"]


def machines(config: Config) -> list[dict[str, Any]]:
    """Each machine with its channels, its active bank and, from a running daemon, its probation in words."""
    files = app.bank_files(config)
    known: dict[str, Any] = {}
    with suppress(Unavailable):
        known = client.ask(config, "status")["machines"]
    return [
        {
            "machine": m.id,
            "channels": [c.id for c in m.channels],
            "bank": files.active(m.id) or "",
            "probation": known.get(m.id, {}).get("probation", {}).get("words", ""),
        }
        for m in config.machines
    ]


def machine_lines(rows: Sequence[dict[str, Any]]) -> list[str]:
    """One line per machine."""
    return [
        "  ".join(filter(None, (r["machine"], ", ".join(r["channels"]), r["bank"] or "not enrolled", r["probation"])))
        for r in rows
    ]


def banks(config: Config, machine_id: str | None) -> list[dict[str, Any]]:
    """Every bank version with its manifest."""
    if machine_id:
        config.machine(machine_id)
    return [b for b in list_banks(config, app.bank_files(config)) if machine_id in (None, b["machine"])]


def enrolled_faults(config: Config) -> dict[str, list[str]]:
    """Machine -> the fault classes of its active bank."""
    return {b["machine"]: b.get("faults", []) for b in banks(config, None) if b["active"]}


def bank_lines(rows: Sequence[dict[str, Any]]) -> list[str]:
    """One line per bank."""
    return [
        f"{r['machine']}  {r['version']}{' (active)' if r['active'] else ''}  {r.get('created', '')}  "
        f"{r.get('bundle', '')}  modes: {', '.join(r.get('modes', ['default']))}  "
        f"faults: {', '.join(r.get('faults', [])) or 'none'}  "
        f"kept {r.get('waveform_bytes_kept', 0) / 1e6:.1f} MB"
        for r in rows
    ] or ["no banks yet; enrol a machine with `fisher-agent enroll --machine ID`"]


def captures(config: Config, machine_id: str | None) -> list[dict[str, Any]]:
    """Every capture on this box, the latest first; reading them needs no daemon and no lock."""
    if machine_id:
        config.machine(machine_id)
    return CaptureFiles(config.state_dir / CAPTURES).rows(machine_id)


def capture_lines(rows: Sequence[dict[str, Any]]) -> list[str]:
    """One line per capture."""
    return [
        f"{r['capture']}  {r['bytes'] / 1e6:.1f} MB  "
        + (
            f"DAMAGED: {r['problem']}"
            if r["problem"]
            else f"{datetime.fromtimestamp(r['raised_ns'] / 1e9, UTC).isoformat(timespec='seconds')}  {r['text']}"
        )
        for r in rows
    ] or ["no captures yet; one is written for each anomaly that is raised"]


def rebuild(config: Config, machine_id: str | None, *, progress: Progress) -> list[dict[str, Any]]:
    """Re-embed the kept waveforms of one machine, or of all that are enrolled."""
    chosen = [config.machine(machine_id)] if machine_id else list(config.machines)
    if client.daemon_answers(config):
        return [
            {"machine": m.id, **client.ask(config, "rebuild", progress=progress, machine=m.id)}
            for m in chosen
            if machine_id or _enrolled(config, m.id)
        ]
    with _library(config) as library:
        rows = []
        for machine in chosen:
            if machine_id or _enrolled(config, machine.id):
                bank, report = library.rebuild(machine, progress=progress)
                rows.append({"machine": machine.id, "bank": bank.version, "lines": report.lines()})
    return rows


def _enrolled(config: Config, machine_id: str) -> bool:
    return app.bank_files(config).active(machine_id) is not None


def rebuilt_lines(rows: Sequence[dict[str, Any]]) -> list[str]:
    """What each rebuilt bank looks like."""
    return [line for r in rows for line in (f"{r['machine']} is judged by {r['bank']} now", *r["lines"])] or [
        "no machine is enrolled; nothing to rebuild"
    ]


def rollback(config: Config, machine_id: str, *, dry_run: bool = False) -> str:
    """Go back to the previous bank, back-tested first; a dry run stops there."""
    return _choose(config, "rollback", machine_id, dry_run=dry_run)


def accept(config: Config, machine_id: str, *, dry_run: bool = False) -> str:
    """Judge by the bank that was learnt and waits, such as at the end of a maintenance."""
    return _choose(config, "accept", machine_id, dry_run=dry_run)


def _choose(config: Config, verb: str, machine_id: str, *, dry_run: bool) -> str:
    machine = config.machine(machine_id)
    if client.daemon_answers(config):
        answer: str = client.ask(config, verb, machine=machine_id, dry_run=dry_run)
        return answer
    with _library(config) as library:
        choose = library.rollback if verb == "rollback" else library.accept
        version, sentences = choose(machine, activate=not dry_run)
    said = "would be" if dry_run else "is"
    lines = [f"{machine_id} {said} judged by bank {version}", *(f"  back-test: {s}" for s in sentences)]
    return "\n".join(lines)


def rename(config: Config, machine_id: str, names: Mapping[str, str]) -> str:
    """Call enrolled modes by other names."""
    machine = config.machine(machine_id)
    if client.daemon_answers(config):
        answer: str = client.ask(config, "rename", machine=machine_id, names=dict(names))
        return answer
    with _library(config) as library:
        bank = library.rename(machine, names)
    return f"bank {bank.version} of {machine_id} has the modes {', '.join(bank.modes)}"


def confirm(config: Config, machine_id: str, *, false_alarm: int | None, by: str) -> str:
    """End a machine's probation, or call one of its alarms false."""
    config.machine(machine_id)
    answer: str = client.ask(config, "confirm", machine=machine_id, false_alarm=false_alarm, by=by)
    return answer


def forget(config: Config, machine_id: str) -> str:
    """Delete every bank of a machine."""
    config.machine(machine_id)
    if client.daemon_answers(config):
        answer: str = client.ask(config, "forget", machine=machine_id)
        return answer
    with open_state(config):
        app.bank_files(config).forget(machine_id)
    return f"every bank of {machine_id} is deleted; it is not judged until it is enrolled again"
