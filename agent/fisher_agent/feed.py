"""One channel's stream over minutes: are samples missing, is its rate what was configured, does its clock run true.

Pure: `mono_s` is the monotonic clock, `utc_ns` the box's, when a frame arrived; stamps are event time.

Decisions:
- Missing: of the last minute of event time less than 95 % came.
- Rate, of formats that state none: samples are counted on the monotonic clock over three minutes. More than 2 % off in
  the same way in each of them is another rate, unless the usual time between two blocks says that blocks are lost.
- Clock, of stamped formats: the largest offset of each minute is that of the least delayed block. A clock is off when
  it is 2 s ahead, or so far behind that silence of that length would be stale: a gateway may collect for a while.
  A clock drifts that moves by more than 200 ppm for ten minutes in a straight line.
- What moves by more than 5 % of real time is no clock but a replay, or a gateway that catches up: nothing is said.
"""

from collections import deque
from itertools import pairwise

import numpy as np

from fisher_agent.codes import Status
from fisher_agent.config import ChannelConfig
from fisher_agent.sensor import FINE, Finding
from fisher_agent.stages import Frame

COVER_NS = 60_000_000_000
COVER_LEAST_NS = 50_000_000_000
COVERED = 0.95
BUCKET_NS = 1_000_000_000
MINUTE_S = 60.0
RATE_MINUTES = 3
RATE_OFF = 0.02
RATE_AGREES = 0.01
INTERVALS = 255
AHEAD_S = 2.0
DRIFT_MINUTES = 10
DRIFT = 200e-6
DRIFT_SCATTER_S = 0.02
NO_CLOCK = 0.05
FEW_BLOCKS = 20  # in a minute: with fewer, one block more or less counts for too much


