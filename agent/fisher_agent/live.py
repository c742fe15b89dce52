"""One machine as the daemon sees it from second to second: who is heard, what was last judged, what level is shown.

Pure but for the times it is given: `mono_s` is the monotonic clock (staleness, holding a level), `t_ns` is UTC.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from fisher_agent.alarms import MachineAlarms
from fisher_agent.codes import Level, Status
from fisher_agent.config import Config, MachineConfig
from fisher_agent.confirm import Confirm
from fisher_agent.drift import ModeDrift
from fisher_agent.feed import Feed
from fisher_agent.gather import Gatherer
from fisher_agent.lifecycle import SENSOR, Transition
from fisher_agent.modes import Told
from fisher_agent.probation import Probation
from fisher_agent.probations import taken
from fisher_agent.sensor import FINE, Finding
from fisher_agent.stages import ChannelReading, Frame, Moment, Scalar, Tag, Verdict
from fisher_agent.waveforms import Recording

LEVEL_HOLD_S = 5.0  # HMIs sample about once in 3 s: a level that was shown for less may never be seen
ABSENT_VERDICTS = 3  # one or two may be the gap of a lost block
SURE_WINDOWS = 3  # in a row of a bad sensor, and as many of a good one; a knock spoils fewer
SURE_LENGTHS = 2.0  # lengths of a window that they span, so that they are not all of the same samples
SURE_STREAM_S = {Status.GAP: 120.0, Status.RATE_MISMATCH: 30.0, Status.CLOCK_DRIFT: 60.0}
"""For how long a stream is bad before its sensor is. Samples are missing in the last minute, and a link that was away
for some seconds is forgotten after it."""
STREAM_WELL_S = 60.0  # for so long it is well again before it is forgotten
FALL_ORDER = (Level.NORMAL, Level.UNKNOWN, Level.ADVISORY, Level.ALARM, Level.SEVERE)


@dataclass(slots=True)
class _Hearing:
    """What is known of a channel's input right now."""

    stale_after_s: float
    heard_s: float  # when the last frame came; the start of the agent counts as heard
    feed: Feed
    windows: Confirm  # what stands of the sensor by its windows
    lasting: Confirm  # and by its stream
    stale: bool = False
    spoke: bool = False  # whether anything was heard since the start
    clock_offset_ms: float = 0.0
    rate_hz: float = 0.0
    reading: ChannelReading | None = None
    held: bool = False  # it has a part in verdicts between its windows
    absent: int = 0  # verdicts in a row that it gave no window to
    stream: Finding = FINE  # what is wrong with it right now
    stream_since_s: float | None = None  # since when something is


