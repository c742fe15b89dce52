"""Reading the state database for people: scores over any range, thinned so that peaks stay, shares, transitions.

It has connections of its own, read-only: a long query never holds up what the daemon writes (WAL), and is ended after
`QUERY_S`. Blocking; for one thread, and not that of the event loop.
"""

import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from fisher_agent.errors import BadFile, Unavailable
from fisher_agent.lifecycle import Alarm
from fisher_agent.shares import Share
from fisher_agent.statedb import DATABASE, lenient

QUERY_S = 10.0
CHECK_EVERY = 20_000  # steps of SQLite's machine between two looks at the clock
MAX_KEPT = 128  # ranges, of at most 1500 spans: 60 MB at the very most, 2 MB as a rule
OPEN_SPANS = 2  # at the end of a range, that may still grow
GAP_SPANS = 3.0  # a hole this many times as wide as the typical distance is a hole, not a line


@dataclass(frozen=True, slots=True)
class Thinned:
    """Part of a score history: the smallest, largest and mean score of each span, and the highest level in it."""

    t_ns: int  # of the first score in the span
    low: float
    high: float
    mean: float
    level: int


class History:
    """The history of one state_dir. Unavailable where it cannot be read now."""

    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / DATABASE
        self._spans: dict[tuple[str, int], dict[int, Thinned | None]] = {}  # by machine and length: those that are over

    def latest_ns(self, machine: str) -> int:
        """Event time of the newest score; 0 where there is none."""
        with self._reading() as db:
            (found,) = db.execute("SELECT max(t_ns) FROM score WHERE machine = ?", (machine,)).fetchone()
        return found if isinstance(found, int) else 0

    def earliest_ns(self, machine: str) -> int:
        """Event time of the oldest score that is kept; 0 where there is none."""
        with self._reading() as db:
            (found,) = db.execute("SELECT min(t_ns) FROM score WHERE machine = ?", (machine,)).fetchone()
        return found if isinstance(found, int) else 0

    def scores(self, machine: str, *, since_ns: int, until_ns: int, points: int) -> list[Thinned]:
        """Scores from `since_ns` to before `until_ns`, oldest first: at most `points` + 2 spans of equal length.

        Spans begin at multiples of their length, the first perhaps before `since_ns`, so that the same ones come again
        when the range moves on: those that are over are kept, and a month costs its million rows once.
        """
        span_ns = max(1, -(-(until_ns - since_ns) // points))
        first, last = since_ns // span_ns, -(-until_ns // span_ns)
        known = self._spans.pop((machine, span_ns), {})
        found: dict[int, Thinned | None] = {}
        # Not GROUP BY: sqlite would sort a million rows that the index has in order already.
        select = (
            "SELECT min(t_ns), min(score), max(score), avg(score), max(level) FROM score "
            "WHERE machine = ? AND t_ns >= ? AND t_ns < ?"
        )
        with self._reading() as db:
            for n in range(first, last):
                if n in known:
                    found[n] = known[n]
                else:
                    row = db.execute(select, (machine, n * span_ns, min((n + 1) * span_ns, until_ns))).fetchone()
                    # A column may hold anything in a damaged database; what is no number is not shown.
                    sound = all(isinstance(x, int | float) for x in row) and isinstance(row[4], int)
                    found[n] = Thinned(*row) if sound else None
        self._spans[machine, span_ns] = {n: span for n, span in found.items() if n < last - OPEN_SPANS}
        while len(self._spans) > MAX_KEPT:
            del self._spans[next(iter(self._spans))]
        return [span for span in found.values() if span is not None]

    def shares(self, machine: str, *, since_ns: int, until_ns: int, points: int) -> list[Share]:
        """Rows of shares in [since, until), oldest first: at most `points` + 1, the first of each span of the range."""
        span_ns = max(1, -(-(until_ns - since_ns) // points))
        # A bare column beside min() is of the row that holds the minimum (SQLite, "Bare columns in an aggregate").
        select = (
            "SELECT min(t_ns), body FROM share WHERE machine = ? AND t_ns >= ? AND t_ns < ? "
            "GROUP BY (t_ns - ?) / ? ORDER BY 1 LIMIT ?"
        )
        with self._reading() as db:
            rows = db.execute(select, (machine, since_ns, until_ns, since_ns, span_ns, points + 1)).fetchall()
        return [Share.from_row(machine, t_ns, body) for t_ns, body in rows]

    def journal(self, machine: str, *, limit: int) -> list[Alarm]:
        """The latest transitions, newest first; a row that is no alarm is left out."""
        select = "SELECT body FROM journal WHERE machine = ? ORDER BY id DESC LIMIT ?"
        with self._reading() as db:
            rows = db.execute(select, (machine, limit)).fetchall()
        found = []
        for (body,) in rows:
            try:
                found.append(Alarm.from_json(body))
            except BadFile:
                continue  # declared when the store met it
        return found

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        deadline_s = time.monotonic() + QUERY_S
        try:
            with closing(sqlite3.connect(f"{self._path.absolute().as_uri()}?mode=ro", uri=True, timeout=QUERY_S)) as db:
                db.text_factory = lenient
                db.set_progress_handler(lambda: time.monotonic() > deadline_s, CHECK_EVERY)
                yield db
        except (sqlite3.Error, UnicodeDecodeError) as error:  # the latter of a sentence that names what is damaged
            if time.monotonic() > deadline_s:
                raise Unavailable(f"the history took longer than {QUERY_S:.0f} s to read; ask for less") from error
            raise Unavailable(f"{self._path} cannot be read: {error}") from error


def with_gaps(rows: Sequence[Any]) -> list[Any | None]:
    """Rows that have `t_ns`, in order, with None where much more time passed than typically does."""
    steps = sorted(b.t_ns - a.t_ns for a, b in pairwise(rows))
    if not steps:
        return list(rows)
    widest = GAP_SPANS * steps[len(steps) // 2]
    found: list[Any | None] = [rows[0]]
    for before, row in pairwise(rows):
        if row.t_ns - before.t_ns > widest:
            found.append(None)
        found.append(row)
    return found
