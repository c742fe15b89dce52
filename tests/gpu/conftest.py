"""What runs only on a real GPU: `make gpu`, or `pytest tests/gpu`. Elsewhere every test is skipped with its reason."""

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from fisher_agent.backends import constructor, open_embedder
from fisher_agent.errors import BackendFailed, ConfigError
from fisher_agent.stages import Embedder
from fisher_models.bundle import Bundle, load
from fisher_models.export import export
from fisher_models.families import PRESETS, seeded_state
from halved import halved_bundle

OFFERED = [("torch", "f32"), ("torch", "f16"), ("torch", "bf16"), ("tensorrt", "f16")]
SERVED = [(preset, *offered) for preset in ("fisher-tiny", "echo-tiny") for offered in OFFERED]
TOLERANCE = {"f32": 1e-3, "f16": 0.02, "bf16": 0.15}


def why_not(backend: str) -> str:
    """Why a backend has no GPU here, or "" where it has."""
    if backend == "torch":
        return "" if torch.cuda.is_available() else "this machine has no CUDA device, or torch is a CPU build"
    if missing := [name for name in ("tensorrt", "pycuda") if find_spec(name) is None]:
        return f"{' and '.join(missing)} is not installed: pip install 'fisher-agent[tensorrt]' (needs CUDA to build)"
    try:
        constructor(backend)
        from fisher_agent.backends.trt_device import Device

        Device()
    except (BackendFailed, ConfigError) as error:
        return str(error)
    return ""


@dataclass(frozen=True, slots=True)
class Served:
    """A model on a GPU, with one precision of one backend."""

    embedder: Embedder
    bundle: Bundle


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where bundles and engines lie."""
    return tmp_path_factory.mktemp("gpu")


def bundle_of(preset: str, folder: Path) -> Bundle:
    """A bundle of untrained weights, with its float16 graph; made once."""
    out = folder / preset
    if out.is_dir():
        return load(out)
    if preset == "fisher-tiny":
        return halved_bundle(out)
    config = PRESETS[preset]
    return export(config, seeded_state(config, seed=0), out=out, weights="untrained", origin="a test")


@pytest.fixture(scope="session", params=SERVED, ids=["-".join(served) for served in SERVED])
def served(request: pytest.FixtureRequest, folder: Path) -> Iterator[Served]:
    """Each model, backend and precision that has a GPU here."""
    preset, backend, precision = request.param
    if why := why_not(backend):
        pytest.skip(why)
    bundle = bundle_of(preset, folder)
    embedder, note = open_embedder(bundle, backend=backend, precision=precision, cache=folder / "cache")
    assert (embedder.name, embedder.precision, note) == (backend, precision, "")
    yield Served(embedder, bundle)
    embedder.close()
