"""Every command as a user types it, with a daemon and without one."""

import argparse
import json
from pathlib import Path

import pytest

from fisher_agent.cli import parser
from integration.harness import BASE, MACHINE, Daemon, Hmi, MqttOutlet, Sensors
from integration.small import HERE, ROTOR, call, call_json, enrol, record, small_config
from servers.mosquitto import Mosquitto

ROOT = Path(__file__).resolve().parents[2]


def verbs() -> list[str]:
    (choices,) = [a.choices for a in parser()._actions if isinstance(a, argparse._SubParsersAction)]
    return list(choices)


@pytest.fixture
def config(tmp_path: Path, enrolled: Path) -> Path:
    return small_config(tmp_path, enrolled=enrolled, source="mqtt://127.0.0.1:1883")


@pytest.mark.parametrize("verb", verbs())
def test_every_verb_explains_itself(tmp_path: Path, verb: str) -> None:
    done = call(tmp_path / "none.toml", verb, "--help")
    assert done.returncode == 0
    assert "usage:" in done.stdout


def test_every_verb_is_in_the_readme() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [verb for verb in verbs() if f"`{verb}`" not in text and f"fisher-agent {verb}" not in text] == []


def test_init_writes_a_template_that_checks_and_never_overwrites(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    assert call(path, "init", "--output", path).returncode == 0
    path.write_text(f'state_dir = "{tmp_path}/state"\n' + path.read_text())
    assert call(path, "check").returncode == 0
    before = path.read_text()
    done = call(path, "init", "--output", path)
    assert done.returncode == 2
    assert "not overwritten" in done.stderr
    assert path.read_text() == before


def test_banks_are_listed_rebuilt_rolled_back_and_forgotten(config: Path) -> None:
    (first,) = call_json(config, "banks")
    assert first["active"]
    (machine,) = call_json(config, "machines")
    assert machine == {"machine": MACHINE, "channels": ["vib"], "bank": first["version"]}
    (rebuilt,) = call_json(config, "banks", "rebuild", "--machine", MACHINE)
    assert [b["version"] for b in call_json(config, "banks") if b["active"]] == [rebuilt["bank"]]
    assert first["version"] in call(config, "rollback", "--machine", MACHINE).stdout
    assert call_json(config, "machines")[0]["bank"] == first["version"]
    assert call(config, "forget", "--machine", MACHINE).returncode == 0
    assert call_json(config, "banks") == []
    again = call(config, "rollback", "--machine", MACHINE)
    assert again.returncode != 0
    assert "Traceback" not in again.stderr


def test_a_rebuilt_bank_scores_as_the_one_before(config: Path, tmp_path: Path) -> None:
    later = record(tmp_path / "later.npz", seconds=10, start_s=60)
    before = call_json(config, "score", "--machine", MACHINE, later)
    call_json(config, "banks", "rebuild")
    after = call_json(config, "score", "--machine", MACHINE, later)
    assert [r["score"] for r in after] == pytest.approx([r["score"] for r in before], abs=1e-4)


def test_score_tells_a_fault_from_normal_running_and_names_an_enrolled_class(config: Path, tmp_path: Path) -> None:
    normal = call_json(config, "score", "--machine", MACHINE, record(tmp_path / "n.npz", seconds=15, start_s=100))
    faulty = record(tmp_path / "f.npz", seconds=30, start_s=200, fault_from_s=190)
    strange = call_json(config, "score", "--machine", MACHINE, faulty)
    assert max(r["score"] for r in normal) < 1 < min(r["score"] for r in strange)
    assert {r["fault"] for r in strange} == {"unknown"}
    done = call(config, "enroll", "--machine", MACHINE, "--fault", "outer-race", "--from", faulty)
    assert done.returncode == 0, done.stderr
    same = record(tmp_path / "g.npz", seconds=15, start_s=300, fault_from_s=290)
    named = [r["fault"] for r in call_json(config, "score", "--machine", MACHINE, same)]
    assert named.count("outer-race") > len(named) / 2
    assert "outer-race" in call(config, "banks").stdout


def test_enroll_refuses_a_machine_that_stands(config: Path, tmp_path: Path) -> None:
    import numpy as np

    np.savez(tmp_path / "off.npz", vib=np.full(8000 * 30, 0.001, np.float32), rate_hz=8000.0)
    done = call(config, "enroll", "--machine", MACHINE, "--from", tmp_path / "off.npz")
    assert done.returncode == 1
    assert "vib" in done.stderr
    assert len(call_json(config, "banks")) == 1, "the old bank must stay the only one"


def test_a_fault_before_normal_running_is_refused(tmp_path: Path) -> None:
    config = small_config(tmp_path, source="mqtt://127.0.0.1:1883")
    recording = record(tmp_path / "f.npz", seconds=10)
    done = call(config, "enroll", "--machine", MACHINE, "--fault", "rub", "--from", recording)
    assert done.returncode == 1
    assert "enrol that first" in done.stderr


def test_replay_refuses_the_topics_of_the_plant_and_of_the_agent(config: Path, tmp_path: Path) -> None:
    recording = record(tmp_path / "r.npz", seconds=2)
    for prefix, why in (("fisher/v1", "publishes"), ("raw", "real sensor"), ("", "publishes")):
        done = call(config, "replay", "--machine", MACHINE, recording, "--to", "mqtt", "--prefix", prefix)
        assert (done.returncode, why in done.stderr) == (2, True), done.stderr
    done = call(config, "replay", "--machine", MACHINE, recording, "--to", "zmq", "--prefix", "test")
    assert done.returncode == 2
    assert "zmq" in done.stderr


def test_replay_publishes_what_a_daemon_then_judges(tmp_path: Path, enrolled: Path) -> None:
    with Mosquitto(tmp_path) as broker, Hmi(broker.port) as hmi:
        plant = small_config(tmp_path / "edge", enrolled=enrolled, broker_port=broker.port)
        plant.write_text(plant.read_text().replace('topic = "raw/', 'topic = "test/'))
        sender = small_config(tmp_path / "sender", broker_port=broker.port)
        recording = record(tmp_path / "r.npz", seconds=6, start_s=50)
        with Daemon(plant):
            done = call(
                sender, "replay", "--machine", MACHINE, recording, "--to", "mqtt", "--prefix", "test", "--speed", "4"
            )
            assert done.returncode == 0, done.stderr
            hmi.wait_for(f"{HERE}/score")


def test_commands_without_a_daemon(config: Path) -> None:
    assert call(config, "alarms").stdout.strip() == "no alarm was ever raised"
    done = call(config, "status")
    assert done.returncode == 3
    assert "no daemon runs" in done.stderr
    done = call(config, "ack", "--machine", MACHINE, "--occurrence", "7")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_a_daemon_answers_and_every_topic_it_publishes_is_listed(tmp_path: Path, enrolled: Path) -> None:
    with Mosquitto(tmp_path) as broker, Hmi(broker.port) as hmi:
        config = small_config(tmp_path / "edge", enrolled=enrolled, broker_port=broker.port)
        with Daemon(config), Sensors(MqttOutlet(broker.port), machine=ROTOR) as sensors:
            hmi.wait_for(f"{HERE}/score")
            sensors.fault_now()
            alarm = hmi.wait_for_json(f"{HERE}/alarm/anomaly", lambda a: a["state"] == "UNACK")
            status = call_json(config, "status")
            assert status["machines"][MACHINE]["enrolled"]
            assert "UNTRAINED" in call(config, "status").stdout
            (raised,) = [a for a in call_json(config, "alarms") if a["alarm"] == "anomaly"]
            assert raised["occurrence"] == alarm["occurrence"]
            wrong = call(config, "ack", "--machine", MACHINE, "--occurrence", str(alarm["occurrence"] + 1))
            assert wrong.returncode == 2
            done = call(config, "ack", "--machine", MACHINE, "--occurrence", str(alarm["occurrence"]), "--by", "eva")
            assert done.returncode == 0, done.stderr
            acked = hmi.wait_for_json(f"{HERE}/alarm/anomaly", lambda a: a["state"] == "ACKED")
            assert acked["by"] == "eva"
            hmi.wait_for(f"{BASE}/health")
            listed = {row["topic"]: row for row in call_json(config, "topics")}
        kinds = {bool: "boolean", int: "integer", float: "number", str: "string"}
        for topic, payloads in hmi.heard.items():
            assert topic in listed, f"{topic} is published and not listed"
            row = listed[topic]
            if row["type"] == "object" and row["keys"]:
                found = {k: kinds[type(v)] for k, v in json.loads(payloads[-1]).items()}
                assert found == row["keys"], topic
            elif row["type"] == "integer":
                int(payloads[-1])


def test_enrolling_through_the_daemon_judges_at_once_and_rolls_back_without_a_restart(tmp_path: Path) -> None:
    config = small_config(tmp_path, source="mqtt://127.0.0.1:1883")
    enrol(config, record(tmp_path / "a.npz", seconds=20))
    with Daemon(config):
        first = call_json(config, "machines")[0]["bank"]
        result = call_json(config, "enroll", "--machine", MACHINE, "--from", record(tmp_path / "b.npz", seconds=20))
        assert call_json(config, "machines")[0]["bank"] == result["bank"] != first
        assert first in call(config, "rollback", "--machine", MACHINE).stdout
        refused = call(config, "enroll", "--machine", "press-99", "--from", tmp_path / "b.npz")
        assert refused.returncode == 2
        assert MACHINE in refused.stderr


@pytest.mark.slow
def test_bench_measures_every_stage(tmp_path: Path) -> None:
    result = call_json(tmp_path / "none.toml", "bench")
    for key in (
        "decode_us_per_message",
        "frontend_us_per_window",
        "embed_us_per_band",
        "knn_us_per_query",
        "start_up_s",
    ):
        assert result[key] > 0
    assert result["channels_25k6_sustained"] >= 1
