"""What fuzzing found in captures, the page and the state database, each with the smallest input that did it."""

import json
import math
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alarming import raised
from fisher_agent.captures import CaptureFiles
from fisher_agent.errors import BadFile
from fisher_agent.history import History
from fisher_agent.lifecycle import Alarm
from fisher_agent.maintenance import Window
from fisher_agent.page.charts import charts
from fisher_agent.page.evidence import Evidence
from fisher_agent.page.guard import _same
from fisher_agent.probation import Probation
from fisher_agent.rawfiles import npz
from fisher_agent.shares import Share
from fisher_agent.statedb import DATABASE
from fisher_agent.store import Store
from fisher_agent.storerows import Score
from fuzz.targets.state import PROBATION
from pageplant import ask, running_plant, write_capture

DEEP_BEYOND = "[" * 60_000 + "]" * 60_000
T_NS = 1_795_000_000_000_000_000


# -- captures and the page --------------------------------------------------------------------------------------------


def captured(folder: Path, change: Any) -> None:
    write_capture(folder, "mill-01", 7)
    path = folder / "captures" / "mill-01" / "7" / "capture.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def set_first(key: str, value: Any) -> Any:
    return lambda document: document["channels"][0].update({key: value})


@pytest.mark.parametrize(
    "change",
    [
        set_first("scale", 10**400), set_first("scale", math.nan), set_first("rate_hz", 10**400),
        set_first("rate_hz", 5e-324), set_first("t_ns", 2**63), set_first("blocks", [[2**63, 307200, False]]),
        lambda d: d["verdict"].update({"t_ns": "x"}), lambda d: d["verdict"].update({"window_s": math.nan}),
        lambda d: d["verdict"].update({"t_ns": None}), lambda d: d["verdict"].update({"window_s": 1e300}),
    ],
)  # fmt: skip
def test_a_capture_with_an_impossible_number_is_damaged(tmp_path: Path, change: Any) -> None:
    captured(tmp_path, change)
    with pytest.raises(BadFile):
        Evidence(tmp_path).alarmed("mill-01", 7, "vib")
    assert len(CaptureFiles(tmp_path / "captures").rows()) == 1


@pytest.mark.parametrize("nearest", [7, [7], [{"channel": "vib"}], [], None])
def test_what_is_said_of_the_nearest_window_may_be_anything(tmp_path: Path, nearest: Any) -> None:
    captured(tmp_path, lambda d: d["explanation"].update({"nearest": nearest}))
    assert Evidence(tmp_path).nearest("mill-01", 7, "vib").t_ns == 0


def test_the_nearest_window_of_a_channel_that_is_not_there_is_no_defect(tmp_path: Path) -> None:
    captured(tmp_path, lambda d: d["channels"].pop(0))
    with pytest.raises(BadFile, match="no channel"):
        Evidence(tmp_path).nearest("mill-01", 7, "vib")


def test_the_rate_of_a_nearest_window_is_a_rate(tmp_path: Path) -> None:
    files = {"nearest-vib.npz": npz(samples=np.ones(5, np.float32), rate_hz=0.0)}
    document = {
        "schema": "fisher.capture/1", "machine": "m", "alarm": "a", "occurrence": 7, "onset_ns": 0, "raised_ns": 0,
        "text": "", "bank": "", "model": "", "channels": [], "verdict": {}, "explanation": {},
    }  # fmt: skip
    kept = CaptureFiles(tmp_path)
    kept.save("m", "7", document=document, files=files, max_bytes=10**6)
    with pytest.raises(BadFile, match="rate_hz"):
        kept.nearest("m", 7, "vib")


def test_an_origin_that_is_no_address_is_another_one() -> None:
    assert not _same(["http://[::1"], "127.0.0.1")


async def test_what_a_browser_asks_of_occurrences_is_never_a_defect(tmp_path: Path) -> None:
    async with running_plant(tmp_path, machines=1) as plant:
        captured(plant.agent.config.state_dir, lambda d: d["verdict"].update({"score": math.inf}))
        for number in ("9" * 70, "9" * 5000, "%20", "-1", "1e9", "٣"):
            for rest in ("", "/waveform/vib", "/spectrograms/vib"):
                path = f"/api/machines/mill-01/captures/{number}{rest}".replace("٣", "%D9%A3")
                assert (await ask(plant.port, path)).status == 404
        answer = await ask(plant.port, "/api/machines/mill-01/captures/7")
        assert answer.json["verdict"]["score"] is None
        headers = {"Content-Type": "application/json", "X-Fisher": "1", "Origin": "http://[::1"}
        assert (await ask(plant.port, "/api/logout", method="POST", headers=headers)).status == 403


