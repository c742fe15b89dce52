"""What the integration tests share: a real daemon, an independent HMI, and sensors that send what a machine does."""

# Over 400 lines: the daemon, the HMI and the sensors of every integration test; they only make sense side by side.

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import paho.mqtt.client as paho
import pytest
import zmq
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from fisher_agent.sources.synthetic import RotatingMachine
from fisher_agent.stages import Frame
from fisher_agent.wire import encode

TESTS = Path(__file__).resolve().parent.parent
AGENT = "fisher_agent.cli"
SITE, EDGE, MACHINE = "plant1", "edge-1", "mill-01"
BASE = f"fisher/v1/{SITE}/{EDGE}"
MILL = """
[[machines]]
id = "mill-01"
[machines.defaults]
source = "plant"
topic = "raw/{machine}/{channel}"
format = "fisher-frame/1"
[[machines.channels]]
id = "vib"
kind = "vibration"
unit = "g"
rate_hz = 25600
[[machines.channels]]
id = "cur"
kind = "current"
unit = "A"
rate_hz = 12800
[[machines.channels]]
id = "mic"
kind = "sound"
unit = "Pa"
rate_hz = 16000
"""
"""The channels of a `RotatingMachine` as it is by default."""


PLAIN_MODEL = '[model]\nprecision = "f32"\nthreads = 2'  # nothing to probe: every start is fast, and the same


def write_config(
    folder: Path,
    *,
    broker_port: int | None = None,  # of the plant's broker; None: no [mqtt]
    source: str | None = None,  # the url of the source "plant"; default: the plant's broker
    influx: str = "",  # the body of [influx], such as 'url = "..."\nbucket = "condition"'
    machines: str = MILL,
    window_s: tuple[float, float] | None = (2.0, 1.0),  # length, hop; None: the default
    extra: str = "",  # more tables
    mqtt: str = "",  # more keys of [mqtt]
) -> Path:
    """Write `folder`/config.toml with its state in `folder`/state; returns its path."""
    parts = [
        f'site = "{SITE}"\nedge = "{EDGE}"\nstate_dir = "{folder}/state"\ncontrol_socket = "{folder}/state/ctl.sock"'
    ]
    if window_s:
        parts.append(f"[window]\nlength_s = {window_s[0]}\nhop_s = {window_s[1]}")
    if broker_port is not None:
        parts.append(f'[mqtt]\nurl = "mqtt://127.0.0.1:{broker_port}"\n{mqtt}')
        source = source or f"mqtt://127.0.0.1:{broker_port}"
    if "[page]" not in extra:
        extra = f"[page]\nenabled = false\n{extra}"  # daemons of other tests run beside this one
    if "[model]" not in extra:
        extra = f"{PLAIN_MODEL}\n{extra}"
    if influx:
        parts.append(f"[influx]\n{influx}")
    if source is not None:
        kind = "mqtt" if source.startswith("mqtt") else "zmq"
        parts.append(f'[[sources]]\nname = "plant"\ntype = "{kind}"\nurl = "{source}"')
    path = folder / "config.toml"
    path.write_text("\n\n".join([*parts, extra, machines]) + "\n")
    return path


def environment() -> dict[str, str]:
    """Ours without what would change the agent's behaviour."""
    return {k: v for k, v in os.environ.items() if k not in ("FISHER_CONFIG", "NOTIFY_SOCKET", "WATCHDOG_USEC")}


def cli(config: Path, *arguments: str | Path, timeout_s: float = 60.0) -> subprocess.CompletedProcess[str]:
    """Run `fisher-agent ... --config` as a user does, and return whatever comes of it."""
    command = [sys.executable, "-m", "fisher_agent.cli", *map(str, arguments), "--config", str(config)]
    return subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        env=environment(),
        check=False,
    )


def cli_json(config: Path, *arguments: str | Path, timeout_s: float = 60.0) -> Any:
    """Run a command with --json; the test fails, with what it said, where it does not end with 0."""
    done = cli(config, *arguments, "--json", timeout_s=timeout_s)
    assert done.returncode == 0, f"{arguments} ended with {done.returncode}: {done.stderr[-3000:]}"
    return json.loads(done.stdout)


