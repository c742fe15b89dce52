"""The last samples of a channel too slow to fill a window: one a minute, one a second, ten a second.

A grid time gets the samples up to the first one that comes after the grid time before it. How a sender cuts its samples
into blocks makes no difference, as long as the stamps of blocks and samples agree.
"""

from collections import deque

import numpy as np

from fisher_agent.codes import Status
from fisher_agent.grid import Grid, Rate
from fisher_agent.stages import Frame, Window
from fisher_agent.windows import NEVER_NS, ChannelCounters

GAP_PERIODS = 3
"""A value that is missed twice is a gap; slow senders poll, and a poll may come late or fail once."""


class SparseWindows:
    """Frames of one sparse channel -> windows of its last `kept` samples, in strictly increasing `end_ns`.

    What is older than the newest sample is dropped; where a second such block follows on the first, the clock has
    stepped back, and all begins anew, as after a gap.
    """

    def __init__(self, *, machine: str, channel: str, rate_hz: float, kept: int, grid: Grid) -> None:
        self.counters = ChannelCounters()
        self.last_fault: Status | None = None  # of the latest frame
        self.passed_ns = NEVER_NS  # grid time of the newest window, or of the newest sample where there is none yet
        self._machine = machine
        self._channel = channel
        self._rate = Rate(rate_hz)
        self._period_ns = self._rate.span_ns(1)
        self._grid = grid
        self._last: deque[tuple[int, float]] = deque(maxlen=kept)  # time and value
        self._newest_ns = NEVER_NS
        self._older_ns = NEVER_NS  # where the latest block that was dropped for its age ended

    @property
    def head_ns(self) -> int:
        """As `StreamWindows.head_ns`: how far this channel is in event time."""
        return self.passed_ns

    def push(self, frame: Frame) -> list[Window]:
        """The windows that this frame completes, oldest first."""
        self.counters.frames += 1
        self.last_fault = None
        if not self._rate.matches(frame.rate_hz):
            self.counters.rate_mismatch += 1
            self.last_fault = Status.RATE_MISMATCH
            return []
        times = [frame.t_ns + self._rate.span_ns(i) for i in range(len(frame.samples))]
        if not times or self._is_old(times):
            return []
        windows = []
        for t_ns, value in zip(times, frame.samples.tolist(), strict=True):
            if t_ns > self._newest_ns:
                windows += self._take(t_ns, value)
        return windows

    def flush(self) -> list[Window]:
        """Nothing waits here."""
        return []

    def _is_old(self, times: list[int]) -> bool:
        if times[-1] > self._newest_ns:
            self._older_ns = NEVER_NS
            return False
        if times[0] > self._older_ns > NEVER_NS:
            self._begin()
            self.passed_ns = self._newest_ns = self._older_ns = NEVER_NS
            return False
        if times[-1] == self._newest_ns:
            self.counters.duplicates += 1
        else:
            self.counters.out_of_order += 1
            self._older_ns = times[-1]
        return True

    def _begin(self) -> None:
        self.counters.gaps += 1
        self.last_fault = Status.GAP
        self._last.clear()

    def _take(self, t_ns: int, value: float) -> list[Window]:
        if self._last and t_ns - self._newest_ns > GAP_PERIODS * self._period_ns:
            self._begin()
        self._last.append((t_ns, value))
        self._newest_ns = t_ns
        end_ns = self._grid.first_from(t_ns)
        if end_ns <= self.passed_ns:
            return []
        self.passed_ns = end_ns
        if len(self._last) < (self._last.maxlen or 0):
            return []
        self.counters.windows += 1
        samples = np.asarray([v for _, v in self._last], np.float32)
        samples.flags.writeable = False
        return [
            Window(
                self._machine, self._channel, t_ns=self._last[0][0], rate_hz=self._rate.hz, samples=samples,
                end_ns=end_ns, snapshot=True,
            )
        ]  # fmt: skip
