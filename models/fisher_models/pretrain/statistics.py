"""What can be said of a band by arithmetic: level, tonality, modulation and shape. For the statistics head and probes.

Each is computed from the normalised log spectrogram alone, so it exists for recordings too. Bins that are zero at all
times are padding and do not count.
"""

from itertools import pairwise

import torch
from torch import Tensor

_HOP_HZ = 100.0  # frames per second of both families' front-ends
_MODULATION_HZ = (1.5, 3.0, 6.0, 10.0, 16.0, 25.0, 36.0, 50.0)
_PARTS = 8  # of the band's spectrum

NAMES = (
    "level", "tonality", "modulation", "tilt", "burstiness",
    *(f"shape{k}" for k in range(_PARTS)),
    *(f"modulation{low:g}-{high:g}Hz" for low, high in pairwise(_MODULATION_HZ)),
)  # fmt: skip
PROBED = ("level", "tonality", "modulation")


def statistics(bands: Tensor) -> Tensor:
    """(n, t, f) normalised bands -> (n, len(NAMES)), float32.

    level: mean; tonality: how rough the mean spectrum is from bin to bin; modulation: deviation over time of the mean
    over bins; tilt: slope over the band; burstiness: skewness over time; shape: eighths of the spectrum less the level;
    modulation by frequency: log of the spectrum of the mean over bins.
    """
    _, t, f = bands.shape
    x = bands.detach().float()
    real = (x != 0).any(1).float()  # (n, f)
    count = real.sum(1).clamp(min=1)
    spectrum, course = x.mean(1), (x * real[:, None]).sum(2) / count[:, None]  # (n, f), (n, t)
    level = (spectrum * real).sum(1) / count
    shape = (spectrum - level[:, None]) * real
    both = real[:, 1:] * real[:, :-1]
    tonality = (spectrum.diff(dim=1).abs() * both).sum(1) / both.sum(1).clamp(min=1)
    moving = course - course.mean(1, keepdim=True)
    modulation = moving.square().mean(1).sqrt()
    place = (
        torch.arange(f, device=x.device)
        - (torch.arange(f, device=x.device) * real).sum(1, keepdim=True) / count[:, None]
    )
    tilt = (shape * place * real).sum(1) / (place.square() * real).sum(1).clamp(min=1) * f
    burstiness = moving.pow(3).mean(1) / (modulation.pow(3) + 1e-6)
    parts = [(shape[:, k * f // _PARTS : (k + 1) * f // _PARTS]).mean(1) for k in range(_PARTS)]
    power = torch.fft.rfft(moving * torch.hann_window(t, device=x.device)).abs().square()  # (n, t // 2 + 1)
    hz = torch.arange(power.shape[1], device=x.device) * (_HOP_HZ / t)
    bins = [((hz >= low) & (hz < high)).float() for low, high in pairwise(_MODULATION_HZ)]
    rates = [torch.log((power * b).sum(1) / b.sum().clamp(min=1) / t + 1e-4) for b in bins]
    return torch.stack([level, tonality, modulation, tilt, burstiness.clamp(-8, 8), *parts, *rates], 1)
