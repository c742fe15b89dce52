"""What was heard of a machine, in memory: the blocks of every channel as they came, to learn from and to keep."""

import heapq
import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fisher_agent.errors import BadFile
from fisher_agent.stages import Frame, Tag
from fisher_agent.wire import MAX_T_NS, STATED_RATES_HZ

MERGED_BELOW_S = 0.05  # the shortest snapshot: what is shorter belongs to a stream and may be joined
MERGED_UP_TO_S = 0.25
LONGEST_BLOCK_S = 10.0  # the longest snapshot: what is longer belongs to a stream and may be cut
STAMP_ROUNDING_NS = 1_000_000
MAX_LENGTH = 2**32  # samples of a kept block
BLOCK_PARTS: dict[str, type[np.generic]] = {
    "t_ns": np.int64, "rate_hz": np.float64, "length": np.int64, "gap": np.bool_,
}  # fmt: skip
PIECE_S = 0.25  # streams are replayed in such pieces, so that no channel runs ahead of another by more


class Recording:
    """Blocks of one machine's channels with their own times: replaying them gives the windows that the stream gave.

    Samples are shared with the frames that were added, not copied, except where a sender's blocks are very short.
    """

    def __init__(self) -> None:
        self._blocks: dict[str, list[Frame]] = {}
        self._short: dict[str, list[Frame]] = {}  # the tail of each channel, waiting to be joined
        self._latest: dict[str, Frame] = {}
        self.tags: list[Tag] = []  # what was said of the operating mode meanwhile; not kept on disk

    @property
    def channels(self) -> tuple[str, ...]:
        """Channels that gave anything."""
        return tuple(dict.fromkeys((*self._blocks, *self._short)))

    @property
    def nbytes(self) -> int:
        """Memory held by the samples."""
        return sum(f.samples.nbytes for c in self.channels for f in self._of(c))

    @property
    def duration_s(self) -> float:
        """Seconds of samples of the channel that gave most."""
        return max((self.channel_s(c) for c in self.channels), default=0.0)

    def channel_s(self, channel: str) -> float:
        """Seconds of samples of one channel."""
        return sum(len(f.samples) / f.rate_hz for f in self._of(channel))

    def heard_s(self, *, whole: Collection[str] = ()) -> float:
        """Seconds of the channel that gave most: of samples, or, of `whole` channels (snapshots), that they span."""
        spans = [
            (_end_ns(max(frames, key=_end_ns)) - min(frames, key=_start_ns).t_ns) / 1e9
            for c in whole
            if (frames := self._of(c))
        ]
        return max((*spans, self.duration_s))

    def said(self, machine: str, word: str) -> None:
        """The operating mode that was in force when it began; "" where nobody said one."""
        if word:
            self.tags.append(Tag(machine, "", 0, 1.0, np.zeros(0, np.float32), word=word))

    def add(self, frame: Frame) -> None:
        """Keep a frame. Counters are not kept: a hole that the stamps do not show (very short blocks) becomes a gap."""
        if isinstance(frame, Tag) and not (self.tags and self.tags[-1].word == frame.word):
            self.tags.append(frame)
        if not len(frame.samples):
            return
        before = self._latest.get(frame.channel)
        self._latest[frame.channel] = frame
        frame = without_seq(frame, before)
        duration_s = len(frame.samples) / frame.rate_hz
        tail = self._short.get(frame.channel, [])
        if tail and (frame.gap or not _follows(tail[-1], frame)):
            self._join(frame.channel)
        if duration_s < MERGED_BELOW_S:
            self._short.setdefault(frame.channel, []).append(frame)
            if sum(len(f.samples) for f in self._short[frame.channel]) >= MERGED_UP_TO_S * frame.rate_hz:
                self._join(frame.channel)
            return
        self._join(frame.channel)
        longest = min(duration_s, LONGEST_BLOCK_S)
        self._blocks.setdefault(frame.channel, []).extend(_pieces(frame, longest))

    def frames(self, *, whole: Collection[str] = ()) -> Iterator[Frame]:
        """All frames in the order of their ends: of `whole` channels (snapshots) as kept, of streams in short pieces.

        Of blocks with the same stamp, sent again, only the first is given.
        """
        yield from heapq.merge(*(self._replay(c, whole=c in whole) for c in self.channels), key=_end_ns)

    def thinned(self, max_bytes: int) -> "Recording":
        """The most recent stretch, the same for all channels, whose blocks take up to `max_bytes` together."""
        left = max_bytes
        kept: list[Frame] = []
        for frame in sorted((f for c in self.channels for f in self._of(c)), key=_end_ns, reverse=True):
            left -= frame.samples.nbytes
            if left < 0:
                break
            kept.append(frame)
        out = Recording()
        for frame in reversed(kept):
            out._blocks.setdefault(frame.channel, []).append(frame)
        return out

    def within(self, spans: NDArray[np.int64], *, whole: Collection[str] = ()) -> "Recording":
        """The samples of some times (n, 2), from the first nanosecond to one past the last, in order, not touching.

        Each span is a stretch of its own: no window reaches from one into the next. Blocks of `whole` channels
        (snapshots) are kept uncut where they end in a span, for that is where they are judged.
        """
        out = Recording()
        for channel in self.channels:
            kept: list[Frame] = []
            for frame in sorted(self._of(channel), key=_start_ns):
                if channel in whole:
                    ends = ((spans[:, 0] < _end_ns(frame)) & (_end_ns(frame) <= spans[:, 1])).any()
                    kept += [frame] if ends else []
                    continue
                first = int(np.searchsorted(spans[:, 1], frame.t_ns, side="right"))
                for begin_ns, end_ns in spans[first:].tolist():
                    if begin_ns >= _end_ns(frame):
                        break
                    if (piece := _cut(frame, begin_ns, end_ns)) is not None:
                        kept.append(piece)
            if kept:
                out._blocks[channel] = kept
        return out

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Everything as named arrays, to be saved."""
        out: dict[str, NDArray[Any]] = {}
        for channel in self.channels:
            frames = self._of(channel)
            out["machine"] = np.frombuffer(frames[0].machine.encode(), dtype=np.uint8)
            out[f"{channel}/samples"] = np.concatenate([f.samples for f in frames])
            out[f"{channel}/length"] = np.asarray([len(f.samples) for f in frames], dtype=np.int64)
            out[f"{channel}/t_ns"] = np.asarray([f.t_ns for f in frames], dtype=np.int64)
            out[f"{channel}/rate_hz"] = np.asarray([f.rate_hz for f in frames], dtype=np.float64)
            out[f"{channel}/gap"] = np.asarray([f.gap for f in frames], dtype=np.bool_)
        return out

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> "Recording":
        """The reverse of `to_arrays`; BadFile where the arrays do not fit together."""
        out = cls()
        try:
            machine = arrays["machine"].tobytes().decode() if arrays else ""
            for name in arrays:
                channel, slash, part = name.rpartition("/")
                if slash and part == "samples":
                    out._blocks[channel] = _frames_of(machine, channel, arrays)
        except (KeyError, ValueError) as error:
            raise BadFile(f"the kept waveforms are damaged ({error}); enrol again") from error
        return out

    def _replay(self, channel: str, *, whole: bool) -> Iterator[Frame]:
        at_ns: int | None = None
        for frame in sorted(self._of(channel), key=_start_ns):
            if frame.t_ns != at_ns:
                yield from (frame,) if whole else _pieces(frame, PIECE_S)
            at_ns = frame.t_ns

    def _of(self, channel: str) -> list[Frame]:
        self._join(channel)
        return self._blocks.get(channel, [])

    def _join(self, channel: str) -> None:
        if tail := self._short.pop(channel, None):
            joined = tail[0] if len(tail) == 1 else replace(tail[0], samples=np.concatenate([f.samples for f in tail]))
            self._blocks.setdefault(channel, []).append(joined)


def without_seq(frame: Frame, before: Frame | None) -> Frame:
    """The frame without its counter; a hole that only the counter shows, not the stamps, becomes a gap."""
    hole = before is not None and _follows(before, frame) and _skips(before, frame)
    return replace(frame, seq=None, gap=frame.gap or hole)


def _start_ns(frame: Frame) -> int:
    return frame.t_ns


def _end_ns(frame: Frame) -> int:
    return frame.t_ns + round(len(frame.samples) * 1e9 / frame.rate_hz)


def _cut(frame: Frame, begin_ns: int, end_ns: int) -> Frame | None:
    """The samples that lie in a time; None where there are none."""
    per_ns = frame.rate_hz / 1e9
    first = max(0, math.ceil(round((begin_ns - frame.t_ns) * per_ns, 6)))
    last = min(len(frame.samples), math.ceil(round((end_ns - frame.t_ns) * per_ns, 6)))
    if first >= last:
        return None
    t_ns = frame.t_ns + round(first * 1e9 / frame.rate_hz)
    return replace(frame, t_ns=t_ns, samples=frame.samples[first:last], gap=frame.gap or frame.t_ns < begin_ns)


def _follows(before: Frame, frame: Frame) -> bool:
    """Whether a frame begins where the one before ends, as far as stamps rounded to ms can tell."""
    return frame.rate_hz == before.rate_hz and abs(frame.t_ns - _end_ns(before)) <= STAMP_ROUNDING_NS


def _skips(before: Frame, frame: Frame) -> bool:
    return before.seq is not None and frame.seq is not None and frame.seq != (before.seq + 1) % 2**32


def _pieces(frame: Frame, longest_s: float) -> Iterator[Frame]:
    step = max(1, round(longest_s * frame.rate_hz))
    for first in range(0, len(frame.samples), step):
        t_ns = frame.t_ns + round(first * 1e9 / frame.rate_hz)
        yield replace(frame, t_ns=t_ns, samples=frame.samples[first : first + step], gap=frame.gap and first == 0)


def _frames_of(machine: str, channel: str, arrays: Mapping[str, NDArray[Any]]) -> list[Frame]:
    samples = arrays[f"{channel}/samples"]
    parts = {part: arrays[f"{channel}/{part}"] for part in BLOCK_PARTS}
    ends = block_ends(channel, parts)
    if samples.shape != (ends[-1],) or samples.dtype != np.float32 or not np.isfinite(samples).all():
        raise ValueError(f"{channel}: {samples.shape} samples of {samples.dtype} for {len(ends)} blocks")
    columns = [array.tolist() for array in parts.values()]
    return [
        Frame(machine, channel, t_ns, rate_hz, samples[end - length : end], gap=gap)
        for t_ns, rate_hz, length, gap, end in zip(*columns, ends.tolist(), strict=True)
    ]


def block_ends(channel: str, parts: Mapping[str, NDArray[Any]]) -> NDArray[np.int64]:
    """Where each kept block ends among the samples; ValueError where their times, rates and lengths are none."""
    n = parts["t_ns"].shape
    if any(array.dtype != BLOCK_PARTS[part] or array.shape != n or array.ndim != 1 for part, array in parts.items()):
        raise ValueError(f"{channel}: its blocks have times, rates, lengths and gaps that do not fit together")
    t_ns, rate_hz, length = parts["t_ns"], parts["rate_hz"], parts["length"]
    sound = n[0] > 0 and ((t_ns >= 0) & (t_ns <= MAX_T_NS) & (length >= 1) & (length <= MAX_LENGTH)).all()
    if not sound or not ((rate_hz >= STATED_RATES_HZ[0]) & (rate_hz <= STATED_RATES_HZ[1])).all():
        raise ValueError(f"{channel}: a block has a time, rate or length that none can have")
    return np.cumsum(length)
