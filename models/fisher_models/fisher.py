"""FISHER (arXiv 2507.16696) in torch: one sub-band of a spectrogram to one embedding.

State-dict keys are those of the published checkpoints. Quirks that the checkpoints depend on are kept: the position
table is sliced flat (patch i gets row i, whatever the grid), and the CLS token is put in front after positions were
added and gets none.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fisher_models import seeded, sizes
from fisher_models.frontend import FrontendSpec
from fisher_models.vit import Block, with_weights

FAMILY = "fisher"
POSITIONS = "modality_encoders.IMAGE.fixed_positional_encoder.positions"
_MAX_LENGTH, _MAX_FREQ = 128, 50  # the grid that the published position table was made for


@dataclass(frozen=True, slots=True, kw_only=True)
class FisherConfig:
    """The sizes of a FISHER; everything else is the same in all of them."""

    embed_dim: int
    heads: int
    band_bins: int
    depth: int = 12
    mlp_ratio: float = 4.0
    patch: int = 16
    eps: float = 1e-6
    positions: int = _MAX_LENGTH * _MAX_FREQ  # rows of the position table

    def __post_init__(self) -> None:
        sizes.check(self, dim=self.embed_dim, heads=self.heads, family=FAMILY)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """From the `model` object of a manifest; BundleError names what is missing or unknown."""
        return sizes.read(cls, values, family=FAMILY)

    def to_dict(self) -> dict[str, Any]:
        """The `model` object of a manifest."""
        return sizes.write(self, family=FAMILY)


PRESETS: Mapping[str, FisherConfig] = {
    "fisher-tiny": FisherConfig(embed_dim=192, heads=3, band_bins=100),
    "fisher-mini": FisherConfig(embed_dim=256, heads=4, band_bins=100),
    "fisher-small": FisherConfig(embed_dim=384, heads=6, band_bins=50),
}


def frontend_spec(config: FisherConfig) -> FrontendSpec:
    """The published front-end of every FISHER; only the width of a band differs."""
    return FrontendSpec(mean=-3.017344307886898, divisor=2 * 2.1531635155379805, band_bins=config.band_bins)


class _PatchEmbedding(nn.Module):
    def __init__(self, config: FisherConfig) -> None:
        super().__init__()
        self.proj = nn.Conv2d(1, config.embed_dim, kernel_size=config.patch, stride=config.patch)


class _Positions(nn.Module):
    positions: Tensor

    def __init__(self, config: FisherConfig) -> None:
        super().__init__()
        self.register_buffer("positions", torch.zeros(1, config.positions, config.embed_dim))


class _ContextEncoder(nn.Module):
    def __init__(self, config: FisherConfig) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config.embed_dim, eps=config.eps)


class ImageEncoder(nn.Module):
    """Bands to tokens: patches, positions, CLS, one LayerNorm over all."""

    def __init__(self, config: FisherConfig) -> None:
        super().__init__()
        self.local_encoder = _PatchEmbedding(config)
        self.fixed_positional_encoder = _Positions(config)
        self.extra_tokens = nn.Parameter(torch.zeros(1, 1, config.embed_dim))
        self.context_encoder = _ContextEncoder(config)

    def patches(self, bands: Tensor) -> Tensor:
        """(n, t, f) -> (n, t/16 * f//16, d), frequency fastest."""
        grid = self.local_encoder.proj(bands.unsqueeze(1))  # (n, d, t/16, f//16)
        out: Tensor = grid.flatten(2).transpose(1, 2)
        return out

    def forward(self, bands: Tensor) -> Tensor:
        """(n, t, f) -> (n, 1 + patches, d)."""
        x = self.patches(bands)
        x = x + self.fixed_positional_encoder.positions[:, : x.shape[1]]
        x = torch.cat([self.extra_tokens.expand(len(x), -1, -1), x], dim=1)
        out: Tensor = self.context_encoder.norm(x)
        return out


class Fisher(nn.Module):
    """bands (n, t, f) -> embeddings (n, d): the CLS token after the last block, not normalised further."""

    def __init__(self, config: FisherConfig) -> None:
        super().__init__()
        self.config = config
        self.modality_encoders = nn.ModuleDict({"IMAGE": ImageEncoder(config)})
        self.blocks = nn.ModuleList(
            Block(config.embed_dim, config.heads, mlp_ratio=config.mlp_ratio, eps=config.eps)
            for _ in range(config.depth)
        )

    def forward(self, bands: Tensor, _centres: Tensor | None = None) -> Tensor:
        """(n, t, f) -> (n, d). Where a band lies is not looked at; every family's model takes it."""
        x = self.modality_encoders["IMAGE"](bands)  # (n, 1 + patches, d)
        for block in self.blocks:
            x = block(x)
        out: Tensor = x[:, 0]
        return out


def from_state(config: FisherConfig, state: Mapping[str, NDArray[Any]]) -> Fisher:
    """A model in evaluation mode with these weights; BundleError names keys and shapes that do not fit.

    The number of position rows is taken from the state: bundles keep only those that `max_frames` can reach.
    """
    rows = state[POSITIONS].shape[1] if POSITIONS in state and state[POSITIONS].ndim == 3 else config.positions
    return with_weights(lambda: Fisher(replace(config, positions=rows)), state, name="FISHER")


def reachable(config: FisherConfig, state: Mapping[str, NDArray[Any]]) -> tuple[FisherConfig, dict[str, NDArray[Any]]]:
    """Sizes and state without the position rows that no input of `max_frames` can reach; results stay exact."""
    kept = dict(state)
    if POSITIONS not in kept or kept[POSITIONS].ndim != 3:
        return config, kept  # loading it names what is wrong
    rows = (frontend_spec(config).max_frames // config.patch) * (config.band_bins // config.patch)
    kept[POSITIONS] = np.ascontiguousarray(kept[POSITIONS][:, :rows])
    return replace(config, positions=kept[POSITIONS].shape[1]), kept


def position_table(config: FisherConfig) -> NDArray[np.float32]:
    """The published analytic table, (1, rows, d): first half of d encodes row mod 50, the second half row div 50."""
    quarter = config.embed_dim // 4
    omega = 1.0 / 10000 ** (np.arange(quarter) / quarter)
    rows = np.arange(config.positions)
    angles = [position[:, None] * omega for position in (rows % _MAX_FREQ, rows // _MAX_FREQ)]
    parts = [part for angle in angles for part in (np.sin(angle), np.cos(angle))]
    return np.concatenate(parts, axis=1, dtype=np.float32)[None]


_BRANCH_GAIN = {"attn.qkv.weight": 0.7, "attn.proj.weight": 0.7, "mlp.fc2.weight": 0.5}


def seeded_state(config: FisherConfig, *, seed: int) -> dict[str, NDArray[np.float32]]:
    """Untrained weights, the same on every machine, rounded to float16; `seeded` says why they are drawn like this."""
    rng = np.random.default_rng(seed)
    with torch.device("meta"):
        shapes = {key: tuple(value.shape) for key, value in Fisher(config).state_dict().items()}
    state: dict[str, seeded.Doubles] = {}
    for key in sorted(shapes):  # sorted: the draw must not depend on the order in which modules register
        shape = shapes[key]
        if key == POSITIONS:
            state[key] = position_table(config)
        elif key.endswith("extra_tokens"):
            state[key] = rng.standard_normal(shape)
        elif len(shape) == 4:
            rng.uniform(size=shape)  # not used: without it seed 0 would not be the weights that figures are stated for
            state[key] = seeded.profiles(rng, shape, time_axis=2)
        elif len(shape) == 2:
            drawn = seeded.matrix(rng, shape, gain=_BRANCH_GAIN.get(key.split(".", 2)[-1], 1.0))
            state[key] = seeded.louder_values(drawn) if key.endswith("attn.qkv.weight") else drawn
        else:
            state[key] = seeded.norm_or_bias(key, shape)
    return seeded.rounded(state)
