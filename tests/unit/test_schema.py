"""Databases of every version there was, made by the code of its time, are brought forward; newer ones are left alone.

`tests/golden/state/*.sql` are dumps of what each version of the agent wrote: one alarm with its journal, points and a
message that wait, a fault code, a score. v2 exists three times, for three branches gave that number to different steps.
"""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest

from fisher_agent import schema
from fisher_agent.codes import State
from fisher_agent.errors import ConfigError, Unavailable
from fisher_agent.outbox import Counters
from fisher_agent.schema import LATEST
from fisher_agent.shares import Share
from fisher_agent.statedb import SUSPECT
from fisher_agent.store import Store
from fisher_agent.storerows import Audit, Score

DUMPS = sorted((Path(__file__).parents[1] / "golden" / "state").glob("*.sql"))
OLD = [d for d in DUMPS if d.stem != f"v{LATEST}"]
MB = 2**20


def made(folder: Path, dump: Path) -> Path:
    """state_dir with a database as that version left it; returns the database."""
    folder.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(folder / "state.db")) as db:
        db.executescript(dump.read_text())
    return folder / "state.db"


def opened(folder: Path) -> Store:
    return Store.open(folder, max_outbox_bytes=MB)


def version(path: Path) -> int:
    with closing(sqlite3.connect(path)) as db:
        return int(db.execute("PRAGMA user_version").fetchone()[0])


def shape(path: Path) -> list[tuple[str, ...]]:
    """Every table with its columns, every index and trigger."""
    with closing(sqlite3.connect(path)) as db:
        names = db.execute(
            "SELECT type, name FROM sqlite_schema WHERE name NOT LIKE 'sqlite_%' ORDER BY 1, 2"
        ).fetchall()
        return [
            (kind, name, *(str(c[1:]) for c in db.execute(f"SELECT * FROM pragma_table_info('{name}')")))
            for kind, name in names
        ]


def test_there_is_a_dump_of_every_version() -> None:
    assert {int(d.stem[1:].partition("-")[0]) for d in DUMPS} == set(range(1, LATEST + 1))


@pytest.mark.parametrize("dump", DUMPS, ids=lambda d: d.stem)
def test_nothing_is_lost_on_the_way_to_the_present(tmp_path: Path, dump: Path) -> None:
    path = made(tmp_path, dump)
    with opened(tmp_path) as store:
        assert store.notes == []
        (alarm,), occurrence = store.load_alarms("press-07")
        assert (alarm.alarm, alarm.base, alarm.seq, occurrence) == ("anomaly", State.UNACK, 1, 7)
        assert store.journal("press-07") == [alarm]
        assert store.fault_table("press-07") == {"outer-race": 2}
        assert [line for _, line in store.peek("influx", 9)] == [
            "m,machine=press-07 x=1i 5",
            "m,machine=press-07 x=2i 6",
        ]
        assert [m.payload for _, m in store.peek("mqtt", 9)] == [b"7"]
        assert store.counters("influx") == Counters(2, 0, 0, 0, 2, 178)
        assert store.scores("press-07") == [Score("press-07", 1_795_000_000_000_000_000, 1.5, 0.01, 2, 0, 0)]
        assert store.meta("key") == "value"
        # What is new can be used at once.
        store.add_audit(Audit(1, "press-07", "ack", "anomaly", 7, "", "kim", "", 0, "page"))
        store.add_shares([Share("press-07", 5, {"vib": 1.0}, {})])
        store.add_scores([Score("press-07", 1_795_000_000_000_000_001, 0.5, 0.5, 0, 0, 0, "idle", "v1")])
        store.done([row for row, _ in store.peek("influx", 9)])
        assert store.counters("influx").held == 0
    assert version(path) == LATEST
    with opened(tmp_path / "fresh"):
        pass
    assert shape(path) == shape(tmp_path / "fresh" / "state.db")


