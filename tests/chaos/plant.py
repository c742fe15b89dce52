"""A whole plant for chaos: a broker, a database, an HMI, two machines with sensors, and the agent between them.

One machine is always well, so every `anomaly` of it is a false alarm. The other one is faulty every now and then, so
that alarms flow. All that the agent hears and says passes gateways that can be broken.
"""

import contextlib
import json
import sqlite3
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import numpy as np

from chaos.gateway import Gateway
from chaos.rigged import FILE
from fisher_agent import durable
from fisher_agent.sources.synthetic import RotatingMachine
from fisher_agent.stages import Point
from fisher_agent.store import Store
from integration.harness import BASE, SITE, Daemon, Hmi, MqttOutlet, Sensors, cli, write_config
from servers.mosquitto import Mosquitto
from servers.victoria import VictoriaMetrics

WELL, ILL = "mill-well", "mill-ill"
RATE_HZ = 8000
ENROLLED_S = 60
KEEPALIVE_S = 4
STALE_S = 6.0
MACHINES = "".join(
    f"""
[[machines]]
id = "{machine}"
[machines.alarm]
on_delay_windows = 3
off_delay_windows = 3
[[machines.channels]]
id = "vib"
kind = "vibration"
unit = "g"
rate_hz = {RATE_HZ}
source = "plant"
topic = "raw/{machine}/vib"
format = "fisher-frame/1"
stale_s = {STALE_S}
"""
    for machine in (WELL, ILL)
)


class FieldOutlet(MqttOutlet):
    """A sensor's connection that can send twice, in the wrong order, or with a clock that is off."""

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self.twice = self.swapped = self.muted = False
        self.clock_off_ns = self.drift_ns = 0  # the latter with every message
        self._held: tuple[str, bytes] | None = None

    def send(self, topic: str, payload: bytes) -> None:
        """Publish one message, or what is left of it."""
        if self.muted:
            return
        self.clock_off_ns += self.drift_ns
        if self.clock_off_ns:
            (t_ns,) = struct.unpack_from("<q", payload, 8)
            payload = payload[:8] + struct.pack("<q", t_ns + self.clock_off_ns) + payload[16:]
        if self.swapped and self._held is None:
            self._held = topic, payload
            return
        for _ in range(1 + self.twice):
            super().send(topic, payload)
        if self._held is not None:
            held, self._held = self._held, None
            super().send(*held)