class Daemon:
    """`fisher-agent run` as a child process; its log, one JSON object per line, is read while it runs.

    It can be started again after `stop` or `kill`; `events` are those of the present life, the file holds all.
    """

    def __init__(
        self, config: Path, *, log: Path | None = None, module: str = AGENT, inside: Sequence[str] = ()
    ) -> None:
        """`module` is what `python -m` runs: the agent's command line, or something that ends in it.

        `inside` comes before the command, such as what starts it in a network of its own (and is replaced by it).
        """
        self.config = config
        self._module = module
        self._inside = inside
        self.log = log or config.with_name("daemon.log")
        self.events: list[dict[str, Any]] = []
        self._news = threading.Condition()
        self._process: subprocess.Popen[bytes] | None = None
        self._pump: threading.Thread | None = None
        self._over = True  # nothing more will be logged

    @property
    def pid(self) -> int:
        """The process id; AssertionError where it is not running."""
        assert self._process is not None, "the daemon is not running"
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process is there."""
        return self._process is not None and self._process.poll() is None

    def start(self, *, ready_s: float = 90.0) -> Self:
        """Start it and return when it logs `ready`."""
        self.launch()
        self.wait_for_event("ready", timeout_s=ready_s)
        return self

    def launch(self) -> None:
        """Start it and return at once."""
        assert self._process is None, "the daemon runs already"
        self.events = []
        self._over = False
        self._process = subprocess.Popen(
            [*self._inside, sys.executable, "-m", self._module, "run", "--config", str(self.config)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=environment() | ({} if self._module == AGENT else {"PYTHONPATH": str(TESTS)}),
        )
        self._pump = threading.Thread(target=self._read, name="daemon log", daemon=True)
        self._pump.start()

    def wait_for_event(self, event: str, *, timeout_s: float = 60.0, after: int = 0, **fields: Any) -> dict[str, Any]:
        """The first log line of this life with that event and those fields; fails where it never comes.

        `after` skips so many `events`: those that are known from before.
        """

        def found() -> dict[str, Any] | None:
            wanted = {"event": event, **fields}
            return next((e for e in self.events[after:] if all(e.get(k) == v for k, v in wanted.items())), None)

        with self._news:
            self._news.wait_for(lambda: found() or self._over, timeout_s)
            line = found()
        if line is None:
            pytest.fail(f"the daemon never logged {event} {fields} in {timeout_s} s:\n{self.tail()}")
        return line

    def tail(self, characters: int = 4000) -> str:
        """The end of the log."""
        return self.log.read_text(errors="replace")[-characters:] if self.log.exists() else ""

    def stop(self, *, timeout_s: float = 30.0) -> int:
        """SIGTERM, wait; returns the exit code."""
        assert self._process is not None, "the daemon is not running"
        self._process.send_signal(signal.SIGTERM)
        return self.wait(timeout_s=timeout_s)

    def signal(self, number: int) -> None:
        """Send a signal such as SIGHUP."""
        os.kill(self.pid, number)

    def wait(self, *, timeout_s: float = 30.0) -> int:
        """Wait for its end; returns the exit code; fails, and kills it, where it does not end."""
        assert self._process is not None, "the daemon is not running"
        try:
            code = self._process.wait(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
            pytest.fail(f"the daemon does not end within {timeout_s} s:\n{self.tail()}")
        self._forget()
        return code

    def kill(self) -> None:
        """SIGKILL: a power cut, as far as the process can tell."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._forget()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is None:
            return
        if kind is None:
            self.stop()
        else:
            self.kill()

    def _forget(self) -> None:
        assert self._process is not None and self._pump is not None
        self._pump.join()
        assert self._process.stderr is not None
        self._process.stderr.close()
        self._process = self._pump = None

    def _read(self) -> None:
        assert self._process is not None and self._process.stderr is not None
        with self.log.open("ab") as log:
            for line in self._process.stderr:
                log.write(line)
                log.flush()
                event = _event(line)
                with self._news:
                    if event is not None:
                        self.events.append(event)
                    self._news.notify_all()
        with self._news:
            self._over = True
            self._news.notify_all()


