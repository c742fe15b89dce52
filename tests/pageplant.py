"""A real agent with its page, fed with verdicts instead of samples: no model, no broker; and captures as they lie."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fakes import SPEC, T0_NS, FakeEmbedder, bundle
from fisher_agent.app import build, open_store
from fisher_agent.banks import Engine
from fisher_agent.captures import CaptureFiles
from fisher_agent.codes import Quality
from fisher_agent.configfile import parse
from fisher_agent.ledger import Model
from fisher_agent.page.service import serve
from fisher_agent.rawfiles import npz, pack
from fisher_agent.runtime import Agent
from fisher_agent.stages import ChannelReading, Peak, Verdict
from fisher_agent.wire import scaled
from fisher_models.frontend import Frontend
from servers.process import free_port

CHANNELS = (("vib", "vibration", "g", 25600), ("cur", "current", "A", 12800), ("mic", "sound", "Pa", 16000))
HOP_S = 2.5
MODEL = Model("fake", "b" + "0" * 64, "trained", "fake", "f32", "CPU")


def config_text(folder: Path, *, machines: int, page: str) -> str:
    """A configuration in which nothing becomes stale by itself: what is shown depends on the test alone."""
    parts = [f'site = "plant1"\nedge = "edge-1"\nstate_dir = "{folder}/state"\n[page]\n{page}']
    parts.append('[[sources]]\nname = "plant"\ntype = "zmq"\nurl = "ipc:///nowhere/daq.sock"')
    for n in range(machines):
        parts.append(f'[[machines]]\nid = "mill-{n + 1:02}"\ndefaults = {{ source = "plant", stale_s = 86400 }}')
        parts += [
            f'[[machines.channels]]\nid = "{c}"\nkind = "{kind}"\nunit = "{unit}"\nrate_hz = {rate}\ntopic = "{n}/{c}"'
            for c, kind, unit, rate in CHANNELS
        ]
    return "\n".join(parts)


@dataclass
class Plant:
    """The running agent and the port of its page."""

    agent: Agent
    port: int
    now_ns: int = T0_NS

    @property
    def machines(self) -> list[str]:
        return list(self.agent.machines)

    async def judge(self, machine: str, score: float, **changes: Any) -> None:
        """One verdict, written down as the daemon writes it."""
        live = self.agent.machines[machine]
        verdict = made(machine, score, t_ns=self.now_ns, **changes)
        await self.agent.ledger.verdict(live, verdict, latency_ms=10.0, mono_s=asyncio.get_running_loop().time())

    async def hop(self, scores: Mapping[str, float], **changes: Any) -> None:
        """One grid time: a verdict of each machine that has a score."""
        for machine, score in scores.items():
            await self.judge(machine, score, **changes)
        await self.agent.ledger.flush()
        self.now_ns += round(HOP_S * 1e9)

    async def raise_alarm(self, machine: str) -> int:
        """As many windows over the limit as the on-delay wants; returns the occurrence."""
        for _ in range(3):
            await self.hop({machine: 1.5})
        return self.agent.machines[machine].alarms.anomaly.occurrence


def made(machine: str, score: float, *, t_ns: int, **changes: Any) -> Verdict:
    """A verdict with shares that follow the score."""
    lean = min(0.9, 0.34 + score / 8)
    shares = {"vib": lean, "cur": (1 - lean) * 0.4, "mic": (1 - lean) * 0.6}
    readings = tuple(
        ChannelReading(
            channel=c, distance=0.1, ratio=score * shares[c], contribution=shares[c], rms=1.0, peak=3.0, crest=3.0,
            kurtosis=3.0, velocity_rms_mm_s=None, flat=False, clipped=False,
            bands=(1 - lean, lean) if rate > 12800 else (1.0,),
            band_edges_hz=((0, 4000), (4000, 8000)) if rate > 12800 else ((0, 4000),),
            peak_band=Peak(2818.0, 3548.0, 7.0),
        )
        for c, _, _, rate in CHANNELS
    )  # fmt: skip
    facts: dict[str, Any] = {
        "machine": machine, "t_ns": t_ns, "score": score, "p_value": 0.5, "mode": "default", "running": True,
        "enrolled": True, "fault": None, "fault_confidence": 0.0, "quality": Quality.GOOD, "readings": readings,
        "bank": "v1",
    }  # fmt: skip
    return Verdict(**{**facts, **changes})


@asynccontextmanager
async def running_plant(folder: Path, *, machines: int = 2, page: str = "", port: int = 0) -> AsyncIterator[Plant]:
    """The agent runs, its page listens; both end with the block."""
    port = port or free_port()
    config = parse(config_text(folder, machines=machines, page=f"port = {port}\n{page}"))
    store = open_store(config)
    agent = build(config, store)
    engine = Engine(bundle(), Frontend(SPEC), FakeEmbedder(), MODEL)
    agent.parts.open_engine = lambda: (engine, None)
    agent.parts.services = (serve,)
    task = asyncio.create_task(agent.run(), name="agent")
    try:
        await _ready(agent, task)
        yield Plant(agent, port)
    finally:
        agent.stop()
        await task
        store.close()


async def _ready(agent: Agent, task: asyncio.Task[None]) -> None:
    waiting = asyncio.create_task(agent.ready.wait())
    await asyncio.wait([task, waiting], return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if task.done():
        await task


@dataclass
class Answer:
    """What came back over the wire."""

    status: int
    headers: dict[str, list[str]]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


async def ask(
    port: int, path: str, *, method: str = "GET", headers: Mapping[str, str] | None = None, body: bytes = b""
) -> Answer:
    """One request on a connection of its own, with exactly these headers; a value of "" leaves a default out."""
    sent = {"Host": f"127.0.0.1:{port}", "Connection": "close", **(headers or {})}
    if method == "POST":
        sent.setdefault("Content-Length", str(len(body)))
    head = [f"{method} {path} HTTP/1.1", *(f"{k}: {v}" for k, v in sent.items() if v), "", ""]
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write("\r\n".join(head).encode() + body)
        await writer.drain()
        async with asyncio.timeout(20):
            answered = await reader.read()
    finally:
        writer.close()
    top, _, rest = answered.partition(b"\r\n\r\n")
    first, *lines = top.decode("latin-1").split("\r\n")
    found: dict[str, list[str]] = {}
    for line in lines:
        name, _, value = line.partition(":")
        found.setdefault(name.lower(), []).append(value.strip())
    return Answer(int(first.split()[1]), found, rest)


async def post(port: int, path: str, document: Any, **headers: str) -> Answer:
    """As our own page posts."""
    ours = {"Content-Type": "application/json", "X-Fisher": "1", "Origin": f"http://127.0.0.1:{port}"}
    return await ask(port, path, method="POST", headers=ours | headers, body=json.dumps(document).encode())


RATES, SCALES, UNITS = {"vib": 25600, "cur": 12800}, {"vib": 0.0001, "cur": 1.0}, {"vib": "g", "cur": "A"}


def write_capture(state_dir: Path, machine: str, occurrence: int, *, t_ns: int = T0_NS, **changes: Any) -> Path:
    """A capture as the agent leaves it: 12 s around a bearing fault, integers as FLAC, floats as npz."""
    rng = np.random.default_rng(occurrence)
    start_ns, rate = t_ns - 8 * 10**9, 25600
    t = np.arange(12 * rate) / rate
    normal = 0.3 * rng.normal(size=len(t)) + np.sin(2 * np.pi * 119.8 * t)
    knocks = np.where(t > 4, (np.sin(2 * np.pi * 87.3 * t) > 0.995) * rng.normal(size=len(t)) * 6, 0)
    ringing = np.convolve(knocks, np.exp(-np.arange(200) / 40) * np.sin(2 * np.pi * 3100 * np.arange(200) / rate))
    vib = (normal + ringing[: len(t)]) * 0.1
    whole = np.clip(vib / 0.0001, -32768, 32767).astype(np.int16)
    sent = {"vib": scaled(whole, 0.0001), "cur": rng.normal(size=12 * 12800).astype(np.float32)}
    packed = {c: pack(samples, scale=SCALES[c], rate_hz=RATES[c]) for c, samples in sent.items()}
    files = {c + raw.suffix: raw.body for c, raw in packed.items()}
    files["nearest-vib.npz"] = npz(samples=(normal[: 5 * rate] * 0.1).astype(np.float32), rate_hz=float(rate))
    indicators = {
        "rms": {"now": 0.31, "enrolled": 0.104, "enrolled_low": 0.1, "enrolled_high": 0.109, "unit": "g"},
        "kurtosis": {"now": 11.2, "enrolled": 2.7, "enrolled_low": 2.5, "enrolled_high": 3.0, "unit": ""},
    }
    document = {
        "schema": "fisher.capture/1", "machine": machine, "alarm": "anomaly", "occurrence": occurrence,
        "onset_ns": start_ns + 4 * 10**9, "raised_ns": t_ns + 10**9,
        "text": f"{machine}: anomaly, score 3.5 (limit 1.0); mostly vib at 2.8-3.5 kHz, +7 dB",
        "bank": "v1", "model": "m1",
        "channels": [
            {"id": c, "file": c + raw.suffix, "rate_hz": RATES[c], "unit": UNITS[c], "scale": SCALES[c],
             "kind": "other", "t_ns": start_ns, "n": len(sent[c]), "format": raw.format,
             "blocks": [[start_ns, len(sent[c]), False]]}
            for c, raw in packed.items()
        ],
        "verdict": {"t_ns": t_ns + 10**9, "score": 3.5, "p_value": 0.007, "window_s": 5.0},
        "explanation": {
            "top_channel": "vib", "top_band_hz": [2818.0, 3548.0], "top_change_db": 7.2, "fault": "outer-race",
            "fault_confidence": 0.8,
            "nearest": [{"channel": "vib", "t_ns": t_ns - 3600 * 10**9, "distance": 0.31, "file": "nearest-vib.npz"}],
            "indicators": {"vib": indicators},
            "peaks": [{"channel": "vib", "name": "BPFO", "hz": 87.3, "now_db": -12.0, "enrolled_db": -31.0}],
        },
        **changes,
    }  # fmt: skip
    root = state_dir / "captures"
    CaptureFiles(root).save(machine, str(occurrence), document=document, files=files, max_bytes=10**9)
    return root / machine / str(occurrence)
