"""The two buffers: Backlog (memory, before the model, perishable) and Outbox (disk, before a sink, kept).

Conservation: a backlog's windows are `made == taken + dropped + waiting`; a queue's rows of the outbox are
`added == written + rejected + evicted + held` after every commit, for the counters change in the same transaction.
"""

import json
import math
import sqlite3
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from fisher_agent.lines import lines
from fisher_agent.stages import Message, Moment, Point

Queue = Literal["influx", "mqtt"]
ROW_BYTES = 64  # what a row costs beyond its payload
PERISHABLE, KEPT = 0, 1  # ranks: the second is evicted only when nothing of the first is left
MAX_QUARANTINED = 1000


class Backlog:
    """Moments that wait for the model, bounded in bytes; the newest is always kept. For one thread.

    Without room the machine with the most bytes waiting loses its oldest moment (longest-queue drop, Suter et al.
    1998): a fast machine pays for its own flood, and a slow one beside it loses nothing.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._moments: deque[Moment] = deque()
        self._bytes: Counter[str] = Counter()  # machine -> waiting
        self.nbytes = 0
        self.made = 0  # windows that were ever put
        self.taken = 0
        self.dropped = 0
        self.waiting = 0

    def __len__(self) -> int:
        return len(self._moments)

    def fits(self, moment: Moment) -> bool:
        """Whether `put` would drop nothing; a caller that must not lose windows waits for this."""
        return not self._moments or self.nbytes + moment.nbytes <= self._max_bytes

    @property
    def full(self) -> bool:
        """Whether a moment like the newest one would push another out."""
        return bool(self._moments) and not self.fits(self._moments[-1])

    def put(self, moment: Moment) -> int:
        """Add the newest; returns how many windows were dropped to make room."""
        before = self.dropped
        while not self.fits(moment):
            loser = (self._bytes + Counter({moment.machine: moment.nbytes})).most_common(1)[0][0]
            oldest = next((i for i, m in enumerate(self._moments) if m.machine == loser), 0)
            self.dropped += len(self._pop(oldest).windows)
        self._moments.append(moment)
        self.nbytes += moment.nbytes
        self._bytes[moment.machine] += moment.nbytes
        self.made += len(moment.windows)
        self.waiting += len(moment.windows)
        return self.dropped - before

    def take(self, max_windows: int, *, max_bytes: float = math.inf) -> list[Moment]:
        """The oldest moments of together at most so many windows and bytes; at least one where any waits."""
        moments: list[Moment] = []
        room, room_bytes = max_windows, max_bytes
        while self._moments:
            head = self._moments[0]
            if moments and (len(head.windows) > room or head.nbytes > room_bytes):
                break
            moments.append(self._pop(0))
            room -= len(head.windows)
            room_bytes -= head.nbytes
        self.taken += sum(len(m.windows) for m in moments)
        return moments

    def _pop(self, position: int) -> Moment:
        moment = self._moments[position]
        del self._moments[position]
        self.nbytes -= moment.nbytes
        self._bytes[moment.machine] -= moment.nbytes
        if not self._bytes[moment.machine]:
            del self._bytes[moment.machine]
        self.waiting -= len(moment.windows)
        return moment


@dataclass(frozen=True, slots=True)
class Counters:
    """What became of everything that was ever put into a queue."""

    added: int
    written: int
    rejected: int
    evicted: int
    held: int
    bytes: int  # of what is held


class Outbox:
    """The rows that wait for a sink, bounded in bytes. Every method works inside the transaction that store.py opened.

    `held` and `bytes` are kept by triggers of the schema, the other counters here.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes

    def add(self, db: sqlite3.Connection, points: Sequence[Point], messages: Sequence[Message], *, rank: int) -> None:
        """Add points (of that rank) and messages, and evict down to the bound.

        A retained message replaces its older self that still waits, by a new row: whoever is sending the old row
        right now then removes only that one. For the counters it is the same thing still waiting.
        """
        _insert(db, "influx", [(rank, "", 0, False, text.encode(errors="replace")) for text in lines(points)])
        latest = {m.topic: m for m in messages if m.retain}
        replaced = 0
        for topic in latest:
            delete = "DELETE FROM outbox WHERE queue = 'mqtt' AND retain = 1 AND topic = ?"
            replaced += db.execute(delete, (topic,)).rowcount
        kept = [m for m in messages if not m.retain or latest[m.topic] is m]
        _insert(db, "mqtt", [(KEPT, m.topic, m.qos, m.retain, m.payload) for m in kept])
        _count(db, {"mqtt": -replaced}, "added")
        self._evict(db)

    def remove(self, db: sqlite3.Connection, ids: Sequence[int], *, counted: str) -> None:
        """Delete rows and count them as `written` or `rejected`; ids that are gone are passed over."""
        _count(db, _delete(db, ids), counted)

    def quarantine(self, db: sqlite3.Connection, ids: Sequence[int], reason: str) -> None:
        """Move rows to the quarantine, which keeps the latest `MAX_QUARANTINED`; they count as rejected."""
        db.execute(
            "INSERT INTO quarantine (queue, payload, reason) SELECT queue, payload, ? FROM outbox "
            "WHERE id IN (SELECT value FROM json_each(?)) ORDER BY id",
            (reason[:500], json.dumps(list(ids))),
        )
        self.remove(db, ids, counted="rejected")
        db.execute("DELETE FROM quarantine WHERE id <= (SELECT max(id) FROM quarantine) - ?", (MAX_QUARANTINED,))

    def _evict(self, db: sqlite3.Connection) -> None:
        (held,) = db.execute("SELECT sum(value) FROM counter WHERE name = 'bytes'").fetchone()
        excess = held - self._max_bytes
        victims = []
        if excess > 0:
            for row_id, size in db.execute("SELECT id, bytes FROM outbox ORDER BY rank, id"):
                victims.append(row_id)
                excess -= size
                if excess <= 0:
                    break
            _count(db, _delete(db, victims), "evicted")


def _insert(db: sqlite3.Connection, queue: Queue, rows: Sequence[tuple[int, str, int, bool, bytes]]) -> None:
    db.executemany(
        "INSERT INTO outbox (queue, rank, topic, qos, retain, payload, bytes) VALUES (?, ?, ?, ?, ?, ?, ?)",
        [(queue, *row, len(row[4]) + len(row[1]) + ROW_BYTES) for row in rows],
    )
    _count(db, {queue: len(rows)}, "added")


def _delete(db: sqlite3.Connection, ids: Sequence[int]) -> Mapping[str, int]:
    """Delete rows; returns how many of each queue were there."""
    delete = "DELETE FROM outbox WHERE id IN (SELECT value FROM json_each(?)) RETURNING queue"
    return Counter(queue for (queue,) in db.execute(delete, (json.dumps(list(ids)),)).fetchall())


def _count(db: sqlite3.Connection, found: Mapping[str, int], name: str) -> None:
    for queue, n in found.items():
        db.execute("UPDATE counter SET value = value + ? WHERE queue = ? AND name = ?", (n, queue, name))
