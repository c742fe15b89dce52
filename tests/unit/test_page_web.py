"""The page over its real server: what it shows, live, and what an operator can do; a real agent behind it."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Self

import pytest

from fisher_agent import operators
from fisher_agent.codes import State
from fisher_agent.commands import Command
from fisher_agent.page import web
from fisher_agent.page.feed import Feed, Snapshot
from fisher_agent.runtime import Agent
from pageplant import Plant, ask, post, running_plant, write_capture

MILL = "mill-01"


@pytest.fixture
async def plant(tmp_path: Path) -> AsyncIterator[Plant]:
    async with running_plant(tmp_path) as running:
        yield running


# -- what it shows ----------------------------------------------------------------------------------------------------


async def test_the_overview_shows_each_machine(plant: Plant) -> None:
    await plant.hop({MILL: 0.42})
    shown = (await ask(plant.port, "/api/overview")).json
    assert shown["agent"]["status"] == "online"
    mill = shown["machines"][MILL]
    assert (mill["level_name"], mill["score"], mill["running"], mill["stale"]) == ("normal", 0.42, True, False)
    assert mill["channels"] == {"vib": "ok", "cur": "ok", "mic": "ok"}
    other = shown["machines"]["mill-02"]
    assert (other["level_name"], other["score"]) == ("unknown", None)


async def test_a_verdict_that_is_old_is_shown_as_stale(plant: Plant) -> None:
    await plant.hop({MILL: 0.42})
    live = plant.agent.machines[MILL]
    assert not (await ask(plant.port, "/api/overview")).json["machines"][MILL]["stale"]
    live.judged_s -= 86400 + 20  # the channels' own patience, and what a verdict may take
    assert (await ask(plant.port, "/api/overview")).json["machines"][MILL]["stale"]


async def test_numbers_that_json_cannot_hold_are_null(plant: Plant) -> None:
    await plant.hop({MILL: float("inf")})
    assert (await ask(plant.port, "/api/overview")).json["machines"][MILL]["score"] is None


async def test_charts_hold_scores_and_shares(plant: Plant) -> None:
    for n in range(20):
        await plant.hop({MILL: 0.5 + (n == 7)})
    charts = (await ask(plant.port, f"/api/machines/{MILL}/charts?span_s=600&points=10")).json
    scores = charts["scores"]
    assert len(scores["t"]) <= 11
    assert max(s for s in scores["high"] if s is not None) == 1.5, "the peak must survive the thinning"
    assert set(charts["shares"]["channels"]) == {"vib", "cur", "mic"}
    assert [(b["channel"], b["band"]) for b in charts["shares"]["bands"] if b["channel"] == "vib"] == [
        ("vib", "0-4000"), ("vib", "4000-8000"),
    ]  # fmt: skip
    assert all(len(b["values"]) == len(charts["shares"]["t"]) for b in charts["shares"]["bands"])


@pytest.mark.parametrize("query", ["span_s=1", "span_s=99999999", "points=2", "points=9999", "span_s=x", "span_s=-5",
                                   "span_s=1e3", "until=99999999999999999999", "span_s=%00"])  # fmt: skip
async def test_what_is_asked_is_bounded(plant: Plant, query: str) -> None:
    assert (await ask(plant.port, f"/api/machines/{MILL}/charts?{query}")).status == 400


async def test_an_unknown_machine_is_not_there(plant: Plant) -> None:
    for path in ("charts", "journal", "captures", "captures/1", "captures/1/waveform/vib"):
        assert (await ask(plant.port, f"/api/machines/mill-99/{path}")).status == 404
        assert (await ask(plant.port, f"/api/machines/..%2f..%2fstate/{path}")).status == 404


async def test_trends_of_all_machines_come_at_once(plant: Plant) -> None:
    for _ in range(30):
        await plant.hop(dict.fromkeys(plant.machines, 0.5))
    trends = (await ask(plant.port, "/api/trends")).json
    assert set(trends) == set(plant.machines)
    assert all(3 <= len(points) <= 5 for points in trends.values()), "75 s of an hour in 120 points"


async def test_words_from_outside_travel_as_json_and_never_as_html(plant: Plant) -> None:
    evil = "<img src=x onerror=alert(1)>"
    occurrence = await plant.raise_alarm(MILL)
    path = f"/api/machines/{MILL}/commands/ack"
    answer = await post(plant.port, path, {"occurrence": occurrence, "by": evil, "comment": evil})
    assert answer.status == 200
    shown = await ask(plant.port, "/api/overview")
    assert shown.json["alarms"][MILL][0]["comment"] == evil
    assert shown.headers["content-type"] == ["application/json"]
    journal = await ask(plant.port, f"/api/machines/{MILL}/journal")
    assert journal.json[0]["by"] == evil
    assert journal.headers["content-type"] == ["application/json"]


def test_no_script_ever_parses_html() -> None:
    """Trusted Types end it in a browser; this names the line."""
    for script in web.STATIC.glob("*.js"):
        found = re.findall(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function", script.read_text()
        )
        assert not found, f"{script.name}: {found}"
    for page in web.STATIC.glob("*.html"):
        text = page.read_text()
        assert not re.search(r"<script(?![^>]*src=)|<style|\son\w+=|style=", text), page.name
        assert not re.search(r'(?:src|href)="(?!/static/|#/)', text), f"{page.name} reaches outside"


# -- live -------------------------------------------------------------------------------------------------------------


class Stream:
    """A browser's event source."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def __aenter__(self) -> Self:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._writer.write(f"GET /api/live HTTP/1.1\r\nHost: 127.0.0.1:{self._port}\r\n\r\n".encode())
        self.head = await self._reader.readuntil(b"\r\n\r\n")
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._writer.close()

    async def event(self) -> tuple[str, Any]:
        async with asyncio.timeout(10):
            while not (line := await self._reader.readline()).startswith(b"event: "):
                assert line, "the stream ended"
            data = await self._reader.readline()
        return line.decode().split()[1], json.loads(data.removeprefix(b"data: "))


