"""How much to give the model at once, so that no verdict waits for a batch that takes long.

A batch is announced when all of it is judged. On a CPU larger batches are no faster per window, so a small one is
better for everybody; on a GPU they are, and there even a large one is over soon. What a window costs is learnt from
those before it: the work grows with the number of samples, whatever their rate.
"""

BOUND_S = 0.5  # of one batch; two windows of a fast machine on a slow box may still exceed it
_WEIGHT = 0.2  # of the newest measurement


class Pace:
    """Seconds per byte of window, and how many bytes therefore fit into the bound."""

    def __init__(self, *, bound_s: float = BOUND_S) -> None:
        self._bound_s = bound_s
        self._s_per_byte = 0.0

    @property
    def max_bytes(self) -> float:
        """Of the next batch; without a bound until something was measured."""
        return self._bound_s / self._s_per_byte if self._s_per_byte > 0 else float("inf")

    def learn(self, nbytes: int, *, taken_s: float) -> None:
        """A batch of so many bytes took so long."""
        if nbytes <= 0 or taken_s <= 0:
            return
        newest = taken_s / nbytes
        self._s_per_byte = newest if not self._s_per_byte else (1 - _WEIGHT) * self._s_per_byte + _WEIGHT * newest
