"""Moments that wait for the compute thread, and since when each has waited."""

from collections.abc import Sequence

from fisher_agent.outbox import Backlog
from fisher_agent.stages import Moment
from fisher_agent.stats import Stats

MAX_STAMPS = 10_000  # those of moments that were dropped are left behind


class Waiting:
    """A backlog bounded in bytes; what it drops is counted as `windows_dropped`. Times are of the monotonic clock."""

    def __init__(self, max_bytes: int, stats: Stats) -> None:
        self.backlog = Backlog(max_bytes)
        self._stats = stats
        self._since: dict[tuple[str, int], float] = {}

    def put(self, moments: Sequence[Moment], *, mono_s: float) -> None:
        """Queue what is complete."""
        for moment in moments:
            if dropped := self.backlog.put(moment):
                self._stats.count("windows_dropped", dropped)
            self._since[moment.machine, moment.end_ns] = mono_s
            if len(self._since) > MAX_STAMPS:
                del self._since[next(iter(self._since))]

    def take(self, count: int, *, max_bytes: float) -> list[Moment]:
        """The oldest; empty where nothing waits."""
        moments = self.backlog.take(count, max_bytes=max_bytes)
        if not moments:
            self._since.clear()
        return moments

    def waited_s(self, machine: str, end_ns: int, *, mono_s: float) -> float:
        """How long a moment that was taken and judged has waited; 0 where that is not known any more."""
        return mono_s - self._since.pop((machine, end_ns), mono_s)
