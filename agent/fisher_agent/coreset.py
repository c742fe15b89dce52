"""Fewer windows that stand for all: greedy k-centres, the farthest window first, until enough lie near a kept one.

Gonzalez 1985, doi:10.1016/0304-3975(85)90224-5; for memory banks Sener and Savarese 2018 (arXiv 1708.00489) and
PatchCore (arXiv 2106.08265), which stop at a share of the windows. Here the share is of those that are represented.
"""

import math

import numpy as np
from numpy.typing import NDArray

from fisher_agent.stages import Floats

POOL = 32
"""Candidates whose distances to all rows are taken in one product; the next farthest is nearly always among them."""


def coreset(rows: Floats, *, start: NDArray[np.intp], radius: float, coverage: float) -> NDArray[np.intp]:
    """Positions (k,), ascending, of kept rows: at least `coverage` of all rows lie within `radius` of one of them.

    Distances of rows (n, D) are ½|x - y|², the cosine distance where they are unit vectors, however shifted; they are
    taken in float32. `start` (s,) are kept in any case; then the row farthest from all kept ones joins, the first of
    equally far ones, until enough are covered. Deterministic. Time is O(n k D), memory 128 bytes a row besides `rows`.
    ValueError for no rows or no start, a coverage outside 0 to 1, or a negative radius.
    """
    if not len(rows) or not len(start):
        raise ValueError("a coreset needs rows and at least one of them to start from")
    if not 0 < coverage <= 1 or not radius >= 0:
        raise ValueError(f"coverage {coverage} must be over 0 and at most 1, and radius {radius} not negative")
    wanted = math.ceil(coverage * len(rows))
    halves = 0.5 * np.einsum("ij,ij->i", rows, rows)
    distance = np.full(len(rows), np.inf, dtype=np.float32)  # (n,) to the nearest kept row
    kept: list[int] = []
    pool, costs = np.empty(0, dtype=np.intp), np.empty((0, len(rows)), dtype=np.float32)
    waiting = np.unique(start)
    while len(kept) < len(waiting) or np.count_nonzero(distance <= radius) < wanted:
        chosen = int(waiting[len(kept)] if len(kept) < len(waiting) else distance.argmax())
        at = np.flatnonzero(pool == chosen)
        if not len(at):
            del costs  # so that two of them never stand beside each other
            pool = _pool(distance, chosen)
            costs = _costs(rows, halves, pool)
            at = np.flatnonzero(pool == chosen)
        np.minimum(distance, costs[at[0]], out=distance)
        distance[chosen] = 0
        kept.append(chosen)
    return np.sort(np.asarray(kept, dtype=np.intp))


def _pool(distance: Floats, chosen: int) -> NDArray[np.intp]:
    """The farthest rows and the chosen one."""
    many = min(POOL, len(distance))
    return np.union1d(np.argpartition(distance, len(distance) - many)[len(distance) - many :], chosen)


def _costs(rows: Floats, halves: Floats, pool: NDArray[np.intp]) -> Floats:
    """½|x - y|² of pool and rows (p, n)."""
    out: Floats = rows[pool] @ rows.T
    np.subtract(halves, out, out=out)
    out += halves[pool, None]
    np.maximum(out, 0, out=out)
    return out
