"""SIGHUP: validated first, applied without a gap on what stays, and never a way to lose a working configuration."""

import signal
from pathlib import Path

import pytest

from fisher_agent.sources.synthetic import RotatingMachine
from integration.harness import BASE, MILL, Daemon, Hmi, MqttOutlet, Sensors, cli_json, write_config
from servers.mosquitto import Mosquitto

SECOND = MILL.replace('"mill-01"', '"mill-02"')
SHORT_DELAY = "[machines.alarm]\non_delay_windows = 1\n"


@pytest.fixture
def broker(tmp_path: Path) -> Mosquitto:
    return Mosquitto(tmp_path)


def test_a_machine_is_added_without_a_gap_on_the_one_that_stays(tmp_path: Path, broker: Mosquitto) -> None:
    with broker, Hmi(broker.port) as hmi:
        config = write_config(tmp_path, broker_port=broker.port)
        outlet, other = MqttOutlet(broker.port), MqttOutlet(broker.port)
        with (
            Daemon(config) as daemon,
            Sensors(outlet),
            Sensors(other, machine=RotatingMachine("mill-02", seed=3)),
        ):
            hmi.wait_for(f"{BASE}/mill-01/state")
            write_config(tmp_path, broker_port=broker.port, machines=MILL + SECOND)
            daemon.signal(signal.SIGHUP)
            assert daemon.wait_for_event("reloaded")["added"] == ["mill-02"]
            hmi.wait_for(f"{BASE}/mill-02/state")
            states = hmi.count(f"{BASE}/mill-01/state")
            hmi.wait_for(f"{BASE}/mill-01/state", after=states + 5)
            words = hmi.heard[f"{BASE}/mill-01/channel/vib/status"]
            assert b"gap" not in words, words

            write_config(tmp_path, broker_port=broker.port, machines=MILL + SHORT_DELAY)
            daemon.signal(signal.SIGHUP)
            change = daemon.wait_for_event("reloaded", removed=["mill-02"])
            assert change["changed"] == ["mill-01"]
            assert list(cli_json(config, "status")["machines"]) == ["mill-01"]


def test_a_broken_file_keeps_the_old_configuration_and_names_every_mistake(tmp_path: Path, broker: Mosquitto) -> None:
    with broker:
        config = write_config(tmp_path, broker_port=broker.port)
        with Daemon(config) as daemon:
            config.write_text(config.read_text().replace("rate_hz = 25600", "rate_hz = 5\ncolour = 1"))
            daemon.signal(signal.SIGHUP)
            problems = " ".join(daemon.wait_for_event("reload_refused")["problems"])
            assert "machines[0].channels[0].colour" in problems
            assert daemon.running


def test_keys_that_need_a_restart_are_named_and_not_applied(tmp_path: Path, broker: Mosquitto) -> None:
    with broker:
        config = write_config(tmp_path, broker_port=broker.port)
        with Daemon(config) as daemon:
            config.write_text(config.read_text().replace("hop_s = 1.0", "hop_s = 0.5"))
            daemon.signal(signal.SIGHUP)
            assert daemon.wait_for_event("reload_needs_restart")["keys"] == ["window"]
