"""Exact nearest neighbour by cosine distance, and the part that every band has in it."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from fisher_agent.calibrate import Doubles
from fisher_agent.stages import Floats

BATCH_QUERIES = 64
SCREEN_ROWS = 8192  # to a float32 product: few and long calls of the BLAS
BLOCK_BYTES = 4 << 20  # of an array of float64 vectors; with its temporaries a search holds up to ten of them
SINGLE, DOUBLE = 2.0**-24, 2.0**-53  # unit roundoffs
TINY = 1e-30  # covers what underflows in a float32 product, and what the rounding of unit vectors leaves of zero

Positions = NDArray[np.intp]


class Index:
    """Exact nearest neighbour by cosine distance among a channel's windows, with the share of every band.

    |u - v|² / 2 of unit vectors is their cosine distance and does not change when both are shifted: shifted by the
    rows' own mean, a float32 product keeps distances of 1e-6 that 1 - u.v would lose. Still it only screens: what its
    rounding cannot rule out is screened again in float64, and what that cannot, compared by the difference itself. So
    position and distance are those of brute force in float64, and the lowest position among equal distances.

    It keeps the shifted rows, 4 bytes a value; the raw ones stay the caller's array where that is float32. Building and
    searching need under 48 MB besides what they return, for vectors of up to 64,000 values. Where regimes 1 apart are
    under 1e-4 wide the second screen sees most rows and a batch takes four times as long; copies take longer still.
    """

    def __init__(self, vectors: Floats, *, n_bands: int, centre: Floats | None = None) -> None:
        self.n_bands = n_bands
        self._centre = centre
        self._raw = np.asarray(vectors, dtype=np.float32)  # (n, D)
        n, width = self._raw.shape
        if not n:
            raise ValueError("an index needs at least one row to compare with")
        self.block = max(1, BLOCK_BYTES // (8 * width))  # rows
        total = np.zeros(width)
        for rows in blocks(n, self.block):
            total += self.unit(self._raw[rows]).sum(axis=0)
        self._origin = total / n
        self.shifted = np.empty((n, width), dtype=np.float32)  # rows of unit length less their mean
        self._squares = np.empty(n, dtype=np.float32)
        for rows in blocks(n, self.block):
            shifted = self.unit(self._raw[rows]) - self._origin
            self.shifted[rows] = shifted
            self._squares[rows] = _squares(shifted)

    def unit(self, vectors: Floats) -> Doubles:
        """(n, D) raw embeddings -> unit length, after centring where the bank does so."""
        out = np.array(vectors, dtype=np.float64)
        if self._centre is not None:
            out -= self._centre
        out /= np.maximum(np.sqrt(_squares(out)), 1e-30)[..., None]
        return out

    def nearest(
        self, vectors: Floats, *, left_out: NDArray[np.bool_] | None = None
    ) -> tuple[Positions, Doubles, Doubles]:
        """Raw embeddings (q, D) -> position (q,), cosine distance (q,), its shares (q, n_bands), which sum to it.

        Rows where `left_out` (n,) is True take no part; ValueError where none remain.
        """
        if left_out is not None and left_out.all():
            raise ValueError("every enrolled window is left out; nothing remains to compare with")
        position = np.empty(len(vectors), dtype=np.intp)
        shares = np.empty((len(vectors), self.n_bands))
        for batch in blocks(len(vectors), min(BATCH_QUERIES, self.block)):
            units = self.unit(vectors[batch])
            found = _Search(units, units - self._origin, self.n_bands)
            self._screen(found, left_out)
            position[batch] = found.position
            shares[batch] = band_shares(units, self.unit(self._raw[found.position]), n_bands=self.n_bands)
        return position, shares.sum(axis=1), shares

    def _screen(self, search: "_Search", left_out: NDArray[np.bool_] | None) -> None:
        """Rule out rows by float32 products, a block at a time, and compare the queries with what remains of it."""
        doubled = (-2 * search.shifted).astype(np.float32)
        for block in blocks(len(self._raw), SCREEN_ROWS):
            if left_out is not None and left_out[block].all():
                continue
            cost = doubled @ self.shifted[block].T  # (q, r)
            cost += self._squares[block]
            if left_out is not None:
                cost[:, left_out[block]] = np.inf
            lowest = cost.min(axis=1)
            reach = search.reach(lowest, float(self._squares[block].max()), roundoff=SINGLE).astype(np.float32)
            reach = np.nextafter(reach, np.float32(np.inf))  # the cast may have rounded down
            queries = np.flatnonzero(lowest <= reach)
            rows = block.start + np.flatnonzero((cost[queries] <= reach[queries, None]).any(axis=0))
            for part in blocks(len(rows), self.block):
                search.compare(rows[part], self.unit(self._raw[rows[part]]), self._origin)


class _Search:
    """A batch of queries, and the nearest row of each so far.

    A cost is |s|² - 2 q.s of shifted vectors: the squared distance without |q|², which all rows share.
    """

    def __init__(self, units: Doubles, shifted: Doubles, n_bands: int) -> None:
        self.position = np.zeros(len(units), dtype=np.intp)
        self.distance = np.full(len(units), np.inf)
        self.shifted = shifted  # (q, D)
        self._units = units  # (q, D)
        self._n_bands = n_bands
        self._squares = _squares(shifted)

    def reach(self, lowest: Doubles | Floats, largest_square: float, *, roundoff: float) -> Doubles:
        """The highest computed cost (q,) that may belong to a row as near as the nearest so far, or as the lowest.

        A product of length D is off by at most D roundoffs of |q| |s| (Higham 2002, eq. 3.5), rounding both vectors,
        the square and the sum adds a few of (|q| + |s|)², so a cost is off by less than (D / 2 + 16) of those.
        """
        off = (self.shifted.shape[1] / 2 + 16) * roundoff
        off = off * np.square(np.sqrt(self._squares) + np.sqrt(largest_square)) + TINY
        return np.asarray(np.minimum(2 * self.distance - self._squares, lowest + off) + off, dtype=np.float64)

    def compare(self, rows: Positions, units: Doubles, origin: Doubles) -> None:
        """Compare with rows of unit length (r, D): a float64 screen, then the differences of what it leaves."""
        others = units - origin
        squares = _squares(others)
        cost = squares - 2 * (self.shifted @ others.T)  # (q, r)
        reach = self.reach(cost.min(axis=1), float(squares.max()), roundoff=DOUBLE)
        query, row = np.nonzero(cost <= reach[:, None])  # rows in ascending order
        for part in blocks(len(query), len(self.shifted) + len(rows)):
            self._take(query[part], rows[row[part]], units[row[part]])

    def _take(self, query: Positions, rows: Positions, units: Doubles) -> None:
        """Pairs of query and row (p,), the rows of unit length (p, D): keep the nearer, where equal the earlier."""
        distance = band_shares(self._units[query], units, n_bands=self._n_bands).sum(axis=1)
        order = np.lexsort((distance, query))
        _, first = np.unique(query[order], return_index=True)
        won = order[first]
        won = won[distance[won] < self.distance[query[won]]]
        self.position[query[won]] = rows[won]
        self.distance[query[won]] = distance[won]


def band_shares(units: Doubles, others: Doubles, *, n_bands: int) -> Doubles:
    """Unit vectors (n, D), (n, D) -> ½|x_b - y_b|² per band, (n, n_bands): they sum to the cosine distance."""
    difference = (units - others).reshape(len(units), n_bands, -1)
    return np.asarray(0.5 * np.einsum("nbd,nbd->nb", difference, difference), dtype=np.float64)


def blocks(n: int, size: int) -> Iterator[slice]:
    """Slices of at most `size` that cover n."""
    for first in range(0, n, size):
        yield slice(first, min(first + size, n))


def _squares(vectors: Doubles) -> Doubles:
    return np.asarray(np.einsum("...i,...i->...", vectors, vectors), dtype=np.float64)
