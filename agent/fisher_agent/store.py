"""The state database: outbox, alarms, journal, score history, fault codes; and the lock on state_dir.

Every method blocks and may be called from any one thread at a time; the daemon uses one store thread. There are two
connections: points are committed with synchronous=NORMAL (a power cut may lose the last second of them, a kill never
does), alarms with FULL. Behind it stand `outbox.Outbox` (rows and their counters) and `statedb` (lock, schema, repair).
The bank files beside the database are `bankfiles`; a store that is open is the right to write them.
"""

import base64
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import astuple, fields
from pathlib import Path
from typing import Any, BinaryIO, Literal, Self, overload

from fisher_agent import statedb
from fisher_agent.backtest import Past
from fisher_agent.bankfiles import BankFiles
from fisher_agent.codes import FIRST_FAULT_CODE, UNKNOWN_FAULT, UNKNOWN_FAULT_CODE
from fisher_agent.errors import BadFile, Unavailable
from fisher_agent.lifecycle import Alarm
from fisher_agent.outbox import KEPT, PERISHABLE, Counters, Outbox, Queue
from fisher_agent.shares import Share
from fisher_agent.stages import Message, Point
from fisher_agent.storerows import Audit, Score

MAX_JOURNAL = 100_000
MAX_AUDIT = 100_000
MAX_SCORES = 2_000_000  # over all machines, about 150 MB
MAX_SHARES = 500_000  # over all machines, about 60 MB
SCORES_KEPT_NS = 30 * 86_400 * 10**9
PRUNE_EVERY = 1000
SCORES_PAGE = 20_000


