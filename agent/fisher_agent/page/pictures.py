"""Samples as pictures small enough to send: spectrograms as cells of one byte, waveforms as extremes. Pure.

Two spectrograms that are looked at side by side share one scale, or the eye compares nothing.
"""

import base64
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.signal import ShortTimeFFT, get_window

from fisher_agent.stages import Floats

MAX_COLUMNS, MAX_ROWS = 200, 128
MIN_BINS, MAX_BINS = 64, 4096
RANGE_DB = 80.0  # what is further below the loudest cell of both pictures shows as the lowest colour
LEAST_SAMPLES = 32
TINY = 1e-30


@dataclass(frozen=True, slots=True, eq=False)
class Levels:
    """Power density in dB, (rows, columns): row 0 is the lowest frequency, column 0 the earliest."""

    db: NDArray[np.float64]
    seconds: float
    top_hz: float


def levels(samples: Floats, rate_hz: float) -> Levels | None:
    """At most `MAX_ROWS` x `MAX_COLUMNS` cells, each the loudest of what it covers; None of a handful of samples."""
    n = len(samples)
    if n < LEAST_SAMPLES:
        return None
    hop = max(1, -(-n // MAX_COLUMNS))
    size = int(min(MAX_BINS, max(MIN_BINS, 2 ** math.ceil(math.log2(max(hop, n / 64))))))
    size = min(size, 2 ** int(math.log2(n)))
    clean = np.nan_to_num(np.asarray(samples, np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    clean -= clean.mean()
    transform = ShortTimeFFT(get_window("hann", size), hop, rate_hz, scale_to="psd")
    first = -(-(size // 2) // hop)  # whole windows only: what hangs over the edge is half silence
    last = max(first + 1, (n - size // 2) // hop + 1)
    power = transform.spectrogram(clean, p0=first, p1=last)  # (bins, columns)
    rows = min(MAX_ROWS, len(power))
    pooled = np.maximum.reduceat(power, np.arange(rows) * len(power) // rows, axis=0)
    return Levels(10 * np.log10(np.maximum(pooled, TINY)), n / rate_hz, rate_hz / 2)


def side_by_side(panels: dict[str, Levels]) -> dict[str, Any]:
    """Panels on one scale: bytes (base64, row by row from the lowest frequency), 0 at `low_db`, 255 at `high_db`."""
    high_db = max((float(p.db.max()) for p in panels.values()), default=0.0)
    lowest = min((float(np.percentile(p.db, 2)) for p in panels.values()), default=0.0)
    low_db = max(lowest, high_db - RANGE_DB)
    span_db = max(high_db - low_db, 1e-9)
    shown = {}
    for name, panel in panels.items():
        cells = np.clip(np.round((panel.db - low_db) / span_db * 255), 0, 255).astype(np.uint8)
        shown[name] = {
            "rows": cells.shape[0],
            "columns": cells.shape[1],
            "cells": base64.b64encode(cells.tobytes()).decode(),
            "seconds": panel.seconds,
            "top_hz": panel.top_hz,
        }
    return {"low_db": round(low_db, 2), "high_db": round(high_db, 2), "panels": shown}


def extremes(samples: Floats, columns: int) -> tuple[list[float], list[float]]:
    """The smallest and the largest sample of each of at most `columns` equal parts, so that no peak is lost."""
    n = len(samples)
    if n == 0:
        return [], []
    columns = min(columns, n)
    clean = np.nan_to_num(samples, nan=0.0, posinf=0.0, neginf=0.0)
    starts = np.arange(columns) * n // columns
    low, high = np.minimum.reduceat(clean, starts), np.maximum.reduceat(clean, starts)
    return [_short(x) for x in low], [_short(x) for x in high]


def _short(value: float) -> float:
    return float(f"{float(value):.5g}")
