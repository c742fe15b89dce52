"""ECHO (arXiv 2508.14689) in torch: one sub-band of a spectrogram and where it lies to one embedding.

State-dict keys are those of the published checkpoint. Its code, not its paper, is followed where they differ: patches
do not overlap, and the frequency of a band is scaled by a gamma of 25. Of the presets only small has published
weights; base and large are presets of the published class, and tiny is our reading of a size (5.5 M parameters) that
is listed beside them: no published weights of those three were seen.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 (torch's own convention)
from numpy.typing import NDArray
from torch import Tensor, nn

from fisher_models import seeded, sizes
from fisher_models.frontend import FrontendSpec
from fisher_models.vit import attend, with_weights

FAMILY = "echo"
POSITIONS = "pos_embed"


@dataclass(frozen=True, slots=True, kw_only=True)
class EchoConfig:
    """The sizes of an ECHO; everything else is the same in all of them."""

    embed_dim: int
    heads: int
    band_bins: int = 32
    depth: int = 12
    mlp_ratio: float = 4.0
    patch: int = 16  # frames; a patch covers the whole height of a band
    max_frames: int = 2000  # the position table has a row per patch, and one for the class token
    gamma: float = 25.0  # radians of the fastest frequency code from 0 to Nyquist
    eps: float = 1e-6  # of the norms in the layers
    final_eps: float = 1e-6  # of the last norm

    def __post_init__(self) -> None:
        sizes.check(self, dim=self.embed_dim, heads=self.heads, family=FAMILY)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """From the `model` object of a manifest; BundleError names what is missing or unknown."""
        return sizes.read(cls, values, family=FAMILY)

    def to_dict(self) -> dict[str, Any]:
        """The `model` object of a manifest."""
        return sizes.write(self, family=FAMILY)

    @property
    def positions(self) -> int:
        """Rows of the position table."""
        return self.max_frames // self.patch + 1


PRESETS: Mapping[str, EchoConfig] = {
    "echo-tiny": EchoConfig(embed_dim=192, heads=3),
    "echo-small": EchoConfig(embed_dim=384, heads=6),
    "echo-base": EchoConfig(embed_dim=768, heads=12),
    "echo-large": EchoConfig(embed_dim=1024, heads=16, depth=24),
}


def frontend_spec(config: EchoConfig) -> FrontendSpec:
    """The published front-end: every bin and every frame is seen, what fills no band or patch is padded."""
    return FrontendSpec(
        mean=-5.874158,
        divisor=2 * 5.223174,
        band_bins=config.band_bins,
        log_floor=1e-9,
        patch_frames=config.patch,
        patch_bins=config.band_bins,
        max_frames=config.max_frames,
        remainder="pad-front",
        trailing="pad",
        longer="mean",
    )


class _PatchEmbedding(nn.Module):
    def __init__(self, config: EchoConfig) -> None:
        super().__init__()
        size = (config.band_bins, config.patch)
        self.proj = nn.Conv2d(1, config.embed_dim, kernel_size=size, stride=size)

    def forward(self, bands: Tensor) -> Tensor:
        """(n, t, f) -> (n, t/16, d)."""
        out: Tensor = self.proj(bands.transpose(1, 2).unsqueeze(1)).flatten(2).transpose(1, 2)
        return out


class _SelfAttention(nn.Module):
    """torch's MultiheadAttention by its keys; written out, since its fused path changes results by 3e-6."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * dim, dim))
        self.in_proj_bias = nn.Parameter(torch.empty(3 * dim))
        self.out_proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(n, tokens, dim) -> the same."""
        out: Tensor = self.out_proj(attend(F.linear(x, self.in_proj_weight, self.in_proj_bias), self.heads))
        return out


class Layer(nn.Module):
    """x = LN1(x + Attn(x)); y = LN2(x + FFN(x)), with an exact (erf) GELU."""

    def __init__(self, config: EchoConfig) -> None:
        super().__init__()
        dim, hidden = config.embed_dim, int(config.embed_dim * config.mlp_ratio)
        self.self_attn = _SelfAttention(dim, config.heads)
        self.linear1 = nn.Linear(dim, hidden)
        self.linear2 = nn.Linear(hidden, dim)
        self.norm1 = nn.LayerNorm(dim, eps=config.eps)
        self.norm2 = nn.LayerNorm(dim, eps=config.eps)

    def forward(self, x: Tensor) -> Tensor:
        """(n, tokens, dim) -> the same."""
        h = self.norm1(x + self.self_attn(x))
        y: Tensor = self.norm2(h + self.linear2(F.gelu(self.linear1(h))))
        return y


class Echo(nn.Module):
    """bands (n, t, f) and centres (n,) -> embeddings (n, d): the normalised class token."""

    pos_embed: Tensor

    def __init__(self, config: EchoConfig) -> None:
        super().__init__()
        self.config = config
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.embed_dim))
        self.register_buffer(POSITIONS, torch.zeros(1, config.positions, config.embed_dim))
        self.patch_embed = _PatchEmbedding(config)
        self.encoder = nn.ModuleDict({"layers": nn.ModuleList(Layer(config) for _ in range(config.depth))})
        self.norm = nn.LayerNorm(config.embed_dim, eps=config.final_eps)

    def frequency(self, centres: Tensor) -> Tensor:
        """(n,) fractions of Nyquist -> (n, d): sines and cosines by turns, in the precision of `centres`."""
        dim = self.config.embed_dim
        steps = torch.arange(0, dim, 2, dtype=centres.dtype, device=centres.device)
        angle = self.config.gamma * centres[:, None] * torch.exp(steps * (-math.log(10000.0) / dim))  # (n, d/2)
        return torch.stack([angle.sin(), angle.cos()], dim=2).flatten(1)

    def encoder_input(self, bands: Tensor, centres: Tensor) -> Tensor:
        """(n, t, f), (n,) -> (n, 1 + t/16, d); the class token gets the frequency of its band and no time."""
        x = self.patch_embed(bands)
        where = self.frequency(centres).to(x.dtype)[:, None]  # (n, 1, d)
        x = x + self.pos_embed[:, 1 : 1 + x.shape[1]] + where
        return torch.cat([self.cls_token + where, x], dim=1)

    def tokens(self, bands: Tensor, centres: Tensor) -> Tensor:
        """(n, t, f), (n,) -> (n, 1 + t/16, d): the embedding, then the features of each patch in time."""
        x = self.encoder_input(bands, centres)
        for layer in self.encoder["layers"]:
            x = layer(x)
        out: Tensor = self.norm(x)
        return out

    def forward(self, bands: Tensor, centres: Tensor) -> Tensor:
        """(n, t, f), (n,) -> (n, d). Keep `centres` in float32 where the model is in less."""
        return self.tokens(bands, centres)[:, 0]


def from_state(config: EchoConfig, state: Mapping[str, NDArray[Any]]) -> Echo:
    """A model in evaluation mode with these weights; BundleError names keys and shapes that do not fit."""
    return with_weights(lambda: Echo(config), state, name="ECHO")


def position_table(config: EchoConfig) -> NDArray[np.float32]:
    """The published analytic table, (1, rows, d): zeros, then for each patch sines and, after them, cosines."""
    half = config.embed_dim // 2
    omega = 10000.0 ** -(np.arange(half) / half)
    angle = np.arange(config.positions - 1)[:, None] * omega
    rows = np.concatenate([np.sin(angle), np.cos(angle)], axis=1)
    return np.concatenate([np.zeros((1, 2 * half)), rows], dtype=np.float32)[None]


_BRANCH_GAIN = {"self_attn.in_proj_weight": 0.7, "self_attn.out_proj.weight": 0.7, "linear2.weight": 0.5}


def seeded_state(config: EchoConfig, *, seed: int) -> dict[str, NDArray[np.float32]]:
    """Untrained weights, the same on every machine, rounded to float16; `seeded` says why they are drawn like this."""
    rng = np.random.default_rng(seed)
    with torch.device("meta"):
        shapes = {key: tuple(value.shape) for key, value in Echo(config).state_dict().items()}
    state: dict[str, seeded.Doubles] = {}
    for key in sorted(shapes):  # sorted: the draw must not depend on the order in which modules register
        shape = shapes[key]
        if key == POSITIONS:
            state[key] = position_table(config)
        elif key == "cls_token":
            state[key] = rng.standard_normal(shape)
        elif len(shape) == 4:
            state[key] = seeded.profiles(rng, shape, time_axis=3)
        elif len(shape) == 2:
            drawn = seeded.matrix(rng, shape, gain=_BRANCH_GAIN.get(key.split(".", 3)[-1], 1.0))
            state[key] = seeded.louder_values(drawn) if key.endswith("in_proj_weight") else drawn
        else:
            state[key] = seeded.norm_or_bias(key, shape)
    return seeded.rounded(state)