# -- the state database -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("score", "x"), ("score", []), ("occurrence", 2**70), ("occurrence", 1.5), ("acked", "yes"), ("alarm", 9),
        ("top_share", {}), ("shelved_until", "1"), ("score", 10**400), ("base", 7.5), ("by", None),
    ],
)  # fmt: skip
def test_a_stored_alarm_with_a_value_of_another_type_is_no_alarm(key: str, value: Any) -> None:
    document = json.loads(raised().anomaly.to_json())
    assert Alarm.from_json(json.dumps(document)) == raised().anomaly
    with pytest.raises(BadFile, match="not an alarm"):
        Alarm.from_json(json.dumps({**document, key: value}))
    with pytest.raises(BadFile, match="not an alarm"):
        Alarm.from_json(DEEP_BEYOND)


def test_one_damaged_row_of_the_journal_does_not_keep_the_agent_from_starting(tmp_path: Path) -> None:
    with Store.open(tmp_path, max_outbox_bytes=10**6) as store:
        store.commit_alarms("m", [raised().anomaly], 3)
        change(tmp_path, "UPDATE journal SET body = '{}'")
        assert store.raised_since(0) == []
        assert store.journal("m") == []
        assert ["cannot be read and is left out" in note for note in store.notes] == [True]


def change(folder: Path, statement: str, *values: Any) -> None:
    with closing(sqlite3.connect(folder / DATABASE)) as db, db:
        db.execute(statement, values)


@pytest.mark.parametrize("value", ["CAST(x'fffe' AS TEXT)", "x'ff'", "'x'", "1e300"])
def test_a_time_that_is_no_number_does_not_make_the_history_endless(tmp_path: Path, value: str) -> None:
    with Store.open(tmp_path, max_outbox_bytes=10**6) as store:
        store.add_scores([Score("m", T_NS + n, 0.5, 0.5, 0, 0, 0) for n in range(3)])
        change(tmp_path, f"UPDATE score SET t_ns = {value} WHERE id = 2")
        assert [past.t_ns for past in store.past("m", 0)] == [T_NS, T_NS + 2]


def test_rows_of_other_types_stop_neither_the_outbox_nor_an_alarm(tmp_path: Path) -> None:
    with Store.open(tmp_path, max_outbox_bytes=10**6) as store:
        store.commit_alarms("m", [raised().anomaly], 3)
        for table, column in (("machine", "occurrence"), ("alarm", "body")):
            change(tmp_path, f"UPDATE {table} SET {column} = CAST(x'fffe' AS TEXT)")
        assert store.load_alarms("m") == ([], 0)
        change(tmp_path, "INSERT INTO outbox VALUES (1, 'influx', 0, '', 0, 0, CAST(x'fffe' AS TEXT), 2)")
        change(tmp_path, "INSERT INTO outbox VALUES (2, 'mqtt', 0, x'ff', 2147483648, 0, 'x', 2)")
        assert store.peek("influx", 9) == [(1, "\ufffd\ufffd")]
        ((_, message),) = store.peek("mqtt", 9)
        assert (message.topic, message.qos, message.payload) == ("\ufffd", 0, b"x")


@pytest.mark.parametrize("value", ["-9e999", "9e999", "'x'", "x'ff'"])
def test_the_ends_of_a_history_are_times(tmp_path: Path, value: str) -> None:
    with Store.open(tmp_path, max_outbox_bytes=10**6) as store:
        store.add_scores([Score("m", T_NS, 0.5, 0.5, 0, 0, 0)])
        change(tmp_path, f"UPDATE score SET t_ns = {value}")
        assert (History(tmp_path).latest_ns("m"), History(tmp_path).earliest_ns("m")) == (0, 0)


