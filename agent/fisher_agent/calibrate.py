"""What counts as normal: left-out distances, limits and p-values; arrays in, numbers out.

Windows overlap, so a window left out alone would find its own samples in its neighbours. Left out is a block in time,
together with every window that touches it.
"""

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]
Spans = NDArray[np.int64]  # (n, 2): first and one past the last nanosecond, sorted by the last

BLOCKS = 10
"""Tenths of the enrolment: long enough that slow drift counts as a difference, which a window's own neighbours hide."""
LIMIT_QUANTILE = 0.98
LIMIT_MARGIN = (1.4, 2.0)
SMALL_SAMPLE = 5.0
LIMIT_FLOOR = 1e-6
"""Two backends that both pass the self-test may differ by 1e-3 in a coordinate, half the square of it in distance."""


def independent(spans: Spans) -> NDArray[np.intp]:
    """Positions of windows that do not overlap, taken greedily from the first."""
    chosen: list[int] = []
    free_from = np.iinfo(np.int64).min
    for i, (start, end) in enumerate(spans):
        if start >= free_from:
            chosen.append(i)
            free_from = end
    return np.asarray(chosen, dtype=np.intp)


def blocks(spans: Spans) -> NDArray[np.intp]:
    """The block (n,) that each window is left out with: at most BLOCKS runs of neighbours, of nearly equal number."""
    n = len(spans)
    count = max(1, min(BLOCKS, len(independent(spans))))
    return np.arange(n, dtype=np.intp) * count // max(n, 1)


def block_spans(spans: Spans, block: NDArray[np.intp]) -> Spans:
    """All the time (b, 2) that the windows of each block cover."""
    return np.asarray(
        [(spans[block == b, 0].min(), spans[block == b, 1].max()) for b in range(int(block.max()) + 1)], dtype=np.int64
    )


def touches(spans: Spans, span: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which windows (n,) share any time with a span (2,)."""
    return np.asarray((spans[:, 0] < span[1]) & (spans[:, 1] > span[0]), dtype=np.bool_)


def limit(distances: Doubles, *, n_independent: int) -> float:
    """The distance beyond which a window is not normal: the 98 % quantile of the left-out distances, and a margin.

    The quantile and not the largest, since a single knock during the enrolment would hide every later fault (under 50
    windows it is the largest). The margin carries on the spread that was seen: as far, as a ratio, as the quantile lies
    above the median, and further while few windows that do not overlap were seen. Where distances are log-normal that
    is the median and 4.1 standard deviations, 2e-5 of normal windows, whatever their spread. It is at least 1.4,
    for no two days are alike (a cosine distance is a square: 18 % in amplitude), and at most 2, so that an
    enrolment of two unlike regimes does not swallow what lies between them.
    """
    reached = float(np.quantile(distances, LIMIT_QUANTILE, method="higher"))
    spread = reached / max(float(np.median(distances)), LIMIT_FLOOR)
    margin = float(np.clip(spread ** (1 + SMALL_SAMPLE / n_independent), *LIMIT_MARGIN))
    return max(LIMIT_FLOOR, margin * reached)


def p_value(score: float, calibration: Doubles) -> float:
    """(1 + number of calibration scores >= score) / (1 + n); `calibration` (n,) is sorted."""
    strange = len(calibration) - int(np.searchsorted(calibration, score, side="left"))
    return (1 + strange) / (1 + len(calibration))


def held(values: Doubles, ends_ns: NDArray[np.int64], *, stale_ns: int) -> Doubles:
    """Carry each value (n,) forward over the NaNs behind it for as long as it is not stale, as a judge does."""
    out = values.copy()
    last, last_end = np.nan, 0
    for i, end in enumerate(ends_ns):
        if not np.isnan(values[i]):
            last, last_end = values[i], int(end)
        elif int(end) - last_end <= stale_ns:
            out[i] = last
    return out
