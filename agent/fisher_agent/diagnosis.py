"""Which fault a strange window resembles: a vote of the nearest labelled windows, or `unknown`.

Distances between machines' windows are the mean, over the channels that both have, of cosine distance / channel limit,
so that a channel whose embedding hardly moves weighs as much as one that moves a lot.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fisher_agent.bank import Bank, FaultWindows
from fisher_agent.calibrate import Doubles
from fisher_agent.codes import UNKNOWN_FAULT
from fisher_agent.nearest import Index
from fisher_agent.stages import Floats

VOTERS = 5
MAJORITY = 0.5


@dataclass(frozen=True, slots=True)
class Named:
    """What the vote gave: a class or `unknown`, its share, and the share of each class that had votes."""

    fault: str
    confidence: float
    votes: Mapping[str, float]


UNKNOWN = Named(UNKNOWN_FAULT, 0.0, {})


class Diagnosis:
    """The labelled windows of one bank, ready to be asked."""

    def __init__(self, bank: Bank, indices: Mapping[str, Index]) -> None:
        self._faults = bank.faults
        self._limits = {c.channel: c.limit for c in bank.channels if c.n_bands}
        self._indices = indices
        self._rows = unit_rows(bank.faults, indices) if bank.faults else {}

    def name(self, vectors: Mapping[str, Floats], *, ratios: Mapping[str, float]) -> Named:
        """Name the fault of raw embeddings (n_bands * d,) per channel; `ratios` are their distances to normal windows.

        A labelled window has no vote where it lies further away than the nearest normal ones, or further than the
        windows of its class lie from one another; the nearest 5 of the rest vote. Without a voter or a majority it is
        `unknown`.
        """
        if self._faults is None:
            return UNKNOWN
        units = {c: self._indices[c].unit(v) for c, v in vectors.items()}
        distances = labelled_distances(units, self._rows, self._faults, limits=self._limits)
        normal = mean_over_common({c: np.float64(r) for c, r in ratios.items()}, self._faults)
        reach = np.asarray([self._faults.reach[label] for label in self._faults.labels])
        eligible = np.flatnonzero(distances <= np.minimum(reach, normal))
        voters = eligible[np.argsort(distances[eligible], kind="stable")][:VOTERS]
        if not len(voters):
            return UNKNOWN
        counts = Counter(self._faults.labels[i] for i in voters)
        votes = {label: n / len(voters) for label, n in counts.most_common()}
        winner = next(iter(votes))
        if votes[winner] <= MAJORITY:
            return Named(UNKNOWN_FAULT, 0.0, votes)
        return Named(winner, votes[winner], votes)


def unit_rows(faults: FaultWindows, indices: Mapping[str, Index]) -> dict[str, Doubles]:
    """Channel -> labelled windows (m, D) of unit length."""
    return {channel: indices[channel].unit(vectors) for channel, vectors in faults.vectors.items()}


def labelled_distances(
    units: Mapping[str, Doubles],
    rows: Mapping[str, Doubles],
    faults: FaultWindows,
    *,
    limits: Mapping[str, float],
) -> Doubles:
    """Unit vectors (D,) per channel -> distance (m,) to each labelled window; infinite without a common channel."""
    return mean_over_common({c: 0.5 * np.square(rows[c] - u).sum(axis=1) / limits[c] for c, u in units.items()}, faults)


def mean_over_common(values: Mapping[str, Doubles | np.float64], faults: FaultWindows) -> Doubles:
    """Mean (m,) of each channel's values (m,) over the channels that the labelled window has too."""
    total, common = np.zeros(len(faults.labels)), np.zeros(len(faults.labels))
    for channel, value in values.items():
        total += np.where(faults.present[channel], value, 0.0)
        common += faults.present[channel]
    return np.where(common > 0, total / np.maximum(common, 1), np.inf)
