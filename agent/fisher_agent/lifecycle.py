"""The alarm lifecycle of ISA-18.2 / IEC 62682 as two tables, the alarm that they move, and one step. Pure.

`MOVES` holds every move of the base state: what the condition does, and what the operator has seen of it. `INHIBITS`
holds the overlays, which are independent of it: while one lies over an alarm the base state goes on beneath, and it
shows again afterwards. Nothing else moves an alarm. `deploy/docs/alarms.md` is generated from both.
"""

import json
from collections.abc import Mapping
from dataclasses import MISSING, Field, asdict, dataclass, fields, replace
from enum import StrEnum
from typing import Any

from fisher_agent.codes import Level, Quality, State
from fisher_agent.errors import BadFile
from fisher_agent.jsontext import loads, shown

ANOMALY = "anomaly"
UNKNOWN_MODE = "unknown-mode"
FLOOD = "flood"
FAULT = "fault-"
STALE = "stale-"
SENSOR = "sensor-"


class Event(StrEnum):
    """What can happen to an alarm."""

    RAISE = "raise"
    CLEAR = "clear"
    LATCH = "latch"  # the condition ends, of an alarm that latches
    ACK = "ack"
    REALARM = "re-alarm"
    SHELVE = "shelve"
    UNSHELVE = "unshelve"
    SUPPRESS = "suppress"
    UNSUPPRESS = "unsuppress"
    OUT_OF_SERVICE = "out-of-service"
    IN_SERVICE = "in-service"
    LOST = "lost"  # the input cannot be judged any more
    REGAINED = "regained"


class Inhibit(StrEnum):
    """What can lie over the base state."""

    OUT_OF_SERVICE = "out_of_service"
    SUPPRESSED = "suppressed"
    SHELVED = "shelved"
    UNKNOWN = "unknown"


MOVES: Mapping[tuple[State, Event], State] = {
    (State.NORM, Event.RAISE): State.UNACK,
    (State.UNACK, Event.ACK): State.ACKED,
    (State.UNACK, Event.CLEAR): State.RTNUN,
    (State.UNACK, Event.LATCH): State.LATCHED,
    (State.ACKED, Event.CLEAR): State.NORM,
    (State.ACKED, Event.REALARM): State.UNACK,
    (State.RTNUN, Event.ACK): State.NORM,
    (State.RTNUN, Event.RAISE): State.UNACK,
    (State.LATCHED, Event.ACK): State.NORM,
    (State.LATCHED, Event.RAISE): State.UNACK,
}
"""Every move of the base state that exists; any other pair is a defect and raises KeyError."""

INHIBITS: Mapping[Event, tuple[Inhibit, bool]] = {
    Event.OUT_OF_SERVICE: (Inhibit.OUT_OF_SERVICE, True),
    Event.IN_SERVICE: (Inhibit.OUT_OF_SERVICE, False),
    Event.SUPPRESS: (Inhibit.SUPPRESSED, True),
    Event.UNSUPPRESS: (Inhibit.SUPPRESSED, False),
    Event.SHELVE: (Inhibit.SHELVED, True),
    Event.UNSHELVE: (Inhibit.SHELVED, False),
    Event.LOST: (Inhibit.UNKNOWN, True),
    Event.REGAINED: (Inhibit.UNKNOWN, False),
}
"""Which overlay each of the other events sets or takes away."""

SHOWN: Mapping[Inhibit, State] = {
    Inhibit.OUT_OF_SERVICE: State.OOS,
    Inhibit.SUPPRESSED: State.SUPPRESSED,
    Inhibit.SHELVED: State.SHELVED,
    Inhibit.UNKNOWN: State.UNKNOWN,
}
"""What an operator sees while overlays lie over the base state; the first that is set is shown."""

ACTIVE = frozenset({State.UNACK, State.ACKED})
WAITING = frozenset({State.UNACK, State.RTNUN, State.LATCHED})  # for an operator
RAISES = frozenset({Event.RAISE, Event.REALARM})
CLEARS = frozenset({Event.CLEAR, Event.LATCH})


