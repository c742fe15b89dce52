"""Whether a machine runs, judged by the level of its most telling channels; and whether it did so all the time."""

from collections.abc import Mapping, Sequence

import numpy as np

from fisher_agent.codes import Status
from fisher_agent.config import ChannelConfig, MachineConfig
from fisher_agent.indicators import Level, level, value_level
from fisher_agent.sensor import FINE, Finding
from fisher_agent.stages import Floats, Moment, Window

ENDS = 4  # the first and the last quarter of a window
LEAST_END_SAMPLES = 64
QUIET_KEEPS = 0.5  # an end of a window at half the level that the quiet ones of the enrolment had is not running
TELLING_KINDS = (frozenset({"current", "voltage"}), frozenset({"vibration"}))
"""Electrical quantities tell best: sound and vibration also come from the neighbours. All other kinds come last."""


def level_of(channel: ChannelConfig, samples: Floats) -> Level:
    """What the gate needs of a window (n,): the value of some channels counts, of others what remains without it."""
    return value_level(samples) if channel.valued else level(samples)


def levels_of(machine: MachineConfig, moment: Moment) -> dict[str, Level]:
    """By channel; one that has just left the configuration is not looked at any more."""
    known = {c.id: c for c in machine.channels}
    return {w.channel: level_of(known[w.channel], w.samples) for w in moment.windows if w.channel in known}


def is_running(machine: MachineConfig, levels: Mapping[str, Level], *, reference_rms: Mapping[str, float]) -> bool:
    """Whether the median of RMS / reference over the most telling kind present reaches `running_ratio`.

    A flat or invalid channel does not speak, for a dead sensor is no stopped machine; where none speaks, it does not
    run. A channel under its configured `running_rms` overrules all. Without references only `running_rms` is asked.
    """
    speaking = [c for c in machine.channels if c.id in levels and levels[c.id].usable]
    if not speaking or any(levels[c.id].rms < c.running_rms for c in speaking):
        return False
    known = most_telling([c for c in speaking if reference_rms.get(c.id, 0.0) > 0])
    ratios = [levels[c.id].rms / reference_rms[c.id] for c in known]
    return not ratios or float(np.median(ratios)) >= machine.running_ratio


def believed(machine: MachineConfig, levels: Mapping[str, Level], findings: Mapping[str, Finding]) -> dict[str, Level]:
    """The levels that may say whether the machine runs; all where none can be believed.

    Noise looks like running, and what is stuck may look like anything. What is unplugged looks like standing still;
    so does a machine that stands still, and only a neighbour of the same kind can tell.
    """
    kinds = {c.id: _rank(c) for c in machine.channels}
    status = {c: findings.get(c, FINE).status for c in levels}
    sound = {kinds[c] for c in levels if levels[c].usable and status[c] in (Status.OK, Status.CLIPPED)}
    kept = {
        c: now
        for c, now in levels.items()
        if status[c] not in (Status.NOISY, Status.STUCK) and not (status[c] is Status.UNPLUGGED and kinds[c] in sound)
    }
    return kept if any(now.usable for now in kept.values()) else dict(levels)


def _rank(channel: ChannelConfig) -> int:
    return next((n for n, kinds in enumerate(TELLING_KINDS) if channel.kind in kinds), len(TELLING_KINDS))


def ends_rms(channel: ChannelConfig, window: Window) -> tuple[float, float] | None:
    """RMS of the first and of the last quarter of a window; None where there is none to speak of."""
    n = len(window.samples) // ENDS
    if window.snapshot or channel.valued or n < LEAST_END_SAMPLES:
        return None
    return level(window.samples[:n]).rms, level(window.samples[-n:]).rms


def stood_at_an_end(
    machine: MachineConfig, moment: Moment, *, reference_rms: Mapping[str, float], quietest: Mapping[str, float]
) -> bool:
    """Whether a machine that runs by the whole of its windows stood still at their beginning or their end.

    `quietest` is, per channel, how quiet such an end was in the enrolment, over the reference: a press between two
    strokes does not stand.
    """
    shares: dict[str, tuple[float, float]] = {}
    for window in moment.windows:
        c = window.channel
        least = min(machine.running_ratio, QUIET_KEEPS * quietest.get(c, 0.0)) * reference_rms.get(c, 0.0)
        if least > 0 and (ends := ends_rms(machine.channel(c), window)) is not None:
            shares[c] = (ends[0] / least, ends[1] / least)
    telling = most_telling([c for c in machine.channels if c.id in shares])
    return bool(telling) and min(np.median([shares[c.id] for c in telling], axis=0)) < 1


def most_telling(channels: Sequence[ChannelConfig]) -> Sequence[ChannelConfig]:
    """Those of the kind that tells best whether a machine runs, of the kinds that are there."""
    for kinds in TELLING_KINDS:
        if telling := [c for c in channels if c.kind in kinds]:
            return telling
    return channels
