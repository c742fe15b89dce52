"""`fisher-agent replay`: publish recordings as a sensor would, stamped, and never on the topics of the plant itself."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiomqtt
import zmq
import zmq.asyncio

from fisher_agent.config import Config, MqttSource, ZmqSource, expand
from fisher_agent.control import record_files
from fisher_agent.credentials import secret, tls
from fisher_agent.errors import ConfigError, Unavailable
from fisher_agent.files import parse_channels
from fisher_agent.report import Names
from fisher_agent.sources.replay import blocks
from fisher_agent.stages import Frame
from fisher_agent.wire import encode

BLOCK_S = 0.1
SETTLE_S = 0.5  # a ZeroMQ subscriber that has just been told of a publisher still joins


def replay(
    config: Config,
    machine_id: str,
    files: Sequence[Path],
    *,
    to: str,
    prefix: str,
    speed: float,
    rate_hz: float | None,
    channels: Sequence[str],
    progress: Callable[[int, int], None],
) -> dict[str, Any]:
    """Publish in `fisher-frame/1` on `<prefix>/<machine>/<channel>`; returns what was sent."""
    machine = config.machine(machine_id)
    prefix = prefix.strip("/")
    if speed <= 0:
        raise ConfigError(f"--speed {speed:g} must be above 0")
    own = Names.of(config).prefix
    if not prefix or f"{prefix}/".startswith(f"{own}/"):
        raise ConfigError(f"--prefix {prefix!r} is where the agent itself publishes ({own}); choose another")
    bound = {expand(c.topic, m.id, c.id) for m in config.machines for c in m.channels}
    if taken := sorted(bound & {f"{prefix}/{machine.id}/{c.id}" for c in machine.channels}):
        raise ConfigError(
            f"--prefix {prefix!r} would publish on {taken[0]!r}, where a real sensor of this configuration does"
        )
    wanted = {"mqtt": MqttSource, "zmq": ZmqSource}[to]
    sources = {c.source for c in machine.channels}
    source = next((s for s in config.sources if s.name in sources and isinstance(s, wanted)), None)
    source = source or next((s for s in config.sources if isinstance(s, wanted)), None)
    if source is None:
        raise ConfigError(f"--to {to}: no source of this configuration is of that type")
    request = {"files": [str(f) for f in files], "rate": rate_hz, "channels": parse_channels(channels)}
    recording = record_files(request, machine, config)
    whole = {c.id for c in machine.channels if c.snapshot}
    by_start = sorted(recording.frames(whole=whole), key=lambda frame: frame.t_ns)
    frames = list(blocks(by_start, BLOCK_S, uncut={(machine.id, channel) for channel in whole}))
    if not frames:
        raise ConfigError("the recordings hold no samples of this machine's channels")
    shift_ns = time.time_ns() - frames[0].t_ns
    shifted = [replace(f, t_ns=f.t_ns + shift_ns) for f in frames]
    if isinstance(source, MqttSource):
        return asyncio.run(_to_mqtt(source, prefix, shifted, speed, progress))
    return asyncio.run(_to_zmq(source, prefix, shifted, speed, progress))


async def _paced(frames: Sequence[Frame], speed: float, progress: Callable[[int, int], None]) -> Any:
    """Yield (frame, seq) when each is due."""
    began_s, first_ns = time.monotonic(), frames[0].t_ns
    seq: dict[str, int] = {}
    total = int((frames[-1].t_ns - first_ns) / 1e9) or 1
    for frame in frames:
        due_s = began_s + (frame.t_ns - first_ns) / 1e9 / speed
        await asyncio.sleep(max(0.0, due_s - time.monotonic()))
        seq[frame.channel] = seq.get(frame.channel, -1) + 1
        progress(int((frame.t_ns - first_ns) / 1e9), total)
        yield frame, seq[frame.channel]


def _payload(frame: Frame, seq: int) -> bytes:
    return encode("fisher-frame/1", frame.samples, t_ns=frame.t_ns, rate_hz=frame.rate_hz, seq=seq)


async def _to_mqtt(
    source: MqttSource, prefix: str, frames: Sequence[Frame], speed: float, progress: Callable[[int, int], None]
) -> dict[str, Any]:
    link = aiomqtt.Client(
        source.host,
        source.port,
        username=source.username,
        password=secret(f"source {source.name!r}: password_file", source.password_file),
        tls_context=tls(f"source {source.name!r}: ", source),
    )
    sent = 0
    try:
        async with link as client:
            async for frame, seq in _paced(frames, speed, progress):
                await client.publish(f"{prefix}/{frame.machine}/{frame.channel}", _payload(frame, seq), qos=0)
                sent += 1
    except aiomqtt.MqttError as error:
        raise Unavailable(f"{source.url}: {error}") from error
    return _sent(sent, frames)


async def _to_zmq(
    source: ZmqSource, prefix: str, frames: Sequence[Frame], speed: float, progress: Callable[[int, int], None]
) -> dict[str, Any]:
    context = zmq.asyncio.Context()
    sent = 0
    try:
        with context.socket(zmq.PUB if source.socket == "sub" else zmq.PUSH) as socket:
            # The agent's other end: where it connects, this binds.
            (socket.connect if source.bind else socket.bind)(source.url)
            await asyncio.sleep(SETTLE_S)
            async for frame, seq in _paced(frames, speed, progress):
                topic = f"{prefix}/{frame.machine}/{frame.channel}"
                await socket.send_multipart([topic.encode(), _payload(frame, seq)])
                sent += 1
            await asyncio.sleep(SETTLE_S)
    except zmq.ZMQError as error:
        raise Unavailable(f"{source.url}: {error}") from error
    finally:
        context.term()
    return _sent(sent, frames)


def _sent(messages: int, frames: Sequence[Frame]) -> dict[str, Any]:
    return {"messages": messages, "seconds": sum(len(f.samples) / f.rate_hz for f in frames)}
