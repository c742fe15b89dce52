"""Sensors that fail while their machine runs: named on their topics, left out of the score, and never an anomaly."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fisher_agent.sources.synthetic import RotatingMachine
from fisher_agent.stages import Frame
from integration.harness import MACHINE, Daemon, Hmi, MqttOutlet, Sensors, cli
from integration.small import HERE, T0_NS, small_config
from servers.mosquitto import Mosquitto

CHANNELS = (("vib", "vibration", 8000.0), ("vib2", "vibration", 8000.0), ("cur", "current", 4000.0))
ROTOR = RotatingMachine(MACHINE, seed=7, channels=CHANNELS)
TRIO = f'[[machines]]\nid = "{MACHINE}"\n' + "".join(
    f"""
[[machines.channels]]
id = "{name}"
kind = "{kind}"
rate_hz = {rate_hz}
source = "plant"
topic = "raw/{MACHINE}/{name}"
format = "fisher-frame/1"
"""
    for name, kind, rate_hz in CHANNELS
)
NORMAL_S = 40


@dataclass
class Failing:
    """The rotor whose first sensor dies and whose second comes off its cable, from a time on."""

    from_ns: int | None = None
    channels: Any = CHANNELS

    def frames(self, start_ns: int, stop_ns: int, **keys: Any) -> Iterator[Frame]:
        rng = np.random.default_rng(start_ns // 10**9)
        for frame in ROTOR.frames(start_ns, stop_ns, **keys):
            samples = frame.samples
            if self.from_ns is not None and frame.t_ns >= self.from_ns and frame.channel != "cur":
                t_s = (frame.t_ns - self.from_ns) / 1e9 + np.arange(len(samples)) / frame.rate_hz
                hum = 0.2 * np.sin(2 * np.pi * 50.03 * t_s) + 0.0005 * rng.normal(size=len(samples))
                samples = (hum if frame.channel == "vib2" else np.zeros(len(samples))).astype(np.float32)
            yield replace(frame, samples=samples)


def record(path: Path) -> Path:
    """The machine as it runs, one file per rate."""
    made: dict[str, list[np.ndarray]] = {name: [] for name, _, _ in CHANNELS}
    for frame in ROTOR.frames(T0_NS, T0_NS + NORMAL_S * 10**9):
        made[frame.channel].append(frame.samples)
    np.savez(path / "vib.npz", **{c: np.concatenate(made[c]) for c in ("vib", "vib2")}, rate_hz=8000.0, t_ns=T0_NS)
    np.savez(path / "cur.npz", cur=np.concatenate(made["cur"]), rate_hz=4000.0, t_ns=T0_NS)
    return path


def states(hmi: Hmi) -> list[dict[str, Any]]:
    return [json.loads(payload) for payload in hmi.heard.get(f"{HERE}/state", ())]


def test_a_dead_and_an_unplugged_sensor_are_named_and_the_score_goes_on_without_them(tmp_path: Path) -> None:
    with Mosquitto(tmp_path) as broker, Hmi(broker.port) as hmi:
        config = small_config(tmp_path / "edge", machines=TRIO, broker_port=broker.port)
        folder = record(tmp_path)
        done = cli(config, "enroll", "--machine", MACHINE, "--from", folder / "vib.npz", folder / "cur.npz")
        assert done.returncode == 0, done.stderr
        rotor = Failing()
        outlet = MqttOutlet(broker.port)
        with Daemon(config), Sensors(outlet, machine=rotor, speed=4.0) as sensors:  # type: ignore[arg-type]
            hmi.wait_for_json(f"{HERE}/state", lambda s: s["quality"] == "good" and s["score"] >= 0)
            words = {c: f"{HERE}/channel/{c}/status" for c, _, _ in CHANNELS}
            for topic in words.values():
                hmi.wait_for(topic, lambda p: p == b"ok")

            rotor.from_ns = sensors.now_ns + 2 * 10**9
            hmi.wait_for(words["vib"], lambda p: p == b"flat")
            hmi.wait_for(words["vib2"], lambda p: p == b"unplugged")
            for channel, word in (("vib", "flat"), ("vib2", "unplugged")):
                alarm = hmi.wait_for_json(f"{HERE}/alarm/sensor-{channel}", lambda a: a["state"] == "UNACK")
                assert f"the sensor {channel} cannot be trusted: {word}" in alarm["text"]
            sensors.wait_until(rotor.from_ns + 30 * 10**9)
            outlet.close()

        after = [s for s in states(hmi) if s["ts"] * 1_000_000 > rotor.from_ns + 3 * 10**9]
        assert len(after) > 20
        assert {(s["quality"], s["running"], s["top_channel"]) for s in after} == {("partial", 1, "cur")}
        assert all(0 <= s["score"] < 1 for s in after)
        assert hmi.last(words["cur"]) == b"ok"
        raised = [json.loads(p) for p in hmi.heard.get(f"{HERE}/event", ())]
        assert not [e for e in raised if e["alarm"] == "anomaly" and e["active"]]
        levels = {int(p) for p in hmi.heard[f"{HERE}/level"]}
        assert max(levels) <= 1, "a sensor that dies is at most an advisory, and for a moment"
