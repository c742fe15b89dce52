"""Machines of four channels at mixed rates, sent in real time: made before, so that sending costs next to nothing.

One machine is ill for twenty seconds of every two minutes, so that alarms flow.
"""

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fisher_agent.stages import Floats
from fisher_agent.wire import FRAME_DTYPES, HEADER, MAGIC
from integration.harness import MqttOutlet
from sender import Sender

RATES_HZ = {"vib": 25600, "mic": 12800, "cur": 4000, "volt": 1000}
KINDS = {"vib": ("vibration", "g"), "mic": ("sound", "Pa"), "cur": ("current", "A"), "volt": ("voltage", "V")}
BLOCK_S = 0.2
LOOP_S = 37.4  # no multiple of the hop, so that no window comes twice in it
ILL_S, ILL_EVERY_S = 20.0, 120.0
ENROLLED_S = 60.0
F32 = next(code for code, dtype in FRAME_DTYPES.items() if dtype == np.float32)


def names(n: int) -> list[str]:
    """The machines; the first is the one that falls ill."""
    return [f"mill-{k:02}" for k in range(n)]


def configured(machines: Sequence[str]) -> str:
    """Their TOML."""
    head = (
        '[[machines]]\nid = "{m}"\n[machines.defaults]\nsource = "plant"\ntopic = "raw/{{machine}}/{{channel}}"\n'
        'format = "fisher-frame/1"\n'
    )
    channels = "".join(
        f'[[machines.channels]]\nid = "{c}"\nkind = "{KINDS[c][0]}"\nunit = "{KINDS[c][1]}"\nrate_hz = {rate}\n'
        for c, rate in RATES_HZ.items()
    )
    return "\n".join(head.format(m=m) + channels for m in machines)


def signal(seed: int, seconds: float, *, rate_hz: int, ill: bool = False) -> Floats:
    """Noise over a few tones; ill: knocks, ten in a second. (n,) float32."""
    random = np.random.default_rng(seed)
    t_s = np.arange(round(seconds * rate_hz)) / rate_hz
    tones = sum(np.sin(2 * np.pi * hz * t_s + random.uniform(0, 6)) for hz in (29.0, 0.11 * rate_hz, 0.3 * rate_hz))
    knocks = np.exp(-(t_s % 0.1) * 60) * np.sin(2 * np.pi * 0.2 * rate_hz * t_s) if ill else 0.0
    return np.asarray(0.1 * random.standard_normal(len(t_s)) + 0.05 * tones + 0.6 * knocks, np.float32)


def recorded(path: Path) -> Path:
    """Normal running of any of the machines, to enrol."""
    parts = {c: signal(90 + n, ENROLLED_S, rate_hz=rate) for n, (c, rate) in enumerate(RATES_HZ.items())}
    rates = {f"{c}.rate_hz": rate for c, rate in RATES_HZ.items()}
    np.savez(path, t_ns=0, **parts, **rates)  # type: ignore[arg-type]
    return path


class Load(Sender):
    """`with Load(outlet, machines):` a thread publishes every channel's block as its last sample is taken."""

    def __init__(self, outlet: MqttOutlet, machines: Sequence[str]) -> None:
        self._outlet, self._machines = outlet, machines
        self._blocks = {
            (c, ill): _cut(signal(n + 10 * ill, LOOP_S, rate_hz=rate, ill=ill), rate)
            for n, (c, rate) in enumerate(RATES_HZ.items())
            for ill in (False, True)
        }
        self.late_s = 0.0  # the most that a turn of sending was behind
        super().__init__("load")

    def send(self) -> None:
        step_ns = round(BLOCK_S * 1e9)
        start_ns = time.time_ns() // step_ns * step_ns
        turn = 0
        while True:
            t_ns = start_ns + turn * step_ns
            wait_s = (t_ns + step_ns - time.time_ns()) / 1e9
            self.late_s = max(self.late_s, -wait_s)
            if self.halt.wait(max(0.0, wait_s)):
                return
            sick = turn * BLOCK_S % ILL_EVERY_S > ILL_EVERY_S - ILL_S
            for n, machine in enumerate(self._machines):
                for channel, rate in RATES_HZ.items():
                    blocks = self._blocks[channel, sick and n == 0]
                    body = blocks[(turn + 31 * n) % len(blocks)]
                    header = HEADER.pack(MAGIC, F32, 1, 0, t_ns, rate, turn, len(body) // 4)
                    self._outlet.send(f"raw/{machine}/{channel}", header + body)
            turn += 1


def _cut(samples: Floats, rate_hz: int) -> list[bytes]:
    block = round(BLOCK_S * rate_hz)
    return [samples[k : k + block].tobytes() for k in range(0, len(samples) // block * block, block)]
