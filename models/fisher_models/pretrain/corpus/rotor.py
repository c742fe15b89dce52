"""What a shaft makes once per turn and at multiples of it: unbalance, misalignment, looseness, blades.

Unbalance is order 1, misalignment raises orders 2 and 3 (ISO 13373-3:2015, annexes); looseness fills the whole series
and adds half orders (Goldman & Muszynska, J. Eng. Gas Turbines Power 121, 1999); blades pass at the order of their
number with harmonics (Brennen, Hydrodynamics of Pumps, 1994, chapter 8).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from fisher_models.pretrain.corpus.draws import Draws
from fisher_models.pretrain.corpus.motion import Course
from fisher_models.pretrain.corpus.span import Span
from fisher_models.pretrain.corpus.tables import look_up, table

_HALF_ORDERS = 128  # up to order 63.5


@dataclass(frozen=True, slots=True, eq=False)
class Rotor:
    """The series of n shafts, in half orders; levels are RMS."""

    level: Tensor  # (n,) of unbalance, misalignment and blades together
    series: Tensor  # (n, 128) complex
    loose: Tensor  # (n,) level of looseness
    rattle: Tensor  # (n, 128) complex


def draw(draws: Draws, level: Tensor, loose: Tensor) -> Rotor:
    """Series of random shares; both come with RMS 1."""
    n = len(level)
    order = torch.arange(_HALF_ORDERS) / 2
    whole = (order % 1 == 0) & (order > 0)
    size = torch.zeros(n, _HALF_ORDERS)
    falling = order.clamp(min=1) ** -draws.uniform(n, 1, low=1, high=3)
    size[:, whole] = (falling * draws.normal(n, _HALF_ORDERS, std=0.7).exp())[:, whole]
    size[:, 4] *= draws.decibels(n, low=-10, high=25)  # order 2
    size[:, 6] *= draws.decibels(n, low=-10, high=20)
    blades = draws.whole(n, low=3, high=15)
    fan = draws.chance(n, p=0.5) * draws.decibels(n, low=-15, high=15)
    for harmonic in range(1, 5):
        at = (2 * harmonic * blades)[:, None]
        share = (fan / harmonic**1.5)[:, None] * draws.normal(n, 1, std=0.5).exp()
        size.scatter_add_(1, at.clamp(max=_HALF_ORDERS - 1), share * (at < _HALF_ORDERS))
    comb = draws.normal(n, _HALF_ORDERS, std=0.5).exp() * order.clamp(min=0.5) ** -draws.uniform(n, 1, low=0, high=1)
    comb = comb * torch.where(whole, 1.0, draws.decibels(n, 1, low=-20, high=0)) * (order > 0)
    return Rotor(
        level, _unit(size) * draws.phasors(n, _HALF_ORDERS), loose, _unit(comb) * draws.phasors(n, _HALF_ORDERS)
    )


def render(rotor: Rotor, rows: Tensor, moving: Course, span: Span) -> Tensor:
    """(rows, samples) of the shafts `rows`."""
    series = rotor.level[rows, None] * rotor.series[rows] + rotor.loose[rows, None] * rotor.rattle[rows]
    period = table(series, moving.fastest_hz[rows] / 2, highest_hz=0.49 * span.rate_hz)
    return look_up(period, moving.phase(0.5, rows, span))


def _unit(size: Tensor) -> Tensor:
    return size * (2 / size.square().sum(1, keepdim=True)).sqrt()
