"""Building, caching and running engines, with stand-ins for TensorRT and pycuda that keep their interfaces.

The child process that builds is a real one. What only a GPU can show is in tests/gpu.
"""

import json
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from structlog.testing import capture_logs

from fisher_agent.backends import open_embedder, self_test, trt_engine
from fisher_agent.errors import BackendFailed, ConfigError
from fisher_models.bundle import Bundle, load
from halved import GPUFAKES, halved_bundle

IDENTITY = {"schema": trt_engine.SCHEMA, "bundle": "b1", "tensorrt": "10.3.0", "gpu": "Orin", "driver": "12060"}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return halved_bundle(tmp_path_factory.mktemp("bundles") / "fisher-tiny")


@pytest.fixture
def box(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """A machine with TensorRT and pycuda, here and in child processes. Nothing of them is left behind."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(GPUFAKES))
    monkeypatch.setenv("PYTHONPATH", str(GPUFAKES))
    yield monkeypatch
    for name in set(sys.modules) - before:
        if name.split(".")[0] in ("tensorrt", "pycuda") or name.startswith("fisher_agent.backends.t"):
            del sys.modules[name]  # monkeypatch would put it back


# -- the cache --------------------------------------------------------------------------------------------------------


def test_what_was_written_is_read(tmp_path: Path, bundle: Bundle) -> None:
    path = trt_engine.engine_path(tmp_path, bundle, IDENTITY)
    trt_engine.write(path, b"plan\nwith a line", IDENTITY)
    assert trt_engine.read(path, IDENTITY) == b"plan\nwith a line"
    assert trt_engine.read(tmp_path / "another.engine", IDENTITY) is None


@pytest.mark.parametrize("key", sorted(IDENTITY))
def test_every_part_of_the_identity_makes_another_file(tmp_path: Path, bundle: Bundle, key: str) -> None:
    other = IDENTITY | {key: "other"}
    assert trt_engine.engine_path(tmp_path, bundle, other) != trt_engine.engine_path(tmp_path, bundle, IDENTITY)


def test_timings_are_of_the_box_and_not_of_the_bundle(tmp_path: Path) -> None:
    same = trt_engine.timing_path(tmp_path, IDENTITY | {"bundle": "b2"})
    assert same == trt_engine.timing_path(tmp_path, IDENTITY)
    assert trt_engine.timing_path(tmp_path, IDENTITY | {"driver": "12080"}) != same


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda data: data[:-1] + b"?", "SHA-256 does not match"),
        (lambda data: data[:-3], "SHA-256 does not match"),
        (lambda data: b"", "no engine file"),
        (lambda data: b"\x00\x01ftrt" + data, "no engine file"),
        (lambda data: b"[1, 2]\n" + data, "no engine file"),
        (lambda data: b'{"identity": 3, "sha256": ""}\n', "no engine file"),
        (lambda data: data.replace(b"Orin", b"Nano"), "it was built for bundle b1, driver 12060, gpu Nano"),
    ],
)
def test_a_damaged_or_foreign_file_is_refused_and_logged(
    tmp_path: Path, bundle: Bundle, spoil: Callable[[bytes], bytes], why: str
) -> None:
    path = trt_engine.engine_path(tmp_path, bundle, IDENTITY)
    trt_engine.write(path, b"a plan", IDENTITY)
    path.write_bytes(spoil(path.read_bytes()))
    with capture_logs() as logs:
        assert trt_engine.read(path, IDENTITY) is None
    assert [(e["event"], why in e["why"]) for e in logs] == [("engine_refused", True)]


def test_old_engines_of_the_same_bundle_are_removed(tmp_path: Path) -> None:
    (tmp_path / "fisher-tiny-2-0123456789abcdef.engine").write_bytes(b"another bundle's")
    for n in range(5):
        path = tmp_path / f"fisher-tiny-{n:016x}.engine"
        trt_engine.write(path, b"plan", IDENTITY)
    kept = sorted(p.name for p in tmp_path.iterdir())
    assert len(kept) == trt_engine.KEPT + 1
    assert {"fisher-tiny-2-0123456789abcdef.engine", "fisher-tiny-0000000000000004.engine"} <= set(kept)


def test_what_can_never_be_served_is_a_mistake_in_the_configuration(bundle: Bundle) -> None:
    for precision in ("f32", "int8", "bf16"):
        with pytest.raises(ConfigError, match=f"tensorrt has no '{precision}'"):
            trt_engine.check(bundle, precision)
    plain = load("fisher-tiny")
    if "f16" not in plain.lower:
        with pytest.raises(ConfigError, match="fisher-tiny has no f16 graph for tensorrt; export it again"):
            trt_engine.check(plain, "auto")


# -- building ---------------------------------------------------------------------------------------------------------


def _prepare(bundle: Bundle, cache: Path) -> tuple[Path, dict[str, Any]]:
    with capture_logs() as logs:
        path = trt_engine.prepare(bundle, cache=cache)
    return path, next(e for e in logs if e["event"] == "engine")


def test_an_engine_is_built_once_and_again_for_another_box(
    box: pytest.MonkeyPatch, bundle: Bundle, tmp_path: Path
) -> None:
    path, said = _prepare(bundle, tmp_path)
    assert said["built"] and said["self_test"] < 1e-4
    assert _prepare(bundle, tmp_path)[1]["built"] is False
    header = json.loads(path.read_bytes().partition(b"\n")[0])
    assert header["identity"].items() >= {"bundle": bundle.digest, "tensorrt": "10.3.0", "gpu": "Fake GPU"}.items()
    box.setenv("FAKE_TRT_VERSION", "11.4.0.106")
    newer, said = _prepare(bundle, tmp_path)
    assert said["built"] and newer != path
    (timing, _) = sorted(tmp_path.glob("timing-*.cache"))
    assert timing.read_bytes().endswith(b"+1")


def test_a_corrupt_engine_is_built_again(box: pytest.MonkeyPatch, bundle: Bundle, tmp_path: Path) -> None:
    path, _ = _prepare(bundle, tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])
    assert _prepare(bundle, tmp_path)[1]["built"]
    assert path.read_bytes() == whole
    # Whole, of this identity, and yet not what TensorRT takes: as after a library was exchanged under its version.
    identity = json.loads(whole.partition(b"\n")[0])["identity"]
    trt_engine.write(path, b'{"tensorrt": "9.0", "graph": ""}', identity)
    assert _prepare(bundle, tmp_path)[1]["built"]
    assert path.read_bytes() == whole


def test_timings_of_another_box_are_not_taken(box: pytest.MonkeyPatch, bundle: Bundle, tmp_path: Path) -> None:
    path, _ = _prepare(bundle, tmp_path)
    (timing,) = tmp_path.glob("timing-*.cache")
    timing.write_bytes(b"other box")
    path.unlink()
    assert _prepare(bundle, tmp_path)[1]["built"]
    assert timing.read_bytes() == b"+1"


@pytest.mark.parametrize(
    ("failure", "why"),
    [
        ("no-device", "no CUDA-capable device is detected"),
        ("parse", "No importer registered for op: Erf"),
        ("build", "could not find any implementation"),
        ("wrong", "does not reproduce the self-test"),
        ("execute", "TensorRT failed on bands of shape"),
        ("nan", "not finite"),
        ("lost", "unspecified launch failure"),
        ("crash", r"exit -6"),
    ],
)
def test_what_fails_in_the_child_is_said_and_nothing_is_cached(
    box: pytest.MonkeyPatch, bundle: Bundle, tmp_path: Path, failure: str, why: str
) -> None:
    box.setenv("FAKE_TRT", failure)
    with pytest.raises(BackendFailed, match=why):
        trt_engine.prepare(bundle, cache=tmp_path)
    assert list(tmp_path.glob("*.engine")) == []


def test_a_build_ends_when_it_is_no_longer_wanted(box: pytest.MonkeyPatch, bundle: Bundle, tmp_path: Path) -> None:
    box.setenv("FAKE_TRT", "hang")
    cancelled = threading.Event()
    cancelled.set()
    with pytest.raises(BackendFailed, match="no longer wanted"):
        trt_engine.prepare(bundle, cache=tmp_path, cancelled=cancelled)
    with pytest.raises(BackendFailed, match="took too long"):
        trt_engine.prepare(bundle, cache=tmp_path, timeout_s=0.0)


def test_without_the_packages_the_extra_is_named(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"needs the package '\w+': pip install 'fisher-agent\[tensorrt\]'"):
        open_embedder(bundle, backend="tensorrt", cache=tmp_path)


def test_a_gpu_that_cannot_be_used_is_declared_and_the_cpu_serves(
    box: pytest.MonkeyPatch, bundle: Bundle, tmp_path: Path
) -> None:
    box.setenv("FAKE_TRT", "no-device")
    embedder, note = open_embedder(bundle, backend="tensorrt", cache=tmp_path, threads=1)
    assert (embedder.name, embedder.precision) == ("openvino", "f32")
    assert "tensorrt is configured and cannot be used" in note and "no CUDA-capable device" in note
    assert self_test(embedder, bundle) < 1e-3


# -- running ----------------------------------------------------------------------------------------------------------


class _Recorder:
    """CUDA graphs that run what was recorded; each launch takes `cost` of a clock that ticks once per reading."""

    def __init__(self, *, cost: float, spoils: bool = False) -> None:
        self.now_s = 0.0
        self.recorded: dict[int, Callable[[], None]] = {}
        self.launched: list[int] = []
        self.after: Callable[[], None] | None = None
        self._cost, self._spoils = cost, spoils

    def clock(self) -> float:
        self.now_s += 1.0
        return self.now_s

    def capture(self, stream: int, work: Callable[[], None]) -> int:
        self.recorded[len(self.launched) + 1000 * (len(self.recorded) + 1)] = work
        return max(self.recorded)

    def launch(self, graph: int, stream: int) -> None:
        self.launched.append(graph)
        self.now_s += self._cost
        if not self._spoils:
            self.recorded[graph]()

    def free(self, graph: int) -> None:
        del self.recorded[graph]


@pytest.fixture
def session(box: pytest.MonkeyPatch, bundle: Bundle) -> Callable[..., Any]:
    from fisher_agent.backends.trt_build import build
    from fisher_agent.backends.trt_device import Device
    from fisher_agent.backends.trt_session import Session

    plan, _ = build(bundle)

    def opened(graphs: _Recorder | None = None) -> Session:
        return Session(plan, Device(), graphs=graphs, **({"clock": graphs.clock} if graphs else {}))

    return opened


def _bands(n: int, t: int = 32) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(n * 1000 + t)
    return rng.normal(-1, 0.5, (n, t, 100)).astype(np.float32), np.zeros(n, np.float32)


def test_a_graph_is_used_once_a_shape_comes_often(session: Callable[..., Any]) -> None:
    graphs = _Recorder(cost=-0.5)
    running, plain = session(graphs), session()
    for _ in range(6):
        bands, centres = _bands(3)
        assert np.array_equal(running.run(bands, centres), plain.run(bands, centres))
    assert len(graphs.recorded) == 1
    assert len(graphs.launched) == 5 + 3  # five trials at the third use, and the three uses after it
    other = _bands(4)  # fills the same four rows
    assert np.array_equal(running.run(*other), plain.run(*other))
    assert len(graphs.recorded) == 1 and len(graphs.launched) == 9
    running.close()
    assert graphs.recorded == {}
    plain.close()


@pytest.mark.parametrize("graphs", [_Recorder(cost=0.5), _Recorder(cost=-0.5, spoils=True)], ids=["slower", "wrong"])
def test_a_graph_that_does_not_pay_or_is_wrong_is_freed(session: Callable[..., Any], graphs: _Recorder) -> None:
    running, plain = session(graphs), session()
    for _ in range(5):
        assert np.array_equal(running.run(*_bands(2)), plain.run(*_bands(2)))
    assert graphs.recorded == {} and len(graphs.launched) == 5  # tried once


def test_the_number_of_graphs_is_bounded(session: Callable[..., Any]) -> None:
    from fisher_agent.backends.trt_session import MAX_GRAPHS

    graphs = _Recorder(cost=-0.5)
    running = session(graphs)
    for t in range(16, 16 * (MAX_GRAPHS + 4), 16):
        for _ in range(3):
            running.run(*_bands(1, t))
    assert len(graphs.recorded) == MAX_GRAPHS


def test_rows_that_fill_a_batch_up_change_nothing(session: Callable[..., Any]) -> None:
    running = session()
    bands, centres = _bands(13)
    together = running.run(bands, centres)
    assert together.shape == (13, 192)
    for i in (0, 7, 12):
        assert np.abs(running.run(bands[i : i + 1], centres[i : i + 1]) - together[i]).max() < 2e-5


def test_the_sizes_of_batches_are_few(box: pytest.MonkeyPatch) -> None:
    from fisher_agent.backends.trt_session import rounded

    sizes = [rounded(n, 64) for n in range(1, 65)]
    assert all(size >= n for n, size in enumerate(sizes, start=1))
    assert sorted(set(sizes)) == [1, 2, 4, 8, 16, 24, 32, 40, 48, 56, 64]
    assert rounded(3, 3) == 3


def test_what_the_profile_does_not_hold_is_refused(session: Callable[..., Any]) -> None:
    running = session()
    for shape in ((65, 32, 100), (1, 1040, 100), (1, 32, 50), (0, 32, 100)):
        with pytest.raises(BackendFailed, match="the engine takes up to"):
            running.run(np.zeros(shape, np.float32), np.zeros(shape[0], np.float32))


def test_an_engine_of_something_else_is_refused(box: pytest.MonkeyPatch) -> None:
    from fisher_agent.backends.trt_device import Device
    from fisher_agent.backends.trt_session import Session

    with pytest.raises(BackendFailed, match="TensorRT does not take the engine: Serialization assertion"):
        Session(b"\x00\x01", Device())


@pytest.mark.parametrize(("failure", "why"), [("execute", "TensorRT failed"), ("lost", "launch failure")])
def test_a_device_that_fails_while_it_runs_is_said(
    session: Callable[..., Any], box: pytest.MonkeyPatch, failure: str, why: str
) -> None:
    running = session()
    running.run(*_bands(2))
    box.setenv("FAKE_TRT", failure)
    with pytest.raises(BackendFailed, match=why):
        running.run(*_bands(2))
