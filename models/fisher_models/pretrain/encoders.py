"""FISHER and ECHO as pre-training runs them: on some of the patches, giving what every layer's feed-forward part gave.

Parameters are those of the inference modules, so state dicts are interchangeable; a test holds both paths together.
"""

import math
from collections.abc import Mapping
from typing import Protocol

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own convention)
from torch import Tensor, nn

from fisher_models import echo, fisher
from fisher_models.echo import Echo
from fisher_models.families import Config
from fisher_models.fisher import Fisher, FisherConfig
from fisher_models.vit import attend

_SHORT = 256  # tokens up to which attention written out beats the fused one on a CPU (half the student's step)


class Encoder(Protocol):
    """A model opened up between its patches and its layers."""

    def grid(self, frames: int) -> tuple[int, int]:
        """Patches along time and along frequency."""

    def patches(self, bands: Tensor, centres: Tensor) -> Tensor:
        """(n, t, f), (n,) -> (n, L, d): patches with their positions, time first."""

    def encode(self, patches: Tensor, centres: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(n, l, d), (n,) -> tokens (n, 1 + l, d), class token first; and each layer's feed-forward output."""


class FisherEncoder:
    """Over a Fisher."""

    def __init__(self, model: Fisher) -> None:
        self._model = model
        self._image = model.modality_encoders["IMAGE"]

    def grid(self, frames: int) -> tuple[int, int]:
        """Frequency is the faster axis of the flattened grid."""
        config = self._model.config
        return frames // config.patch, config.band_bins // config.patch

    def patches(self, bands: Tensor, _centres: Tensor) -> Tensor:
        """As `Encoder`; where a band lies is not looked at."""
        x = self._image.patches(bands)
        return x + self._image.fixed_positional_encoder.positions[:, : x.shape[1]]

    def encode(self, patches: Tensor, _centres: Tensor) -> tuple[Tensor, list[Tensor]]:
        """As `Encoder`."""
        x = torch.cat([self._image.extra_tokens.expand(len(patches), -1, -1).to(patches.dtype), patches], 1)
        x = self._image.context_encoder.norm(x)
        outputs = []
        for block in self._model.blocks:
            h = block.norm1(x + block.attn.proj(_attend(block.attn.qkv(x), block.attn.heads)))
            fed = block.mlp(h)
            x = block.norm2(h + fed)
            outputs.append(fed)
        return x, outputs


class EchoEncoder:
    """Over an Echo."""

    def __init__(self, model: Echo) -> None:
        self._model = model

    def grid(self, frames: int) -> tuple[int, int]:
        """A patch covers the whole height of a band."""
        return frames // self._model.config.patch, 1

    def patches(self, bands: Tensor, centres: Tensor) -> Tensor:
        """As `Encoder`; `centres` are fractions of Nyquist."""
        x = self._model.patch_embed(bands)
        where = self._model.frequency(centres).to(x.dtype)[:, None]
        return x + self._model.pos_embed[:, 1 : 1 + x.shape[1]] + where

    def encode(self, patches: Tensor, centres: Tensor) -> tuple[Tensor, list[Tensor]]:
        """As `Encoder`."""
        where = self._model.frequency(centres)[:, None]
        x = torch.cat([(self._model.cls_token + where).to(patches.dtype), patches], 1)
        outputs = []
        for layer in self._model.encoder["layers"]:
            attention = layer.self_attn
            qkv = F.linear(x, attention.in_proj_weight, attention.in_proj_bias)
            h = layer.norm1(x + attention.out_proj(_attend(qkv, attention.heads)))
            fed = layer.linear2(F.gelu(layer.linear1(h)))
            x = layer.norm2(h + fed)
            outputs.append(fed)
        return self._model.norm(x), outputs


def opened(model: nn.Module) -> Encoder:
    """The encoder over a model of either family."""
    return FisherEncoder(model) if isinstance(model, Fisher) else EchoEncoder(model)


def untrained(config: Config, *, patch_std: float, generator: torch.Generator) -> Fisher | Echo:
    """A model as training begins: weights from a truncated normal of 0.02, norms 1, biases 0, the published positions.

    `patch_std` is of the patch projection: at 0.02 the position table outweighs what is in the patches. The class token
    is N(0, 1) in FISHER and N(0, 0.02) in ECHO, as published.
    """
    model: Fisher | Echo
    if isinstance(config, FisherConfig):
        model, table, name, class_std = Fisher(config), fisher.position_table(config), "extra_tokens", 1.0
    else:
        model, table, name, class_std = Echo(config), echo.position_table(config), "cls_token", 0.02
    with torch.no_grad():
        for key, value in model.named_parameters():
            if key.endswith(name):
                value.normal_(0, class_std, generator=generator)
            elif value.ndim == 4:
                nn.init.trunc_normal_(value, std=patch_std, a=-2 * patch_std, b=2 * patch_std, generator=generator)
            elif value.ndim == 2:
                nn.init.trunc_normal_(value, std=0.02, generator=generator)
            else:
                value.fill_(1.0 if "norm" in key and key.endswith("weight") else 0.0)
        for key, buffer in model.named_buffers():
            if key.rpartition(".")[2] in ("positions", "pos_embed"):
                buffer.copy_(torch.from_numpy(table))
    return model


def weights(model: nn.Module) -> Mapping[str, Tensor]:
    """What training changes: parameters by their published keys. Position tables are not trained."""
    return dict(model.named_parameters())


def _attend(qkv: Tensor, heads: int) -> Tensor:
    """As `vit.attend`; written out for short sequences on a CPU."""
    n, tokens, width = qkv.shape
    if qkv.device.type != "cpu" or tokens > _SHORT:
        return attend(qkv, heads)
    dim = width // 3 // heads
    q, k, v = qkv.view(n, tokens, 3, heads, dim).permute(2, 0, 3, 1, 4).reshape(3, n * heads, tokens, dim)
    scores = torch.bmm(q, k.transpose(1, 2)) * (1 / math.sqrt(dim))
    mixed = torch.bmm(scores.softmax(-1), v)  # (n heads, tokens, dim)
    return mixed.view(n, heads, tokens, dim).transpose(1, 2).reshape(n, tokens, width // 3)
