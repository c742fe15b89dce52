"""The state database: rows that hold anything, and a file with wounds."""

import contextlib
import json
import shutil
import sqlite3
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from alarming import raised
from fisher_agent.alarmobject import alarm_object, alarm_row
from fisher_agent.errors import BadFile, ConfigError, FisherError, Unavailable
from fisher_agent.history import History
from fisher_agent.lifecycle import Alarm
from fisher_agent.maintenance import Window
from fisher_agent.page.charts import charts
from fisher_agent.probation import Probation
from fisher_agent.shares import Share
from fisher_agent.stages import Message, Point
from fisher_agent.statedb import DATABASE
from fisher_agent.store import Store
from fisher_agent.storerows import Audit, Score
from fuzz.harness import Opened, Target
from fuzz.mutate import damaged, json_of, mixed

T_NS = 1_795_000_000_000_000_000
PLACES = {  # column -> the row in which it is changed
    ("alarm", "body"): "alarm = 'anomaly'", ("journal", "body"): "id = 1", ("journal", "seq"): "id = 1",
    ("machine", "occurrence"): "machine = 'm'", ("meta", "value"): "key = 'maintenance/m'",
    ("score", "score"): "id = 3", ("score", "t_ns"): "id = 3", ("score", "level"): "id = 3",
    ("score", "mode"): "id = 3", ("score", "bank"): "id = 3", ("share", "body"): "id = 1", ("share", "t_ns"): "id = 1",
    ("fault", "code"): "fault = 'bearing'", ("outbox", "payload"): "id = 1", ("outbox", "topic"): "id = 2",
    ("outbox", "qos"): "id = 2", ("counter", "value"): "queue = 'influx' AND name = 'bytes'",
    ("audit", "error"): "id = 1", ("audit", "occurrence"): "id = 1", ("audit", "t_ms"): "id = 1",
}  # fmt: skip
PROBATION = {
    "machine": "m", "bank": "v1", "bank_ns": T_NS, "limit": 1.2, "days": 14.0, "n": 3, "m": 5, "severe": 2.0,
    "refined_ns": T_NS, "learnt": 0, "left_out": 0, "filled": 0, "maximum": 0.0, "spoilt": False, "occurrence": 0,
    "ended": "", "settled": False, "recent": [0.5, 0.6], "pending": [[3, 1.1]], "per_h": 0.001, "count": 2,
    "windows": 7, "step_s": 2.5, "margin_limit": 1.1, "enrolled_limit": 1.2, "least_apart": 8, "since_s": 1.7e9,
}  # fmt: skip
WINDOW = {"since_ms": T_NS // 10**6, "until_ms": T_NS // 10**6 + 60_000, "by": "ann"}
SHARES = {"c": {"vib": 0.5, "amp": 0.5}, "b": {"vib": {"0-4000": 1.0}}}


def _filled(folder: Path) -> Store:
    store = Store.open(folder, max_outbox_bytes=10**7)
    alarm = raised().anomaly
    store.commit_alarms("m", [alarm], 3, points=[Point("x", (), (("a", 1),), T_NS)], audit=_audit("c1"))
    store.add_messages([Message("t", b"x", 1, retain=True), Message("e", b"y", 1)])
    store.add_scores([Score("m", T_NS + n * 10**9, 0.5, 0.5, 0, 0, 0, "default", "v1") for n in range(20)])
    store.add_shares([Share("m", T_NS, SHARES["c"], SHARES["b"])])
    store.fault_code("m", "bearing")
    store.set_meta("maintenance/m", Window(1, 2, "x").to_json())
    return store


def _audit(command_id: str) -> Audit:
    return Audit(1, "m", "ack", "anomaly", 3, command_id, "ann", "", 0, "mqtt")


def _looks(store: Store, history: History) -> list[Callable[[], object]]:
    """Everything that is ever read of the database."""
    return [
        lambda: store.load_alarms("m"),
        lambda: store.raised_since(0),
        lambda: store.journal("m"),
        lambda: store.scores("m"),
        lambda: list(store.past("m", 0)),
        lambda: store.fault_table("m"),
        lambda: store.fault_code("m", "bearing"),
        lambda: store.counters("influx"),
        lambda: store.outbox_bytes,
        lambda: store.peek("influx", 10),
        lambda: store.peek("mqtt", 10),
        lambda: store.audit("m"),
        lambda: store.answered("m", "ack", "c1"),
        lambda: Window.from_json(store.meta("maintenance/m") or ""),
        lambda: history.journal("m", limit=50),
        lambda: json.dumps(
            charts(history, "m", until_ns=T_NS + 30 * 10**9, span_ns=60 * 10**9, points=20), allow_nan=False
        ),
    ]


@contextmanager
def _rows(work: Path) -> Iterator[Opened]:
    """The first byte says which column, the second of which type the rest is. A column's type is only advice."""
    store = _filled(work)
    db = sqlite3.connect(work / DATABASE, isolation_level=None)
    places = list(PLACES.items())
    before = [db.execute(f"SELECT {column} FROM {table} WHERE {row}").fetchone()[0] for (table, column), row in places]

    def run(data: bytes) -> None:
        at = (data[0] if data else 0) % len(places)
        (table, column), row = places[at]
        value, cast = _value(data[1:])
        refused: FisherError | None = None
        with contextlib.suppress(sqlite3.IntegrityError):
            db.execute(f"UPDATE {table} SET {column} = {cast} WHERE {row}", (value,))
        try:
            for look in _looks(store, History(work)):
                try:
                    look()
                except FisherError as error:
                    refused = error
        finally:
            db.execute(f"UPDATE {table} SET {column} = ? WHERE {row}", (before[at],))
        if refused is not None:
            raise refused

    def make(rng: Random) -> bytes:
        at, kind = rng.randrange(len(places)), rng.randrange(4)
        column = places[at][0][1]
        if column == "body" and rng.random() < 0.8:
            return bytes([at, 0]) + json_of(rng, [SHARES if places[at][0][0] == "share" else _alarm()])
        text = rng.choice((b"", b"x", b"\xff\xfe", b"\xed\xa0\x80", b"12", b"9" * 400, b"nan", b"v1", b"\x00a", b"{}"))
        whole = struct.pack("<q", rng.choice((0, 1, -1, 2**31, 2**53, 2**63 - 1, -(2**63), T_NS)))
        real = struct.pack("<d", rng.choice((float("inf"), float("-inf"), -1e300, 0.5, 1e19)))
        return bytes([at, kind]) + (text, text, whole, real)[kind]

    yield Opened([b"\x00\x00" + raised().anomaly.to_json().encode()], make, run)
    db.close()
    store.close()


def _value(data: bytes) -> tuple[Any, str]:
    kind, rest = (data[0] if data else 0) % 4, data[1:]
    if kind == 2:
        return int.from_bytes(rest[:8], "little", signed=True) if len(rest) >= 8 else None, "?"
    if kind == 3:
        return struct.unpack("<d", rest[:8].ljust(8, b"\x00"))[0], "?"
    return rest, "CAST(? AS TEXT)" if kind == 0 else "?"


def _alarm() -> Any:
    return json.loads(raised().anomaly.to_json())


@contextmanager
def _texts(_work: Path) -> Iterator[Opened]:
    """What rows hold as JSON; the first byte says which kind. What is read can be written again, and worked with."""
    top = np.array([0.9, 0.5]).astype("<f8").tobytes()
    alarm = _alarm()

    def run(data: bytes) -> None:
        kind, text = (data[0] if data else 0) % 4, data[1:].decode(errors="replace")
        if kind == 0:
            found = Alarm.from_json(text)
            again = found.to_json()
            assert Alarm.from_json(again) == found or "NaN" in again
            row = alarm_row(found)
            json.dumps([row, alarm_object(found, site="s", edge="e", backend="", bank="", model="")])
            _ = found.state, found.level, found.waiting, found.silenced
        elif kind == 1:
            Share.from_row("m", T_NS, text).to_json()
        elif kind == 2:
            probation = Probation.restore(text, top)
            json.dumps(probation.checked(T_NS).facts(T_NS))
            _ = probation.due(T_NS), probation.refined(), probation.body
        else:
            Window.from_json(text).to_json()

    def make(rng: Random) -> bytes:
        kind = rng.randrange(4)
        return bytes([kind]) + json_of(rng, [(alarm, SHARES, PROBATION, WINDOW)[kind]])

    kept = [bytes([n]) + json.dumps(x).encode() for n, x in enumerate((alarm, SHARES, PROBATION, WINDOW))]
    yield Opened(kept, mixed((0.95, make), (0.05, lambda rng: damaged(rng, kept))), run)


@contextmanager
def _file(work: Path) -> Iterator[Opened]:
    """The file itself; the first byte says whether it was closed properly, so that nothing was read through."""
    origin = work / "origin"
    _filled(origin).close()
    closed = (origin / DATABASE).read_bytes()
    with contextlib.closing(sqlite3.connect(origin / DATABASE)) as db:
        db.execute("DELETE FROM meta WHERE key = 'closed'")
        db.commit()
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    killed = (origin / DATABASE).read_bytes()

    def run(data: bytes) -> None:
        folder = work / "state"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        (folder / DATABASE).write_bytes(data)
        refused: FisherError | None = None
        with Store.open(folder, max_outbox_bytes=10**7) as store:
            for look in _looks(store, History(folder)):
                try:
                    look()
                except FisherError as error:
                    refused = error
            try:
                store.commit_alarms("m", [raised().anomaly], 9)
            except FisherError as error:
                refused = error
        if refused is not None:
            raise refused

    kept = [closed, killed]
    yield Opened(kept, lambda rng: damaged(rng, kept), run)


TARGETS = (
    Target("state-row", _rows, share=0.02),
    Target("state-text", _texts),
    Target("state-file", _file, allowed=(BadFile, Unavailable, ConfigError), share=0.005),
)
