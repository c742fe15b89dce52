"""The dashboards ask the database only for what the agent writes, as its own lines in its outbox show it."""

import json
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from fisher_agent.codes import Level, Quality
from fisher_agent.lines import lines
from fisher_agent.report import Names, verdict_points
from fisher_agent.stages import ChannelReading, Verdict
from integration.harness import BASE, Daemon, Hmi, MqttOutlet, Sensors
from integration.small import HERE, ROTOR, T0_NS, small_config, state_db
from servers.mosquitto import Mosquitto

DASHBOARDS = sorted((Path(__file__).parents[2] / "deploy" / "grafana").glob("*.json"))
FLUX = {"_time", "_value", "_measurement", "_field", "_start", "_stop"}  # columns that every table of Flux has
LINE = re.compile(r"(?P<name>\w+)(?P<tags>(?:,\w+=(?:\\.|[^, ])*)+) (?P<fields>\S+) \d+")


@dataclass
class Written:
    """What stands under one measurement."""

    tags: set[str] = field(default_factory=set)
    fields: set[str] = field(default_factory=set)


def read(protocol: list[str]) -> dict[str, Written]:
    found: dict[str, Written] = defaultdict(Written)
    for text in protocol:
        match = LINE.fullmatch(text)
        assert match, text
        written = found[match["name"]]
        written.tags |= set(re.findall(r",(\w+)=", match["tags"]))
        written.fields |= {f.split("=")[0] for f in match["fields"].split(",")}
    return found


def seldom() -> list[str]:
    """What the small machine has no cause for: a learnt fault, a slow value, an embedding's distance."""
    reading = ChannelReading(
        channel="t", distance=0.1, ratio=0.5, contribution=1.0, rms=1.0, peak=1.0, crest=1.0, kurtosis=3.0,
        velocity_rms_mm_s=1.0, flat=False, clipped=False, bands=(1.0,), band_edges_hz=((0.0, 4000.0),),
        peak_band=None,
    )  # fmt: skip
    verdict = Verdict(
        machine="m", t_ns=T0_NS, score=0.5, p_value=0.5, mode=None, running=True, enrolled=True, fault="bearing",
        fault_confidence=1.0, quality=Quality.GOOD, readings=(replace(reading, mean=20.0),), faults={"bearing": 1.0},
    )  # fmt: skip
    points = verdict_points(
        Names("s", "e"), verdict, level=Level.NORMAL, fault_code=1, latency_ms=1.0, statuses={}, inputs={}
    )
    return lines(points)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory, enrolled: Path) -> dict[str, Written]:
    """A real run without a database: an alarm comes, the agent reports on itself, and all of it waits in the outbox."""
    folder = tmp_path_factory.mktemp("dashboards")
    with Mosquitto(folder) as broker:
        nobody = 'url = "http://127.0.0.1:1"\nbucket = "condition"'
        config = small_config(folder / "edge", enrolled=enrolled, broker_port=broker.port, influx=nobody)
        with (
            Hmi(broker.port) as hmi,
            Sensors(MqttOutlet(broker.port), machine=ROTOR) as sensors,
            Daemon(config) as daemon,
        ):
            hmi.wait_for(f"{HERE}/level", lambda p: p == b"0", timeout_s=60)
            sensors.fault_now()
            hmi.wait_for(f"{HERE}/level", lambda p: int(p) >= 2, timeout_s=60)
            hmi.wait_for(f"{BASE}/health", timeout_s=60)  # the point of the agent itself comes with it
            daemon.stop()
    with state_db(config) as db:
        rows = db.execute("SELECT payload FROM outbox WHERE queue = 'influx'").fetchall()
    return read([bytes(row[0]).decode() if isinstance(row[0], bytes) else row[0] for row in rows] + seldom())


def queries() -> Iterator[tuple[str, str]]:
    """(where it stands, query) of every panel and every variable."""
    for path in DASHBOARDS:
        board = json.loads(path.read_text())
        for panel in board["panels"]:
            for target in panel["targets"]:
                yield f"{path.name}: {panel['title']}", target["query"]
        for variable in board["templating"]["list"]:
            if variable["type"] == "query":
                yield f"{path.name}: ${variable['name']}", variable["query"]["query"]


QUERIES = dict(queries())


def test_an_agent_writes_every_measurement_of_the_contract(written: dict[str, Written]) -> None:
    assert written.keys() == {f"fisher_{n}" for n in ("score", "fault", "channel", "band", "alarm", "agent")}


@pytest.mark.parametrize("where", QUERIES)
def test_a_query_names_only_what_is_written(where: str, written: dict[str, Written]) -> None:
    query = QUERIES[where]
    (measurement,) = re.findall(r'r\._measurement == "([^"]*)"', query)
    assert measurement in written
    fields = re.findall(r'r\._field == "([^"]*)"', query)
    assert fields or "schema.tagValues" in query
    assert set(fields) <= written[measurement].fields
    columns = set(re.findall(r"\br\.(\w+)", query)) | set(re.findall(r'tag: "(\w+)"', query))
    for listed in re.findall(r"columns: \[([^\]]*)\]", query):
        columns |= set(re.findall(r'"(\w+)"', listed))
    assert columns - FLUX <= written[measurement].tags


@pytest.mark.parametrize("where", QUERIES)
def test_a_query_is_whole(where: str) -> None:
    query = QUERIES[where]
    for opening, closing in ("()", "[]", "{}"):
        assert query.count(opening) == query.count(closing)
    assert query.count('"') % 2 == 0
    if "schema.tagValues" not in query:
        first, *rest = query.splitlines()
        assert first == 'from(bucket: "${bucket}")'
        assert rest[0] == "  |> range(start: v.timeRangeStart, stop: v.timeRangeStop)"
        assert all(line.startswith("  |> ") for line in rest)


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda p: p.name)
def test_a_dashboard_defines_the_variables_that_it_uses(path: Path) -> None:
    board: dict[str, Any] = json.loads(path.read_text())
    defined = {variable["name"] for variable in board["templating"]["list"]}
    asked = " ".join(query for where, query in QUERIES.items() if where.startswith(path.name))
    assert set(re.findall(r"\$\{(\w+)\}", asked)) == defined


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda p: p.name)
def test_the_panels_of_a_dashboard_do_not_overlap(path: Path) -> None:
    board: dict[str, Any] = json.loads(path.read_text())
    taken: dict[tuple[int, int], str] = {}
    for panel in board["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        for x in range(at["x"], at["x"] + at["w"]):
            for y in range(at["y"], at["y"] + at["h"]):
                assert (x, y) not in taken, f"{panel['title']} lies on {taken[x, y]}"
                taken[x, y] = panel["title"]
    ids = [panel["id"] for panel in board["panels"]]
    assert len(ids) == len(set(ids))


def test_a_name_that_nothing_writes_is_found(written: dict[str, Written]) -> None:
    assert "rms_g" not in written["fisher_channel"].fields
    assert "state" not in written["fisher_alarm"].fields
    assert "mode" not in written["fisher_channel"].tags
