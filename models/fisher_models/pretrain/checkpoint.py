"""A run's state in one safetensors file: student, teacher, running statistics, optimizer, step and configuration.

It is written beside the old one and then takes its place, so that an interruption at any moment leaves a whole file.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from fisher_models.errors import TrainingError

NAME = "last.safetensors"
SCHEMA = "fisher.pretrain/1"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is."""

    step: int = 0
    sub_bands: int = 0  # that the teacher has seen, over all processes
    seconds: float = 0.0  # of training, over all sittings


@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """What a checkpoint holds."""

    student: nn.Module
    teacher: nn.Module
    targets: nn.Module
    optimizer: torch.optim.Optimizer

    def modules(self) -> Mapping[str, nn.Module]:
        """By the first part of their keys."""
        return {"student": self.student, "teacher": self.teacher, "targets": self.targets}


def save(folder: Path, parts: Parts, progress: Progress, identity: Mapping[str, Any]) -> None:
    """Write `last.safetensors` into the folder."""
    tensors = {
        f"{name}.{key}": value.detach().contiguous()
        for name, module in parts.modules().items()
        for key, value in module.state_dict().items()
    }
    names = {id(value): key for key, value in parts.student.named_parameters()}
    for parameter, state in parts.optimizer.state.items():
        for key, value in state.items():
            tensors[f"adam.{names[id(parameter)]}.{key}"] = value.detach().contiguous()
    said = {"step": progress.step, "sub_bands": progress.sub_bands, "seconds": progress.seconds, "identity": identity}
    beside = folder / f".{NAME}.part"
    save_file(tensors, beside, metadata={"schema": SCHEMA, "progress": json.dumps(said)})
    with beside.open("rb") as file:
        os.fsync(file.fileno())
    beside.replace(folder / NAME)


def load(folder: Path, parts: Parts, identity: Mapping[str, Any]) -> Progress | None:
    """Fill the parts from the folder's checkpoint; None where there is none.

    TrainingError where it is damaged, or of a run that was configured otherwise: the keys that differ are named.
    """
    path = folder / NAME
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            said = (file.metadata() or {}).get("progress")
            if said is None or (file.metadata() or {}).get("schema") != SCHEMA:
                raise TrainingError(f"{path} is no checkpoint of pre-training; remove it or choose another run.out")
            begun = json.loads(said)
            _same(path, begun["identity"], identity)
            _fill(parts, {key: file.get_tensor(key) for key in file.keys()})  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError, ValueError, RuntimeError, KeyError) as error:
        raise TrainingError(f"{path} is damaged or of another version: {error}; remove it to begin anew") from error
    return Progress(int(begun["step"]), int(begun["sub_bands"]), float(begun["seconds"]))


def _fill(parts: Parts, tensors: Mapping[str, Tensor]) -> None:
    for name, module in parts.modules().items():
        own = {key.removeprefix(f"{name}."): value for key, value in tensors.items() if key.startswith(f"{name}.")}
        module.load_state_dict(own, strict=True)
    for key, parameter in parts.student.named_parameters():
        before = f"adam.{key}."
        state = {k.removeprefix(before): v for k, v in tensors.items() if k.startswith(before)}
        if state:
            # The count of steps stays where AdamW keeps it: fused, beside the parameter.
            parts.optimizer.state[parameter] = {k: v.to(parameter.device) for k, v in state.items()}


def _same(path: Path, begun: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    if changed := sorted(key for key in begun.keys() | now.keys() if begun.get(key) != now.get(key)):
        shown = ", ".join(f"{key} ({begun.get(key)!r}, now {now.get(key)!r})" for key in changed)
        raise TrainingError(f"{path} is of a run with another {shown}; set them back, or choose another run.out")
