"""Operating modes through the real daemon: a rule on a speed, a tag, a maintenance that outlives a restart."""

import json
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from fisher_agent.store import Store
from fisher_agent.wire import encode
from integration.harness import BASE, MACHINE, Daemon, Hmi, MqttOutlet, cli, cli_json, environment
from integration.small import HERE, ROTOR, SMALL, T0_NS, call, enrol, record, small_config
from modal import FULL, IDLE, TURBO, heard
from servers.mosquitto import Mosquitto

RULED = f"""
[[machines]]
id = "{MACHINE}"
[machines.mode]
channel = "rpm"
bands = {{ idle = [100, 450], full = [400, 1600] }}
[machines.defaults]
source = "plant"
topic = "raw/{{machine}}/{{channel}}"
format = "fisher-frame/1"
[[machines.channels]]
id = "vib"
kind = "vibration"
unit = "g"
rate_hz = 8000
[[machines.channels]]
id = "rpm"
kind = "process"
unit = "rpm"
rate_hz = 100
"""
TAGGED = SMALL.replace("[[machines.channels]]", '[machines.mode]\ntopic = "plc/recipe"\n[[machines.channels]]')
SECOND = 10**9


class Line:
    """Sends a machine's phases one after another, without a gap in event time, ten times as fast as life."""

    def __init__(self, outlet: MqttOutlet) -> None:
        self._outlet = outlet
        self._at_ns = time.time_ns() // SECOND * SECOND - 600 * SECOND
        self._seed = 0
        self._seq = {"vib": 0, "rpm": 0}

    def run(self, phase: tuple[float, float], seconds: float, **fault: float) -> int:
        """Returns the event time (ms) at which this phase began."""
        self._seed += 1
        began_ns = self._at_ns
        self._send(heard((phase, seconds), seed=self._seed, t_ns=began_ns, **fault).frames())
        self._at_ns += round(seconds * SECOND)
        return began_ns // 1_000_000

    def _send(self, frames: Iterable[Any]) -> None:
        for frame in frames:
            seq = self._seq[frame.channel]
            payload = encode("fisher-frame/1", frame.samples, t_ns=frame.t_ns, rate_hz=frame.rate_hz, seq=seq)
            self._seq[frame.channel] += 1
            self._outlet.send(f"raw/{MACHINE}/{frame.channel}", payload)
            time.sleep(len(frame.samples) / frame.rate_hz / 20)  # two channels


def events(hmi: Hmi, alarm: str) -> list[dict[str, Any]]:
    return [e for e in map(json.loads, hmi.heard.get(f"{HERE}/event", [])) if e["alarm"] == alarm]


def states(hmi: Hmi) -> list[dict[str, Any]]:
    return [json.loads(p) for p in hmi.heard.get(f"{HERE}/state", [])]


@pytest.mark.slow
def test_a_third_speed_is_an_unknown_mode_and_a_fault_at_an_enrolled_one_is_found(tmp_path: Path) -> None:
    with Mosquitto(tmp_path) as broker, Hmi(broker.port) as hmi:
        config = small_config(tmp_path / "edge", machines=RULED, broker_port=broker.port)
        with Daemon(config) as daemon:
            outlet = MqttOutlet(broker.port)
            hmi.wait_for(f"{BASE}/status", lambda p: p == b"online")
            line = Line(outlet)
            enrolling = subprocess.Popen(
                [sys.executable, "-m", "fisher_agent.cli", "enroll", "--machine", MACHINE, "--duration", "60s",
                 "--json", "--config", str(config)],
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(),
            )  # fmt: skip
            line.run(IDLE, 20)  # some of it passes before the command listens
            line.run(FULL, 30)
            line.run(IDLE, 20)
            while enrolling.poll() is None:
                line.run(FULL, 10)
            out, err = enrolling.communicate(timeout=30)
            assert enrolling.returncode == 0, err
            report = json.loads(out)["report"]
            assert [(m["mode"], m["enrolled"]) for m in report["modes"]] == [("idle", True), ("full", True)]
            assert all(m["independent"] >= 10 for m in report["modes"])

            for phase, name in ((FULL, "full"), (IDLE, "idle")):
                line.run(phase, 6)
                hmi.wait_for_json(f"{HERE}/state", lambda s, n=name: s["mode"] == n and 0 <= s["score"] < 1)

            began_ms = line.run(TURBO, 12)
            hmi.wait_for_json(f"{HERE}/state", lambda s: s["mode"] == "unknown")
            advised = hmi.wait_for_json(
                f"{HERE}/event", lambda e: (e["alarm"], e["event"]) == ("unknown-mode", "raise")
            )
            assert (advised["state"], advised["priority"]) == ("UNACK", 4)
            hmi.wait_for(f"{HERE}/level", lambda p: p == b"1")
            line.run(FULL, 6)
            daemon_states = [s for s in states(hmi) if s["ts"] > began_ms + 1500 and s["ts"] < began_ms + 12_000]
            unknown = [s for s in daemon_states if s["mode"] == "unknown"]
            assert len(unknown) > 10
            assert all(s["score"] == -1 and s["running"] == 1 and s["fault"] == "" for s in unknown)
            assert not any(e["active"] for e in events(hmi, "anomaly"))
            assert cli_json(config, "status")["machines"][MACHINE]["mode"] in ("full", "unknown")

            began_ms = line.run(FULL, 12, tone_hz=2710.37, tone=1.0)
            raised = hmi.wait_for_json(f"{HERE}/event", lambda e: (e["alarm"], e["active"]) == ("anomaly", 1))
            assert (raised["mode"], raised["top_channel"]) == ("full", "vib")
            assert raised["ts_onset"] > began_ms
            outlet.close()
            assert daemon.running


