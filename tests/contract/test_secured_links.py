"""Encrypted links to real servers: who is let in, who is not, and that each refusal says what to change."""

import asyncio
import json
import shutil
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import numpy as np
import pytest
import zmq
import zmq.asyncio

from fisher_agent.config import InfluxConfig, MqttConfig
from fisher_agent.configfile import parse
from fisher_agent.errors import ConfigError, Unavailable
from fisher_agent.keys import write_pair
from fisher_agent.sinks.influx import InfluxSink
from fisher_agent.sinks.mqtt import PlantLink
from fisher_agent.sources import open_source
from fisher_agent.sources.mqtt import MqttFrames
from fisher_agent.sources.zmq import ZmqFrames
from fisher_agent.stages import Message
from fisher_agent.stats import Stats
from servers.certificates import Authority
from servers.influxdb import InfluxDB
from servers.mosquitto import Mosquitto
from servers.process import free_port

ONES = np.ones(4, dtype="<f4").tobytes()
SILENT_S = 1.0


def source(kind: str, url: str, **keys: object) -> MqttFrames | ZmqFrames:
    text = f'site = "s"\nedge = "e"\n[[sources]]\nname = "plant"\ntype = "{kind}"\nurl = "{url}"\n'
    text += "".join(f"{k} = {json.dumps(v, default=str)}\n" for k, v in keys.items())
    text += '[[machines]]\nid = "m"\n[[machines.channels]]\nid = "a"\nrate_hz = 12000\nsource = "plant"\n'
    config = parse(text + 'topic = "raw/a"\n')
    return open_source(config.sources[0], config, client_id="fisher-test", stats=Stats())


def plant(url: str, **keys: object) -> PlantLink:
    return PlantLink(MqttConfig.model_validate({"url": url, **keys}), client_id="fisher-plant", will=Message("w", b""))


async def refusal(link: AbstractAsyncContextManager[object]) -> str:
    """Why a link cannot be made."""
    with pytest.raises(Unavailable) as wrong:
        async with asyncio.timeout(20), link:
            pass
    return str(wrong.value)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


# -- MQTT -------------------------------------------------------------------------------------------------------------

Opener = Callable[..., AbstractAsyncContextManager[object]]
LINKS: dict[str, Opener] = {"source": lambda url, **keys: source("mqtt", url, **keys), "plant": plant}


def secured(folder: Path, authority: Authority, *, names: str = "IP:127.0.0.1", clients: Authority | None = None):
    certificate, key = authority.issue(f"broker-{folder.name}", names=names)
    extra = f"certfile {certificate}\nkeyfile {key}\n"
    if clients:
        extra += f"cafile {clients.file}\nrequire_certificate true\nuse_identity_as_username true\n"
    return Mosquitto(folder, extra=extra)


def encrypted(broker: Mosquitto) -> str:
    return broker.url.replace("mqtt://", "mqtts://")


@pytest.mark.parametrize("kind", LINKS)
async def test_a_broker_that_nobody_vouches_for_is_refused_and_the_remedy_named(tmp_path, authority, kind):
    with secured(tmp_path, authority) as broker:
        said = await refusal(LINKS[kind](encrypted(broker)))
        assert encrypted(broker) in said and "certificate" in said
        assert "ca_file" in said
        stranger = Authority(tmp_path, "stranger")
        assert "ca_file" in await refusal(LINKS[kind](encrypted(broker), ca_file=stranger.file))
        async with LINKS[kind](encrypted(broker), ca_file=authority.file):
            pass


@pytest.mark.parametrize("kind", LINKS)
async def test_a_certificate_of_another_server_is_refused_although_it_is_trusted(tmp_path, authority, kind):
    with secured(tmp_path, authority, names="DNS:another.example") as broker:
        said = await refusal(LINKS[kind](encrypted(broker), ca_file=authority.file))
        assert "127.0.0.1" in said and "another name" in said


