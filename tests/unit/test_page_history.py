"""What the page reads of the past: scores thinned so that peaks stay, and shares of channels and bands."""

import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from fisher_agent.codes import Quality
from fisher_agent.errors import BadFile, Unavailable
from fisher_agent.history import History, Thinned, with_gaps
from fisher_agent.page.charts import charts
from fisher_agent.shares import SPAN_NS, Share, ShareLog
from fisher_agent.store import Store
from fisher_agent.storerows import Score
from pageplant import made

MILL = "mill-01"
S = 10**9
T0_NS = 1_795_000_000 * S


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "state", max_outbox_bytes=2**20) as opened:
        yield opened


def score(t_ns: int, value: float, *, machine: str = MILL, level: int = 0) -> Score:
    return Score(machine, t_ns, value, 0.5, level, 0, 0)


@given(
    values=st.lists(st.floats(0, 50, width=32), min_size=1, max_size=200),
    steps=st.integers(1, 10),
    points=st.integers(1, 60),
)
@settings(max_examples=40)
def test_thinning_loses_neither_the_highest_nor_the_lowest(
    tmp_path_factory: pytest.TempPathFactory, values: list[float], steps: int, points: int
) -> None:
    folder = tmp_path_factory.mktemp("thin")
    with Store.open(folder, max_outbox_bytes=2**20) as opened:
        opened.add_scores([score(T0_NS + n * steps * S, v) for n, v in enumerate(values)])
        opened.add_scores([score(T0_NS, 999.0, machine="other")])
        until_ns = T0_NS + len(values) * steps * S
        rows = History(folder).scores(MILL, since_ns=T0_NS, until_ns=until_ns, points=points)
    assert len(rows) <= points + 2
    assert max(r.high for r in rows) == max(values)
    assert min(r.low for r in rows) == min(values)
    assert all(r.low <= r.mean * (1 + 1e-9) and r.mean <= r.high * (1 + 1e-9) + 1e-12 for r in rows)
    assert [r.t_ns for r in rows] == sorted({r.t_ns for r in rows})


def test_the_highest_level_of_a_span_is_kept(store: Store) -> None:
    store.add_scores([score(T0_NS + n * S, 0.5, level=3 if n == 5 else 0) for n in range(100)])
    rows = History(store.state_dir).scores(MILL, since_ns=T0_NS, until_ns=T0_NS + 100 * S, points=4)
    assert [r.level for r in rows] == [3, 0, 0, 0]


def test_a_range_that_moves_on_shows_what_was_added_and_reads_the_rest_once(store: Store) -> None:
    history, fresh = History(store.state_dir), History(store.state_dir)
    for n in range(0, 300, 10):
        store.add_scores([score(T0_NS + k * S, k % 7) for k in range(n, n + 10)])
        now_ns = T0_NS + (n + 10) * S
        asked = {"since_ns": now_ns - 100 * S, "until_ns": now_ns, "points": 20}
        assert history.scores(MILL, **asked) == History(store.state_dir).scores(MILL, **asked)
    (kept,) = history._spans.values()
    assert 17 <= len(kept) <= 20, "what left the range is forgotten"
    assert fresh._spans == {}


def test_a_range_is_half_open(store: Store) -> None:
    store.add_scores([score(T0_NS + n * S, n) for n in range(10)])
    rows = History(store.state_dir).scores(MILL, since_ns=T0_NS + 2 * S, until_ns=T0_NS + 5 * S, points=100)
    assert [r.mean for r in rows] == [2, 3, 4]


def test_a_hole_in_the_history_is_no_line(store: Store) -> None:
    store.add_scores([score(T0_NS + n * S, 0.5) for n in (*range(10), *range(60, 70))])
    made_of = charts(History(store.state_dir), MILL, until_ns=0, span_ns=70 * S, points=600)
    assert made_of["scores"]["mean"].count(None) == 1
    t = made_of["scores"]["t"]
    assert t == sorted(t) and len(set(t)) == len(t)


