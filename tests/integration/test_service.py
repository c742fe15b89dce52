"""The daemon as a service: what systemd hears of it, what the plant sees of its end, and whose commands it obeys."""

import contextlib
import hashlib
import json
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file, save_file

from fisher_models.bundle import load as load_bundle
from integration.harness import BASE, MACHINE, Daemon, Hmi, MqttOutlet, Sensors, environment
from integration.small import HERE, ROTOR, SMALL, call_json, small_config
from servers.mosquitto import Mosquitto

NOWHERE = "mqtt://127.0.0.1:1"
ACK, RESULT = f"{HERE}/cmd/ack", f"{HERE}/cmd/ack/result"


class Supervisor:
    """What systemd is to a service of Type=notify: it starts it, listens on NOTIFY_SOCKET, and stops it."""

    def __init__(self, config: Path, folder: Path) -> None:
        self.log = folder / "service.log"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(folder / "notify"))
        self._socket.settimeout(30)
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "fisher_agent.cli", "run", "--config", str(config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**environment(), "NOTIFY_SOCKET": str(folder / "notify"), "WATCHDOG_USEC": "30000000"},
            )

    def heard(self) -> list[str]:
        """The next notification, line by line."""
        return self._socket.recv(4096).decode().splitlines()

    def events(self) -> list[str]:
        """The names of what was logged so far."""
        return [json.loads(line)["event"] for line in self.log.read_text().splitlines() if line.startswith("{")]

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self._socket.close()


def test_systemd_hears_ready_after_the_self_test_then_the_watchdog_and_the_end(tmp_path: Path) -> None:
    with contextlib.closing(Supervisor(small_config(tmp_path, source=NOWHERE), tmp_path)) as service:
        assert service.heard()[0] == "READY=1"
        events = service.events()
        assert events.index("self_test") < events.index("model")
        assert "unavailable" in events, "the first connection was attempted"
        for _ in range(3):
            assert service.heard() == ["WATCHDOG=1"]
        asked_s = time.monotonic()
        service.process.send_signal(signal.SIGTERM)
        while (said := service.heard()) == ["WATCHDOG=1"]:
            pass
        assert said == ["STOPPING=1"]
        assert service.process.wait(timeout=10) == 0
        assert time.monotonic() - asked_s < 10
        assert "windows_account" in service.events()


def test_a_model_that_does_not_reproduce_its_self_test_never_gets_ready(tmp_path: Path) -> None:
    wrong = shutil.copytree(load_bundle("fisher-tiny").path, tmp_path / "bundle")
    selftest = load_file(wrong / "selftest.safetensors")
    save_file({**selftest, "embedding": selftest["embedding"] + 0.5}, wrong / "selftest.safetensors")
    manifest = json.loads((wrong / "manifest.json").read_text())
    body = (wrong / "selftest.safetensors").read_bytes()
    manifest["files"]["selftest.safetensors"] = {"bytes": len(body), "sha256": hashlib.sha256(body).hexdigest()}
    (wrong / "manifest.json").write_text(json.dumps(manifest))
    config = small_config(tmp_path, source=NOWHERE, extra=f'[model]\nbundle = "{wrong}"')
    with contextlib.closing(Supervisor(config, tmp_path)) as service:
        assert service.process.wait(timeout=90) == 1
        assert "does not reproduce the self-test" in service.log.read_text()
        assert "Traceback" not in service.log.read_text()
        service._socket.settimeout(0)
        with pytest.raises(BlockingIOError):
            service.heard()


