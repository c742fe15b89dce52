"""The report of an enrolment: what was learnt, what was left out, what was too little."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from fisher_agent.exceedance import Promise


@dataclass(frozen=True, slots=True)
class ChannelReport:
    """One channel. Distances are cosine distances: left-out ones of normal running, or of a fault to normal."""

    channel: str
    unit: str
    windows: int
    kept: int  # of these, in the bank: all, or those that stand for `enroll.coreset` of them
    flat: int  # windows left out because their sensor was bad: flat, no numbers, stuck ...
    rms: float
    gain: float
    median_distance: float
    p95_distance: float
    limit: float
    seen: bool = True  # by the model; else the distances are of indicators, in spreads
    median_deviation: float = -1.0  # of indicators, in spreads
    deviation_limit: float = 1.0
    bad: Mapping[str, int] = field(default_factory=dict)  # status word -> windows left out for it


@dataclass(frozen=True, slots=True)
class Report:
    """One enrolment; `too_little` holds whole sentences."""

    machine: str
    version: str
    mode: str
    fault: str  # "" for normal running
    heard_s: float
    moments: int  # grid times learnt from
    dropped_moments: int  # of starts, stops and standing still
    independent: int  # moments that do not overlap
    limit: float  # of the largest channel ratio
    channels: tuple[ChannelReport, ...]
    too_little: tuple[str, ...]
    promise: Promise | None = None  # of false alarms; None for a fault

    def lines(self) -> list[str]:
        """As a person reads it."""
        return list(self._lines())

    def as_dict(self) -> dict[str, Any]:
        """As JSON carries it."""
        return asdict(self) | {"false_alarms": self.promise.sentence if self.promise else ""}

    def _lines(self) -> Iterator[str]:
        what = f"fault {self.fault}" if self.fault else f"normal running, mode {self.mode}"
        yield f"{self.machine}: {what}, bank {self.version}"
        yield (
            f"  {self.heard_s:.0f} s heard, {self.moments} moments learnt ({self.independent} without overlap), "
            f"{self.dropped_moments} dropped at start-up, shut-down and standstill"
        )
        for c in self.channels:
            left_out = f", {c.flat} left out" if c.flat else ""
            kept = f", {c.kept} kept" if c.kept < c.windows else ""
            rms = f"{c.rms:.3g} {c.unit}".strip()
            yield (
                f"  {c.channel}: {c.windows} windows{left_out}{kept}, RMS {rms}, "
                f"distance {c.median_distance:.2g} (median) {c.p95_distance:.2g} (95 %), limit {c.limit:.2g}"
                + (
                    f"; deviation {c.median_deviation:.3g} (median), limit {c.deviation_limit:.3g}"
                    if c.seen
                    else ", of indicators alone"
                )
            )
        if self.promise:
            yield f"  false alarms: {self.promise.sentence}"
        for sentence in self.too_little:
            yield f"  note: {sentence}"