class Feed:
    """Counts what comes of one channel; `finding` says what is wrong with its stream."""

    def __init__(self, config: ChannelConfig, *, stale_after_s: float, blocks: bool) -> None:
        """`blocks`: single values or snapshots come now and then, and are not expected without a break."""
        self._config = config
        self._behind_s = stale_after_s
        self._blocks = blocks
        self.reset()

    def reset(self) -> None:
        """Begin anew: the process itself was away."""
        self._covered: deque[list[int]] = deque()  # [event time of the first sample, samples], about one a second
        self._samples = 0  # in these
        self._end_ns = 0  # of event time
        self._counts: deque[tuple[float, int]] = deque(maxlen=RATE_MINUTES)  # seconds, samples that came in them
        self._counting: tuple[float, int] | None = None  # since when, how many
        self._last: tuple[float, int] | None = None  # arrival and length of the latest block
        self._intervals: deque[float] = deque(maxlen=INTERVALS)  # times the length of the block before
        self._offsets: deque[tuple[float, float]] = deque(maxlen=DRIFT_MINUTES + 1)  # box's clock, largest offset (s)
        self._offset: tuple[float, float, float] | None = None  # minute's begin on the monotonic clock, its largest

    def take(self, frame: Frame, *, end_ns: int, mono_s: float, utc_ns: int) -> None:
        """Count one frame; `end_ns` is the event time of its end."""
        n = len(frame.samples)
        if not self._blocks:
            self._cover(frame.t_ns, end_ns, n)
        if self._config.stamped:
            self._compare(mono_s, utc_ns / 1e9, (end_ns - utc_ns) / 1e9)
        elif not self._blocks:
            self._count(mono_s, n)

    def finding(self) -> Finding:
        """What is wrong, the gravest first; silence is not looked at."""
        for found in (self._rate(), self._missing(), self._clock()):
            if found.bad:
                return found
        return FINE

    @property
    def counted(self) -> bool:
        """Whether its rate is known, where it has to be counted."""
        return self._config.stamped or self._blocks or len(self._counts) == RATE_MINUTES

    def _cover(self, t_ns: int, end_ns: int, n: int) -> None:
        if end_ns < self._end_ns - COVER_NS:  # the clock stepped back
            self._covered.clear()
            self._samples = 0
            self._end_ns = end_ns
        if self._covered and 0 <= t_ns - self._covered[-1][0] < BUCKET_NS:
            self._covered[-1][1] += n
        else:
            self._covered.append([t_ns, n])
        self._samples += n
        self._end_ns = max(self._end_ns, end_ns)
        while len(self._covered) > 1 and self._covered[1][0] <= self._end_ns - COVER_NS:
            self._samples -= self._covered.popleft()[1]

    def _missing(self) -> Finding:
        if not self._covered:
            return FINE
        span_ns = self._end_ns - self._covered[0][0]
        share = self._samples / max(span_ns / 1e9 * self._config.rate_hz, 1.0)
        if span_ns < COVER_LEAST_NS or share >= COVERED:
            return FINE
        return Finding(Status.GAP, f"{share:.0%} of the samples of the last {span_ns / 1e9:.0f} s came")

    def _count(self, mono_s: float, n: int) -> None:
        if self._last is not None:
            before_s, length = self._last
            self._intervals.append((mono_s - before_s) * self._config.rate_hz / max(length, 1))
        self._last = mono_s, n
        if self._counting is None:
            self._counting = mono_s, 0  # what came now was sampled before
            return
        since_s, count = self._counting
        self._counting = since_s, count + n
        if mono_s - since_s >= MINUTE_S:
            self._counts.append((mono_s - since_s, count + n))
            self._counting = mono_s, 0

    def _rate(self) -> Finding:
        if len(self._counts) < RATE_MINUTES or len(self._intervals) < FEW_BLOCKS:
            return FINE
        promised_hz = self._config.rate_hz
        rates = [count / seconds / promised_hz for seconds, count in self._counts]
        measured = sum(c for _, c in self._counts) / sum(s for s, _ in self._counts) / promised_hz
        high = all(rate > 1 + RATE_OFF for rate in rates)
        low = all(rate < 1 - RATE_OFF for rate in rates)
        if not (high or low) or max(rates) - min(rates) > RATE_AGREES * measured:
            return FINE
        usual = float(np.median(list(self._intervals)))
        if low and abs(usual - 1) < abs(usual - 1 / measured):
            return FINE  # blocks come as they should, and some do not
        return Finding(
            Status.RATE_MISMATCH, f"{measured * promised_hz:.5g} samples a second came, configured {promised_hz:g}"
        )

    def _compare(self, mono_s: float, box_s: float, offset_s: float) -> None:
        if self._offset is None:
            self._offset = mono_s, box_s, offset_s
            return
        since_s, at_s, largest_s = self._offset
        if offset_s > largest_s:
            at_s, largest_s = box_s, offset_s
        self._offset = since_s, at_s, largest_s
        if mono_s - since_s >= MINUTE_S:
            self._offsets.append((at_s, largest_s))
            self._offset = None

    def _clock(self) -> Finding:
        if len(self._offsets) < 2:
            return FINE
        if any(abs(b - a) > NO_CLOCK * max(at_b - at_a, MINUTE_S) for (at_a, a), (at_b, b) in pairwise(self._offsets)):
            return FINE
        recent = [offset_s for _, offset_s in list(self._offsets)[-2:]]
        if min(recent) > AHEAD_S:
            return Finding(Status.CLOCK_DRIFT, f"its clock is {recent[-1]:.1f} s ahead of this box's")
        if max(recent) < -self._behind_s:
            return Finding(Status.CLOCK_DRIFT, f"its clock is {-recent[-1]:.1f} s behind this box's")
        if len(self._offsets) <= DRIFT_MINUTES:
            return FINE
        at, offsets = (np.asarray(part) for part in zip(*self._offsets, strict=True))
        slope, intercept = np.polyfit(at - at[0], offsets, 1)
        off_line = offsets - (intercept + slope * (at - at[0]))
        if abs(slope) <= DRIFT or float(np.abs(off_line).max()) > DRIFT_SCATTER_S:
            return FINE
        return Finding(Status.CLOCK_DRIFT, f"its clock drifts by {1e6 * slope:+.0f} ppm against this box's")
