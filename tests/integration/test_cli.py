"""The commands, with a daemon and without one: the same words, the same results, no traceback."""

import argparse
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fisher_agent.cli import parser
from fisher_agent.configfile import parse
from integration.harness import BASE, EDGE, MACHINE, SITE, Daemon, Hmi, MqttOutlet, Sensors, cli
from integration.small import HERE, ROTOR, SMALL, call, call_json, record, small_config
from servers.mosquitto import Mosquitto
from servers.process import free_port

NOWHERE = "mqtt://127.0.0.1:1"
ONCE = "--occurrence"


def verbs() -> dict[str, argparse.ArgumentParser]:
    found = next(a for a in parser()._actions if isinstance(a, argparse._SubParsersAction))
    return dict(found.choices)


def says(config: Path, *arguments: str | Path, code: int = 0) -> str:
    """What a command prints, which must end with this code."""
    done = call(config, *arguments)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stderr if code else done.stdout


# -- the command line itself -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["", *verbs()])
def test_every_command_explains_itself(verb: str, tmp_path: Path) -> None:
    said = says(tmp_path, *([verb] if verb else []), "--help")
    assert said.startswith("usage: fisher-agent")


@pytest.mark.parametrize(
    "arguments", [[], ["fly"], ["enroll"], ["score"], ["ack", "--machine", "m"], ["run", "--fast"]]
)
def test_a_wrong_command_line_ends_with_2(arguments: list[str], tmp_path: Path) -> None:
    assert "usage: fisher-agent" in says(tmp_path, *arguments, code=2)


def test_the_command_says_which_release_it_is(tmp_path: Path) -> None:
    assert says(tmp_path, "--version") == f"fisher-agent {version('fisher-agent')}\n"


@pytest.mark.parametrize("text", ["ten", "-5", "0", "5d", ""])
def test_a_duration_that_is_none_ends_with_2(text: str, tmp_path: Path) -> None:
    assert "is not a duration" in says(tmp_path, "enroll", "--machine", "m", f"--duration={text}", code=2)


