"""The demo's story: start the plant, learn, watch, let a fault begin, and say what the agent makes of it.

What is printed is what happened: the alarm comes from the broker, through the agent, or it does not come.
"""

import asyncio
import contextlib
import json
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from fisher_agent import app
from fisher_agent.console import Console as Progress
from fisher_agent.demo.scenario import ENROLL_S, MILL, MOTOR, NORMAL_S, PATIENCE_S, configuration, enrolled
from fisher_agent.enrolling import enroll_recording, listen
from fisher_agent.errors import Unavailable
from fisher_agent.files import read_many
from fisher_agent.logs import configure
from fisher_agent.page import service as page
from fisher_agent.report import Names
from fisher_agent.runtime import Agent
from fisher_agent.sinks.mqtt import PlantLink
from fisher_agent.stages import Message
from fisher_agent.waveforms import Recording

SHARE = 0.35  # of this box's time that the demo's windows may take: sets how much faster than real time it plays
MAX_SPEED = 16.0
PAGE_PORT = 8420  # as of the real agent, where that is free
PLANT_START_S = 30.0
NARRATE_S = 3.0
BARS = "▁▂▃▄▅▆▇█"
BAR_WIDTH = 60


@dataclass(slots=True)
class Seen:
    """What came over the broker, as any HMI would see it."""

    events: list[dict[str, Any]] = field(default_factory=list)

    def raised(self, machine: str) -> list[dict[str, Any]]:
        """The raises of `anomaly`, oldest first."""
        return [e for e in self.events if (e["machine"], e["alarm"], e["state"]) == (machine, "anomaly", "UNACK")]


def main(*, once: bool, json_: bool) -> int:
    """Run it; returns the exit code: 0 where the fault was found, 1 where it was not."""
    configure("error")
    out = Console(file=sys.stderr if json_ else sys.stdout, highlight=False, soft_wrap=True)
    with tempfile.TemporaryDirectory(prefix="fisher-demo-") as folder:
        try:
            result = asyncio.run(_demo(Path(folder), out, once=once))
        except KeyboardInterrupt:
            out.print("stopped")
            return 0
    if json_:
        print(json.dumps(result))
    return 0 if result["detection_delay_s"] >= 0 else 1


async def _demo(folder: Path, out: Console, *, once: bool) -> dict[str, Any]:
    began_s = time.monotonic()
    out.print("[bold]fisher-agent demo[/]  a generated machine with three sensors; a real motor (UGent, CC BY-SA 4.0)")
    port = _free_port()
    config = configuration(port, folder, page_port=_free_port(PAGE_PORT))
    store = app.open_store(config)
    agent = app.build(config, store)
    speed = await asyncio.to_thread(_speed, config)
    try:
        async with _plant(port, speed) as plant, _running(agent):
            model = agent.engine.model
            out.print(
                f"model {model.bundle} on {model.device or model.backend} {model.precision}, weights {model.weights}"
                + (": scores show change, they are not diagnoses" if model.weights == "untrained" else "")
            )
            out.print(
                f"[bold]open {page.url(config.page)} in a browser[/]: machines, alarms and what explains them, live"
            )
            out.print(f"broker on port {port}; sensors are stamped and play {speed:.1f} x real time")
            seen = Seen()
            async with _watching(agent, seen):
                result = await _story(agent, plant, seen, out)
                out.print(f"[dim]{time.monotonic() - began_s:.0f} s from start to end of the story[/]")
                if not once:
                    out.print("running on; Ctrl-C ends it")
                    with contextlib.suppress(asyncio.CancelledError):
                        await _stay(agent, seen, out)
    finally:
        store.close()
    return result


