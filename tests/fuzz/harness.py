"""What a target is, and what happens to one input: it ends, or is refused by an error that says so, in time and memory.

A finding is anything else: an exception that the module does not promise, a warning (it would reach the journal), more
than `HANG_S` of processor time, more than `ROOM_BYTES` + `ROOM_TIMES` x the input of memory, or the end of the process.
"""

import contextlib
import resource
import signal
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from types import FrameType

from fisher_agent.errors import FisherError

HANG_S = 1.0
ROOM_BYTES, ROOM_TIMES = 64_000_000, 64
AS_BYTES = 400_000_000  # beyond what the process has mapped when the target is open: arenas of threads count here, too
PRODUCT = ("fisher_agent", "fisher_models")
SHRINK_TRIES, SHRINK_S = 400, 10.0


@dataclass(frozen=True, slots=True)
class Opened:
    """A target that is ready: what makes inputs, what takes them, and samples that must be taken without an error."""

    samples: Sequence[bytes]
    make: Callable[[Random], bytes]
    run: Callable[[bytes], object]


@dataclass(frozen=True, slots=True)
class Target:
    """One place where bytes come in. `open` gets an empty folder; `share` is this target's part of the inputs asked."""

    name: str
    open: Callable[[Path], contextlib.AbstractContextManager[Opened]]
    allowed: tuple[type[Exception], ...] = (FisherError,)
    share: float = 1.0


@dataclass(frozen=True, slots=True)
class Finding:
    """One defect: what happened where, and the smallest input that was seen to do it."""

    kind: str  # exception | warning | hang | memory | crash
    detail: str
    where: str
    data: bytes = field(repr=False)
    number: int  # of the input, by which it can be made again; -1 - n for the n-th sample
    trace: str = field(default="", repr=False)

    @property
    def key(self) -> tuple[str, str, str]:
        """What makes two findings one."""
        return self.kind, self.detail.partition(":")[0], self.where


class Hung(KeyboardInterrupt):
    """An input takes too long; a KeyboardInterrupt, since that is what event loops let through."""


@dataclass(slots=True)
class Outcome:
    """What became of one input."""

    accepted: bool
    seconds: float
    grown_bytes: int
    finding: Finding | None


class Watch:
    """Runs single inputs in this process, under its limits; of the main thread."""

    def __init__(self, target: Target, opened: Opened) -> None:
        self._target = target
        self._opened = opened
        self._late = False
        mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (mapped + AS_BYTES, resource.RLIM_INFINITY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        # Of processor time, since another program may hold the machine.
        signal.signal(signal.SIGPROF, self._too_late)
        warnings.simplefilter("error")
        warnings.simplefilter(
            "ignore", ResourceWarning
        )  # raised where nobody catches it; files are closed by the collector

    def attempt(self, data: bytes, number: int) -> Outcome:
        """Run one input."""
        self._late = False
        before_bytes, begun_s = peak_bytes(), time.perf_counter()
        signal.setitimer(signal.ITIMER_PROF, HANG_S)
        accepted, problem, seen = False, "", None
        try:
            self._opened.run(data)
            accepted = True
        except self._target.allowed:
            pass
        except Warning as error:
            problem, seen = "warning", error
        except Hung as error:
            problem, seen = "hang", error
        except BaseException as error:  # noqa: BLE001 (whatever it is, it is a finding)
            problem, seen = "exception", error
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
        seconds, grown = time.perf_counter() - begun_s, peak_bytes() - before_bytes
        finding = None
        if self._late:
            detail, where = f"more than {HANG_S:g} s of processor time", _where(seen)
            finding = Finding("hang", detail, where, data, number, _trace(seen))
        elif seen is not None:
            detail = f"{type(seen).__name__}: {str(seen)[:200]!a}"
            finding = Finding(problem, detail, _where(seen), data, number, _trace(seen))
        elif grown > ROOM_BYTES + ROOM_TIMES * len(data):
            finding = Finding("memory", f"{grown >> 20} MiB for {len(data)} bytes", self._target.name, data, number)
        return Outcome(accepted, seconds, grown, finding)

    def smallest(self, finding: Finding) -> Finding:
        """The finding with as much of its input left out as does not change it."""
        if finding.kind not in ("exception", "warning"):
            return finding
        tries, end_s = SHRINK_TRIES, time.monotonic() + SHRINK_S
        for size in _halves(len(finding.data)):
            at = 0
            while at < len(finding.data) and tries and time.monotonic() < end_s:
                tries -= 1
                shorter = finding.data[:at] + finding.data[at + size :]
                found = self.attempt(shorter, finding.number).finding
                if found is not None and found.key == finding.key:
                    finding = found
                else:
                    at += size
        return finding

    def _too_late(self, _signal: int, _frame: FrameType | None) -> None:
        self._late = True
        raise Hung


def peak_bytes() -> int:
    """The most memory that this process ever held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _halves(size: int) -> Iterator[int]:
    size = max(1, size // 2)
    while size > 1:
        yield size
        size //= 2
    yield 1


def _where(error: BaseException | None) -> str:
    """The deepest line of ours that an error came through."""
    frames = traceback.extract_tb(error.__traceback__) if error is not None else []
    ours = [f for f in frames if any(f"/{package}/" in f.filename for package in PRODUCT)] or list(frames)
    return f"{Path(ours[-1].filename).name}:{ours[-1].lineno} {ours[-1].name}" if ours else ""


def _trace(error: BaseException | None) -> str:
    return "".join(traceback.format_exception(error)[-12:]) if error is not None else ""
