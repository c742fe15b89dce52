"""The alarm lifecycle (ISA-18.2 / IEC 62682) as a pure state machine: verdicts, staleness and acks -> transitions.

    NORM  --RAISE--> UNACK     UNACK --ACK--> ACKED --CLEAR--> NORM
    RTNUN --RAISE--> UNACK     UNACK --CLEAR--> RTNUN --ACK--> NORM

`UNKNOWN` lies over any of them while the input cannot be judged (LOST .. REGAINED): the base state is kept beneath,
acks still reach it, and it shows again afterwards.

Nothing here reads a clock: times come with the verdicts and calls. `Alarm` is everything that must survive a restart.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from enum import StrEnum
from typing import Any

from fisher_agent.codes import UNKNOWN_FAULT, Level, Quality, State
from fisher_agent.config import AlarmConfig
from fisher_agent.errors import BadFile
from fisher_agent.stages import Scalar, Verdict

SCHEMA = "fisher.alarm/1"
ANOMALY = "anomaly"
STALE = "stale-"
SEVERE_KEEPS = 0.9  # a severe alarm stays severe down to this share of alarm_ratio, so that level does not flutter
MS = 1_000_000


class Event(StrEnum):
    """What can happen to an alarm. LOST and REGAINED move the overlay, the others the base state."""

    RAISE = "raise"
    CLEAR = "clear"
    ACK = "ack"
    LOST = "lost"
    REGAINED = "regained"


TABLE: Mapping[tuple[State, Event], State] = {
    (State.NORM, Event.RAISE): State.UNACK,
    (State.UNACK, Event.CLEAR): State.RTNUN,
    (State.UNACK, Event.ACK): State.ACKED,
    (State.ACKED, Event.CLEAR): State.NORM,
    (State.RTNUN, Event.RAISE): State.UNACK,
    (State.RTNUN, Event.ACK): State.NORM,
}
"""Every move of the base state that exists; any other pair is a defect and raises KeyError."""

ACTIVE = frozenset({State.UNACK, State.ACKED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Alarm:
    """One alarm of one machine, with all that must outlive a restart. Times are ms UTC, 0 = never."""

    machine: str
    alarm: str
    base: State = State.NORM
    unknown: bool = False
    occurrence: int = 0  # of the latest raise; 0: never raised
    seq: int = 0  # one up for each transition
    acked: bool = False  # whether this occurrence was acknowledged
    priority: int = 2  # 1 highest .. 4
    severity: int = 600  # 1..1000
    severe: bool = False
    on_count: int = 0  # consecutive verdicts at or over the limit
    off_count: int = 0  # consecutive verdicts under it
    ts: int = 0  # of the latest transition
    ts_first: int = 0  # first verdict of the current run at or over the limit
    ts_onset: int = 0  # the same, of this occurrence
    ts_raised: int = 0
    ts_acked: int = 0
    ts_cleared: int = 0
    by: str = ""
    comment: str = ""
    enrolled: bool = False
    running: bool = False
    quality: str = Quality.BAD
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
    capture: str = ""  # of this occurrence, once it is written: machine/occurrence, under state_dir/captures
    capture_sha256: str = ""  # of its capture.json, behind an "s"

    @property
    def state(self) -> State:
        """The state an operator sees."""
        return State.UNKNOWN if self.unknown else self.base

    @property
    def active(self) -> bool:
        """Whether the condition holds, acknowledged or not."""
        return self.base in ACTIVE

    @property
    def level(self) -> Level:
        """What an HMI colours by, as of the latest verdict. An alarm that no verdict feeds has none: UNKNOWN."""
        if self.unknown or not self.enrolled or self.quality == Quality.BAD:
            return Level.UNKNOWN
        if self.active:
            return Level.SEVERE if self.severe else Level.ALARM
        return Level.ADVISORY if self.running and self.on_count else Level.NORMAL

    @property
    def text(self) -> str:
        """One sentence for an operator."""
        return _sentence(self)

    def to_json(self) -> str:
        """Everything, as one JSON object."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> "Alarm":
        """The inverse of `to_json`. Keys of another version are passed over; BadFile where it is no alarm at all."""
        try:
            document: dict[str, Any] = json.loads(text)
            known = {f.name: document[f.name] for f in fields(cls) if f.name in document}
            return cls(**{**known, "base": State(known.get("base", State.NORM))})
        except (ValueError, TypeError, AttributeError) as error:
            raise BadFile(f"not an alarm: {text[:80]!r} ({error})") from error


