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
from typing import Any

import numpy as np

from fisher_agent import app
from fisher_agent.configfile import parse
from fisher_agent.features import features
from fisher_agent.gather import Gatherer
from fisher_agent.indicators import measure as measure_indicators
from fisher_agent.nearest import Index
from fisher_agent.service import rss_bytes
from fisher_agent.stages import Floats, Frame
from fisher_agent.wire import decoder_for, encode

RATE_HZ = 25_600.0
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
rate_hz = 25600
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


def measure() -> dict[str, Any]:
    """Every figure; keys end in their unit."""
    config = parse(CONFIG)
    opened = time.perf_counter()
    engine = app.open_engine(config)
    open_s = time.perf_counter() - opened
    window, hop = config.window.length_s, config.window.hop_s
    noise = np.random.default_rng(0).standard_normal(round(RATE_HZ * window)).astype(np.float32)
    bands, centres = engine.frontend.bands(noise, RATE_HZ)
    decoder = decoder_for(config, "plant")
    payload = encode("f32le", noise[: round(RATE_HZ * MESSAGE_S)], t_ns=0, rate_hz=RATE_HZ, seq=0)
    width = bands.shape[0] * engine.bundle.embed_dim
    bank = np.random.default_rng(1).standard_normal((BANK_WINDOWS, width)).astype(np.float32)
    index = Index(bank, n_bands=bands.shape[0], centre=None)
    many = np.concatenate([bands] * 16)
    many_centres = np.concatenate([centres] * 16)

    decode_us = _median_us(lambda: decoder.decode("m/c", payload, mono_ns=time.monotonic_ns(), utc_ns=time.time_ns()))
    cut_us = _cut_us(config.machines[0], noise)
    frontend_us = _median_us(lambda: engine.frontend.bands(noise, RATE_HZ))
    band_us = _median_us(lambda: engine.embedder.embed(many, many_centres), repeats=3) / len(many)
    indicators_us = _median_us(lambda: _indicate(noise))
    query_us = _median_us(lambda: index.nearest(bank[:1]))
    per_window_us = (
        frontend_us + band_us * len(bands) + indicators_us + query_us + (decode_us + cut_us) * hop / MESSAGE_S
    )
    return {
        "cores": os.cpu_count(),
        "backend": engine.model.backend,
        "precision": engine.model.precision,
        "bundle": engine.model.bundle,
        "weights": engine.model.weights,
        "window_s": window,
        "hop_s": hop,
        "decode_us_per_message": decode_us,
        "cut_us_per_message": cut_us,
        "frontend_us_per_window": frontend_us,
        "embed_us_per_band": band_us,
        "bands_per_window": len(bands),
        "indicators_us_per_window": indicators_us,
        "knn_us_per_query": query_us,
        "channels_25k6_sustained": int(SHARE * hop * 1e6 / per_window_us),
        "rss_mb": rss_bytes() / 1e6,
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6,
        "model_open_s": open_s,
        "start_up_s": _start_up_s(),
    }


def _indicate(samples: Floats) -> None:
    """What the judge takes of a window beside its embedding: features to compare, and readings to show."""
    features(samples, RATE_HZ, gain=1.0, valued=False)
    measure_indicators(samples, RATE_HZ, kind="vibration", unit="g")


def _median_us(act: Callable[[], object], *, repeats: int = REPEATS) -> float:
    """Median time of one call; short calls are repeated inside a sample so that the clock's resolution is nothing."""
    act()
    began = time.perf_counter()
    act()
    loops = max(1, int(0.02 / max(1e-9, time.perf_counter() - began)))
    samples = []
    for _ in range(repeats):
        began = time.perf_counter()
        for _ in range(loops):
            act()
        samples.append((time.perf_counter() - began) / loops)
    return float(np.median(samples)) * 1e6


def _cut_us(machine: Any, signal: np.ndarray[Any, np.dtype[np.float32]]) -> float:
    gatherer = Gatherer(machine, parse(CONFIG).window)
    step, block = round(MESSAGE_S * 1e9), signal[: round(RATE_HZ * MESSAGE_S)]
    state = {"t_ns": 0}

    def push() -> None:
        state["t_ns"] += step
        gatherer.push(Frame("m", "c", state["t_ns"], RATE_HZ, block))

    return _median_us(push)


def _start_up_s() -> float:
    """A fresh interpreter up to a proven model."""
    code = "from fisher_agent import app, bench, configfile; app.open_engine(configfile.parse(bench.CONFIG))"
    began = time.perf_counter()
    subprocess.run(  # noqa: S603  (our own interpreter)
        [sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    return time.perf_counter() - began
