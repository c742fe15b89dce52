"""Classical indicators of a window as coordinates in which a machine's own normal running has spread one.

They see what the model does not: level, which a cosine distance is blind to, and channels under 1 kHz.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fisher_agent.stages import Floats
from fisher_models.indicators import SHORTEST, indicators

Doubles = NDArray[np.float64]
Positions = NDArray[np.intp]

FEW = 2  # features of fewer than SHORTEST samples
NEIGHBOURS = 5
FARTHEST = 30.0  # spreads: one coordinate alone cannot say more than this; at 10, a new line is lost among 32 bands
LEAST_SPREAD = 0.05
"""Of logarithms, half a decibel: a band that never moved during the enrolment is not strange for moving by less."""
LEAST_SHARE = 0.005
"""Of the value, where it counts: half a per cent is what a transmitter promises."""
MAX_VALUE = 1e30  # a garbage sample beyond it would overflow
QUERY_BYTES = 16 << 20


def features(samples: Floats, rate_hz: float, *, gain: float, valued: bool) -> Floats:
    """Finite samples (n,) times `gain` -> (k,): band powers, level and shape, after the mean where they are `valued`.

    Of few samples, only their mean and deviation. k depends on the channel and on n.
    """
    scaled = np.clip(samples * np.float64(gain), -MAX_VALUE, MAX_VALUE)
    found = indicators(scaled, rate_hz, envelope=False)
    return np.append(np.float32(scaled.mean()), found) if valued and len(found) > FEW else found


def long_enough(samples: Floats, enrolled: Floats) -> bool:
    """Whether a window gives the features that were enrolled (n, k): a snapshot may be shorter than those were."""
    return not enrolled.size or (enrolled.shape[1] > FEW) == (len(samples) >= SHORTEST)


@dataclass(frozen=True, slots=True, eq=False)
class Scale:
    """Where a channel's features lie when all is normal."""

    centre: Doubles  # (k,)
    spread: Doubles  # (k,), all above 0

    @classmethod
    def of(cls, rows: Floats, *, valued: bool) -> "Scale":
        """Mean and standard deviation of rows (n, k), the latter never under what instruments scatter by."""
        wide = rows.astype(np.float64)
        centre = wide.mean(axis=0)
        least = np.full(rows.shape[1], LEAST_SPREAD)
        if valued:
            value = max(abs(float(centre[0])), 1e-9)
            least[: FEW if rows.shape[1] == FEW else 1] = LEAST_SHARE * value
        return cls(centre, np.maximum(wide.std(axis=0), least))

    def apply(self, rows: Floats) -> Doubles:
        """(n, k) -> (n, k) in spreads from the centre."""
        return np.asarray(np.clip((rows - self.centre) / self.spread, -FARTHEST, FARTHEST), np.float64)


class Neighbours:
    """Mean distance to the nearest enrolled windows in spreads."""

    def __init__(self, rows: Floats, scale: Scale) -> None:
        if not len(rows):
            raise ValueError("nothing was enrolled to compare with")
        self.scale = scale
        self._rows = scale.apply(rows)  # (n, k)
        self._squares = np.square(self._rows).sum(axis=1)

    def nearest(self, rows: Floats, *, left_out: NDArray[np.bool_] | None = None) -> tuple[Positions, Doubles]:
        """Features (q, k) -> position of the nearest (q,), mean distance to the nearest five (q,).

        Enrolled rows where `left_out` (n,) is True take no part; ValueError where none remain.
        """
        allowed = np.arange(len(self._rows)) if left_out is None else np.flatnonzero(~left_out)
        if not len(allowed):
            raise ValueError("every enrolled window is left out; nothing remains to compare with")
        known, own, asked = self._rows[allowed], self._squares[allowed], self.scale.apply(rows)
        count = min(NEIGHBOURS, len(known))
        position, distance = np.empty(len(asked), np.intp), np.empty(len(asked))
        step = max(1, QUERY_BYTES // own.nbytes)
        for first in range(0, len(asked), step):
            some = asked[first : first + step]
            squares = own - 2 * (some @ known.T) + np.square(some).sum(axis=1)[:, None]  # (s, n)
            near = np.partition(squares, count - 1, axis=1)[:, :count]
            position[first : first + step] = allowed[squares.argmin(axis=1)]
            distance[first : first + step] = np.sqrt(np.maximum(near, 0)).mean(axis=1)
        return position, distance
