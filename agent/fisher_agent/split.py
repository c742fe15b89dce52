"""A recording that went through several operating modes becomes one of each: by tag, by rule, or by groups found in it.

Only steady running is taken: what neither overlaps nor adjoins a stop, a start, or another mode.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fisher_agent.cluster import groups
from fisher_agent.config import MachineConfig, WindowConfig
from fisher_agent.errors import ConfigError, NotLearnt
from fisher_agent.features import features
from fisher_agent.gate import is_running, levels_of
from fisher_agent.indicators import Level
from fisher_agent.modeconfig import DEFAULT_MODE, FOUND_MODE, UNKNOWN_MODE
from fisher_agent.modes import Now, Rule, Told
from fisher_agent.stages import Floats
from fisher_agent.survey import FULL_RMS_QUANTILE, moments, span, steady
from fisher_agent.waveforms import Recording

SLACK_NS = 5_000_000  # stamps jitter by 2 ms; a sample more on either side makes no window more
Marks = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Split:
    """What was heard of each mode. A mode that was not heard, or never ran steadily, has no part."""

    parts: Mapping[str, Recording]
    configured: tuple[str, ...] = ()  # modes that were to be learnt; none where any could come
    elsewhere_s: float = 0.0  # seconds of running in no mode that is to be learnt


def split(recording: Recording, machine: MachineConfig, window: WindowConfig, *, mode: str | None = None) -> Split:
    """The parts by mode; `mode` is the only one to be learnt.

    Where nothing tells modes apart, the whole is of `mode`, or of the default one. ConfigError for a mode that the
    configuration does not have; NotLearnt where a tag is configured and none was heard.
    """
    config = machine.mode
    if mode == UNKNOWN_MODE:
        raise ConfigError(f"no mode may be called {UNKNOWN_MODE!r}: that is what an unseen one is called")
    if config is not None and mode is not None and config.names and mode not in config.names:
        raise ConfigError(f"{machine.id} has no mode {mode!r}; machines.mode names: {', '.join(config.names)}")
    whole = Split({mode or DEFAULT_MODE: recording}, configured=(mode or DEFAULT_MODE,))
    if config is None or (config.cluster and mode is not None):
        return whole
    if config.topic is not None and not recording.tags:
        if mode is None:
            raise NotLearnt(
                f"nothing was said of the mode of {machine.id} on its tag {config.topic!r}; "
                "see that it is published, or name the mode with --mode"
            )
        return whole
    cut = list(_cut(recording, machine, window))
    if config.cluster:
        every = np.ones(len(cut), dtype=np.bool_)
        kept = np.flatnonzero(_steady(cut, every, machine, window)).tolist()
        words = np.full(len(cut), "", dtype=object)
        words[kept] = [f"{FOUND_MODE}{g + 1}" if g >= 0 else "" for g in groups([cut[i].features for i in kept])]
        wanted = tuple(f"{FOUND_MODE}{n + 1}" for n in range(len(set(words) - {""})))
        if not wanted:  # too little for any group: what is missing is said where it is learnt
            return Split({f"{FOUND_MODE}1": recording}, configured=(f"{FOUND_MODE}1",))
    else:
        words = np.asarray([one.mode for one in cut], dtype=object)
        wanted = (mode,) if mode is not None else config.names or tuple(dict.fromkeys(w for w in words if w))
        wanted = tuple(w for w in wanted if w != UNKNOWN_MODE)
    return _parts(recording, cut, words, wanted, machine=machine, window=window)


@dataclass(frozen=True, slots=True)
class _Cut:
    """What is kept of a moment; the samples are not."""

    end_ns: int
    span: tuple[int, int]
    levels: Mapping[str, Level]
    mode: str  # by rule or tag; "" where neither says it, or it was changing
    features: Mapping[str, Floats]  # of usable windows, where groups are looked for


def _cut(recording: Recording, machine: MachineConfig, window: WindowConfig) -> Iterator[_Cut]:
    rule, told = Rule.of(machine, window), Told()
    for tag in recording.tags:
        told.say(tag.word, tag.t_ns)
    clustered = machine.mode is not None and machine.mode.cluster
    for heard in moments(recording, machine, window):
        moment = told.stamp(heard, window=window, settle_s=machine.settle_s)
        now = Now(moment.mode, settled=moment.settled) if rule is None else rule.take(moment)
        levels = levels_of(machine, moment)
        found = {
            w.channel: features(w.samples, w.rate_hz, gain=1.0, valued=machine.channel(w.channel).valued)
            for w in (moment.windows if clustered else ())
            if levels[w.channel].usable
        }
        spans = [span(w) for w in moment.windows]
        covered = min(a for a, _ in spans), max(b for _, b in spans)
        yield _Cut(moment.end_ns, covered, levels, now.mode if now.settled else "", found)


def _parts(
    recording: Recording,
    cut: Sequence[_Cut],
    words: NDArray[Any],
    wanted: tuple[str, ...],
    *,
    machine: MachineConfig,
    window: WindowConfig,
) -> Split:
    whole = [c.id for c in machine.channels if c.snapshot]
    parts: dict[str, Recording] = {}
    for mode in wanted:
        kept = np.flatnonzero(_steady(cut, words == mode, machine, window)).tolist()
        if len(kept):
            parts[mode] = recording.within(_spans([cut[i].span for i in kept]), whole=whole)
    others = _steady(cut, np.asarray([w not in wanted for w in words], dtype=np.bool_), machine, window)
    return Split(parts, configured=wanted, elsewhere_s=float(others.sum()) * window.hop_s)


def _steady(cut: Sequence[_Cut], mine: Marks, machine: MachineConfig, window: WindowConfig) -> Marks:
    """Which of the marked moments (m,) are of steady running, by the level of that mode; the others count as stops."""
    full = _full([one.levels for one, ours in zip(cut, mine, strict=True) if ours])
    running = np.asarray([is_running(machine, one.levels, reference_rms=full) for one in cut], dtype=np.bool_)
    ends_ns = np.asarray([one.end_ns for one in cut], dtype=np.int64)
    lengths = {"length_ns": round(window.length_s * 1e9), "settle_ns": round(machine.settle_s * 1e9)}
    return steady(ends_ns, running & mine, **lengths)


def _full(levels: Sequence[Mapping[str, Level]]) -> dict[str, float]:
    """Channel -> RMS of full running."""
    heard: dict[str, list[float]] = {}
    for one in levels:
        for channel, level in one.items():
            if level.usable:
                heard.setdefault(channel, []).append(level.rms)
    return {c: float(np.quantile(rms, FULL_RMS_QUANTILE)) for c, rms in heard.items()}


def _spans(covered: Sequence[tuple[int, int]]) -> NDArray[np.int64]:
    """The time (n, 2) that moments cover, in stretches that do not touch; with a little slack."""
    joined: list[list[int]] = []
    for begin_ns, end_ns in sorted(covered):
        if joined and begin_ns <= joined[-1][1] + 2 * SLACK_NS:
            joined[-1][1] = max(joined[-1][1], end_ns)
        else:
            joined.append([begin_ns, end_ns])
    spans: NDArray[np.int64] = np.asarray(joined, dtype=np.int64) + np.asarray([-SLACK_NS, SLACK_NS], dtype=np.int64)
    return spans
