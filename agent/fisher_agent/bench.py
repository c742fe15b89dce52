"""`fisher-agent bench`: what each stage costs on this box, and how many channels of 25.6 kHz it sustains.

Costs are medians over repeated runs of the real stages on generated signals; nothing is assumed but the window.
"""

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np

from fisher_agent import app
from fisher_agent.banks import Engine
from fisher_agent.config import Config
from fisher_agent.configfile import parse
from fisher_agent.features import features
from fisher_agent.gather import Gatherer
from fisher_agent.indicators import measure as measure_indicators
from fisher_agent.nearest import Index
from fisher_agent.service import rss_bytes
from fisher_agent.stages import Floats, Frame
from fisher_agent.wire import decoder_for, encode

Clock = Callable[[], float]

RATE_HZ = 25_600
MESSAGE_S = 0.2  # 20 kB of f32le
REPEATS = 7
BANK_WINDOWS = 240  # ten minutes at the default hop
SHARE = 0.7  # of the box that live work may take: the rest is for bursts, the databases and the operating system
CONFIG = """
site = "bench"
edge = "bench"
[[sources]]
name = "plant"
type = "mqtt"
[[machines]]
id = "m"
[[machines.channels]]
id = "c"
rate_hz = {rate_hz}
source = "plant"
topic = "m/c"
format = "f32le"
"""


def main(*, json_: bool) -> None:
    """Measure and print."""
    result = measure()
    if json_:
        print(json.dumps(result))
        return
    for key, value in result.items():
        print(f"{key:34} {value:>12.1f}" if isinstance(value, float) else f"{key:34} {value!s:>12}")


def configured(rate_hz: int) -> Config:
    """One machine of one channel."""
    return parse(CONFIG.format(rate_hz=rate_hz))


@dataclass(frozen=True, slots=True)
class Costs:
    """What one channel costs: medians, in microseconds of the clock that they were measured with."""

    decode_us: float  # a message
    cut_us: float  # a message
    frontend_us: float  # a window, as everything below
    band_us: float  # one sub-band of it, embedded
    bands: int
    indicators_us: float
    query_us: float

    def window_us(self, hop_s: float) -> float:
        """A window from its messages to its distance."""
        by_message = (self.decode_us + self.cut_us) * hop_s / MESSAGE_S
        return self.frontend_us + self.band_us * self.bands + self.indicators_us + self.query_us + by_message


def costs(engine: Engine, rate_hz: int, *, clock: Clock = time.perf_counter) -> Costs:
    """Run every stage on noise of one channel; `clock` counts seconds, such as time.process_time: of all cores."""
    config = configured(rate_hz)
    noise = np.random.default_rng(0).standard_normal(round(rate_hz * config.window.length_s)).astype(np.float32)
    bands, centres = engine.frontend.bands(noise, rate_hz)
    decoder = decoder_for(config, "plant")
    payload = encode("f32le", noise[: round(rate_hz * MESSAGE_S)], t_ns=0, rate_hz=rate_hz, seq=0)
    width = bands.shape[0] * engine.bundle.embed_dim
    bank = np.random.default_rng(1).standard_normal((BANK_WINDOWS, width)).astype(np.float32)
    index = Index(bank, n_bands=bands.shape[0], centre=None)
    many = np.concatenate([bands] * 16)
    many_centres = np.concatenate([centres] * 16)

    def median_us(act: Callable[[], object], repeats: int = REPEATS) -> float:
        return _median_us(act, repeats=repeats, clock=clock)

    return Costs(
        decode_us=median_us(lambda: decoder.decode("m/c", payload, mono_ns=time.monotonic_ns(), utc_ns=time.time_ns())),
        cut_us=median_us(_pusher(config, noise, rate_hz)),
        frontend_us=median_us(lambda: engine.frontend.bands(noise, rate_hz)),
        band_us=median_us(lambda: engine.embedder.embed(many, many_centres), repeats=3) / len(many),
        bands=len(bands),
        indicators_us=median_us(lambda: _indicate(noise, rate_hz)),
        query_us=median_us(lambda: index.nearest(bank[:1])),
    )


def measure() -> dict[str, Any]:
    """Every figure; keys end in their unit."""
    config = configured(RATE_HZ)
    opened = time.perf_counter()
    engine = app.open_engine(config)
    open_s = time.perf_counter() - opened
    found = costs(engine, RATE_HZ)
    hop_s = config.window.hop_s
    return {
        "cores": os.cpu_count(),
        "backend": engine.model.backend,
        "precision": engine.model.precision,
        "bundle": engine.model.bundle,
        "weights": engine.model.weights,
        "window_s": config.window.length_s,
        "hop_s": hop_s,
        "decode_us_per_message": found.decode_us,
        "cut_us_per_message": found.cut_us,
        "frontend_us_per_window": found.frontend_us,
        "embed_us_per_band": found.band_us,
        "bands_per_window": found.bands,
        "indicators_us_per_window": found.indicators_us,
        "knn_us_per_query": found.query_us,
        "channels_25k6_sustained": int(SHARE * hop_s * 1e6 / found.window_us(hop_s)),
        "rss_mb": rss_bytes() / 1e6,
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6,
        "model_open_s": open_s,
        "start_up_s": _start_up_s(),
    }


def _indicate(samples: Floats, rate_hz: float) -> None:
    """What the judge takes of a window beside its embedding: features to compare, and readings to show."""
    features(samples, rate_hz, gain=1.0, valued=False)
    measure_indicators(samples, rate_hz, kind="vibration", unit="g")


def _median_us(act: Callable[[], object], *, repeats: int, clock: Clock) -> float:
    """Median time of one call; short calls are repeated inside a sample so that the clock's resolution is nothing."""
    act()
    began = clock()
    act()
    loops = max(1, int(0.02 / max(1e-9, clock() - began)))
    samples = []
    for _ in range(repeats):
        began = clock()
        for _ in range(loops):
            act()
        samples.append((clock() - began) / loops)
    return float(np.median(samples)) * 1e6


def _pusher(config: Config, noise: Floats, rate_hz: float) -> Callable[[], None]:
    """Gathers the next message of an endless signal at each call."""
    gatherer = Gatherer(config.machines[0], config.window)
    starts = count(0, round(MESSAGE_S * 1e9))
    block = noise[: round(rate_hz * MESSAGE_S)]

    def push() -> None:
        gatherer.push(Frame("m", "c", next(starts), rate_hz, block))
        assert gatherer.status("c") == "ok", "it is measured on what it refuses"

    return push


def _start_up_s() -> float:
    """A fresh interpreter up to a proven model."""
    code = "from fisher_agent import app, bench; app.open_engine(bench.configured(bench.RATE_HZ))"
    began = time.perf_counter()
    subprocess.run(  # noqa: S603  (our own interpreter)
        [sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    return time.perf_counter() - began
