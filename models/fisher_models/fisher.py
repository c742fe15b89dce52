"""FISHER (arXiv 2507.16696) in torch: one sub-band of a spectrogram to one embedding.

State-dict keys are those of the published checkpoints. Quirks that the checkpoints depend on are kept: the position
table is sliced flat (patch i gets row i, whatever the grid), and the CLS token is put in front after positions were
added and gets none.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fisher_models.bundle import Bundle
from fisher_models.errors import BundleError
from fisher_models.frontend import FrontendSpec
from fisher_models.vit import Block

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

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """From the `model` object of a manifest; BundleError names what is missing or unknown."""
        known = {f.name for f in fields(cls)}
        if wrong := sorted(known ^ (values.keys() - {"family"})):
            raise BundleError(f"model of family 'fisher': missing or unknown: {', '.join(wrong)}")
        return cls(**{key: values[key] for key in known})

    def to_dict(self) -> dict[str, Any]:
        """The `model` object of a manifest."""
        return {"family": "fisher", **asdict(self)}


PRESETS: Mapping[str, FisherConfig] = {
    "tiny": FisherConfig(embed_dim=192, heads=3, band_bins=100),
    "mini": FisherConfig(embed_dim=256, heads=4, band_bins=100),
    "small": FisherConfig(embed_dim=384, heads=6, band_bins=50),
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

    def forward(self, bands: Tensor) -> Tensor:
        """(n, t, f) -> (n, d)."""
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
    with torch.device("meta"):  # every tensor comes from `state`; initialising them first would be thrown away
        model = Fisher(FisherConfig(**{**asdict(config), "positions": rows}))
    tensors = {key: torch.from_numpy(np.array(value, np.float32)) for key, value in state.items()}
    try:
        model.load_state_dict(tensors, strict=True, assign=True)
    except RuntimeError as error:
        raise BundleError(f"these weights are no FISHER of this size: {error}") from error
    model.eval().requires_grad_(False)
    return model


def from_bundle(bundle: Bundle) -> Fisher:
    """The reference over a bundle's weights."""
    if bundle.family != "fisher":
        raise BundleError(f"bundle {bundle.name!r} holds a model of family {bundle.family!r}, not a FISHER")
    return from_state(FisherConfig.from_dict(bundle.model), bundle.state())


def position_table(config: FisherConfig) -> NDArray[np.float32]:
    """The published analytic table, (1, rows, d): first half of d encodes row mod 50, the second half row div 50."""
    quarter = config.embed_dim // 4
    omega = 1.0 / 10000 ** (np.arange(quarter) / quarter)
    rows = np.arange(config.positions)
    angles = [position[:, None] * omega for position in (rows % _MAX_FREQ, rows // _MAX_FREQ)]
    parts = [part for angle in angles for part in (np.sin(angle), np.cos(angle))]
    return np.concatenate(parts, axis=1, dtype=np.float32)[None]


# Random features are only useful where a change of the machine outshines the noise between two windows of it. A bin of
# a noise's log spectrum varies by 5.6 dB from frame to frame, so each kernel is one random profile over frequency held
# over its 16 frames, which averages that; profiles keep a quarter of their mean (the level) and are smaller than the
# positions, so that the norms stay nearly linear; values outweigh queries and keys, so that the class token pools.
# Measured on the generated machine with 2 s windows: its bearing fault lies 3.6 times as far as the farthest normal
# window, with Xavier kernels 0.8 times. The gains were chosen by that number: it says nothing of other machines.
_PROFILE_GAIN, _PROFILE_MEAN = 1 / 32, 0.25
_BRANCH_GAIN = {"attn.qkv.weight": 0.7, "attn.proj.weight": 0.7, "mlp.fc2.weight": 0.5}
_VALUE_GAIN = 2.0


def seeded_state(config: FisherConfig, *, seed: int) -> dict[str, NDArray[np.float32]]:
    """Untrained weights, the same on every machine, rounded to float16.

    Kernels and gains as above on Xavier-uniform matrices, norms of one, biases of zero, a normal CLS token.
    """
    rng = np.random.default_rng(seed)
    with torch.device("meta"):
        shapes = {key: tuple(value.shape) for key, value in Fisher(config).state_dict().items()}
    state: dict[str, NDArray[np.float32]] = {}
    for key in sorted(shapes):  # sorted: the draw must not depend on the order in which modules register
        shape = shapes[key]
        value: NDArray[np.floating[Any]]
        if key == POSITIONS:
            value = position_table(config)
        elif key.endswith("extra_tokens"):
            value = rng.standard_normal(shape)
        elif len(shape) == 1:
            value = np.zeros(shape) if key.endswith(".bias") else np.ones(shape)
        else:
            limit = math.sqrt(6 / (shape[0] + math.prod(shape[1:])))
            value = rng.uniform(-limit, limit, shape) * _BRANCH_GAIN.get(key.split(".", 2)[-1], 1.0)
            if len(shape) == 4:
                profile = rng.standard_normal((shape[0], shape[1], 1, shape[3]))
                profile -= (1 - _PROFILE_MEAN) * profile.mean(axis=3, keepdims=True)
                value = _PROFILE_GAIN * np.broadcast_to(profile, shape)
            elif key.endswith("attn.qkv.weight"):
                value[2 * shape[1] :] *= _VALUE_GAIN
        state[key] = value.astype(np.float16).astype(np.float32)
    return state


def seeded_fisher(preset: str, *, seed: int) -> Fisher:
    """A preset with `seeded_state`."""
    return from_state(PRESETS[preset], seeded_state(PRESETS[preset], seed=seed))
