"""The flow that is shipped, in a real Node-RED: it shows a level and an alarm, and its button acknowledges."""

import re
import time
import urllib.parse
import urllib.request
from pathlib import Path

import pytest

from integration.harness import BASE, MACHINE, Daemon, Hmi, MqttOutlet, Sensors
from integration.small import HERE, ROTOR, SMALL, small_config
from servers.mosquitto import Mosquitto
from servers.node_red import NodeRed

MACHINES = SMALL + "stale_s = 3600\n[machines.alarm]\non_delay_windows = 2\n"


def page(hmi: NodeRed) -> str:
    with urllib.request.urlopen(f"{hmi.url}/fisher", timeout=10) as answer:
        return str(answer.read().decode())


def shows(hmi: NodeRed, pattern: str, *, timeout_s: float = 60.0) -> re.Match[str]:
    """Reload the page until it matches; fails with the page."""
    deadline = time.monotonic() + timeout_s
    while not (found := re.search(pattern, page(hmi), re.DOTALL)):
        if time.monotonic() > deadline:
            pytest.fail(f"the page never showed {pattern!r}:\n{page(hmi)}\n{hmi.output[-2000:]}")
        time.sleep(0.3)
    return found


def test_node_red_shows_a_level_and_an_alarm_and_acknowledges_it(tmp_path: Path, enrolled: Path) -> None:
    with (
        Mosquitto(tmp_path) as broker,
        Hmi(broker.port) as witness,
        NodeRed(tmp_path / "node-red", broker_port=broker.port) as hmi,
    ):
        config = small_config(tmp_path / "edge", enrolled=enrolled, broker_port=broker.port, machines=MACHINES)
        with Daemon(config) as daemon:
            with Sensors(MqttOutlet(broker.port), machine=ROTOR) as sensors:
                shows(hmi, rf"{BASE}/{MACHINE}.*?0 normal.*?no alarm")
                sensors.fault_now()
                shows(hmi, r"(2 alarm|3 severe).*?<b>UNACK</b> mill-01: anomaly, score")
            form = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', page(hmi)))
            assert (form["alarm"], form["occurrence"]) == ("anomaly", "1")
            # The address of the form is relative to the page, as a browser takes it.
            target = urllib.parse.urljoin(f"{hmi.url}/fisher", "fisher/ack")
            urllib.request.urlopen(target, data=urllib.parse.urlencode(form).encode(), timeout=10).close()
            told = witness.wait_for_json(f"{HERE}/cmd/ack/result")
            assert (told["ok"], told["by"]) == (1, "node-red"), told
            shown = shows(hmi, r"<b>ACKED</b> mill-01: anomaly.*")
            assert "Acknowledge" not in shown[0]
            stale = dict(form, occurrence="99")
            urllib.request.urlopen(target, data=urllib.parse.urlencode(stale).encode(), timeout=10).close()
            assert "is not the latest" in witness.wait_for_json(f"{HERE}/cmd/ack/result", after=1)["error"]
            daemon.kill()
            shows(hmi, r"-1 unknown")  # its Will has told the screen that nobody watches
