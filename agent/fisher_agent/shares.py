"""Which channel and which of its bands carried a machine's excess, averaged over ten seconds of event time. Pure.

A row for every verdict would fill an edge box within days; at ten seconds fifty machines fill 60 MB in 28 hours, one
machine in eight weeks, and no alarm is shorter than its on-delay of several windows.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fisher_agent.errors import BadFile
from fisher_agent.jsontext import loads
from fisher_agent.stages import Verdict

SPAN_NS = 10 * 10**9
DIGITS = 3
LARGEST = 1e6  # of a part, which is one of 1


@dataclass(frozen=True, slots=True)
class Share:
    """One row of the history: shares of one machine over the span that begins at `t_ns`."""

    machine: str
    t_ns: int
    channels: Mapping[str, float]  # channel -> its part of the excess; they sum to 1, or are all 0
    bands: Mapping[str, Mapping[str, float]]  # channel -> "0-4000" (Hz) -> its part of that channel's distance

    def to_json(self) -> str:
        """Channels and bands, compact."""
        return json.dumps({"c": self.channels, "b": self.bands}, separators=(",", ":"))

    @classmethod
    def from_row(cls, machine: str, t_ns: int, body: str) -> "Share":
        """From the columns of a row; BadFile where it holds something else."""
        try:
            document: dict[str, Any] = loads(body)
            channels, bands = _parts(document["c"]), {c: _parts(b) for c, b in document["b"].items()}
            if not isinstance(t_ns, int):
                raise ValueError(f"its time is {t_ns!r}")
            return cls(machine, t_ns, channels, bands)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise BadFile(f"not a row of shares: {str(body)[:80]!r}") from error


@dataclass(slots=True)
class _Span:
    t_ns: int
    count: int = 0
    channels: dict[str, float] = field(default_factory=dict)
    bands: dict[str, dict[str, float]] = field(default_factory=dict)
    banded: dict[str, int] = field(default_factory=dict)


class ShareLog:
    """Adds verdicts up; a span is finished when a verdict of a later one comes. Holds one span per machine."""

    def __init__(self) -> None:
        self._open: dict[str, _Span] = {}
        self._finished: list[Share] = []

    def add(self, verdict: Verdict) -> None:
        """Take a verdict; one that was not scored says nothing."""
        if not verdict.scored:
            return
        t_ns = verdict.t_ns // SPAN_NS * SPAN_NS
        span = self._open.get(verdict.machine)
        if span is None or span.t_ns != t_ns:
            if span is not None:
                self._finished.append(_mean(verdict.machine, span))
            span = self._open[verdict.machine] = _Span(t_ns)
        span.count += 1
        for reading in verdict.readings:
            if reading.ratio < 0:
                continue
            span.channels[reading.channel] = span.channels.get(reading.channel, 0.0) + reading.contribution
            if any(reading.bands):
                sums = span.bands.setdefault(reading.channel, {})
                span.banded[reading.channel] = span.banded.get(reading.channel, 0) + 1
                for (low, high), share in zip(reading.band_edges_hz, reading.bands, strict=False):
                    sums[f"{low:g}-{high:g}"] = sums.get(f"{low:g}-{high:g}", 0.0) + share

    def finished(self) -> Sequence[Share]:
        """The spans that ended since the last call."""
        found, self._finished = self._finished, []
        return found


def _parts(document: dict[str, Any]) -> dict[str, float]:
    if not all(isinstance(part, int | float) and abs(part) < LARGEST for part in document.values()):
        raise ValueError("a part is no number")
    return dict(document)


def _mean(machine: str, span: _Span) -> Share:
    return Share(
        machine,
        span.t_ns,
        {c: round(total / span.count, DIGITS) for c, total in span.channels.items()},
        {c: {b: round(s / span.banded[c], DIGITS) for b, s in sums.items()} for c, sums in span.bands.items()},
    )
