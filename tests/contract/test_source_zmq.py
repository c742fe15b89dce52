"""The ZeroMQ source: binding, keys, peers that come and go, subscriptions."""

import asyncio
import time

import numpy as np
import pytest
import zmq
import zmq.asyncio

from fisher_agent.configfile import parse
from fisher_agent.errors import ConfigError, Unavailable
from fisher_agent.sources import open_source
from fisher_agent.stats import Stats
from private import private
from servers.process import free_port

REBIND_S = 10.0
ONES = np.ones(4, dtype="<f4").tobytes()


def source(url, *, topic="raw/a", socket="sub", bind=False, stats=None, **keys):
    text = f'site = "s"\nedge = "e"\n[[sources]]\nname = "daq"\ntype = "zmq"\nurl = "{url}"\nsocket = "{socket}"\n'
    text += f"bind = {str(bind).lower()}\n" + "".join(f'{k} = "{v}"\n' for k, v in keys.items())
    text += '[[machines]]\nid = "m"\n[[machines.channels]]\nid = "a"\nrate_hz = 12000\nsource = "daq"\n'
    config = parse(text + f'topic = "{topic}"\n')
    return open_source(config.sources[0], config, client_id="unused", stats=stats or Stats())


async def frames_of(opened, count=1):
    frames = []
    async with asyncio.timeout(15):
        async for batch in opened.frames():
            frames += batch
            if len(frames) >= count:
                break
    return frames


@pytest.fixture
def url():
    return f"tcp://127.0.0.1:{free_port()}"


@pytest.fixture
def context():
    with zmq.asyncio.Context() as context:
        yield context


def bound(context, kind, url):
    """A bound socket. libzmq frees the port of the one before in its own thread, a moment after `close` returned."""
    deadline_s = time.monotonic() + REBIND_S
    while True:
        socket = context.socket(kind)
        socket.setsockopt(zmq.LINGER, 0)
        try:
            socket.bind(url)
        except zmq.ZMQError as error:
            socket.close()
            if error.errno != zmq.EADDRINUSE or time.monotonic() > deadline_s:
                raise
            time.sleep(0.01)
        else:
            return socket


async def test_a_payload_alone_belongs_to_the_one_channel_of_the_socket(context, url):
    with bound(context, zmq.PUSH, url) as sender:
        async with source(url, topic="", socket="pull") as opened:
            await sender.send(ONES)
            (frame,) = await frames_of(opened)
            assert (frame.machine, frame.channel) == ("m", "a")


async def test_a_topic_that_only_begins_alike_is_not_taken_and_not_blamed(context, url):
    stats = Stats()
    with bound(context, zmq.XPUB, url) as sender:
        async with source(url, stats=stats) as opened:
            await sender.recv()
            await sender.send_multipart([b"raw/abc", ONES])
            await sender.send_multipart([b"raw/a", ONES])
            assert len(await frames_of(opened)) == 1
    assert stats.total("rejected") == 0


async def test_an_unknown_topic_on_a_pull_socket_is_counted(context, url):
    stats = Stats()
    with bound(context, zmq.PUSH, url) as sender:
        async with source(url, socket="pull", stats=stats) as opened:
            await sender.send_multipart([b"raw/stranger", ONES])
            await sender.send_multipart([b"raw/a", ONES])
            assert len(await frames_of(opened)) == 1
    assert stats.by_key("rejected") == {"daq:unknown-topic": 1}


async def test_a_bound_source_takes_from_senders_that_connect(context, url):
    async with source(url, socket="pull", bind=True) as opened:
        for _ in range(2):
            with context.socket(zmq.PUSH) as sender:
                sender.connect(url)
                await sender.send_multipart([b"raw/a", ONES])
                assert len(await frames_of(opened)) == 1


async def test_an_address_in_use_is_unavailable_and_named(context, url):
    with bound(context, zmq.PUSH, url):
        opened = source(url, socket="pull", bind=True)
        with pytest.raises(Unavailable, match="cannot be bound: Address already in use"):
            await opened.__aenter__()
        await opened.__aexit__(None, None, None)


async def test_a_sender_that_is_not_there_yet_is_waited_for(context, url):
    async with source(url, socket="pull") as opened:
        with bound(context, zmq.PUSH, url) as sender:
            await sender.send_multipart([b"raw/a", ONES])
            assert len(await frames_of(opened)) == 1


async def test_after_a_sender_came_back_its_samples_begin_with_a_gap(context, url):
    async with source(url, socket="pull") as opened:
        for expected in ([True, False], [True, False]):
            with bound(context, zmq.PUSH, url) as sender:
                await sender.send_multipart([b"raw/a", ONES])
                await sender.send_multipart([b"raw/a", ONES])
                assert [f.gap for f in await frames_of(opened, 2)] == expected


async def test_curve_lets_in_who_knows_the_key_and_nobody_else(context, url, tmp_path):
    public, secret = zmq.curve_keypair()
    other_public, _ = zmq.curve_keypair()
    (tmp_path / "right").write_bytes(public + b"\n")
    (tmp_path / "wrong").write_bytes(other_public)
    sender = context.socket(zmq.PUSH)
    sender.setsockopt(zmq.LINGER, 0)
    sender.setsockopt(zmq.CURVE_SERVER, 1)
    sender.setsockopt(zmq.CURVE_SECRETKEY, secret)
    sender.bind(url)
    with sender:
        async with (
            source(url, socket="pull", server_key_file=tmp_path / "wrong") as stranger,
            source(url, socket="pull", server_key_file=tmp_path / "right") as opened,
        ):
            for _ in range(4):  # a PUSH deals its messages out to all who are let in
                await sender.send_multipart([b"raw/a", ONES])
            assert len(await frames_of(opened, 4)) == 4
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await anext(stranger.frames())


async def test_a_source_with_a_secret_key_alone_is_the_curve_server(context, url, tmp_path):
    public, secret = zmq.curve_keypair()
    private(tmp_path / "secret", secret)
    async with source(url, socket="pull", bind=True, secret_key_file=tmp_path / "secret") as opened:
        with context.socket(zmq.PUSH) as sender:
            sender.setsockopt(zmq.CURVE_SERVERKEY, public)
            own_public, own_secret = zmq.curve_keypair()
            sender.setsockopt(zmq.CURVE_PUBLICKEY, own_public)
            sender.setsockopt(zmq.CURVE_SECRETKEY, own_secret)
            sender.connect(url)
            await sender.send_multipart([b"raw/a", ONES])
            assert len(await frames_of(opened)) == 1


def test_a_key_file_that_holds_no_key_is_a_config_error(tmp_path):
    (tmp_path / "key").write_text("not a key")
    with pytest.raises(ConfigError, match="40 characters of Z85"):
        source("tcp://127.0.0.1:1", server_key_file=tmp_path / "key")
    with pytest.raises(ConfigError, match="cannot be read"):
        source("tcp://127.0.0.1:1", server_key_file=tmp_path / "none")


def test_a_url_without_a_port_is_a_config_error():
    with pytest.raises(ConfigError, match="names no port"):
        source("tcp://127.0.0.1")
