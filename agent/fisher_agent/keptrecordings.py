"""The recordings that a bank was made from: by mode or by fault, under one label each, as one file. Pure."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from fisher_agent.errors import BadFile
from fisher_agent.modeconfig import DEFAULT_MODE
from fisher_agent.waveforms import Recording

NORMAL = ""  # the label of recordings of normal running in the default mode
OF_MODE = "@"  # begins the labels of other modes; no fault class has it


def label_of(mode: str) -> str:
    """What recordings of a mode are kept under; a fault's class cannot be one."""
    return NORMAL if mode == DEFAULT_MODE else f"{OF_MODE}{mode}"


def is_mode(label: str) -> bool:
    """Whether normal running was kept under it, and not a fault."""
    return label == NORMAL or label.startswith(OF_MODE)


def mode_of(label: str) -> str:
    """The reverse of `label_of`."""
    return DEFAULT_MODE if label == NORMAL else label.removeprefix(OF_MODE)


def joined(older: Recording | None, newer: Recording) -> Recording:
    """A class that is enrolled again keeps what was recorded of it before."""
    if older is None:
        return newer
    both = Recording()
    for recording in (older, newer):
        for frame in recording.frames():
            both.add(frame)
    return both


def pack(recordings: Mapping[str, Recording]) -> bytes:
    """All of them as one safetensors file."""
    arrays = {
        f"{label}/{name}": np.ascontiguousarray(array)
        for label, recording in recordings.items()
        for name, array in recording.to_arrays().items()
    }
    packed: bytes = safetensors.numpy.save(arrays)
    return packed


def unpack(data: bytes) -> dict[str, Recording]:
    """The reverse of `pack`; BadFile where it is damaged."""
    try:
        arrays = safetensors.numpy.load(data)
    except (safetensors.SafetensorError, KeyError, ValueError) as error:
        raise BadFile(f"the kept waveforms cannot be read: {error}") from error
    grouped: dict[str, dict[str, Any]] = {}
    for key, array in arrays.items():
        label, _, name = key.partition("/")
        grouped.setdefault(label, {})[name] = array
    return {label: Recording.from_arrays(group) for label, group in grouped.items()}