class Reason(StrEnum):
    """Why an alarm is suppressed; several may hold at once."""

    OPERATOR = "operator"
    STOPPED = "stopped"  # by design: the machine does not run
    MAINTENANCE = "maintenance"
    FLOOD = "flood"  # grouped into the machine's alarm `flood`


SILENCING = frozenset({Reason.OPERATOR, Reason.MAINTENANCE})  # these take an active alarm out of the level


@dataclass(frozen=True, slots=True, kw_only=True)
class Alarm:
    """One alarm of one machine, with all that must outlive a restart. Times are ms UTC, 0 = never."""

    machine: str
    alarm: str
    base: State = State.NORM
    unknown: bool = False
    out_of_service: bool = False
    suppressed_by: tuple[Reason, ...] = ()
    shelved_until: int = 0  # 0: not shelved
    ts_shelved: int = 0
    occurrence: int = 0  # of the latest raise; 0: never raised
    seq: int = 0  # one up for each transition
    event: str = ""  # what the latest transition was
    acked: bool = False  # whether this occurrence was acknowledged
    priority: int = 2  # 1 highest .. 4
    severity: int = 600  # 1..1000
    severe: bool = False
    recent: int = 0  # the latest verdicts, a bit each, newest lowest: at or over the limit
    on_count: int = 0  # consecutive verdicts at or over the limit
    off_count: int = 0  # verdicts under the deadband since the last one at or over the limit
    stopped_count: int = 0  # consecutive verdicts of a machine that does not run
    ts: int = 0  # of the latest transition
    ts_first: int = 0  # first verdict of the current run at or over the limit
    ts_onset: int = 0  # the same, of this occurrence
    ts_raised: int = 0
    ts_acked: int = 0
    ts_cleared: int = 0
    by: str = ""  # who made the latest transition that somebody made
    comment: str = ""
    enrolled: bool = False
    running: bool = False
    quality: str = Quality.BAD
    detail: str = ""  # of a sensor: what is wrong with it; of a flood: what it groups
    capture: str = ""  # of this occurrence: its folder under `captures`
    capture_sha256: str = ""
    # What the latest scored verdict said.
    score: float = -1.0
    p_value: float = -1.0
    fault: str = ""
    fault_code: int = 0
    fault_confidence: float = 0.0
    mode: str = ""
    top_channel: str = ""
    top_share: float = 0.0
    top_band_hz_low: float = -1.0
    top_band_hz_high: float = -1.0
    top_change_db: float = 0.0

    def has(self, inhibit: Inhibit) -> bool:
        """Whether an overlay lies over it."""
        return bool(
            {
                Inhibit.OUT_OF_SERVICE: self.out_of_service,
                Inhibit.SUPPRESSED: self.suppressed_by,
                Inhibit.SHELVED: self.shelved_until,
                Inhibit.UNKNOWN: self.unknown,
            }[inhibit]
        )

    @property
    def state(self) -> State:
        """The state an operator sees."""
        return next((shown for inhibit, shown in SHOWN.items() if self.has(inhibit)), self.base)

    @property
    def active(self) -> bool:
        """Whether the condition holds, acknowledged or not, shown or not."""
        return self.base in ACTIVE

    @property
    def waiting(self) -> bool:
        """Whether an operator is called: it needs one, and nothing keeps it from saying so."""
        return self.state in WAITING

    @property
    def silenced(self) -> bool:
        """Whether somebody has decided that it shall not be annunciated for now."""
        return bool(self.out_of_service or self.shelved_until or SILENCING & set(self.suppressed_by))

    @property
    def level(self) -> Level:
        """What an HMI colours by, as of the latest verdict. An alarm that no verdict feeds has none: UNKNOWN."""
        if self.unknown or not self.enrolled or self.quality == Quality.BAD:
            return Level.UNKNOWN
        if self.active and not self.silenced:
            return Level.SEVERE if self.severe else Level.ALARM
        if self.base is State.LATCHED and not self.silenced:
            return Level.ALARM
        return Level.ADVISORY if self.active or (self.running and self.on_count) else Level.NORMAL

    def to_json(self) -> str:
        """Everything, as one JSON object."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> "Alarm":
        """The inverse of `to_json`. Keys of another version are passed over; BadFile where it is no alarm at all."""
        try:
            document: dict[str, Any] = loads(text)
            known = {f.name: _typed(f, document[f.name]) for f in fields(cls) if f.name in document}
            reasons = tuple(Reason(reason) for reason in known.get("suppressed_by", ()))
            return cls(**{**known, "base": State(known.get("base", State.NORM)), "suppressed_by": reasons})
        except (ValueError, TypeError, AttributeError, OverflowError) as error:
            raise BadFile(f"not an alarm: {str(text)[:80]!r} ({error})") from error


def _typed(field: "Field[Any]", value: Any) -> Any:
    """A stored value of the type that its field has; TypeError for any other, which would fail at the next verdict."""
    if field.name in ("base", "suppressed_by"):
        return value
    kind = str if field.default is MISSING or isinstance(field.default, str) else type(field.default)
    if kind is float and isinstance(value, int):
        value = float(value)
    if type(value) is not kind or (isinstance(value, int) and abs(value) >= 2**63):
        raise TypeError(f"{field.name} is {shown(value)}")
    return value


@dataclass(frozen=True, slots=True)
class Transition:
    """One alarm moved: what it is now, by which event, and what was shown before."""

    alarm: Alarm
    event: Event
    before: State


def step(
    alarm: Alarm,
    event: Event,
    *,
    t_ms: int,
    occurrence: int = 0,
    by: str = "",
    comment: str = "",
    until_ms: int = 0,
    reason: Reason = Reason.OPERATOR,
) -> Alarm:
    """One move by the tables; KeyError for an illegal one.

    `occurrence` belongs to RAISE and REALARM, `until_ms` to SHELVE, `reason` to SUPPRESS and UNSUPPRESS, `by` and
    `comment` to what somebody does.
    """
    moved = replace(alarm, seq=alarm.seq + 1, ts=t_ms, event=str(event))
    if by or comment:
        moved = replace(moved, by=by, comment=comment)
    if event in INHIBITS:
        return _inhibited(moved, event, t_ms=t_ms, until_ms=until_ms, reason=reason)
    moved = replace(moved, base=MOVES[alarm.base, event])
    if event in RAISES:
        moved = replace(moved, occurrence=occurrence, acked=False, ts_raised=t_ms, ts_acked=0, ts_cleared=0)
        moved = replace(moved, by=by, comment=comment)
        if event is Event.RAISE:
            moved = replace(moved, ts_onset=alarm.ts_first or t_ms, capture="", capture_sha256="")
        return moved
    if event in CLEARS:
        return replace(moved, ts_cleared=t_ms, severe=False)
    return replace(moved, acked=True, ts_acked=t_ms, by=by, comment=comment)


def _inhibited(moved: Alarm, event: Event, *, t_ms: int, until_ms: int, reason: Reason) -> Alarm:
    inhibit, on = INHIBITS[event]
    if inhibit is Inhibit.SUPPRESSED:
        others = tuple(r for r in moved.suppressed_by if r is not reason)
        if on == (reason in moved.suppressed_by):
            raise KeyError((event, reason))
        return replace(moved, suppressed_by=(*others, reason) if on else others)
    if inhibit is Inhibit.SHELVED:  # shelving again is another time
        if not on and not moved.shelved_until:
            raise KeyError(event)
        return replace(moved, shelved_until=until_ms if on else 0, ts_shelved=t_ms if on else 0)
    if moved.has(inhibit) == on:
        raise KeyError(event)
    if inhibit is Inhibit.OUT_OF_SERVICE:
        return replace(moved, out_of_service=on)
    return replace(moved, unknown=on, quality=Quality.BAD if on else moved.quality)
