"""A published checkpoint's dictionary to sizes and a state dict of ours. Pure: no files, no network.

The layouts: FISHER's `{"cfg": ..., "model": state}`, where `cfg["model"]` holds the sizes; ECHO's `{"encoder": state,
"model_type": ...}`; and a bare state dict, with or without a config.json. Keys are those of the published models
already; what stands in front of all of them (`model.`) is taken off.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fisher_models import derive, echo, fisher, settings
from fisher_models.echo import Echo
from fisher_models.errors import CheckpointError
from fisher_models.families import PRESETS, Config
from fisher_models.fisher import Fisher, FisherConfig

# Keys that tell a family. Two of them are asked for, so that one which lacks some is still told, and told by what.
_TELLING = {fisher.FAMILY: derive.FISHER_DIM, echo.FAMILY: derive.ECHO_DIM}
_TRAINING_ONLY = ("recon_proj", "cls_proj", "center", "shared_decoder")
_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)  # float8 needs scales that are kept elsewhere
_NAMED = 4  # of a list of keys in a message


@dataclass(frozen=True, slots=True, eq=False)
class Upstream:
    """A checkpoint as this package knows it."""

    config: Config
    state: Mapping[str, NDArray[np.float32]]
    notes: tuple[str, ...]  # what was left out, taken off or assumed


def convert(
    content: Mapping[str, Any], config: Mapping[str, Any] | None = None, *, preset: str | None = None
) -> Upstream:
    """From what a checkpoint's file holds and the config.json beside it, if there is one.

    Sizes come from the weights and from what the checkpoint says of itself; what neither says comes from `preset` (a
    key of `families.PRESETS`) or from the published model of that size, and is noted. Raises CheckpointError that
    names whatever is missing, unknown, of another shape or type, not finite, or asked for and not implemented.
    """
    tensors, said = settings.unwrap(content, config)
    family, prefix = _family(tensors)
    notes = [f"took {prefix!r} off the keys"] if prefix else []
    whole = _stripped(tensors, prefix)
    state = {key: value for key, value in whole.items() if not _training_only(key)}
    if left_out := whole.keys() - state.keys():
        notes.append(f"left out what only training uses: {_listed(sorted(left_out))}")
    wanted = PRESETS[preset] if preset else None
    fishers = family == fisher.FAMILY
    found = derive.fisher_config(state, said, wanted, notes) if fishers else derive.echo_config(state, said)
    if wanted is not None:
        _check_preset(found, wanted, preset)
    _check_keys(state, found)
    return Upstream(found, {key: _values(key, value) for key, value in state.items()}, tuple(notes))


def _family(tensors: Mapping[str, Any]) -> tuple[str, str]:
    """The family, and the prefix that most of its telling keys share."""
    votes: Counter[tuple[str, str]] = Counter()
    for key in tensors:
        if not _training_only(key):
            for family, telling in _TELLING.items():
                votes.update((family, key.removesuffix(t)) for t in telling if key == t or key.endswith(f".{t}"))
    best = votes.most_common(2)
    if not best or best[0][1] < 2:
        raise CheckpointError(f"is neither a FISHER nor an ECHO; its keys: {_listed(sorted(tensors)) or 'none'}")
    if len(best) == 2 and best[0][1] == best[1][1]:
        places = " and ".join(f"{family} under {prefix!r}" for (family, prefix), _ in best)
        raise CheckpointError(f"holds two models, {places}; keep one of them")
    return best[0][0]


def _training_only(key: str) -> bool:
    parts = key.split(".")
    return (
        any(part.startswith(("_ema", "alibi_")) or part in _TRAINING_ONLY for part in parts) or "decoder" in parts[1:-1]
    )


def _stripped(tensors: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    stripped: dict[str, Any] = {}
    for key, value in tensors.items():
        name = key.removeprefix(prefix)
        if name in stripped:
            raise CheckpointError(f"holds {name!r} twice, with {prefix!r} in front and without")
        stripped[name] = value
    return stripped


def _check_preset(found: Config, wanted: Config, preset: str | None) -> None:
    if type(found) is not type(wanted):
        raise CheckpointError(f"holds a model of family {found.to_dict()['family']!r}, no {preset}")
    a, b = asdict(found), asdict(wanted)
    if wrong := [f"{k} {a[k]} instead of {b[k]}" for k in ("embed_dim", "depth", "heads", "band_bins") if a[k] != b[k]]:
        raise CheckpointError(f"is no {preset}: it has {', '.join(wrong)}")


def _check_keys(state: Mapping[str, Any], config: Config) -> None:
    """Raise CheckpointError naming keys that are missing, unknown or of another shape, some of each."""
    with torch.device("meta"):
        model = Fisher(config) if isinstance(config, FisherConfig) else Echo(config)
    expected = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    missing, unknown = sorted(expected.keys() - state.keys()), sorted(state.keys() - expected.keys())
    shapes = {key: tuple(value.shape) for key, value in state.items() if isinstance(value, Tensor)}
    misshapen = [
        f"{key} is {shapes.get(key, 'no tensor')}, expected {expected[key]}"
        for key in sorted(expected.keys() & state.keys())
        if shapes.get(key) != expected[key]
    ]
    groups = {"missing": missing, "not known": unknown, "of another shape": misshapen}
    if wrong := [f"{len(keys)} {what}: {_listed(keys)}" for what, keys in groups.items() if keys]:
        sizes = f"embed_dim {config.embed_dim}, depth {config.depth}"
        raise CheckpointError(f"the weights do not fit a model of {sizes}: {'; '.join(wrong)}")


def _values(key: str, tensor: Tensor) -> NDArray[np.float32]:
    if tensor.dtype not in _DTYPES or tensor.layout != torch.strided or tensor.is_meta:
        what = "no values" if tensor.is_meta else f"values of {tensor.dtype}, {tensor.layout}"
        raise CheckpointError(f"{key} holds {what}; expected float16, bfloat16, float32 or float64, in full")
    values: NDArray[np.float32] = tensor.detach().cpu().to(torch.float32).contiguous().numpy()
    if not np.isfinite(values).all():
        raise CheckpointError(f"{key} holds values that are not finite; the file is damaged, or its training diverged")
    return values


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
