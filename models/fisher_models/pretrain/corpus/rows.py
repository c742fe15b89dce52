"""Dataclasses of tensors with one row per signal: picking rows and moving them to a device."""

from dataclasses import fields, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

P = TypeVar("P")


def pick(parameters: P, index: Tensor) -> P:
    """The rows of every tensor in a dataclass, nested ones included; a row may be picked more than once."""
    return _each(parameters, lambda tensor: tensor[index])


def moved(parameters: P, device: torch.device) -> P:
    """Every tensor on a device."""
    return _each(parameters, lambda tensor: tensor.to(device, non_blocking=True))


def active(level: Tensor) -> Tensor:
    """(n,) levels on the CPU -> the rows that are not silent; an element is paid for by these only."""
    return torch.nonzero(level > 0).flatten()


def _each(parameters: P, change: Any) -> P:
    values = {f.name: getattr(parameters, f.name) for f in fields(parameters)}  # type: ignore[arg-type]
    changed = {
        name: change(value) if isinstance(value, Tensor) else _each(value, change) for name, value in values.items()
    }
    return replace(parameters, **changed)  # type: ignore[type-var]
