"""Recordings mixed into the corpus: only with a licence that allows it, never what an evaluation tests on."""

import csv
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from fisher_models.errors import TrainingError
from fisher_models.frontend import Floats
from fisher_models.pretrain.config import RecordedSpec
from fisher_models.recordings import Recording, from_manifest

_RMS = 0.1  # every recording is brought to it, as an enrolment does


@dataclass(frozen=True, slots=True, eq=False)
class Recorded:
    """Stretches of samples by rate, all in memory."""

    stretches: Mapping[float, tuple[Floats, ...]]

    def windows(self, n: int, samples: int, rate_hz: float, generator: torch.Generator) -> Tensor:
        """(n, samples) at random places of random stretches, on the CPU; every sample is as likely."""
        long = [s for s in self.stretches[rate_hz] if len(s) >= samples]
        room = torch.tensor([float(len(s) - samples + 1) for s in long])
        which = torch.multinomial(room, n, replacement=True, generator=generator)
        place = torch.rand(n, generator=generator)
        starts = (place * room[which]).long()
        cut = [long[w][s : s + samples] for w, s in zip(which.tolist(), starts.tolist(), strict=True)]
        return torch.from_numpy(np.stack(cut))

    def longest(self, rate_hz: float) -> int:
        """Samples of the longest stretch at a rate."""
        return max(len(s) for s in self.stretches[rate_hz])


def load(spec: RecordedSpec, *, min_rate_hz: float, min_samples: Mapping[float, int] | None = None) -> Recorded:
    """Everything that may be used. TrainingError where a manifest holds nothing that may.

    Stretches shorter than `min_samples` of their rate are left out: they would fill no patch.
    """
    found: dict[float, list[Floats]] = {}
    for manifest in spec.manifests:
        rows = from_manifest(manifest)
        with manifest.open(encoding="utf-8-sig", newline="") as lines:
            said = list(csv.DictReader(lines))
        if missing := {"licence", "split_hint"} - said[0].keys():
            raise TrainingError(f"{manifest} lacks {', '.join(sorted(missing))}; what may be trained on must be stated")
        allowed = [
            recording
            for recording, row in zip(rows, said, strict=True)
            if (row["licence"] or "").startswith(spec.licences) and row["split_hint"] in spec.splits
        ]
        if not allowed:
            raise TrainingError(
                f"corpus.recorded.manifests: {manifest} holds nothing whose licence begins with one of "
                f"{', '.join(spec.licences)} and whose split_hint is one of {', '.join(spec.splits)}"
            )
        for recording in allowed:
            if recording.rate_hz >= min_rate_hz:
                found.setdefault(recording.rate_hz, []).extend(_stretches(recording))
    least = min_samples or {}
    kept = {rate: tuple(s for s in cut if len(s) >= least.get(rate, 1)) for rate, cut in found.items()}
    kept = {rate: cut for rate, cut in kept.items() if cut}
    if not kept:
        raise TrainingError("corpus.recorded.manifests: no recording is fast and long enough for the model")
    return Recorded(kept)


def _stretches(recording: Recording) -> list[Floats]:
    """The recording at an RMS of 0.1; snapshots laid end to end apart."""
    samples = replace(recording, scale=None).samples()
    samples = samples - samples.mean()
    rms = float(np.sqrt(np.square(samples, dtype=np.float64).mean()))
    if rms == 0:
        return []
    samples = (samples * (_RMS / rms)).astype(np.float32)
    step = recording.segment_len or len(samples)
    return [samples[start : start + step] for start in range(0, len(samples) - step + 1, step)]