@dataclass(frozen=True, slots=True)
class Transition:
    """One alarm moved: what it is now, by which event, and what was shown before."""

    alarm: Alarm
    event: Event
    before: State


@dataclass(frozen=True, slots=True)
class CommandResult:
    """The answer to a command; `error` says why it was refused."""

    ok: bool
    error: str = ""
    transitions: tuple[Transition, ...] = ()


def step(alarm: Alarm, event: Event, *, t_ms: int, occurrence: int = 0, by: str = "", comment: str = "") -> Alarm:
    """One move by the table. `occurrence` belongs to RAISE, `by` and `comment` to ACK; KeyError for an illegal move."""
    moved = replace(alarm, seq=alarm.seq + 1, ts=t_ms)
    if event is Event.LOST:
        return replace(moved, unknown=True, quality=Quality.BAD)
    if event is Event.REGAINED:
        return replace(moved, unknown=False)
    moved = replace(moved, base=TABLE[alarm.base, event])
    if event is Event.RAISE:
        onset = alarm.ts_first or t_ms
        fresh = replace(
            moved, occurrence=occurrence, acked=False, ts_onset=onset, ts_raised=t_ms, by="", comment="", capture=""
        )
        return replace(fresh, ts_acked=0, ts_cleared=0, capture_sha256="")
    if event is Event.CLEAR:
        return replace(moved, ts_cleared=t_ms, severe=False)
    return replace(moved, acked=True, ts_acked=t_ms, by=by, comment=comment)


