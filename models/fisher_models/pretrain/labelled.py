"""Nearest neighbours on recordings: how often a window's neighbours in other recordings have its label.

A glance while training, every recording against all others; the sealed protocols are in `fisher_models.evaluate`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fisher_models.errors import TrainingError
from fisher_models.frontend import Floats, Frontend, FrontendSpec
from fisher_models.pretrain.config import KnnSpec
from fisher_models.pretrain.monitors import Embed
from fisher_models.recordings import Recording, from_manifest

_RMS = 0.1
_NEIGHBOURS = 5


@dataclass(frozen=True, slots=True, eq=False)
class Labelled:
    """Windows of one manifest and one rate."""

    name: str
    bands: Tensor  # (windows, b, t, f)
    centres: Tensor  # (b,)
    recording: Tensor  # (windows,) number of the recording
    label: Tensor  # (windows,)


def load(spec: KnnSpec, frontend: FrontendSpec) -> tuple[Labelled, ...]:
    """Windows of every manifest, a set for each rate that has two labels; TrainingError where a manifest has none."""
    return tuple(labelled for manifest in spec.manifests for labelled in _of_manifest(manifest, spec, frontend))


def judge(embed: Embed, sets: Sequence[Labelled], device: torch.device) -> dict[str, float]:
    """By name of the set, the macro accuracy of 5 neighbours (cosine) in other recordings."""
    return {f"knn_{labelled.name}": _accuracy(embed, labelled, device) for labelled in sets}


def _accuracy(embed: Embed, labelled: Labelled, device: torch.device) -> float:
    n, b = labelled.bands.shape[:2]
    parts = [
        embed(some.flatten(0, 1).to(device), labelled.centres.repeat(len(some)).to(device)).float().cpu()
        for some in labelled.bands.split(max(1, 256 // b))
    ]
    vectors = torch.nn.functional.normalize(torch.cat(parts).view(n, -1), dim=1)
    similar = vectors @ vectors.T
    similar[labelled.recording[:, None] == labelled.recording] = -torch.inf
    near = similar.topk(min(_NEIGHBOURS, n - 1), dim=1)
    classes = int(labelled.label.max()) + 1
    votes = torch.zeros(n, classes).scatter_add_(1, labelled.label[near.indices], near.values.clamp(min=-1) + 1)
    right = (votes.argmax(1) == labelled.label).double()
    return float(np.mean([right[labelled.label == k].mean() for k in labelled.label.unique()]))


def _of_manifest(manifest: Path, spec: KnnSpec, frontend: FrontendSpec) -> list[Labelled]:
    by_rate: dict[float, list[Recording]] = {}
    for recording in from_manifest(manifest):
        if recording.rate_hz >= frontend.min_rate_hz and recording.label:
            by_rate.setdefault(recording.rate_hz, []).append(recording)
    sets = []
    for rate_hz, recordings in sorted(by_rate.items()):
        if len({r.label for r in recordings}) > 1:
            sets.append(_windows(f"{manifest.parent.name}_{rate_hz:g}", recordings, spec, Frontend(frontend)))
    if not sets:
        raise TrainingError(f"monitor.knn.manifests: {manifest} holds no rate with two labels that the model can see")
    return sets


def _windows(name: str, recordings: Sequence[Recording], spec: KnnSpec, frontend: Frontend) -> Labelled:
    """As many windows of each recording, evenly spread over it, at an RMS of 0.1 of the recording."""
    each = max(1, spec.most // len(recordings))
    labels = sorted({r.label for r in recordings})
    files = sorted({r.file for r in recordings})  # channels recorded together are one recording
    bands, numbers, marks, centres = [], [], [], None
    for recording in recordings:
        samples = replace(recording, scale=None).samples()
        rms = float(np.sqrt(np.square(samples - samples.mean(), dtype=np.float64).mean())) or 1.0
        for window in _spread(samples, recording, each, round(spec.window_s * recording.rate_hz)):
            made, centres = frontend.bands((window * (_RMS / rms)).astype(np.float32), recording.rate_hz)
            bands.append(made)
            numbers.append(files.index(recording.file))
            marks.append(labels.index(recording.label))
    least = min(made.shape[1] for made in bands)  # recordings shorter than a window shorten all
    stacked = torch.from_numpy(np.stack([made[:, :least] for made in bands]))
    assert centres is not None
    return Labelled(name, stacked, torch.from_numpy(centres), torch.tensor(numbers), torch.tensor(marks))


def _spread(samples: Floats, recording: Recording, count: int, length: int) -> list[Floats]:
    """Windows of `length`, or whole snapshots where the recording holds those."""
    step = recording.segment_len
    if step:
        starts = np.arange(0, len(samples) - step + 1, step)
        length = min(step, length)
    else:
        length = min(length, len(samples))
        starts = np.arange(0, len(samples) - length + 1, max(1, length))
    chosen = starts[np.unique(np.linspace(0, len(starts) - 1, min(count, len(starts))).round().astype(int))]
    return [samples[start : start + length] for start in chosen]
