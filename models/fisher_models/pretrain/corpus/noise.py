"""Stationary noise by its spectrum: background, flow, and the hiss of leaks.

Backgrounds fall or rise by a power of frequency with random bumps on it (1/f noise: Keshner, Proc. IEEE 70, 1982). A
leak is a jet: a hump about a Strouhal number of 0.2, rising with f^2 below and falling with f^-1 to f^-2 above (Tam,
Golebiowski & Seiner, AIAA 96-1716, 1996; Lighthill, Proc. R. Soc. A 211, 1952).
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from fisher_models.pretrain.corpus.draws import Draws
from fisher_models.pretrain.corpus.span import Span

_LOW_HZ, _HIGH_HZ, _KNOTS = 1.0, 100_000.0, 32  # about two knots to the octave


@dataclass(frozen=True, slots=True, eq=False)
class Noise:
    """Spectra of n signals at 32 frequencies; levels are RMS."""

    level: Tensor  # (n,) of the background
    ground: Tensor  # (n, 32) log magnitude of the background
    leak: Tensor  # (n,) level of the leak
    jet: Tensor  # (n, 32) log magnitude of the leak


def draw(draws: Draws, level: Tensor, leak: Tensor, *, rate_hz: float) -> Noise:
    """Slopes of -9 to +1 dB per octave, bumps of some dB; jets between a hundredth and all of what the rate shows."""
    n = len(level)
    log_hz = torch.linspace(math.log(_LOW_HZ), math.log(_HIGH_HZ), _KNOTS)
    slope = draws.uniform(n, 1, low=-1.5, high=0.2)
    ground = slope * log_hz.clamp(min=math.log(10)) + draws.normal(n, _KNOTS) * draws.uniform(n, 1, high=0.8)
    peak = torch.log(draws.log_uniform(n, 1, low=0.01 * rate_hz, high=0.5 * rate_hz))
    beyond = log_hz - peak
    fall = draws.uniform(n, 1, low=0.5, high=1.2)
    jet = torch.where(beyond < 0, beyond, -fall * beyond)
    return Noise(level, ground, leak, jet)


def transform(noise: Noise, span: Span) -> Tensor:
    """(n, bins) complex: the transform of Gaussian noise with these spectra and levels, DC left out."""
    place = (torch.log(span.hz().clamp(min=_LOW_HZ)) / math.log(_HIGH_HZ)) * (_KNOTS - 1)
    at = torch.arange(_KNOTS, device=span.device)[:, None]
    between = (1 - (place.clamp(max=_KNOTS - 1) - at).abs()).clamp_(min=0)  # (32, bins): straight lines between knots
    between[:, 0] = 0
    size = _scaled(noise.ground, noise.level, between)
    rows = torch.nonzero(noise.leak > 0).flatten()
    if len(rows):
        hiss = _scaled(noise.jet[rows], noise.leak[rows], between)
        size.index_copy_(0, rows, torch.hypot(size[rows], hiss))
    drawn = torch.randn(*size.shape, 2, device=span.device, generator=span.noise)
    return torch.view_as_complex(drawn.mul_(size[:, :, None]))


def _scaled(log_size: Tensor, level: Tensor, between: Tensor) -> Tensor:
    """(n, bins) magnitudes per component whose inverse transform has these levels."""
    bins = between.shape[1]
    size = torch.exp(log_size @ between)
    size[:, 0] = 0
    root_mean_square = size.square().mean(1, keepdim=True).sqrt_()
    return size.mul_(level[:, None] * math.sqrt(bins) / root_mean_square)
