"""Resonances: what a structure makes of forces and impulses, as a sum of modes.

Accelerance by modal superposition (Ewins, Modal Testing, 2000, section 2): H(f) = sum of a f^2 / (f_k^2 - f^2 + 2 i
zeta f_k f), with damping of 0.3 to 10 % as bolted metal has.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from fisher_models.pretrain.corpus.draws import Draws
from fisher_models.pretrain.corpus.span import Span

_MODES = 6


@dataclass(frozen=True, slots=True, eq=False)
class Modes:
    """The path of n signals from forces to the sensor."""

    hz: Tensor  # (n, modes)
    damping: Tensor  # (n, modes)
    gain: Tensor  # (n, modes), signed, at resonance
    rigid: Tensor  # (n,) what passes without a resonance


def draw(draws: Draws, n: int, *, rate_hz: float) -> Modes:
    """Six modes each, anywhere in the upper 99 % of what the rate can show."""
    sign = 2 * draws.chance(n, _MODES, p=0.5) - 1
    return Modes(
        hz=draws.log_uniform(n, _MODES, low=max(15.0, 0.005 * rate_hz), high=0.49 * rate_hz),
        damping=draws.log_uniform(n, _MODES, low=0.003, high=0.1),
        gain=sign * draws.decibels(n, _MODES, low=-30, high=0),
        rigid=draws.decibels(n, low=-40, high=-10),
    )


def response(modes: Modes, span: Span) -> Tensor:
    """(n, bins) complex."""
    f = span.hz()
    real = modes.rigid[:, None].expand(-1, len(f)).clone()
    imaginary = torch.zeros_like(real)
    for k in range(modes.hz.shape[1]):
        ratio = f / modes.hz[:, k, None]  # (n, bins)
        square = ratio * ratio
        across = (2 * modes.damping[:, k, None]) * ratio
        apart = 1 - square
        scale = (modes.gain[:, k] * 2 * modes.damping[:, k])[:, None] * square
        scale /= apart * apart + across * across
        real.addcmul_(scale, apart)
        imaginary.addcmul_(scale, across, value=-1)
    return torch.complex(real, imaginary)
