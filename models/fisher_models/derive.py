"""The sizes of a published model, from the shapes of its weights and from what it says of itself.

What it says must agree with the weights. Features that are not implemented here are refused by their names.
"""

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from fisher_models import echo, fisher
from fisher_models.echo import EchoConfig
from fisher_models.errors import CheckpointError
from fisher_models.families import PRESETS, Config, frontend_spec
from fisher_models.fisher import FisherConfig
from fisher_models.settings import Settings

_FISHER_PATCH, _ECHO_PATCH = "modality_encoders.IMAGE.local_encoder.proj.weight", "patch_embed.proj.weight"
# The tensors that show the dimension: the axis that does, and how many axes there are.
FISHER_DIM = {
    _FISHER_PATCH: (0, 4),
    fisher.POSITIONS: (2, 3),
    "modality_encoders.IMAGE.extra_tokens": (2, 3),
    "blocks.0.attn.qkv.weight": (1, 2),
}
ECHO_DIM = {
    _ECHO_PATCH: (0, 4),
    echo.POSITIONS: (2, 3),
    "cls_token": (2, 3),
    "encoder.layers.0.self_attn.in_proj_weight": (1, 2),
}
_HEAD_DIM = 64  # in every published size
_MAX_SIZE = 2**24


def fisher_config(state: Mapping[str, Any], said: Settings, preset: Config | None, notes: list[str]) -> FisherConfig:
    """The sizes of a FISHER; adds to `notes` what had to be assumed. Raises CheckpointError."""
    image = said.inner("modalities", "image")
    said.only(layer_norm_first=False, norm_affine=True)
    image.only(prenet_depth=0, num_extra_tokens=1, use_alibi_encoder=False, fixed_positions=True, flatten="freq")
    image.only(in_chans=1, patch_size=16)
    dim = _dim(state, FISHER_DIM, said)
    image.agrees("embed_dim", dim)
    length, freq = image.whole("max_length"), image.whole("max_freq")
    claimed = length * freq if length is not None and freq is not None else None
    rows = _size(state, fisher.POSITIONS, 1, 3) or claimed or fisher.PRESETS["fisher-tiny"].positions
    if claimed not in (None, rows):
        raise CheckpointError(f"{image.name} has max_length {length} and max_freq {freq}, its table {rows} rows")
    depth = _depth(state, "blocks.", said, "depth")
    found = FisherConfig(
        embed_dim=dim,
        heads=_heads(said, dim),
        band_bins=_band_bins(said, image, preset, dim, notes),
        depth=depth,
        mlp_ratio=_mlp_ratio(state, "blocks.{}.mlp.fc1.weight", depth, said, dim),
        eps=said.number("norm_eps") or 1e-6,
        positions=rows,
    )
    frames = frontend_spec(found).max_frames
    if rows < (reached := frames // found.patch * (found.band_bins // found.patch)):
        raise CheckpointError(f"{fisher.POSITIONS} has {rows} rows; {frames} frames need {reached}")
    return found


def _band_bins(said: Settings, image: Settings, preset: Config | None, dim: int, notes: list[str]) -> int:
    """The one size of a FISHER that no weight shows."""
    stated = said.whole("band_width")
    image.agrees("band_width", stated)
    if stated is not None or (stated := image.whole("band_width")) is not None:
        return stated
    if preset is not None:
        return preset.band_bins
    for name, size in fisher.PRESETS.items():
        if size.embed_dim == dim:
            notes.append(f"it does not say its band width: took {size.band_bins} bins, as {name} has")
            return size.band_bins
    raise CheckpointError(
        f"does not say its band width, and no published FISHER has an embed_dim of {dim}; give the folder with its "
        "config.json, or --preset"
    )


def echo_config(state: Mapping[str, Any], said: Settings) -> EchoConfig:
    """The sizes of an ECHO: its weights show all but the heads. Raises CheckpointError."""
    said.only(in_chans=1, norm_first=False)
    dim = _dim(state, ECHO_DIM, said)
    said.agrees("freq_pos_emb_dim", dim)
    band = _size(state, _ECHO_PATCH, 2, 4) or said.whole("band_width") or 32
    patch = _size(state, _ECHO_PATCH, 3, 4) or said.whole("shift_size") or 16
    said.agrees("band_width", band)
    said.agrees("shift_size", patch)
    frames = said.whole("spec_len")
    rows = _size(state, echo.POSITIONS, 1, 3) or (frames or 2000) // patch + 1
    if rows < 2 or (frames is not None and frames // patch + 1 != rows):
        raise CheckpointError(f"{echo.POSITIONS} has {rows} rows, one per {patch} frames; spec_len is {frames}")
    depth = _depth(state, "encoder.layers.", said, "encoder_depth")
    published = PRESETS.get(f"echo-{said.get('model_type')}")
    if published is not None and (published.embed_dim, published.depth) != (dim, depth):
        raise CheckpointError(f"says model_type {said.get('model_type')!r}, but has embed_dim {dim} and depth {depth}")
    return EchoConfig(
        embed_dim=dim,
        heads=_heads(said, dim),
        band_bins=band,
        depth=depth,
        mlp_ratio=_mlp_ratio(state, "encoder.layers.{}.linear1.weight", depth, said, dim),
        patch=patch,
        max_frames=(rows - 1) * patch,
        gamma=said.number("freq_scale") or 25.0,
        eps=said.number("encoder_norm_eps") or 1e-6,
        final_eps=said.number("final_norm_eps") or 1e-6,
    )


def _size(state: Mapping[str, Any], key: str, axis: int, axes: int) -> int | None:
    """The length of an axis; None where the tensor is missing or has other axes, which is named later."""
    value = state.get(key)
    if not isinstance(value, Tensor) or value.ndim != axes:
        return None
    if not 0 < value.shape[axis] <= _MAX_SIZE:
        raise CheckpointError(f"{key} has shape {tuple(value.shape)}")
    return int(value.shape[axis])


def _dim(state: Mapping[str, Any], showing: Mapping[str, tuple[int, int]], said: Settings) -> int:
    """What is said, if any tensor agrees; else what most of them show. One that is alone is named later."""
    shown = Counter(size for key, (axis, axes) in showing.items() if (size := _size(state, key, axis, axes)))
    if not shown:
        raise CheckpointError(f"its sizes cannot be told; no tensor of the right shape is among {', '.join(showing)}")
    stated = said.whole("embed_dim")
    if stated is not None and stated in shown:
        return stated
    (dim, _), *_ = shown.most_common(1)
    said.agrees("embed_dim", dim)
    return dim


def _depth(state: Mapping[str, Any], layers: str, said: Settings, name: str) -> int:
    """How many layers there are; where one within is missing, the last is named later."""
    depth = max(1, len({key.removeprefix(layers).split(".")[0] for key in state if key.startswith(layers)}))
    said.agrees(name, depth)
    return depth


def _heads(said: Settings, dim: int) -> int:
    stated = said.whole("num_heads")
    if stated is None and dim % _HEAD_DIM:
        raise CheckpointError(f"does not say its num_heads, and its embed_dim of {dim} is no multiple of {_HEAD_DIM}")
    return stated or dim // _HEAD_DIM


def _mlp_ratio(state: Mapping[str, Any], weight: str, depth: int, said: Settings, dim: int) -> float:
    """What is said, if it gives the hidden size of any layer; else what gives that of most."""
    shown = Counter(size for i in range(depth) if (size := _size(state, weight.format(i), 0, 2)))
    stated = said.number("mlp_ratio")
    if stated is not None and (not shown or int(dim * stated) in shown):
        return stated
    if not shown:
        return 4.0
    (hidden, _), *_ = shown.most_common(1)
    if stated is not None:
        raise CheckpointError(f"{said.name} has mlp_ratio {stated:g}, its weights {hidden / dim:g}")
    ratio = hidden / dim
    return ratio if int(dim * ratio) == hidden else math.nextafter(ratio, math.inf)
