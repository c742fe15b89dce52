"""A machine on probation: it learns while it is watched, a kill costs nothing, and an operator's word ends it."""

import time
from pathlib import Path
from typing import Any

from integration.harness import MACHINE, Daemon, MqttOutlet, Sensors
from integration.small import ROTOR, call, call_json, small_config
from servers.mosquitto import Mosquitto


def probation(config: Path) -> dict[str, Any]:
    found: dict[str, Any] = call_json(config, "status")["machines"][MACHINE]["probation"]
    return found


def wait_for_blocks(config: Path, n: int, *, timeout_s: float = 60.0) -> dict[str, Any]:
    deadline_s = time.monotonic() + timeout_s
    while (found := probation(config))["learnt_blocks"] < n:
        assert time.monotonic() < deadline_s, found
        time.sleep(0.5)
    return found


def test_it_learns_survives_a_kill_and_ends_by_an_operators_word(tmp_path: Path, enrolled: Path) -> None:
    with Mosquitto(tmp_path) as broker:
        config = small_config(tmp_path / "edge", enrolled=enrolled, broker_port=broker.port)
        with Sensors(MqttOutlet(broker.port), machine=ROTOR):
            with Daemon(config) as daemon:
                found = wait_for_blocks(config, 2)
                assert found["asked"] == "one per 30 days"
                assert "is extrapolated" in found["false_alarms"] or "is not kept" in found["false_alarms"]
                assert "  probation, 7.0 days left  (" in call(config, "status").stdout
                assert call(config, "machines").stdout.rstrip().endswith("probation, 7.0 days left")
                learnt = probation(config)["learnt_blocks"]
                daemon.kill()
            with Daemon(config) as daemon:
                # A block that was counted was written; the one that was open goes on.
                assert probation(config)["learnt_blocks"] >= learnt
                refused = call(config, "confirm", "--machine", MACHINE, "--false-alarm", "3")
                assert (refused.returncode, "no block of occurrence 3 waits" in refused.stderr) == (2, True)
                wait_for_blocks(config, learnt + 1)
                done = call(config, "confirm", "--machine", MACHINE, "--by", "ana")
                assert done.returncode == 0, done.stderr
                assert done.stdout.startswith(f"probation of {MACHINE} is over; its limit is ")
                assert probation(config)["ended"] == "confirmed by ana"
                assert "probation" not in call(config, "status").stdout
                again = call(config, "confirm", "--machine", MACHINE)
                assert (again.returncode, "not on probation: confirmed by ana" in again.stderr) == (2, True)
                assert daemon.stop() == 0
            with Daemon(config):
                assert probation(config)["ended"] == "confirmed by ana"
    assert call(config, "confirm", "--machine", MACHINE).returncode == 3
