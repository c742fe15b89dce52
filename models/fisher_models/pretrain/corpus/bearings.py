"""Rolling bearings with a defect: impulses at the rates that follow from their geometry.

Rates and modulation after McFadden & Smith (J. Sound Vib. 96, 1984) and Randall & Antoni (Mech. Syst. Signal Process.
25, 2011): outer race BPFO, constant load; inner race BPFI, passing the load zone once per turn; ball 2 BSF, passing it
with the cage; cage FTF. Slip makes the spacing walk by about 1 %.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from fisher_models.pretrain.corpus import impulses
from fisher_models.pretrain.corpus.draws import Draws
from fisher_models.pretrain.corpus.motion import Course
from fisher_models.pretrain.corpus.span import Span

OUTER, INNER, BALL, CAGE = range(4)


@dataclass(frozen=True, slots=True, eq=False)
class Bearings:
    """One bearing on each of n machines."""

    level: Tensor  # (n,) RMS of the defect's impulses; 0: sound
    where: Tensor  # (n,) OUTER, INNER, BALL or CAGE
    orders: Tensor  # (n, 4) impulses per turn of the shaft, for each place
    passing: Tensor  # (n, 4) how often the place passes the load zone, per turn
    depth: Tensor  # (n, 4) how much the load zone matters to it
    jitter: Tensor  # (n,) deviation of the spacing, as a share of it
    spread: Tensor  # (n,) relative deviation of the impulses' sizes


def draw(draws: Draws, level: Tensor) -> Bearings:
    """Geometries of 6 to 20 rolling elements; the defect's place is drawn too."""
    n = len(level)
    balls = draws.whole(n, low=6, high=20).float()
    slope = draws.uniform(n, low=0.12, high=0.3) * torch.cos(draws.uniform(n, high=0.7))  # d / D x cos(contact angle)
    cage = (1 - slope) / 2
    ratio = slope.clamp(min=0.05)
    spin = (1 - slope**2) / (2 * ratio)
    one, none = torch.ones(n), torch.zeros(n)
    return Bearings(
        level=level,
        where=draws.whole(n, low=OUTER, high=CAGE),
        orders=torch.stack([balls * cage, balls * (1 - cage), 2 * spin, cage], 1),
        passing=torch.stack([one, one, cage, one], 1),
        depth=torch.stack([draws.uniform(n, high=0.2), draws.uniform(n, low=0.5), draws.uniform(n, low=0.3), none], 1),
        jitter=draws.log_uniform(n, low=0.001, high=0.03),
        spread=draws.uniform(n, low=0.05, high=0.6),
    )


def rate(bearings: Bearings, rows: Tensor) -> Tensor:
    """(rows,) impulses per turn of the shaft."""
    return bearings.orders[rows].gather(1, bearings.where[rows, None])[:, 0]


def knocks(bearings: Bearings, rows: Tensor, shaft_hz: Tensor, moving: Course, span: Span) -> Tensor:
    """(rows, samples) of impulses, to be heard through a structure."""
    place = bearings.where[rows, None]
    order = bearings.orders[rows].gather(1, place)
    passing, depth = bearings.passing[rows].gather(1, place), bearings.depth[rows].gather(1, place)
    turns = moving.turns[rows]
    zone = torch.cos((passing * turns[:, :-1]).remainder_(1).float() * (2 * torch.pi))
    size = (1 + depth * (zone - 1) / 2).clamp_(min=0) * moving.load[rows, :-1]
    jitter = bearings.jitter[rows]
    slipping = order * turns + impulses.walk(shaft_hz[rows] * order[:, 0], jitter, span)
    return impulses.train(slipping, bearings.spread[rows], jitter, span, size=size)
