"""The sensors of a recording, window by window: which windows are of a bad one, and how a healthy one looks."""

from collections import Counter
from collections.abc import Mapping, Sequence

from fisher_agent.codes import Status
from fisher_agent.config import ChannelConfig, MachineConfig, WindowConfig
from fisher_agent.indicators import Level
from fisher_agent.sensor import FINE, Finding, Reference, judge
from fisher_agent.stages import Window
from fisher_agent.standstill import Standstill
from fisher_agent.traits import Measured, Traits, measure, traits_of

MOSTLY = 0.5  # of a channel's windows


class Inspection:
    """Takes a recording's windows in order of time; then says what each of them shows of its sensor.

    Without references of an earlier enrolment, what most windows of a channel do (long runs of equal samples, lone
    jumps) is how the channel is: then only windows that do more of it are bad.
    """

    def __init__(
        self, machine: MachineConfig, window: WindowConfig, *, references: Mapping[str, Reference] | None = None
    ) -> None:
        self._configs = {c.id: c for c in machine.channels}
        self._references = references or {}
        self._still = {
            c.id: Standstill(gap_ns=max(window.hold_ns(c), round(3e9 / c.rate_hz)))
            for c in machine.channels
            if c.valued
        }
        self._measured: dict[str, list[Measured]] = {c.id: [] for c in machine.channels}
        self._still_s: dict[str, list[float]] = {c.id: [] for c in machine.channels}

    def take(self, window: Window, level: Level) -> None:
        """Measure one window."""
        channel = window.channel
        config = self._configs[channel]
        self._measured[channel].append(measure(window.samples, window.rate_hz, level=level, config=config))
        self._still_s[channel].append(self._still[channel].take(window) if channel in self._still else 0.0)

    def findings(self, channel: str) -> list[Finding]:
        """One for each of the channel's windows, in their order."""
        config, seen = self._configs[channel], self._measured[channel]
        reference = self._references.get(channel)
        found = self._judged(config, reference)
        own = [w for w, f in zip(seen, found, strict=True) if f.status in (Status.STUCK, Status.NOISY)]
        if reference is None and len(own) > MOSTLY * len(seen):
            found = self._judged(config, Reference(1.0, _usual(own)))
        return found

    def traits(self, channel: str, kept: Sequence[bool]) -> Traits:
        """What those of the channel's windows that are kept have in common."""
        still = self._still.get(channel)
        windows = [w for w, one in zip(self._measured[channel], kept, strict=True) if one]
        if still is None:
            return traits_of(windows)
        return Traits(longest_hold_s=still.longest_s)

    def _judged(self, config: ChannelConfig, reference: Reference | None) -> list[Finding]:
        return [
            judge(w, config=config, reference=reference, still_s=still_s)
            for w, still_s in zip(self._measured[config.id], self._still_s[config.id], strict=True)
        ]


def _usual(windows: Sequence[Measured]) -> Traits:
    """As `traits_of`, of the typical window and not of the most extreme one; no level is known yet."""
    holds = sorted(w.hold / w.rate_hz for w in windows)
    jumps = sorted(w.jumps for w in windows)
    return Traits(holds[len(holds) // 2], jumps=jumps[len(jumps) // 2])


def most_common(findings: Sequence[Finding]) -> Finding:
    """The bad finding whose word comes most often, as it was said first; `FINE` where none is bad."""
    bad = [f for f in findings if f.bad]
    if not bad:
        return FINE
    word = Counter(f.status for f in bad).most_common(1)[0][0]
    return next(f for f in bad if f.status is word)
