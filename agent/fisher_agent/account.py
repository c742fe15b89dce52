"""What became of every window, and how the agent is: the numbers of `B/health` and of the point `fisher_agent`."""

import time
from collections import deque
from collections.abc import Iterable, Mapping

from fisher_agent.ledger import Model
from fisher_agent.live import LiveMachine
from fisher_agent.outbox import Backlog
from fisher_agent.service import rss_bytes
from fisher_agent.stages import Scalar
from fisher_agent.stats import Stats

RECENT = 512  # windows that p95 is taken over
POINT_KEYS = ("windows", "dropped", "rejected", "outbox_bytes", "queue", "fallback", "p95_ms", "rss_bytes")


class Account:
    """Counts what no other object keeps, and draws the balance."""

    def __init__(self, stats: Stats, backlog: Backlog) -> None:
        self.in_hand = 0  # windows in the compute thread
        self.outbox_bytes = 0  # as of the latest report
        self._stats = stats
        self._backlog = backlog
        self._started_s = time.monotonic()
        self._latency_ms: deque[float] = deque(maxlen=RECENT)
        self._left_made = self._left_dropped = 0  # windows of machines that left the configuration

    def judged(self, latency_ms: float) -> None:
        """A moment became a verdict so long after it was complete."""
        self._latency_ms.append(latency_ms)

    def left(self, machine: LiveMachine) -> None:
        """A machine is no longer watched: its windows still count."""
        gone = machine.gatherer
        self._left_made += gone.made_windows
        self._left_dropped += gone.late_windows + gone.waiting_windows

    def balance(self, machines: Iterable[LiveMachine]) -> tuple[bool, Mapping[str, int]]:
        """Whether windows made = embedded + skipped + dropped + waiting, and the terms."""
        gatherers = [m.gatherer for m in machines]
        made = self._left_made + sum(g.made_windows for g in gatherers)
        terms = {
            "embedded": self._stats.total("windows_embedded"),
            "skipped": self._stats.total("windows_skipped"),
            "dropped": self._backlog.dropped + self._left_dropped + sum(g.late_windows for g in gatherers),
            "waiting": self._backlog.waiting + self.in_hand + sum(g.waiting_windows for g in gatherers),
        }
        return made == sum(terms.values()), {"made": made, **terms}

    def health(self, machines: Iterable[LiveMachine], model: Model) -> dict[str, Scalar]:
        """The payload of `B/health`."""
        windows = self._stats.total("windows_embedded")
        uptime_s = time.monotonic() - self._started_s
        ordered = sorted(self._latency_ms)
        return {
            "ts": time.time_ns() // 1_000_000,
            "uptime_s": round(uptime_s),
            "backend": model.backend,
            "precision": model.precision,
            "model": model.digest,
            "weights": model.weights,
            "windows": windows,
            "windows_per_s": windows / uptime_s,
            "p95_ms": ordered[int(0.95 * (len(ordered) - 1))] if ordered else 0.0,
            "queue": self._backlog.waiting,
            "outbox_bytes": self.outbox_bytes,
            "dropped": self._backlog.dropped + self._stats.total("source_dropped"),
            "late": sum(m.gatherer.late_windows for m in machines),
            "rejected": self._stats.total("rejected"),
            "fallback": int(bool(model.note)),
            "rss_bytes": rss_bytes(),
        }
