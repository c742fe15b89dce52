"""The MQTT source against real brokers: versions, refusals, lost links, sessions, TLS."""

import asyncio
import json
import subprocess
import time
from contextlib import asynccontextmanager

import aiomqtt
import numpy as np
import pytest
from amqtt.broker import Broker

from fisher_agent.configfile import parse
from fisher_agent.errors import ConfigError, Unavailable
from fisher_agent.sources import open_source
from fisher_agent.stats import Stats
from fisher_agent.wire import encode
from private import private
from servers.mosquitto import Mosquitto
from servers.process import find_binary, free_port

ONES = np.ones(4, dtype="<f4").tobytes()


def source(url, *, client_id="fisher-test", stats=None, payload_format="f32le", **keys):
    text = 'site = "s"\nedge = "e"\n[[sources]]\nname = "plant"\ntype = "mqtt"\n'
    text += f'url = "{url}"\n' + "".join(f"{k} = {json.dumps(v, default=str)}\n" for k, v in keys.items())
    text += '[[machines]]\nid = "m"\n[[machines.channels]]\nid = "a"\nrate_hz = 12000\nsource = "plant"\n'
    config = parse(text + f'topic = "raw/a"\nformat = "{payload_format}"\n')
    return open_source(config.sources[0], config, client_id=client_id, stats=stats or Stats())


async def first_batch(opened):
    async with asyncio.timeout(10):
        return await anext(opened.frames())


async def publish(broker, *payloads, qos=0):
    async with aiomqtt.Client("127.0.0.1", broker.port, identifier="publisher") as client:
        for payload in payloads:
            await client.publish("raw/a", payload, qos=qos)


async def refusal(opened):
    with pytest.raises(Unavailable) as caught:
        async with asyncio.timeout(15), opened:
            pass
    return str(caught.value)


@pytest.fixture
def broker(tmp_path):
    with Mosquitto(tmp_path) as broker:
        yield broker


async def test_a_broker_that_is_not_there_is_unavailable_and_named():
    url = f"mqtt://127.0.0.1:{free_port()}"
    message = await refusal(source(url))
    assert url in message
    assert "refused" in message


@pytest.mark.parametrize("version", ["3.1.1", "5"])
async def test_a_wrong_password_is_unavailable_with_its_reason(tmp_path, version):
    private(tmp_path / "wrong", "wrong\n")
    private(tmp_path / "right", "right\n")
    with Mosquitto(tmp_path, passwords={"agent": "right"}) as broker:
        message = await refusal(source(broker.url, version=version, username="agent", password_file=tmp_path / "wrong"))
        assert "not authori" in message.lower()
        async with source(broker.url, version=version, username="agent", password_file=tmp_path / "right"):
            pass


def test_a_password_file_that_is_missing_is_a_config_error(tmp_path):
    with pytest.raises(ConfigError, match="password_file"):
        source("mqtt://127.0.0.1:1", username="agent", password_file=tmp_path / "none")


async def test_a_broker_without_mqtt_5_is_spoken_to_in_3_1_1():
    port = free_port()
    broker = Broker(
        {
            "listeners": {"default": {"type": "tcp", "bind": f"127.0.0.1:{port}"}},
            "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
        }
    )
    await broker.start()
    try:
        async with source(f"mqtt://127.0.0.1:{port}") as opened:
            async with aiomqtt.Client("127.0.0.1", port, identifier="publisher") as client:
                await client.publish("raw/a", ONES)
            (frame,) = await first_batch(opened)
            np.testing.assert_array_equal(frame.samples, np.ones(4))
        message = await refusal(source(f"mqtt://127.0.0.1:{port}", version="5"))
        assert f"mqtt://127.0.0.1:{port}" in message
    finally:
        await broker.shutdown()


async def test_a_broker_that_ends_ends_the_frames_after_the_last_one(broker):
    async with source(broker.url) as opened:
        await publish(broker, ONES)
        await first_batch(opened)
        broker.stop()
        with pytest.raises(Unavailable, match=r"the broker ended|lost"):
            await first_batch(opened)


async def test_a_killed_broker_is_unavailable_and_a_new_source_reads_from_its_successor(broker):
    async with source(broker.url) as opened:
        broker.kill()
        with pytest.raises(Unavailable, match="lost"):
            await first_batch(opened)
    broker.start()
    async with source(broker.url) as opened:
        await publish(broker, ONES)
        assert (await first_batch(opened))[0].gap


async def test_the_same_source_may_be_entered_again_after_a_lost_link(broker):
    opened = source(broker.url)
    async with opened:
        broker.kill()
        with pytest.raises(Unavailable):
            await first_batch(opened)
    broker.start()
    async with opened:
        await publish(broker, ONES)
        assert len(await first_batch(opened)) == 1


@pytest.mark.parametrize("version", ["3.1.1", "5"])
async def test_a_half_open_link_is_found_within_two_keepalives(broker, version):
    keepalive_s = 2
    async with source(broker.url, version=version, keepalive_s=keepalive_s) as opened:
        await publish(broker, ONES)
        await first_batch(opened)
        broker.freeze()
        frozen_s = time.monotonic()
        with pytest.raises(Unavailable, match="does not answer"):
            await first_batch(opened)
        assert time.monotonic() - frozen_s <= 2 * keepalive_s
        broker.thaw()


