"""A machine's alarms: verdicts, channels, time and operators in; transitions out. Pure.

Nothing here reads a clock: times come with the verdicts and calls. The tables are in `lifecycle`; here stands when
something is moved by them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from fisher_agent.alarmconfig import AlarmConfig
from fisher_agent.codes import UNKNOWN_FAULT, Level, Quality, State
from fisher_agent.commands import Command, is_done
from fisher_agent.lifecycle import (
    ANOMALY,
    FAULT,
    FLOOD,
    SENSOR,
    STALE,
    UNKNOWN_MODE,
    Alarm,
    Event,
    Reason,
    Transition,
    step,
)
from fisher_agent.stages import Verdict

SEVERE_KEEPS = 0.9  # a severe alarm stays severe down to this share of alarm_ratio, so that level does not flutter
FAULT_CONFIDENCE = 0.6  # of the vote: from here on a named class has an alarm of its own
GROUPED_FROM = 3  # alarms that wait at once: what a flood groups of one machine
CLOCK_BACK_MS = 60_000  # a clock that went back by more than this ends shelving, which would otherwise last too long
MS = 1_000_000
RANKS = {ANOMALY: (2, 600), FAULT: (2, 700), FLOOD: (2, 500), SENSOR: (3, 300), STALE: (3, 300), UNKNOWN_MODE: (4, 200)}
"""Priority (1 highest .. 4) and severity (1 .. 1000) by the beginning of an alarm's id."""
SEVERE = 800


@dataclass(frozen=True, slots=True)
class CommandResult:
    """The answer to a command; `error` says why it was refused."""

    ok: bool
    error: str = ""
    transitions: tuple[Transition, ...] = ()