class Plant:
    """Everything of it; `with Plant(folder) as plant:` begins with both machines enrolled, watched and well."""

    def __init__(self, folder: Path, *, seed: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.broker = Mosquitto(folder / "broker", persistence=True)
        self.db = VictoriaMetrics(folder / "db")
        self.to_broker = Gateway(self.broker.port)
        self.to_db = Gateway(self.db.port)
        self.lost_ms: list[tuple[int, int]] = []  # points of these times may be missing: a database lied about them
        self.journal_from: dict[tuple[str, str], int] = {}  # alarm -> seq before a database of ours was damaged
        self.scores_seen: set[tuple[str, int]] = set()  # (machine, ms) that were found in the database
        self.transitions_seen: set[tuple[str, str, int]] = set()  # (machine, alarm, seq) of the journal
        self.evicted_fillers = 0  # points of no machine that had to go
        self.hmi_missed: set[str] = set()  # machines whose HMI may not have heard everything
        self.heard_from: dict[str, tuple[int, int]] = {}  # machine -> so many events were heard, and stored, before
        self.config = write_config(
            folder,
            broker_port=self.to_broker.port,
            influx=f'url = "http://127.0.0.1:{self.to_db.port}"\nbucket = "condition"\ntimeout_s = 2.0',
            machines=MACHINES,
            window_s=(1.0, 0.5),
            extra="[capture]\nbefore_s = 2.0\nafter_s = 1.0\nmax_mb = 4.0",
            mqtt=f"keepalive_s = {KEEPALIVE_S}",
        )
        self.daemon = Daemon(self.config, module="chaos.rigged")
        self._machines = {
            name: RotatingMachine(name, seed=seed + n, channels=(("vib", "vibration", float(RATE_HZ)),))
            for n, name in enumerate((WELL, ILL))
        }
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        try:
            self._enrol()
            for part in (self.broker, self.db, self.to_broker, self.to_db):
                self._stack.enter_context(part)
            self.hmi = self._stack.enter_context(Hmi(self.broker.port))
            self.daemon.start()
            self.outlets = {name: FieldOutlet(self.broker.port) for name in self._machines}
            self.sensors = {}
            for name, machine in self._machines.items():
                self._stack.callback(self.outlets[name].close)
                sensors = Sensors(self.outlets[name], machine=machine, speed=1.0)
                self.sensors[name] = self._stack.enter_context(sensors)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.daemon.kill()
        self._stack.close()

    @property
    def state_dir(self) -> Path:
        """Where the agent keeps all that it must not lose."""
        return self.folder / "state"

    def hmi_was_away(self) -> None:
        """Events of this time need not have been heard."""
        self.hmi_missed = {WELL, ILL}

    def rig(self, **how: str | float) -> None:
        """Set what is rigged in the agent's box (`chaos.rigged`); without arguments: nothing is."""
        durable.write(self.folder / FILE, json.dumps(how).encode())

    def fill_outbox(self, n: int) -> None:
        """Let so many points of no machine wait for the database, while the agent is down."""
        t_ns = time.time_ns() - 3600 * 10**9
        points = [Point("filler", (("site", SITE),), (("value", 1.0),), t_ns + k * 10**6) for k in range(n)]
        with Store.open(self.state_dir, max_outbox_bytes=10**9) as store:
            store.add_points(points)

    def ill(self, now: bool) -> None:
        """Let the fault of the machine that has one begin, or be mended."""
        if now:
            self.sensors[ILL].fault_now()
        else:
            self.sensors[ILL].fault_from_ns = None

    def scores(self, machine: str) -> int:
        """How many scores of a machine an HMI has heard."""
        return self.hmi.count(f"{BASE}/{machine}/score")

    def settle(self, *, timeout_s: float = 60.0) -> float:
        """Wait until everything works again: scores come and nothing waits for the database. Returns the seconds."""
        began_s = time.monotonic()
        if not self.daemon.running:
            self.daemon.start()
        for machine in self._machines:
            self.hmi.wait_for(f"{BASE}/{machine}/score", after=self.scores(machine) + 2, timeout_s=timeout_s)
        self.hmi.wait_for(
            f"{BASE}/status",
            lambda word: word == b"online",
            after=max(0, self.hmi.count(f"{BASE}/status") - 1),
            timeout_s=timeout_s,
        )
        while self.counter("influx", "held") > 100:  # two machines make 9 points in a window
            assert time.monotonic() < began_s + 2 * timeout_s, "the outbox is not written to the database"
            time.sleep(0.2)
        return time.monotonic() - began_s

    def counter(self, queue: str, name: str) -> int:
        """A counter of the outbox, as it is on the disk."""
        with self.database() as db:
            (value,) = db.execute("SELECT value FROM counter WHERE queue = ? AND name = ?", (queue, name)).fetchone()
        return int(value)

    @contextlib.contextmanager
    def database(self) -> Iterator[sqlite3.Connection]:
        """The agent's database, read beside it."""
        uri = f"file:{self.state_dir}/state.db?mode=ro"
        with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=10)) as db:
            yield db

    def journal(self) -> list[dict[str, Any]]:
        """Every transition on the disk, oldest first."""
        with self.database() as db:
            return [json.loads(body) for (body,) in db.execute("SELECT body FROM journal ORDER BY id")]

    def usage(self) -> dict[str, int]:
        """Memory (bytes), open files and threads of the agent."""
        status = Path(f"/proc/{self.daemon.pid}/status").read_text()
        told = dict(line.split(":", 1) for line in status.splitlines())
        return {
            "rss_bytes": int(told["VmRSS"].split()[0]) * 1024,
            "files": len(list(Path(f"/proc/{self.daemon.pid}/fd").iterdir())),
            "threads": int(told["Threads"]),
        }

    def _enrol(self) -> None:
        start_ns = time.time_ns() - 3600 * 10**9
        for name, machine in self._machines.items():
            made = [f.samples for f in machine.frames(start_ns, start_ns + ENROLLED_S * 10**9)]
            path = self.folder / f"{name}.npz"
            np.savez(path, vib=np.concatenate(made), rate_hz=float(RATE_HZ), t_ns=start_ns)
            done = cli(self.config, "enroll", "--machine", name, "--from", path, timeout_s=240)
            assert done.returncode == 0, done.stderr
