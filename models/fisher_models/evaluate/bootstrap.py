"""Paired bootstrap over recordings: what a result would have been, had other recordings been drawn."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]
LOW, HIGH = 0.025, 0.975


@dataclass(frozen=True, slots=True)
class Draws:
    """How many, and from which seed; the same for every contestant, which is what pairs them."""

    count: int
    seed: int = 0

    def rng(self, names: NDArray[np.str_]) -> np.random.Generator:
        """The same for the same recordings in another protocol, and independent for other recordings."""
        digest = hashlib.sha256("\n".join(names.tolist()).encode()).digest()
        return np.random.default_rng([self.seed, int.from_bytes(digest[:8], "little")])


def drawn_units(units: NDArray[np.str_], classes: NDArray[np.str_], draws: Draws) -> Iterator[Doubles]:
    """For each draw how often each row (n,) counts: units are drawn with replacement within each class.

    A unit's class is that of its first row. Classes are for metrics that need them all, as an AUC does; one with a
    single unit has it in every draw, so that the interval is too narrow.
    """
    names, first, unit = np.unique(units, return_index=True, return_inverse=True)
    strata = [np.flatnonzero(classes[first] == one) for one in np.unique(classes[first])]
    rng = draws.rng(names)
    for _ in range(draws.count):
        times = np.zeros(len(names))
        for members in strata:
            times += np.bincount(rng.choice(members, len(members)), minlength=len(names))
        yield times[unit]


def drawn_episodes(values: Doubles, names: NDArray[np.str_], draws: Draws) -> Doubles:
    """(episodes,), and what each is of -> (draws,): means over episodes drawn with replacement."""
    rng = draws.rng(names)
    return np.asarray(values[rng.integers(0, len(values), (draws.count, len(values)))].mean(axis=1))


def interval(replicates: Doubles) -> tuple[float, float]:
    """The middle 95 %."""
    low, high = np.quantile(replicates, (LOW, HIGH))
    return float(low), float(high)
