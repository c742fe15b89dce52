"""A database that accepts points and keeps none is found out where queries are allowed; elsewhere that is said."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from chaos.gateway import Gateway
from integration.harness import Daemon
from integration.small import call, small_config
from servers.influxdb import InfluxDB
from servers.mosquitto import Mosquitto
from servers.victoria import VictoriaMetrics

OFTEN = "prove_every_s = 1.0\ntimeout_s = 2.0"


def status_until(config: Path, is_so: Callable[[dict[str, Any]], bool], *, within_s: float = 60.0) -> dict[str, Any]:
    deadline = time.monotonic() + within_s
    while True:
        said: dict[str, Any] = json.loads(call(config, "status", "--json").stdout)
        if is_so(said):
            return said
        assert time.monotonic() < deadline, said
        time.sleep(0.5)


def proven(said: dict[str, Any]) -> bool:
    return "was read back by export" in said["proofs"].get("influx", "")


def test_a_database_that_lies_is_found_out_and_trusted_again_when_it_keeps_what_it_takes(tmp_path: Path) -> None:
    with Mosquitto(tmp_path) as broker, VictoriaMetrics(tmp_path / "db") as db, Gateway(db.port) as way:
        influx = f'url = "http://127.0.0.1:{way.port}"\nbucket = "condition"\n{OFTEN}'
        config = small_config(tmp_path, broker_port=broker.port, influx=influx)
        with Daemon(config) as daemon:
            status_until(config, proven)
            way.answer(204, only="/write")
            said = status_until(config, lambda s: "link influx" in s["degraded"])
            why = said["degraded"]["link influx"]
            assert why.startswith(f"http://127.0.0.1:{way.port} accepts points and does not show them within 10 s")
            assert "what was written since 20" in why
            assert said["links"]["influx"], "it is connected all the same"
            daemon.wait_for_event("database_proof", level="error")
            assert "degraded: link influx: http" in call(config, "status").stdout
            way.open()
            said = status_until(config, proven)
            assert "link influx" not in said["degraded"]


def test_where_no_query_is_allowed_the_status_says_that_a_lie_would_not_be_noticed(tmp_path: Path) -> None:
    with Mosquitto(tmp_path) as broker, VictoriaMetrics(tmp_path / "db") as db, Gateway(db.port) as way:
        way.answer(403, only="/api/v1/export")
        influx = f'url = "http://127.0.0.1:{way.port}"\nbucket = "condition"\n{OFTEN}'
        config = small_config(tmp_path, broker_port=broker.port, influx=influx)
        with Daemon(config):
            said = status_until(config, lambda s: "influx" in s["proofs"])
            assert "a database that loses what it accepts would not be noticed" in said["proofs"]["influx"]
            assert "export: 403" in said["proofs"]["influx"]
            assert "link influx" not in said["degraded"]
            assert "influx: a point cannot be read back" in call(config, "status").stdout


def test_a_database_that_is_down_is_no_liar(tmp_path: Path) -> None:
    with Mosquitto(tmp_path) as broker, InfluxDB(tmp_path / "db") as db, Gateway(db.port) as way:
        db.query("CREATE DATABASE condition")
        influx = f'url = "http://127.0.0.1:{way.port}"\nbucket = "condition"\n{OFTEN}'
        config = small_config(tmp_path, broker_port=broker.port, influx=influx)
        with Daemon(config) as daemon:
            status_until(config, lambda s: "was read back by InfluxQL" in s["proofs"].get("influx", ""))
            way.cut()
            status_until(config, lambda s: not s["links"]["influx"])
            time.sleep(5)
            way.open()
            said = status_until(config, lambda s: s["links"]["influx"])
            assert "accepts points and does not show" not in str(said["degraded"])
            assert not [e for e in daemon.events if e["event"] == "database_proof" and e["level"] == "error"]
