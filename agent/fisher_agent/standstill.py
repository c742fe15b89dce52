"""How long a slow value has stood still, bit by bit, across windows that may overlap."""

import numpy as np

from fisher_agent.stages import Window

UNKNOWN_NS = -(1 << 62)
FEW = 16
REVERSALS = 10
"""So often a value must have turned back before its standing still says anything: a temperature that only climbed
during the enrolment may well stand once it is warm."""


class Standstill:
    """Windows of one channel, in order of time -> seconds since its value last changed. Event time only."""

    def __init__(self, *, gap_ns: int) -> None:
        """After `gap_ns` without samples nothing is known of what happened between."""
        self._gap_ns = gap_ns
        self._end_ns = UNKNOWN_NS  # where the next sample is due
        self._since_ns = UNKNOWN_NS  # first sample of the present value
        self._value = 0.0
        self._rising: bool | None = None
        self._longest_ns = 0
        self._reversals = 0

    @property
    def longest_s(self) -> float | None:
        """The longest standstill so far; None where the value hardly moved, or one way only."""
        if self._reversals < REVERSALS:
            return None
        return max(self._longest_ns, self._end_ns - self._since_ns) / 1e9

    def take(self, window: Window) -> float:
        """Seconds for which the last value has stood; a window that was seen before changes nothing."""
        period_ns = 1e9 / window.rate_hz
        known = max(0, round((self._end_ns - window.t_ns) / period_ns)) if self._end_ns != UNKNOWN_NS else 0
        fresh = window.samples[known:]
        if len(fresh):
            begin_ns = window.t_ns + round(known * period_ns)
            if self._end_ns == UNKNOWN_NS or begin_ns - self._end_ns > self._gap_ns:
                self._since_ns, self._value, self._rising = begin_ns, float(fresh[0]), None
            if len(fresh) <= FEW:  # one after another windows of a slow channel differ by a sample or two
                for n, value in enumerate(fresh.tolist()):
                    self._move(value, begin_ns + round(n * period_ns))
            else:
                before = np.append(np.float32(self._value), fresh[:-1])
                for n in np.flatnonzero(fresh != before).tolist():
                    self._move(float(fresh[n]), begin_ns + round(n * period_ns))
            self._end_ns = begin_ns + round(len(fresh) * period_ns)
        return (self._end_ns - self._since_ns) / 1e9

    def _move(self, value: float, t_ns: int) -> None:
        if value == self._value:
            return
        rising = value > self._value
        self._reversals += self._rising is not None and rising is not self._rising
        self._longest_ns = max(self._longest_ns, t_ns - self._since_ns)
        self._value, self._rising, self._since_ns = value, rising, t_ns
