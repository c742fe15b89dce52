"""Writes weights in the layouts that the published checkpoints have."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

from fisher_models.echo import EchoConfig
from fisher_models.fisher import FisherConfig

State = Mapping[str, NDArray[Any]]


def tensors(state: State, *, dtype: torch.dtype = torch.float32, prefix: str = "") -> dict[str, torch.Tensor]:
    return {prefix + key: torch.from_numpy(np.array(value, np.float32)).to(dtype) for key, value in state.items()}


def fisher_sizes(config: FisherConfig) -> dict[str, Any]:
    """What the published class keeps as `cfg["model"]`, with some of what only its training reads."""
    return {
        "depth": config.depth, "band_width": config.band_bins, "num_heads": config.heads, "norm_eps": config.eps,
        "norm_affine": True, "embed_dim": config.embed_dim, "mlp_ratio": config.mlp_ratio, "layer_norm_first": False,
        "clone_batch": 8, "instance_norm_target_layer": True,
        "modalities": {"_name": None, "image": {
            "type": "IMAGE", "prenet_depth": 0, "num_extra_tokens": 1, "use_alibi_encoder": False, "in_chans": 1,
            "patch_size": config.patch, "embed_dim": "${model.embed_dim}", "fixed_positions": True,
            "target_length": 1024, "max_length": config.positions // 50, "max_freq": 50, "flatten": "freq",
            "band_width": config.band_bins, "decoder": {"decoder_dim": 384},
        }},
    }  # fmt: skip


def fisher_pt(path: Path, config: FisherConfig, state: State) -> Path:
    torch.save({"cfg": {"task": None, "model": fisher_sizes(config)}, "model": tensors(state)}, path)
    return path


def folder(path: Path, state: State, config: Mapping[str, Any] | None = None, *, prefix: str = "model.") -> Path:
    """As a hub's repository: model.safetensors and config.json."""
    path.mkdir()
    save_file(tensors(state, prefix=prefix), path / "model.safetensors", metadata={"format": "pt"})
    if config is not None:
        (path / "config.json").write_text(json.dumps(config))
    return path


def sharded(path: Path, state: State, config: Mapping[str, Any]) -> Path:
    """A folder whose weights are spread over two files."""
    path.mkdir()
    keys = sorted(state)
    parts = {"model-00001-of-00002.safetensors": keys[::2], "model-00002-of-00002.safetensors": keys[1::2]}
    for name, some in parts.items():
        save_file(tensors({key: state[key] for key in some}), path / name)
    index = {"metadata": {}, "weight_map": {key: name for name, some in parts.items() for key in some}}
    (path / "model.safetensors.index.json").write_text(json.dumps(index))
    (path / "config.json").write_text(json.dumps(config))
    return path


def echo_pth(path: Path, state: State, *, model_type: str = "small") -> Path:
    torch.save({"encoder": tensors(state), "model_type": model_type, "epoch": 100}, path)
    return path


def echo_sizes(config: EchoConfig) -> dict[str, Any]:
    """The arguments of the published class."""
    return {
        "spec_len": config.max_frames, "band_width": config.band_bins, "shift_size": config.patch, "in_chans": 1,
        "embed_dim": config.embed_dim, "encoder_depth": config.depth, "num_heads": config.heads,
        "mlp_ratio": config.mlp_ratio, "freq_pos_emb_dim": config.embed_dim, "mask_ratio": 0.75, "fix_pos_emb": True,
    }  # fmt: skip