async def test_a_quiet_link_stays_up_over_several_keepalives(broker):
    async with source(broker.url, keepalive_s=2) as opened:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5):
                await anext(opened.frames())
        await publish(broker, ONES)
        assert len(await first_batch(opened)) == 1


@asynccontextmanager
async def scripted(*answers):
    """A server that answers the client's packets one by one; for what no packaged mosquitto can be made to say."""
    served = asyncio.Event()

    async def serve(reader, writer):
        for answer in answers:
            await reader.read(1000)
            writer.write(answer)
            await writer.drain()
        await reader.read()
        writer.close()
        await writer.wait_closed()
        served.set()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"mqtt://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with asyncio.timeout(10):
            await served.wait()


CONNACK = b"\x20\x03\x00\x00\x00"
SUBACK = b"\x90\x04\x00\x01\x00\x00"


async def test_being_taken_over_is_an_error_that_asks_for_patience():
    async with (
        scripted(CONNACK, SUBACK + b"\xe0\x02\x8e\x00") as url,
        source(url, client_id="twin") as opened,
    ):
        with pytest.raises(Unavailable, match="taken over: another client uses id 'twin'") as caught:
            await first_batch(opened)
        assert caught.value.retry_after_s == 300


async def test_a_topic_that_the_broker_refuses_is_unavailable_and_named():
    async with scripted(CONNACK, SUBACK[:-1] + b"\x87") as url:
        assert "raw/a (Not authorized)" in await refusal(source(url))


async def test_a_broker_that_shuts_down_says_so():
    async with scripted(CONNACK, SUBACK + b"\xe0\x02\x8b\x00") as url, source(url) as opened:
        with pytest.raises(Unavailable, match="the broker ended the connection: Server shutting down"):
            await first_batch(opened)


async def test_a_second_client_of_the_same_id_ends_the_first(broker):
    first, second = (source(broker.url, client_id="twin") for _ in range(2))
    async with first, second:
        with pytest.raises(Unavailable):
            await first_batch(first)
        await publish(broker, ONES)
        assert len(await first_batch(second)) == 1


@pytest.mark.parametrize("version", ["3.1.1", "5"])
async def test_qos_1_keeps_what_came_while_the_agent_was_away(broker, version):
    keys = {"qos": 1, "version": version, "payload_format": "json"}
    async with source(broker.url, **keys):
        pass
    await publish(broker, *(encode("json", np.ones(3), t_ns=10**18, seq=k) for k in range(3)), qos=1)
    frames = []
    async with source(broker.url, **keys) as opened, asyncio.timeout(10):
        async for batch in opened.frames():
            frames += batch
            if len(frames) == 3:
                break
    assert [f.seq for f in frames] == [0, 1, 2]


async def test_qos_0_does_not_replay_the_past(broker):
    async with source(broker.url, payload_format="json"):
        pass
    await publish(broker, encode("json", np.ones(3), t_ns=10**18, seq=0), qos=1)
    async with source(broker.url, payload_format="json") as opened:
        await publish(broker, encode("json", np.ones(3), t_ns=10**18, seq=1))
        assert [f.seq for f in await first_batch(opened)] == [1]


async def test_tls_reads_from_a_broker_whose_certificate_is_trusted_and_refuses_any_other(tmp_path):
    openssl = find_binary("openssl", package="openssl")
    certificate, key = tmp_path / "broker.crt", tmp_path / "broker.key"
    command = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=broker"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    with Mosquitto(tmp_path / "broker", extra=f"certfile {certificate}\nkeyfile {key}") as broker:
        url = broker.url.replace("mqtt://", "mqtts://")
        async with source(url, ca_file=certificate) as opened:
            # Larger than a TLS record and than the buffer, then a small one: nothing may stay in OpenSSL's own buffer.
            trusted = aiomqtt.TLSParameters(ca_certs=str(certificate))
            async with aiomqtt.Client("127.0.0.1", broker.port, tls_params=trusted) as client:
                await client.publish("raw/a", np.zeros(200_000, dtype="<f4").tobytes())
                await client.publish("raw/a", ONES)
            lengths = []
            async with asyncio.timeout(10):
                async for batch in opened.frames():
                    lengths += [len(f.samples) for f in batch]
                    if len(lengths) == 2:
                        break
            assert lengths == [200_000, 4]
        assert "certificate verify failed" in await refusal(source(url))


def test_a_ca_file_that_is_no_certificate_is_a_config_error(tmp_path):
    (tmp_path / "ca").write_text("nothing")
    with pytest.raises(ConfigError, match="TLS"):
        source("mqtts://127.0.0.1:1", ca_file=tmp_path / "ca")


@pytest.mark.parametrize(
    "junk", [b"HTTP/1.0 400 Bad Request\r\n\r\n".ljust(200), b"\xff" * 50, b"\x20\xff\xff\xff\x7f"]
)
async def test_a_server_that_does_not_speak_mqtt_is_unavailable(junk):
    async with scripted(junk) as url:
        assert url in await refusal(source(url, version="5"))


async def test_a_server_that_never_answers_is_given_up(monkeypatch):
    monkeypatch.setattr("fisher_agent.sources.mqtt.CONNECT_TIMEOUT_S", 0.5)
    async with scripted(b"\x20") as url:
        assert "no answer within 0.5 s" in await refusal(source(url))