class MachineAlarms:
    """All alarms of one machine.

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
        self._alarms: dict[str, Alarm] = {}
        for alarm_id in (ANOMALY, UNKNOWN_MODE, FLOOD):
            self._add(alarm_id)
        for channel in channels:
            self._add(STALE + channel, channel)
            self._add(SENSOR + channel, channel)
        self._alarms.update({a.alarm: a for a in alarms})
        self._set(ANOMALY, priority=config.priority)

    @property
    def alarms(self) -> tuple[Alarm, ...]:
        """Every alarm as it is now; what is stored to go on later."""
        return tuple(self._alarms.values())

    @property
    def anomaly(self) -> Alarm:
        """The alarm that the score raises."""
        return self._alarms[ANOMALY]

    def alarm(self, alarm_id: str) -> Alarm | None:
        """One alarm as it is now."""
        return self._alarms.get(alarm_id)

    @property
    def level(self) -> Level:
        """What an HMI colours by (contract 2), as of the latest verdict."""
        level = self.anomaly.level
        return Level.ADVISORY if level is Level.NORMAL and self.unknown_mode else level

    @property
    def unknown_mode(self) -> bool:
        """Whether the machine is known to run as it was never enrolled."""
        return self._alarms[UNKNOWN_MODE].active

    def is_stale(self, channel: str) -> bool:
        """Whether the alarm `stale-<channel>` is active; after a restart `fresh` is owed to every such channel."""
        return self._alarms[STALE + channel].active

    # Verdicts.

    def verdict(self, verdict: Verdict, *, fault_code: int) -> list[Transition]:
        """Take a verdict. One that is not scored (stopped, not enrolled, bad quality) counts and clears nothing."""
        t_ms = verdict.t_ns // MS
        moves: list[Transition] = []
        lost = verdict.quality is Quality.BAD or self._all_stale
        quality = Quality.BAD if lost else verdict.quality
        self._set(ANOMALY, enrolled=verdict.enrolled, running=verdict.running, quality=quality)
        self._judged_or_not(lost, t_ms, moves)
        self._by_design(verdict, t_ms, moves)
        if lost or not verdict.running or not verdict.enrolled:
            return moves
        known = not verdict.unknown_mode
        self._count(UNKNOWN_MODE, over=not known, under=known, t_ms=t_ms)
        self._settle(UNKNOWN_MODE, t_ms, moves)
        if not known or not verdict.scored or not math.isfinite(verdict.score):
            return moves
        self._set(ANOMALY, **_facts(verdict, fault_code))
        self._score(verdict.score, t_ms, moves)
        self._faults(verdict, fault_code, t_ms, moves)
        return moves

    def _score(self, score: float, t_ms: int, moves: list[Transition]) -> None:
        self._count(ANOMALY, over=score >= 1.0, under=score < 1.0 - self._config.deadband, t_ms=t_ms)
        raising = not self.anomaly.active and self._delayed(self.anomaly)
        self._grade(score, active=self.anomaly.active or raising)
        self._settle(ANOMALY, t_ms, moves)

    def _faults(self, verdict: Verdict, fault_code: int, t_ms: int, moves: list[Transition]) -> None:
        """A class that is named surely while the anomaly holds has an alarm of its own."""
        named = verdict.fault if verdict.fault_confidence >= FAULT_CONFIDENCE and self.anomaly.active else None
        if named and named != UNKNOWN_FAULT:
            self._add(FAULT + named)
        for alarm_id in [a for a in self._alarms if a.startswith(FAULT)]:
            over = alarm_id == FAULT + (named or "")
            facts = {**_facts(verdict, fault_code), "fault": alarm_id.removeprefix(FAULT)} if over else {}
            self._set(alarm_id, enrolled=True, running=True, quality=verdict.quality, **facts)
            self._count(alarm_id, over=over, under=not over, t_ms=t_ms)
            self._settle(alarm_id, t_ms, moves)

    def _judged_or_not(self, lost: bool, t_ms: int, moves: list[Transition]) -> None:
        for alarm in self._of_verdicts():
            concerned = alarm.alarm == ANOMALY or alarm.active or alarm.unknown
            if concerned and lost != alarm.unknown:
                self._move(alarm.alarm, Event.LOST if lost else Event.REGAINED, moves, t_ms=t_ms)

    def _by_design(self, verdict: Verdict, t_ms: int, moves: list[Transition]) -> None:
        """A machine that does not run raises nothing; what nobody needs to see any more says so.

        An alarm that still waits for somebody, or still holds, is never hidden by this.
        """
        stopped = verdict.enrolled and not verdict.running and verdict.quality is not Quality.BAD
        self._set(ANOMALY, stopped_count=self.anomaly.stopped_count + 1 if stopped else 0)
        long_stopped = self.anomaly.stopped_count >= self._config.off_delay_windows
        for alarm in self.alarms:
            if alarm.alarm.startswith(STALE) or alarm.alarm == FLOOD:
                continue
            hidden = Reason.STOPPED in alarm.suppressed_by
            if self._config.suppress_when_stopped and long_stopped and alarm.base is State.NORM and not hidden:
                self._move(alarm.alarm, Event.SUPPRESS, moves, t_ms=t_ms, reason=Reason.STOPPED, by="design")
            elif hidden and (verdict.running or not self._config.suppress_when_stopped):
                self._move(alarm.alarm, Event.UNSUPPRESS, moves, t_ms=t_ms, reason=Reason.STOPPED, by="design")

    # Channels.

    def stale(self, channel: str, t_ns: int) -> list[Transition]:
        """The channel fell silent. When all have, the anomaly cannot be judged any more. Repeating is a no-op."""
        moves: list[Transition] = []
        if not self.is_stale(channel):
            self._set(STALE + channel, ts_first=t_ns // MS, quality=Quality.BAD)
            self._raise(STALE + channel, t_ns // MS, moves)
        if self._all_stale:
            self._judged_or_not(True, t_ns // MS, moves)
        return moves

    def fresh(self, channel: str, t_ns: int) -> list[Transition]:
        """The channel is heard again. The anomaly shows its state again with the next verdict that can be judged."""
        moves: list[Transition] = []
        if self.is_stale(channel):
            self._set(STALE + channel, quality=Quality.GOOD)
            self._clear(STALE + channel, t_ns // MS, moves)
        return moves

    def sensor(self, channel: str, problem: str, t_ns: int) -> list[Transition]:
        """What is wrong with a channel's sensor; "" where nothing is. Repeating is a no-op."""
        moves: list[Transition] = []
        alarm_id = SENSOR + channel
        if bool(problem) != self._alarms[alarm_id].active:
            quality = Quality.BAD if problem else Quality.GOOD
            self._set(alarm_id, detail=problem, quality=quality, ts_first=t_ns // MS)
            (self._raise if problem else self._clear)(alarm_id, t_ns // MS, moves)
        return moves

    # Time.

    def tick(self, t_ns: int) -> list[Transition]:
        """What time alone does: shelving ends, an acknowledged alarm that still holds calls again."""
        t_ms = t_ns // MS
        moves: list[Transition] = []
        for alarm in self.alarms:
            over = t_ms >= alarm.shelved_until or t_ms < alarm.ts_shelved - CLOCK_BACK_MS
            if alarm.shelved_until and over:
                self._move(alarm.alarm, Event.UNSHELVE, moves, t_ms=t_ms, by="time")
            again_ms = self._config.realarm_h * 3_600_000
            if again_ms and alarm.base is State.ACKED and t_ms - alarm.ts_acked >= again_ms:
                self.occurrence += 1
                self._move(alarm.alarm, Event.REALARM, moves, t_ms=t_ms, occurrence=self.occurrence)
        return moves

    def flood(self, on: bool, t_ns: int) -> list[Transition]:
        """While alarms come in a flood, those of this machine that wait are shown as one alarm. Repeating is fine."""
        t_ms = t_ns // MS
        moves: list[Transition] = []
        grouped = [a for a in self.alarms if Reason.FLOOD in a.suppressed_by]
        if not on:
            for alarm in grouped:
                self._move(alarm.alarm, Event.UNSUPPRESS, moves, t_ms=t_ms, reason=Reason.FLOOD, by="design")
            if self._alarms[FLOOD].active:
                self._clear(FLOOD, t_ms, moves)
            return moves
        waiting = [a for a in self.alarms if a.waiting and a.alarm != FLOOD]
        if not waiting or (not grouped and len(waiting) < GROUPED_FROM):
            return moves
        for alarm in waiting:
            self._move(alarm.alarm, Event.SUPPRESS, moves, t_ms=t_ms, reason=Reason.FLOOD, by="design")
        every = [*grouped, *waiting]
        self._set(
            FLOOD,
            detail=", ".join(a.alarm for a in every),
            severity=max(a.severity for a in every),
            priority=min(a.priority for a in every),
        )
        if not self._alarms[FLOOD].active:
            self._raise(FLOOD, t_ms, moves)
        return moves

    def maintenance(self, on: bool, t_ns: int, *, by: str) -> list[Transition]:
        """While it is open, what verdicts say of the machine is suppressed."""
        moves: list[Transition] = []
        for alarm in self._of_verdicts():
            if on != (Reason.MAINTENANCE in alarm.suppressed_by):
                event = Event.SUPPRESS if on else Event.UNSUPPRESS
                self._move(alarm.alarm, event, moves, t_ms=t_ns // MS, reason=Reason.MAINTENANCE, by=by)
        return moves

    # Operators.

    def command(self, command: Command, t_ns: int) -> CommandResult:
        """Do what an operator asks of one alarm; what is done already is a no-op."""
        alarm = self._alarms.get(command.alarm)
        if alarm is None:
            return CommandResult(
                False, f"{self.machine} has no alarm {command.alarm!r}; it has: {', '.join(self._alarms)}"
            )
        if command.verb == "ack" and alarm.occurrence == 0:
            return CommandResult(False, f"{alarm.alarm} was never raised; there is nothing to acknowledge")
        if command.occurrence >= 0 and command.occurrence != alarm.occurrence:
            return CommandResult(
                False, f"occurrence {command.occurrence} of {alarm.alarm} is not the latest, {alarm.occurrence}"
            )
        t_ms = t_ns // MS
        if command.verb == "shelve" and (error := self._unshelvable(command, t_ms)):
            return CommandResult(False, error)
        if is_done(alarm, command):
            return CommandResult(True)
        moves: list[Transition] = []
        self._move(
            alarm.alarm,
            Event(command.verb),
            moves,
            t_ms=t_ms,
            by=command.by,
            comment=command.comment,
            until_ms=command.until_ms,
        )
        return CommandResult(True, transitions=tuple(moves))

    def _unshelvable(self, command: Command, t_ms: int) -> str:
        longest_ms = round(self._config.max_shelve_h * 3_600_000)
        if command.until_ms <= t_ms:
            return f"until is {(t_ms - command.until_ms) / 1000:.0f} s ago; shelving ends in the future"
        if command.until_ms > t_ms + longest_ms:
            hours = (command.until_ms - t_ms) / 3_600_000
            return f"until is {hours:.1f} h away; at most {self._config.max_shelve_h:g} h (alarm.max_shelve_h)"
        return ""

    def captured(self, alarm_id: str, occurrence: int, *, capture: str, sha256: str) -> Alarm | None:
        """Name the capture of an occurrence; None where that is no longer the latest. No transition."""
        alarm = self._alarms.get(alarm_id)
        if alarm is None or alarm.occurrence != occurrence:
            return None
        self._set(alarm_id, capture=capture, capture_sha256=sha256)
        return self._alarms[alarm_id]

    def retire(self, t_ns: int) -> list[Transition]:
        """Clear the alarms of channels that left the configuration; to be called once after restoring."""
        moves: list[Transition] = []
        current = {kind + c for c in self._channels for kind in (STALE, SENSOR)}
        for alarm in self.alarms:
            if alarm.alarm.startswith((STALE, SENSOR)) and alarm.alarm not in current and alarm.active:
                self._clear(alarm.alarm, t_ns // MS, moves)
        return moves

    # How.

    @property
    def _all_stale(self) -> bool:
        return bool(self._channels) and all(self.is_stale(c) for c in self._channels)

    def _of_verdicts(self) -> list[Alarm]:
        return [a for a in self.alarms if a.alarm in (ANOMALY, UNKNOWN_MODE) or a.alarm.startswith(FAULT)]

    def _add(self, alarm_id: str, channel: str = "") -> None:
        if alarm_id not in self._alarms:
            priority, severity = next(rank for kind, rank in RANKS.items() if alarm_id.startswith(kind))
            if alarm_id == ANOMALY:
                priority = self._config.priority
            self._alarms[alarm_id] = Alarm(
                machine=self.machine, alarm=alarm_id, priority=priority, severity=severity, top_channel=channel
            )

    def _set(self, alarm_id: str, **changes: Any) -> None:
        self._alarms[alarm_id] = replace(self._alarms[alarm_id], **changes)

    def _move(self, alarm_id: str, event: Event, moves: list[Transition], **details: Any) -> None:
        before = self._alarms[alarm_id]
        after = step(before, event, **details)
        self._alarms[alarm_id] = after
        moves.append(Transition(after, event, before.state))

    def _raise(self, alarm_id: str, t_ms: int, moves: list[Transition]) -> None:
        self.occurrence += 1
        self._move(alarm_id, Event.RAISE, moves, t_ms=t_ms, occurrence=self.occurrence)

    def _clear(self, alarm_id: str, t_ms: int, moves: list[Transition]) -> None:
        latches = self._config.latching and self._alarms[alarm_id].base is State.UNACK
        judged = alarm_id == ANOMALY or alarm_id.startswith(FAULT)
        self._move(alarm_id, Event.LATCH if latches and judged else Event.CLEAR, moves, t_ms=t_ms)

    def _count(self, alarm_id: str, *, over: bool, under: bool, t_ms: int) -> None:
        """Between `under` and `over` lies the deadband: it confirms neither."""
        alarm = self._alarms[alarm_id]
        needed, width = self._config.delay
        before = (alarm.recent << 1) & ((1 << width) - 1)
        begun = bool(before) if width > needed else bool(alarm.on_count)
        self._set(
            alarm_id,
            recent=before | over,
            on_count=alarm.on_count + 1 if over else 0,
            off_count=0 if over else alarm.off_count + under,
            ts_first=t_ms if over and not begun else alarm.ts_first,
        )

    def _delayed(self, alarm: Alarm) -> bool:
        """Whether enough of the latest verdicts were at or over the limit."""
        return alarm.recent.bit_count() >= self._config.on_delay_windows

    def _settle(self, alarm_id: str, t_ms: int, moves: list[Transition]) -> None:
        alarm = self._alarms[alarm_id]
        if not alarm.active and alarm.on_count and self._delayed(alarm):
            self._raise(alarm_id, t_ms, moves)
        elif alarm.active and alarm.off_count >= self._config.off_delay_windows:
            self._set(alarm_id, recent=0)
            self._clear(alarm_id, t_ms, moves)

    def _grade(self, score: float, *, active: bool) -> None:
        ratio = self._config.alarm_ratio
        severe = active and score >= (ratio * SEVERE_KEEPS if self.anomaly.severe else ratio)
        self._set(ANOMALY, severe=severe, severity=SEVERE if severe else RANKS[ANOMALY][1])


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
