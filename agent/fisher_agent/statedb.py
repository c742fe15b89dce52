"""Opening what lies in state_dir: the lock, the database's schema, and a damaged database. Used by store.py only.

A damaged database must not keep the agent from watching machines: it is set aside, what can still be read of the
alarms and fault codes is taken over, and the operator is told.
"""

import fcntl
import os
import shutil
import sqlite3
import time
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import BinaryIO

from fisher_agent.errors import BadFile, ConfigError, Unavailable

DATABASE = "state.db"
SUSPECT = "state.db.suspect"  # left by a run that met damage, so that the next start does not trust the file
KEPT_DAMAGED = 2
WAL_LIMIT_BYTES = 16 * 2**20
DAMAGE = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
SALVAGED = {
    "machine": ("INSERT OR IGNORE INTO machine VALUES (?, ?)", "SELECT machine, occurrence FROM machine"),
    "alarm": ("INSERT OR IGNORE INTO alarm VALUES (?, ?, ?)", "SELECT machine, alarm, body FROM alarm"),
    "fault": ("INSERT OR IGNORE INTO fault VALUES (?, ?, ?)", "SELECT machine, fault, code FROM fault"),
}

MIGRATIONS = (
    """
    CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;

    CREATE TABLE outbox (
        id INTEGER PRIMARY KEY AUTOINCREMENT,   -- never reused: an id names one thing for ever
        queue TEXT NOT NULL,                    -- influx | mqtt
        rank INTEGER NOT NULL,                  -- 0 is evicted before 1
        topic TEXT NOT NULL,                    -- '' for points
        qos INTEGER NOT NULL,
        retain INTEGER NOT NULL,
        payload BLOB NOT NULL,
        bytes INTEGER NOT NULL
    );
    CREATE INDEX outbox_order ON outbox (queue, id);
    CREATE INDEX outbox_eviction ON outbox (rank, id);
    CREATE UNIQUE INDEX outbox_retained ON outbox (queue, topic) WHERE retain = 1;

    CREATE TABLE counter (queue TEXT, name TEXT, value INTEGER NOT NULL, PRIMARY KEY (queue, name)) WITHOUT ROWID;
    INSERT INTO counter SELECT q.v, n.v, 0
        FROM (SELECT 'influx' AS v UNION SELECT 'mqtt') AS q,
             (SELECT 'added' AS v UNION SELECT 'written' UNION SELECT 'rejected' UNION SELECT 'evicted'
              UNION SELECT 'held' UNION SELECT 'bytes') AS n;
    CREATE TRIGGER outbox_in AFTER INSERT ON outbox BEGIN
        UPDATE counter SET value = value + 1 WHERE queue = NEW.queue AND name = 'held';
        UPDATE counter SET value = value + NEW.bytes WHERE queue = NEW.queue AND name = 'bytes';
    END;
    CREATE TRIGGER outbox_out AFTER DELETE ON outbox BEGIN
        UPDATE counter SET value = value - 1 WHERE queue = OLD.queue AND name = 'held';
        UPDATE counter SET value = value - OLD.bytes WHERE queue = OLD.queue AND name = 'bytes';
    END;

    CREATE TABLE quarantine (id INTEGER PRIMARY KEY, queue TEXT NOT NULL, payload BLOB NOT NULL, reason TEXT NOT NULL);

    CREATE TABLE machine (machine TEXT PRIMARY KEY, occurrence INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE alarm (machine TEXT, alarm TEXT, body TEXT NOT NULL, PRIMARY KEY (machine, alarm)) WITHOUT ROWID;
    CREATE TABLE journal (id INTEGER PRIMARY KEY, machine TEXT, alarm TEXT, seq INTEGER, body TEXT NOT NULL,
                          UNIQUE (machine, alarm, seq));
    CREATE TABLE fault (machine TEXT, fault TEXT, code INTEGER NOT NULL, PRIMARY KEY (machine, fault)) WITHOUT ROWID;
    CREATE UNIQUE INDEX fault_code ON fault (machine, code);

    CREATE TABLE score (id INTEGER PRIMARY KEY, machine TEXT NOT NULL, t_ns INTEGER NOT NULL, score REAL NOT NULL,
                        p_value REAL NOT NULL, level INTEGER NOT NULL, fault_code INTEGER NOT NULL,
                        quality_code INTEGER NOT NULL);
    CREATE INDEX score_time ON score (machine, t_ns);
    """,
    """
    CREATE TABLE audit (id INTEGER PRIMARY KEY, t_ms INTEGER NOT NULL, machine TEXT NOT NULL, verb TEXT NOT NULL,
                        alarm TEXT NOT NULL, occurrence INTEGER NOT NULL, command_id TEXT NOT NULL, by TEXT NOT NULL,
                        comment TEXT NOT NULL, until_ms INTEGER NOT NULL, via TEXT NOT NULL, error TEXT NOT NULL);
    CREATE INDEX audit_command ON audit (machine, verb, command_id);
    """,
    """
    CREATE TABLE share (id INTEGER PRIMARY KEY, machine TEXT NOT NULL, t_ns INTEGER NOT NULL, body TEXT NOT NULL);
    CREATE INDEX share_time ON share (machine, t_ns);
    """,
    # What a score was judged by: without it neither drift nor a back-test could tell modes and versions apart.
    """
    ALTER TABLE score ADD COLUMN mode TEXT NOT NULL DEFAULT '';
    ALTER TABLE score ADD COLUMN bank TEXT NOT NULL DEFAULT '';
    """,
)
"""Script i brings a database of user_version i to i + 1."""