def test_a_schema_whose_damage_sqlite_cannot_name_in_utf_8_is_set_aside(tmp_path: Path) -> None:
    """UnicodeDecodeError from sqlite3 itself, at every start."""
    with Store.open(tmp_path, max_outbox_bytes=10**6) as store:
        store.fault_code("m", "bearing")
    with closing(sqlite3.connect(tmp_path / DATABASE)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    body = (tmp_path / DATABASE).read_bytes()
    name = body.index(b"tablefaultfault") + len(b"table")
    (tmp_path / DATABASE).write_bytes(
        body[:name] + b"fau\xfbt" + body[name + 5 :].replace(b"CREATE TABLE fault", b"CREATE TABL\xff fault")
    )
    with Store.open(tmp_path, max_outbox_bytes=10**6) as store:
        assert "was damaged" in store.notes[0]


def test_a_counter_that_is_endless_and_a_code_that_cannot_be_given_are_no_defects(tmp_path: Path) -> None:
    with Store.open(tmp_path, max_outbox_bytes=10**6) as store:
        change(tmp_path, "UPDATE counter SET value = 9e999 WHERE name = 'bytes'")
        assert store.outbox_bytes > 10**6
        change(
            tmp_path, "CREATE TRIGGER lost AFTER INSERT ON fault BEGIN DELETE FROM fault; END"
        )  # as a broken index does
        with pytest.raises(BadFile, match="start the agent again"):
            store.fault_code("m", "bearing")
    assert (tmp_path / "state.db.suspect").exists()


@pytest.mark.parametrize("lost", ["", " WHERE name = 'held'", " WHERE queue = 'mqtt'"])
def test_counters_that_are_lost_are_damage(tmp_path: Path, lost: str) -> None:
    with Store.open(tmp_path, max_outbox_bytes=10**6) as store:
        change(tmp_path, f"DELETE FROM counter{lost}")
        assert store.outbox_bytes == 0
        with pytest.raises(BadFile, match="counters of mqtt are lost; start the agent again"):
            store.counters("mqtt")
    with Store.open(tmp_path, max_outbox_bytes=10**6) as store:
        assert "was damaged" in store.notes[0]
        assert store.counters("mqtt").held == 0


@pytest.mark.parametrize(("column", "value"), [("score", "'x'"), ("score", "9e999"), ("level", "9e999")])
def test_a_score_that_is_no_number_does_not_hide_the_chart(tmp_path: Path, column: str, value: str) -> None:
    with Store.open(tmp_path, max_outbox_bytes=10**6) as store:
        store.add_scores([Score("m", T_NS + n * 10**9, 0.5, 0.5, 0, 0, 0) for n in range(20)])
        change(tmp_path, f"UPDATE score SET {column} = {value} WHERE id = 3")
        made = charts(History(tmp_path), "m", until_ns=T_NS + 20 * 10**9, span_ns=20 * 10**9, points=20)
        assert 0.5 in json.loads(json.dumps(made, allow_nan=False))["scores"]["high"]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("per_h", 5e-324), ("limit", [1]), ("windows", 0), ("m", "5"), ("recent", ["x"]), ("pending", [[1]]),
        ("step_s", []), ("margin_limit", math.nan), ("since_s", 1e300), ("count", 10**400), ("least_apart", 0),
        ("spoilt", 1), ("bank", 7), ("limit", math.inf),
    ],
)  # fmt: skip
def test_a_stored_probation_that_cannot_be_begins_anew(key: str, value: Any) -> None:
    top = np.array([0.9, 0.5]).astype("<f8").tobytes()
    assert Probation.restore(json.dumps(PROBATION), top).facts(T_NS)
    with pytest.raises(BadFile, match="not a probation"):
        Probation.restore(json.dumps({**PROBATION, key: value}), top)


def test_maxima_that_are_out_of_order_are_no_probation() -> None:
    for maxima in ([0.5, 0.9], [math.inf, 0.5], [0.9, math.nan]):
        with pytest.raises(BadFile, match="not a probation"):
            Probation.restore(json.dumps(PROBATION), np.array(maxima).astype("<f8").tobytes())


@pytest.mark.parametrize("body", ['{"c":{"a":"x"},"b":{}}', '{"c":{"a":1' + "0" * 400 + '},"b":{}}', DEEP_BEYOND, "{}"])
def test_a_row_of_shares_without_numbers_is_none(body: str) -> None:
    with pytest.raises(BadFile, match="not a row of shares"):
        Share.from_row("m", T_NS, body)


@pytest.mark.parametrize("until", ["1e400", '"x"', "1" + "0" * 400, "null", "1.5"])
def test_a_maintenance_without_a_time_is_none(until: str) -> None:
    with pytest.raises(BadFile, match="no maintenance"):
        Window.from_json(f'{{"since_ms":0,"until_ms":{until},"by":""}}')
