"""What happens now and then: knocks at random, and cycles of work that switch noise on and off.

Knocks come as a Poisson process through the structure (loose parts: ISO 13373-3). A cycle is a valve that opens or a
press that strikes: a burst of noise that decays, again and again (reciprocating machines: API 618; pneumatic exhaust:
ISO 20145). Work duty gates everything the machine does.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from fisher_models.pretrain.corpus import impulses
from fisher_models.pretrain.corpus.draws import Draws
from fisher_models.pretrain.corpus.motion import steady
from fisher_models.pretrain.corpus.span import Span


@dataclass(frozen=True, slots=True, eq=False)
class Transients:
    """Events on n machines; levels are RMS."""

    knock: Tensor  # (n,) level
    knock_hz: Tensor  # (n,) how many a second, on the average
    cycle: Tensor  # (n,) level of the bursts
    cycle_hz: Tensor  # (n,)
    decay: Tensor  # (n,) how many times a burst falls to 1 / e within its cycle
    gated: Tensor  # (n,) 1 where the machine works in duty cycles
    duty: Tensor  # (n,) share of the time that it works
    rest: Tensor  # (n,) amplitude while it does not


def draw(draws: Draws, knock: Tensor, cycle: Tensor, gated: Tensor) -> Transients:
    """One to forty knocks a second; cycles of 30 ms to 3 s."""
    n = len(knock)
    return Transients(
        knock=knock,
        knock_hz=draws.log_uniform(n, low=1, high=40),
        cycle=cycle,
        cycle_hz=draws.log_uniform(n, low=0.3, high=30),
        decay=draws.log_uniform(n, low=2, high=40),
        gated=gated,
        duty=draws.uniform(n, low=0.2, high=0.9),
        rest=draws.decibels(n, low=-40, high=-6),
    )


def knocks(transients: Transients, rows: Tensor, span: Span) -> Tensor:
    """(rows, samples) of impulses at random times, to be heard through a structure."""
    rate = transients.knock_hz[rows, None] * (span.knot / span.rate_hz)
    counts = torch.poisson(
        rate.expand(-1, len(span.knots_s()) - 1), generator=span.noise
    )  # independent from knot to knot
    start = torch.full((len(rows), 1), 0.5, dtype=torch.float64, device=span.device)  # in the middle of its knot
    turns = torch.cat([start, counts.double()], 1).cumsum(1)
    spread = torch.full((len(rows),), 0.8, device=span.device)
    return impulses.train(turns, spread, torch.full_like(spread, 0.3), span)


def bursts(transients: Transients, rows: Tensor, span: Span) -> Tensor:
    """(rows, samples) of noise that starts again with each cycle and decays, not scaled."""
    turns = steady(transients.cycle_hz[rows], span.random(len(rows), 1), span)
    turns.sub_(turns.floor()).mul_(-transients.decay[rows, None])
    return turns.exp_().mul_(span.white(len(rows)))


def gate(transients: Transients, rows: Tensor, span: Span) -> Tensor:
    """(rows, c) amplitude at the knots: 1 while working, `rest` otherwise, with soft edges."""
    t = span.knots_s()
    turns = transients.cycle_hz[rows, None].clamp(max=4) * t + span.random(len(rows), 1)
    inside = torch.cos(2 * math.pi * turns) - torch.cos(math.pi * transients.duty[rows, None])
    share = torch.sigmoid(20 * inside)
    rest = transients.rest[rows, None]
    return rest + (1 - rest) * share
