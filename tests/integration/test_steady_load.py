"""Sixteen channels of 25.6 kHz in real time for two minutes: nothing is dropped and memory does not grow."""

import json
import os
import statistics
import time
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fisher_agent.wire import FRAME_DTYPES, HEADER, MAGIC
from integration.harness import BASE, Daemon, Hmi, MqttOutlet, cli_json, write_config
from sender import Sender
from servers.mosquitto import Mosquitto
from servers.victoria import VictoriaMetrics

MACHINES = tuple(f"mill-{n}" for n in range(4))
# Four take 1.1 of a core of the box that README speaks of; three leave a slower one its margin.
EACH = int(os.environ.get("FISHER_LOAD_CHANNELS", "3"))
CHANNELS = tuple(f"vib-{n}" for n in range(EACH))
RATE_HZ = 25600
BLOCK_S, BLOCK = 0.2, 5120  # 20 kB of float32
LENGTH_S, HOP_S = 5.0, 2.5  # the defaults
RUN_S, ENROLL_S = 120, 45
MAX_RSS = 480e6  # 64 MB of it what is remembered for captures (capture.ring_mb)
# From the third quarter to the last: until then what is remembered for captures fills.
MAX_GROWTH = 1.03
F32 = next(code for code, dtype in FRAME_DTYPES.items() if dtype == np.float32)
PLANT = "\n".join(
    f'[[machines]]\nid = "{m}"\n[machines.defaults]\nsource = "plant"\nkind = "vibration"\nunit = "g"\n'
    f'topic = "raw/{{machine}}/{{channel}}"\nformat = "fisher-frame/1"\nrate_hz = {RATE_HZ}\n'
    + "\n".join(f'[[machines.channels]]\nid = "{c}"' for c in CHANNELS)
    for m in MACHINES
)


def signal(seed: int, seconds: float) -> np.ndarray:
    """Noise over a few tones, such as a gear makes: (n,) float32."""
    random = np.random.default_rng(seed)
    t_s = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    tones = sum(np.sin(2 * np.pi * hz * t_s) for hz in (29.0, 725.0, 3100.0))
    return (0.1 * random.standard_normal(len(t_s)) + 0.05 * tones).astype(np.float32)


class Load(Sender):
    """A thread that publishes every channel's next block every 0.2 s; what it sends was made before, for its own CPU
    time is taken from the daemon's."""

    def __init__(self, outlet: MqttOutlet, *, seconds: int) -> None:
        # A length that is no multiple of the hop, so that no window comes twice.
        blocks = [[b.tobytes() for b in signal(n, 7.4).reshape(-1, BLOCK)] for n in range(len(CHANNELS))]
        self.start_ns = time.time_ns() // 10_000_000_000 * 10_000_000_000
        self._plan = [(f"raw/{m}/{c}", cycle(own)) for m in MACHINES for c, own in zip(CHANNELS, blocks, strict=True)]
        self._turns = round(seconds / BLOCK_S)
        self._outlet = outlet
        super().__init__("load")

    def ended(self, *, timeout_s: float) -> bool:
        """Wait so long for its end."""
        self.thread.join(timeout_s)
        return not self.thread.is_alive()

    def send(self) -> None:
        began_s = time.monotonic()
        for turn in range(self._turns):
            if self.halt.wait(max(0.0, began_s + turn * BLOCK_S - time.monotonic())):
                return
            t_ns = self.start_ns + turn * round(BLOCK_S * 1e9)
            header = HEADER.pack(MAGIC, F32, 1, 0, t_ns, RATE_HZ, turn, BLOCK)
            for topic, blocks in self._plan:
                self._outlet.send(topic, header + next(blocks))


def rss_bytes(pid: int) -> int:
    """Resident memory of a process, as the kernel counts it."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:"))


def cpu_s(pid: int) -> float:
    """Seconds of processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.slow
def test_many_channels_in_real_time_lose_nothing_and_memory_stays_flat(tmp_path: Path) -> None:
    recording = tmp_path / "normal.npz"
    normal: dict[str, Any] = {c: signal(100 + n, ENROLL_S) for n, c in enumerate(CHANNELS)}
    np.savez(recording, rate_hz=RATE_HZ, t_ns=0, **normal)
    with (
        Mosquitto(tmp_path / "broker") as broker,
        VictoriaMetrics(tmp_path / "victoria") as db,
        Hmi(broker.port) as hmi,
    ):
        config = write_config(
            tmp_path, broker_port=broker.port, influx=f'url = "{db.url}"', machines=PLANT, window_s=None
        )
        outlet = MqttOutlet(broker.port)
        with Daemon(config) as daemon:
            for machine in MACHINES:
                cli_json(config, "enroll", "--machine", machine, "--from", recording)
            rss, used_s = [], [cpu_s(daemon.pid)]
            with Load(outlet, seconds=RUN_S) as load:
                while not load.ended(timeout_s=1.0):
                    rss.append(rss_bytes(daemon.pid))
                used_s.append(cpu_s(daemon.pid))
                end_ms = (load.start_ns + round((RUN_S - (RUN_S - LENGTH_S) % HOP_S) * 1e9)) // 1_000_000
                for machine in MACHINES:
                    hmi.wait_for_json(f"{BASE}/{machine}/state", lambda s: s["ts"] == end_ms)
            outlet.close()
            assert daemon.stop() == 0

        moments = int((RUN_S - LENGTH_S) / HOP_S) + 1
        windows = len(MACHINES) * len(CHANNELS) * moments
        health = json.loads(hmi.last(f"{BASE}/health"))
        quarters = [statistics.median(q) for q in zip(*[iter(rss)] * (len(rss) // 4), strict=False)]
        cpu = (used_s[1] - used_s[0]) / RUN_S
        latencies = [v for s in db.series("fisher_score_latency_ms", points=4 * moments) for v in s["values"]]
        print(
            f"\n{len(MACHINES) * EACH} channels of 25.6 kHz for {RUN_S} s: {windows} windows, "
            f"CPU {cpu:.0%} of a core; RSS "
            + ", ".join(f"{q / 1e6:.1f}" for q in quarters)
            + f" MB per quarter, highest {max(rss) / 1e6:.1f}; latency median {statistics.median(latencies):.0f} ms, "
            f"p95 {np.quantile(latencies, 0.95):.0f} ms, highest {max(latencies):.0f}; last health {health}"
        )
        account = daemon.wait_for_event("windows_account")
        assert account["balanced"]
        assert (account["made"], account["embedded"], account["dropped"]) == (windows, windows, 0)
        assert len(latencies) == len(MACHINES) * moments
        assert (health["dropped"], health["late"], health["rejected"]) == (0, 0, 0)
        assert max(rss) < MAX_RSS
        assert quarters[3] < MAX_GROWTH * quarters[2]
