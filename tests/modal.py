"""A machine with a speed channel and modes of its own loudness and lines, for the tests of operating modes."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from fakes import SPEC, T0_NS, VIBRATION, WINDOW, FakeEmbedder, bundle, channel, machine, signal
from fisher_agent.bankset import BankSet
from fisher_agent.config import MachineConfig
from fisher_agent.coverage import EnrolReport
from fisher_agent.machinejudge import MachineJudge
from fisher_agent.modelearning import learn_modes
from fisher_agent.modes import Told
from fisher_agent.pipeline import Pipeline
from fisher_agent.split import split
from fisher_agent.stages import Frame, Verdict
from fisher_agent.survey import moments
from fisher_agent.waveforms import Recording
from fisher_models.frontend import Frontend

FRONTEND = Frontend(SPEC)
SPEED = channel("rpm", 100, kind="process", unit="rpm")
BANDS = {"idle": [100, 450], "full": [400, 1600]}
RULED = machine(VIBRATION, SPEED, mode={"channel": "rpm", "bands": BANDS})
PLAIN = machine(VIBRATION, SPEED)
TAGGED = machine(VIBRATION, SPEED, mode={"topic": "plc/mode"})
CLUSTERED = machine(VIBRATION, SPEED, mode={"cluster": True})
IDLE, FULL, TURBO, OFF = (300.0, 0.5), (1000.0, 1.0), (2000.0, 1.6), (0.0, 0.002)
"""Speed and level."""
LATER_NS = T0_NS + 10**13
Phase = tuple[tuple[float, float], float]  # (speed, level), seconds


def heard(*phases: Phase, seed: int = 1, t_ns: int = T0_NS, **fault: float) -> Recording:
    """One phase after another, without a gap; `fault` is a line in all of them, as in `signal`."""
    out = Recording()
    vib, rpm = [], []
    for n, ((speed, level), seconds) in enumerate(phases):
        x = signal(VIBRATION, seconds, seed=100 * seed + n, level=level, **fault)
        t = np.arange(len(x)) / VIBRATION.rate_hz
        vib.append(x + (level * np.sin(2 * np.pi * (1.013 * speed + 0.37) * t)).astype(np.float32))
        noise = np.random.default_rng([seed, n]).normal(size=round(100 * seconds))
        rpm.append((speed + 2 * noise).astype(np.float32))
    for config, parts in ((VIBRATION, vib), (SPEED, rpm)):
        samples = np.concatenate(parts)
        step = round(0.5 * config.rate_hz)
        for first in range(0, len(samples), step):
            at_ns = t_ns + round(first * 1e9 / config.rate_hz)
            out.add(Frame("press-07", config.id, at_ns, config.rate_hz, samples[first : first + step]))
    return out


def model(config: MachineConfig, **keys: Any) -> dict[str, Any]:
    return {
        "machine": config, "window": WINDOW, "bundle": bundle(), "frontend": FRONTEND, "embedder": FakeEmbedder(),
        "version": "v1", "created_ns": 7,
    } | keys  # fmt: skip


def enrol(
    config: MachineConfig,
    recording: Recording,
    *,
    mode: str | None = None,
    previous: BankSet | None = None,
    **keys: Any,
) -> tuple[BankSet, EnrolReport]:
    parts = split(recording, config, WINDOW, mode=mode)
    return learn_modes(parts, previous=previous, keep_others=True, **model(config, **keys))


def verdicts(
    config: MachineConfig, bank: BankSet | None, recording: Recording, *, told: Sequence[tuple[str, int]] = ()
) -> list[Verdict]:
    """Judge a recording; `told` is what a tag says from which time on."""
    words = Told()
    for word, t_ns in told:
        words.say(word, t_ns)
    judge = MachineJudge(config, WINDOW, bank, frontend=FRONTEND)
    pipeline = Pipeline(frontend=FRONTEND, embedder=FakeEmbedder(), judges={"press-07": judge})
    return pipeline.process([words.stamp(m, window=WINDOW) for m in moments(recording, config, WINDOW)])
