"""The nouns of the data path and the seams between its stages; every other module speaks in these.

Times are integer nanoseconds UTC (`t_ns`, `end_ns`). Arrays are float32 and read-only by convention: a stage that
changes samples makes a copy.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from fisher_agent.codes import Quality, Status

Floats = NDArray[np.float32]
Scalar = float | int | str | bool
T_contra = TypeVar("T_contra", contravariant=True)


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """What a sensor sent: a contiguous block of one channel, of any length, already in the channel's unit."""

    machine: str
    channel: str
    t_ns: int  # event time of samples[0]
    rate_hz: float  # the rate the sender states, or the configured one where the format carries none
    samples: Floats  # (n,)
    seq: int | None = None  # the sender's counter, if it has one
    gap: bool = False  # the source knows that samples are missing before this block


@dataclass(frozen=True, slots=True, eq=False)
class Tag(Frame):
    """A word about a machine instead of samples: the operating mode that it is in from `t_ns` on."""

    word: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Window(Frame):
    """A frame exactly one window long, lying on the grid and spanning no gap; or one whole snapshot.

    `end_ns` is the grid time the window belongs to: k x hop + length for a stream; for a snapshot the first grid
    time not before the snapshot's end. The last samples of a sparse channel count as a snapshot too.
    """

    end_ns: int = 0
    snapshot: bool = False


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Moment:
    """The windows of one machine that belong to one grid time; what the backlog holds and a verdict is made of."""

    machine: str
    end_ns: int
    windows: tuple[Window, ...]
    mode: str = ""  # the operating mode that a tag says; "": none does
    settled: bool = True  # the tag did not change during the windows, nor so shortly before that it still counts
    distrusted: Mapping[str, tuple[Status, str]] = field(default_factory=dict)  # channel -> what its stream shows of it

    @property
    def nbytes(self) -> int:
        """Memory held by the samples."""
        return sum(w.samples.nbytes for w in self.windows)


@dataclass(frozen=True, slots=True, eq=False)
class Embedding:
    """One window as the model sees it; the signal embedding is the flattening of `bands`, low band first."""

    machine: str
    channel: str
    t_ns: int
    bands: Floats  # (n_bands, d)


@dataclass(frozen=True, slots=True)
class Peak:
    """Where in frequency a window differs most from its nearest enrolled one."""

    hz_low: float
    hz_high: float
    change_db: float


@dataclass(frozen=True, slots=True)
class ChannelReading:
    """What one channel contributed to a verdict, with the physical indicators of the same window."""

    channel: str
    distance: float  # cosine distance to the nearest enrolled window; -1 where the channel was not embedded
    ratio: float  # the larger of distance and deviation, each over its limit; -1 where the channel was not scored
    contribution: float  # this channel's part of the machine's excess, 0..1, summing to 1 over channels (or all 0)
    rms: float  # in the channel's unit, mean removed
    peak: float
    crest: float
    kurtosis: float
    velocity_rms_mm_s: float | None  # 10..1000 Hz, only for vibration in g or m/s2
    flat: bool
    clipped: bool
    bands: tuple[float, ...]  # share of the distance per model band, sums to 1 (or all 0)
    band_edges_hz: tuple[tuple[float, float], ...]
    peak_band: Peak | None
    deviation: float = -1.0  # of the indicators from the nearest enrolled windows, in spreads; -1: not compared
    mean: float | None = None  # in the channel's unit, where that says something
    nearest_ns: int = 0  # grid time of the nearest enrolled window, in the view that decided; 0: not compared
    status: Status = Status.OK  # what this window says of its sensor; any other word: it was not compared
    status_text: str = ""  # why


@dataclass(frozen=True, slots=True)
class Verdict:
    """About one machine, at one grid time. `score` 1.0 is the calibrated limit."""

    machine: str
    t_ns: int  # the window's end
    score: float
    p_value: float  # share of normal windows at least this strange
    mode: str | None  # the operating mode (bank) that it was judged by; None where it was not judged
    running: bool
    enrolled: bool
    fault: str | None  # a class, "unknown", or None: nothing to name
    fault_confidence: float
    quality: Quality
    readings: tuple[ChannelReading, ...] = ()
    faults: Mapping[str, float] = field(default_factory=dict)  # class -> share of the vote
    bank: str = ""  # version of the bank
    note: str = ""  # why it was not scored, for the log and `score`
    unknown_mode: bool = False  # it runs in an operating mode that was not enrolled: an advisory, not a fault
    transient: bool = False  # it was starting, stopping, or changing its mode

    @property
    def scored(self) -> bool:
        """Whether `score` means anything: enrolled, running steadily in a known mode, at least one channel compared."""
        steady = self.running and not self.unknown_mode and not self.transient
        return self.enrolled and steady and self.quality is not Quality.BAD

    @property
    def shares(self) -> dict[str, tuple[float, ...]]:
        """Channel -> share of its distance per band."""
        return {r.channel: r.bands for r in self.readings if r.bands}

    @property
    def top(self) -> ChannelReading | None:
        """The channel that carries most of the excess; None where nothing was scored."""
        scored = [r for r in self.readings if r.ratio >= 0]
        return max(scored, key=lambda r: r.ratio) if scored else None


@dataclass(frozen=True, slots=True)
class Point:
    """One point of a time series: measurement, tags, fields and the time in ns (written in ms)."""

    measurement: str
    tags: tuple[tuple[str, str], ...]
    fields: tuple[tuple[str, Scalar], ...]
    t_ns: int


@dataclass(frozen=True, slots=True)
class Message:
    """An MQTT message out. A retained one replaces its older self in the outbox; an event is kept with all others."""

    topic: str
    payload: bytes
    qos: int = 1
    retain: bool = False


@dataclass(frozen=True, slots=True)
class Rejected:
    """Which items of a batch the other side will never take (positions in the batch), and why."""

    positions: tuple[int, ...] = ()
    reason: str = ""


class Source(Protocol):
    """Owns a socket or a file. Yields frames in batches, or raises Unavailable; it never retries.

    Used as `async with source: async for frames in source.frames(): ...`. Entering connects. Bad payloads and drops
    are counted by the source in the `Stats` it was given.
    """

    name: str

    async def __aenter__(self) -> Self: ...
    async def __aexit__(self, *exc: object) -> None: ...
    def frames(self) -> AsyncIterator[Sequence[Frame]]:
        """Yield what has arrived since the last turn, oldest first; raise Unavailable when the link is gone."""
        ...


class Embedder(Protocol):
    """A model at work. Blocking; always called from the same one thread."""

    name: str  # "openvino", "tensorrt", "torch"
    precision: str  # "f32", ...
    device: str

    def embed(self, bands: Floats, centres: Floats) -> Floats:
        """(n, t, f), (n,) -> (n, d); raises BackendFailed."""
        ...

    def close(self) -> None:
        """Release the device."""
        ...


class Sink(Protocol[T_contra]):
    """Takes a batch and says what was rejected for good, or raises Unavailable and the batch is kept."""

    async def __aenter__(self) -> Self: ...
    async def __aexit__(self, *exc: object) -> None: ...
    async def write(self, batch: Sequence[T_contra]) -> Rejected:
        """Deliver the batch; returns only when all but the rejected items are accepted."""
        ...
