"""Learning on after an enrolment that was too short for its budget of false alarms: the limit is refined, not the bank.

While a machine is on probation the maxima of further blocks of normal running join those of the enrolment
(`exceedance`), and about once a day the limit follows from them by the same rule. What does not count as normal: a
block with a severe verdict, and one that an active alarm touches, unless an operator called that alarm false. So no
block at or over the limit is ever learnt by itself, and as long as any was left out the limit may not fall: the rest
alone would look too quiet. It ends when the budget is supported, after its days, by an operator's confirmation, or when
another bank takes over.

Pure: times come with the verdicts. Built again from `body` and `top`, a Probation goes on as if nothing had happened.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from fisher_agent.alarmconfig import AlarmConfig
from fisher_agent.bank import Bank
from fisher_agent.budget import Budget
from fisher_agent.errors import BadFile, ConfigError
from fisher_agent.exceedance import KEPT, LOOSEST, Blocks, Calibrated, sustained
from fisher_agent.jsontext import loads
from fisher_agent.lifecycle import Alarm
from fisher_agent.stages import Verdict

DAY_NS = 86_400 * 10**9
REFINED_EVERY_NS = DAY_NS
WORTH = 0.01  # of the limit: a smaller change is no reason for another version
MAX_PENDING = 1000  # blocks of alarms that may yet be called false; beyond it they are left out
SUPPORTED, OVER = "the budget is supported", "its days are over"
REPLACED, DELAYED = "an older bank judges", "the on-delay was changed; run `fisher-agent banks rebuild`"


@dataclass(frozen=True, slots=True)
class Pending:
    """A block that an active alarm touched."""

    occurrence: int
    maximum: float


@dataclass(frozen=True, slots=True, eq=False)
class Probation:
    """One machine's, from its enrolment on."""

    machine: str
    bank: str  # version that judges now
    bank_ns: int  # when that was made
    limit: float  # of that version
    days: float
    n: int  # an alarm is raised where n of m verdicts in a row reach the limit
    m: int
    severe: float  # score from which a verdict is no normal running, whatever the alarm
    calibrated: Calibrated  # with every block that was learnt so far
    refined_ns: int  # when the limit was last set
    learnt: int = 0  # blocks since the enrolment
    left_out: int = 0
    pending: tuple[Pending, ...] = ()
    recent: tuple[float, ...] = ()  # the latest m - 1 ratios
    filled: int = 0  # runs of m in the open block
    maximum: float = 0.0  # of these
    spoilt: bool = False  # by a severe verdict
    occurrence: int = 0  # of an alarm that was active in it; 0: none
    ended: str = ""  # why
    settled: bool = False  # ended, and its last limit is set

    @classmethod
    def begin(cls, bank: Bank, alarm: AlarmConfig) -> "Probation | None":
        """Of a fresh enrolment; None where its budget is supported, probation is turned off, or nothing is known."""
        if bank.calibrated is None or bank.calibrated.supported or not alarm.probation_days:
            return None
        n, m = alarm.delay
        return cls(
            bank.machine, bank.version, bank.created_ns, bank.limit, alarm.probation_days, n, m, alarm.alarm_ratio,
            bank.calibrated, refined_ns=bank.created_ns,
        )  # fmt: skip

    def take(self, verdict: Verdict, anomaly: Alarm) -> "Probation":
        """Learn of a verdict, given the alarm as it is after it. One of another bank, or not scored, says nothing."""
        if self.ended or not verdict.scored or verdict.bank != self.bank or not math.isfinite(verdict.score):
            return self
        ratios = (*self.recent, verdict.score * self.limit)
        occurrence = anomaly.occurrence if anomaly.active else self.occurrence
        spoilt = self.spoilt or verdict.score >= self.severe
        now = replace(self, recent=ratios[-(self.m - 1) :] if self.m > 1 else ())
        now = replace(now, occurrence=occurrence, spoilt=spoilt)
        if len(ratios) < self.m:
            return now
        reached = float(sustained(np.asarray(ratios), n=self.n, m=self.m)[0])
        # The limit may have fallen while the alarm was counting up.
        spoilt = spoilt or (reached >= self.limit and not anomaly.active)
        now = replace(now, filled=self.filled + 1, maximum=max(self.maximum, reached), spoilt=spoilt)
        return now if now.filled < now.calibrated.blocks.windows else now._closed()

    def _closed(self) -> "Probation":
        """With the open block learnt, left out or waiting for an operator's word."""
        fresh = replace(self, filled=0, maximum=0.0, spoilt=False, occurrence=0)
        if self.spoilt or (self.occurrence and len(self.pending) >= MAX_PENDING):
            return replace(fresh, left_out=self.left_out + 1)
        if self.occurrence:
            return replace(fresh, pending=(*self.pending, Pending(self.occurrence, self.maximum)))
        return fresh._learning([self.maximum])

    def _learning(self, maxima: Sequence[float]) -> "Probation":
        blocks = self.calibrated.blocks.added(maxima)
        return replace(self, calibrated=replace(self.calibrated, blocks=blocks), learnt=self.learnt + len(maxima))

    def called_false(self, occurrence: int) -> "Probation":
        """An operator says that this alarm was false: its blocks are normal running. ConfigError where there are none.

        A block that is still open when its alarm is called false stays left out: it may go on to hold anything.
        """
        false = [p.maximum for p in self.pending if p.occurrence == occurrence]
        if not false:
            waiting = ", ".join(str(o) for o in dict.fromkeys(p.occurrence for p in self.pending)) or "none"
            raise ConfigError(
                f"no block of occurrence {occurrence} waits to be called normal; those that do: {waiting}"
            )
        rest = tuple(p for p in self.pending if p.occurrence != occurrence)
        return replace(self._learning(false), pending=rest)

    def confirmed(self, by: str) -> "Probation":
        """An operator ends it. ConfigError where it has ended."""
        if self.ended:
            raise ConfigError(f"{self.machine} is not on probation: {self.ended}")
        return replace(self, ended=f"confirmed by {by}" if by else "confirmed")

    def checked(self, now_ns: int) -> "Probation":
        """Ended where that is due."""
        if self.ended:
            return self
        if self.calibrated.supported:
            return replace(self, ended=SUPPORTED)
        return replace(self, ended=OVER) if now_ns >= self.ends_ns else self

    def configured(self, alarm: AlarmConfig) -> "Probation":
        """Under another configuration; another on-delay makes what was learnt of runs worthless, so it ends then."""
        now = replace(
            self, days=alarm.probation_days, severe=alarm.alarm_ratio,
            calibrated=replace(self.calibrated, budget=alarm.budget),
        )  # fmt: skip
        return now if self.ended or (self.n, self.m) == alarm.delay else replace(now, ended=DELAYED, settled=True)

    def judged_by(self, bank: Bank) -> "Probation":
        """Go on with another version of the same enrolment."""
        return replace(self, bank=bank.version, bank_ns=bank.created_ns, limit=bank.limit)

    @property
    def ends_ns(self) -> int:
        """When its days are over."""
        return round(self.calibrated.since_s * 1e9 + self.days * DAY_NS)

    def due(self, now_ns: int) -> bool:
        """Whether a limit may be set anew: a day after the last one, and at the end."""
        return not self.settled and (bool(self.ended) or now_ns - self.refined_ns >= REFINED_EVERY_NS)

    def set_anew(self, now_ns: int) -> "Probation":
        """The limit was looked at, whether it moved or not."""
        return replace(self, refined_ns=now_ns, settled=bool(self.ended))

    def refined(self) -> float | None:
        """The limit that follows from all that was learnt; None where it is not worth another version.

        Never under 1, nor under the margin; never more than a quarter over what was enrolled; and not lower than it is
        while anything was left out.
        """
        limit = max(1.0, self.calibrated.limit(highest=LOOSEST * self.calibrated.enrolled_limit))
        if self.left_out or self.pending:
            limit = max(limit, self.limit)
        return limit if abs(limit / self.limit - 1) >= WORTH else None

    def bank_of(self, bank: Bank, limit: float, *, version: str, created_ns: int) -> Bank:
        """The same bank with another limit; its p-values stay what they were."""
        return replace(
            bank, version=version, created_ns=created_ns, limit=limit, calibrated=self.calibrated,
            calibration=bank.calibration * (bank.limit / limit),
        )  # fmt: skip

    def facts(self, now_ns: int) -> dict[str, Any]:
        """What `status` and `machines` tell."""
        promise = self.calibrated.promise(self.limit)
        return {
            "active": not self.ended,
            "ended": self.ended,
            "days_left": 0.0 if self.ended else max(0.0, (self.ends_ns - now_ns) / DAY_NS),
            "asked": self.calibrated.budget.words,
            "false_alarms": promise.sentence,
            "learnt_blocks": self.learnt,
            "left_out_blocks": self.left_out + len(self.pending),
            "waiting_occurrences": sorted({p.occurrence for p in self.pending}),
            "limit": self.limit,
            "enrolled_limit": self.calibrated.enrolled_limit,
            "bank": self.bank,
        }

    # To go on later

    @property
    def body(self) -> str:
        """Everything but the largest maxima, as JSON."""
        c, b = self.calibrated, self.calibrated.blocks
        own = {name: getattr(self, name) for name in _PLAIN}
        return json.dumps(
            own
            | {
                "recent": self.recent, "pending": [[p.occurrence, p.maximum] for p in self.pending],
                "per_h": c.budget.per_h, "count": b.count, "windows": b.windows, "step_s": b.step_s,
                "margin_limit": c.margin_limit, "enrolled_limit": c.enrolled_limit, "least_apart": c.least_apart,
                "since_s": c.since_s,
            },
            separators=(",", ":"),
        )  # fmt: skip

    @property
    def top(self) -> bytes:
        """The largest maxima, little-endian float64."""
        return self.calibrated.blocks.top.astype("<f8").tobytes()

    @classmethod
    def restore(cls, body: str, top: bytes) -> Self:
        """The reverse; BadFile where they are no probation."""
        try:
            known = _checked(loads(body))
            maxima = np.frombuffer(top, "<f8").astype(np.float64)
            blocks = Blocks(known["count"], maxima, known["windows"], known["step_s"])
            if len(maxima) != min(blocks.count, KEPT) or not np.isfinite(maxima).all() or (np.diff(maxima) > 0).any():
                raise ValueError(f"{len(maxima)} maxima of {blocks.count} blocks")
            calibrated = Calibrated(
                Budget(known["per_h"]), blocks, known["margin_limit"], known["enrolled_limit"], known["least_apart"],
                known["since_s"],
            )  # fmt: skip
            return cls(
                **{name: known[name] for name in _PLAIN},
                recent=tuple(known["recent"]),
                pending=tuple(Pending(o, x) for o, x in known["pending"]),
                calibrated=calibrated,
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise BadFile(f"not a probation: {str(body)[:80]!r} ({error})") from error


_PLAIN = (
    "machine", "bank", "bank_ns", "limit", "days", "n", "m", "severe", "refined_ns", "learnt", "left_out", "filled",
    "maximum", "spoilt", "occurrence", "ended", "settled",
)  # fmt: skip


_WORDS, _FLAGS = ("machine", "bank", "ended"), ("spoilt", "settled")
_COUNTS = ("bank_ns", "refined_ns", "learnt", "left_out", "filled", "occurrence", "count")
_AT_LEAST_ONE = ("n", "m", "windows", "least_apart")
_ABOVE_0 = ("limit", "severe", "per_h", "step_s", "margin_limit", "enrolled_limit")
_LEAST, _LARGEST = 1e-12, 1e12  # of any ratio, rate or number of days


def _checked(known: dict[str, Any]) -> dict[str, Any]:
    """The stored document, each value of its type and in its range; ValueError for any other."""

    def number(x: Any) -> bool:
        return type(x) in (int, float) and 0 <= x <= _LARGEST

    def count(x: Any) -> bool:
        return type(x) is int and 0 <= x < 2**63

    wrong = [k for k in _WORDS if not isinstance(known[k], str)] + [k for k in _FLAGS if not isinstance(known[k], bool)]
    wrong += [k for k in (*_COUNTS, *_AT_LEAST_ONE) if not count(known[k])]
    wrong += [k for k in ("days", "maximum", "since_s", *_ABOVE_0) if not number(known[k])]
    wrong += [k for k in _AT_LEAST_ONE if known[k] == 0] + [
        k for k in _ABOVE_0 if number(known[k]) and known[k] < _LEAST
    ]
    wrong += [] if all(number(x) for x in known["recent"]) else ["recent"]
    wrong += [] if all(count(o) and number(x) for o, x in known["pending"]) else ["pending"]
    if wrong:
        raise ValueError(f"{', '.join(wrong)} cannot be that")
    return known


def follow(before: Probation | None, bank: Bank | None, alarm: AlarmConfig) -> Probation | None:
    """The probation of a machine whose bank was loaded, given the one before.

    A bank that cannot be used changes nothing: it may be rebuilt. A newer enrolment begins another one; a newer version
    of the same enrolment (another limit, a fault added) goes on; an older one was rolled back to, and ends it.
    """
    if bank is None:
        return before
    if before is None:
        return Probation.begin(bank, alarm)
    if bank.version == before.bank:
        return before.configured(alarm)
    if bank.created_ns < before.bank_ns:
        return before if before.ended else replace(before, ended=REPLACED, settled=True)
    if bank.calibrated is not None and bank.calibrated.since_s == before.calibrated.since_s:
        return before.judged_by(bank).configured(alarm)
    return Probation.begin(bank, alarm)


def words(facts: Mapping[str, Any]) -> str:
    """`probation, 3.2 days left`; "" where there is none."""
    return f"probation, {facts['days_left']:.1f} days left" if facts.get("active") else ""
