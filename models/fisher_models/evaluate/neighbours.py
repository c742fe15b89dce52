"""Distances between windows, and what the nearest neighbours say: a class, or how strange a window is.

A space turns the channels' vectors into points, fitted on training windows alone:

    standard   every dimension in deviations of the training windows, clipped at 10; Euclidean distance
    cosine     each channel's direction; cosine distance, the mean over the channels
    centred    the same after the training mean is subtracted
    whitened   each channel decorrelated by the training windows' covariance, shrunk by a tenth; Euclidean distance
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from fisher_models.errors import ModelError
from fisher_models.evaluate.metrics import majority
from fisher_models.frontend import Floats

Doubles = NDArray[np.float64]
Texts = NDArray[np.str_]

K = 5
_CLIP = 10.0
_STILL = 1e-9  # a dimension that varies less than this over the training windows is left as it is
_SHRINK = 0.1
_AT_ONCE = 2048  # query rows: bounds the memory of a distance matrix's making

Channels = Sequence[Floats]  # of each channel (n, d)
Fitted = Callable[[Channels], Doubles]  # channels -> points (n, m)


def _standard(train: Channels) -> Fitted:
    known = np.concatenate(train, axis=1, dtype=np.float64)
    mean, deviation = known.mean(axis=0), known.std(axis=0)
    deviation[deviation <= _STILL] = 1
    return lambda some: np.clip((np.concatenate(some, axis=1, dtype=np.float64) - mean) / deviation, -_CLIP, _CLIP)


def _cosine(train: Channels) -> Fitted:
    return lambda some: _directions(some, [np.zeros(1)] * len(train))


def _centred(train: Channels) -> Fitted:
    means = [channel.mean(axis=0, dtype=np.float64) for channel in train]
    return lambda some: _directions(some, means)


def _directions(some: Channels, means: Sequence[Doubles]) -> Doubles:
    """Unit vectors end to end, scaled so that half the squared distance is the mean cosine distance."""
    units = []
    for channel, mean in zip(some, means, strict=True):
        moved = channel.astype(np.float64) - mean
        units.append(moved / np.maximum(np.linalg.norm(moved, axis=1, keepdims=True), 1e-12))
    return np.asarray(np.concatenate(units, axis=1) / len(units) ** 0.5, np.float64)


def _whitened(train: Channels) -> Fitted:
    fits = [_whitening(channel.astype(np.float64)) for channel in train]
    return lambda some: np.concatenate(
        [fit(channel.astype(np.float64)) for fit, channel in zip(fits, some, strict=True)], axis=1
    )


def _whitening(known: Doubles) -> Callable[[Doubles], Doubles]:
    mean = known.mean(axis=0)
    _, singular, axes = np.linalg.svd(known - mean, full_matrices=False)
    variances = singular**2 / len(known)
    average = float(variances.sum()) / known.shape[1]
    if not average > 0:
        return lambda some: some - mean
    shrunk = np.sqrt((1 - _SHRINK) * variances + _SHRINK * average)
    rest = (_SHRINK * average) ** 0.5  # of directions that the training windows do not span

    def project(some: Doubles) -> Doubles:
        along = (some - mean) @ axes.T
        return np.concatenate([along / shrunk, (some - mean - along @ axes) / rest], axis=1)

    return project


_SPACES: Mapping[str, tuple[Callable[[Channels], Fitted], bool]] = {  # and whether distances are half their square
    "standard": (_standard, False),
    "cosine": (_cosine, True),
    "centred": (_centred, True),
    "whitened": (_whitened, False),
}
SPACES = tuple(_SPACES)


def distances(space: str, train: Channels, test: Channels) -> tuple[Doubles, Doubles]:
    """Distances (test, train) and (train, train) in a space that is fitted on the training windows."""
    if space not in _SPACES:
        raise ModelError(f"{space!r} is no space; known are {', '.join(SPACES)}")
    fit, squared = _SPACES[space]
    points = fit(train)
    known, asked = points(train), points(test)
    return _between(asked, known, squared=squared), _between(known, known, squared=squared)


def _between(a: Doubles, b: Doubles, *, squared: bool) -> Doubles:
    out = np.empty((len(a), len(b)))
    norms = (b * b).sum(axis=1)
    for i in range(0, len(a), _AT_ONCE):
        some = a[i : i + _AT_ONCE]
        square = np.maximum((some * some).sum(axis=1)[:, None] + norms - 2 * (some @ b.T), 0)
        out[i : i + _AT_ONCE] = square / 2 if squared else np.sqrt(square)
    return out


def strangeness(apart: Doubles, *, k: int = K) -> Doubles:
    """(n, bank) -> (n,): the mean distance to the k nearest; infinite entries do not count."""
    nearest = np.partition(apart, min(k, apart.shape[1]) - 1, axis=1)[:, :k]
    there = np.isfinite(nearest)
    if not there.any(axis=1).all():
        raise ModelError("a window has no other to be compared with; give more training windows")
    return np.asarray(np.where(there, nearest, 0).sum(axis=1) / there.sum(axis=1), np.float64)


def vote(apart: Doubles, labels: Texts, *, k: int = K) -> Texts:
    """(n, bank), (bank,) -> (n,): what most of the k nearest are; of equally many the nearest one's."""
    order = np.argsort(apart, axis=1, kind="stable")[:, :k]
    return np.array([majority(labels[row].tolist()) for row in order])
