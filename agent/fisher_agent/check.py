"""`fisher-agent check`: every mistake at once, what the model sees, and with --connect what really arrives."""

import asyncio
import json
import os
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from fisher_agent import app
from fisher_agent import configfile as configuration
from fisher_agent.config import ChannelConfig, Config, SourceConfig, expand
from fisher_agent.credentials import SECRET_KEYS, command_key, readable, tls, unused
from fisher_agent.errors import ConfigError, Unavailable
from fisher_agent.guess import Findings, Heard, examine
from fisher_agent.page import service as page
from fisher_agent.report import Names
from fisher_agent.roundtrip import Proof, prove_influx, prove_plant
from fisher_agent.sinks.influx import InfluxSink
from fisher_agent.sources import check_topics, open_source
from fisher_agent.stages import Frame
from fisher_agent.stats import Stats
from fisher_models.frontend import Frontend

MAX_PAYLOADS = 2000  # per topic; a check listens for seconds, not for ever
MAX_HEARD_BYTES = 64_000_000
TEMPLATE = "fisher-agent.toml"


def main(path: Path, *, connect_s: float | None, json_: bool) -> int:
    """Check and print; the exit code is 0 or 2."""
    document: dict[str, Any] = {"problems": [], "channels": [], "links": []}
    problems: list[str] = document["problems"]
    try:
        config = configuration.load(path)
    except ConfigError as error:
        problems += error.problems
        return _say(document, json_)
    for examine_part in (check_topics, _check_files):
        try:
            examine_part(config)
        except ConfigError as error:
            problems += error.problems
    try:
        document["channels"] = _views(config, Frontend(app.find_bundle(config).frontend))
    except ConfigError as error:
        problems += error.problems
    if connect_s is not None and not problems:
        asyncio.run(_connect(config, connect_s, document))
    return _say(document, json_)


def write_template(output: Path | None) -> None:
    """Write the commented configuration; an existing file is never overwritten."""
    text = resources.files("fisher_agent").joinpath(TEMPLATE).read_text(encoding="utf-8")
    if output is None:
        print(text, end="")
        return
    try:
        with output.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        raise ConfigError(f"{output} exists already; it is not overwritten") from error
    except OSError as error:
        raise ConfigError(f"{output} cannot be written: {error}") from error


def _check_files(config: Config) -> None:
    """ConfigError for mistakes that show only on this box: secrets, the state directory."""
    problems = unused(config)
    named: list[tuple[str, Any]] = [("mqtt", config.mqtt), ("influx", config.influx), ("page", config.page)]
    named += [(f"sources[{n}]", source) for n, source in enumerate(config.sources)]
    for where, section in named:
        for key in type(section).model_fields if section is not None else ():
            file = getattr(section, key)
            if not key.endswith("_file") or file is None:
                continue
            try:
                readable(f"{where}.{key}", file, secret=key in SECRET_KEYS)
            except ConfigError as error:
                problems += error.problems
    parts: dict[str, Callable[[], object]] = {"page": partial(page.check, config)}
    if config.mqtt is not None:
        parts["mqtt"] = partial(tls, "mqtt.", config.mqtt)
        parts["mqtt.command_key_file"] = partial(command_key, config.mqtt)
    if config.influx is not None:
        parts["influx"] = partial(InfluxSink, config.influx)
    for n, source in enumerate(config.sources):
        parts[f"sources[{n}]"] = partial(open_source, source, config, client_id="check", stats=Stats())
    for where, build in parts.items():
        if any(p.startswith((f"{where}.", f"{where}:")) for p in problems):
            continue  # it would say the same again
        try:
            build()
        except ConfigError as error:
            problems += error.problems
    folder = next((p for p in (config.state_dir, *config.state_dir.parents) if p.exists()), Path("/"))
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        problems.append(f"state_dir: {config.state_dir} cannot be written by this user ({folder} is not writable)")
    if problems:
        raise ConfigError(problems)


