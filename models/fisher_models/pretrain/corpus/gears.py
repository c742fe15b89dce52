"""Gears: mesh harmonics with sidebands of both shafts, and a tooth that knocks once per turn.

Model of P. McFadden (J. Vib. Acoust. 108, 1986): harmonics of the mesh frequency whose amplitude and phase are
modulated with the turns of pinion and wheel; a cracked tooth shows as a short change once per turn.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from fisher_models.pretrain.corpus import impulses
from fisher_models.pretrain.corpus.draws import Draws
from fisher_models.pretrain.corpus.motion import Course
from fisher_models.pretrain.corpus.span import Span
from fisher_models.pretrain.corpus.tables import look_up, table

_MOST_TEETH, _HARMONICS, _SIDE = 60, 4, 6
_ORDERS = _MOST_TEETH * _HARMONICS + _SIDE + 2


@dataclass(frozen=True, slots=True, eq=False)
class Gears:
    """One pair of gears on each of n machines; levels are RMS."""

    level: Tensor  # (n,) of the mesh
    order: Tensor  # (n,) turns of the pinion per turn of the machine's shaft
    series: Tensor  # (n, orders) complex, over one turn of the pinion
    ratio: Tensor  # (n,) turns of the wheel per turn of the pinion
    wheel: Tensor  # (n,) depth of the wheel's modulation
    tooth: Tensor  # (n,) level of a damaged tooth's knocks


def draw(draws: Draws, level: Tensor, tooth: Tensor) -> Gears:
    """Pinions of 12 to 60 teeth."""
    n = len(level)
    teeth = draws.whole(n, low=12, high=_MOST_TEETH)
    series = torch.zeros(n, _ORDERS, dtype=torch.complex64)
    narrow = draws.uniform(n, low=0.05, high=0.8)  # how fast sidebands fall
    for harmonic in range(1, _HARMONICS + 1):
        size = draws.normal(n, std=0.6).exp() / harmonic
        for side in range(-_SIDE, _SIDE + 1):
            share = size * narrow ** abs(side) * (draws.normal(n, std=0.4).exp() if side else 1)
            series.scatter_add_(1, (teeth * harmonic + side)[:, None], (share * draws.phasors(n))[:, None])
    series = series * (2 / series.abs().square().sum(1, keepdim=True)).sqrt()
    return Gears(
        level=level,
        order=torch.where(draws.chance(n, p=0.5) > 0, torch.ones(n), draws.log_uniform(n, low=0.1, high=4)),
        series=series,
        ratio=draws.log_uniform(n, low=0.1, high=1),
        wheel=draws.log_uniform(n, low=0.01, high=0.7),
        tooth=tooth,
    )


def mesh(gears: Gears, rows: Tensor, moving: Course, span: Span) -> Tensor:
    """(rows, samples) of the mesh."""
    order = gears.order[rows]
    period = table(gears.series[rows], moving.fastest_hz[rows] * order, highest_hz=0.47 * span.rate_hz)
    wheel = moving.phase(order * gears.ratio[rows], rows, span).mul_(2 * torch.pi).cos_()
    out = look_up(period, moving.phase(order, rows, span)).mul_(gears.level[rows, None])
    return out.mul_(wheel.mul_(gears.wheel[rows, None]).add_(1))


def knocks(gears: Gears, rows: Tensor, moving: Course, span: Span) -> Tensor:
    """(rows, samples) of impulses, to be heard through a structure: the damaged tooth, once per turn of the pinion."""
    turns = gears.order[rows, None].double() * moving.turns[rows]
    spread = torch.full((len(rows),), 0.3, device=span.device)
    return impulses.train(turns, spread, torch.zeros_like(spread), span, size=moving.load[rows, :-1])
