"""Place samples in time, exactly: the event-time grid, a sampling rate, a stretch of samples without a gap.

Window k covers [k x hop, k x hop + length) of UTC, starts at the first sample not before k x hop and has
round(length x rate) samples. All times are integers and rates are ratios of integers, so nothing accumulates at rates
such as 97656.25 Hz.
"""

from collections import deque
from dataclasses import dataclass

import numpy as np

from fisher_agent.stages import Floats

STAMP_TOLERANCE_NS = 2_000_000
"""Two stamps rounded to ms differ by up to 1 ms from the sample count; as much again is left for jitter and drift."""
RATE_TOLERANCE = 1e-3
"""A crystal is within 0.02 %; 0.1 % moves the highest line of a 25.6 kHz channel by 13 Hz, a third of a model bin."""
EMPTY = np.empty(0, np.float32)


@dataclass(frozen=True, slots=True)
class Grid:
    """The event-time grid: grid time k is the end of window k."""

    length_ns: int
    hop_ns: int

    def end_ns(self, k: int) -> int:
        """Grid time k."""
        return k * self.hop_ns + self.length_ns

    def last_until(self, t_ns: int) -> int:
        """The last grid time not after `t_ns`."""
        return self.end_ns((t_ns - self.length_ns) // self.hop_ns)

    def first_from(self, t_ns: int) -> int:
        """The first grid time not before `t_ns`."""
        return self.end_ns(-((self.length_ns - t_ns) // self.hop_ns))


class Rate:
    """Samples to nanoseconds and back, exactly: the rate as a ratio of integers."""

    def __init__(self, rate_hz: float) -> None:
        self.hz = float(rate_hz)
        self._samples, seconds = self.hz.as_integer_ratio()
        self._ns = seconds * 1_000_000_000
        period_ns = self._ns // self._samples
        self.stamp_tolerance_ns = max(STAMP_TOLERANCE_NS, period_ns * 3 // 2)
        # A stamp rounded to 1 us or to a double of seconds must not push a window's first sample to the next one.
        self.grid_tolerance_ns = min(max(1_000, period_ns // 100), period_ns // 2)

    def matches(self, rate_hz: float) -> bool:
        """Whether a stated rate is this one, give or take drift; False for NaN."""
        return abs(rate_hz - self.hz) <= RATE_TOLERANCE * self.hz

    def span_ns(self, n: int) -> int:
        """How long `n` samples take."""
        return (n * self._ns + self._samples // 2) // self._samples

    def samples_to(self, span_ns: int) -> int:
        """The smallest n for which n samples take at least `span_ns`."""
        return -(-span_ns * self._samples // self._ns)

    def first_window(self, grid: Grid, t_ns: int) -> int:
        """The first k whose first sample is at or after the sample at `t_ns`."""
        due = (t_ns + self.grid_tolerance_ns) * self._samples - self._ns  # one sample earlier, as a ratio
        return due // (grid.hop_ns * self._samples) + 1


class Run:
    """A stretch of one channel without a gap: places samples in time and keeps what unfinished windows need.

    Samples are appended to a buffer that is never written twice, so windows are read-only views of it and stay valid.
    A full buffer is replaced by a new one that starts with the oldest unfinished window; with twice a window's size
    a sample is copied at most twice, however small the hop.
    """

    def __init__(self, t_ns: int, *, grid: Grid, rate: Rate) -> None:
        self._grid = grid
        self._rate = rate
        self._size = round(grid.length_ns * rate.hz / 1e9)
        self._capacity = self._size if grid.hop_ns >= grid.length_ns else 2 * self._size
        # Above half the tolerance a deviation is drift, no longer the rounding of two stamps to ms.
        self._drift_ns = rate.stamp_tolerance_ns // 2 + 1_000
        self._anchor = 0, t_ns  # this sample has this time
        self._count = 0  # samples since the run began
        self._next_k = rate.first_window(grid, t_ns)
        self._begun: deque[tuple[int, int, int]] = deque()  # k, first sample, its time
        self._buffer: Floats = EMPTY
        self._origin = 0  # the run's index of buffer[0]
        self._filled = 0

    @property
    def first_end_ns(self) -> int:
        """The first grid time that is neither made nor begun."""
        return self._grid.end_ns(self._next_k)

    @property
    def head_ns(self) -> int:
        """When the next sample is due."""
        return self._time_ns(self._count)

    def extend(self, t_ns: int, samples: Floats) -> list[tuple[int, int, Floats]]:
        """Append a block stamped `t_ns`; returns (end_ns, t_ns, samples) of the windows that it completes, in order."""
        begin, end = self._count, self._count + len(samples)
        if abs(t_ns - self.head_ns) > self._drift_ns:
            self._anchor = begin, t_ns
        while (first := max(self._first_sample(self._next_k), begin)) < end:
            self._begun.append((self._next_k, first, self._time_ns(first)))
            self._next_k += 1
        self._count = end

        done: list[tuple[int, int, Floats]] = []
        at = begin
        while at < end and self._begun:
            first = self._begun[0][1]
            if self._filled == len(self._buffer) or first >= self._origin + self._filled:
                self._renew_buffer(first)
            at = max(at, self._origin + self._filled)  # what lies before is in no window
            n = min(end - at, len(self._buffer) - self._filled)
            self._buffer[self._filled : self._filled + n] = samples[at - begin : at - begin + n]
            self._filled += n
            at += n
            while self._begun and self._begun[0][1] + self._size <= at:
                k, first, first_ns = self._begun.popleft()
                window = self._buffer[first - self._origin : first - self._origin + self._size]
                window.flags.writeable = False
                done.append((self._grid.end_ns(k), first_ns, window))
        if not self._begun:
            self._buffer, self._filled = EMPTY, 0  # the last window may be the only one to need it
        return done

    def _time_ns(self, sample: int) -> int:
        anchor, anchor_ns = self._anchor
        return anchor_ns + self._rate.span_ns(sample - anchor)

    def _first_sample(self, k: int) -> int:
        anchor, anchor_ns = self._anchor
        return anchor + self._rate.samples_to(k * self._grid.hop_ns - self._rate.grid_tolerance_ns - anchor_ns)

    def _renew_buffer(self, first: int) -> None:
        kept = self._buffer[max(first - self._origin, 0) : self._filled]
        self._buffer = np.empty(self._capacity, np.float32)
        self._buffer[: len(kept)] = kept
        self._origin, self._filled = first, len(kept)