def _views(config: Config, frontend: Frontend) -> list[dict[str, Any]]:
    return [
        {"channel": f"{m.id}/{c.id}", "sees": _slow_view(config, c) if c.slow else _view(frontend, c.rate_hz)}
        for m in config.machines
        for c in m.channels
    ]


def _slow_view(config: Config, channel: ChannelConfig) -> str:
    """`0.5 Hz: too slow for the model; judged by its value and spread over the last 10 samples`."""
    said = f"{channel.rate_hz:g} Hz: too slow for the model; judged by "
    if not config.window.sparse(channel):
        return said + "its value, level, shape and spectrum"
    kept = config.window.kept_samples(channel)
    what = "value" if kept == 1 else "value and spread"
    return said + f"its {what} over the last {kept} sample{'s' if kept > 1 else ''}"


def _view(frontend: Frontend, rate_hz: float) -> str:
    """`12800 Hz: 0-4000 Hz in 1 band, 4000-6400 Hz is not seen`."""
    edges = frontend.band_edges_hz(rate_hz)
    seen = f"{edges[0][0]:.0f}-{edges[-1][1]:.0f} Hz in {len(edges)} band{'s' if len(edges) > 1 else ''}"
    unseen = frontend.unseen_hz(rate_hz)
    return f"{rate_hz:g} Hz: {seen}" + (f", {unseen[0]:.0f}-{unseen[1]:.0f} Hz is not seen" if unseen else "")


class _Ear:
    """Collects what one source delivers."""

    def __init__(self) -> None:
        self.payloads: dict[str, list[bytes]] = defaultdict(list)
        self.arrivals_s: dict[str, list[float]] = defaultdict(list)
        self.frames: dict[tuple[str, str], list[Frame]] = defaultdict(list)
        self.offset_ms: dict[tuple[str, str], float] = {}
        self.problem = ""
        self._bytes = 0

    def tap(self, topic: str, payload: bytes) -> None:
        """Called by the source for every message, before it is parsed."""
        if len(self.payloads[topic]) < MAX_PAYLOADS and self._bytes < MAX_HEARD_BYTES:
            self._bytes += len(payload)
            self.payloads[topic].append(bytes(payload))
            self.arrivals_s[topic].append(time.monotonic())

    def take(self, frame: Frame) -> None:
        """One parsed frame."""
        key = (frame.machine, frame.channel)
        if len(self.frames[key]) < MAX_PAYLOADS:
            self.frames[key].append(frame)
        end_ns = frame.t_ns + len(frame.samples) / frame.rate_hz * 1e9
        self.offset_ms[key] = (end_ns - time.time_ns()) / 1e6


async def _connect(config: Config, seconds: float, document: dict[str, Any]) -> None:
    ears = {s.name: _Ear() for s in config.sources}
    stats = Stats()
    listening = asyncio.gather(*(_listen(config, s, ears[s.name], stats, seconds) for s in config.sources))
    plant, influx, _ = await asyncio.gather(
        prove_plant(config), prove_influx(config.influx, Names.of(config)), listening
    )
    arrived = [_arrived(source, ears[source.name], seconds) for source in config.sources]
    document["links"] += [proof.row for proof in (*plant, *influx, *arrived)]
    rejected = stats.by_key("rejected")
    for view, (machine, channel) in zip(
        document["channels"], [(m, c) for m in config.machines for c in m.channels], strict=True
    ):
        ear = ears[channel.source]
        if ear.problem:
            continue
        findings = examine(_heard(machine.id, channel, config, ear, rejected))
        view.update(_rounded(findings))
        document["problems"] += [f"{view['channel']}: {guess}" for guess in findings.guesses]
    document["problems"] += [f"{link['link']}: {link['error']}" for link in document["links"] if not link["ok"]]


