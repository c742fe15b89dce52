"""A bundle: one model ready to serve, as a folder that proves itself. Reading and verifying it; numpy only.

    manifest.json          schema, name, model sizes, front-end, tolerances, SHA-256 and size of the other files
    graph.onnx             bands (n, t, f) -> embedding (n, d); its weights point into weights.safetensors
    weights.safetensors    the state dict; float16 where every value of a tensor is exactly representable
    selftest.safetensors   an input and the embedding that a backend must reproduce
    graph.f16.onnx         where it was exported: the same graph computing in float16, for GPUs
    graph.int8.onnx        where it was exported: its linear layers in int8, with calibrated ranges

Installed bundles are package data, so an editable checkout and a wheel look them up in the same place.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from fisher_models import minisign
from fisher_models.errors import BundleError
from fisher_models.frontend import Floats, FrontendSpec

SCHEMA = "fisher.bundle/1"
MANIFEST, GRAPH, WEIGHTS, SELFTEST = "manifest.json", "graph.onnx", "weights.safetensors", "selftest.safetensors"
FILES = (GRAPH, WEIGHTS, SELFTEST)
LOWER = {"f16": "graph.f16.onnx", "int8": "graph.int8.onnx"}  # precision -> its own graph; a bundle need not have them
KEYS = {"schema", "name", "model", "weights", "origin", "frontend", "tolerance", "files"}
STANDINGS = ("untrained", "trained", "published")
NAME = re.compile(r"[a-z][a-z0-9._-]{0,63}")  # a letter first: HMIs turn numeric-looking strings into numbers
_INSTALLED = Path(__file__).parent / "bundles"


@dataclass(frozen=True, slots=True, eq=False)
class SelfTest:
    """What every backend must reproduce within `Bundle.tolerance` before it may serve."""

    bands: Floats  # (n, t, f)
    centres: Floats  # (n,)
    embedding: Floats  # (n, d), computed in float64 by the reference


@dataclass(frozen=True, slots=True, eq=False)
class Bundle:
    """A verified bundle."""

    name: str
    path: Path
    digest: str  # "b" + SHA-256 of the manifest, which holds the digests of the other files
    model: Mapping[str, Any]  # "family" and the sizes that its module needs
    weights: str  # "untrained", "trained" or "published"
    origin: str  # where the weights come from, in words
    frontend: FrontendSpec
    tolerance: Mapping[str, float]  # precision -> largest absolute error of the self-test
    selftest: SelfTest
    lower: Mapping[str, Path]  # precision -> the graph that computes in it, where the bundle has one

    @property
    def family(self) -> str:
        """Which architecture, "fisher"."""
        return str(self.model["family"])

    @property
    def embed_dim(self) -> int:
        """Length of one band's embedding."""
        return int(self.selftest.embedding.shape[1])

    @property
    def graph_path(self) -> Path:
        """The ONNX graph; its weights lie beside it."""
        return self.path / GRAPH

    @property
    def weights_path(self) -> Path:
        """The state dict."""
        return self.path / WEIGHTS

    def state(self) -> dict[str, NDArray[Any]]:
        """The state dict as stored, float16 or float32."""
        state: dict[str, NDArray[Any]] = load_file(self.weights_path)
        return state


def installed() -> list[str]:
    """Names of the bundles that came with the package."""
    return sorted(path.parent.name for path in _INSTALLED.glob(f"*/{MANIFEST}"))


def load(name_or_path: str | Path, *, signed_by: str | None = None, digest: str | None = None) -> Bundle:
    """Read and verify a bundle: an installed one by its name, or any folder by its path (anything with a `/`).

    With `signed_by`, a minisign public key, its manifest must carry a signature of that key (see `minisign`); with
    `digest` it must be that very bundle. Raises BundleError where one of them is not so, and for an unknown name, a
    missing, damaged or foreign file, and an unknown schema.
    """
    path = _locate(name_or_path)
    raw = _read(path / MANIFEST)
    found = "b" + hashlib.sha256(raw).hexdigest()
    if digest not in (None, found):
        raise BundleError(f"{path} is {found}, not {digest}: somebody replaced it")
    if signed_by is not None:
        minisign.verify(path / MANIFEST, raw, signed_by)  # before anything of it is parsed
    try:
        manifest = json.loads(raw)
    except (ValueError, RecursionError) as error:  # bytes that are no UTF-8, no JSON, or nested without end
        raise BundleError(f"{path / MANIFEST} is damaged: {error}; install the bundle again") from error
    if not isinstance(manifest, dict) or manifest.get("schema") != SCHEMA:
        schema = manifest.get("schema") if isinstance(manifest, dict) else None
        raise BundleError(f"{path / MANIFEST} has schema {schema!r}; this version reads {SCHEMA!r}")
    if wrong := sorted(manifest.keys() ^ KEYS):
        raise BundleError(f"{path / MANIFEST}: missing or unknown: {', '.join(wrong)}")
    _check_fields(path / MANIFEST, manifest)
    for name, expected in manifest["files"].items():
        _verify(path, name, expected)
    frontend = FrontendSpec.from_dict(manifest["frontend"])
    return Bundle(
        name=manifest["name"],
        path=path,
        digest=found,
        model=manifest["model"],
        weights=manifest["weights"],
        origin=manifest["origin"],
        frontend=frontend,
        tolerance={precision: float(limit) for precision, limit in manifest["tolerance"].items()},
        selftest=_selftest(path / SELFTEST, frontend),
        lower={precision: path / name for precision, name in LOWER.items() if name in manifest["files"]},
    )


