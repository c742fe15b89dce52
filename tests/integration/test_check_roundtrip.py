"""`check --connect` proves each connection: what it sends comes back from a real server, or it says what forbids it."""

import json
from pathlib import Path
from typing import Any

import pytest

from integration.harness import BASE, MACHINE, Daemon, Hmi
from integration.small import call, small_config
from private import private
from servers.influxdb import InfluxDB
from servers.mosquitto import Mosquitto
from servers.process import free_port
from servers.victoria import VictoriaMetrics

ACLS = {
    "everything": "topic readwrite #",
    "no writing": "topic read #",
    "no reading of its own": f"topic write #\ntopic read raw/#\ntopic read {BASE}/+/cmd/+",
    "no commands": f"topic write #\ntopic read raw/#\ntopic read {BASE}/check/#",
}
NOT_BACK = f"mqtt: what was published to {BASE}/check/... did not come back"
NO_COMMANDS = f"mqtt.commands: commands on {BASE}/+/cmd/+ would not arrive"


def listened(config: Path) -> tuple[dict[str, Any], list[str]]:
    """link -> its row; and what is wrong with links (the sensors of these tests are silent)."""
    done = call(config, "check", "--connect", "--seconds", "0.5", "--json")
    assert done.stderr == ""
    document = json.loads(done.stdout)
    problems = [p for p in document["problems"] if not p.startswith(f"{MACHINE}/")]
    assert (done.returncode == 0) == (document["problems"] == [])
    return {row["link"]: row for row in document["links"]}, problems


def with_acl(folder: Path, acl: str) -> Mosquitto:
    (folder / "acl").write_text(f"user fisher\n{acl}\n")
    (folder / "acl").chmod(0o600)
    return Mosquitto(folder, passwords={"fisher": "f"}, extra=f"acl_file {folder}/acl")


@pytest.mark.parametrize("version", ["5", "3.1.1"])
@pytest.mark.parametrize(
    ("acl", "wrong"),
    [
        ("everything", []),
        ("no writing", [NOT_BACK, NO_COMMANDS]),
        ("no reading of its own", [NOT_BACK]),
        ("no commands", [NO_COMMANDS]),
    ],
)
def test_what_the_brokers_acl_allows_is_found_out(tmp_path: Path, acl: str, wrong: list[str], version: str) -> None:
    private(tmp_path / "password", "f")
    login = f'version = "{version}"\nusername = "fisher"\npassword_file = "{tmp_path}/password"'
    with with_acl(tmp_path, ACLS[acl]) as broker:
        config = small_config(tmp_path / "edge", broker_port=broker.port, mqtt=login)
        text = config.read_text().replace("[[sources]]", f"[[sources]]\n{login}")
        config.write_text(text)
        links, problems = listened(config)
    assert [p[: len(w)] for p, w in zip(problems, wrong, strict=True)] == wrong
    assert links["mqtt"]["ok"] == (NOT_BACK not in wrong) and links["mqtt"]["reached"]
    assert links["mqtt.commands"]["ok"] == (NO_COMMANDS not in wrong)
    if not wrong:
        assert "a message came back within" in links["mqtt"]["proof"]


def test_a_check_beside_a_running_daemon_leaves_it_alone(tmp_path: Path, enrolled: Path) -> None:
    with Mosquitto(tmp_path) as broker, Hmi(broker.port) as hmi:
        config = small_config(tmp_path / "edge", enrolled=enrolled, broker_port=broker.port)
        with Daemon(config) as daemon:
            hmi.wait_for(f"{BASE}/alive", lambda p: p == b"1")
            links, problems = listened(config)
            assert problems == [] and links["mqtt.commands"]["ok"]
            assert not [e for e in daemon.events if e["event"] in ("command_refused", "unavailable", "command")]
            assert not [t for t in hmi.heard if t.endswith("/result")]
            assert hmi.last(f"{BASE}/alive") == b"1"


def test_a_point_is_read_back_from_victoriametrics(tmp_path: Path) -> None:
    with Mosquitto(tmp_path) as broker, VictoriaMetrics(tmp_path / "db") as db:
        config = small_config(tmp_path / "edge", broker_port=broker.port, influx=f'url = "{db.url}"')
        links, problems = listened(config)
        stored = db.series('{__name__="fisher_check_value"}')
    assert problems == []
    assert links["influx"]["proof"] == "a point was accepted by v2 and read back by export"
    (series,) = stored
    assert (series["metric"]["site"], len(series["values"])) == ("plant1", 1)


@pytest.mark.parametrize("api", ["v1", "v2"])
def test_a_point_is_read_back_from_influxdb(tmp_path: Path, api: str) -> None:
    """InfluxDB 1.6 has no v2 path, so `auto` chooses v1; what is configured is taken."""
    with Mosquitto(tmp_path) as broker, InfluxDB(tmp_path / "db") as db:
        db.query("CREATE DATABASE plant")
        influx = f'url = "{db.url}"\nbucket = "plant"\napi = "{api}"'
        config = small_config(tmp_path / "edge", broker_port=broker.port, influx=influx)
        links, problems = listened(config)
        rows = db.query("SELECT * FROM fisher_check", db="plant")
    if api == "v1":
        assert problems == [] and len(rows) == 1
        assert links["influx"]["proof"] == "a point was accepted by v1 and read back by InfluxQL"
    else:
        (problem,) = problems
        assert problem.startswith("influx: ") and "404" in problem
        assert links["influx"]["reached"] and rows == []


def test_who_may_only_write_is_told_that_the_point_was_accepted(tmp_path: Path) -> None:
    private(tmp_path / "password", "w")
    with Mosquitto(tmp_path) as broker, InfluxDB(tmp_path / "db", auth=True) as db:
        db.query("CREATE USER root WITH PASSWORD 'r' WITH ALL PRIVILEGES")
        for query in ("CREATE DATABASE plant", "CREATE USER w WITH PASSWORD 'w'", "GRANT WRITE ON plant TO w"):
            db.query(query, user="root", password="r")
        login = f'bucket = "plant"\nusername = "w"\npassword_file = "{tmp_path}/password"'
        config = small_config(tmp_path / "edge", broker_port=broker.port, influx=f'url = "{db.url}"\n{login}')
        links, problems = listened(config)
        assert problems == []
        proof = links["influx"]["proof"]
        assert proof.startswith("a point was accepted by v1 (204), and could not be read back (")
        assert "InfluxQL: " in proof
        private(tmp_path / "password", "wrong")
        links, (problem,) = listened(config)
    assert "401" in problem and "password_file" in problem
    assert not links["influx"]["ok"] and links["influx"]["reached"]


def test_zeromq_is_proven_by_a_message_alone(tmp_path: Path) -> None:
    config = small_config(tmp_path / "edge", source=f"tcp://127.0.0.1:{free_port()}")
    links, (problem,) = listened(config)
    assert "nothing arrived at tcp://127.0.0.1:" in problem and "does the sender run" in problem
    assert not links["sources.plant"]["ok"]


def test_what_was_proven_is_printed(tmp_path: Path) -> None:
    with Mosquitto(tmp_path) as broker:
        config = small_config(tmp_path / "edge", broker_port=broker.port)
        done = call(config, "check", "--connect", "--seconds", "0.5")
    lines = done.stdout.splitlines()
    url = f"mqtt://127.0.0.1:{broker.port}"
    assert any(line.startswith(f"mqtt  {url}  ok: a message came back within ") for line in lines)
    assert f"mqtt.commands  {url}  ok: {BASE}/+/cmd/+ may be subscribed to" in lines
    assert f"sources.plant  {url}  ok: 0 messages in 0.5 s" in lines