def _event(line: bytes) -> dict[str, Any] | None:
    """A line of the log; None for what is not JSON, such as a traceback."""
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) else None


class Hmi:
    """An independent MQTT client: records every message under its filters, and publishes commands.

    `heard` maps topic -> payloads in the order of arrival; `order` is everything, across topics.
    """

    def __init__(self, port: int, *, filters: Sequence[str] = ("fisher/#",)) -> None:
        self.heard: dict[str, list[bytes]] = {}
        self.order: list[tuple[str, bytes]] = []
        self._filters = filters
        self._port = port
        self._news = threading.Condition()
        self._subscribed = threading.Event()
        self._client = paho.Client(
            CallbackAPIVersion.VERSION2, client_id=f"hmi-{port}", protocol=MQTTProtocolVersion.MQTTv311
        )
        self._client.reconnect_delay_set(1, 1)
        self._client.on_connect = lambda client, *_: client.subscribe([(f, 1) for f in self._filters])
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.on_message = self._take

    def __enter__(self) -> Self:
        self._client.connect("127.0.0.1", self._port)
        self._client.loop_start()
        assert self._subscribed.wait(10), "the broker does not answer the HMI's subscription"
        return self

    def __exit__(self, *exc: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def _take(self, _client: object, _data: object, message: paho.MQTTMessage) -> None:
        with self._news:
            payload = bytes(message.payload)
            self.heard.setdefault(message.topic, []).append(payload)
            self.order.append((message.topic, payload))
            self._news.notify_all()

    def count(self, topic: str) -> int:
        """How many messages came on a topic so far."""
        return len(self.heard.get(topic, ()))

    def last(self, topic: str) -> bytes:
        """The latest payload of a topic; KeyError where nothing came."""
        return self.heard[topic][-1]

    def wait_for(
        self,
        topic: str,
        predicate: Callable[[bytes], bool] = lambda _: True,
        *,
        timeout_s: float = 60.0,
        after: int = 0,  # skip so many payloads: those that are known from before
    ) -> bytes:
        """The first payload of a topic that is as wanted, past or future; fails, with the last ones, if none comes."""

        def found() -> bytes | None:
            return next((p for p in self.heard.get(topic, ())[after:] if predicate(p)), None)

        with self._news:
            self._news.wait_for(lambda: found() is not None, timeout_s)
            payload = found()
            last = self.heard.get(topic, ())[-3:]
        if payload is None:
            pytest.fail(f"{topic} never became as wanted within {timeout_s} s; the last of it: {last}")
        return payload

    def wait_for_json(
        self,
        topic: str,
        predicate: Callable[[dict[str, Any]], bool] = lambda _: True,
        *,
        timeout_s: float = 60.0,
        after: int = 0,
    ) -> dict[str, Any]:
        """As `wait_for`, for payloads that are JSON objects."""
        payload = self.wait_for(topic, lambda p: bool(p) and predicate(json.loads(p)), timeout_s=timeout_s, after=after)
        document: dict[str, Any] = json.loads(payload)
        return document

    def publish(self, topic: str, payload: bytes | str, *, qos: int = 1, retain: bool = False) -> None:
        """Publish and wait until the broker has it."""
        self._client.publish(topic, payload, qos=qos, retain=retain).wait_for_publish(10)


class Outlet(Protocol):
    """Where a sensor sends its messages."""

    def send(self, topic: str, payload: bytes) -> None:
        """Send one message."""
        ...

    def close(self) -> None:
        """Close the connection."""
        ...


class MqttOutlet:
    """Sends to a broker with QoS 0, as sensors do; while the broker is away, what is sent is lost."""

    def __init__(self, port: int) -> None:
        self._client = paho.Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv311)
        self._client.reconnect_delay_set(1, 1)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()

    def send(self, topic: str, payload: bytes) -> None:
        """Publish one message."""
        if self._client.is_connected():
            self._client.publish(topic, payload, qos=0)

    def close(self) -> None:
        """Send what is left and disconnect."""
        self._client.disconnect()
        self._client.loop_stop()