async def _listen(config: Config, wanted: SourceConfig, ear: _Ear, stats: Stats, seconds: float) -> None:
    client_id = Names.of(config).client_id(f"check-{wanted.name}")
    try:
        source = open_source(wanted, config, client_id=client_id, stats=stats, tap=ear.tap)
        async with asyncio.timeout(seconds + 15):
            async with source:
                try:
                    async with asyncio.timeout(seconds):
                        async for frames in source.frames():
                            for frame in frames:
                                ear.take(frame)
                except TimeoutError:
                    return
    except (Unavailable, TimeoutError) as error:
        ear.problem = str(error) or "no answer"


def _arrived(source: SourceConfig, ear: _Ear, seconds: float) -> Proof:
    """What came of a source. ZeroMQ connects to what is not there, so only a message proves such a link."""
    messages = sum(map(len, ear.payloads.values()))
    reached = not ear.problem
    if source.type == "zmq" and not messages:
        ear.problem = ear.problem or (
            f"nothing arrived at {source.url} in {seconds:g} s; does the sender run, and do url, socket and bind "
            "match it?"
        )
    proof = "" if ear.problem else f"{messages} messages in {seconds:g} s"
    return Proof(f"sources.{source.name}", source.url, proof=proof, error=ear.problem, reached=reached)


def _heard(machine: str, channel: ChannelConfig, config: Config, ear: _Ear, rejected: Any) -> Heard:
    topic = expand(channel.topic, machine, channel.id)
    frames = ear.frames[machine, channel.id]
    bound = channel.interleaved or sum(
        c.source == channel.source and expand(c.topic, m.id, c.id) == topic for m in config.machines for c in m.channels
    )
    return Heard(
        channel=channel.model_copy(update={"topic": topic}),
        bound=bound if channel.format != "json" else 1,
        arrivals_s=ear.arrivals_s[topic],
        payloads=ear.payloads[topic],
        samples=np.concatenate([f.samples for f in frames]) if frames else np.zeros(0, np.float32),
        lengths=[len(f.samples) for f in frames],
        stated_rate_hz=frames[-1].rate_hz if frames and channel.stamped else 0.0,
        clock_offset_ms=ear.offset_ms.get((machine, channel.id), 0.0),
        rejected=sum(n for key, n in rejected.items() if key.startswith((f"{machine}/{channel.id}:", f"{topic}:"))),
    )


def _rounded(findings: Findings) -> dict[str, Any]:
    return {
        "messages": findings.messages,
        "measured_rate_hz": round(findings.rate_hz, 1),
        "rms": float(f"{findings.rms:.4g}"),
        "peak": float(f"{findings.peak:.4g}"),
        "dc": float(f"{findings.dc:.4g}"),
        "clipped": round(findings.clipped, 4),
        "clock_offset_ms": round(findings.clock_offset_ms, 1),
        "guesses": list(findings.guesses),
    }


def _say(document: dict[str, Any], json_: bool) -> int:
    if json_:
        print(json.dumps(document))
    else:
        for line in _lines(document):
            print(line)
    return 2 if document["problems"] else 0


def _lines(document: dict[str, Any]) -> list[str]:
    lines = []
    for view in document["channels"]:
        lines.append(f"{view['channel']}  {view['sees']}")
        if "messages" in view:
            lines.append(
                f"    heard {view['messages']} messages, {view['measured_rate_hz']:g} samples/s, RMS {view['rms']:g}, "
                f"peak {view['peak']:g}, DC {view['dc']:g}, clipped {view['clipped']:.1%}, "
                f"clock {view['clock_offset_ms']:+.0f} ms"
            )
    lines += [f"{link['link']}  {link['url']}  {_outcome(link)}" for link in document["links"]]
    lines += [f"problem: {p}" for p in document["problems"]]
    found = len(document["problems"])
    lines.append(f"{found} problem{'s' if found > 1 else ''}" if found else "no problems found")
    return lines


def _outcome(link: dict[str, Any]) -> str:
    if link["ok"]:
        return f"ok: {link['proof']}"
    return "NOT PROVEN" if link["reached"] else "NOT REACHED"
