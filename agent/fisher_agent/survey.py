"""First look at a recording: the level of every window, which are of steady running, and whether that will do."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from fisher_agent import calibrate
from fisher_agent.bank import Bank
from fisher_agent.calibrate import Spans
from fisher_agent.config import ChannelConfig, MachineConfig, WindowConfig
from fisher_agent.errors import NotLearnt
from fisher_agent.gate import believed, ends_rms, is_running, levels_of
from fisher_agent.gather import Gatherer
from fisher_agent.indicators import Level
from fisher_agent.inspection import MOSTLY, Inspection, most_common
from fisher_agent.sensor import FINE, Finding, Reference
from fisher_agent.stages import Moment, Window
from fisher_agent.traits import Traits
from fisher_agent.waveforms import Recording

MIN_WINDOWS = 10
MIN_INDEPENDENT = 5  # windows that do not overlap: fewer blocks to leave out say nothing about tomorrow
FULL_RMS_QUANTILE = 0.9
QUIET_QUANTILE = 0.02


@dataclass(frozen=True, slots=True)
class Seen:
    """What is kept of a window."""

    span: tuple[int, int]
    rate_hz: float
    level: Level
    sensor: Finding = FINE
    quiet_rms: float | None = None  # of the quieter one of its ends

    @property
    def usable(self) -> bool:
        """Whether it can be embedded, and comes of a sensor that can be believed."""
        return self.level.usable and not self.sensor.bad


@dataclass(frozen=True, slots=True)
class Survey:
    """Every moment of a recording, by channel, and which of them are of steady running."""

    ends_ns: NDArray[np.int64]  # (m,)
    seen: tuple[Mapping[str, Seen], ...]  # (m,)
    steady: NDArray[np.bool_]  # (m,)
    traits: Mapping[str, Traits] = field(default_factory=dict)  # of the healthy sensor, over steady running

    def usable(self, channel: str) -> list[Seen]:
        """The channel's windows of steady running."""
        return [w for w in self.of_steady(channel) if w.usable]

    def of_steady(self, channel: str) -> list[Seen]:
        """The channel's windows of steady running, with those of a bad sensor."""
        return [one[channel] for one, kept in zip(self.seen, self.steady, strict=True) if kept and channel in one]

    def rms(self, channel: str) -> float:
        """Median RMS of the usable windows; 0 without any."""
        return float(np.median([w.level.rms for w in self.usable(channel)] or [0.0]))

    def quietest(self, channel: str) -> float | None:
        """How quiet an end of a usable window is, over the median RMS: the 2 % quantile; None where none is known."""
        found = [w.quiet_rms for w in self.usable(channel) if w.quiet_rms is not None]
        rms = self.rms(channel)
        return float(np.quantile(found, QUIET_QUANTILE)) / rms if found and rms > 0 else None

    def spans(self, positions: NDArray[np.intp]) -> Spans:
        """All the time (m, 2) that the windows of each of these moments cover."""
        spans = [[w.span for w in self.seen[m].values()] for m in positions]
        return np.asarray([(min(a for a, _ in one), max(b for _, b in one)) for one in spans], dtype=np.int64)


def moments(recording: Recording, machine: MachineConfig, window: WindowConfig) -> Iterator[Moment]:
    """Cut a recording as a live stream is cut; the same moments every time."""
    gatherer = Gatherer(machine, window)
    known = {c.id for c in machine.channels}
    for frame in recording.frames(whole=[c.id for c in machine.channels if c.snapshot]):
        if frame.channel in known:
            yield from gatherer.push(frame)
    yield from gatherer.flush()


def look(
    recording: Recording,
    machine: MachineConfig,
    window: WindowConfig,
    *,
    reference_rms: Mapping[str, float] | None = None,
    sensors: Mapping[str, Reference] | None = None,
) -> Survey:
    """Measure every window. Without references, full running is the 90 % quantile of each channel's RMS.

    `sensors` is what an earlier enrolment knows of the channels.
    """
    ends: list[int] = []
    seen: list[dict[str, Seen]] = []
    inspection = Inspection(machine, window, references=sensors)
    for moment in moments(recording, machine, window):
        ends.append(moment.end_ns)
        levels = levels_of(machine, moment)
        seen.append({w.channel: _seen(machine, w, levels[w.channel]) for w in moment.windows})
        for w in moment.windows:
            inspection.take(w, levels[w.channel])
    for channel in (c.id for c in machine.channels):
        of_channel = (one for one in seen if channel in one)
        for one, finding in zip(of_channel, inspection.findings(channel), strict=True):
            one[channel] = replace(one[channel], sensor=finding)
    if reference_rms is None:
        heard = {
            c.id: [one[c.id].level.rms for one in seen if c.id in one and one[c.id].usable] for c in machine.channels
        }
        reference_rms = {c: float(np.quantile(rms, FULL_RMS_QUANTILE)) for c, rms in heard.items() if rms}
    found = [
        believed(machine, {c: w.level for c, w in one.items()}, {c: w.sensor for c, w in one.items()}) for one in seen
    ]
    running = np.asarray([is_running(machine, one, reference_rms=reference_rms) for one in found], dtype=np.bool_)
    ends_ns = np.asarray(ends, dtype=np.int64)
    lengths = {"length_ns": round(window.length_s * 1e9), "settle_ns": round(machine.settle_s * 1e9)}
    kept = steady(ends_ns, running, **lengths)
    traits = {
        c.id: inspection.traits(
            c.id, [bool(k) and one[c.id].usable for one, k in zip(seen, kept, strict=True) if c.id in one]
        )
        for c in machine.channels
    }
    return Survey(ends_ns, tuple(seen), kept, traits)


