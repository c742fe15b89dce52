"""One machine as the daemon sees it from second to second: who is heard, what was last judged, what level is shown.

Pure but for the times it is given: `mono_s` is the monotonic clock (staleness, holding a level), `t_ns` is UTC.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fisher_agent.alarms import MachineAlarms, Transition
from fisher_agent.codes import Level, Status
from fisher_agent.config import Config, MachineConfig
from fisher_agent.gather import Gatherer
from fisher_agent.probation import Probation
from fisher_agent.stages import ChannelReading, Frame, Moment, Scalar, Verdict

LEVEL_HOLD_S = 5.0  # HMIs sample about once in 3 s: a level that was shown for less may never be seen
ABSENT_VERDICTS = 3  # one or two may be the gap of a lost block
FALL_ORDER = (Level.NORMAL, Level.UNKNOWN, Level.ADVISORY, Level.ALARM, Level.SEVERE)


@dataclass(slots=True)
class _Hearing:
    """What is known of a channel's input right now."""

    stale_after_s: float
    heard_s: float  # when the last frame came; the start of the agent counts as heard
    stale: bool = False
    spoke: bool = False  # whether anything was heard since the start
    clock_offset_ms: float = 0.0
    rate_hz: float = 0.0
    reading: ChannelReading | None = None
    held: bool = False  # it has a part in verdicts between its windows
    absent: int = 0  # verdicts in a row that it gave no window to


class LiveMachine:
    """Frames in, moments out; verdicts in, alarm transitions out; silence becomes staleness."""

    def __init__(self, machine: MachineConfig, config: Config, alarms: MachineAlarms, *, mono_s: float) -> None:
        self.config = machine
        self.alarms = alarms
        self.gatherer = Gatherer(machine, config.window)
        self.probation: Probation | None = None
        self.verdict: Verdict | None = None
        self.verdicts = 0
        self._hearing = {
            # A stale alarm that was active when the agent stopped is owed its end.
            c.id: _Hearing(
                config.stale_after_s(c),
                mono_s,
                rate_hz=c.rate_hz,
                stale=alarms.is_stale(c.id),
                held=config.window.held(c),
            )
            for c in machine.channels
        }
        self._shown = Level.UNKNOWN
        self._shown_s = mono_s - LEVEL_HOLD_S

    def reconfigure(self, machine: MachineConfig, alarms: MachineAlarms) -> None:
        """Take other delays and ratios; channels, and what is being cut of them, stay as they are."""
        self.config, self.alarms = machine, alarms

    def hears(self, channel: str) -> bool:
        """Whether a channel belongs to this machine."""
        return channel in self._hearing

    def frame(self, frame: Frame, *, mono_s: float, utc_ns: int) -> list[Moment]:
        """Take one frame; returns the moments that it completed."""
        hearing = self._hearing[frame.channel]
        hearing.heard_s = mono_s
        hearing.spoke = True
        hearing.rate_hz = frame.rate_hz
        end_ns = frame.t_ns + round(len(frame.samples) * 1e9 / frame.rate_hz)
        hearing.clock_offset_ms = (end_ns - utc_ns) / 1e6
        return self.gatherer.push(frame)

    def judged(self, verdict: Verdict, *, fault_code: int) -> list[Transition]:
        """Take a verdict; returns the transitions of the alarm `anomaly`."""
        self.verdict = verdict
        self.verdicts += 1
        for hearing in self._hearing.values():
            hearing.absent += 1
        for reading in verdict.readings:
            self._hearing[reading.channel].reading = reading
            self._hearing[reading.channel].absent = 0
        transitions = self.alarms.verdict(verdict, fault_code=fault_code)
        if self.probation is not None:
            self.probation = self.probation.take(verdict, self.alarms.anomaly)
        return transitions

    @property
    def judged_ns(self) -> int:
        """Event time up to which the machine was judged; 0 before the first verdict."""
        return self.verdict.t_ns if self.verdict else 0

    def tick(self, *, mono_s: float, utc_ns: int) -> list[Transition]:
        """Look at the clock: channels that fell silent become stale, those heard again become fresh."""
        transitions: list[Transition] = []
        for channel, hearing in self._hearing.items():
            silent = mono_s - hearing.heard_s > hearing.stale_after_s
            stale = silent or (hearing.stale and not hearing.spoke)
            if stale != hearing.stale:
                hearing.stale = stale
                act = self.alarms.stale if stale else self.alarms.fresh
                transitions += act(channel, utc_ns)
        return transitions

    def flush_if_silent(self) -> list[Moment]:
        """When every channel is silent, no frame will ever close the last grid times: they are judged as they are."""
        if all(h.stale for h in self._hearing.values()):
            return self.gatherer.flush()
        return []

    def resume(self, *, mono_s: float) -> None:
        """Count every channel as heard now: after a long pause of the process itself, silence proves nothing."""
        for hearing in self._hearing.values():
            hearing.heard_s = mono_s

    @property
    def all_stale(self) -> bool:
        """Whether nothing at all is heard of this machine."""
        return all(h.stale for h in self._hearing.values())

    def status(self, channel: str) -> Status:
        """The one word for a channel: staleness first, then what its samples and its stream look like."""
        hearing = self._hearing[channel]
        if hearing.stale:
            return Status.STALE
        stream = self.gatherer.status(channel)
        if stream is not Status.OK:
            return stream
        if hearing.absent >= ABSENT_VERDICTS and not hearing.held:
            return Status.GAP  # it is heard, but always too late to be judged: its clock is behind the others'
        if hearing.reading is not None and hearing.reading.flat:
            return Status.FLAT
        if hearing.reading is not None and hearing.reading.clipped:
            return Status.CLIPPED
        return Status.OK

    @property
    def statuses(self) -> dict[str, Status]:
        """The word for every channel."""
        return {channel: self.status(channel) for channel in self._hearing}

    def inputs(self) -> Mapping[str, Mapping[str, Scalar]]:
        """What `fisher_channel` says of each channel's input."""
        found: dict[str, Mapping[str, Scalar]] = {}
        for channel, hearing in self._hearing.items():
            counters = self.gatherer.counters[channel]
            found[channel] = {
                "rate_hz": hearing.rate_hz,
                "gaps": counters.gaps,
                "late": counters.late,
                "clock_offset_ms": hearing.clock_offset_ms,
            }
        return found

    def level(self, *, mono_s: float) -> Level:
        """The level to show: it rises at once and is held before it falls."""
        now = Level.UNKNOWN if self.all_stale or self.verdict is None else self.alarms.level
        falling = FALL_ORDER.index(now) < FALL_ORDER.index(self._shown)
        if now is not self._shown and not (falling and mono_s - self._shown_s < LEVEL_HOLD_S):
            self._shown, self._shown_s = now, mono_s
        return self._shown


def channel_words(machines: Sequence[LiveMachine]) -> dict[str, dict[str, str]]:
    """machine -> channel -> status word, for `status`."""
    return {m.config.id: {c: str(s) for c, s in m.statuses.items()} for m in machines}
