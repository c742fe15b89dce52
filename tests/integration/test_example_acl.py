"""The shipped access list, on a real broker: what each user may write and read, and that everything else is denied."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import aiomqtt
import pytest

from servers.mosquitto import Mosquitto

ACL = Path(__file__).parents[2] / "deploy" / "mosquitto" / "acl.example"
OURS = "fisher/v1/plant1/edge-1"
MACHINE = f"{OURS}/press-07"
RAW = "plant1/press-07/vib"
PASSWORDS = {"fisher": "f", "hmi": "h", "sensors": "s", "auditor": "a"}
END = f"{OURS}/end"  # said after each attempt; what was let through came before it

WRITES = [
    ("fisher", f"{OURS}/status", True),
    ("fisher", f"{MACHINE}/level", True),
    ("fisher", f"{MACHINE}/alarm/anomaly/state", True),
    ("fisher", f"{MACHINE}/cmd/ack", True),  # it deletes retained commands
    ("fisher", f"{MACHINE}/cmd/ack/result", True),
    ("fisher", RAW, False),
    ("fisher", "fisher/v1/plant2/edge-1/status", False),
    ("hmi", f"{MACHINE}/cmd/ack", True),
    ("hmi", f"{MACHINE}/cmd/shelve", True),
    ("hmi", f"{MACHINE}/cmd/ack/result", False),  # it would tell other screens that something was done
    ("hmi", f"{MACHINE}/level", False),
    ("hmi", f"{MACHINE}/state", False),
    ("hmi", f"{MACHINE}/alarm/anomaly", False),
    ("hmi", f"{MACHINE}/event", False),
    ("hmi", f"{OURS}/alive", False),
    ("hmi", f"{OURS}/cmd/ack", False),
    ("hmi", "fisher/v1/plant2/edge-1/press-07/cmd/ack", False),
    ("hmi", RAW, False),
    ("sensors", RAW, True),
    ("sensors", f"{MACHINE}/cmd/ack", False),
    ("sensors", f"{MACHINE}/level", False),
    ("sensors", f"{OURS}/status", False),
    ("sensors", "plant2/press-07/vib", False),
]
READS = [
    ("fisher", RAW, True),
    ("fisher", f"{MACHINE}/cmd/ack", True),
    ("hmi", f"{MACHINE}/level", True),
    ("hmi", f"{MACHINE}/cmd/ack/result", True),
    ("hmi", RAW, False),
    ("hmi", "other/topic", False),
    ("sensors", RAW, False),
    ("sensors", f"{MACHINE}/level", False),
]


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    folder = tmp_path_factory.mktemp("acl")
    acl = folder / "acl"
    acl.write_text(f"{ACL.read_text()}\nuser auditor\ntopic readwrite #\n")  # the test's own eyes
    acl.chmod(0o600)
    with Mosquitto(folder, passwords=PASSWORDS, extra=f"acl_file {acl}") as broker:
        yield broker


def client(broker: Mosquitto, user: str) -> aiomqtt.Client:
    return aiomqtt.Client("127.0.0.1", broker.port, username=user, password=PASSWORDS[user])


async def heard_of(listener: aiomqtt.Client, attempt: bytes) -> list[str]:
    """Where an attempt was heard before END; what the broker retains of other attempts does not matter."""
    heard: list[str] = []
    async with asyncio.timeout(10):
        async for message in listener.messages:
            if message.payload == attempt and message.topic.matches(END):
                break
            if message.payload == attempt:
                heard.append(str(message.topic))
    return heard


@pytest.mark.parametrize("retain", [False, True])
@pytest.mark.parametrize(("user", "topic", "allowed"), WRITES)
async def test_each_user_writes_its_own_topics_and_no_other(
    broker: Mosquitto, user: str, topic: str, allowed: bool, retain: bool
) -> None:
    attempt = uuid4().bytes
    async with client(broker, "auditor") as auditor, client(broker, user) as writer:
        await auditor.subscribe([("#", 1)])
        await writer.publish(topic, attempt, qos=1, retain=retain)
        await auditor.publish(END, attempt, qos=1)
        assert await heard_of(auditor, attempt) == ([topic] if allowed else [])


@pytest.mark.parametrize(("user", "topic", "allowed"), READS)
async def test_each_user_reads_what_it_needs_and_no_more(
    broker: Mosquitto, user: str, topic: str, allowed: bool
) -> None:
    attempt = uuid4().bytes
    async with client(broker, user) as reader, client(broker, "auditor") as auditor:
        await reader.subscribe([("#", 1)])  # a broker may grant that, and must still deliver nothing that is denied
        await auditor.publish(topic, attempt, qos=1)
        if user == "sensors":  # they read nothing, not even the end
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.5):
                    await anext(reader.messages)
        else:
            await auditor.publish(END, attempt, qos=1)
            assert await heard_of(reader, attempt) == ([topic] if allowed else [])


async def test_nobody_gets_in_without_a_name_or_with_a_wrong_password(broker: Mosquitto) -> None:
    for login in ({}, {"username": "hmi", "password": "wrong"}, {"username": "nobody", "password": "h"}):
        with pytest.raises(aiomqtt.MqttError, match=r"(?i)not authori"):
            async with aiomqtt.Client("127.0.0.1", broker.port, **login):
                pass
