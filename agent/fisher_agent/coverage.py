"""The report of an enrolment of one or several modes: what is covered, and of what there is not enough."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fisher_agent.learnt import Report


@dataclass(frozen=True, slots=True)
class Coverage:
    """One mode of a machine after an enrolment."""

    mode: str
    learnt_s: float  # of steady running; 0: not in this enrolment
    independent: int  # windows that do not overlap
    enrolled: bool  # the machine is judged in this mode from now on
    note: str = ""  # why not, or what is to be known


@dataclass(frozen=True, slots=True)
class EnrolReport:
    """Every mode that was learnt, by its own report, and the coverage of all that there are."""

    reports: tuple[Report, ...]  # at least one
    coverage: tuple[Coverage, ...]
    notes: tuple[str, ...] = ()
    backtest: tuple[str, ...] = ()  # sentences: what the new version would have done

    @property
    def moments(self) -> int:
        """Moments learnt, over all modes."""
        return sum(r.moments for r in self.reports)

    @property
    def dropped_moments(self) -> int:
        """Moments of the parts that were not learnt: starts, stops, standing still."""
        return sum(r.dropped_moments for r in self.reports)

    @property
    def too_little(self) -> tuple[str, ...]:
        """Everything there was too little of."""
        missing = tuple(c.note for c in self.coverage if c.note)
        return tuple(s for r in self.reports for s in r.too_little) + missing + self.notes

    def with_backtest(self, sentences: Sequence[str]) -> "EnrolReport":
        """The same, with what the back-test says."""
        return replace(self, backtest=tuple(sentences))

    def lines(self) -> list[str]:
        """As a person reads it."""
        return list(self._lines())

    def as_dict(self) -> dict[str, Any]:
        """As JSON carries it: the keys of the first mode's report, and `modes` and `backtest` beside them."""
        return {
            **self.reports[0].as_dict(),
            "modes": [
                {
                    "mode": c.mode, "learnt_s": c.learnt_s, "independent": c.independent, "enrolled": c.enrolled,
                    "note": c.note,
                }
                for c in self.coverage
            ],
            "reports": [r.as_dict() for r in self.reports],
            "notes": list(self.notes),
            "backtest": list(self.backtest),
        }  # fmt: skip

    def _lines(self) -> Iterator[str]:
        for report in self.reports:
            yield from report.lines()
        if len(self.coverage) > 1 or any(c.note for c in self.coverage):
            yield "  modes:"
            for c in self.coverage:
                learnt = f"{c.learnt_s:.0f} s, {c.independent} windows without overlap" if c.learnt_s else "as before"
                yield f"    {c.mode}: {c.note or learnt}"
        for note in self.notes:
            yield f"  note: {note}"
        for sentence in self.backtest:
            yield f"  back-test: {sentence}"
