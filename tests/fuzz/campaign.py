"""A campaign: every target in a process of its own, so that what kills one is a finding and not the end."""

import json
import mmap
import multiprocessing
import os
import platform
import struct
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random
from typing import Any

import structlog

from fuzz.harness import Finding, Opened, Target, Watch, peak_bytes

SHARED_BYTES = 16_000_000
SHM = Path("/dev/shm")  # flushing to a disk would be most of the time
HEAD = struct.Struct("<QQ")  # inputs begun, and the length of the latest
STUCK_S = 60.0  # of one input, on whatever machine, before its process is killed
MAX_FINDINGS = 50
MAX_RESTARTS = 20
fork = multiprocessing.get_context("fork")  # what is imported is imported once for all targets


@dataclass(slots=True)
class Result:
    """What a target did with its inputs."""

    name: str
    inputs: int = 0
    accepted: int = 0
    seconds: float = 0.0
    worst_s: float = 0.0
    worst_number: int = 0
    peak_bytes: int = 0  # over what the process held when the target was open
    findings: dict[tuple[str, str, str], Finding] = field(default_factory=dict)
    seen: dict[tuple[str, str, str], int] = field(default_factory=dict)  # how often each was met

    def add(self, finding: Finding, times: int = 1) -> None:
        """Keep one of each, with the smallest input."""
        self.seen[finding.key] = self.seen.get(finding.key, 0) + times
        kept = self.findings.get(finding.key)
        if kept is None or len(finding.data) < len(kept.data):
            self.findings[finding.key] = finding


def seeded(seed: int, number: int) -> Random:
    """Where an input comes from."""
    return Random(seed << 40 | number)


def run(target: Target, *, inputs: int, seed: int, end_s: float = float("inf")) -> Result:
    """Feed one target; `end_s` (monotonic) cuts it short."""
    result = Result(target.name)
    shared = mmap.mmap(-1, SHARED_BYTES)
    first, restarts = 0, 0
    while first < inputs and restarts < MAX_RESTARTS and len(result.findings) < MAX_FINDINGS:
        shared[: HEAD.size] = HEAD.pack(first, 0)
        here, there = fork.Pipe(duplex=False)
        # The folder is this process's, for one that is killed leaves what it made.
        with tempfile.TemporaryDirectory(prefix="fuzz-", dir=SHM if SHM.is_dir() else None) as folder:
            work = (target, Path(folder), seed, range(first, inputs), end_s, shared, there)
            process = fork.Process(target=_work, args=work)
            process.start()
            there.close()
            ended = _watch(here, shared, result, process)
            process.join()
        if ended:
            break
        if process.exitcode is None or process.exitcode > 0:
            raise RuntimeError(f"the target {target.name} itself is broken; its traceback stands above")
        number, length = HEAD.unpack_from(shared)
        how = f"the process ended by signal {-(process.exitcode or 0)}"
        result.add(Finding("crash", how, target.name, shared[HEAD.size : HEAD.size + length], number))
        result.inputs = first = number + 1
        restarts += 1
    return result


def _watch(here: Connection, shared: mmap.mmap, result: Result, process: Any) -> bool:
    """Take what the process says until it ends; False where it did not come to its end."""
    before, since_s = (0, 0), time.monotonic()
    try:
        while True:
            if here.poll(1.0):
                kind, body = here.recv()
                if kind == "finding":
                    result.add(body)
                    continue
                for name in ("inputs", "accepted", "seconds"):
                    setattr(result, name, getattr(result, name) + body[name])
                if body["worst_s"] > result.worst_s:
                    result.worst_s, result.worst_number = body["worst_s"], body["worst_number"]
                result.peak_bytes = max(result.peak_bytes, body["peak_bytes"])
                if kind == "end":
                    return True
            now = HEAD.unpack_from(shared)
            if now != before:
                before, since_s = now, time.monotonic()
            elif time.monotonic() - since_s > STUCK_S:
                process.kill()
    except EOFError:
        return False


