"""Proves the connections of `check --connect`: what is sent comes back, or it is said what stands in the way."""

import asyncio
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass

from fisher_agent.config import Config, InfluxConfig
from fisher_agent.errors import FisherError, Unavailable
from fisher_agent.lines import lines
from fisher_agent.report import Names
from fisher_agent.sinks.influx import InfluxSink
from fisher_agent.sinks.mqtt import PlantLink
from fisher_agent.sinks.readback import ReadBack
from fisher_agent.stages import Message, Point

BACK_S = 5.0  # for a message to come back
VISIBLE_S = 10.0  # for a point: VictoriaMetrics shows one a second or two after it took it
POLL_S = 0.25
MEASUREMENT = "fisher_check"


@dataclass(frozen=True, slots=True)
class Proof:
    """What came of one connection; `proof` says what was seen, `error` is "" where all is well."""

    link: str
    url: str
    proof: str = ""
    error: str = ""
    reached: bool = True  # somebody answers, whatever is wrong then

    @property
    def row(self) -> dict[str, object]:
        """As `check --json` has it."""
        return {
            "link": self.link, "url": self.url, "ok": not self.error, "error": self.error, "proof": self.proof,
            "reached": self.reached,
        }  # fmt: skip


async def prove_plant(config: Config) -> list[Proof]:
    """Publish to a topic of our own and read it back; and whether commands would reach the agent."""
    if config.mqtt is None:
        return []
    names, url = Names.of(config), config.mqtt.url
    nonce = secrets.token_hex(8)
    own = f"{names.base}/check/{nonce}"
    # Of no machine, and empty: a daemon that runs passes over it.
    command = f"{names.base}/check-{nonce}/cmd/check"
    wanted = f"{names.base}/+/cmd/+"
    try:
        async with (
            PlantLink(config.mqtt, client_id=names.client_id("check-in"), will=Message(own, b"")) as ear,
            PlantLink(config.mqtt, client_id=names.client_id("check"), will=Message(own, b"")) as mouth,
        ):
            refusals = {topic: await _subscribed(ear, topic) for topic in (own, wanted)}
            back: dict[str, tuple[bytes, float]] = {}
            listening = asyncio.create_task(_hear(ear, {own, command}, back), name="check echo")
            try:
                began_s, payload = time.monotonic(), secrets.token_bytes(16)
                await mouth.publish(Message(own, payload, qos=1))
                await mouth.publish(Message(command, b"", qos=1))
                done, _ = await asyncio.wait([listening], timeout=BACK_S)
                for task in done:
                    task.result()
            finally:
                listening.cancel()
                await asyncio.gather(listening, return_exceptions=True)
            refusals |= {own: mouth.refused.get(own) or refusals[own]}
    except FisherError as failure:
        return [Proof("mqtt", url, error=str(failure), reached=False)]
    allow = "allow the agent's user to read and write its own topics there (deploy/mosquitto/acl.example)"
    echo, came_s = back.get(own, (b"", 0.0))
    error = proof = ""
    if echo == payload:
        proof = f"a message came back within {1e3 * (came_s - began_s):.0f} ms"
    else:
        why = refusals[own] or "it took the message, and did not deliver it"
        error = f"what was published to {names.base}/check/... did not come back: {why}; {allow}"
    proofs = [Proof("mqtt", url, proof=proof, error=error)]
    if config.mqtt.commands:
        why = refusals[wanted] or "it took a message, and did not deliver it"
        error = "" if command in back else f"commands on {wanted} would not arrive: {why}; {allow}"
        proofs.append(Proof("mqtt.commands", url, proof="" if error else f"{wanted} may be subscribed to", error=error))
    return proofs


async def prove_influx(config: InfluxConfig | None, names: Names) -> list[Proof]:
    """Write one point of `fisher_check`, and read it back where the database lets us query."""
    if config is None:
        return []
    try:
        api, seen = await write_and_read(config, names)
    except FisherError as failure:
        return [Proof("influx", config.url, error=str(failure), reached="answered" in str(failure))]
    if seen.by:
        how = f"and read back by {seen.by}"
    elif seen.refusals or seen.failures:
        how = f"(204), and could not be read back ({'; '.join(filter(None, (seen.refusals, seen.failures)))})"
    else:
        how = f"(204), and a query did not show it within {VISIBLE_S:g} s"
    return [Proof("influx", config.url, proof=f"a point was accepted by {api} {how}")]


@dataclass(frozen=True, slots=True)
class Seen:
    """Whether a point that the database accepted can be read back."""

    by: str = ""  # the API that showed it
    refusals: str = ""  # why none may be asked
    failures: str = ""  # why those that may did not answer; with none of the three, one answered without the point


async def write_and_read(config: InfluxConfig, names: Names) -> tuple[str, Seen]:
    """Write one point of `fisher_check`; returns the API that took it and what a query showed.

    Raises Unavailable where it is not accepted.
    """
    value, t_ns = secrets.randbelow(2**31), time.time_ns()
    where = (("site", names.site), ("edge", names.edge))
    point = lines([Point(MEASUREMENT, where, (("value", value),), t_ns)])
    async with InfluxSink(config) as sink:
        rejected = await sink.write(point)
        api = sink.api
    if rejected.positions:
        raise Unavailable(f"bucket {config.bucket!r} at {config.url} answered a point with {rejected.reason}")
    return str(api), await _read_back(config, value, t_ns)


async def _read_back(config: InfluxConfig, value: int, t_ns: int) -> Seen:
    reader = ReadBack(config)
    deadline = time.monotonic() + VISIBLE_S
    try:
        while True:
            if by := await asyncio.to_thread(reader.found, MEASUREMENT, value, t_ns=t_ns):
                return Seen(by=by)
            if not reader.answers:
                return Seen(refusals=_said(reader.refusals))
            if time.monotonic() > deadline:
                return Seen() if reader.answered else Seen(failures=_said(reader.failures))
            await asyncio.sleep(POLL_S)
    finally:
        reader.close()


def _said(why: Mapping[str, str]) -> str:
    return "; ".join(f"{name}: {text}" for name, text in why.items())


async def _subscribed(link: PlantLink, topic: str) -> str:
    """Why the broker refuses a subscription; "" where it does not say so (some only never deliver)."""
    try:
        await link.subscribe(topic)
    except Unavailable as error:
        if "refuses the subscription" not in str(error):
            raise
        return str(error)
    return ""


async def _hear(link: PlantLink, topics: set[str], found: dict[str, tuple[bytes, float]]) -> None:
    """Note the payloads of these topics and when they came, until all of them did."""
    async for message in link.messages():
        if (topic := str(message.topic)) in topics:
            found[topic] = (message.payload if isinstance(message.payload, bytes) else b"", time.monotonic())
            if len(found) == len(topics):
                return
