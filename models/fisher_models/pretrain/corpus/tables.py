"""Waveforms that repeat with a phase: one period as a table from its Fourier coefficients, then looked up by phase.

Wavetable synthesis (M. Mathews, The Technology of Computer Music, 1969): a series of hundreds of harmonics costs one
look-up per sample. Orders that would lie above the highest frequency are left out, so nothing folds back.
"""

import torch
from torch import Tensor

_POINTS_PER_PERIOD = 64  # of the highest order: a straight line between two points is then within 0.12 % of a sine


def table(coefficients: Tensor, fundamental_hz: Tensor, *, highest_hz: float) -> Tensor:
    """(n, orders) complex, (n,) -> (n, points) complex: sum over k of Re(c_k exp(2 pi i k phase)), phase from 0 to 1.

    The real part of a point is the waveform there, the imaginary part the step to the next point. `fundamental_hz` is
    the fastest that the phase turns; orders above `highest_hz` are silent.
    """
    orders = coefficients.shape[1]
    frequencies = torch.arange(orders, device=coefficients.device) * fundamental_hz[:, None]
    heard = torch.where(frequencies < highest_hz, coefficients, 0)
    heard[:, 0] *= 2  # the inverse transform gets half of every order from its negative, but not of order 0
    points = 1 << (orders * _POINTS_PER_PERIOD - 1).bit_length()
    period = torch.fft.irfft(heard, n=points) * (points / 2)
    return torch.complex(period, period.roll(-1, 1) - period)


def look_up(period: Tensor, turns: Tensor) -> Tensor:
    """(n, points), (n, samples) of phase in turns -> (n, samples)."""
    n, points = period.shape
    place = (turns - turns.floor()).mul_(points)
    whole = place.int().clamp_(max=points - 1)
    rest = place.sub_(whole)
    whole += torch.arange(n, device=turns.device, dtype=torch.int32)[:, None] * points
    found = torch.view_as_real(period.flatten()[whole])  # one look-up fetches value and step
    return rest.mul_(found[..., 1]).add_(found[..., 0])
