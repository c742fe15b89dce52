"""A bad sensor is believed after several windows in a row and a while, and forgotten the same way. Pure."""

from dataclasses import dataclass, field

from fisher_agent.sensor import FINE, Finding


@dataclass(slots=True)
class Confirm:
    """Findings in order of time -> the finding that stands.

    It begins to stand after `on_count` bad ones in a row that span `on_s`, whatever they say, and ends after
    `off_count` good ones that span `off_s`. What stands says what was found last. A finding of None says nothing
    either way.
    """

    on_count: int
    on_s: float
    off_count: int
    off_s: float
    standing: Finding = FINE
    _count: int = field(default=0, repr=False)  # in a row, against what stands
    _since_s: float = field(default=0.0, repr=False)

    def take(self, finding: Finding | None, *, t_s: float) -> Finding:
        """What stands now. Times that go back count as no time."""
        if finding is None:
            return self.standing
        if finding.bad == self.standing.bad:
            self._count = 0
            self.standing = finding
            return self.standing
        if self._count == 0:
            self._since_s = t_s
        self._count += 1
        count, span_s = (self.on_count, self.on_s) if finding.bad else (self.off_count, self.off_s)
        if self._count >= count and t_s - self._since_s >= span_s:
            self._count = 0
            self.standing = finding
        return self.standing

    def pause(self) -> None:
        """What comes next does not follow on what came before; what stands goes on standing."""
        self._count = 0