@pytest.mark.slow
def test_a_tag_says_the_mode_and_one_that_was_not_enrolled_is_unknown(tmp_path: Path) -> None:
    with Mosquitto(tmp_path) as broker, Hmi(broker.port) as hmi:
        config = small_config(tmp_path / "edge", machines=TAGGED, broker_port=broker.port)
        recording = record(tmp_path / "normal.npz", seconds=30)
        refused = cli(config, "enroll", "--machine", MACHINE, "--from", recording)
        assert refused.returncode == 1
        assert "name the mode with --mode" in refused.stderr
        done = cli(config, "enroll", "--machine", MACHINE, "--from", recording, "--mode", "alloy_7")
        assert done.returncode == 0, done.stderr
        hmi.publish("plc/recipe", "steel", retain=True)
        with Daemon(config):
            outlet = MqttOutlet(broker.port)
            hmi.wait_for(f"{BASE}/status", lambda p: p == b"online")
            at_ns = time.time_ns() // SECOND * SECOND  # the tag has no time of its own: it counts from its arrival

            seq = 0

            def send(seconds: int) -> None:
                nonlocal at_ns, seq
                for frame in ROTOR.frames(T0_NS + 40 * SECOND, T0_NS + (40 + seconds) * SECOND):
                    t_ns = frame.t_ns - T0_NS - 40 * SECOND + at_ns
                    payload = encode("fisher-frame/1", frame.samples, t_ns=t_ns, rate_hz=8000.0, seq=seq)
                    outlet.send(f"raw/{MACHINE}/vib", payload)
                    seq += 1
                at_ns += seconds * SECOND

            send(10)
            hmi.wait_for_json(f"{HERE}/state", lambda s: (s["mode"], s["score"]) == ("unknown", -1))
            at = f'{{"mode": "alloy_7", "t": {at_ns // 1_000_000}}}'
            hmi.publish("plc/recipe", at)
            time.sleep(0.5)  # a tag and samples have no order between them
            send(10)
            state = hmi.wait_for_json(f"{HERE}/state", lambda s: s["mode"] == "alloy_7" and s["score"] >= 0)
            assert state["score"] < 1
            assert not events(hmi, "anomaly")
            outlet.close()


@pytest.mark.slow
def test_a_maintenance_outlives_a_restart_and_what_is_learnt_waits_to_be_accepted(tmp_path: Path) -> None:
    with Mosquitto(tmp_path) as broker, Hmi(broker.port) as hmi:
        config = small_config(tmp_path / "edge", broker_port=broker.port)
        enrol(config, record(tmp_path / "normal.npz", seconds=30))
        first = cli_json(config, "machines")[0]["bank"]
        until_ms = time.time_ns() // 1_000_000 + 15_000
        with Store.open(config.parent / "state", max_outbox_bytes=10**6) as store:
            window = {"since_ms": until_ms - 60_000, "until_ms": until_ms, "by": "anna"}
            store.set_meta(f"maintenance/{MACHINE}", json.dumps(window))
        with Daemon(config) as daemon:
            outlet = MqttOutlet(broker.port)
            hmi.wait_for(f"{BASE}/status", lambda p: p == b"online")
            assert call(config, "status").stdout.count("in maintenance until") == 1
            for seq, frame in enumerate(ROTOR.frames(T0_NS + 60 * SECOND, T0_NS + 90 * SECOND)):
                payload = encode("fisher-frame/1", frame.samples, t_ns=frame.t_ns, rate_hz=8000.0, seq=seq)
                outlet.send(f"raw/{MACHINE}/vib", payload)
            ended = daemon.wait_for_event("maintenance_ended", timeout_s=60)
            assert ended["learnt"] is True
            said = call(config, "status").stdout
            assert f"bank {ended['bank']} was learnt in the maintenance and waits" in said
            assert "in maintenance" not in said.replace("in the maintenance", "")
            assert cli_json(config, "machines")[0]["bank"] == first

            looked = call(config, "enroll", "--machine", MACHINE, "--accept", "--dry-run")
            assert "would be judged by" in looked.stdout
            assert "back-test: in the 0.5 minutes of normal running" in looked.stdout
            assert cli_json(config, "machines")[0]["bank"] == first
            accepted = call(config, "enroll", "--machine", MACHINE, "--accept")
            assert (accepted.returncode, ended["bank"] in accepted.stdout) == (0, True)
            assert cli_json(config, "machines")[0]["bank"] == ended["bank"]
            back = call(config, "rollback", "--machine", MACHINE)
            assert first in back.stdout
            assert "back-test:" in back.stdout
            outlet.close()
