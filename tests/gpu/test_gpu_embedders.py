"""TensorRT and torch on a real GPU: the same promises as on the CPU, and how near float16 comes to float32."""

from pathlib import Path

import numpy as np
import pytest

from fisher_agent.backends import open_embedder, self_test, trt_engine
from fisher_agent.backends.distance import measure
from fisher_agent.errors import BackendFailed
from fisher_agent.stages import Floats
from fisher_models.bundle import Bundle
from gpu.conftest import TOLERANCE, Served, bundle_of, why_not

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(900)]


def _bands(bundle: Bundle, n: int, t: int) -> tuple[Floats, Floats]:
    rng = np.random.default_rng(n * 1000 + t)
    bands = rng.normal(-1, 0.5, (n, t, bundle.frontend.band_bins)).astype(np.float32)
    return bands, rng.uniform(0, 1, n).astype(np.float32)


def _reproduces(served: Served) -> bool:
    test = served.bundle.selftest
    error = np.abs(served.embedder.embed(test.bands, test.centres) - test.embedding).max()
    return bool(error < TOLERANCE[served.embedder.precision])


def test_it_is_on_the_gpu(served: Served) -> None:
    assert served.embedder.device.startswith("cuda")


def test_the_self_test_is_reproduced(served: Served) -> None:
    assert _reproduces(served)


def test_it_agrees_with_the_cpu(served: Served) -> None:
    cpu, _ = open_embedder(served.bundle, backend="openvino", precision="f32", threads=2)
    assert (
        measure(cpu, served.embedder, served.bundle)
        < {"f32": 1e-6, "f16": 1e-4, "bf16": 1e-3}[served.embedder.precision]
    )


@pytest.mark.parametrize("t", [16, 496, 992])
def test_any_number_of_bands_and_frames(served: Served, t: int) -> None:
    for n in (1, 3, 8, 64, 70):
        found = served.embedder.embed(*_bands(served.bundle, n, t))
        assert found.shape == (n, served.bundle.embed_dim) and np.isfinite(found).all()


def test_an_embedding_depends_neither_on_its_batch_nor_on_graphs(served: Served) -> None:
    embed = served.embedder.embed
    bands, centres = _bands(served.bundle, 13, 112)
    first = embed(bands, centres)
    for _ in range(6):  # a graph is tried at the third use of a shape
        assert np.abs(embed(bands, centres) - first).max() < 2e-3
    near = {"f32": 1e-4, "f16": 0.02, "bf16": 0.15}[served.embedder.precision]
    for i in (0, 7, 12):
        assert np.abs(embed(bands[i : i + 1], centres[i : i + 1]) - first[i]).max() < near


def test_many_shapes_in_turn_stay_right(served: Served) -> None:
    """More shapes than there are graphs: they are made, dropped and made again."""
    inputs = [_bands(served.bundle, n, t) for n in (1, 4, 16) for t in (16, 64, 256, 496)]
    first = [served.embedder.embed(*given) for given in inputs]
    for _ in range(4):
        for given, expected in zip(inputs, first, strict=True):
            assert np.abs(served.embedder.embed(*given) - expected).max() < 2e-3


def test_nan_raises_and_the_next_call_works(served: Served) -> None:
    bands, centres = _bands(served.bundle, 2, 32)
    bands[1, 3, 7] = np.nan
    with pytest.raises(BackendFailed, match="not finite"):
        served.embedder.embed(bands, centres)
    assert _reproduces(served)


@pytest.mark.skipif(bool(why_not("tensorrt")), reason=why_not("tensorrt") or "-")
def test_an_engine_is_cached_and_a_corrupt_one_built_again(folder: Path, tmp_path: Path) -> None:
    bundle = bundle_of("fisher-tiny", folder)
    engines = tmp_path / "engines"
    path = trt_engine.prepare(bundle, cache=engines)
    written_ns = path.stat().st_mtime_ns
    assert trt_engine.prepare(bundle, cache=engines) == path
    assert path.stat().st_mtime_ns == written_ns
    path.write_bytes(path.read_bytes()[:-100])
    assert trt_engine.prepare(bundle, cache=engines) == path
    embedder, note = open_embedder(bundle, backend="tensorrt", cache=tmp_path)
    assert note == "" and self_test(embedder, bundle) < TOLERANCE["f16"]
    embedder.close()
    embedder.close()
