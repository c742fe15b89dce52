"""A temperature, twice a second, as JSON: enrolled from a file, judged live, alarmed when it rises."""

import json
import time
from pathlib import Path

import numpy as np

from integration.harness import BASE, MACHINE, Daemon, Hmi, MqttOutlet
from integration.small import T0_NS, call, enrol, small_config
from servers.mosquitto import Mosquitto

RATE_HZ = 2.0
TOPIC = f"raw/{MACHINE}/slow"
TANK = f"""
[[machines]]
id = "{MACHINE}"
[[machines.channels]]
id = "temp"
kind = "process"
unit = "degC"
rate_hz = {RATE_HZ}
source = "plant"
topic = "{TOPIC}"
format = "json"
"""


def values(seconds: float, *, at: float, seed: int) -> list[float]:
    return np.round(at + 0.3 * np.random.default_rng(seed).normal(size=round(seconds * RATE_HZ)), 2).tolist()


def test_a_warm_bearing_is_alarmed_by_a_channel_that_the_model_does_not_see(tmp_path: Path) -> None:
    recording = tmp_path / "normal.npz"
    np.savez(recording, temp=np.float32(values(200, at=60, seed=0)), rate_hz=RATE_HZ, t_ns=T0_NS)
    with Mosquitto(tmp_path) as broker, Hmi(broker.port) as hmi:
        config = small_config(tmp_path / "edge", machines=TANK, broker_port=broker.port)
        said = call(config, "check")
        assert (said.returncode, "too slow for the model; judged by its value and spread" in said.stdout) == (0, True)
        enrol(config, recording)
        with Daemon(config):
            outlet = MqttOutlet(broker.port)
            hmi.wait_for(f"{BASE}/status", lambda p: p == b"online")
            at_s = time.time() - 120
            for value in (*values(60, at=60, seed=1), *values(30, at=66, seed=2)):
                outlet.send(TOPIC, json.dumps({"t": at_s, "rate": RATE_HZ, "samples": [value]}).encode())
                at_s += 1 / RATE_HZ
            raised = hmi.wait_for_json(f"{BASE}/{MACHINE}/event", lambda e: (e["alarm"], e["active"]) == ("anomaly", 1))
            assert (raised["top_channel"], raised["top_band_hz_low"]) == ("temp", -1.0)
            assert raised["ts"] / 1000 > at_s - 31, "nothing was alarmed before it rose"
            outlet.close()
