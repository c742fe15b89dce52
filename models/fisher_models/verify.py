"""Reproduces a folder of reference vectors: the front-end, and every case end to end on each backend."""

import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from fisher_models.bundle import Bundle
from fisher_models.errors import RecordingError
from fisher_models.execute import RUNNERS
from fisher_models.export import export_fisher
from fisher_models.fisher import FisherConfig
from fisher_models.frontend import Floats, Frontend

MODEL = "fisher_tiny"
LIMITS = {"torch": 1e-4, "openvino": 1e-3}
SPECTRUM_LIMIT, SPECTRUM_SHARE, SPECTRUM_WORST = 1e-5, 0.999, 2e-3  # bins near zero are ill-conditioned


@dataclass(frozen=True, slots=True)
class Check:
    """One comparison with a reference."""

    subject: str  # "front-end" or a backend
    case: str
    error: float  # largest absolute error; of the front-end, of 99.9 % of the values
    limit: float
    passed: bool


class Golden:
    """The reference vectors of FISHER-tiny in a folder."""

    def __init__(self, folder: Path) -> None:
        try:
            self.cases: dict[str, Any] = json.loads((folder / "cases.json").read_bytes())
            self.index: dict[str, Any] = json.loads((folder / "index.json").read_bytes())
            sizes = json.loads((folder / f"{MODEL}.config.json").read_bytes())
            self.waves = load_file(folder / "waves.safetensors")
            self.state: dict[str, NDArray[Any]] = load_file(folder / f"{MODEL}.weights.safetensors")
            self.outputs: dict[str, Floats] = load_file(folder / f"{MODEL}.outputs.safetensors")
            self.stages: dict[str, Floats] = load_file(folder / f"{MODEL}.intermediate.safetensors")
        except (OSError, ValueError, SafetensorError) as error:
            raise RecordingError(f"{folder} holds no reference vectors of {MODEL}: {error}") from error
        self.config = FisherConfig(
            embed_dim=sizes["embed_dim"],
            heads=sizes["num_heads"],
            band_bins=sizes["band_width"],
            depth=sizes["depth"],
            mlp_ratio=sizes["mlp_ratio"],
            patch=sizes["patch_size"],
            eps=sizes["norm_eps"],
            positions=sizes["max_length"] * sizes["max_freq"],
        )

    def wave(self, case: str) -> Floats:
        """(samples,) in [-1, 1]."""
        wave: Floats = self.waves[f"wave.{case}"].astype(np.float32) / np.float32(32768)
        return wave

    def bundle(self, folder: Path) -> Bundle:
        """The reference weights as a bundle, written into `folder`."""
        return export_fisher(
            self.config, self.state, out=folder / "golden", weights="untrained", origin="reference vectors"
        )

    def bands(self, case: str, frontend: Frontend, *, pad_frames: int | None = None) -> Floats:
        """A case as the model sees it."""
        return frontend.bands(self.wave(case), self.cases[case]["sample_rate"], pad_frames=pad_frames)[0]

    def expectations(self, frontend: Frontend) -> Iterator[tuple[str, Floats, Floats]]:
        """Of each stored output its name, the bands that lead to it, and the embeddings (n_bands, d)."""
        for name in sorted(self.outputs):
            if name == "emb_batch":
                bands = np.concatenate([self.bands(case, frontend) for case in self.index["batch_case"]])
            else:
                kind, _, case = name.partition(".")
                bands = self.bands(case, frontend, pad_frames=1024 if kind == "emb_pad1024" else None)
            yield name, bands, self.outputs[name].reshape(len(bands), -1)


def verify(folder: Path, backends: Sequence[str]) -> Iterator[Check]:
    """Every check, the front-end first. Raises RecordingError where the folder does not hold the vectors."""
    golden = Golden(folder)
    with tempfile.TemporaryDirectory() as work:
        bundle = golden.bundle(Path(work))
        frontend = Frontend(bundle.frontend)
        yield front_end(golden, frontend)
        for backend in backends:
            run, limit = RUNNERS[backend](bundle), LIMITS[backend]
            for name, bands, expected in golden.expectations(frontend):
                error = float(np.abs(run(bands) - expected).max())
                yield Check(backend, name, error, limit, error <= limit)


def front_end(golden: Golden, frontend: Frontend) -> Check:
    """The normalised spectrogram against the one case that is stored."""
    case = golden.index["intermediate_case"]
    found = frontend.log_spectrogram(golden.wave(case), golden.cases[case]["sample_rate"])
    errors = np.abs(found - golden.stages["spec"])
    bulk = float(np.quantile(errors, SPECTRUM_SHARE))
    return Check(
        "front-end", case, bulk, SPECTRUM_LIMIT, bulk <= SPECTRUM_LIMIT and float(errors.max()) <= SPECTRUM_WORST
    )
