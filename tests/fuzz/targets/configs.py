"""The configuration file, and everything that is built of it before anything is connected."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from random import Random

from fisher_agent.configfile import parse
from fisher_agent.report import Names
from fisher_agent.topics import every_topic
from fisher_agent.wire import decoder_for
from fuzz.harness import Opened, Target
from fuzz.mutate import damaged, mixed

EDGES = (
    "nan", "inf", "-inf", "1e400", "-0.0", "5e-324", "9" * 4300, "9" * 4301, "-" + "9" * 4301, "0x" + "f" * 400,
    "0b1", "1_000", "true", '""', '" "', '"\\u0000"', '"a\\u0000b"', '"a\\u0000/{machine}"', '"{"', '"{machine}{x}"',
    '"+/#"', '"$SYS/x"', '"' + "a" * 70_000 + '"', '"' + "é" * 49 + '"',
    '"mqtt://[::1"', '"mqtt://h:99999999"', '"mqtt://"',
    '"mqtt://h:0"', '"mqtt://\\u0000"', '"tcp://h:x"', '"ipc://"', '"http://user:pw@h"', '"//"', "[]", "[[]]", "{}",
    "[1, 2]", "{a = {b = 1}}", "9999-12-31T23:59:60Z", "0000-00-00", "1979-05-27", "25:61:00",
    "2026-02-30T00:00:00+99:99",
    "'''x\ny'''", '"\\ud800"', "[{}]", '"status"', '"../../etc"', "-1", "0", "255", "65536", "1e-300", "1e300",
)  # fmt: skip
BASE = """site = "s"
edge = "e"
state_dir = "/tmp/x"
[mqtt]
commands = ["ack", "maintenance"]
[[sources]]
name = "plant"
type = "mqtt"
url = "mqtt://127.0.0.1:1883"
[[sources]]
name = "daq"
type = "zmq"
url = "tcp://127.0.0.1:5556"
[[machines]]
id = "press-07"
shaft_hz = 24.5
defaults = { source = "plant", topic = "p/{machine}/{channel}", rate_hz = 12000 }
mode = { topic = "p/{machine}/mode", values = { 1 = "idle" } }
[[machines.channels]]
id = "vib-de"
kind = "vibration"
unit = "g"
format = "f32le"
[[machines.channels]]
id = "t"
kind = "process"
rate_hz = 0.1
format = "json"
[machines.alarm]
on_delay_windows = 3
[[machines.bearings]]
id = "de"
balls = 9
ball_mm = 8.0
pitch_mm = 39.0
[page]
port = 8080
[capture]
max_mb = 10
"""


def _lines(rng: Random, texts: list[str]) -> bytes:
    """A configuration with one to three of its lines changed."""
    lines = rng.choice(texts).splitlines()
    for _ in range(rng.choice((1, 1, 2, 3))):
        at = rng.randrange(len(lines))
        key, equals, _ = lines[at].partition("=")
        kind = rng.randrange(8)
        if kind < 4 and equals:
            lines[at] = f"{key}= {_value(rng)}"
        elif kind == 4:
            del lines[at]
            lines = lines or [""]
        elif kind == 5:
            lines.insert(rng.randrange(len(lines)), lines[at])
        elif kind == 6:
            lines[at] = lines[at].replace("[[", "[").replace("]]", "]") if "[[" in lines[at] else f"{lines[at]}_x"
        else:
            name = rng.choice(
                (
                    "x",
                    "a.b.c.d",
                    '"" ',
                    "machines",
                    "id",
                    "scale",
                    "topic",
                    "topic",
                    "prefix",
                    "source",
                    '"\\u0000"',
                    "site.x",
                    "clock",
                )
            )
            lines.insert(at, f"{name} = {_value(rng)}")
    return "\n".join(lines).encode()


def _value(rng: Random) -> str:
    if rng.random() < 0.06:
        depth = rng.choice((30, 300, 900, 5000, rng.randrange(100, 1000)))
        return rng.choice(("[" * depth + "]" * depth, "{a=" * depth + "1" + "}" * depth, "a." * depth + "a"))
    return rng.choice(EDGES)


@contextmanager
def _config(_work: Path) -> Iterator[Opened]:
    shipped = resources.files("fisher_agent").joinpath("fisher-agent.toml").read_text(encoding="utf-8")
    texts = [BASE, shipped]

    def run(data: bytes) -> None:
        config = parse(data.decode(errors="replace"))
        for source in config.sources:
            decoder = decoder_for(config, source.name)
            for topic in decoder.topics:
                # MQTT 3.1.1, 1.5.3 and 4.7.3: what a client library refuses only when it connects.
                assert "\x00" not in topic, "a topic holds U+0000"
                assert len(topic.encode()) < 65_536, "a topic is longer than MQTT can say"
        for link in (config.mqtt, *(s for s in config.sources if s.type == "mqtt")):
            assert link is None or (link.host and 0 < link.port < 65_536)
        assert "\x00" not in str(config.state_dir), "a path holds U+0000"
        for row in every_topic(config, {}):
            assert "\x00" not in row["topic"]
            assert len(row["topic"].encode()) < 65_536
        Names.of(config)
        for machine in config.machines:
            for channel in machine.channels:
                assert config.stale_after_s(channel) > 0
                assert config.window.hold_ns(channel) >= 0

    whole = [text.encode() for text in texts]
    yield Opened(whole, mixed((0.8, lambda rng: _lines(rng, texts)), (0.2, lambda rng: damaged(rng, whole))), run)


TARGETS = (Target("config", _config, share=0.2),)
