"""Contestants: one encoder in one space, or several fused late, each calibrated on its training windows.

A contestant is written ENCODER[:SPACE], and a fusion A+B[+...][@RULE]. Before they are combined, distances are put in
units that the training windows themselves give, leaving out each window's own neighbourhood in time:

    mean   of the distances in units of their 98 % quantile (the agent's ratio)
    max    the largest of these
    z      the mean of how many deviations the logarithm lies above that of the training windows, which gives less
           weight to an encoder whose normal windows scatter widely
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fisher_models.errors import ModelError
from fisher_models.evaluate.encoders import Encoder
from fisher_models.evaluate.neighbours import SPACES, Doubles, strangeness
from fisher_models.evaluate.protocol import Indices, Layout

RULES = ("mean", "max", "z")
LIMIT_QUANTILE = 0.98  # as the agent's limits
_TENTHS = 10
_SMALLEST = 1e-12  # of a distance, so that its logarithm exists
_LEAST_SCATTER = 1e-3  # of logarithms, so that training windows which are all alike do not rule the fusion


@dataclass(frozen=True, slots=True)
class Part:
    """One encoder, compared in one space."""

    encoder: Encoder
    space: str


@dataclass(frozen=True, slots=True)
class Contestant:
    """What is compared with others."""

    name: str
    parts: tuple[Part, ...]
    rule: str = "mean"


def contestant(text: str, encoder: Callable[[str], Encoder]) -> Contestant:
    """From its written form; `encoder` gives one by its name. ModelError where it is not understood."""
    body, at, rule = text.partition("@")
    if at and rule not in RULES:
        raise ModelError(f"{text!r}: {rule!r} is no rule of fusion; known are {', '.join(RULES)}")
    parts = []
    for one in body.split("+"):
        name, colon, space = one.rpartition(":") if one.rpartition(":")[2] in SPACES else (one, "", "")
        if not name:
            raise ModelError(f"{text!r} is no contestant; write ENCODER[:SPACE][+ENCODER[:SPACE]][@RULE]")
        found = encoder(name)
        parts.append(Part(found, space if colon else found.space))
    if at and len(parts) < 2:
        raise ModelError(f"{text!r}: a rule of fusion needs two encoders or more")
    return Contestant(text, tuple(parts), rule or "mean")


def neighbourhood(layout: Layout, rows: Indices, recordings: NDArray[np.str_], *, window_s: float) -> NDArray[np.bool_]:
    """(n, n): which training windows are left out when one of them is judged.

    Those of its recording; of a recording of 20 windows or more, those of its tenth and those that overlap it. Where
    there is one short recording, itself alone.
    """
    take, end_s = layout.take[rows], layout.end_s[rows]
    single = len(np.unique(recordings)) == 1
    block = np.empty(len(rows), np.int64)
    for recording in np.unique(recordings):
        own = np.flatnonzero(recordings == recording)
        if len(own) >= 2 * _TENTHS:
            block[own] = np.arange(len(own)) * _TENTHS // len(own)
        else:
            block[own] = np.arange(len(own)) if single else 0
    same = recordings[:, None] == recordings[None, :]
    near = (take[:, None] == take[None, :]) & (np.abs(end_s[:, None] - end_s[None, :]) < window_s * (1 - 1e-9))
    return np.asarray(same & ((block[:, None] == block[None, :]) | near))


@dataclass(frozen=True, slots=True, eq=False)
class Apart:
    """Distances of one part in one episode."""

    test: Doubles  # (test, train)
    train: Doubles  # (train, train)
    left_out: NDArray[np.bool_]  # (train, train) the neighbourhood of each

    def own(self) -> Doubles:
        """(train,): how strange each training window is to those outside its neighbourhood."""
        return np.maximum(strangeness(np.where(self.left_out, np.inf, self.train)), _SMALLEST)


def fused_strangeness(apart: Sequence[Apart], rule: str) -> Doubles:
    """(test,): how strange each window is; of a single part the plain distance."""
    if len(apart) == 1:
        return strangeness(apart[0].test)
    if rule == "z":
        return _COMBINE["mean"]([_deviations(one) for one in apart])
    return _COMBINE[rule]([strangeness(one.test) / float(np.quantile(one.own(), LIMIT_QUANTILE)) for one in apart])


def _deviations(one: Apart) -> Doubles:
    known, asked = np.log(one.own()), np.log(np.maximum(strangeness(one.test), _SMALLEST))
    return np.asarray((asked - known.mean()) / _scatter(known), np.float64)


def _scatter(logarithms: Doubles) -> float:
    return max(float(logarithms.std()), _LEAST_SCATTER)


def fused_distances(apart: Sequence[Apart], rule: str) -> Doubles:
    """(test, train) for a vote: distances in units of the median of the training windows' own."""
    if len(apart) == 1:
        return apart[0].test
    own = [one.own() for one in apart]
    scaled = [one.test / float(np.median(known)) for one, known in zip(apart, own, strict=True)]
    if rule == "z":
        return np.asarray(np.average(scaled, axis=0, weights=[1 / _scatter(np.log(known)) for known in own]))
    return _COMBINE[rule](scaled)


_COMBINE: Mapping[str, Callable[[Sequence[Doubles]], Doubles]] = {
    "mean": lambda some: np.asarray(np.mean(some, axis=0), np.float64),
    "max": lambda some: np.asarray(np.max(some, axis=0), np.float64),
}
