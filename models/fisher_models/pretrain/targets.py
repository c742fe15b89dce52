"""What the student must predict: the teacher's feed-forward outputs, averaged over layers, normalised as chosen.

The published recipe (spec of FISHER after EAT) is instance norm of each layer over its tokens, then a layer norm of the
average. Where position explains most of it, `centre = "position"` subtracts the batch's mean at each position;
where instance norm empties the band's target, `layer_norm = "none"` with `norm = "zscore"` keeps it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own convention)
from torch import Tensor, nn

from fisher_models.pretrain.config import TargetSpec
from fisher_models.pretrain.ranks import mean_over_ranks

_EPS = 1e-6
_MOMENTUM = 0.1  # of the running statistics; slower ones lag where the teacher's outputs grow, early in a run


@dataclass(frozen=True, slots=True, eq=False)
class Target:
    """Targets of n sub-bands."""

    patch: Tensor  # (n, L, d)
    band: Tensor  # (n, d): the mean over patches
    position_share: Tensor  # () of the variance of the layers' average, what position alone explains


class Running(nn.Module):
    """Mean and variance of each dimension over the steps so far, and the z-score by them."""

    mean: Tensor
    square: Tensor
    seen: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("square", torch.zeros(dim))
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, values: Tensor) -> Tensor:
        """(..., dim) -> the same, standardised; in training mode the statistics move first."""
        values = values.detach()
        flat = values.flatten(0, -2)
        if self.training:
            now = mean_over_ranks(torch.stack([flat.mean(0), flat.square().mean(0)]))
            self.seen += 1
            share = torch.clamp(1 / self.seen, min=_MOMENTUM)
            self.mean.lerp_(now[0], share)
            self.square.lerp_(now[1], share)
        variance = (self.square - self.mean.square()).clamp(min=0)
        return (values - self.mean) / (variance + _EPS).sqrt()


class Targets(nn.Module):
    """Layers to targets; holds running statistics where `norm` is "zscore"."""

    def __init__(self, spec: TargetSpec, dim: int) -> None:
        super().__init__()
        self.spec = spec
        if spec.norm == "zscore":
            self.patch, self.band = Running(dim), Running(dim)

    def forward(self, layers: Sequence[Tensor]) -> Target:
        """Feed-forward outputs (n, 1 + L, d) of each layer, class token first -> targets in float32."""
        used = layers[-self.spec.layers :] if self.spec.layers else layers
        average = torch.stack([self._of_layer(layer[:, 1:].detach().float()) for layer in used]).mean(0)
        at_position = average.mean(0, keepdim=True)
        spread = (average - average.mean((0, 1))).square().mean()
        share = (at_position - average.mean((0, 1))).square().mean() / (spread + _EPS)
        if self.spec.centre == "position":
            average = average - at_position
        band = average.mean(1)
        if self.spec.norm == "zscore":
            return Target(self.patch(average), self.band(band), share)
        if self.spec.norm == "layer":
            average = F.layer_norm(average, average.shape[-1:])
            band = average.mean(1)
        return Target(average, band, share)

    def _of_layer(self, layer: Tensor) -> Tensor:
        """(n, L, d), normalised."""
        match self.spec.layer_norm:
            case "instance":  # over the tokens of each sub-band, no affine
                return F.instance_norm(layer.transpose(1, 2)).transpose(1, 2)
            case "layer":
                return F.layer_norm(layer, layer.shape[-1:])
            case "batch":
                return F.batch_norm(layer.flatten(0, 1), None, None, training=True).view_as(layer)
            case "none":
                return layer
