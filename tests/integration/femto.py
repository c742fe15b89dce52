"""A bearing's recorded life (FEMTO) through the real daemon at a thousand times real time, as snapshots."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fisher_agent.wire import encode
from fisher_models.recordings import from_manifest
from integration.harness import BASE, Daemon, Hmi, MqttOutlet, cli_json, write_config
from integration.recorded import DATA
from servers.mosquitto import Mosquitto
from servers.process import free_port

MANIFEST = DATA / "femto_bearing" / "manifest.csv"
BEARING = "Bearing1_1"
RIG = "pronostia"
SPEED = 1000.0
ENROLLED_S = 4000  # the first hundred snapshots, as the evaluation takes the first quarter for normal
PERIOD_S = 40.0
CHANNELS = ("horizontal", "vertical")
HERE = f"{BASE}/{RIG}"
START_NS = 1_760_000_000_000_000_000
# The rig's bearings: R. Nectoux et al., PRONOSTIA, IEEE PHM 2012: 13 balls of 3.5 mm on 25.6 mm; 1800 rpm.
MACHINE = f"""
[[machines]]
id = "{RIG}"
shaft_hz = 30.0
[[machines.bearings]]
id = "{BEARING}"
balls = 13
ball_mm = 3.5
pitch_mm = 25.6
""" + "".join(
    f"""
[[machines.channels]]
id = "{channel}"
kind = "vibration"
unit = "g"
rate_hz = 25600
capture = "snapshot"
period_s = {PERIOD_S}
stale_s = 3600
source = "plant"
topic = "raw/{RIG}/{channel}"
format = "fisher-frame/1"
"""
    for channel in CHANNELS
)


@dataclass
class Life:
    """Sends the snapshots in their order; `sent` of `count` are out."""

    outlet: MqttOutlet
    snapshots: dict[str, np.ndarray]  # channel -> (n, 2560)
    sent: int = 0
    over: threading.Event = field(default_factory=threading.Event)

    @property
    def count(self) -> int:
        return len(next(iter(self.snapshots.values())))

    def run(self) -> None:
        began_s = time.monotonic()
        for k in range(self.count):
            t_ns = START_NS + round(k * PERIOD_S * 1e9)
            for channel, snapshots in self.snapshots.items():
                payload = encode("fisher-frame/1", snapshots[k], t_ns=t_ns, rate_hz=25600.0, seq=k)
                self.outlet.send(f"raw/{RIG}/{channel}", payload)
            self.sent = k + 1
            if self.over.wait(max(0.0, began_s + (k + 1) * PERIOD_S / SPEED - time.monotonic())):
                return


@dataclass(frozen=True)
class Running:
    """The story while it is told."""

    config: Path
    url: str
    hmi: Hmi
    life: Life


def snapshots() -> dict[str, np.ndarray]:
    """Channel -> (n, 2560), in g."""
    found = {}
    for recording in from_manifest(MANIFEST):
        if recording.file == f"{BEARING}_acc.flac":
            found[recording.channel] = recording.samples().reshape(-1, 2560).astype(np.float32)
    return found


@contextmanager
def told(folder: Path) -> Iterator[Running]:
    """Broker, daemon with its page, the bearing running; enrolled on its first snapshots, the rest follows."""
    with Mosquitto(folder) as broker, Hmi(broker.port) as hmi:
        port = free_port()
        config = write_config(
            folder, broker_port=broker.port, machines=MACHINE, window_s=None, extra=f"[page]\nport = {port}"
        )
        outlet = MqttOutlet(broker.port)
        life = Life(outlet, snapshots())
        with Daemon(config):
            sender = threading.Thread(target=life.run, name="bearing", daemon=True)
            sender.start()
            try:
                cli_json(config, "enroll", "--machine", RIG, "--duration", f"{ENROLLED_S}s", timeout_s=120)
                yield Running(config, f"http://127.0.0.1:{port}/", hmi, life)
            finally:
                life.over.set()
                sender.join()
                outlet.close()
