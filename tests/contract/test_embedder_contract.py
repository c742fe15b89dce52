"""What every backend promises behind `stages.Embedder`, run against each that this machine has."""

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from fisher_agent.backends import BACKENDS, open_embedder, self_test
from fisher_agent.errors import BackendFailed, ConfigError
from fisher_agent.stages import Embedder, Floats
from fisher_models.bundle import Bundle
from halved import GPUFAKES, halved_bundle

OPTIONS: dict[str, dict[str, Any]] = {"openvino": {"precision": "f32", "threads": 1}}  # with which nothing is probed


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return halved_bundle(tmp_path_factory.mktemp("bundles") / "fisher-tiny")


@pytest.fixture(scope="module", autouse=True)
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[pytest.MonkeyPatch]:
    """A machine with stand-ins for TensorRT and pycuda; tests/gpu has the real ones. Nothing of them is left behind."""
    with pytest.MonkeyPatch.context() as box:
        before = set(sys.modules)
        box.syspath_prepend(str(GPUFAKES))
        box.setenv("PYTHONPATH", str(GPUFAKES))
        box.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield box
        for name in set(sys.modules) - before:
            if name.split(".")[0] in ("tensorrt", "pycuda") or name.startswith("fisher_agent.backends.t"):
                del sys.modules[name]


@pytest.fixture(scope="module", params=sorted(BACKENDS))
def embedder(bundle: Bundle, request: pytest.FixtureRequest) -> Iterator[Embedder]:
    opened, note = open_embedder(bundle, backend=request.param, **OPTIONS.get(request.param, {}))
    assert (opened.name, note) == (request.param, "")
    yield opened
    opened.close()


def _bands(n: int, t: int) -> tuple[Floats, Floats]:
    rng = np.random.default_rng(n * 1000 + t)
    return rng.normal(-1, 0.5, (n, t, 100)).astype(np.float32), np.zeros(n, np.float32)


def test_the_self_test_passes(embedder: Embedder, bundle: Bundle) -> None:
    assert self_test(embedder, bundle) < 1e-4


@pytest.mark.parametrize("t", [16, 496, 1024])
def test_embeddings_are_float32_of_one_row_per_band(embedder: Embedder, t: int) -> None:
    embedding = embedder.embed(*_bands(2, t))
    assert embedding.shape == (2, 192)
    assert embedding.dtype == np.float32
    assert np.isfinite(embedding).all()


def test_an_embedding_does_not_depend_on_its_batch(embedder: Embedder) -> None:
    bands, centres = _bands(45, 112)  # more than one piece
    together = embedder.embed(bands, centres)
    for i in (0, 36, 44):
        alone = embedder.embed(bands[i : i + 1], centres[i : i + 1])
        assert np.abs(together[i] - alone[0]).max() < 2e-5


def test_the_result_of_one_call_survives_the_next(embedder: Embedder) -> None:
    first = embedder.embed(*_bands(2, 32))
    kept = first.copy()
    embedder.embed(*_bands(3, 32))
    assert np.array_equal(first, kept)


def test_the_input_is_left_as_it_was(embedder: Embedder) -> None:
    bands, centres = _bands(2, 32)
    bands.setflags(write=False)
    before = bands.copy()
    embedder.embed(bands, centres)
    assert np.array_equal(bands, before)


def test_a_view_gives_the_same_as_its_copy(embedder: Embedder) -> None:
    bands, centres = _bands(4, 64)
    assert np.array_equal(
        embedder.embed(bands[::2, :32], centres[::2]), embedder.embed(bands[::2, :32].copy(), centres[::2])
    )


def test_no_bands_give_no_embeddings(embedder: Embedder) -> None:
    assert embedder.embed(np.empty((0, 32, 100), np.float32), np.empty(0, np.float32)).shape == (0, 192)


def test_nan_raises_instead_of_giving_an_embedding(embedder: Embedder) -> None:
    bands, centres = _bands(2, 32)
    bands[1, 3, 7] = np.nan
    with pytest.raises(BackendFailed, match="not finite"):
        embedder.embed(bands, centres)


@pytest.mark.parametrize(
    "shape",
    [(2, 32, 50), (2, 32), (2, 8, 100), (2, 1040, 100)],
    ids=["other width", "one axis less", "no whole patch", "more frames than the model has positions"],
)
def test_bands_of_a_wrong_shape_raise(embedder: Embedder, shape: tuple[int, ...]) -> None:
    with pytest.raises(BackendFailed):
        embedder.embed(np.zeros(shape, np.float32), np.zeros(2, np.float32))