def _locate(name_or_path: str | Path) -> Path:
    text = str(name_or_path)
    if isinstance(name_or_path, Path) or "/" in text:
        path = Path(name_or_path).expanduser().resolve()
        if not path.is_dir():
            raise BundleError(f"{text} is not a folder; a bundle is a folder with a {MANIFEST}")
        return path
    if not NAME.fullmatch(text) or text not in installed():
        known = ", ".join(installed()) or "none"
        raise BundleError(f"no bundle named {text!r} is installed ({known}); for a folder, write its path with a '/'")
    return _INSTALLED / text


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}; a bundle needs it") from error


def _check_fields(path: Path, manifest: Mapping[str, Any]) -> None:
    """Refuse a manifest whose values have the wrong form, before anything is opened by them."""
    name, model, tolerance = manifest["name"], manifest["model"], manifest["tolerance"]
    if not (isinstance(name, str) and NAME.fullmatch(name)):
        raise BundleError(f"{path}: name {name!r} must be lower-case letters, digits, '.', '_' or '-', a letter first")
    if manifest["weights"] not in STANDINGS:
        raise BundleError(f"{path}: weights {manifest['weights']!r} is none of {', '.join(STANDINGS)}")
    if not (isinstance(model, dict) and isinstance(model.get("family"), str) and model["family"]):
        raise BundleError(f"{path}: model holds no family")
    limits = tolerance.values() if isinstance(tolerance, dict) else [None]
    if not (tolerance and all(isinstance(limit, float) and limit > 0 for limit in limits)):
        raise BundleError(f"{path}: tolerance must map precisions to positive numbers")
    files = manifest["files"]
    known = {*FILES, *LOWER.values()}
    if not (isinstance(files, dict) and set(FILES) <= files.keys() <= known):
        raise BundleError(f"{path}: files must be {', '.join(FILES)} and may be {', '.join(sorted(LOWER.values()))}")


def _verify(folder: Path, name: str, expected: object) -> None:
    path = folder / name
    if path.resolve().parent != folder.resolve():
        raise BundleError(f"{path} is a link out of the bundle; copy the file itself")
    if not (isinstance(expected, dict) and expected.keys() == {"bytes", "sha256"}):
        raise BundleError(f"{folder / MANIFEST}: files[{name!r}] must hold bytes and sha256")
    try:
        size = path.stat().st_size
        if size != expected["bytes"]:
            raise BundleError(f"{path} has {size} bytes instead of {expected['bytes']}; install the bundle again")
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}; a bundle needs it") from error
    if found != expected["sha256"]:
        raise BundleError(f"{path} is damaged: its SHA-256 does not match the manifest; install the bundle again")


def _selftest(path: Path, frontend: FrontendSpec) -> SelfTest:
    try:
        found = load_file(path)
        if strange := sorted({str(value.dtype) for value in found.values() if value.dtype.kind != "f"}):
            raise ValueError(f"{', '.join(strange)} instead of floats")
        with np.errstate(over="ignore"):  # what overflows is not finite, and refused below
            arrays = {key: value.astype(np.float32) for key, value in found.items()}
        test = SelfTest(**arrays)
    # Of a type that numpy does not know safetensors raises AttributeError or TypeError.
    except (SafetensorError, TypeError, KeyError, ValueError, AttributeError) as error:
        raise BundleError(f"{path} holds no self-test: {error}") from error
    n = len(test.bands) if test.bands.ndim else 0
    fits = test.bands.ndim == 3 and test.bands.shape[2] == frontend.band_bins and test.embedding.ndim == 2
    if not (fits and n > 0 and test.centres.shape == (n,) and len(test.embedding) == n):
        raise BundleError(f"{path}: the shapes of bands, centres and embedding do not fit together")
    if not all(np.isfinite(values).all() for values in arrays.values()):
        raise BundleError(f"{path} holds values that are not finite")
    return test