def test_gaps_are_told_by_the_typical_distance() -> None:
    rows = [Thinned(n * S, 0, 0, 0, 0) for n in (0, 1, 2, 3, 10, 11)]
    assert [row.t_ns // S if row else None for row in with_gaps(rows)] == [0, 1, 2, 3, None, 10, 11]
    assert with_gaps([]) == [] and with_gaps(rows[:1]) == rows[:1]


def test_a_long_query_is_ended_and_holds_up_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.add_scores([score(T0_NS + n, 0.5) for n in range(20_000)])
    monkeypatch.setattr("fisher_agent.history.QUERY_S", -1.0)
    monkeypatch.setattr("fisher_agent.history.CHECK_EVERY", 100)
    with pytest.raises(Unavailable, match="ask for less"):
        History(store.state_dir).scores(MILL, since_ns=0, until_ns=2 * T0_NS, points=600)
    store.add_scores([score(T0_NS, 1.0)])


def test_a_reader_cannot_write(store: Store) -> None:
    with History(store.state_dir)._reading() as db, pytest.raises(sqlite3.OperationalError, match="readonly"):
        db.execute("DELETE FROM score")


def test_a_state_dir_with_odd_characters_is_read(tmp_path: Path) -> None:
    with Store.open(tmp_path / "a b?#%41", max_outbox_bytes=2**20) as odd:
        odd.add_scores([score(T0_NS, 0.5)])
        assert History(odd.state_dir).latest_ns(MILL) == T0_NS


def test_shares_are_means_over_ten_seconds_and_come_when_the_span_is_over() -> None:
    log = ShareLog()
    verdicts = [made(MILL, 0.5 + n, t_ns=T0_NS + n * 5 * S) for n in range(3)]
    for verdict in verdicts[:2]:
        log.add(verdict)
    assert log.finished() == []
    log.add(verdicts[2])
    (share,) = log.finished()
    assert (share.machine, share.t_ns) == (MILL, T0_NS)
    contributions = [{r.channel: r.contribution for r in v.readings} for v in verdicts[:2]]
    assert share.channels["vib"] == pytest.approx(np.mean([c["vib"] for c in contributions]), abs=1e-3)
    assert sum(share.channels.values()) == pytest.approx(1, abs=0.01)
    assert sum(share.bands["vib"].values()) == pytest.approx(1, abs=0.01)
    assert log.finished() == []


def test_what_was_not_scored_has_no_share() -> None:
    log = ShareLog()
    for n in range(9):
        log.add(made(MILL, 0.5, t_ns=T0_NS + n * SPAN_NS, running=False, quality=Quality.GOOD))
    assert log.finished() == []


def test_shares_survive_the_disk_and_are_bounded(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fisher_agent.store.MAX_SHARES", 100)
    monkeypatch.setattr("fisher_agent.store.PRUNE_EVERY", 10)
    share = Share(MILL, T0_NS, {"vib": 0.7, "cur": 0.3}, {"vib": {"0-4000": 1.0}})
    for n in range(300):
        store.add_shares([replace(share, t_ns=T0_NS + n * SPAN_NS)])
    found = History(store.state_dir).shares(MILL, since_ns=0, until_ns=2 * T0_NS, points=10**9)
    assert 100 <= len(found) <= 110
    assert found[-1] == replace(share, t_ns=T0_NS + 299 * SPAN_NS)
    few = History(store.state_dir).shares(MILL, since_ns=T0_NS, until_ns=T0_NS + 300 * SPAN_NS, points=10)
    assert 1 <= len(few) <= 11
    month_ns = 31 * 86_400 * S
    store.add_shares([replace(share, t_ns=T0_NS + month_ns + n) for n in range(10)])
    assert len(History(store.state_dir).shares(MILL, since_ns=0, until_ns=2 * T0_NS, points=10**9)) <= 10


@pytest.mark.parametrize("body", ["", "[]", "{", '{"c": 1, "b": {}}', '{"c": {}, "b": []}', '{"c": {}}'])
def test_a_row_that_holds_no_shares_is_named(body: str) -> None:
    with pytest.raises(BadFile, match="not a row of shares"):
        Share.from_row(MILL, T0_NS, body)


def test_a_database_of_before_the_page_is_migrated(tmp_path: Path) -> None:
    from fisher_agent import schema, statedb

    folder = tmp_path / "state"
    folder.mkdir()
    with sqlite3.connect(folder / statedb.DATABASE) as old:
        old.executescript(f"{schema.MIGRATIONS[0]} PRAGMA user_version = 1;")
    with Store.open(folder, max_outbox_bytes=2**20) as opened:
        opened.add_shares([Share(MILL, T0_NS, {}, {})])
        assert opened.notes == []


def test_a_range_that_is_longer_than_the_history_begins_with_it(store: Store) -> None:
    store.add_scores([score(T0_NS + n * S, 0.5) for n in range(100)])
    history = History(store.state_dir)
    assert charts(history, MILL, until_ns=0, span_ns=3600 * S, points=600)["since"] == T0_NS // 10**6
    assert charts(history, MILL, until_ns=0, span_ns=50 * S, points=600)["since"] == (T0_NS + 49 * S) // 10**6
    nothing = charts(history, "mill-02", until_ns=0, span_ns=50 * S, points=600)
    assert nothing["scores"]["t"] == [] and nothing["since"] < nothing["until"]
