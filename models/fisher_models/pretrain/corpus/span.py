"""A stretch of time that signals are made for: its rate, its length, its device, and what its noise is drawn by.

Slow quantities (speed, load) are computed at knots 4 ms apart, in float64 where phases add up, and joined by straight
lines: what is done per sample then stays in float32 and takes few operations.
"""

import math
from dataclasses import dataclass

import torch
from scipy.fft import next_fast_len
from torch import Tensor

_KNOTS_HZ = 250.0


@dataclass(frozen=True, slots=True, eq=False)
class Span:
    """`samples` at `rate_hz` on the device of `noise`; transforms of it wrap around, as a stationary signal may."""

    rate_hz: float
    samples: int
    noise: torch.Generator

    @classmethod
    def holding(cls, samples: int, *, rate_hz: float, noise: torch.Generator) -> "Span":
        """The shortest span of at least so many samples whose transforms are fast."""
        return cls(rate_hz, next_fast_len(samples, real=True), noise)

    @property
    def device(self) -> torch.device:
        """Where everything is computed."""
        return self.noise.device

    @property
    def length_s(self) -> float:
        """Seconds."""
        return self.samples / self.rate_hz

    @property
    def knot(self) -> int:
        """Samples from one knot to the next."""
        return max(1, round(self.rate_hz / _KNOTS_HZ))

    def knots_s(self) -> Tensor:
        """(c,) times of the knots; the last lies at the end or after it."""
        count = math.ceil(self.samples / self.knot) + 1
        return torch.arange(count, device=self.device) * (self.knot / self.rate_hz)

    def filled(self, slow: Tensor) -> Tensor:
        """(n, c) at the knots -> (n, samples), by straight lines."""
        ramp = torch.arange(self.knot, device=self.device, dtype=slow.dtype) / self.knot
        out = torch.addcmul(slow[:, :-1, None], slow.diff(dim=1)[:, :, None], ramp)  # (n, c - 1, knot)
        return out.flatten(1)[:, : self.samples]

    def zeros(self, n: int) -> Tensor:
        """(n, samples) of nothing, to be added to."""
        return torch.zeros(n, self.samples, device=self.device)

    def white(self, n: int) -> Tensor:
        """(n, samples) of Gaussian noise of variance 1."""
        return torch.randn(n, self.samples, device=self.device, generator=self.noise)

    def random(self, *shape: int) -> Tensor:
        """Uniform from 0 to 1, for phases that no parameter fixes."""
        return torch.rand(shape, device=self.device, generator=self.noise)

    def hz(self) -> Tensor:
        """(bins,) frequencies of a real transform."""
        return torch.fft.rfftfreq(self.samples, 1 / self.rate_hz, device=self.device)