def _seen(machine: MachineConfig, window: Window, level: Level) -> Seen:
    ends = ends_rms(machine.channel(window.channel), window) if level.usable else None
    return Seen(span(window), window.rate_hz, level, quiet_rms=min(ends) if ends else None)


def steady(
    ends_ns: NDArray[np.int64], running: NDArray[np.bool_], *, length_ns: int, settle_ns: int = 0
) -> NDArray[np.bool_]:
    """Running moments (m,) that neither overlap nor adjoin one that does not run: starts and stops are not normal.

    After a start, `settle_ns` more are left out.
    """
    stopped = np.sort(ends_ns[~running])
    if not len(stopped):
        return running
    after = np.searchsorted(stopped, ends_ns)
    to_next = stopped[np.minimum(after, len(stopped) - 1)] - ends_ns
    to_last = ends_ns - stopped[np.maximum(after - 1, 0)]
    near = ((to_next >= 0) & (to_next <= length_ns)) | ((to_last >= 0) & (to_last <= length_ns + settle_ns))
    return np.asarray(running & ~near, dtype=np.bool_)


def span(window: Window) -> tuple[int, int]:
    """First and one past the last nanosecond of a window."""
    return window.t_ns, window.t_ns + round(len(window.samples) * 1e9 / window.rate_hz)


def refuse(
    survey: Survey,
    recording: Recording,
    machine: MachineConfig,
    window: WindowConfig,
    *,
    previous: Bank | None = None,
) -> None:
    """Raise NotLearnt unless there is enough of a running machine on every channel."""
    for channel in machine.channels:
        _refuse_silent(channel, survey, recording, machine, window)
    _refuse_stopped(survey, machine, previous)
    for channel in machine.channels:
        usable = survey.usable(channel.id)
        apart = len(calibrate.independent(np.asarray([s.span for s in usable], dtype=np.int64).reshape(-1, 2)))
        if len(usable) < MIN_WINDOWS or apart < MIN_INDEPENDENT:
            longest_ns = max((s.span[1] - s.span[0] for s in usable), default=0)
            long_s = max(window.length_s, longest_ns / 1e9)
            step_s = max(channel.period_s or window.hop_s, 1 / channel.rate_hz)
            needed_s = max(MIN_WINDOWS * step_s, MIN_INDEPENDENT * long_s) + long_s
            raise NotLearnt(
                f"{machine.id}/{channel.id} gave {len(usable)} windows of steady running, {apart} without overlap; at "
                f"least {MIN_WINDOWS} and {MIN_INDEPENDENT} are needed: enrol for {needed_s:g} s or more"
            )


def _refuse_silent(
    channel: ChannelConfig, survey: Survey, recording: Recording, machine: MachineConfig, window: WindowConfig
) -> None:
    seen = [s[channel.id] for s in survey.seen if channel.id in s]
    if not seen:
        heard_s = recording.channel_s(channel.id)
        what = (
            "no data"
            if heard_s == 0
            else f"no whole window of {window.length_s:g} s ({heard_s:.1f} s of samples in all)"
        )
        raise NotLearnt(
            f"{machine.id}/{channel.id} gave {what}; see that its sensor sends, or take it out of the machine"
        )
    if all(s.level.flat for s in seen):
        raise NotLearnt(
            f"{machine.id}/{channel.id} is flat: all samples of every window are equal; check the sensor and its wiring"
        )
    if not any(s.level.usable for s in seen):
        raise NotLearnt(f"{machine.id}/{channel.id} gave samples that are no numbers; check its format and scale")
    bad = sum(s.sensor.bad for s in seen)
    if bad > MOSTLY * len(seen):
        worst = most_common([s.sensor for s in seen])
        raise NotLearnt(
            f"{machine.id}/{channel.id} is mostly {worst.status}: {bad} of {len(seen)} windows are of a bad sensor "
            f"({worst.text}); check the sensor, its wiring and its settings, or take it out of the machine"
        )
    rms = float(np.median([s.level.rms for s in seen if s.usable]))
    if rms < channel.running_rms:
        raise NotLearnt(
            f"{machine.id} does not run: the RMS of {channel.id} is {rms:.3g} {channel.unit}, under its running_rms of "
            f"{channel.running_rms:g}; start the machine and enrol again"
        )


def _refuse_stopped(survey: Survey, machine: MachineConfig, previous: Bank | None) -> None:
    if previous is not None:
        same = {
            c.channel: c.median_rms
            for c in previous.channels
            for now in machine.channels
            if (c.channel, c.scale, c.unit) == (now.id, now.scale, now.unit)
        }
        levels = {
            c.id: Level(rms=float(np.median(rms)), flat=False, valid=True)
            for c in machine.channels
            if (rms := [s[c.id].level.rms for s in survey.seen if c.id in s and s[c.id].usable])
        }
        if same and not is_running(machine, levels, reference_rms=same):
            shares = ", ".join(f"{c} {levels[c].rms / r:.2f}" for c, r in same.items() if c in levels)
            raise NotLearnt(
                f"{machine.id} does not run: its RMS is under {machine.running_ratio:g} times that of bank "
                f"{previous.version} ({shares}); start it and enrol again, or forget the old bank if its sensor changed"
            )
    kept = int(survey.steady.sum())
    if 2 * kept < len(survey.steady):
        raise NotLearnt(
            f"{machine.id} mostly stood still or was starting and stopping: {len(survey.steady) - kept} of "
            f"{len(survey.steady)} moments would be dropped; enrol while it runs steadily"
        )
