"""What the embedding bench embeds: generated windows, the same in every process that asks for them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fisher_models.frontend import Floats

Embeddings = list[Floats]  # one (bands x d) per window
RATES_HZ = (1_000, 2_000, 4_000, 8_000, 12_000, 16_000, 25_600, 32_000, 44_100, 48_000, 51_200, 64_000)


@dataclass(frozen=True, slots=True)
class Workload:
    """Windows that are embedded together, each of a channel of its own."""

    name: str
    windows: tuple[tuple[Floats, float], ...]  # waveform (samples,), rate in Hz

    def part(self) -> "Workload":
        """Every third window, for finding the best setting."""
        return Workload(f"part of {self.name}", self.windows[::3])


def same_rate(*, count: int, window_s: float = 10.0, rate_hz: float = 48_000) -> Workload:
    """`count` windows of one rate."""
    windows = tuple((_wave(i, rate_hz, window_s), rate_hz) for i in range(count))
    return Workload(f"{count} x {window_s:g} s at {rate_hz / 1000:g} kHz", windows)


def mixed(*, window_s: float = 10.0) -> Workload:
    """One window of each of `RATES_HZ`."""
    windows = tuple((_wave(i, rate_hz, window_s), float(rate_hz)) for i, rate_hz in enumerate(RATES_HZ))
    return Workload(f"{len(windows)} x {window_s:g} s, {min(RATES_HZ) // 1000} to {max(RATES_HZ) // 1000} kHz", windows)


def per_window(found: Floats, counts: Sequence[int]) -> Embeddings:
    """(bands of all windows, d) -> one flat embedding per window."""
    ends = np.cumsum(counts)
    return [found[end - count : end].reshape(-1) for count, end in zip(counts, ends, strict=True)]


def _wave(seed: int, rate_hz: float, window_s: float) -> Floats:
    """Noise and a few harmonics, about full scale 1."""
    rng = np.random.default_rng(seed)
    t_s = np.arange(round(rate_hz * window_s)) / rate_hz
    tones = sum(np.sin(2 * np.pi * k * rng.uniform(15, 60) * t_s) / k for k in range(1, 5))
    return np.asarray(0.1 * (rng.standard_normal(len(t_s)) + tones), np.float32)
