"""A folder of reference vectors: recordings, weights, and what a published architecture makes of them.

`<model>.config.json`, `<model>.weights.safetensors`, `<model>.outputs.safetensors` and
`<model>.intermediate.safetensors` of each model, beside `cases.json`, `index.json` and `waves.safetensors`.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from fisher_models import families
from fisher_models.bundle import Bundle
from fisher_models.echo import EchoConfig
from fisher_models.errors import RecordingError
from fisher_models.export import export
from fisher_models.families import Config
from fisher_models.fisher import FisherConfig
from fisher_models.frontend import Floats, Frontend

_BLOCK = re.compile(r"(blocks|encoder\.layers)\.(\d+)\.(.*)")


@dataclass(frozen=True, slots=True, eq=False)
class Expectation:
    """One stored output and the bands that lead to it."""

    name: str
    frames: bool  # the features of every patch instead of the embedding
    bands: Floats  # (segments, n, t, f); the embedding is the mean over segments
    centres: Floats  # (n,)
    output: Floats  # (n, d), or of frames (segments x patches, n x d)


def models(folder: Path) -> list[str]:
    """The models that the folder holds vectors of, such as "fisher-tiny"."""
    return sorted(path.name.removesuffix(".config.json").replace("_", "-") for path in folder.glob("*.config.json"))


class Golden:
    """The reference vectors of one model. Raises RecordingError where the folder does not hold them whole."""

    def __init__(self, folder: Path, model: str = "fisher-tiny") -> None:
        self.model, stem = model, model.replace("-", "_")
        try:
            self.cases: dict[str, Any] = json.loads((folder / "cases.json").read_bytes())
            self.index: dict[str, Any] = json.loads((folder / "index.json").read_bytes())
            self.stated: dict[str, Any] = json.loads((folder / f"{stem}.config.json").read_bytes())
            self.waves = load_file(folder / "waves.safetensors")
            stored = load_file(folder / f"{stem}.weights.safetensors")
            self.outputs: dict[str, Floats] = load_file(folder / f"{stem}.outputs.safetensors")
            self.stages: dict[str, Floats] = load_file(folder / f"{stem}.intermediate.safetensors")
            self.config = _config(self.stated)
            self.state = _every_block(stored, self.config.depth, self.stated["stored_blocks"])
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise RecordingError(f"{folder} holds no reference vectors of {model}: {error!r}") from error

    @property
    def frontend(self) -> Frontend:
        """The front-end that we give this model."""
        return Frontend(families.frontend_spec(self.config))

    def wave(self, case: str) -> Floats:
        """(samples,) in [-1, 1]."""
        wave: Floats = self.waves[f"wave.{case}"].astype(np.float32) / np.float32(32768)
        return wave

    def rate_hz(self, case: str) -> float:
        """The sampling rate of a case."""
        return float(self.cases[case]["sample_rate"])

    def bundle(self, folder: Path) -> Bundle:
        """The reference weights as a bundle, written into `folder`."""
        out = folder / self.model
        return export(self.config, self.state, out=out, weights="untrained", origin="reference vectors")

    def expectations(self) -> Iterator[Expectation]:
        """Every stored output."""
        for name in sorted(self.outputs):
            kind, _, case = name.partition(".")
            if name == "emb_batch":  # several recordings side by side; each is one segment
                made = [self._segments(case) for case in self.index["batch_case"]]
                bands, centres = np.concatenate([b for b, _ in made], axis=1), np.concatenate([c for _, c in made])
            else:
                bands, centres = self._segments(case, pad_frames=1024 if kind == "emb_pad1024" else None)
            frames, output = kind == "frames", self.outputs[name]
            yield Expectation(name, frames, bands, centres, output if frames else output.reshape(len(centres), -1))

    def _segments(self, case: str, *, pad_frames: int | None = None) -> tuple[Floats, Floats]:
        return self.frontend.segments(self.wave(case), self.rate_hz(case), pad_frames=pad_frames)


def _config(stated: Mapping[str, Any]) -> Config:
    common = {
        "embed_dim": stated["embed_dim"],
        "heads": stated["num_heads"],
        "band_bins": stated["band_width"],
        "depth": stated["depth"],
        "mlp_ratio": stated["mlp_ratio"],
    }
    if stated["model"] == "echo":
        return EchoConfig(
            **common,
            patch=stated["shift_size"],
            max_frames=stated["spec_len"],
            gamma=stated["freq_scale"],
            eps=stated["encoder_norm_eps"],
            final_eps=stated["final_norm_eps"],
        )
    positions = stated["max_length"] * stated["max_freq"]
    return FisherConfig(**common, patch=stated["patch_size"], eps=stated["norm_eps"], positions=positions)


def _every_block(stored: Mapping[str, NDArray[Any]], depth: int, n_stored: int) -> dict[str, NDArray[Any]]:
    """Block i has the weights of stored block i mod `n_stored`."""
    state: dict[str, NDArray[Any]] = {}
    for key, value in stored.items():
        if found := _BLOCK.fullmatch(key):
            blocks, number, part = found.groups()
            state |= {f"{blocks}.{i}.{part}": value for i in range(int(number), depth, n_stored)}
        else:
            state[key] = value
    return state