async def test_the_stream_begins_with_everything_and_goes_on_with_changes(plant: Plant) -> None:
    await plant.hop({MILL: 0.5})
    async with Stream(plant.port) as stream:
        assert b"text/event-stream" in stream.head
        kind, everything = await stream.event()
        assert kind == "all" and set(everything["machines"]) == set(plant.machines)
        await plant.hop({MILL: 0.6})
        while not (changed := await stream.event())[1].get("machines"):
            pass
        assert changed[0] == "some"
        assert set(changed[1]["machines"]) == {MILL}, "only what changed is sent"
        assert changed[1]["machines"][MILL]["score"] == 0.6


async def test_nothing_is_computed_while_nobody_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    feeds: list[Feed] = []
    taken = 0

    class Fast(Feed):
        """Pushes every hundredth of a second, and can be found."""

        def __init__(self, snapshot: Callable[[], Snapshot]) -> None:
            def counted() -> Snapshot:
                nonlocal taken
                taken += 1
                return snapshot()

            super().__init__(counted, push_s=0.01)
            feeds.append(self)

    monkeypatch.setattr(web, "Feed", Fast)
    async with running_plant(tmp_path) as plant:
        (feed,) = feeds
        assert taken == 0
        async with Stream(plant.port) as stream:
            await stream.event()
            await stream.event()
            assert feed.watched == 1
        async with asyncio.timeout(10):
            while feed.watched:
                await asyncio.sleep(0.01)
        before = taken
        await asyncio.sleep(0.1)
        assert before <= taken <= before + 1, "a push that was under way may end"


# -- what an operator does --------------------------------------------------------------------------------------------


async def test_an_operator_acknowledges(plant: Plant) -> None:
    occurrence = await plant.raise_alarm(MILL)
    path = f"/api/machines/{MILL}/commands/ack"
    assert (await post(plant.port, path, {"occurrence": occurrence, "by": "mia", "comment": "seen"})).status == 200
    alarm = plant.agent.machines[MILL].alarms.anomaly
    assert (alarm.state, alarm.by, alarm.comment) == (State.ACKED, "mia", "seen")
    again = await post(plant.port, path, {"occurrence": occurrence + 1})
    assert again.status == 409 and "not the latest" in again.json["error"]
    assert (await post(plant.port, path, {})).status == 409, "an ack that names no occurrence is refused"
    assert (await post(plant.port, path, {"occurrence": True})).status == 409


async def test_a_verb_that_is_not_there_is_refused(plant: Plant) -> None:
    for verb in ("explode", "forget", "rollback", "__class__"):
        answer = await post(plant.port, f"/api/machines/{MILL}/commands/{verb}", {"occurrence": 1})
        assert answer.status == 409 and "not offered" in answer.json["error"]
    answer = await post(plant.port, f"/api/machines/{MILL}/commands/unshelve", {"occurrence": 1})
    assert answer.status == 409 and "is not the latest" in answer.json["error"]


