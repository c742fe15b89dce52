"""`fisher-agent check`: every mistake at once, what the model sees, and what the sensors really send."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from numpy.typing import NDArray

from fisher_agent.config import Format
from fisher_agent.wire import encode
from integration.harness import MqttOutlet, Outlet, ZmqOutlet, cli, write_config
from integration.small import SMALL, call, call_json, small_config
from servers.mosquitto import Mosquitto
from servers.process import free_port
from servers.victoria import VictoriaMetrics

Doubles = NDArray[np.float64]
RATE_HZ = 8000.0
BLOCK_S = 0.1
LISTEN_S = "2.5"
BITS = {"i16le": 15, "i24le": 23, "i32le": 31}
N = round(RATE_HZ * 10)
RNG = np.random.default_rng(11)
NOISE: Doubles = RNG.normal(size=N)
SINE: Doubles = np.sin(2 * np.pi * 119.83 * np.arange(N) / RATE_HZ)
RUNNING: Doubles = SINE + 0.3 * NOISE


def scale(format_: str, *, full_scale: float = 10.0) -> float:
    return full_scale / 2 ** BITS[format_] if format_ in BITS else 1.0


class Feed:
    """What one topic carries: a signal, as a format."""

    def __init__(self, topic: str, x: Doubles, sent: str, *, rate_hz: float = RATE_HZ, late_s: float = 0.0) -> None:
        self.topic, self._x, self._sent, self._rate_hz, self._late_s = topic, x, sent, rate_hz, late_s

    def payload(self, n: int) -> bytes:
        """The n-th block of 0.1 s."""
        size = round(self._rate_hz * BLOCK_S)
        at = (n * size) % (self._x.shape[-1] - size)
        block = self._x[..., at : at + size] / scale(self._sent)
        t_ns = time.time_ns() - round((BLOCK_S + self._late_s) * 1e9)
        return encode(cast("Format", self._sent), block, t_ns=t_ns, rate_hz=self._rate_hz, seq=n)


@contextmanager
def sending(outlet: Outlet, feeds: list[Feed]) -> Iterator[None]:
    """Send every feed in real time."""
    halt = threading.Event()

    def send() -> None:
        began_s, n = time.monotonic(), 0
        while not halt.wait(max(0.0, began_s + n * BLOCK_S - time.monotonic())):
            for feed in feeds:
                outlet.send(feed.topic, feed.payload(n))
            n += 1

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    try:
        yield
    finally:
        halt.set()
        thread.join()
        outlet.close()


def channel(name: str, configured: str, *, source: str = "plant", more: str = "", topic: str = "", k: float = 0) -> str:
    keys = "" if "unit" in more else 'unit = "g"\n'
    return (
        f'[[machines.channels]]\nid = "{name}"\nkind = "vibration"\n{keys}rate_hz = {RATE_HZ}\nsource = "{source}"\n'
        f'topic = "{topic or "raw/" + name}"\nformat = "{configured}"\nscale = {k or scale(configured)!r}\n{more}\n'
    )


def machine(*channels: str) -> str:
    return '[[machines]]\nid = "mill-01"\n' + "".join(channels)


WRONG: dict[str, tuple[str, Callable[[str], Feed] | None, str]] = {
    # name: configured format and more; what is sent; what the guess says
    "i16-as-f32": ("f32le", lambda t: Feed(t, RUNNING, "i16le"), "looks like i16le, configured f32le"),
    "f32-as-i16": ("i16le", lambda t: Feed(t, RUNNING, "f32le"), "looks like f32le, configured i16le"),
    "i32-as-f32": ("f32le", lambda t: Feed(t, RUNNING, "i32le"), "looks like i32le, configured f32le"),
    "f32-as-i32": ("i32le", lambda t: Feed(t, RUNNING, "f32le"), "looks like f32le, configured i32le"),
    "i24-as-i16": ("i16le", lambda t: Feed(t, RUNNING, "i24le"), "looks like i24le, configured i16le"),
    "f64-as-f32": ("f32le", lambda t: Feed(t, RUNNING, "f64le"), "looks like f64le, configured f32le"),
    "json-as-f32": ("f32le", lambda t: Feed(t, RUNNING, "json"), "looks like json, configured f32le"),
    "f32-as-frame": ("fisher-frame/1", lambda t: Feed(t, RUNNING, "f32le"), "looks like f32le, configured fisher-f"),
    "double-rate": ("f32le", lambda t: Feed(t, RUNNING, "f32le", rate_hz=2 * RATE_HZ), "2 times the configured 8000"),
    "stated-rate": (
        "fisher-frame/1",
        lambda t: Feed(t, RUNNING, "fisher-frame/1", rate_hz=10000),
        "the sender states 10000 samples/s",
    ),
    "counts": ("f32le", lambda t: Feed(t, np.rint(3000 * RUNNING), "f32le"), "converter counts? Set scale"),
    "hour": (
        "fisher-frame/1",
        lambda t: Feed(t, RUNNING, "fisher-frame/1", late_s=3600),
        "clock is -3600",
    ),
    "clipped": ("i16le", lambda t: Feed(t, np.clip(RUNNING, -0.8, 0.8), "i16le"), "clipped"),
    "flat": ("f32le", lambda t: Feed(t, 0 * RUNNING + 0.1, "f32le"), "is the sensor plugged in?"),
    "silent": ("f32le", None, "nothing was heard on 'raw/silent'"),
}


def test_every_wrong_setting_is_guessed_while_listening(tmp_path: Path) -> None:
    feeds = [make(f"raw/{name}") for name, (_, make, _) in WRONG.items() if make]
    with Mosquitto(tmp_path) as broker, sending(MqttOutlet(broker.port), feeds):
        channels = [
            channel(name, configured, k=0.0 if name == "clipped" else 1.0) for name, (configured, _, _) in WRONG.items()
        ]
        config = write_config(tmp_path, broker_port=broker.port, machines=machine(*channels))
        done = call(config, "check", "--connect", "--seconds", LISTEN_S)
    assert done.returncode == 2
    said = [p for p in done.stdout.splitlines() if p.startswith("problem: ")]
    problems = dict(p.removeprefix("problem: mill-01/").split(": ", 1) for p in said)
    assert set(problems) == set(WRONG)
    for name, (_, _, says) in WRONG.items():
        assert says in problems[name]


def test_a_right_configuration_is_answered_with_what_was_measured_and_no_guess(tmp_path: Path) -> None:
    signals = {
        "noise": 0.3 * NOISE,
        "sine": 1.5 * SINE,
        "running": RUNNING,
        "gravity": 1.0 + 0.02 * NOISE,
        "offset": 3.0 + 0.5 * SINE + 0.01 * NOISE,
    }
    formats = (*BITS, "f32le", "f64le", "json", "fisher-frame/1")
    named = {f"{name}-{f.replace('/', '')}": (f, x) for name, x in signals.items() for f in formats}
    feeds = [Feed(f"raw/{name}", x, f) for name, (f, x) in named.items()]
    channels = [channel(name, f) for name, (f, _) in named.items()]
    pair = np.stack([RUNNING, 0.5 * NOISE])
    feeds.append(Feed("raw/pair", pair, "i16le"))
    channels += [
        channel("left", "i16le", topic="raw/pair"),
        channel("right", "i16le", topic="raw/pair", more="index = 1"),
    ]
    outlet = ZmqOutlet()
    channels.append(channel("zmq", "f32le", source="daq"))
    daq = f'[[sources]]\nname = "daq"\ntype = "zmq"\nurl = "{outlet.url}"'
    with (
        Mosquitto(tmp_path) as broker,
        VictoriaMetrics(tmp_path / "db") as db,
        sending(MqttOutlet(broker.port), feeds),
        sending(outlet, [Feed("raw/zmq", RUNNING, "f32le")]),
    ):
        config = write_config(
            tmp_path,
            broker_port=broker.port,
            influx=f'url = "{db.url}"',
            machines=machine(*channels),
            extra=daq,
        )
        document = call_json(config, "check", "--connect", "--seconds", LISTEN_S)
    assert document["problems"] == []
    assert {link["link"]: link["ok"] for link in document["links"]} == {
        "mqtt": True, "mqtt.commands": True, "influx": True, "sources.plant": True, "sources.daq": True,
    }  # fmt: skip
    for view in document["channels"]:
        assert view["guesses"] == []
        assert view["messages"] >= 15
        assert view["measured_rate_hz"] == pytest.approx(RATE_HZ, rel=0.1)
    found = {view["channel"].removeprefix("mill-01/"): view for view in document["channels"]}
    assert found["running-i16le"]["rms"] == pytest.approx(0.768, rel=0.03)
    assert found["gravity-json"]["dc"] == pytest.approx(1.0, rel=0.01)
    assert found["right"]["rms"] == pytest.approx(0.5, rel=0.05)
    assert abs(found["running-fisher-frame1"]["clock_offset_ms"]) < 500


def test_servers_that_are_away_are_named(tmp_path: Path) -> None:
    port = free_port()
    config = small_config(tmp_path, broker_port=port, influx=f'url = "http://127.0.0.1:{port}"')
    done = call(config, "check", "--connect", "--seconds", "1")
    assert done.returncode == 2
    for link in ("mqtt", "influx", "sources.plant"):
        assert any(line.startswith(f"{link}  ") and "NOT REACHED" in line for line in done.stdout.splitlines())
        assert f"problem: {link}: " in done.stdout
    assert done.stdout.splitlines()[-1] == "3 problems"


def test_what_the_model_sees_of_each_channel_is_said(tmp_path: Path) -> None:
    rates = {
        25600: "0-12000 Hz in 3 bands, 12000-12800 Hz is not seen",
        12800: "0-4000 Hz in 1 band, 4000-6400 Hz is not seen",
        8000: "0-4000 Hz in 1 band",
        1000: "0-500 Hz in 1 band",
    }
    head = '[[machines.channels]]\nsource = "plant"\n'
    channels = [f'{head}id = "c{rate}"\nrate_hz = {rate}\ntopic = "raw/{rate}"\n' for rate in rates]
    config = write_config(tmp_path, broker_port=1, machines=machine(*channels))
    done = call(config, "check")
    assert done.returncode == 0
    said = done.stdout.splitlines()
    for rate, sees in rates.items():
        assert f"mill-01/c{rate}  {rate} Hz: {sees}" in said
    assert said[-1] == "no problems found"


@pytest.mark.parametrize(
    ("rate_hz", "said"),
    [
        ("999", "999 Hz: too slow for the model; judged by its value, level, shape and spectrum"),
        ("2", "2 Hz: too slow for the model; judged by its value and spread over the last 40 samples"),
        ("0.0166667", "0.0166667 Hz: too slow for the model; judged by its value over the last 1 sample"),
    ],
)
def test_what_a_channel_is_judged_by_that_the_model_cannot_see(tmp_path: Path, rate_hz: str, said: str) -> None:
    slow = SMALL.replace("8000", rate_hz).replace('kind = "vibration"', 'kind = "process"')
    done = call(small_config(tmp_path, broker_port=1, machines=slow), "check")
    assert said in done.stdout


def test_every_mistake_of_this_box_is_named_at_once(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file")
    config = small_config(
        tmp_path,
        broker_port=1,
        influx='url = "http://127.0.0.1:1"\ntoken_file = "/nowhere/token"',
        extra='[model]\nbundle = "nix"',
    )
    config.write_text(
        config.read_text().replace("[mqtt]", '[mqtt]\nusername = "fisher"\npassword_file = "/nowhere/password"')
    )
    document = call(config, "check", "--connect")
    assert document.returncode == 2
    for key in ("mqtt.password_file", "influx.token_file", "state_dir", "model.bundle"):
        assert f"problem: {key}: " in document.stdout


def test_check_is_a_command_of_its_own_that_ends_with_2_and_no_traceback(tmp_path: Path) -> None:
    config = write_config(tmp_path, broker_port=1, machines='[[machines]]\nid = "a b"\ncolour = 1\n')
    done = cli(config, "check", "--json")
    assert done.returncode == 2
    assert '"machines[0].id: ' in done.stdout and '"machines[0].colour: ' in done.stdout
    assert done.stderr == ""