def test_centres_of_another_batch_raise(embedder: Embedder) -> None:
    with pytest.raises(BackendFailed, match="do not fit together"):
        embedder.embed(np.zeros((2, 32, 100), np.float32), np.zeros(3, np.float32))


def test_a_backend_still_works_after_a_bad_input(embedder: Embedder, bundle: Bundle) -> None:
    with pytest.raises(BackendFailed):
        embedder.embed(np.zeros((2, 32, 50), np.float32), np.zeros(2, np.float32))
    assert self_test(embedder, bundle) < 1e-4


@pytest.mark.parametrize("backend", sorted(BACKENDS))
def test_a_closed_backend_says_so_and_closes_again(bundle: Bundle, backend: str) -> None:
    opened, _ = open_embedder(bundle, backend=backend, **OPTIONS.get(backend, {}))
    opened.close()
    opened.close()
    with pytest.raises(BackendFailed, match="closed"):
        opened.embed(*_bands(1, 16))


@pytest.mark.parametrize(("backend", "precision"), [("openvino", "f16"), ("tensorrt", "int8"), ("torch", "int8")])
def test_a_precision_that_is_not_there_is_a_mistake_in_the_configuration(
    bundle: Bundle, backend: str, precision: str
) -> None:
    with pytest.raises(ConfigError, match=rf"model\.precision.*{precision}"):
        open_embedder(bundle, backend=backend, precision=precision, threads=1)


@pytest.mark.parametrize("precision", ["f16", "bf16"])
def test_torch_computes_in_less_than_float32_on_a_gpu_only(bundle: Bundle, precision: str) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU; see tests/gpu")
    with pytest.raises(ConfigError, match=f"torch has no '{precision}' on this cpu; use f32"):
        open_embedder(bundle, backend="torch", precision=precision)


def test_an_unknown_backend_is_named(bundle: Bundle) -> None:
    with pytest.raises(ConfigError, match="'onnx' is none of auto, openvino, tensorrt, torch"):
        open_embedder(bundle, backend="onnx")


def _run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    return done.stdout.strip()


def test_importing_the_backends_loads_no_runtime() -> None:
    heavy = "{'torch', 'openvino', 'onnx', 'tensorrt', 'pycuda'}"
    assert _run(f"import sys, fisher_agent.app; print(sorted({heavy} & sys.modules.keys()))") == "[]"


def test_openvino_serves_without_torch() -> None:
    code = """
import sys
sys.modules["torch"] = sys.modules["onnx"] = None  # as where they are not installed
from fisher_agent.backends import open_embedder, self_test
from fisher_agent.errors import ConfigError
from fisher_models.bundle import load
bundle = load("fisher-tiny")
embedder, _ = open_embedder(bundle, precision="f32", threads=1)
assert self_test(embedder, bundle) < 1e-4
try:
    open_embedder(bundle, backend="torch")
except ConfigError as error:
    print(error)
"""
    assert _run(code) == "model.backend: torch needs the package 'torch': pip install 'fisher-agent[torch]'"


class _Wrong:
    """A backend that works and is wrong; what the self-test is there for."""

    name, precision, device = "wrong", "f32", "nowhere"

    def __init__(self, embedding: Floats) -> None:
        self.embedding = embedding

    def embed(self, bands: Floats, centres: Floats) -> Floats:
        return self.embedding

    def close(self) -> None:
        pass


def test_the_self_test_refuses_what_is_off_or_nan_or_of_another_shape(bundle: Bundle) -> None:
    right = bundle.selftest.embedding
    off, nan = right.copy(), right.copy()
    off[2, 5] += 0.002
    nan[0, 0] = np.nan
    for embedding in (off, nan, np.zeros_like(right), right[:, :-1]):
        with pytest.raises(BackendFailed, match="fisher-tiny"):
            self_test(_Wrong(embedding), bundle)
    assert self_test(_Wrong(right), bundle) == 0


def test_the_self_test_refuses_a_precision_without_a_tolerance(bundle: Bundle) -> None:
    unproven = _Wrong(bundle.selftest.embedding)
    unproven.precision = "int4"
    with pytest.raises(BackendFailed, match="no tolerance for int4"):
        self_test(unproven, bundle)
