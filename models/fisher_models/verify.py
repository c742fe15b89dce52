"""Reproduces a folder of reference vectors: front-ends, and every stored output end to end on each backend."""

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fisher_models import graph_echo
from fisher_models.bundle import Bundle
from fisher_models.echo import EchoConfig
from fisher_models.errors import BundleError, RecordingError
from fisher_models.execute import RUNNERS, Runner, openvino_graph, torch_function
from fisher_models.families import config_from, model_from
from fisher_models.frontend import Floats
from fisher_models.golden import Expectation, Golden, models

LIMITS = {"torch": 1e-4, "openvino": 1e-3}
SPECTRUM_LIMIT, SPECTRUM_SHARE, SPECTRUM_WORST = 1e-5, 0.999, 2e-3  # bins near zero are ill-conditioned
FRONT_END = "front-end"


@dataclass(frozen=True, slots=True)
class Check:
    """One comparison with a reference."""

    model: str
    subject: str  # FRONT_END or a backend
    case: str
    error: float  # largest absolute error; of the front-end, of 99.9 % of the values
    limit: float
    passed: bool


def verify(folder: Path, backends: Sequence[str], *, model: str | None = None) -> Iterator[Check]:
    """Every check of one model or of all that the folder holds; of each the front-end first.

    Raises RecordingError where the folder holds none, or one of them in part.
    """
    names = models(folder)
    if not names or model not in (None, *names):
        raise RecordingError(
            f"{folder} holds no reference vectors of {model or 'any model'}: {', '.join(names) or 'none'}"
        )
    for name in names if model is None else [model]:
        golden = Golden(folder, name)
        with tempfile.TemporaryDirectory() as work:
            bundle = golden.bundle(Path(work))
            yield front_end(golden)
            for backend in backends:
                yield from _outputs(golden, bundle, backend)


def front_end(golden: Golden) -> Check:
    """The normalised spectrogram against the one case that is stored."""
    case = golden.index["intermediate_case"]
    found = golden.frontend.log_spectrogram(golden.wave(case), golden.rate_hz(case))
    stored = golden.stages["spec"]  # (T, F); of ECHO (F, T)
    errors = np.abs(found - (stored if stored.shape == found.shape else stored.T))
    bulk = float(np.quantile(errors, SPECTRUM_SHARE))
    passed = bulk <= SPECTRUM_LIMIT and float(errors.max()) <= SPECTRUM_WORST
    return Check(golden.model, FRONT_END, case, bulk, SPECTRUM_LIMIT, passed)


def _outputs(golden: Golden, bundle: Bundle, backend: str) -> Iterator[Check]:
    run, limit, features = RUNNERS[backend](bundle), LIMITS[backend], None
    for expected in golden.expectations():
        if expected.frames:
            features = features or features_runner(bundle, backend)
        found = frames(features, expected) if expected.frames and features else embedding(run, expected)
        error = float(np.abs(found - expected.output).max())
        yield Check(golden.model, backend, expected.name, error, limit, error <= limit)


def embedding(run: Runner, expected: Expectation) -> Floats:
    """(n, d): the mean over segments."""
    s, n, t, f = expected.bands.shape
    out: Floats = run(expected.bands.reshape(s * n, t, f), np.tile(expected.centres, s)).reshape(s, n, -1).mean(axis=0)
    return out


def frames(run: Runner, expected: Expectation) -> Floats:
    """(segments x patches, n x d): segments one after the other, bands side by side."""
    s, n, t, f = expected.bands.shape
    found = run(expected.bands.reshape(s * n, t, f), np.tile(expected.centres, s))  # (s x n, p, d)
    _, p, d = found.shape
    return found.reshape(s, n, p, d).transpose(0, 2, 1, 3).reshape(s * p, n * d)


def features_runner(bundle: Bundle, backend: str) -> Runner:
    """bands (n, t, f), centres (n,) -> features (n, patches, d) of an ECHO; a graph is written into the bundle."""
    config = config_from(bundle.model)
    if not isinstance(config, EchoConfig):
        raise BundleError(f"{bundle.name} is of family {bundle.family!r}; only ECHO has features of patches")
    if backend == "torch":
        model = model_from(bundle)
        return torch_function(lambda bands, centres: model.tokens(bands, centres)[:, 1:])
    path = bundle.path / "frames.onnx"
    path.write_bytes(graph_echo.build(config, bundle.weights_path, frames=True).SerializeToString())
    return openvino_graph(path, "frames")