async def test_a_shelf_has_an_end(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[Command] = []

    async def shelve(_agent: Agent, command: Command, _via: str) -> str:
        heard.append(command)
        return ""

    monkeypatch.setitem(operators.VERBS, "shelve", shelve)
    path = f"/api/machines/{MILL}/commands/shelve"
    for for_s in (None, 0, -5, 59, 10**9, "600", 1.5, True):
        assert (await post(plant.port, path, {"occurrence": 1, "for_s": for_s})).status == 409
    assert (await post(plant.port, path, {"occurrence": 1, "for_s": 600})).status == 200
    (command,) = heard
    assert command.until_ms - command.ts_ms >= 600_000 or command.until_ms > 1_700_000_000_000
    assert command.by == "page"


async def test_an_enrolment_shows_how_far_it_is_and_can_be_stopped(plant: Plant) -> None:
    here = f"/api/machines/{MILL}"
    assert (await post(plant.port, f"{here}/enroll", {"duration_s": 60, "mode": "slow"})).status == 200
    again = await post(plant.port, f"{here}/enroll", {"duration_s": 60})
    assert again.status == 409 and "already" in again.json["error"]
    shown = (await ask(plant.port, "/api/overview")).json["enrolling"][MILL]
    assert (shown["phase"], shown["total"], shown["mode"]) == ("listening", 60, "slow")
    assert (await post(plant.port, f"{here}/enroll-stop", {})).status == 200
    await asyncio.sleep(0)
    assert (await ask(plant.port, "/api/overview")).json["enrolling"][MILL]["phase"] == "stopped"
    assert plant.agent.recordings[MILL] == []
    assert (await post(plant.port, f"{here}/enroll-stop", {})).status == 409


@pytest.mark.parametrize(
    "document",
    [{}, {"duration_s": 1}, {"duration_s": "60"}, {"duration_s": 10**9}, {"duration_s": 60, "mode": "a b"},
     {"duration_s": 60, "fault": "<b>"}, {"duration_s": 60, "mode": "x" * 49}, {"duration_s": 60, "mode": 5}],
)  # fmt: skip
async def test_a_wrong_enrolment_is_refused(plant: Plant, document: dict[str, Any]) -> None:
    assert (await post(plant.port, f"/api/machines/{MILL}/enroll", document)).status == 409
    assert not plant.agent.recordings.get(MILL)


# -- evidence ---------------------------------------------------------------------------------------------------------


async def test_an_alarm_comes_with_its_evidence(plant: Plant) -> None:
    write_capture(plant.agent.config.state_dir, MILL, 1)
    here = f"/api/machines/{MILL}/captures"
    assert (await ask(plant.port, here)).json == [1]
    assert (await ask(plant.port, f"{here}/1")).json["explanation"]["top_channel"] == "vib"
    spectra = (await ask(plant.port, f"{here}/1/spectrograms/vib")).json
    assert set(spectra["panels"]) == {"alarmed", "nearest"} and spectra["missing"] == {}
    assert abs(spectra["panels"]["alarmed"]["seconds"] - 5.0) < 0.01, "the window, not the whole capture"
    wave = (await ask(plant.port, f"{here}/1/waveform/vib")).json
    assert (len(wave["low"]), wave["seconds"], wave["unit"]) == (web.WAVE_COLUMNS, 12.0, "g")


async def test_what_is_missing_of_the_evidence_is_named(plant: Plant) -> None:
    folder = write_capture(plant.agent.config.state_dir, MILL, 1)
    here = f"/api/machines/{MILL}/captures"
    missing = await ask(plant.port, f"{here}/2")
    assert missing.status == 404 and "is no capture" in missing.json["error"]
    silent = await ask(plant.port, f"{here}/1/waveform/mic")
    assert silent.status == 404 and "holds no channel 'mic'" in silent.json["error"]
    alone = (await ask(plant.port, f"{here}/1/spectrograms/cur")).json
    assert set(alone["panels"]) == {"alarmed"}
    assert "no enrolled window of cur" in alone["missing"]["nearest"]
    (folder / "nearest-vib.npz").unlink()
    assert "nearest" in (await ask(plant.port, f"{here}/1/spectrograms/vib")).json["missing"]
    (folder / "capture.json").write_text("{}")
    assert "is no capture" in (await ask(plant.port, f"{here}/1")).json["error"]


async def test_a_capture_cannot_name_a_file_elsewhere(plant: Plant, tmp_path: Path) -> None:
    folder = write_capture(plant.agent.config.state_dir, MILL, 1)
    document = json.loads((folder / "capture.json").read_text())
    for name in ("../../../../secret.npz", str(tmp_path / "secret.npz"), "..", "", None, 5, ".hidden"):
        document["channels"][0]["file"] = name
        (folder / "capture.json").write_text(json.dumps(document))
        answer = await ask(plant.port, f"/api/machines/{MILL}/captures/1/waveform/vib")
        assert answer.status == 404 and "is damaged" in answer.json["error"]