class Store:
    """`with Store.open(state_dir, max_outbox_bytes=...) as store`. `notes` says what had to be repaired at the start.

    Methods raise Unavailable where the disk refuses (full, read-only, failing); then nothing was changed. They raise
    BadFile where the database turns out to be damaged; then the process must start again, which sets it aside.
    """

    def __init__(self, state_dir: Path, lock: BinaryIO, notes: list[str], *, max_outbox_bytes: int) -> None:
        self.state_dir = state_dir
        self.notes = notes
        self._outbox = Outbox(max_outbox_bytes)
        self._lock_file = lock
        self._lock = threading.Lock()
        self._points = statedb.connect(state_dir / statedb.DATABASE, synchronous="NORMAL")
        self._alarms = statedb.connect(state_dir / statedb.DATABASE, synchronous="FULL")
        self._scores_since_prune = self._shares_since_prune = 0

    @classmethod
    def open(cls, state_dir: Path, *, max_outbox_bytes: int) -> Self:
        """Lock, repair, migrate, open. ConfigError: unusable or of a newer agent. Unavailable: in use, or disk full."""
        lock = statedb.claim(state_dir)
        try:
            store = cls(state_dir, lock, statedb.prepare(state_dir), max_outbox_bytes=max_outbox_bytes)
        except sqlite3.Error as error:
            lock.close()
            raise Unavailable(f"{state_dir} cannot be opened: {error}") from error
        except BaseException:
            lock.close()
            raise
        try:
            BankFiles(state_dir / "banks").sweep()
            with store._writing(store._alarms) as db:
                db.execute("DELETE FROM meta WHERE key = 'closed'")
        except OSError as error:
            store._release()
            raise Unavailable(f"{state_dir} cannot be written: {error}; free space on its disk") from error
        except BaseException:
            store._release()
            raise
        return store

    def close(self) -> None:
        """Close and unlock; closing twice is safe."""
        if self._lock_file.closed:
            return
        # Without the mark the next start only takes longer, so a full disk does not matter here.
        with suppress(Unavailable, BadFile):
            self.set_meta("closed", "1")
        self._release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _release(self) -> None:
        with self._lock:
            self._points.close()
            self._alarms.close()
            self._lock_file.close()

    # The outbox.

    def add_points(self, points: Sequence[Point]) -> None:
        """Keep points for the database; the oldest give way where the outbox is full, those of alarms last."""
        with self._writing(self._points) as db:
            self._outbox.add(db, points, (), rank=PERISHABLE)

    def add_messages(self, messages: Sequence[Message]) -> None:
        """Keep messages for the broker. A retained one replaces its older self that still waits; events all stay."""
        with self._writing(self._points) as db:
            self._outbox.add(db, (), messages, rank=KEPT)

    def commit_alarms(
        self,
        machine: str,
        alarms: Sequence[Alarm],
        occurrence: int,
        *,
        points: Sequence[Point] = (),
        messages: Sequence[Message] = (),
        audit: Audit | None = None,
    ) -> None:
        """One durable transaction: the new states, their journal rows, who asked for it, and all that announces them.

        `alarms` are in the order in which they happened; one that comes twice (two transitions) is stored as the
        last, and each new `seq` is a row of the journal.
        """
        rows = [(machine, a.alarm, a.seq, a.to_json()) for a in alarms]
        with self._writing(self._alarms) as db:
            db.execute(
                "INSERT INTO machine VALUES (?, ?) "
                "ON CONFLICT DO UPDATE SET occurrence = max(occurrence, excluded.occurrence)",
                (machine, occurrence),
            )
            db.executemany("INSERT OR REPLACE INTO alarm VALUES (?, ?, ?)", [(m, a, body) for m, a, _, body in rows])
            db.executemany(
                "INSERT OR IGNORE INTO journal (machine, alarm, seq, body) VALUES (?, ?, ?, ?)",
                [row for row in rows if row[2] > 0],
            )
            db.execute("DELETE FROM journal WHERE id <= (SELECT max(id) FROM journal) - ?", (MAX_JOURNAL,))
            if audit:
                _record(db, audit)
            self._outbox.add(db, points, messages, rank=KEPT)

    def save_alarm(self, alarm: Alarm) -> None:
        """Store an alarm that did not move, such as one whose capture was written."""
        with self._writing(self._alarms) as db:
            row = (alarm.machine, alarm.alarm, alarm.to_json())
            db.execute("INSERT OR REPLACE INTO alarm VALUES (?, ?, ?)", row)

    def add_audit(self, audit: Audit) -> None:
        """Record a command that moved nothing."""
        with self._writing(self._alarms) as db:
            _record(db, audit)

    def answered(self, machine: str, verb: str, command_id: str) -> str | None:
        """What a command with this id was answered before: its error, "" where it was done; None: it is new."""
        select = "SELECT error FROM audit WHERE machine = ? AND verb = ? AND command_id = ? ORDER BY id DESC LIMIT 1"
        found = self._rows(select, machine, verb, command_id)
        return str(found[0][0]) if found else None

    def audit(self, machine: str, limit: int = 100) -> list[Audit]:
        """The latest commands to a machine, newest first."""
        columns = ", ".join(f.name for f in fields(Audit))
        select = f"SELECT {columns} FROM audit WHERE machine = ? ORDER BY id DESC LIMIT ?"  # noqa: S608 (own columns)
        return [Audit(*row) for row in self._rows(select, machine, limit)]

    @overload
    def peek(self, queue: Literal["influx"], limit: int) -> list[tuple[int, str]]: ...
    @overload
    def peek(self, queue: Literal["mqtt"], limit: int) -> list[tuple[int, Message]]: ...
    def peek(self, queue: Queue, limit: int) -> list[tuple[int, str]] | list[tuple[int, Message]]:
        """The oldest of a queue with their ids, oldest first; they stay until one of the next two."""
        select = (  # cast, for one row of a damaged database must not stop a queue
            "SELECT id, CAST(payload AS BLOB), CAST(topic AS TEXT), CAST(qos AS INTEGER) & 1, retain FROM outbox "
            "WHERE queue = ? ORDER BY id LIMIT ?"
        )
        rows = self._rows(select, queue, limit)
        if queue == "influx":
            return [(row_id, payload.decode(errors="replace")) for row_id, payload, *_ in rows]
        return [(i, Message(topic, payload, qos, bool(retain))) for i, payload, topic, qos, retain in rows]

    def done(self, ids: Sequence[int]) -> None:
        """Remove what was written. Ids that are gone (evicted, or replaced while they were sent) are passed over."""
        with self._writing(self._points) as db:
            self._outbox.remove(db, ids, counted="written")

    def quarantine(self, ids: Sequence[int], reason: str) -> None:
        """Set aside what the other side will never take; counted as rejected, the last thousand can be looked at."""
        with self._writing(self._points) as db:
            self._outbox.quarantine(db, ids, reason)

    def quarantined(self, limit: int = 100) -> list[tuple[str, bytes, str]]:
        """(queue, payload, reason), newest first."""
        return self._rows("SELECT queue, payload, reason FROM quarantine ORDER BY id DESC LIMIT ?", limit)

    def counters(self, queue: Queue) -> Counters:
        """The counters of one queue, over the life of the database."""
        found = dict(self._rows("SELECT name, value FROM counter WHERE queue = ?", queue))
        if found.keys() != {f.name for f in fields(Counters)}:
            raise statedb.damaged(self.state_dir, f"counters of {queue} are lost")
        return Counters(**found)

    @property
    def outbox_bytes(self) -> int:
        """Bytes held for all queues."""
        return int(self._rows("SELECT CAST(total(value) AS INTEGER) FROM counter WHERE name = 'bytes'")[0][0])

    # Alarms, journal, history, codes.

    def load_alarms(self, machine: str) -> tuple[list[Alarm], int]:
        """The stored alarms of a machine, and its occurrence counter. A row that is no alarm is left out, declared."""
        alarms = self._alarms_of(self._rows("SELECT body FROM alarm WHERE machine = ?", machine), "begins anew")
        select = "SELECT CAST(occurrence AS INTEGER) FROM machine WHERE machine = ?"
        floor = "UNION ALL SELECT CAST(value AS INTEGER) FROM meta WHERE key = 'occurrence_floor'"
        return alarms, max((n for (n,) in self._rows(f"{select} {floor}", machine)), default=0)

    def journal(self, machine: str, limit: int = 100) -> list[Alarm]:
        """The latest transitions of a machine, newest first: each is the alarm as it was after it."""
        select = "SELECT body FROM journal WHERE machine = ? ORDER BY id DESC LIMIT ?"
        return self._alarms_of(self._rows(select, machine, limit))

    def raised_since(self, t_ms: int, limit: int = 20_000) -> list[Alarm]:
        """Every alarm as it was annunciated since then, over all machines, oldest first."""
        rows = self._rows("SELECT body FROM journal ORDER BY id DESC LIMIT ?", limit)[::-1]
        return [a for a in self._alarms_of(rows) if a.waiting and a.ts == a.ts_raised and a.ts >= t_ms]

    def _alarms_of(self, rows: Sequence[tuple[str]], then: str = "is left out") -> list[Alarm]:
        """The alarms in these rows; one damaged row must not keep the agent from starting, so it is only declared."""
        alarms: list[Alarm] = []
        for (body,) in rows:
            try:
                alarms.append(Alarm.from_json(body))
            except BadFile as error:
                note = f"a stored alarm cannot be read and {then}: {error}"
                if note not in self.notes and len(self.notes) < 20:
                    self.notes.append(note)
        return alarms

    def fault_code(self, machine: str, fault: str | None) -> int:
        """The code of a fault class of a machine, given at its first use and never reused; 0 for no fault."""
        if not fault or fault == UNKNOWN_FAULT:
            return UNKNOWN_FAULT_CODE if fault else 0
        known = self.fault_table(machine)
        if fault not in known:
            with self._writing(self._alarms) as db:
                db.execute(
                    "INSERT OR IGNORE INTO fault SELECT ?, ?, coalesce(max(code) + 1, ?) FROM fault WHERE machine = ?",
                    (machine, fault, FIRST_FAULT_CODE, machine),
                )
            known = self.fault_table(machine)
        if fault not in known:  # its index says that it is there, its table that it is not
            raise statedb.damaged(self.state_dir, f"no code can be given to fault {fault!r} of {machine}")
        return known[fault]

    def fault_table(self, machine: str) -> dict[str, int]:
        """Every class of a machine that has a code, in the order of the codes."""
        return dict(self._rows("SELECT fault, code FROM fault WHERE machine = ? ORDER BY code", machine))

    def add_scores(self, scores: Sequence[Score]) -> None:
        """Add to the history, which keeps 30 days and at most `MAX_SCORES` rows."""
        insert = (
            "INSERT INTO score (machine, t_ns, score, p_value, level, fault_code, quality_code, mode, bank) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
        )
        rows = [astuple(s) for s in scores]
        prune = self._scores_since_prune + len(rows) >= PRUNE_EVERY
        with self._writing(self._points) as db:
            db.executemany(insert, rows)
            if prune:
                db.execute("DELETE FROM score WHERE id <= (SELECT max(id) FROM score) - ?", (MAX_SCORES,))
                for machine in {s.machine for s in scores}:
                    oldest = max(s.t_ns for s in scores if s.machine == machine) - SCORES_KEPT_NS
                    db.execute("DELETE FROM score WHERE machine = ? AND t_ns < ?", (machine, oldest))
        self._scores_since_prune = 0 if prune else self._scores_since_prune + len(rows)

    def scores(self, machine: str, *, since_ns: int = 0, limit: int = 10_000) -> list[Score]:
        """The latest rows of the history at or after a time, oldest first."""
        select = (
            "SELECT machine, t_ns, score, p_value, level, fault_code, quality_code, mode, bank FROM score "
            "WHERE machine = ? AND t_ns >= ? ORDER BY t_ns DESC LIMIT ?"
        )
        return [Score(*row) for row in reversed(self._rows(select, machine, since_ns, limit))]

    def add_shares(self, shares: Sequence[Share]) -> None:
        """Add to the history of shares, which keeps 30 days and at most `MAX_SHARES` rows."""
        prune = self._shares_since_prune + len(shares) >= PRUNE_EVERY
        with self._writing(self._points) as db:
            db.executemany(
                "INSERT INTO share (machine, t_ns, body) VALUES (?, ?, ?)",
                [(s.machine, s.t_ns, s.to_json()) for s in shares],
            )
            if prune:
                db.execute("DELETE FROM share WHERE id <= (SELECT max(id) FROM share) - ?", (MAX_SHARES,))
                for share in shares:
                    oldest = share.t_ns - SCORES_KEPT_NS
                    db.execute("DELETE FROM share WHERE machine = ? AND t_ns < ?", (share.machine, oldest))
        self._shares_since_prune = 0 if prune else self._shares_since_prune + len(shares)

    def past(self, machine: str, since_ns: int) -> Iterator[Past]:
        """Every score of the history at or after a time, oldest first, a page at a time: 30 days may be a million."""
        select = (
            "SELECT t_ns, id, score, mode, bank FROM score WHERE machine = ? AND (t_ns, id) > (?, ?) "
            "AND t_ns < 9223372036854775807 ORDER BY t_ns, id LIMIT ?"  # no text, which sorts behind every number
        )
        at = (since_ns - 1, 2**62)
        while page := self._rows(select, machine, *at, SCORES_PAGE):
            yield from (Past(t_ns, score, mode, bank) for t_ns, _, score, mode, bank in page)
            at = (page[-1][0], page[-1][1])

    def meta(self, key: str) -> str | None:
        """A stored word; None where there is none."""
        found = self._rows("SELECT value FROM meta WHERE key = ?", key)
        return str(found[0][0]) if found else None

    def set_meta(self, key: str, value: str) -> None:
        """Store a word."""
        with self._writing(self._alarms) as db:
            db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    def settle(self, t_ms: int) -> None:
        """From here on all that was written before survives a power cut too.

        Points and scores are not flushed one by one (`synchronous=NORMAL`: a disk of a small box would wear out), but
        they lie in the same log as this, which is (https://sqlite.org/pragma.html#pragma_synchronous).
        """
        self.set_meta("settled", str(t_ms))

    def probation(self, machine: str) -> tuple[str, bytes] | None:
        """What `save_probation` kept; None where there is none."""
        body, top = self.meta(f"probation/{machine}"), self.meta(f"probation-top/{machine}")
        return None if body is None or top is None else (body, base64.b64decode(top))

    def save_probation(self, machine: str, body: str | None, top: bytes | None) -> None:
        """Keep how far a machine's probation is; a `top` of None leaves the one before, a `body` of None ends both."""
        rows = [("probation", body), ("probation-top", None if top is None else base64.b64encode(top).decode())]
        with self._writing(self._points) as db:
            if body is None:
                db.executemany("DELETE FROM meta WHERE key = ?", [(f"{name}/{machine}",) for name, _ in rows])
            kept = [(f"{name}/{machine}", value) for name, value in rows if value is not None]
            db.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", kept)

    def rename_probation(self, before: str, after: str) -> None:
        """Keep what was kept under one key under another, where there is anything."""
        with self._writing(self._points) as db:
            for name in ("probation", "probation-top"):
                found = (f"{name}/{after}", f"{name}/{before}")
                db.execute("UPDATE OR REPLACE meta SET key = ? WHERE key = ?", found)

    # How.

    def _rows(self, select: str, *values: object) -> list[Any]:
        with self._lock, self._translated():
            return self._points.execute(select, values).fetchall()

    @contextmanager
    def _writing(self, connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
        """One transaction: all of it or nothing."""
        with self._lock, self._translated():
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                # sqlite has already rolled back by itself after some errors, a full disk among them.
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.ProgrammingError, sqlite3.InterfaceError):
            raise
        except (sqlite3.Error, UnicodeDecodeError) as error:  # the latter of SQLite's sentence about what is damaged
            if isinstance(error, UnicodeDecodeError) or statedb.is_damage(error):
                raise statedb.damaged(self.state_dir, error) from error
            path = self.state_dir / statedb.DATABASE
            raise Unavailable(f"{path}: {error}; free space on its disk and check that it is writable") from error


def _record(db: sqlite3.Connection, audit: Audit) -> None:
    columns = ", ".join(f.name for f in fields(Audit))
    marks = ", ".join("?" for _ in fields(Audit))
    db.execute(f"INSERT INTO audit ({columns}) VALUES ({marks})", astuple(audit))  # noqa: S608 (own columns)
    db.execute("DELETE FROM audit WHERE id <= (SELECT max(id) FROM audit) - ?", (MAX_AUDIT,))