@pytest.mark.parametrize("version", ["5", "3.1.1"])
@pytest.mark.parametrize("kind", LINKS)
async def test_a_broker_that_wants_client_certificates_lets_in_ours_and_no_other(tmp_path, authority, kind, version):
    keys = {"ca_file": authority.file, "version": version}
    certificate, key = authority.issue("fisher")
    unknown, unknown_key = Authority(tmp_path, "stranger").issue("fisher")
    with secured(tmp_path, authority, clients=authority) as broker:
        url = encrypted(broker)
        assert "cert_file" in await refusal(LINKS[kind](url, **keys))
        assert url in await refusal(LINKS[kind](url, **keys, cert_file=unknown, key_file=unknown_key))
        async with LINKS[kind](url, **keys, cert_file=certificate, key_file=key):
            pass
        assert "u'fisher'" in broker.output, "the broker knows the agent by its certificate"


# -- InfluxDB ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("api", ["auto", "v1", "v2"])
async def test_a_database_over_https_is_verified(tmp_path, authority, api):
    certificate, key = authority.issue("influx")
    with InfluxDB(tmp_path / "db", certificate=certificate, key=key) as db:
        db.query("CREATE DATABASE condition", trust=ssl.create_default_context(cafile=str(authority.file)))
        keys = {"url": db.url, "api": api}
        said = await refusal(InfluxSink(InfluxConfig.model_validate(keys)))
        assert db.url in said and "certificate" in said and "ca_file" in said
        async with InfluxSink(InfluxConfig.model_validate(keys | {"ca_file": authority.file})) as sink:
            if sink.api == "v1":
                assert (await sink.write(["m x=1 1"])).positions == ()


async def test_the_v2_client_verifies_by_itself(tmp_path, authority):
    """It has a pool of its own, which the first request of a connection does not go through."""
    certificate, key = authority.issue("influx-v2")
    trusted = tmp_path / "ca.pem"
    shutil.copy(authority.file, trusted)
    with InfluxDB(tmp_path / "db", certificate=certificate, key=key) as db:
        config = InfluxConfig(url=db.url, api="v2", ca_file=trusted)
        async with InfluxSink(config) as sink:
            client = sink._connection._client.api_client.configuration
            assert client.verify_ssl and client.ssl_ca_cert == str(trusted)


# -- ZeroMQ -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def context():
    with zmq.asyncio.Context() as context:
        yield context


def key_of(file: Path) -> bytes:
    return file.read_bytes().strip()


async def silent(opened: ZmqFrames) -> bool:
    frames: AsyncIterator = opened.frames()
    try:
        async with asyncio.timeout(SILENT_S):
            await anext(frames)
    except TimeoutError:
        return True
    return False


async def test_made_keys_let_a_source_read_from_a_server_and_a_wrong_key_gets_nothing(tmp_path, context):
    secret, public = write_pair(tmp_path, "daq")
    _, wrong = write_pair(tmp_path, "stranger")
    own, own_public = write_pair(tmp_path, "agent")
    url = f"tcp://127.0.0.1:{free_port()}"
    with context.socket(zmq.XPUB) as daq:
        daq.setsockopt(zmq.LINGER, 0)
        daq.setsockopt(zmq.CURVE_SERVER, 1)
        daq.setsockopt(zmq.CURVE_SECRETKEY, key_of(secret))
        daq.bind(url)
        keys = {"public_key_file": own_public, "secret_key_file": own}
        async with (
            source("zmq", url, server_key_file=wrong, **keys) as stranger,
            source("zmq", url) as plain,
            source("zmq", url, server_key_file=public, **keys) as ours,
        ):
            assert await daq.recv() == b"\x01raw/a"  # one of them is let in
            for _ in range(3):
                await daq.send_multipart([b"raw/a", ONES])
            async with asyncio.timeout(10):
                assert len((await anext(ours.frames()))[0].samples) == 4
            assert await silent(stranger) and await silent(plain)
            assert not await daq.poll(0), "no other subscription came"