def test_a_clean_stop_leaves_level_unknown_alive_0_and_status_stopped(tmp_path: Path, enrolled: Path) -> None:
    with Mosquitto(tmp_path) as broker:
        config = small_config(tmp_path / "edge", enrolled=enrolled, broker_port=broker.port)
        with Hmi(broker.port) as hmi, Sensors(MqttOutlet(broker.port), machine=ROTOR):
            daemon = Daemon(config).start()
            hmi.wait_for(f"{HERE}/level", lambda p: p == b"0")
            hmi.wait_for(f"{BASE}/alive", lambda p: p == b"1")
            assert daemon.stop(timeout_s=10) == 0
        account = daemon.wait_for_event("windows_account")
        assert account["balanced"] and account["waiting"] == 0
        with Hmi(broker.port) as late:  # what an HMI finds that starts now
            for topic, value in ((f"{HERE}/level", b"-1"), (f"{BASE}/alive", b"0"), (f"{BASE}/status", b"stopped")):
                late.wait_for(topic)
                assert late.heard[topic] == [value]


def test_a_killed_agent_is_offline_and_not_alive_by_its_wills(tmp_path: Path) -> None:
    with Mosquitto(tmp_path) as broker, Hmi(broker.port) as hmi:
        daemon = Daemon(small_config(tmp_path / "edge", broker_port=broker.port)).start()
        hmi.wait_for(f"{BASE}/alive", lambda p: p == b"1")
        hmi.wait_for(f"{BASE}/status", lambda p: p == b"online")
        daemon.kill()
        hmi.wait_for(f"{BASE}/status", lambda p: p == b"offline")
        hmi.wait_for(f"{BASE}/alive", lambda p: p == b"0", after=hmi.heard[f"{BASE}/alive"].index(b"1"))


class Operator:
    """Publishes commands as an HMI does and waits for their results."""

    def __init__(self, hmi: Hmi) -> None:
        self._hmi = hmi

    def says(self, payload: str, *, verb: str = "ack", machine: str = MACHINE, retain: bool = False) -> dict[str, Any]:
        """Publish a command; returns its result."""
        topic = f"{BASE}/{machine}/cmd/{verb}"
        before = self._hmi.count(f"{topic}/result")
        self._hmi.publish(topic, payload, qos=0, retain=retain)
        return self._hmi.wait_for_json(f"{topic}/result", after=before)


@pytest.fixture(scope="module")
def alarmed(tmp_path_factory: pytest.TempPathFactory, enrolled: Path) -> Iterator[tuple[Mosquitto, Daemon, int]]:
    """A daemon with an unacknowledged anomaly, and its occurrence; the sensors are silent, the alarm stays."""
    folder = tmp_path_factory.mktemp("alarmed")
    with Mosquitto(folder / "broker") as broker:
        config = small_config(
            folder,
            enrolled=enrolled,
            broker_port=broker.port,
            machines=SMALL + "stale_s = 3600\n[machines.alarm]\non_delay_windows = 2\n",
        )
        with Daemon(config) as daemon:
            with Hmi(broker.port) as hmi, Sensors(MqttOutlet(broker.port), machine=ROTOR) as sensors:
                hmi.wait_for(f"{HERE}/score")
                sensors.fault_now()
                raised = hmi.wait_for_json(f"{HERE}/event", lambda e: e["state"] == "UNACK")
            yield broker, daemon, raised["occurrence"]


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        ("{}", "names no occurrence"),
        ('{"by": "anna", "occurrence": null}', "names no occurrence"),
        ("true", "not a whole number"),
        ("0.5", "not a whole number"),
        ('""', "not a whole number"),
        ("ack!", "not JSON"),
        ("999", "is not the latest"),
        ('{"alarm": "fire", "occurrence": 1}', "has no alarm 'fire'"),
        ('{"occurrence": 1, "ts": 1000000}', "at most 60 s"),
    ],
)
def test_what_is_not_clearly_an_acknowledgement_is_refused_with_its_reason(
    alarmed: tuple[Mosquitto, Daemon, int], payload: str, why: str
) -> None:
    broker, daemon, _ = alarmed
    with Hmi(broker.port) as hmi:
        result = Operator(hmi).says(payload)
        assert result["ok"] == 0 and why in result["error"]
        assert set(result) == {"id", "ok", "error", "alarm", "occurrence", "by", "ts"}
        assert hmi.count(f"{HERE}/event") == 0
    assert call_json(daemon.config, "alarms")[0]["state"] == "UNACK"