class MachineAlarms:
    """All alarms of one machine: `anomaly` and `stale-<channel>`.

    Its whole state is `alarms` and `occurrence`; built again from them it goes on as if nothing had happened.
    Restored alarms of channels that left the configuration are kept, so that they can be cleared by `retire`.
    """

    def __init__(
        self,
        machine: str,
        channels: Sequence[str],
        config: AlarmConfig,
        alarms: Sequence[Alarm] = (),
        occurrence: int = 0,
    ) -> None:
        self.machine = machine
        self.occurrence = max([occurrence, *(a.occurrence for a in alarms)])
        self._channels = tuple(channels)
        self._config = config
        self._alarms = {ANOMALY: Alarm(machine=machine, alarm=ANOMALY)}
        for channel in channels:
            name = STALE + channel
            self._alarms[name] = Alarm(machine=machine, alarm=name, priority=3, severity=300, top_channel=channel)
        self._alarms.update({a.alarm: a for a in alarms})

    @property
    def alarms(self) -> tuple[Alarm, ...]:
        """Every alarm as it is now; what is stored to go on later."""
        return tuple(self._alarms.values())

    @property
    def anomaly(self) -> Alarm:
        """The alarm that the score raises."""
        return self._alarms[ANOMALY]

    @property
    def level(self) -> Level:
        """What an HMI colours by (contract 2), as of the latest verdict."""
        return self.anomaly.level

    def is_stale(self, channel: str) -> bool:
        """Whether the alarm `stale-<channel>` is active; after a restart `fresh` is owed to every such channel."""
        return self._alarms[STALE + channel].active

    def verdict(self, verdict: Verdict, *, fault_code: int) -> list[Transition]:
        """Take a verdict. One that is not scored (stopped, not enrolled, bad quality) counts and clears nothing."""
        t_ms = verdict.t_ns // MS
        moves: list[Transition] = []
        lost = verdict.quality is Quality.BAD or self._all_stale
        quality = Quality.BAD if lost else verdict.quality
        self._set(ANOMALY, enrolled=verdict.enrolled, running=verdict.running, quality=quality)
        if lost != self.anomaly.unknown:
            self._move(ANOMALY, Event.LOST if lost else Event.REGAINED, moves, t_ms=t_ms)
        if lost or not verdict.scored or not math.isfinite(verdict.score):
            return moves
        self._set(ANOMALY, **_facts(verdict, fault_code))
        self._count(over=verdict.score >= 1.0, t_ms=t_ms)
        alarm = self.anomaly
        if not alarm.active and alarm.on_count >= self._config.on_delay_windows:
            self.occurrence += 1
            self._grade(verdict.score, active=True)
            self._move(ANOMALY, Event.RAISE, moves, t_ms=t_ms, occurrence=self.occurrence)
        elif alarm.active and alarm.off_count >= self._config.off_delay_windows:
            self._move(ANOMALY, Event.CLEAR, moves, t_ms=t_ms)
        else:
            self._grade(verdict.score, active=alarm.active)
        return moves

    def stale(self, channel: str, t_ns: int) -> list[Transition]:
        """The channel fell silent. When all have, the anomaly cannot be judged any more. Repeating is a no-op."""
        moves: list[Transition] = []
        if not self.is_stale(channel):
            self.occurrence += 1
            self._set(STALE + channel, ts_first=t_ns // MS, quality=Quality.BAD)
            self._move(STALE + channel, Event.RAISE, moves, t_ms=t_ns // MS, occurrence=self.occurrence)
        if self._all_stale and not self.anomaly.unknown:
            self._move(ANOMALY, Event.LOST, moves, t_ms=t_ns // MS)
        return moves

    def fresh(self, channel: str, t_ns: int) -> list[Transition]:
        """The channel is heard again. The anomaly shows its state again with the next verdict that can be judged."""
        moves: list[Transition] = []
        if self.is_stale(channel):
            self._set(STALE + channel, quality=Quality.GOOD)
            self._move(STALE + channel, Event.CLEAR, moves, t_ms=t_ns // MS)
        return moves

    def ack(self, alarm_id: str, occurrence: int, *, by: str, comment: str, t_ns: int) -> CommandResult:
        """Acknowledge one occurrence. One that was acknowledged before is a no-op; any but the latest is refused."""
        alarm = self._alarms.get(alarm_id)
        if alarm is None:
            return CommandResult(False, f"{self.machine} has no alarm {alarm_id!r}; it has: {', '.join(self._alarms)}")
        if alarm.occurrence == 0:
            return CommandResult(False, f"{alarm_id} was never raised; there is nothing to acknowledge")
        if occurrence != alarm.occurrence:
            return CommandResult(False, f"occurrence {occurrence} of {alarm_id} is not the latest, {alarm.occurrence}")
        if alarm.acked:
            return CommandResult(True)
        moves: list[Transition] = []
        self._move(alarm_id, Event.ACK, moves, t_ms=t_ns // MS, by=by, comment=comment)
        return CommandResult(True, transitions=tuple(moves))

    def captured(self, alarm_id: str, occurrence: int, *, capture: str, sha256: str) -> Alarm | None:
        """Its evidence was written: no transition. None where another occurrence has begun meanwhile."""
        alarm = self._alarms.get(alarm_id)
        if alarm is None or alarm.occurrence != occurrence:
            return None
        self._set(alarm_id, capture=capture, capture_sha256=sha256)
        return self._alarms[alarm_id]

    def retire(self, t_ns: int) -> list[Transition]:
        """Clear the stale alarms of channels that left the configuration; to be called once after restoring."""
        moves: list[Transition] = []
        current = {ANOMALY, *(STALE + c for c in self._channels)}
        for alarm_id in [a for a, alarm in self._alarms.items() if a not in current and alarm.active]:
            self._move(alarm_id, Event.CLEAR, moves, t_ms=t_ns // MS)
        return moves

    @property
    def _all_stale(self) -> bool:
        return bool(self._channels) and all(self.is_stale(c) for c in self._channels)

    def _set(self, alarm_id: str, **changes: Any) -> None:
        self._alarms[alarm_id] = replace(self._alarms[alarm_id], **changes)

    def _move(self, alarm_id: str, event: Event, moves: list[Transition], **details: Any) -> None:
        before = self._alarms[alarm_id]
        after = step(before, event, **details)
        self._alarms[alarm_id] = after
        moves.append(Transition(after, event, before.state))

    def _count(self, *, over: bool, t_ms: int) -> None:
        alarm = self.anomaly
        if over:
            first = alarm.ts_first if alarm.on_count else t_ms
            self._set(ANOMALY, on_count=alarm.on_count + 1, off_count=0, ts_first=first)
        else:
            self._set(ANOMALY, on_count=0, off_count=alarm.off_count + 1)

    def _grade(self, score: float, *, active: bool) -> None:
        ratio = self._config.alarm_ratio
        severe = active and score >= (ratio * SEVERE_KEEPS if self.anomaly.severe else ratio)
        self._set(ANOMALY, severe=severe, severity=800 if severe else 600)


def _facts(verdict: Verdict, fault_code: int) -> dict[str, Any]:
    top = verdict.top
    peak = top.peak_band if top else None
    return {
        "score": verdict.score,
        "p_value": verdict.p_value,
        "fault": verdict.fault or "",
        "fault_code": fault_code,
        "fault_confidence": verdict.fault_confidence,
        "mode": verdict.mode or "",
        "top_channel": top.channel if top else "",
        "top_share": top.contribution if top else 0.0,
        "top_band_hz_low": peak.hz_low if peak else -1.0,
        "top_band_hz_high": peak.hz_high if peak else -1.0,
        "top_change_db": peak.change_db if peak else 0.0,
    }


def _sentence(alarm: Alarm) -> str:
    if alarm.alarm.startswith(STALE):
        said = "is silent, no samples arrive" if alarm.active else "is heard again" if alarm.occurrence else "is heard"
        return f"{alarm.machine}: {alarm.alarm.removeprefix(STALE)} {said}"
    if alarm.unknown:
        held = " (it was active)" if alarm.active else ""
        return f"{alarm.machine}: {alarm.alarm} unknown, its input cannot be judged{held}"
    if not alarm.active:
        score = f", score {alarm.score:.1f} (limit 1.0)" if alarm.score >= 0 else ""
        return f"{alarm.machine}: no {alarm.alarm}{score}"
    text = f"{alarm.machine}: {alarm.alarm}, score {alarm.score:.1f} (limit 1.0)"
    if alarm.top_channel:
        text += f"; mostly {alarm.top_channel}"
        if alarm.top_band_hz_high > 0:
            text += f" at {_band(alarm.top_band_hz_low, alarm.top_band_hz_high)}, {alarm.top_change_db:+.0f} dB"
    if alarm.fault == UNKNOWN_FAULT:
        text += "; fault unknown"
    elif alarm.fault:
        text += f"; fault {alarm.fault} ({alarm.fault_confidence:.0%})"
    return text


def _band(low_hz: float, high_hz: float) -> str:
    if high_hz >= 1000:
        return f"{low_hz / 1000:.1f}-{high_hz / 1000:.1f} kHz"
    return f"{low_hz:.0f}-{high_hz:.0f} Hz"


def alarm_object(alarm: Alarm, *, site: str, edge: str, backend: str, bank: str, model: str) -> dict[str, Scalar]:
    """The alarm as the outside sees it (contract 3). Every key is always there with one type; flags are 0 or 1."""
    return {
        "schema": SCHEMA,
        "id": f"{site}/{edge}/{alarm.machine}/{alarm.alarm}",
        "occurrence": alarm.occurrence,
        "seq": alarm.seq,
        "machine": alarm.machine,
        "alarm": alarm.alarm,
        "state": alarm.state.name,
        "state_code": int(alarm.state),
        "active": int(alarm.active),
        "acked": int(alarm.acked),
        "shelved": 0,
        "suppressed": 0,
        "out_of_service": 0,
        "latched": 0,
        "priority": alarm.priority,
        "severity": alarm.severity,
        "level": int(alarm.level),
        "score": float(alarm.score),
        "p_value": float(alarm.p_value),
        "fault": alarm.fault,
        "fault_code": alarm.fault_code,
        "fault_confidence": float(alarm.fault_confidence),
        "mode": alarm.mode,
        "quality": str(alarm.quality),
        "backend": backend,
        "bank": bank,
        "model": model,
        "ts": alarm.ts,
        "ts_onset": alarm.ts_onset,
        "ts_raised": alarm.ts_raised,
        "ts_acked": alarm.ts_acked,
        "ts_cleared": alarm.ts_cleared,
        "by": alarm.by,
        "comment": alarm.comment,
        "shelved_until": 0,
        "top_channel": alarm.top_channel,
        "top_share": float(alarm.top_share),
        "top_band_hz_low": float(alarm.top_band_hz_low),
        "top_band_hz_high": float(alarm.top_band_hz_high),
        "capture": alarm.capture,
        "capture_sha256": alarm.capture_sha256,
        "text": alarm.text,
    }