async def _story(agent: Agent, plant: "Plant", seen: Seen, out: Console) -> dict[str, Any]:
    mill = agent.config.machine(MILL)
    out.print(f"\n[bold]1. learn[/]  {MILL}: {ENROLL_S:.0f} s of normal running, live from the broker")
    with Progress(quiet=out.file is sys.stderr) as bar:
        recording = await listen(agent, mill, ENROLL_S, bar.progress)
        learnt = await enroll_recording(agent, mill, recording, bar.progress)
    for line in learnt["lines"]:
        out.print(f"   {line}")
    await _learn_motor(agent, out)

    out.print(
        f"\n[bold]2. watch[/]  {NORMAL_S:.0f} s of normal running; the real motor's held-out recordings beside it"
    )
    since_ns = agent.machines[MILL].judged_ns
    async with _narrating(agent, since_ns, out):
        await plant.say("recordings")
        labels = await plant.recordings()
        await _until(agent, since_ns + NORMAL_S * 1e9)
    normal = [score for _, score in await _scores(agent, MILL, since_ns)]
    if normal:
        largest = f"median score {np.median(normal):.2f}, largest {max(normal):.2f} (limit 1.0)"
        out.print(f"   {MILL}: {len(normal)} windows, {largest}")
    _tell_motor(await _scores(agent, MOTOR, since_ns), labels, out)

    out.print(f"\n[bold]3. fault[/]  an outer-race bearing fault begins to grow in {MILL}")
    await plant.say("fault")
    fault_ns = (await plant.heard("fault_t_ns"))["fault_t_ns"]
    false_alarms = [e for e in seen.raised(MILL) if e["ts_raised"] * 1_000_000 < fault_ns]
    false_alarms += [e for e in seen.raised(MOTOR) if _healthy(e, labels)]
    if right := len([e for e in seen.raised(MOTOR) if not _healthy(e, labels)]):
        out.print(f"   {MOTOR}: {right} alarm{'s' if right > 1 else ''} meanwhile, over misaligned recordings")

    def found() -> list[dict[str, Any]]:
        return [e for e in seen.raised(MILL) if e["ts_raised"] * 1_000_000 >= fault_ns]

    async with _narrating(agent, fault_ns, out):
        await _until(agent, fault_ns + PATIENCE_S * 1e9, or_when=found)
    delay_s = -1.0
    if alarms := found():
        alarm = alarms[0]
        delay_s = round(alarm["ts_raised"] / 1e3 - fault_ns / 1e9, 3)
        out.print(f"   [bold red]ALARM[/] after {delay_s:.1f} s: {alarm['text']}")
        out.print(
            f"   where: {alarm['top_channel']}, {alarm['top_band_hz_low']:.0f}-{alarm['top_band_hz_high']:.0f} Hz, "
            f"{alarm['top_share']:.0%} of the excess; p = {alarm['p_value']:.3f}; "
            f"acknowledge with occurrence {alarm['occurrence']}"
        )
    else:
        out.print(f"   no alarm within {PATIENCE_S:.0f} s of the onset")
    health = agent.health()
    counters = await agent.in_store(agent.store.counters, "influx")
    out.print(
        f"   {counters.added} points are in the outbox on disk (no database is configured); "
        f"{health['dropped']} windows dropped, {len(false_alarms)} false alarms"
    )
    return {
        "windows": health["windows"],
        "points": counters.added,
        "alarms_raised": len(seen.raised(MILL)) + len(seen.raised(MOTOR)),
        "false_alarms": len(false_alarms),
        "detection_delay_s": delay_s,
        "backend": agent.engine.model.backend,
        "weights": agent.engine.model.weights,
    }


async def _learn_motor(agent: Agent, out: Console) -> None:
    motor, recording = agent.config.machine(MOTOR), Recording()
    for frame in await asyncio.to_thread(
        lambda: list(read_many(enrolled(), machine=motor, window=agent.config.window))
    ):
        recording.add(frame)
    learnt = await enroll_recording(agent, motor, recording, _quiet)
    out.print(f"   {MOTOR}: {len(enrolled())} real recordings of the aligned motor")
    for line in learnt["lines"]:
        out.print(f"   {line}")


def _tell_motor(judged: list[tuple[int, float]], labels: list[tuple[int, str]], out: Console) -> None:
    """Scores of the real recordings and the AUC of aligned against misaligned (Mann-Whitney), as measured."""
    scores: dict[bool, list[float]] = {True: [], False: []}
    for t_ns, score in judged:
        before = [label for start, label in labels if start < t_ns]
        if before:
            scores[before[-1] == "aligned"].append(score)
    healthy, faulty = np.array(scores[True]), np.array(scores[False])
    if not healthy.size or not faulty.size:
        out.print(f"   {MOTOR}: not every recording was scored")
        return
    auc = float(np.mean((faulty[:, None] > healthy) + 0.5 * (faulty[:, None] == healthy)))
    out.print(
        f"   {MOTOR}: {healthy.size} aligned recordings, median score {np.median(healthy):.2f}; "
        f"{faulty.size} misaligned, {np.median(faulty):.2f}; AUC {auc:.2f}, as measured"
    )


def _healthy(event: dict[str, Any], labels: list[tuple[int, str]]) -> bool:
    before = [label for start, label in labels if start / 1e6 < event["ts_raised"]]
    return bool(before) and before[-1] == "aligned"


