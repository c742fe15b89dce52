"""Where the recordings are that are not part of the repository, and how what a judge makes of them is measured."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

SHARED = Path(os.environ.get("FISHER_SHARED") or Path(__file__).parents[3] / "shared")
DATA = SHARED / "data"
T0_NS = 1_700_000_000_000_000_000


def auc(normal: Sequence[float], strange: Sequence[float]) -> float:
    """The probability that a strange window scores higher than a normal one (Mann and Whitney, 1947)."""
    a, b = np.asarray(normal)[:, None], np.asarray(strange)[None, :]
    return float(np.mean(b > a) + np.mean(b == a) / 2)
