"""How well the alarm system itself serves its operators: the measures of EEMUA 191 and ISA-18.2, clause 16. Pure.

Counted are annunciations: raises that an operator was shown. Those of shelved or suppressed alarms are not.
"""

from collections import Counter, deque
from collections.abc import Iterable, Sequence

from fisher_agent.lifecycle import FLOOD, Alarm, Inhibit
from fisher_agent.stages import Scalar

SCHEMA = "fisher.kpi/1"
TEN_MINUTES_MS = 600_000
DAY_MS = 86_400_000
FLOOD_FROM, FLOOD_UNTIL = 10, 5  # annunciations in ten minutes: a flood begins above the one, and ends below the other
CHATTER_COUNT, CHATTER_MS = 3, 60_000  # an alarm that comes so often in so long
CHATTER_SHOWN_MS = 3_600_000  # and is listed for so long
MAX_KEPT = 20_000
LISTED = 20  # names in a list; the counts beside it are whole


class Performance:
    """Remembers when what was annunciated, over 30 days at most."""

    def __init__(self, earlier: Iterable[Alarm] = (), now_ms: int = 2**62) -> None:
        """`earlier` are alarms as they were raised, oldest first: what is known from before a restart."""
        self._raised: deque[tuple[int, str, int]] = deque(maxlen=MAX_KEPT)  # ms, machine/alarm, priority
        self._flood = False
        for alarm in earlier:
            self.raised(alarm, now_ms)

    def raised(self, alarm: Alarm, now_ms: int) -> None:
        """An alarm was annunciated: at the latest now, for a sensor's clock may be ahead."""
        self._raised.append((min(alarm.ts_raised, now_ms), f"{alarm.machine}/{alarm.alarm}", alarm.priority))

    def resume(self, alarms: Iterable[Alarm]) -> None:
        """After a restart: a flood that was shown goes on until it ends by its own measure."""
        self._flood = any(a.alarm == FLOOD and a.active for a in alarms)

    def flood(self, now_ms: int) -> bool:
        """Whether alarms come faster than anybody can read them, with hysteresis."""
        rate = self._within(now_ms, TEN_MINUTES_MS)
        self._flood = rate >= FLOOD_UNTIL if self._flood else rate > FLOOD_FROM
        return self._flood

    def kpi(self, alarms: Sequence[Alarm], now_ms: int) -> dict[str, Scalar]:
        """The payload of `B/alarms/kpi`, given every alarm as it is now."""
        while self._raised and self._raised[0][0] < now_ms - 30 * DAY_MS:
            self._raised.popleft()
        chattering = self._chattering(now_ms)
        stale = sorted(
            f"{a.machine}/{a.alarm}"
            for a in alarms
            if a.active and not a.silenced and a.ts_raised and now_ms - a.ts_raised > DAY_MS
        )
        mix = Counter(priority for _, _, priority in self._raised)
        return {
            "schema": SCHEMA,
            "ts": now_ms,
            "rate_10min": self._within(now_ms, TEN_MINUTES_MS),
            "peak_10min": self._peak(now_ms),
            "rate_day": self._within(now_ms, DAY_MS),
            "flood": int(self._flood),
            "chattering": ", ".join(chattering[:LISTED]),
            "chattering_count": len(chattering),
            "stale": ", ".join(stale[:LISTED]),
            "stale_count": len(stale),
            "active": sum(a.active for a in alarms),
            "unacknowledged": sum(a.waiting for a in alarms),
            "shelved": sum(a.has(Inhibit.SHELVED) for a in alarms),
            "suppressed": sum(a.has(Inhibit.SUPPRESSED) for a in alarms),
            "out_of_service": sum(a.out_of_service for a in alarms),
            **{f"priority_{p}": mix[p] for p in (1, 2, 3, 4)},
        }

    def _within(self, now_ms: int, span_ms: int) -> int:
        # A clock that went back leaves times in the future behind; they count as now.
        return sum(t >= now_ms - span_ms for t, _, _ in self._raised)

    def _peak(self, now_ms: int) -> int:
        """The most annunciations in any ten minutes of the last day."""
        times = sorted(t for t, _, _ in self._raised if t >= now_ms - DAY_MS)
        first = peak = 0
        for last, t in enumerate(times):
            while t - times[first] > TEN_MINUTES_MS:
                first += 1
            peak = max(peak, last - first + 1)
        return peak

    def _chattering(self, now_ms: int) -> list[str]:
        times: dict[str, list[int]] = {}
        for t, name, _ in self._raised:
            if t >= now_ms - CHATTER_SHOWN_MS:
                times.setdefault(name, []).append(t)
        return sorted(
            name
            for name, of in times.items()
            if any(b - a <= CHATTER_MS for a, b in zip(of, of[CHATTER_COUNT - 1 :], strict=False))
        )
