"""The schema of the state database: its SQL, step by step, and how an older database is brought forward.

All steps that are missing are one transaction, version included: a crash leaves the old schema or the new one. Before
it a copy is put beside the database (`state.db.v3` of version 3), so that an upgrade can be taken back.
"""

import os
import re
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import structlog

from fisher_agent.durable import sync
from fisher_agent.errors import ConfigError

SPARE_BYTES = 64 * 2**20  # that a copy must leave free on the disk
COPY = re.compile(r"\.v(\d+)$")
ADDED = re.compile(r"ALTER TABLE (\w+) ADD COLUMN (\w+)[^;]*;")
log = structlog.get_logger()

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
    CREATE TABLE IF NOT EXISTS audit (
        id INTEGER PRIMARY KEY, t_ms INTEGER NOT NULL, machine TEXT NOT NULL, verb TEXT NOT NULL, alarm TEXT NOT NULL,
        occurrence INTEGER NOT NULL, command_id TEXT NOT NULL, by TEXT NOT NULL, comment TEXT NOT NULL,
        until_ms INTEGER NOT NULL, via TEXT NOT NULL, error TEXT NOT NULL
    );
    CREATE INDEX IF NOT EXISTS audit_command ON audit (machine, verb, command_id);
    """,
    """
    CREATE TABLE IF NOT EXISTS share (
        id INTEGER PRIMARY KEY, machine TEXT NOT NULL, t_ns INTEGER NOT NULL, body TEXT NOT NULL
    );
    CREATE INDEX IF NOT EXISTS share_time ON share (machine, t_ns);
    """,
    # What a score was judged by: without it neither drift nor a back-test could tell modes and versions apart.
    """
    ALTER TABLE score ADD COLUMN mode TEXT NOT NULL DEFAULT '';
    ALTER TABLE score ADD COLUMN bank TEXT NOT NULL DEFAULT '';
    """,
)
"""Step i brings a database of user_version i to i + 1; from the second on a step passes over what is there already.

Before the first release two branches gave the same number to different steps, so the number alone does not say what a
database has. A step that was released is never changed.
"""
LATEST = len(MIGRATIONS)


def refuse_newer(version: int, path: Path) -> None:
    """ConfigError for a database of a newer agent: what it holds could be misread, and what it lacks be missed."""
    if version <= LATEST:
        return
    copies = [p for p in _copies(path) if _version_of(p) <= LATEST]
    back = (
        f", or take the upgrade back: stop the agent, remove {path.name}, {path.name}-wal and {path.name}-shm, and "
        f"rename {copies[-1].name} to {path.name} (what was stored since is lost)"
        if copies
        else ""
    )
    raise ConfigError(
        f"{path} was written by a newer fisher-agent (state version {version}, this one knows {LATEST}); "
        f"install that version again, choose another state_dir{back}"
    )


def migrate(connection: sqlite3.Connection, path: Path) -> list[str]:
    """Bring the database to `LATEST`; returns notes for the operator. ConfigError for one of a newer agent."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    refuse_newer(version, path)
    if version == LATEST:
        return []
    notes = []
    if version and (why := _keep_copy(connection, path, version)):
        notes.append(f"{path} was brought from version {version} to {LATEST} without keeping a copy of it: {why}")
    steps = MIGRATIONS if version == 0 else MIGRATIONS[1:]
    script = ADDED.sub(lambda found: _unless_there(connection, found), "".join(steps))
    connection.executescript(f"BEGIN IMMEDIATE; {script} PRAGMA user_version = {LATEST}; COMMIT;")
    if version:
        log.info("state_migrated", path=str(path), before=version, now=LATEST)
    return notes


def _unless_there(connection: sqlite3.Connection, found: re.Match[str]) -> str:
    """SQLite has no ADD COLUMN IF NOT EXISTS."""
    columns = connection.execute("SELECT name FROM pragma_table_info(?)", (found[1],)).fetchall()
    return "" if (found[2],) in columns else found[0]


def _keep_copy(connection: sqlite3.Connection, path: Path, version: int) -> str:
    """Copy the database beside itself; returns why not, "" where it is there. Only the latest copy is kept.

    A machine must not go unwatched for want of room for a copy, so without one the upgrade goes on, and says so.
    """
    draft, copy = path.with_name(f".{path.name}.draft"), path.with_name(f"{path.name}.v{version}")
    (size,) = connection.execute(
        "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()"
    ).fetchone()
    if shutil.disk_usage(path.parent).free < size + SPARE_BYTES:
        return f"its disk has no room for {size / 1e6:.0f} MB more"
    try:
        draft.unlink(missing_ok=True)
        with closing(sqlite3.connect(draft)) as target:
            connection.backup(target)
        descriptor = os.open(draft, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        draft.replace(copy)
        sync(path.parent)
        for old in _copies(path):
            if old != copy:
                old.unlink(missing_ok=True)
    except (sqlite3.Error, OSError) as error:
        draft.unlink(missing_ok=True)
        return str(error)
    return ""


def _copies(path: Path) -> list[Path]:
    """The copies beside a database, the oldest version first."""
    return sorted((p for p in path.parent.glob(f"{path.name}.v*") if COPY.search(p.name)), key=_version_of)


def _version_of(copy: Path) -> int:
    found = COPY.search(copy.name)
    return int(found[1]) if found else 0