def test_init_writes_a_commented_configuration_once(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    shown = says(path, "init")
    assert parse(shown).machines and shown.count("# ") > 50
    assert says(path, "init", "--output", path) == ""
    assert path.read_text() == shown
    path.write_text("mine")
    assert "exists already" in says(path, "init", "--output", path, code=2)
    assert path.read_text() == "mine"
    assert "cannot be written" in says(path, "init", "--output", tmp_path / "none" / "config.toml", code=2)


def test_what_init_writes_passes_a_check(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(f'state_dir = "{tmp_path}/state"\n' + says(path, "init"))
    assert says(path, "check").endswith("no problems found\n")


def test_a_command_without_a_configuration_says_where_it_looked(tmp_path: Path) -> None:
    for verb in ("status", "machines", "alarms", "topics", "banks"):
        assert str(tmp_path / "no.toml") in says(tmp_path / "no.toml", verb, code=2)


# -- banks, alarms, status: beside a daemon and without one ------------------------------------------------------------


@contextmanager
def perhaps(config: Path, *, daemon: bool) -> Iterator[None]:
    if not daemon:
        yield
        return
    with Daemon(config):
        yield


@pytest.mark.parametrize("daemon", [False, True], ids=["alone", "daemon"])
def test_banks_are_listed_rebuilt_rolled_back_and_forgotten(tmp_path: Path, enrolled: Path, daemon: bool) -> None:
    config = small_config(tmp_path, enrolled=enrolled, source=NOWHERE)
    with perhaps(config, daemon=daemon):
        (first,) = call_json(config, "banks")
        assert (first["machine"], first["active"], first["bundle"]) == (MACHINE, True, "fisher-tiny")
        assert f"{MACHINE}  {first['version']} (active)" in says(config, "banks")
        later = record(tmp_path / "later.npz", seconds=6, start_s=60)
        scores = [r["score"] for r in call_json(config, "score", "--machine", MACHINE, later)]
        (row,) = call_json(config, "machines")
        assert (row["machine"], row["channels"], row["bank"]) == (MACHINE, ["vib"], first["version"])
        assert row["probation"] == ("probation, 7.0 days left" if daemon else "")
        assert "nothing to roll back to" in says(config, "rollback", "--machine", MACHINE, code=2)

        assert "is judged by v" in says(config, "banks", "rebuild")
        versions = {b["version"]: b["active"] for b in call_json(config, "banks", "--machine", MACHINE)}
        assert len(versions) == 2 and versions[first["version"]] is False
        again = call_json(config, "score", "--machine", MACHINE, later)
        assert [r["score"] for r in again] == pytest.approx(scores, abs=1e-4)
        assert first["version"] in says(config, "rollback", "--machine", MACHINE)
        assert call_json(config, "machines")[0]["bank"] == first["version"]

        assert "is deleted" in says(config, "forget", "--machine", MACHINE)
        assert call_json(config, "banks") == []
        assert "no banks yet" in says(config, "banks")
        assert "not enrolled" in says(config, "machines")
        assert says(config, "banks", "rebuild") == "no machine is enrolled; nothing to rebuild\n"
        assert "has no bank to rebuild" in says(config, "banks", "rebuild", "--machine", MACHINE, code=1)
        assert "enroll" in says(config, "score", "--machine", MACHINE, enrolled.parent / "normal.npz", code=1)
        assert says(config, "alarms") == "no alarm was ever raised\n"
        assert "was never raised" in says(config, "ack", "--machine", MACHINE, "--occurrence", "7", code=2)
        if daemon:
            found = call_json(config, "status")["machines"][MACHINE]
            assert (found["enrolled"], found["level"]) == (False, "unknown")
            assert "not enrolled" in says(config, "status")
        else:
            assert "no daemon runs on" in says(config, "status", code=3)


@pytest.mark.parametrize("daemon", [False, True], ids=["alone", "daemon"])
def test_normal_running_and_a_fault_are_learnt_from_files_and_recognised(
    tmp_path: Path, enrolled: Path, daemon: bool
) -> None:
    config = small_config(tmp_path, source=NOWHERE)
    normal = enrolled.parent / "normal.npz"
    faulty = record(tmp_path / "fault.npz", start_s=100, seconds=30, fault_from_s=90)
    other = record(tmp_path / "other.npz", start_s=200, seconds=10, fault_from_s=190)
    quiet = record(tmp_path / "quiet.npz", start_s=60, seconds=10)
    with perhaps(config, daemon=daemon):
        assert "has no usable bank" in says(
            config, "enroll", "--machine", MACHINE, "--fault", "outer-race", "--from", faulty, code=1
        )
        assert "79 windows" in says(config, "enroll", "--machine", MACHINE, "--from", normal)
        report = call_json(config, "enroll", "--machine", MACHINE, "--fault", "outer-race", "--from", faulty)
        assert set(report) == {"bank", "report"}
        (listed,) = [b for b in call_json(config, "banks") if b["active"]]
        assert (listed["version"], listed["faults"]) == (report["bank"], ["outer-race"])

        rows = call_json(config, "score", "--machine", MACHINE, other)
        over = [r for r in rows if r["score"] >= 1]
        assert len(over) > len(rows) / 2
        assert {r["fault"] for r in over[-5:]} == {"outer-race"}
        assert all(r["top_channel"] == "vib" and len(r["top_band_hz"]) == 2 for r in over)
        assert sum(r["score"] >= 1 for r in call_json(config, "score", "--machine", MACHINE, quiet)) <= 1
        assert "windows, " in says(config, "score", "--machine", MACHINE, quiet).splitlines()[-1]
        short = record(tmp_path / "short.npz", seconds=3)
        assert "enrol for" in says(config, "enroll", "--machine", MACHINE, "--from", short, code=1)
        off = tmp_path / "off.npz"
        np.savez(off, vib=np.float32(0.001) * np.random.default_rng(1).normal(size=240_000), rate_hz=8000.0)
        assert "does not run" in says(config, "enroll", "--machine", MACHINE, "--from", off, code=1)
        assert [b["version"] for b in call_json(config, "banks") if b["active"]] == [report["bank"]]


def test_files_that_are_no_recordings_end_with_2(tmp_path: Path, enrolled: Path) -> None:
    config = small_config(tmp_path, enrolled=enrolled, source=NOWHERE)
    (tmp_path / "a.npz").write_bytes(b"PK\x03\x04 cut")
    (tmp_path / "b.txt").write_text("text")
    (tmp_path / "c.wav").write_bytes(b"RIFF")
    for name, why in (
        ("a.npz", "not a readable npz"),
        ("b.txt", "no known format"),
        ("c.wav", "wav"),
        ("d.wav", "exist"),
    ):
        for verb in (("score",), ("enroll", "--from")):
            arguments = ("--machine", MACHINE, *verb[1:], tmp_path / name)
            assert why in says(config, verb[0], *arguments, code=2)


def test_an_alarm_is_listed_and_acknowledged_beside_a_daemon_and_without(tmp_path: Path, enrolled: Path) -> None:
    with Mosquitto(tmp_path) as broker, Hmi(broker.port) as hmi:
        machines = SMALL + "stale_s = 3600\n[machines.alarm]\non_delay_windows = 2\n"
        config = small_config(tmp_path / "edge", enrolled=enrolled, broker_port=broker.port, machines=machines)
        with Daemon(config):
            with Sensors(MqttOutlet(broker.port), machine=ROTOR) as sensors:
                hmi.wait_for(f"{HERE}/score")
                sensors.fault_now()
                occurrence = hmi.wait_for_json(f"{HERE}/event")["occurrence"]
            beside = call_json(config, "alarms")
            assert beside[0]["alarm"] == "anomaly" and beside[0]["state"] == "UNACK"
            wrong = ("ack", "--machine", MACHINE, ONCE, "99")
            assert "is not the latest" in says(config, *wrong, code=2)
        # The text holds the score, which went on after the transition that was stored; the capture came at the end.
        moving = {"text": "", "capture": ""}
        assert [r | moving for r in call_json(config, "alarms")] == [r | moving for r in beside]
        assert f"{MACHINE}/anomaly  UNACK  occurrence {occurrence}" in says(config, "alarms")
        assert "is not the latest" in says(config, *wrong, code=2)
        assert "has no alarm 'fire'" in says(
            config, "ack", "--machine", MACHINE, "--alarm", "fire", ONCE, str(occurrence), code=2
        )
        done = ("ack", "--machine", MACHINE, ONCE, str(occurrence), "--by", "anna")
        assert "is acknowledged" in says(config, *done)
        events = hmi.count(f"{HERE}/event")
        with Daemon(config):  # it tells the plant what was done while it was away, and repeats nothing
            told = hmi.wait_for_json(f"{HERE}/event", after=events)
            assert (told["state"], told["by"], told["occurrence"]) == ("ACKED", "anna", occurrence)
            assert "is acknowledged" in says(config, *done)
            assert call_json(config, "alarms")[0]["state"] == "ACKED"
        assert hmi.count(f"{HERE}/event") == events + 1


# -- topics ------------------------------------------------------------------------------------------------------------


def kind(value: Any) -> str:
    return {int: "integer", float: "number", str: "string", dict: "object", bool: "boolean"}[type(value)]


def scalar(payload: bytes, wanted: str) -> Any:
    """A payload as what it is said to be; a word is no JSON."""
    return payload.decode() if wanted == "string" else json.loads(payload)


def test_every_topic_of_a_run_is_listed_with_its_keys_and_types_and_every_listed_one_comes(
    tmp_path: Path, enrolled: Path
) -> None:
    with Mosquitto(tmp_path) as broker, Hmi(broker.port) as hmi:
        machines = SMALL + "stale_s = 3\n[machines.alarm]\non_delay_windows = 2\n"
        config = small_config(tmp_path / "edge", enrolled=enrolled, broker_port=broker.port, machines=machines)
        with Daemon(config):
            with Sensors(MqttOutlet(broker.port), machine=ROTOR) as sensors:
                hmi.wait_for(f"{HERE}/score")
                sensors.fault_now()
                raised = hmi.wait_for_json(f"{HERE}/event")
            hmi.publish(f"{HERE}/cmd/ack", json.dumps({"occurrence": raised["occurrence"]}), retain=True)
            hmi.wait_for(f"{HERE}/cmd/ack/result")
            for verb in ("shelve", "unshelve"):
                until = {"until": (time.time_ns() // 10**6) + 60_000}
                hmi.publish(f"{HERE}/cmd/{verb}", json.dumps(until), retain=True)
                hmi.wait_for(f"{HERE}/cmd/{verb}/result", lambda p: json.loads(p)["ok"] == 1)
            hmi.wait_for_json(f"{HERE}/event", lambda e: e["alarm"] == "stale-vib")
            hmi.wait_for(f"{BASE}/health")
        rows = {row["topic"]: row for row in call_json(config, "topics")}
        lines = says(config, "topics").splitlines()

    assert len(lines) == len(rows) and all(any(topic in line for line in lines) for topic in rows)
    assert set(hmi.heard) == set(rows)
    for topic, payloads in hmi.heard.items():
        row = rows[topic]
        if row["direction"] == "in":
            continue
        for payload in payloads:
            value = scalar(payload, row["type"])
            assert kind(value) == row["type"] or (row["type"], kind(value)) == ("number", "integer"), (topic, payload)
            if row["keys"]:
                assert {key: kind(v) for key, v in value.items()} == row["keys"], topic
    assert all(f"/{SITE}/{EDGE}/" in topic for topic in rows)


def test_retained_topics_are_those_that_are_said_to_be(tmp_path: Path, enrolled: Path) -> None:
    with Mosquitto(tmp_path) as broker:
        config = small_config(tmp_path / "edge", enrolled=enrolled, broker_port=broker.port)
        with Daemon(config), Hmi(broker.port) as hmi, Sensors(MqttOutlet(broker.port), machine=ROTOR):
            hmi.wait_for(f"{HERE}/score", after=2)
        said = {r["topic"] for r in call_json(config, "topics") if r["retain"] and r["direction"] == "out"}
        with Hmi(broker.port) as late:
            for topic in said - {f"{BASE}/health"}:  # comes every 10 s: the run may have been too short for it
                late.wait_for(topic)
        assert set(late.heard) <= said


# -- replay ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["fisher/v1", "fisher/v1/plant1", "/fisher/v1/", "fisher/v1/lab"])
def test_replay_never_publishes_where_the_agent_does(tmp_path: Path, enrolled: Path, prefix: str) -> None:
    config = small_config(tmp_path, broker_port=1)
    arguments = ("replay", "--machine", MACHINE, enrolled.parent / "normal.npz", "--to", "mqtt", "--prefix", prefix)
    assert "choose another" in says(config, *arguments, code=2)


def test_replay_never_publishes_where_a_sensor_does(tmp_path: Path, enrolled: Path) -> None:
    config = small_config(tmp_path, broker_port=1)
    arguments = ("replay", "--machine", MACHINE, enrolled.parent / "normal.npz", "--to", "mqtt", "--prefix", "raw")
    assert "where a real sensor" in says(config, *arguments, code=2)


def test_replay_needs_a_source_of_its_kind_and_a_broker(tmp_path: Path, enrolled: Path) -> None:
    config = small_config(tmp_path, broker_port=free_port())
    arguments = ("replay", "--machine", MACHINE, enrolled.parent / "normal.npz", "--prefix", "lab")
    assert "no source of this configuration is of that type" in says(config, *arguments, "--to", "zmq", code=2)
    assert "mqtt://" in says(config, *arguments, "--to", "mqtt", code=3)
    assert "must be above 0" in says(config, *arguments, "--to", "mqtt", "--speed", "0", code=2)


def test_what_is_replayed_arrives_and_is_judged_like_the_file(tmp_path: Path, enrolled: Path) -> None:
    recording = record(tmp_path / "r.npz", seconds=6, start_s=60)
    with Mosquitto(tmp_path) as broker, Hmi(broker.port, filters=["#"]) as hmi:
        twin = SMALL.replace("raw/", "lab/")
        config = small_config(tmp_path / "edge", enrolled=enrolled, broker_port=broker.port)
        live = small_config(tmp_path / "live", enrolled=enrolled, broker_port=broker.port, machines=twin)
        arguments = ("--machine", MACHINE, recording, "--to", "mqtt", "--prefix", "lab", "--speed", "10")
        with Daemon(live):
            sent = call_json(config, "replay", *arguments)
            assert sent["seconds"] == pytest.approx(6.0)
            hmi.wait_for(f"lab/{MACHINE}/vib", after=sent["messages"] - 1)
            hmi.wait_for(f"{HERE}/score", after=6)
        heard = [float(p) for p in hmi.heard[f"{HERE}/score"]]
        offline = [r["score"] for r in call_json(config, "score", "--machine", MACHINE, recording)]
    # Another start against the grid cuts other windows, so they agree in level only.
    assert len(heard) == pytest.approx(len(offline), abs=2)
    assert sum(heard) / len(heard) == pytest.approx(sum(offline) / len(offline), abs=0.3)


# -- bench -------------------------------------------------------------------------------------------------------------


def test_bench_measures_every_stage_and_prints_one_document(tmp_path: Path) -> None:
    done = cli(tmp_path / "none.toml", "bench", "--json", timeout_s=100)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    for stage in (
        "decode_us_per_message",
        "frontend_us_per_window",
        "embed_us_per_band",
        "indicators_us_per_window",
        "knn_us_per_query",
    ):
        assert document[stage] > 0
    assert document["channels_25k6_sustained"] >= 1 and document["start_up_s"] > 0 and document["rss_mb"] > 10