class LiveMachine:
    """Frames in, moments out; verdicts in, alarm transitions out; silence becomes staleness."""

    def __init__(self, machine: MachineConfig, config: Config, alarms: MachineAlarms, *, mono_s: float) -> None:
        self.config = machine
        self.alarms = alarms
        self.gatherer = Gatherer(machine, config.window)
        self.told = Told()  # what a tag, or an operator, says of its operating mode
        self.maintenance_known = False  # whether what was open before a restart has been taken up
        self.maintenance_until_ms = 0  # ms UTC; while it is open, the anomaly is suppressed by design
        self.maintenance: Recording | None = None  # what is heard meanwhile
        self.offer = ""  # what came of the latest maintenance, for an operator
        self.drift: tuple[ModeDrift, ...] = ()  # of its normal state, as of the latest look
        self._window = config.window
        window = config.window
        self._patience_s = window.length_s + 3 * window.hop_s + window.lateness_s  # beyond the silence of a channel
        self.probations: Mapping[str, Probation] = {}  # by mode; those that are over, too
        self.verdict: Verdict | None = None
        self.verdicts = 0
        self.judged_s = mono_s  # monotonic, when the latest verdict came
        self._hearing = {
            # A stale alarm that was active when the agent stopped is owed its end.
            c.id: _Hearing(
                config.stale_after_s(c),
                mono_s,
                Feed(c, stale_after_s=config.stale_after_s(c), blocks=config.window.held(c)),
                Confirm(
                    on_count=SURE_WINDOWS,
                    on_s=SURE_LENGTHS * config.window.length_s,
                    off_count=SURE_WINDOWS,
                    off_s=SURE_LENGTHS * config.window.length_s,
                    standing=_restored(alarms, c.id, of_stream=False),
                ),
                Confirm(
                    on_count=1,
                    on_s=0.0,
                    off_count=2,
                    off_s=STREAM_WELL_S,
                    standing=_restored(alarms, c.id, of_stream=True),
                ),
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
        if machine.mode != self.config.mode:
            self.told = Told()  # what was said by the old configuration means nothing by the new one
        self.config, self.alarms = machine, alarms

    def hears(self, channel: str) -> bool:
        """Whether a channel belongs to this machine."""
        return channel in self._hearing

    def frame(self, frame: Frame, *, mono_s: float, utc_ns: int) -> list[Moment]:
        """Take one frame, or a tag of the operating mode; returns the moments that it completed."""
        if isinstance(frame, Tag):
            self.told.say(frame.word, frame.t_ns)
            return []
        hearing = self._hearing[frame.channel]
        hearing.heard_s = mono_s
        hearing.spoke = True
        hearing.rate_hz = frame.rate_hz
        end_ns = frame.t_ns + round(len(frame.samples) * 1e9 / frame.rate_hz)
        hearing.clock_offset_ms = (end_ns - utc_ns) / 1e6
        hearing.feed.take(frame, end_ns=end_ns, mono_s=mono_s, utc_ns=utc_ns)
        return self._stamped(self.gatherer.push(frame))

    def _stamped(self, moments: Sequence[Moment]) -> list[Moment]:
        stamped = (self.told.stamp(m, window=self._window, settle_s=self.config.settle_s) for m in moments)
        if not (wrong := self._at_wrong_rates()):
            return list(stamped)
        return [replace(m, distrusted=wrong) for m in stamped]

    def _at_wrong_rates(self) -> dict[str, tuple[Status, str]]:
        """Channels whose samples are known to come at another rate: their spectra lie elsewhere than they seem to."""
        standing = {channel: hearing.lasting.standing for channel, hearing in self._hearing.items()}
        return {c: (f.status, f.text) for c, f in standing.items() if f.status is Status.RATE_MISMATCH}

    def judged(self, verdict: Verdict, *, fault_code: int, mono_s: float) -> list[Transition]:
        """Take a verdict; returns the transitions of the alarm `anomaly`."""
        self.verdict, self.judged_s = verdict, mono_s
        self.verdicts += 1
        for hearing in self._hearing.values():
            hearing.absent += 1
        for reading in verdict.readings:
            if reading.channel not in self._hearing:
                continue  # judged before a reload took the channel out
            hearing = self._hearing[reading.channel]
            hearing.reading, hearing.absent = reading, 0
            hearing.windows.take(_of_window(reading, hearing, running=verdict.running), t_s=verdict.t_ns / 1e9)
        transitions = self.alarms.verdict(verdict, fault_code=fault_code)
        self.probations = taken(self.probations, verdict, self.alarms.anomaly)
        return transitions

    @property
    def judged_ns(self) -> int:
        """Event time up to which the machine was judged; 0 before the first verdict."""
        return self.verdict.t_ns if self.verdict else 0

    def tick(self, *, mono_s: float, utc_ns: int, flood: bool = False) -> list[Transition]:
        """Look at the clock: who fell silent, who is heard again, what time and a flood of alarms do to alarms."""
        transitions: list[Transition] = self.alarms.tick(utc_ns)
        if self.maintenance_known:
            transitions += self.alarms.maintenance(bool(self.maintenance_until_ms), utc_ns, by="maintenance")
        for channel, hearing in self._hearing.items():
            silent = mono_s - hearing.heard_s > hearing.stale_after_s
            stale = silent or (hearing.stale and not hearing.spoke)
            if stale != hearing.stale:
                hearing.stale = stale
                hearing.windows.pause()
                act = self.alarms.stale if stale else self.alarms.fresh
                transitions += act(channel, utc_ns)
            self._look_at_stream(channel, hearing, mono_s=mono_s)
        bad = self.sensor_states()
        for channel, hearing in self._hearing.items():
            if not hearing.stale:
                status, why = bad.get(channel, (Status.OK, ""))
                transitions += self.alarms.sensor(channel, f"{status}: {why}" if channel in bad else "", utc_ns)
        return transitions + self.alarms.flood(flood, utc_ns)

    def _look_at_stream(self, channel: str, hearing: _Hearing, *, mono_s: float) -> None:
        """What is wrong with a stream counts once it has lasted."""
        fault = self.gatherer.status(channel)
        hearing.stream = hearing.feed.finding()
        if fault is Status.RATE_MISMATCH:
            text = f"{hearing.rate_hz:g} Hz is stated, {self.config.channel(channel).rate_hz:g} configured"
            hearing.stream = Finding(fault, text)
        elif not hearing.stream.bad and hearing.absent >= ABSENT_VERDICTS and not hearing.held:
            hearing.stream = Finding(Status.GAP, "it is heard, but none of its windows is whole and in time")
        if hearing.stale:
            hearing.stream, hearing.stream_since_s = FINE, None
            hearing.lasting.pause()
            return
        if not hearing.stream.bad:
            hearing.stream_since_s = None
        elif hearing.stream_since_s is None:
            hearing.stream_since_s = mono_s
        since_s = mono_s if hearing.stream_since_s is None else hearing.stream_since_s
        new = hearing.stream.bad and mono_s - since_s < SURE_STREAM_S[hearing.stream.status]
        stands = hearing.lasting.standing
        # After a start or a pause the rate was not counted yet; until it is, what was known of it stands.
        uncounted = stands.status is Status.RATE_MISMATCH and not hearing.stream.bad and not hearing.feed.counted
        known = not uncounted and not (new and not stands.bad)
        hearing.lasting.take(hearing.stream if known else None, t_s=mono_s)

    def flush_if_silent(self) -> list[Moment]:
        """When every channel is silent, no frame will ever close the last grid times: they are judged as they are."""
        return self.flush() if self.all_stale else []

    def flush(self) -> list[Moment]:
        """What waits for channels that are behind, as it is: nothing more will come."""
        return self._stamped(self.gatherer.flush())

    def resume(self, *, mono_s: float) -> None:
        """Count every channel as heard now: after a long pause of the process itself, silence proves nothing."""
        for hearing in self._hearing.values():
            hearing.heard_s = mono_s
            hearing.feed.reset()
        self.judged_s = mono_s

    @property
    def all_stale(self) -> bool:
        """Whether nothing at all is heard of this machine."""
        return all(h.stale for h in self._hearing.values())

    def unjudged(self, *, mono_s: float) -> bool:
        """Whether the latest verdict is older than those who speak allow: three hops beyond their shortest silence."""
        silence_s = min((h.stale_after_s for h in self._hearing.values() if not h.stale), default=math.inf)
        return self.verdict is not None and mono_s - self.judged_s > silence_s + self._patience_s

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
        if hearing.stream.status in (Status.GAP, Status.RATE_MISMATCH):
            return hearing.stream.status
        if hearing.reading is not None:
            if hearing.reading.status is not Status.OK:
                return hearing.reading.status
            if hearing.reading.flat:
                return Status.FLAT
            if hearing.reading.clipped:
                return Status.CLIPPED
        return hearing.stream.status

    def sensor_states(self) -> Mapping[str, tuple[Status, str]]:
        """The channels whose sensor is bad, for long enough to be believed: what is wrong, and why.

        A channel that is stale has no part in it. What stands still because its machine does is no bad sensor: while
        nothing runs, flat and unplugged are neither found nor forgotten, so where all channels fall flat together
        none is bad; the verdict's quality says that nothing is known of the machine.
        """
        bad = {
            channel: hearing.lasting.standing if hearing.lasting.standing.bad else hearing.windows.standing
            for channel, hearing in self._hearing.items()
            if not hearing.stale
        }
        return {channel: (found.status, found.text) for channel, found in bad.items() if found.bad}

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
        known = self.verdict is not None and not self.all_stale and not self.unjudged(mono_s=mono_s)
        now = self.alarms.level if known else Level.UNKNOWN
        falling = FALL_ORDER.index(now) < FALL_ORDER.index(self._shown)
        if now is not self._shown and not (falling and mono_s - self._shown_s < LEVEL_HOLD_S):
            self._shown, self._shown_s = now, mono_s
        return self._shown


def _of_window(reading: ChannelReading, hearing: _Hearing, *, running: bool) -> Finding | None:
    """What a window says of its sensor; None where that cannot be told."""
    stands = hearing.windows.standing.status
    if not running and (reading.status is Status.FLAT or (stands is Status.UNPLUGGED and reading.status is Status.OK)):
        return None
    return Finding(reading.status, reading.status_text)


def _restored(alarms: MachineAlarms, channel: str, *, of_stream: bool) -> Finding:
    """What stood of a sensor when the agent stopped, so that a start alone does not end its alarm."""
    alarm = alarms.alarm(SENSOR + channel)
    if alarm is None or not alarm.active:
        return FINE
    word, _, text = alarm.detail.partition(": ")
    status = Status(word) if word in set(Status) else Status.NOISY
    return Finding(status, text) if of_stream == (status in SURE_STREAM_S) else FINE


def channel_words(machines: Sequence[LiveMachine]) -> dict[str, dict[str, str]]:
    """machine -> channel -> status word, for `status`."""
    return {m.config.id: {c: str(s) for c, s in m.statuses.items()} for m in machines}