class ZmqOutlet:
    """A bound publisher; `url` is what a subscriber connects to. Not thread-safe: one thread sends."""

    def __init__(self) -> None:
        self._context = zmq.Context()
        # XPUB tells of subscriptions, so that nothing is sent before the agent listens.
        self._socket = self._context.socket(zmq.XPUB)
        port = self._socket.bind_to_random_port("tcp://127.0.0.1")
        self.url = f"tcp://127.0.0.1:{port}"

    def wait_for_subscriptions(self, count: int, *, timeout_s: float = 60.0) -> None:
        """Return when so many topics are subscribed to."""
        deadline = time.monotonic() + timeout_s
        for n in range(count):
            left_ms = max(0.0, deadline - time.monotonic()) * 1e3
            assert self._socket.poll(round(left_ms)), f"{n} of {count} subscriptions came within {timeout_s} s"
            self._socket.recv()

    def send(self, topic: str, payload: bytes) -> None:
        """Publish one message."""
        self._socket.send_multipart([topic.encode(), payload])

    def close(self) -> None:
        """Send what is left and close."""
        self._socket.close(linger=1000)
        self._context.term()


class Sensors:
    """A thread that sends a generated machine, stamped fisher-frame/1, at `speed` times real time, until stopped.

    Event time begins at `start_ns`; topics are `raw/<machine>/<channel>`. `fault_now` makes a fault grow from the next
    block on. Every frame that was sent is kept in `sent`.
    """

    def __init__(
        self,
        outlet: Outlet,
        *,
        machine: RotatingMachine | None = None,
        start_ns: int | None = None,
        speed: float = 4.0,
        block_s: float = 0.2,
    ) -> None:
        self.machine = machine or RotatingMachine(MACHINE, seed=7)
        self.sent: list[Frame] = []
        self.start_ns = (time.time_ns() if start_ns is None else start_ns) // 1_000_000_000 * 1_000_000_000
        self.now_ns = self.start_ns  # event time up to which everything was sent
        self.fault_from_ns: int | None = None
        self._outlet = outlet
        self._speed = speed
        self._block_s = block_s
        self._seq = dict.fromkeys((c for c, _, _ in self.machine.channels), 0)
        self._news = threading.Condition()
        self._halt = threading.Event()
        self._thread = threading.Thread(target=self._send, name="sensors", daemon=True)

    def start(self) -> Self:
        """Begin to send."""
        self._thread.start()
        return self

    def stop(self) -> None:
        """Stop after the present block."""
        self._halt.set()
        self._thread.join()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def fault_now(self) -> int:
        """Let the fault begin; returns its onset in event time."""
        with self._news:
            self.fault_from_ns = self.now_ns
        return self.fault_from_ns

    def wait_until(self, t_ns: int, *, timeout_s: float = 60.0) -> None:
        """Return when everything up to that event time was sent."""
        with self._news:
            ahead = self._news.wait_for(lambda: self.now_ns >= t_ns or not self._thread.is_alive(), timeout_s)
        assert ahead and self.now_ns >= t_ns, f"the sensors did not get to {t_ns} within {timeout_s} s"

    def _send(self) -> None:
        began_s = time.monotonic()
        while not self._halt.is_set():
            due_s = began_s + (self.now_ns - self.start_ns) / 1e9 / self._speed
            if self._halt.wait(max(0.0, due_s - time.monotonic())):
                return
            for frame in self._second(self.now_ns):
                self._publish(frame)
            with self._news:
                self.now_ns += 1_000_000_000
                self._news.notify_all()

    def _second(self, t_ns: int) -> Iterator[Frame]:
        return self.machine.frames(t_ns, t_ns + 1_000_000_000, block_s=self._block_s, fault_from_ns=self.fault_from_ns)

    def _publish(self, frame: Frame) -> None:
        self.sent.append(frame)
        payload = encode(
            "fisher-frame/1",
            frame.samples,
            t_ns=frame.t_ns,
            rate_hz=frame.rate_hz,
            seq=self._seq[frame.channel],
        )
        self._seq[frame.channel] += 1
        self._outlet.send(f"raw/{frame.machine}/{frame.channel}", payload)
