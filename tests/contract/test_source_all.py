"""What every source owes the agent, asked of each one against a real peer."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiomqtt
import numpy as np
import pytest
import zmq
import zmq.asyncio

from fisher_agent.config import Config
from fisher_agent.configfile import parse
from fisher_agent.sources import open_source
from fisher_agent.stages import Frame
from fisher_agent.stats import Stats
from fisher_agent.wire import encode
from servers.mosquitto import Mosquitto
from servers.process import free_port

T_NS = 1_795_210_782_324_000_000
BARE = ["f32le", "f64le", "i16le", "i24le", "i32le"]
ALL = [*BARE, "json", "fisher-frame/1"]
KINDS = ["mqtt 3.1.1", "mqtt 5", "zmq sub", "zmq pull"]
Send = Callable[[str, bytes], Awaitable[None]]


@dataclass
class Rig:
    source: object
    send: Send
    stats: Stats
    tapped: list[tuple[str, bytes]]


def config_for(kind: str, url: str) -> Config:
    how = (
        f'type = "mqtt"\nversion = "{kind[5:]}"' if kind.startswith("mqtt") else f'type = "zmq"\nsocket = "{kind[4:]}"'
    )
    text = f'site = "s"\nedge = "e"\n[[sources]]\nname = "plant"\nurl = "{url}"\n{how}\n[[machines]]\nid = "m"\n'
    text += '[machines.defaults]\nsource = "plant"\nrate_hz = 12000\nscale = 0.5\ntopic = "raw/{machine}/{channel}"\n'
    for payload_format in ALL:
        text += f'[[machines.channels]]\nid = "{channel_of(payload_format)}"\nformat = "{payload_format}"\n'
    for index, channel in enumerate(("left", "right")):
        text += f'[[machines.channels]]\nid = "{channel}"\ntopic = "raw/both"\nformat = "i16le"\nindex = {index}\n'
    return parse(text)


def channel_of(payload_format: str) -> str:
    return payload_format.replace("/", "-")


@asynccontextmanager
async def rig_for(kind: str, tmp_path) -> AsyncIterator[Rig]:
    stats, tapped = Stats(), []

    def opened(url: str):
        config = config_for(kind, url)
        tap = lambda topic, payload: tapped.append((topic, payload))  # noqa: E731
        return open_source(config.sources[0], config, client_id="fisher-test", stats=stats, tap=tap)

    if kind.startswith("mqtt"):
        with Mosquitto(tmp_path) as broker:
            async with opened(broker.url) as source, aiomqtt.Client("127.0.0.1", broker.port) as publisher:
                yield Rig(source, publisher.publish, stats, tapped)
        return
    url = f"tcp://127.0.0.1:{free_port()}"
    with zmq.asyncio.Context() as context, context.socket(zmq.XPUB if kind == "zmq sub" else zmq.PUSH) as sender:
        sender.setsockopt(zmq.LINGER, 0)
        sender.bind(url)

        async def send(topic: str, payload: bytes) -> None:
            await sender.send_multipart([topic.encode(), payload])

        async with opened(url) as source:
            if kind == "zmq sub":
                async with asyncio.timeout(10):  # a PUB drops what nobody has subscribed to yet
                    for _ in range(len(ALL) + 1):
                        await sender.recv()
            yield Rig(source, send, stats, tapped)


async def frames_of(rig: Rig, count: int) -> list[Frame]:
    frames: list[Frame] = []
    async with asyncio.timeout(20):
        async for batch in rig.source.frames():
            frames += batch
            if len(frames) >= count:
                return frames
    return frames


@pytest.fixture(params=KINDS)
async def rig(request, tmp_path):
    async with rig_for(request.param, tmp_path) as rig:
        yield rig


async def test_the_same_data_gives_the_same_frames_in_every_format(rig):
    samples = np.array([1, -2, 3000, -32768, 32767], dtype=np.float32)
    for payload_format in ALL:
        payload = encode(payload_format, samples, t_ns=T_NS, rate_hz=12000.0, seq=5)
        await rig.send(f"raw/m/{channel_of(payload_format)}", payload)
    frames = {f.channel: f for f in await frames_of(rig, len(ALL))}
    assert set(frames) == {channel_of(f) for f in ALL}
    for frame in frames.values():
        assert (frame.machine, frame.rate_hz) == ("m", 12000.0)
        np.testing.assert_array_equal(frame.samples, samples / 2)
        assert not frame.samples.flags.writeable
    for stamped in ("json", "fisher-frame-1"):
        assert (frames[stamped].t_ns, frames[stamped].seq) == (T_NS, 5)
    assert rig.stats.total("rejected") == 0


async def test_interleaved_channels_arrive_as_one_frame_each(rig):
    await rig.send("raw/both", encode("i16le", np.array([[2, 4], [6, 8]])))
    frames = {f.channel: f for f in await frames_of(rig, 2)}
    np.testing.assert_array_equal(frames["left"].samples, [1, 2])
    np.testing.assert_array_equal(frames["right"].samples, [3, 4])
    assert frames["left"].t_ns == frames["right"].t_ns


async def test_wrong_payloads_are_counted_and_the_rest_goes_on(rig):
    await rig.send("raw/m/f32le", b"123")
    await rig.send("raw/m/f32le", np.array([np.nan], dtype="<f4").tobytes())
    await rig.send("raw/m/json", b"{")
    await rig.send("raw/both", b"12")
    await rig.send("raw/m/f32le", np.ones(3, dtype="<f4").tobytes())
    (frame,) = await frames_of(rig, 1)
    np.testing.assert_array_equal(frame.samples, np.full(3, 0.5))
    assert rig.stats.by_key("rejected") == {
        "m/f32le:length": 1,
        "m/f32le:not-finite": 1,
        "m/json:not-json": 1,
        "raw/both:length": 1,
    }


async def test_many_messages_arrive_complete_and_in_order(rig):
    samples = np.zeros(5000)
    for seq in range(300):
        await rig.send("raw/m/fisher-frame-1", encode("fisher-frame/1", samples, t_ns=T_NS, rate_hz=12000.0, seq=seq))
        if seq % 50 == 49:
            await asyncio.sleep(0)
    frames = await frames_of(rig, 300)
    assert [f.seq for f in frames] == list(range(300))


async def test_a_message_larger_than_every_buffer_arrives_whole(rig):
    samples = np.arange(1_000_000, dtype=np.float32)
    await rig.send("raw/m/f32le", samples.tobytes())
    await rig.send("raw/m/f32le", samples[:7].tobytes())
    large, small = await frames_of(rig, 2)
    np.testing.assert_array_equal(large.samples, samples / 2)
    np.testing.assert_array_equal(small.samples, samples[:7] / 2)


async def test_the_tap_sees_every_payload_before_it_is_decoded(rig):
    await rig.send("raw/m/f32le", b"123")
    await rig.send("raw/m/f32le", b"1234")
    await frames_of(rig, 1)
    assert rig.tapped == [("raw/m/f32le", b"123"), ("raw/m/f32le", b"1234")]


async def test_unstamped_samples_begin_with_a_gap_and_then_go_on_without(rig):
    for _ in range(3):
        await rig.send("raw/m/f32le", np.zeros(12, dtype="<f4").tobytes())
    frames = await frames_of(rig, 3)
    assert [f.gap for f in frames] == [True, False, False]
    assert [f.t_ns - frames[0].t_ns for f in frames] == pytest.approx([0, 1_000_000, 2_000_000], abs=1000)


async def test_closing_twice_is_safe(rig):
    await rig.source.__aexit__(None, None, None)
    await rig.source.__aexit__(None, None, None)
