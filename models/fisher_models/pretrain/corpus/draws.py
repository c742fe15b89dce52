"""Random parameters: drawn on the CPU, so that a machine is the same whatever device its signals are made on."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor


class Draws:
    """A generator on the CPU by the distributions that parameters come from. All results are float32 but `whole`."""

    def __init__(self, generator: torch.Generator) -> None:
        self.generator = generator

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        """Evenly between two values."""
        return low + (high - low) * torch.rand(shape, generator=self.generator)

    def log_uniform(self, *shape: int, low: float, high: float) -> Tensor:
        """Evenly between two positive values, in their logarithm."""
        return torch.exp(self.uniform(*shape, low=math.log(low), high=math.log(high)))

    def normal(self, *shape: int, mean: float = 0.0, std: float = 1.0) -> Tensor:
        """Gaussian."""
        return mean + std * torch.randn(shape, generator=self.generator)

    def chance(self, *shape: int, p: float) -> Tensor:
        """1.0 with probability p, else 0.0."""
        return (torch.rand(shape, generator=self.generator) < p).float()

    def decibels(self, *shape: int, low: float, high: float) -> Tensor:
        """An amplitude, evenly in dB."""
        return 10 ** (self.uniform(*shape, low=low, high=high) / 20)

    def whole(self, *shape: int, low: int, high: int) -> Tensor:
        """Whole numbers from low to high, both included; int64."""
        return torch.randint(low, high + 1, shape, generator=self.generator)

    def among(self, *shape: int, values: Sequence[float]) -> Tensor:
        """One of these values, each as likely."""
        return torch.tensor(values)[self.whole(*shape, low=0, high=len(values) - 1)]

    def phasors(self, *shape: int) -> Tensor:
        """Complex numbers of magnitude 1; complex64."""
        turns = self.uniform(*shape, high=2 * math.pi)
        return torch.polar(torch.ones_like(turns), turns)
