"""Untrained weights as random features that are of use, the same on every machine.

Random features are only useful where a change of the machine outshines the noise between two windows of it. A bin of a
noise's log spectrum varies by 5.6 dB from frame to frame, so each kernel is one random profile over frequency held over
its frames, which averages that; profiles keep a quarter of their mean (the level) and are smaller than the positions,
so that the norms stay nearly linear; values outweigh queries and keys, so that the class token pools.

Measured on the generated machine with 2 s windows, its bearing fault lies 3.6 times as far as the farthest normal
window with FISHER-tiny, 4.7 times with ECHO-tiny (Xavier kernels: 0.8 and 1.5). The gains were chosen by the first
of these numbers: it says nothing of other machines.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.floating[Any]]

_MEAN = 0.25  # of a profile's mean, what is kept
_PROFILES = 1 / 32
_VALUES = 2.0


def matrix(rng: np.random.Generator, shape: tuple[int, ...], *, gain: float) -> Doubles:
    """A Xavier-uniform matrix (out, in) times a gain."""
    limit = math.sqrt(6 / (shape[0] + math.prod(shape[1:])))
    return rng.uniform(-limit, limit, shape) * gain


def louder_values(qkv: Doubles) -> Doubles:
    """Queries, keys and values stacked (3 d, d), with the values raised."""
    qkv[2 * qkv.shape[1] :] *= _VALUES
    return qkv


def profiles(rng: np.random.Generator, shape: tuple[int, ...], *, time_axis: int) -> Doubles:
    """A convolution's kernels (d, 1, a, b): each one random profile over frequency, held over time."""
    drawn = [1 if axis == time_axis else size for axis, size in enumerate(shape)]
    profile = rng.standard_normal(drawn)
    profile -= (1 - _MEAN) * profile.mean(axis=(2, 3), keepdims=True)
    return _PROFILES * np.broadcast_to(profile, shape)


def rounded(state: Mapping[str, Doubles]) -> dict[str, NDArray[np.float32]]:
    """Every value as float16 holds it, so that a bundle of these weights is half as large."""
    return {key: value.astype(np.float16).astype(np.float32) for key, value in state.items()}


def norm_or_bias(key: str, shape: tuple[int, ...]) -> Doubles:
    """Biases of zero and norms of one."""
    return np.zeros(shape) if key.endswith("bias") else np.ones(shape)