lenient = partial(str, encoding="utf-8", errors="replace")
"""Text as it is read: one damaged byte must not keep every row of a query from being read."""


def claim(state_dir: Path) -> BinaryIO:
    """Create state_dir and lock it for this process; the lock lives as long as the file is open.

    ConfigError where it cannot be used at all, Unavailable naming the pid where another agent uses it.
    """
    path = state_dir / "lock"
    try:
        state_dir.mkdir(mode=0o750, parents=True, exist_ok=True)
        lock = path.open("a+b", buffering=0)
    except OSError as error:
        raise ConfigError(
            f"state_dir {state_dir} cannot be used by user {os.geteuid()}: {error}; "
            "it must be a folder that the agent may write to"
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        lock.truncate(0)
        lock.write(str(os.getpid()).encode())
    except BlockingIOError as error:
        lock.seek(0)
        owner = lock.read(20).decode(errors="replace").strip() or "unknown"
        lock.close()
        raise Unavailable(
            f"state_dir {state_dir} is in use by process {owner}; stop that agent or give this one its own state_dir"
        ) from error
    except OSError as error:
        lock.close()
        raise Unavailable(f"{path} cannot be written: {error}; free space on its disk") from error
    return lock


def connect(path: Path, *, synchronous: str) -> sqlite3.Connection:
    """A connection in WAL mode that commits only when told; to be used by one thread at a time."""
    connection = sqlite3.connect(path, timeout=10.0, isolation_level=None, check_same_thread=False)
    connection.text_factory = lenient
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL" if synchronous == "FULL" else "PRAGMA synchronous = NORMAL")
        connection.execute(f"PRAGMA journal_size_limit = {WAL_LIMIT_BYTES}")
    except (sqlite3.Error, UnicodeDecodeError):
        connection.close()
        raise
    return connection


def prepare(state_dir: Path) -> list[str]:
    """Make sure of a sound database of this version; returns notes for the operator.

    ConfigError for a database of a newer agent, Unavailable where the disk refuses.
    """
    path, suspect = state_dir / DATABASE, state_dir / SUSPECT
    try:
        reason = "an earlier run met damage in it" if suspect.exists() else _damage(path)
        if reason is None:
            with closing(connect(path, synchronous="FULL")) as connection:
                _migrate(connection, path)
            return []
        aside = _set_aside(state_dir)
        with closing(connect(path, synchronous="FULL")) as connection:
            _migrate(connection, path)
            lost = _salvage(aside / DATABASE, connection)
        suspect.unlink(missing_ok=True)
    except sqlite3.Error as error:
        raise Unavailable(f"{path} cannot be opened: {error}; free space on its disk, check its permissions") from error
    except OSError as error:
        raise Unavailable(f"{path} cannot be set aside: {error}") from error
    note = f"{path} was damaged ({reason}) and is now in {aside}; points and messages that waited in it are not sent"
    return [note, *(f"its table {name!r} could not be read and starts anew" for name in lost)]


def _damage(path: Path) -> str | None:
    """What is wrong with the file; None if nothing. A database that was closed properly is not read through."""
    if not path.exists():
        return None
    try:
        with closing(connect(path, synchronous="NORMAL")) as connection:
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version == 0:
                return "it is empty"
            if connection.execute("SELECT 1 FROM meta WHERE key = 'closed'").fetchone():
                return None
            (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            return None if verdict == "ok" else str(verdict)
    except UnicodeDecodeError:  # of SQLite's own sentence, which names what is damaged
        return "its schema is damaged"
    except sqlite3.DatabaseError as error:
        if is_damage(error) or "no such table" in str(error):
            return str(error)
        raise


def is_damage(error: sqlite3.Error) -> bool:
    """Whether an error means that the file cannot be trusted."""
    return (getattr(error, "sqlite_errorcode", 0) & 0xFF) in DAMAGE


def damaged(state_dir: Path, why: object) -> BadFile:
    """The error of a database that cannot be trusted; the next start sets it aside."""
    with suppress(OSError):
        (state_dir / SUSPECT).touch()
    return BadFile(f"{state_dir / DATABASE} is damaged: {why}; start the agent again, it sets the file aside")


def _migrate(connection: sqlite3.Connection, path: Path) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > len(MIGRATIONS):
        raise ConfigError(
            f"{path} was written by a newer fisher-agent (state version {version}, this one knows {len(MIGRATIONS)}); "
            "install that version again or choose another state_dir"
        )
    for number, script in enumerate(MIGRATIONS[version:], start=version + 1):
        # One transaction, version included: a crash leaves the old schema or the new one.
        connection.executescript(f"BEGIN IMMEDIATE; {script} PRAGMA user_version = {number}; COMMIT;")


def _set_aside(state_dir: Path) -> Path:
    root = state_dir / "damaged"
    aside = root / f"{time.time_ns()}"
    aside.mkdir(mode=0o750, parents=True)
    for name in (DATABASE, f"{DATABASE}-wal", f"{DATABASE}-shm"):
        if (state_dir / name).exists():
            (state_dir / name).rename(aside / name)
    for old in sorted(root.iterdir())[:-KEPT_DAMAGED]:
        shutil.rmtree(old, ignore_errors=True)
    return aside


def _salvage(damaged: Path, connection: sqlite3.Connection) -> list[str]:
    """Copy what is still readable of the small tables that must not start anew; returns the tables that are lost.

    An occurrence number must never come twice, or an old acknowledgement would reach a new alarm. What was read may
    be old, so from here on counting starts at the present time in seconds, which no counter of raises has reached.
    """
    lost = []
    connection.execute("BEGIN IMMEDIATE")
    for name, (insert, select) in SALVAGED.items():
        try:
            with closing(sqlite3.connect(damaged)) as source:
                source.text_factory = lenient
                rows = source.execute(select).fetchall()
        except (sqlite3.Error, UnicodeDecodeError):
            lost.append(name)
        else:
            connection.executemany(insert, rows)
    floor = str(int(time.time()))
    connection.execute("INSERT OR REPLACE INTO meta VALUES ('occurrence_floor', ?)", (floor,))
    connection.execute("COMMIT")
    return lost
