"""Noise that comes and goes with the machine: rubbing once per turn, and cavitation with the blades.

Rubbing scrapes where the orbit touches, a burst of friction noise per turn (Muszynska, Shock Vib. Dig. 21, 1989; Hall &
Mba, Mech. Syst. Signal Process. 18, 2004). Cavitation is broadband noise of collapsing bubbles, heavy-tailed, modulated
by the passing blades (Cudina, Mech. Syst. Signal Process. 17, 2003; Brennen, Hydrodynamics of Pumps, 1994, chapter 6).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from fisher_models.pretrain.corpus.draws import Draws
from fisher_models.pretrain.corpus.motion import Course
from fisher_models.pretrain.corpus.span import Span


@dataclass(frozen=True, slots=True, eq=False)
class Bursts:
    """Modulated noise of n machines; levels are RMS."""

    rub: Tensor  # (n,) level
    contact: Tensor  # (n,) sharpness of the contact: larger is shorter
    cavitation: Tensor  # (n,) level
    blades: Tensor  # (n,) passes per turn
    depth: Tensor  # (n,) of their modulation
    violence: Tensor  # (n,) 0: Gaussian, 1: single collapses stand out


def draw(draws: Draws, rub: Tensor, cavitation: Tensor) -> Bursts:
    """Contacts of 5 to 60 % of a turn; 3 to 9 blades."""
    n = len(rub)
    return Bursts(
        rub=rub,
        contact=draws.log_uniform(n, low=1, high=60),
        cavitation=cavitation,
        blades=draws.whole(n, low=3, high=9).float(),
        depth=draws.uniform(n, high=0.9),
        violence=draws.uniform(n),
    )


def rubbing(bursts: Bursts, rows: Tensor, moving: Course, span: Span) -> Tensor:
    """(rows, samples) of scraping noise, not scaled."""
    closeness = moving.phase(1.0, rows, span).mul_(2 * torch.pi).cos_().sub_(1)
    return closeness.mul_(bursts.contact[rows, None]).exp_().mul_(span.white(len(rows)))


def cavitating(bursts: Bursts, rows: Tensor, moving: Course, span: Span) -> Tensor:
    """(rows, samples) of collapsing bubbles, not scaled."""
    blades = moving.phase(bursts.blades[rows], rows, span).mul_(2 * torch.pi).cos_()
    noise = span.white(len(rows))
    noise.mul_(noise.square().sub_(1).mul_(bursts.violence[rows, None] * 0.6).add_(1))  # a cube has heavy tails
    return noise.mul_(blades.mul_(bursts.depth[rows, None]).add_(1))
