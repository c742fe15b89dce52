"""One channel's windows beside its enrolled ones, in the two views there are: embedding and indicators."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fisher_agent.bank import ChannelBank
from fisher_agent.calibrate import Doubles
from fisher_agent.config import JudgeBy
from fisher_agent.features import Neighbours, Positions, Scale
from fisher_agent.nearest import Index
from fisher_agent.stages import Floats

NOWHERE: Positions = np.zeros(0, np.intp)


@dataclass(frozen=True, slots=True, eq=False)
class Distances:
    """How far windows lie from the enrolled ones; a view that the bank does not have is -1 throughout."""

    position: Positions  # (q,) of the nearest enrolled window, in the embedding where there is one
    embedding: Doubles  # (q,) cosine distance
    shares: Doubles  # (q, n_bands) its parts
    indicators: Doubles  # (q,) in spreads
    measured: Positions = field(
        default_factory=lambda: NOWHERE
    )  # (q,) as `position`, by the indicators; empty where the bank has none

    @property
    def arrays(self) -> tuple[NDArray[Any], ...]:
        """All of them, a row per window."""
        return self.position, self.embedding, self.shares, self.indicators

    def ratio(self, *, embedding: float, indicators: float, by: JudgeBy) -> Doubles:
        """(q,): the larger of both distances, each over its limit; or one of them, where only that counts or exists.

        The larger and not the mean: what one view cannot see, the other must not be able to hide. A cosine distance is
        blind to level, a spectrum in 32 bands to the course of a signal within its window.
        """
        seen, measured = self.embedding / embedding, self.indicators / indicators
        if by == "both":
            return np.maximum(seen, measured)
        first, second = (seen, measured) if by == "embedding" else (measured, seen)
        return np.where(first >= 0, first, second)


class Enrolled:
    """A channel's enrolled windows, ready to be compared with."""

    def __init__(
        self, *, vectors: Floats, n_bands: int, centre: Floats | None, features: Floats, scale: Scale | None
    ) -> None:
        self.index = Index(vectors, n_bands=n_bands, centre=centre) if n_bands else None
        self.neighbours = Neighbours(features, scale) if scale is not None else None

    @classmethod
    def of(cls, bank: ChannelBank) -> "Enrolled":
        """As stored."""
        return cls(
            vectors=bank.vectors,
            n_bands=bank.n_bands,
            centre=bank.centre,
            features=bank.features,
            scale=Scale(bank.feature_centre, bank.feature_spread) if bank.features.size else None,
        )

    def compare(self, vectors: Floats, features: Floats, *, left_out: NDArray[np.bool_] | None = None) -> Distances:
        """Embeddings (q, n_bands * d) and features (q, k) of windows; enrolled ones that are left out take no part."""
        n = len(features if self.index is None else vectors)
        position, indicators, measured = np.zeros(n, np.intp), np.full(n, -1.0), NOWHERE
        embedding, shares = np.full(n, -1.0), np.zeros((n, 0))
        if self.neighbours is not None:
            measured, indicators = self.neighbours.nearest(features, left_out=left_out)
            position = measured
        if self.index is not None:
            position, embedding, shares = self.index.nearest(vectors, left_out=left_out)
        return Distances(position, embedding, shares, indicators, measured)


def indices(enrolled: Mapping[str, Enrolled]) -> dict[str, Index]:
    """Those of the channels that the model sees."""
    return {channel: one.index for channel, one in enrolled.items() if one.index is not None}
