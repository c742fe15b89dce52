"""What is written down while the load runs: latencies as an HMI sees them, and what the processes take."""

import json
import os
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from integration.harness import BASE
from soak.plant import ILL_EVERY_S, names

TICK = os.sysconf("SC_CLK_TCK")
LATE_MS = 5000.0  # two hops
GAUGES = ("fisher_tasks", "process_threads", "process_open_fds", "process_resident_memory_bytes")


class Listener:
    """An HMI that keeps no messages, only how late they came: ms from a window's last sample to the HMI."""

    def __init__(self, port: int) -> None:
        self.to_state: list[tuple[float, float]] = []  # (when, in s; how late, in ms) of every verdict
        self.to_alarm: list[tuple[float, float]] = []  # of every raise of an anomaly
        self.raised: Counter[str] = Counter()  # by machine
        self._latest: dict[str, int] = {}  # by topic: the state is sent again every minute, as old as it is
        self._lock = threading.Lock()
        self._client = paho.Client(CallbackAPIVersion.VERSION2)
        self._client.on_connect = lambda client, *_: client.subscribe([(f"{BASE}/+/state", 0), (f"{BASE}/+/event", 1)])
        self._client.on_message = self._take
        self._client.connect("127.0.0.1", port)

    def __enter__(self) -> Self:
        self._client.loop_start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def forget(self) -> None:
        """What came so far was of the warm-up."""
        with self._lock:
            self.to_state, self.to_alarm, self.raised = [], [], Counter()

    def _take(self, _client: object, _data: object, message: paho.MQTTMessage) -> None:
        if message.retain:
            return
        now_s = time.time()
        said = json.loads(message.payload)
        with self._lock:
            if message.topic.endswith("/state"):
                if said["ts"] <= self._latest.get(message.topic, 0):
                    return
                self._latest[message.topic] = said["ts"]
                self.to_state.append((now_s, now_s * 1e3 - said["ts"]))
            elif said["event"] == "raise" and said["alarm"] == "anomaly":
                self.raised[said["machine"]] += 1
                self.to_alarm.append((now_s, now_s * 1e3 - said["ts_raised"]))


def metrics(port: int) -> dict[str, float]:
    """The gauges that may not grow, as the page tells Prometheus."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as reply:
        lines = reply.read().decode().splitlines()
    return {name: float(value) for line in lines for name, _, value in [line.partition(" ")] if name in GAUGES}


def cpu_s(pid: int) -> float:
    """Processor time of a process and of nobody else."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def busy_s() -> tuple[float, float]:
    """Processor time that the box has spent on anything, and all there was."""
    user, nice, system, idle, iowait, irq, softirq, steal = map(
        int, Path("/proc/stat").read_text().splitlines()[0].split()[1:9]
    )
    busy = user + nice + system + irq + softirq + steal
    return busy / TICK, (busy + idle + iowait) / TICK


def slope_per_h(samples: Sequence[tuple[float, float]]) -> float:
    """How fast a value grows, per hour: the median of the slopes between all pairs (Theil 1950, Sen 1968)."""
    t, v = np.array(samples, np.float64).T
    i, j = np.triu_indices(len(t), 1)
    return float(np.median((v[j] - v[i]) / (t[j] - t[i])) * 3600)


def quantiles(late: Sequence[tuple[float, float]]) -> dict[str, float]:
    """ms: median, p95, p99 and the highest; NaN where nothing came."""
    values = [ms for _, ms in late]
    found = np.quantile(values, [0.5, 0.95, 0.99, 1.0]) if values else [float("nan")] * 4
    return dict(zip(("median", "p95", "p99", "highest"), (float(np.round(q)) for q in found), strict=True))


def wrong(report: dict[str, Any]) -> list[str]:
    """What a soak may not show."""
    well = names(report["machines"])[1:]
    ill = int(report["seconds"] / ILL_EVERY_S)  # times that the first machine fell ill
    grown = {
        f"{what} went from {report[what][0]:.0f} to {report[what][1]:.0f}": report[what][1] > report[what][0]
        for what in ("files", "tasks", "threads")
    }
    found = {
        f"memory grows by {report['rss_mb_per_h']:.2f} MB/h": report["rss_mb_per_h"] >= 1.0,
        **grown,
        f"{report['dropped']} windows were dropped, {report['late']} late": report["dropped"] + report["late"] > 0,
        f"the sensors were {report['sender_late_s']:.1f} s late themselves": report["sender_late_s"] > 1.0,
        f"p99 of window to verdict is {report['window_to_state_ms']['p99']} ms": not (
            report["window_to_state_ms"]["p99"] < LATE_MS
        ),
        f"false alarms: {report['raised']}": any(m in report["raised"] for m in well),
        f"{sum(report['raised'].values())} alarms of {ill} illnesses": sum(report["raised"].values()) < ill - 1,
    }
    return [words for words, is_so in found.items() if is_so]