@pytest.mark.parametrize("dump", OLD, ids=lambda d: d.stem)
def test_the_copy_beside_it_is_the_database_as_it_was(tmp_path: Path, dump: Path) -> None:
    path = made(tmp_path, dump)
    before, was = shape(path), version(path)
    opened(tmp_path).close()
    (copy,) = tmp_path.glob("state.db.v*")
    assert copy.name == f"state.db.v{was}"
    assert (version(copy), shape(copy)) == (was, before)
    with closing(sqlite3.connect(copy)) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert db.execute("SELECT count(*) FROM outbox").fetchone() == (3,)
    opened(tmp_path).close()
    assert list(tmp_path.glob("state.db.v*")) == [copy], "a start that upgrades nothing copies nothing"


def test_a_new_database_has_no_copy_and_only_the_latest_copy_is_kept(tmp_path: Path) -> None:
    opened(tmp_path / "new").close()
    assert not list((tmp_path / "new").glob("state.db.v*"))
    made(tmp_path, OLD[-1])
    (tmp_path / "state.db.v1").write_text("of years ago")
    (tmp_path / ".state.db.draft").write_text("left by a crash")
    opened(tmp_path).close()
    assert [p.name for p in tmp_path.glob("state.db.v*")] == [f"state.db.{OLD[-1].stem}"]
    assert not (tmp_path / ".state.db.draft").exists()


def test_a_step_that_fails_leaves_the_old_version_whole(tmp_path: Path) -> None:
    path = made(tmp_path, OLD[0])
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE VIEW share AS SELECT 1")  # the third step cannot put an index on it
    before = shape(path)
    with pytest.raises(Unavailable, match="cannot be opened"):
        opened(tmp_path)
    assert (version(path), shape(path)) == (1, before), "the second step was taken back, too"
    with closing(sqlite3.connect(path)) as db:
        db.execute("DROP VIEW share")
    opened(tmp_path).close()
    assert version(path) == LATEST


def test_without_room_for_a_copy_the_upgrade_goes_on_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(tmp_path, OLD[0])
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=schema.SPARE_BYTES))
    with opened(tmp_path) as store:
        (note,) = store.notes
        assert "without keeping a copy" in note and "no room" in note
        assert store.load_alarms("press-07")[1] == 7
    assert not list(tmp_path.glob("state.db.v*"))


@pytest.mark.parametrize("suspect", [False, True], ids=["sound", "said to be damaged"])
@pytest.mark.parametrize("closed", [False, True], ids=["killed", "closed"])
def test_a_database_of_the_future_is_refused_whatever_became_of_its_tables(
    tmp_path: Path, closed: bool, suspect: bool
) -> None:
    path = made(tmp_path, OLD[0])
    opened(tmp_path).close()
    with closing(sqlite3.connect(path)) as db:
        db.executescript(f"PRAGMA user_version = {LATEST + 1}; DROP TABLE share;")
        db.executescript("DROP TABLE meta" if not closed else "SELECT 1")
    if suspect:
        (tmp_path / SUSPECT).touch()
    before = path.read_bytes()
    for _ in range(2):
        with pytest.raises(ConfigError) as refused:
            opened(tmp_path)
    assert f"state version {LATEST + 1}, this one knows {LATEST}" in str(refused.value)
    assert "rename state.db.v1 to state.db" in str(refused.value), "the way back is named where there is one"
    assert path.read_bytes() == before
    assert not (tmp_path / "damaged").exists()


def test_the_way_back_that_is_named_works(tmp_path: Path) -> None:
    path = made(tmp_path, OLD[-1])
    opened(tmp_path).close()
    with closing(sqlite3.connect(path)) as db:
        db.execute(f"PRAGMA user_version = {LATEST + 1}")
    for name in ("state.db", "state.db-wal", "state.db-shm"):
        (tmp_path / name).unlink(missing_ok=True)
    (tmp_path / f"state.db.{OLD[-1].stem}").rename(path)
    with opened(tmp_path) as store:
        assert store.notes == [] and store.load_alarms("press-07")[1] == 7