@pytest.mark.parametrize(
    ("verb", "machine", "why"),
    [
        ("mode", MACHINE, "'mode' is not allowed; mqtt.commands has: ack, shelve, unshelve"),
        ("explode", MACHINE, "'explode' is not allowed"),
        ("shelve", MACHINE, "names no until"),
        ("ack", "press-99", "'press-99' is not a machine of this agent"),
    ],
)
def test_a_verb_or_machine_that_is_not_ours_is_refused(
    alarmed: tuple[Mosquitto, Daemon, int], verb: str, machine: str, why: str
) -> None:
    with Hmi(alarmed[0].port) as hmi:
        result = Operator(hmi).says('{"occurrence": 1, "id": "k-9"}', verb=verb, machine=machine)
        assert (result["ok"], result["id"]) == (0, "k-9")
        assert why in result["error"]


@pytest.mark.parametrize("version", ["5", "3.1.1"])
def test_a_retained_command_from_before_the_connection_changes_nothing(
    alarmed: tuple[Mosquitto, Daemon, int], version: str
) -> None:
    broker, daemon, occurrence = alarmed
    assert daemon.stop() == 0
    text = daemon.config.read_text().replace("[mqtt]\n", f'[mqtt]\nversion = "{version}"\n')
    with Hmi(broker.port, filters=["none"]) as hmi:
        hmi.publish(ACK, str(occurrence), retain=True)
    config = daemon.config.read_text()
    daemon.config.write_text(text)
    try:
        with Hmi(broker.port) as hmi:
            assert hmi.wait_for(ACK) == str(occurrence).encode()
            daemon.start()
            hmi.wait_for(f"{BASE}/alive", lambda p: p == b"1", after=1)
            assert Operator(hmi).says('"later"')["ok"] == 0  # whatever came before it was handled before it
            assert hmi.count(RESULT) == 1
            assert hmi.count(f"{HERE}/event") == 0
        assert call_json(daemon.config, "alarms")[0]["state"] == "UNACK"
    finally:
        daemon.config.write_text(config)
        with Hmi(broker.port, filters=["none"]) as hmi:
            hmi.publish(ACK, b"", retain=True)


def test_an_acknowledgement_is_obeyed_once_however_it_is_written(alarmed: tuple[Mosquitto, Daemon, int]) -> None:
    broker, daemon, occurrence = alarmed
    with Hmi(broker.port) as hmi:
        operator = Operator(hmi)
        said = json.dumps({"id": "k-1", "occurrence": str(occurrence), "by": "anna", "comment": "on my way"})
        first = operator.says(said, retain=True)
        assert (first["ok"], first["error"], first["occurrence"], first["by"]) == (1, "", occurrence, "anna")
        event = hmi.wait_for_json(f"{HERE}/event")
        assert (event["acked"], event["by"], event["comment"], event["state"]) == (1, "anna", "on my way", "ACKED")
        hmi.wait_for(ACK, lambda p: p == b"")  # the retained command is deleted, as those who listen see
        assert operator.says(said) | {"ts": 0} == first | {"ts": 0}  # the same id: the same answer
        for again in (str(occurrence), f'"{occurrence}"', f'{{"occurrence": "{occurrence}"}}'):
            assert operator.says(again)["ok"] == 1
        hmi.publish(ACK, b"")
        assert operator.says("{}")["ok"] == 0  # the empty one before it had no answer
        assert hmi.count(RESULT) == 6
        assert hmi.count(f"{HERE}/event") == 1
    with Hmi(broker.port) as late:
        late.wait_for(f"{BASE}/status")
        # The deletion of the last command may still arrive live, and is empty; a command that was kept is not.
        assert not any(late.heard.get(ACK, ()))
    assert call_json(daemon.config, "alarms")[0]["state"] == "ACKED"
