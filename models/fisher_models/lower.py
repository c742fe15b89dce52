"""The graphs of a bundle that compute in a lower precision, beside the float32 one they are made from."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from fisher_models import bundle as bundles
from fisher_models import proof
from fisher_models.errors import SignalError
from fisher_models.frontend import Floats, Frontend, FrontendSpec
from fisher_models.halve import halve
from fisher_models.quantize import activation_ranges, quantize
from fisher_models.recordings import Recording

CALIBRATION_S = 1.0  # of each recording, its beginning
_MAX_BANDS = 192  # of recordings, evenly thinned: a range needs variety, not length


def write(
    folder: Path, model: ModelProto, state: Mapping[str, NDArray[Any]], spec: FrontendSpec, real: Iterable[Recording]
) -> None:
    """Write `bundle.LOWER` beside the float32 graph in `folder`; `real` and generated signals calibrate int8."""
    (folder / bundles.LOWER["f16"]).write_bytes(halve(model).SerializeToString(deterministic=True))
    ranges = activation_ranges(folder / bundles.GRAPH, *calibration(spec, real))
    int8 = quantize(model, state, ranges)
    (folder / bundles.LOWER["int8"]).write_bytes(int8.SerializeToString(deterministic=True))


def calibration(spec: FrontendSpec, real: Iterable[Recording]) -> tuple[Floats, Floats]:
    """(n, t, f), (n,): generated machines and the beginnings of recordings that are long and fast enough."""
    generated, centres = proof.bands(spec, seed=0)
    frontend = Frontend(spec)
    found = [(generated, centres)]
    heard: list[tuple[Floats, Floats]] = []
    for recording in real:
        samples = recording.samples()[: round(CALIBRATION_S * recording.rate_hz)]
        try:
            heard.append(frontend.bands(samples, recording.rate_hz))
        except SignalError as error:
            raise SignalError(f"{recording.file}, channel {recording.channel}: {error}") from error
    for bands, where in heard:
        if bands.shape[1] < generated.shape[1]:
            continue  # shorter than a second
        kept = np.linspace(0, len(bands) - 1, max(1, min(len(bands), _MAX_BANDS // len(heard)))).round().astype(int)
        found.append((bands[kept, : generated.shape[1]], where[kept]))
    return np.concatenate([b for b, _ in found]), np.concatenate([c for _, c in found])