def sender_to(context, url: str, server: Path, own: tuple[Path, Path]):
    sender = context.socket(zmq.PUSH)
    sender.setsockopt(zmq.LINGER, 0)
    sender.setsockopt(zmq.CURVE_SERVERKEY, key_of(server))
    sender.setsockopt(zmq.CURVE_SECRETKEY, key_of(own[0]))
    sender.setsockopt(zmq.CURVE_PUBLICKEY, key_of(own[1]))
    sender.connect(url)
    return sender


async def test_a_list_of_clients_lets_in_nobody_else(tmp_path, context, capsys):
    secret, public = write_pair(tmp_path, "agent")
    known, also_known, stranger = (write_pair(tmp_path, name) for name in ("one", "two", "stranger"))
    lines = ["# sensors", "", f"{key_of(known[1]).decode()} press-07 vib", key_of(also_known[1]).decode()]
    listed = tmp_path / "sensors.pub"
    listed.write_text("\n".join(lines) + "\n")
    url = f"tcp://127.0.0.1:{free_port()}"
    keys = {"socket": "pull", "bind": True, "secret_key_file": secret, "client_keys_file": listed}
    for _ in range(2):  # the agent opens a source again after an error
        async with source("zmq", url, **keys) as opened:
            with sender_to(context, url, public, stranger) as sender:
                sending = asyncio.ensure_future(sender.send_multipart([b"raw/a", ONES]))
                assert await silent(opened)
                sending.cancel()
            for own in (known, also_known):
                with sender_to(context, url, public, own) as sender:
                    async with asyncio.timeout(10):
                        await sender.send_multipart([b"raw/a", ONES])
                        assert len(await anext(opened.frames())) == 1
        said = capsys.readouterr()
        assert (said.out + said.err).count("sender_refused") == 1


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "holds no key"),
        ("# nobody yet\n", "holds no key"),
        ("short\n", "line 1 of"),
        (f"{'x' * 41}\n", "line 1 of"),
    ],
)
def test_a_list_of_clients_that_holds_none_is_a_mistake(tmp_path, text, why):
    secret, public = write_pair(tmp_path, "agent")
    listed = tmp_path / "sensors.pub"
    listed.write_text(text)
    url = "tcp://127.0.0.1:1"
    with pytest.raises(ConfigError, match=f"client_keys_file: .*{why}"):
        source("zmq", url, bind=True, secret_key_file=secret, client_keys_file=listed)
    listed.write_bytes(key_of(public))
    for keys in ({}, {"secret_key_file": secret, "server_key_file": public}):
        with pytest.raises(ConfigError, match="client_keys_file belongs to a CURVE server"):
            source("zmq", url, client_keys_file=listed, **keys)


async def test_a_bound_source_takes_nothing_from_who_has_the_wrong_key(tmp_path, context):
    secret, public = write_pair(tmp_path, "agent")
    _, wrong = write_pair(tmp_path, "stranger")
    own, own_public = write_pair(tmp_path, "sensor")
    url = f"tcp://127.0.0.1:{free_port()}"
    async with source("zmq", url, socket="pull", bind=True, secret_key_file=secret) as opened:
        for server_key in (wrong, None, public):
            with context.socket(zmq.PUSH) as sender:
                sender.setsockopt(zmq.LINGER, 0)
                if server_key:
                    sender.setsockopt(zmq.CURVE_SERVERKEY, key_of(server_key))
                    sender.setsockopt(zmq.CURVE_SECRETKEY, key_of(own))
                    sender.setsockopt(zmq.CURVE_PUBLICKEY, key_of(own_public))
                sender.connect(url)
                sending = asyncio.ensure_future(sender.send_multipart([b"raw/a", ONES]))
                if server_key == public:
                    async with asyncio.timeout(10):
                        await sending
                        assert len(await anext(opened.frames())) == 1
                else:
                    assert await silent(opened)
                    sending.cancel()
