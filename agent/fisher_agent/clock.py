"""The arrival clock: times for samples that carry none, from their count and when they arrived.

Sample count / nominal rate from one anchor gives times without jitter. A sensor's quartz is not ours, so the times are
steered, by at most 200 ppm, towards the lower envelope of the arrival delays: what arrives early tells the time, what
arrives late tells of the network. This is the filter of NTP (RFC 5905, 10) with the sample count as remote clock.

Decisions:
- A block's last sample is taken to be as old as the arrival of the least delayed block.
- More than 0.5 s off, or after `restart`, the clock is anchored anew and says so: samples are missing, or the rate is
  far from what was configured.
- An anchor is set by one block, which may itself have been late. Once, when it has settled, it is corrected, with a
  gap, if steering would take too long. A stall that is delivered late makes a few gaps and never a time far ahead.
- The monotonic clock carries the time. The step from it to UTC is taken at the anchor. A step of UTC by more than
  0.5 s is followed, with a gap, once it has lasted 10 s; a smaller one at the next anchor.
"""

from collections import deque

MAX_STEER = 200e-6
MAX_OFF_NS = 500_000_000
ENVELOPE_NS = 10_000_000_000  # arrivals that the envelope looks back on
STEER_TIME_S = 25.0  # an offset is steered out with this time constant: 150 ppm are held 3.75 ms off
SETTLE_NS = 2_000_000_000
SETTLE_BLOCKS = 4
SETTLED_NS = 5_000_000  # an anchor this wrong is left to steering
UTC_LASTS_NS = 10_000_000_000


class ArrivalClock:
    """Times for the blocks of one stream, in order of arrival."""

    def __init__(self, rate_hz: float) -> None:
        self.rate_hz = rate_hz
        self._anchored = False
        self._anchor_ns = 0  # monotonic, of the sample that began the stream
        self._anchored_at_ns = 0
        self._to_utc_ns = 0
        self._samples = 0  # since the anchor: an exact count, so that no rounding accumulates
        self._steer_ns = 0.0
        self._blocks = 0
        self._settled = False
        self._early: deque[tuple[int, float]] = deque()  # (arrival, delay against the unsteered line), both rising
        self._utc_off_since_ns: int | None = None

    def restart(self) -> None:
        """Anchor anew at the next block, with a gap: the link was away, samples may be missing."""
        self._anchored = False

    def stamp(self, n_samples: int, *, mono_ns: int, utc_ns: int) -> tuple[int, bool]:
        """The UTC time in ns of the block's first sample, and whether the stream starts anew with this block.

        `mono_ns` and `utc_ns` are the two clocks when the block arrived.
        """
        span_ns = n_samples * 1e9 / self.rate_hz
        gap = self._is_lost(span_ns, mono_ns=mono_ns, utc_ns=utc_ns)
        if gap:
            self._anchor_at(round(mono_ns - span_ns), mono_ns=mono_ns, utc_ns=utc_ns)
        lowest_ns = self._envelope(mono_ns, mono_ns - self._unsteered_ns() - span_ns)
        if not self._settled and self._blocks >= SETTLE_BLOCKS and mono_ns - self._anchored_at_ns >= SETTLE_NS:
            self._settled = True
            if lowest_ns < -SETTLED_NS:
                self._steer_ns += lowest_ns
                lowest_ns, gap = 0.0, True
        start_ns = round(self._unsteered_ns() + self._steer_ns)
        self._samples += n_samples
        self._blocks += 1
        steer = max(-MAX_STEER, min(MAX_STEER, lowest_ns / 1e9 / STEER_TIME_S))
        self._steer_ns += steer * span_ns
        return start_ns + self._to_utc_ns, gap

    def _unsteered_ns(self) -> float:
        """When the next block begins, by count alone; below 1e16 ns since boot, so exact to 2 ns."""
        return self._anchor_ns + self._samples * 1e9 / self.rate_hz

    def _is_lost(self, span_ns: float, *, mono_ns: int, utc_ns: int) -> bool:
        if not self._anchored:
            return True
        delay_ns = mono_ns - (self._unsteered_ns() + self._steer_ns + span_ns)
        return abs(delay_ns) > MAX_OFF_NS or self._has_utc_stepped(mono_ns, utc_ns - mono_ns)

    def _has_utc_stepped(self, mono_ns: int, to_utc_ns: int) -> bool:
        if abs(to_utc_ns - self._to_utc_ns) <= MAX_OFF_NS:
            self._utc_off_since_ns = None
            return False
        if self._utc_off_since_ns is None:
            self._utc_off_since_ns = mono_ns
        return mono_ns - self._utc_off_since_ns >= UTC_LASTS_NS

    def _anchor_at(self, anchor_ns: int, *, mono_ns: int, utc_ns: int) -> None:
        self._anchored, self._settled = True, False
        self._anchor_ns, self._anchored_at_ns = anchor_ns, mono_ns
        self._to_utc_ns = utc_ns - mono_ns
        self._samples = self._blocks = 0
        self._steer_ns = 0.0
        self._early.clear()
        self._utc_off_since_ns = None

    def _envelope(self, mono_ns: int, delay_ns: float) -> float:
        """Take one delay against the unsteered line; returns the smallest recent one, against the steered line."""
        while self._early and self._early[-1][1] >= delay_ns:
            self._early.pop()
        self._early.append((mono_ns, delay_ns))
        while mono_ns - self._early[0][0] > ENVELOPE_NS:
            self._early.popleft()
        return self._early[0][1] - self._steer_ns