def _work(
    target: Target, folder: Path, seed: int, numbers: range, end_s: float, shared: mmap.mmap, there: Connection
) -> None:
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory(), processors=[lambda *_: ""])
    with target.open(folder) as opened:
        watch = Watch(target, opened)
        report = _Report(there, peak_bytes())
        known: set[tuple[str, str, str]] = set()
        if numbers.start == 0:
            _prove(watch, opened, report, shared)
        for number in numbers:
            if time.monotonic() >= end_s or len(known) >= MAX_FINDINGS:
                break
            data = opened.make(seeded(seed, number))
            _note(shared, number, data)
            outcome = watch.attempt(data, number)
            report.count(number, outcome.seconds, accepted=outcome.accepted)
            if outcome.finding is not None:
                found = outcome.finding
                if found.key not in known:
                    known.add(found.key)
                    found = watch.smallest(found)
                there.send(("finding", found))
            if number % 4096 == 0:
                report.send("so far")
        report.send("end")


def _prove(watch: Watch, opened: Opened, report: "_Report", shared: mmap.mmap) -> None:
    """A target that refuses its own samples would find nothing behind its first check."""
    for n, sample in enumerate(opened.samples):
        _note(shared, 0, sample)
        outcome = watch.attempt(sample, -1 - n)
        if outcome.finding is not None:
            report.there.send(("finding", outcome.finding))
        elif not outcome.accepted:
            report.there.send(("finding", Finding("exception", "its own sample is refused", "", sample, -1 - n)))


def _note(shared: mmap.mmap, number: int, data: bytes) -> None:
    kept = data[: SHARED_BYTES - HEAD.size]
    shared[: HEAD.size + len(kept)] = HEAD.pack(number, len(kept)) + kept


class _Report:
    """Counts in the child; the parent adds up what it is sent."""

    def __init__(self, there: Connection, base_bytes: int) -> None:
        self.there = there
        self._base_bytes = base_bytes
        self._clear()

    def _clear(self) -> None:
        self._begun_s = time.perf_counter()
        self._body: dict[str, Any] = {"inputs": 0, "accepted": 0, "worst_s": 0.0, "worst_number": 0}

    def count(self, number: int, seconds: float, *, accepted: bool) -> None:
        self._body["inputs"] += 1
        self._body["accepted"] += accepted
        if seconds > self._body["worst_s"]:
            self._body |= {"worst_s": seconds, "worst_number": number}

    def send(self, kind: str) -> None:
        seconds = time.perf_counter() - self._begun_s
        self.there.send((kind, self._body | {"seconds": seconds, "peak_bytes": peak_bytes() - self._base_bytes}))
        self._clear()


def campaign(
    targets: Sequence[Target], *, inputs: int, seed: int, minutes: float | None, say: Callable[[Result], None]
) -> dict[str, Any]:
    """All targets, one after the other; the report. `minutes` are shared out evenly."""
    began = datetime.now(UTC)
    results = []
    for n, target in enumerate(targets):
        left_s = float("inf")
        if minutes is not None:
            left_s = (minutes * 60 - (datetime.now(UTC) - began).total_seconds()) / (len(targets) - n)
        asked = max(1, round(inputs * target.share))
        results.append(run(target, inputs=asked, seed=seed, end_s=time.monotonic() + left_s))
        say(results[-1])
    return {
        "began": began.isoformat(timespec="seconds"),
        "hours": round((datetime.now(UTC) - began).total_seconds() / 3600, 3),
        "seed": seed,
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "targets": [_row(r) for r in results],
    }


def _row(result: Result) -> dict[str, Any]:
    return {
        "name": result.name,
        "inputs": result.inputs,
        "accepted": result.accepted,
        "per_s": round(result.inputs / result.seconds, 1) if result.seconds else 0.0,
        "worst_s": round(result.worst_s, 4),
        "worst_number": result.worst_number,
        "peak_mb": round(result.peak_bytes / 1e6, 1),
        "findings": [
            {
                "kind": f.kind, "detail": f.detail, "where": f.where, "number": f.number, "times": result.seen[f.key],
                "bytes": len(f.data), "hex": f.data[:4000].hex(), "trace": f.trace,
            }
            for f in result.findings.values()
        ],
    }  # fmt: skip


def save(report: dict[str, Any], path: Path) -> None:
    """As JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
