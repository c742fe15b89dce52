"""Opening what lies in state_dir: the lock, and a database that is damaged or of another version (`schema`).

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
from fisher_agent.schema import migrate, refuse_newer

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
        reason = _damage(path)  # first, for a newer database is left alone whatever is said of it
        if suspect.exists():
            reason = reason or "an earlier run met damage in it"
        if reason is None:
            with closing(connect(path, synchronous="FULL")) as connection:
                return migrate(connection, path)
        aside = _set_aside(state_dir)
        with closing(connect(path, synchronous="FULL")) as connection:
            migrate(connection, path)
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
        with closing(sqlite3.connect(path, timeout=10.0)) as connection:  # not `connect`, which may change the file
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            refuse_newer(version, path)
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
