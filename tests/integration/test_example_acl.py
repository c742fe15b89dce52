"""The shipped access list, on a real broker: an HMI commands, and cannot overwrite what the agent says."""

import asyncio
from pathlib import Path

import aiomqtt

from servers.mosquitto import Mosquitto

ACL = Path(__file__).parents[2] / "deploy" / "mosquitto" / "acl.example"
BASE = "fisher/v1/plant1/edge-1/press-07"
PASSWORDS = {"fisher": "f", "hmi": "h", "sensors": "s"}


async def test_an_hmi_may_write_commands_only(tmp_path: Path) -> None:
    acl = tmp_path / "acl"
    acl.write_text(ACL.read_text())
    acl.chmod(0o600)
    with Mosquitto(tmp_path, passwords=PASSWORDS, extra=f"acl_file {acl}") as broker:

        def client(user: str) -> aiomqtt.Client:
            return aiomqtt.Client("127.0.0.1", broker.port, username=user, password=PASSWORDS[user])

        async with client("fisher") as agent, client("hmi") as hmi, client("sensors") as sensors:
            await agent.subscribe([("fisher/v1/#", 1), ("plant1/#", 1)])
            await hmi.subscribe([("fisher/v1/plant1/#", 1)])
            await hmi.publish(f"{BASE}/level", b"0", qos=1)  # denied
            await hmi.publish(f"{BASE}/alarm/anomaly", b"", qos=1, retain=True)  # denied
            await hmi.publish("plant1/press-07/vib", b"0", qos=1)  # denied
            await sensors.publish(f"{BASE}/cmd/ack", b"1", qos=1)  # denied
            await hmi.publish(f"{BASE}/cmd/ack", b"42", qos=1)
            await sensors.publish("plant1/press-07/vib", b"samples", qos=1)
            await agent.publish(f"{BASE}/level", b"2", qos=1, retain=True)
            async with asyncio.timeout(10):
                heard = [(str(m.topic), m.payload) for m in [await anext(agent.messages) for _ in range(3)]]
                seen = [(str(m.topic), m.payload) for m in [await anext(hmi.messages) for _ in range(2)]]
    command, samples, level = (f"{BASE}/cmd/ack", b"42"), ("plant1/press-07/vib", b"samples"), (f"{BASE}/level", b"2")
    assert heard == [command, samples, level]
    assert seen == [command, level]
