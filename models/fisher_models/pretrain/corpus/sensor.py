"""The sensor and its converter: response, noise floor, clipping, quantisation, and the level they see.

Accelerometers resonate on their mounting (ISO 5348) and, like microphones, lose low frequencies (first-order
high-pass); converters are preceded by an anti-aliasing filter, clip at full scale and round to steps, which adds noise
of a twelfth of a step squared (Widrow & Kollar, Quantization Noise, 2008). Levels spread over decades.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from fisher_models.pretrain.corpus.draws import Draws
from fisher_models.pretrain.corpus.span import Span


@dataclass(frozen=True, slots=True, eq=False)
class Sensor:
    """Of n signals; what is relative is so to a signal of RMS 1."""

    mounting_hz: Tensor  # (n,) resonance
    damping: Tensor  # (n,) of it
    low_hz: Tensor  # (n,) corner of the high-pass
    high: Tensor  # (n,) corner of the anti-aliasing filter, as a share of Nyquist; above 1: none
    floor: Tensor  # (n,) noise, RMS
    full_scale: Tensor  # (n,) where it clips
    step: Tensor  # (n,) of the converter
    level: Tensor  # (n,) RMS at which the signal is stored


def draw(draws: Draws, n: int, *, clipping: float) -> Sensor:
    """Converters of 10 to 24 bits; a share `clipping` is set too sensitive. RMS from 1e-4 to 3, most about 0.1."""
    full_scale = draws.log_uniform(n, low=5, high=300)
    full_scale = torch.where(draws.chance(n, p=clipping) > 0, draws.uniform(n, low=0.7, high=2.5), full_scale)
    bits = draws.among(n, values=(10, 12, 16, 16, 16, 24, 24))
    usual, wide = draws.normal(n, mean=-1, std=0.35), draws.uniform(n, low=-4, high=0.5)
    return Sensor(
        mounting_hz=draws.log_uniform(n, low=2000, high=60_000),
        damping=draws.log_uniform(n, low=0.02, high=0.3),
        low_hz=draws.log_uniform(n, low=0.1, high=20),
        high=draws.uniform(n, low=0.6, high=1.6),
        floor=draws.decibels(n, low=-90, high=-30),
        full_scale=full_scale,
        step=2 * full_scale / 2**bits,
        level=10 ** torch.where(draws.chance(n, p=0.7) > 0, usual, wide),
    )


def response(sensor: Sensor, span: Span) -> Tensor:
    """(n, bins) of magnitudes: mounting, high-pass, and an anti-aliasing filter of eighth order."""
    f = span.hz()
    square = (f / sensor.mounting_hz[:, None]).square()
    mounting = (1 - square).square().add_((2 * sensor.damping[:, None]).square() * square)
    low = (f / sensor.low_hz[:, None]).square()
    high = (f / (sensor.high[:, None] * (span.rate_hz / 2))).pow(16)
    return (low / (1 + low) / mounting / (1 + high)).sqrt_()


def converted(sensor: Sensor, signals: Tensor, span: Span) -> Tensor:
    """(n, samples), of RMS about 1 -> as stored: with noise floor, clipped, in steps, at its level."""
    full, step = sensor.full_scale[:, None], sensor.step[:, None]
    seen = torch.addcmul(signals, span.white(len(signals)), sensor.floor[:, None])
    seen = torch.minimum(torch.maximum(seen, -full), full)
    return seen.div_(step).round_().mul_(step * sensor.level[:, None])
