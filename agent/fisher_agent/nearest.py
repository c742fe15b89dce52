"""Exact nearest neighbour by cosine distance, and the part that every band has in it."""

import numpy as np
from numpy.typing import NDArray

from fisher_agent.calibrate import Doubles
from fisher_agent.stages import Floats

SEARCH_ROWS = 256  # queries at a time, to bound the distance matrix


class Index:
    """Exact nearest neighbour by cosine distance among a channel's windows, with the share of every band.

    |u - v|² / 2 of unit vectors is their cosine distance and does not change when both are shifted: shifted by the
    rows' own mean, float32 keeps distances of 1e-6 that 1 - u.v would lose. The winner's distance is computed again in
    float64 from the difference itself.
    """

    def __init__(self, vectors: Floats, *, n_bands: int, centre: Floats | None = None) -> None:
        self.n_bands = n_bands
        self._centre = centre
        self.rows = self.unit(vectors)  # (n, D) float64
        self._origin = self.rows.mean(axis=0)
        self._shifted = (self.rows - self._origin).astype(np.float32)
        self._squares = np.einsum("ij,ij->i", self._shifted, self._shifted)

    def unit(self, vectors: Floats) -> Doubles:
        """(n, D) raw embeddings -> unit length, after centring where the bank does so."""
        raw = np.asarray(vectors, dtype=np.float64)
        if self._centre is not None:
            raw = raw - self._centre
        return np.asarray(raw / np.maximum(np.linalg.norm(raw, axis=-1, keepdims=True), 1e-30), dtype=np.float64)

    def nearest(
        self, vectors: Floats, *, left_out: NDArray[np.bool_] | None = None
    ) -> tuple[NDArray[np.intp], Doubles, Doubles]:
        """Raw embeddings (q, D) -> position (q,), cosine distance (q,), its shares (q, n_bands), which sum to it.

        Rows where `left_out` (n,) is True take no part; ValueError where none remain.
        """
        if left_out is not None and left_out.all():
            raise ValueError("every enrolled window is left out; nothing remains to compare with")
        units = self.unit(vectors)
        position = np.empty(len(units), dtype=np.intp)
        for first in range(0, len(units), SEARCH_ROWS):
            queries = (units[first : first + SEARCH_ROWS] - self._origin).astype(np.float32)
            cost = self._squares - 2 * (queries @ self._shifted.T)  # |q|² is the same for every row
            if left_out is not None:
                cost[:, left_out] = np.inf
            position[first : first + SEARCH_ROWS] = cost.argmin(axis=1)
        shares = band_shares(units, self.rows[position], n_bands=self.n_bands)
        return position, shares.sum(axis=1), shares


def band_shares(units: Doubles, others: Doubles, *, n_bands: int) -> Doubles:
    """Unit vectors (n, D), (n, D) -> ½|x_b - y_b|² per band, (n, n_bands): they sum to the cosine distance."""
    difference = (units - others).reshape(len(units), n_bands, -1)
    return np.asarray(0.5 * np.einsum("nbd,nbd->nb", difference, difference), dtype=np.float64)