class Plant:
    """The child process: words in, JSON lines out."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def say(self, word: str) -> None:
        """One word of its vocabulary."""
        assert self._process.stdin is not None
        self._process.stdin.write(word.encode() + b"\n")
        await self._process.stdin.drain()

    async def heard(self, key: str) -> dict[str, Any]:
        """The next line that holds a key."""
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            document: dict[str, Any] = json.loads(line)
            if key in document:
                return document
        raise Unavailable("the demo's plant ended by itself")

    async def recordings(self) -> list[tuple[int, str]]:
        """(start, label) of every recording, once all were played."""
        labels: list[tuple[int, str]] = []
        while True:
            document = await self.heard("t_ns")
            if "recordings" in document:
                return labels
            labels.append((document["t_ns"], document["label"]))


@asynccontextmanager
async def _plant(port: int, speed: float) -> AsyncIterator[Plant]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "fisher_agent.demo.plant", str(port), str(speed),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, start_new_session=True,  # Ctrl-C ends the story
    )  # fmt: skip
    plant = Plant(process)
    try:
        async with asyncio.timeout(PLANT_START_S):
            await plant.heard("port")
        yield plant
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


@asynccontextmanager
async def _running(agent: Agent) -> AsyncIterator[None]:
    task = asyncio.create_task(agent.run(), name="agent")
    ready = asyncio.create_task(agent.ready.wait(), name="ready")
    await asyncio.wait([task, ready], return_when=asyncio.FIRST_COMPLETED)
    ready.cancel()
    if task.done():
        await task
    try:
        yield
    finally:
        agent.stop()
        await task


@asynccontextmanager
async def _watching(agent: Agent, seen: Seen) -> AsyncIterator[None]:
    """Listen on the broker as an HMI does."""
    names = Names.of(agent.config)
    assert agent.config.mqtt is not None
    async with PlantLink(agent.config.mqtt, client_id="hmi", will=Message("demo/hmi", b"")) as link:
        await link.subscribe(f"{names.base}/+/event")

        async def listen() -> None:
            async for message in link.messages():
                assert isinstance(message.payload, bytes)
                seen.events.append(json.loads(message.payload))

        task = asyncio.create_task(listen(), name="hmi")
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


async def _stay(agent: Agent, seen: Seen, out: Console) -> None:
    """Until Ctrl-C: a line per change, and the score now and then."""
    told = len(seen.events)
    while True:
        await asyncio.sleep(5.0)
        for event in seen.events[told:]:
            out.print(f"   {event['machine']}/{event['alarm']} {event['state']}: {event['text']}")
        told = len(seen.events)
        if (verdict := agent.machines[MILL].verdict) is not None:
            out.print(f"   [dim]{MILL} score {verdict.score:.2f}, {agent.stats.total('windows_embedded')} windows[/]")


@asynccontextmanager
async def _narrating(agent: Agent, since_ns: int, out: Console) -> AsyncIterator[None]:
    """Say how the mill's score goes while something is waited for: a bar per window, full at twice the limit."""

    async def narrate() -> None:
        told_ns = since_ns
        while True:
            await asyncio.sleep(NARRATE_S)
            if rows := await _scores(agent, MILL, told_ns + 1):
                told_ns = rows[-1][0]
                line = "".join(BARS[min(len(BARS) - 1, int(score / 2 * len(BARS)))] for _, score in rows[-BAR_WIDTH:])
                out.print(f"   [dim]{(told_ns - since_ns) / 1e9:5.0f} s  {line}  score {rows[-1][1]:.2f}[/]")

    task = asyncio.create_task(narrate(), name="narrator")
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def _until(agent: Agent, t_ns: float, *, or_when: Callable[[], object] = lambda: False) -> None:
    """Wait until the mill was judged up to an event time, or sooner; never longer than at a fifth of real time."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(5 * PATIENCE_S):
            while agent.machines[MILL].judged_ns < t_ns and not or_when():  # noqa: ASYNC110  (a poll is enough here)
                await asyncio.sleep(0.1)


async def _scores(agent: Agent, machine: str, since_ns: int) -> list[tuple[int, float]]:
    """(t_ns, score) of every judged window, from the agent's own history."""
    rows = await agent.in_store(agent.store.scores, machine, since_ns=since_ns)
    return sorted((row.t_ns, row.score) for row in rows)


def _speed(config: Any) -> float:
    """How many times real time this box can play: its cost per second of the mill's signals, measured now."""
    engine = app.open_engine(config)
    noise = np.random.default_rng(0).standard_normal(25_600).astype(np.float32)
    cost_s = 0.0
    for channel in config.machine(MILL).channels:
        samples = noise[: round(channel.rate_hz * config.window.length_s)]
        times = []
        for _ in range(3):
            began_s = time.perf_counter()
            bands, centres = engine.frontend.bands(samples, channel.rate_hz)
            engine.embedder.embed(bands, centres)
            times.append(time.perf_counter() - began_s)
        cost_s += min(times) / config.window.hop_s
    engine.embedder.close()
    return max(1.0, min(MAX_SPEED, SHARE / cost_s))


def _free_port(wanted: int = 0) -> int:
    """A port of the loopback that nobody listens on: the one wanted, if that is free."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the page itself binds
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError:
            return _free_port()
        return int(probe.getsockname()[1])


def _quiet(_done: int, _total: int) -> None:
    """No progress: the story has its own lines."""
