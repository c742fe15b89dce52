"""How fast a machine turns: a nominal speed that wanders, ripples and, now and then, ramps.

Speed of an induction machine follows load and supply within a per cent or so; slow wander is drawn as a few slow
sinusoids (a band-limited random process, Shinozuka & Deodatis, Appl. Mech. Rev. 44, 1991), ripple as torsion at a low
order. Ramps are starts and stops, as in run-up tests (Brandt, Noise and Vibration Analysis, 2011, chapter 12).
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from fisher_models.pretrain.corpus.draws import Draws
from fisher_models.pretrain.corpus.span import Span

_WAVES = 3


@dataclass(frozen=True, slots=True, eq=False)
class Motion:
    """The turning of n machines."""

    shaft_hz: Tensor  # (n,) nominal
    wander: Tensor  # (n, 3) relative amplitude of each slow wave
    wander_hz: Tensor  # (n, 3)
    ripple: Tensor  # (n,) relative amplitude of torsion
    ripple_hz: Tensor  # (n,)
    ramp: Tensor  # (n,) 1 where the speed ramps
    ramp_from: Tensor  # (n,) share of the nominal speed before
    ramp_to: Tensor  # (n,) and after
    ramp_at: Tensor  # (n,) where its middle lies in the window, 0 to 1
    ramp_share: Tensor  # (n,) its length as a share of the window
    load: Tensor  # (n, 3) relative amplitude of each slow wave of the load, on which amplitudes depend


def draw(draws: Draws, n: int, *, ramps: float) -> Motion:
    """Between 2 and 400 turns per second, most in the range of electric drives; a share `ramps` starts or stops."""
    usual = draws.log_uniform(n, low=5, high=100)
    wide = draws.log_uniform(n, low=2, high=400)
    starts = draws.chance(n, p=0.5)
    low, high = draws.uniform(n, high=0.5), draws.uniform(n, low=0.7, high=1.1)
    return Motion(
        shaft_hz=torch.where(draws.chance(n, p=0.7) > 0, usual, wide),
        wander=draws.log_uniform(n, 1, low=1e-4, high=2e-2) * draws.uniform(n, _WAVES),
        wander_hz=draws.log_uniform(n, _WAVES, low=0.05, high=4),
        ripple=draws.log_uniform(n, low=1e-5, high=5e-3),
        ripple_hz=draws.log_uniform(n, low=2, high=40),
        ramp=draws.chance(n, p=ramps),
        ramp_from=torch.where(starts > 0, low, high),
        ramp_to=torch.where(starts > 0, high, low),
        ramp_at=draws.uniform(n, low=0.2, high=0.8),
        ramp_share=draws.uniform(n, low=0.1, high=0.8),
        load=draws.log_uniform(n, 1, low=1e-3, high=0.3) * draws.uniform(n, _WAVES),
    )


@dataclass(frozen=True, slots=True, eq=False)
class Course:
    """A motion over a span."""

    turns: Tensor  # (n, c) float64, of the shaft at the knots; starts at a random phase
    since: Tensor  # (n, samples) turns since the knot before
    fastest_hz: Tensor  # (n,) of the shaft within the span
    speed: Tensor  # (n, c) at the knots, as a share of nominal
    load: Tensor  # (n, c) at the knots, about 1

    def phase(self, order: Tensor | float, rows: Tensor, span: Span) -> Tensor:
        """(samples of `rows`) turns of something that turns `order` (rows,) times as fast; whole turns are left out."""
        times = torch.as_tensor(order, dtype=torch.float64, device=self.turns.device).expand(len(rows))
        knots = times[:, None] * self.turns[rows, :-1]
        start = (knots - knots.floor()).float()[:, :, None]  # (rows, c - 1, 1)
        out = start.expand(-1, -1, span.knot).flatten(1)[:, : span.samples]
        return torch.addcmul(out, self.since[rows], times.float()[:, None])


def course(motion: Motion, span: Span) -> Course:
    """Phases, speeds and loads of n machines; the phases of waves are drawn by the span's noise."""
    n, t = len(motion.shaft_hz), span.knots_s()
    phase = span.random(n, 2 * _WAVES + 2, 1)
    slow = motion.wander_hz[:, :, None] * t  # (n, 3, c)
    wander = (motion.wander[:, :, None] * torch.sin(2 * math.pi * (slow + phase[:, :_WAVES]))).sum(1)
    load = (motion.load[:, :, None] * torch.sin(2 * math.pi * (0.7 * slow + phase[:, _WAVES : 2 * _WAVES]))).sum(1)
    ripple = motion.ripple[:, None] * torch.sin(2 * math.pi * (motion.ripple_hz[:, None] * t + phase[:, -2]))
    done = ((t / span.length_s - motion.ramp_at[:, None]) / motion.ramp_share[:, None] + 0.5).clamp(0, 1)
    smooth = done * done * (3 - 2 * done)
    ramp = motion.ramp_from[:, None] + (motion.ramp_to - motion.ramp_from)[:, None] * smooth
    speed = (1 + wander + ripple) * torch.where(motion.ramp[:, None] > 0, ramp, 1.0)
    hz = speed * motion.shaft_hz[:, None]  # (n, c), straight between knots, so that turns are a parabola there
    gained = (hz[:, :-1] + hz[:, 1:]).double() * (span.knot / span.rate_hz / 2)
    turns = torch.cat([phase[:, -1].double(), gained], dim=1).cumsum(1)
    u = torch.arange(span.knot, device=span.device) / span.rate_hz  # seconds since the knot
    bend = hz.diff(dim=1) * (span.rate_hz / span.knot / 2)
    since = (hz[:, :-1, None] * u + bend[:, :, None] * (u * u)).flatten(1)[:, : span.samples]
    return Course(turns, since, motion.shaft_hz * speed.amax(1), speed, (1 + load).clamp_(min=0.05))


def steady(hz: Tensor, start: Tensor, span: Span) -> Tensor:
    """(n, samples) turns of something at a constant rate (n,) from `start` (n, 1); whole turns are left out."""
    knots = start.double() + hz[:, None].double() * span.knots_s()[:-1]
    u = torch.arange(span.knot, device=span.device) / span.rate_hz
    begin = (knots - knots.floor()).float()[:, :, None]
    return torch.addcmul(begin, hz[:, None, None], u).flatten(1)[:, : span.samples]
