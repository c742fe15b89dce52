"""What another version of a machine's banks would have made of the past: how often it would have alarmed. Pure.

Stored scores are ratios to the limits of their time. Where two versions differ in limits alone, the scores of one
follow exactly from those of the other; where they differ in windows, only waveforms that were kept can tell.
"""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fisher_agent.alarmconfig import AlarmConfig
from fisher_agent.bank import Bank, ChannelBank
from fisher_agent.bankset import BankSet

DAY_NS = 86_400 * 10**9
BACK_NS = 30 * DAY_NS
SAME = 1e-9


@dataclass(frozen=True, slots=True)
class Past:
    """A stored score: when, how much, in which mode and by which version."""

    t_ns: int
    score: float
    mode: str
    bank: str


class Raises:
    """Counts the alarms that scores raise, by the delays and the deadband that `alarms` counts by."""

    def __init__(self, alarm: AlarmConfig) -> None:
        self._on, width = alarm.delay
        self._off, self._cleared_under = alarm.off_delay_windows, 1.0 - alarm.deadband
        self._recent: deque[bool] = deque(maxlen=width)
        self._under = 0
        self._active = False
        self.count = 0
        self.scores = 0

    def take(self, score: float) -> None:
        """The next score, in the order of time."""
        self.scores += 1
        over = score >= 1.0
        self._recent.append(over)
        self._under = 0 if over else self._under + (score < self._cleared_under)
        if not self._active and over and sum(self._recent) >= self._on:
            self._active = True
            self.count += 1
        elif self._active and self._under >= self._off:
            self._active = False
            self._recent.clear()


def count_raises(scores: Iterable[float], alarm: AlarmConfig) -> int:
    """How many alarms scores raise, in the order of time."""
    raises = Raises(alarm)
    for score in scores:
        raises.take(score)
    return raises.count


def factors(old: BankSet, new: BankSet, *, stated: bool) -> dict[str, float] | None:
    """Mode -> what a score by the old version is multiplied by to be one by the new; None where it cannot be told.

    `stated` is whether a tag or a rule says the mode: else modes whose factors differ might be found nearest in turn.
    """
    if set(old.modes) != set(new.modes):
        return None
    found: dict[str, float] = {}
    for was in old:
        now = new.mode(was.mode)
        factor = _factor(was, now) if now is not None else None
        if factor is None:
            return None
        found[was.mode] = factor
    if not stated and max(found.values()) - min(found.values()) > SAME:
        return None
    return found


def recounted(
    scores: Iterable[Past], *, by: Mapping[str, Mapping[str, float]], alarm: AlarmConfig
) -> tuple[Raises, Raises, int]:
    """What is and what would have been raised, of scores by versions that are known in `by` (version -> factors).

    The third number is of scores by other versions; they take no part.
    """
    was, would, others = Raises(alarm), Raises(alarm), 0
    for past in scores:
        factor = by.get(past.bank, {}).get(past.mode)
        if factor is None:
            others += 1
            continue
        was.take(past.score)
        would.take(past.score * factor)
    return was, would, others


def stored_sentence(was: Raises, would: Raises, *, span_ns: int) -> str:
    """As a person reads it."""
    return (
        f"this would have alarmed {_times(would.count)} in the last {_long(span_ns)} "
        f"({would.scores} stored scores; the limits of their time: {_times(was.count)})"
    )


def kept_sentence(counts: Mapping[str, Raises], *, seconds: float, version: str, fault: str = "") -> str:
    """What was made of kept waveforms, of normal running or of a fault."""
    raised = sum(r.count for r in counts.values())
    scores = sum(r.scores for r in counts.values())
    of = f"fault {fault}" if fault else "normal running"
    kept = f"in the {seconds / 60:.1f} minutes of {of} kept with bank {version}"
    return f"{kept} this alarms {_times(raised)} ({scores} scores)"


def _factor(was: Bank, now: Bank) -> float | None:
    """What every score of one bank is to that of the other, where all but limits is the same."""
    if was.judged_by != now.judged_by or len(was.channels) != len(now.channels):
        return None
    ratios: list[float] = []
    for before in was.channels:
        after = next((c for c in now.channels if c.channel == before.channel), None)
        if after is None or not _same_windows(before, after):
            return None
        ratios += _limit_ratios(before, after, was.judged_by)
    if max(ratios) - min(ratios) > SAME * max(ratios):
        return None
    return ratios[0] * was.limit / now.limit


def _limit_ratios(before: ChannelBank, after: ChannelBank, by: str) -> Sequence[float]:
    views = {"embedding": before.n_bands > 0, "indicators": before.features.size > 0}
    seen = [v for v in views if views[v] and by in (v, "both")] or [v for v in views if views[v]]
    limits = {
        "embedding": before.limit / after.limit,
        "indicators": before.feature_limit / after.feature_limit,
    }
    return [limits[v] for v in seen]


def _same_windows(before: ChannelBank, after: ChannelBank) -> bool:
    arrays = ("vectors", "features", "feature_centre", "feature_spread")
    return before.gain == after.gain and all(
        np.array_equal(getattr(before, name), getattr(after, name)) for name in arrays
    )


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _long(span_ns: int) -> str:
    days = span_ns / DAY_NS
    return f"{days:.0f} days" if days >= 2 else f"{24 * days:.1f} hours"
