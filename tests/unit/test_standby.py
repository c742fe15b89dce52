"""The CPU serves until the GPU has proven itself, and again when it is lost; banks follow the rule on precision."""

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from structlog.testing import capture_logs

from fakes import PRESS, WINDOW, FakeEmbedder, FakeGpu, proven_bundle, running
from fisher_agent.backends import distance
from fisher_agent.backends.standby import Standby
from fisher_agent.bankfiles import BankFiles
from fisher_agent.banks import BankLibrary, Engine
from fisher_agent.config import Config
from fisher_agent.errors import BackendFailed, ConfigError
from fisher_agent.ledger import Model
from fisher_agent.pipeline import Pipeline
from fisher_agent.serving import BUILDING, Serving, served_by
from fisher_agent.stages import Embedder, Moment
from fisher_agent.survey import moments
from fisher_models.frontend import Frontend

BUNDLE = proven_bundle()


class Preparing:
    """A GPU that becomes what the test says, when the test says so."""

    def __init__(self, becomes: FakeGpu | Exception) -> None:
        self.ready, self.woken = threading.Event(), threading.Event()
        self._becomes = becomes

    def open(self, cancelled: threading.Event) -> Embedder:
        while not self.ready.wait(0.01):
            if cancelled.is_set():
                raise BackendFailed("no longer wanted")
        if isinstance(self._becomes, Exception):
            raise self._becomes
        return self._becomes

    def standby(self, cache: Path | None = None) -> Standby:
        standby = Standby(BUNDLE, cpu=FakeEmbedder(), open_gpu=self.open, cache=cache)
        standby.start(self.woken.set)
        return standby

    def finish(self) -> None:
        self.ready.set()
        assert self.woken.wait(10)


def settled(becomes: FakeGpu | Exception, cache: Path | None = None) -> Standby:
    """A standby whose GPU has come, and was taken."""
    preparing = Preparing(becomes)
    standby = preparing.standby(cache)
    preparing.finish()
    standby.take()
    return standby


def test_the_cpu_serves_and_says_so_until_the_gpu_is_taken() -> None:
    preparing = Preparing(FakeGpu())
    standby = preparing.standby()
    assert (standby.serving.name, standby.preparing, standby.waiting) == ("fake", True, False)
    assert "tensorrt is being prepared" in standby.note
    preparing.finish()
    assert standby.waiting and standby.serving.name == "fake"  # it changes when the caller says so, not before
    standby.take()
    assert (standby.serving.name, standby.serving.precision, standby.note) == ("tensorrt", "f16", "")
    assert not standby.waiting and not standby.preparing


@pytest.mark.parametrize(
    ("becomes", "why"),
    [
        (BackendFailed("CUDA cannot be used: no device"), "no device"),
        (ConfigError("model.backend: tensorrt needs the package 'pycuda'"), "pycuda"),
        (FakeGpu(off=0.5), "does not reproduce the self-test"),
        (FakeGpu(off=float("nan")), "does not reproduce the self-test"),
    ],
    ids=["no device", "not installed", "wrong", "nan"],
)
def test_a_gpu_that_cannot_be_used_is_declared(becomes: FakeGpu | Exception, why: str) -> None:
    with capture_logs() as logs:
        standby = settled(becomes)
    assert standby.serving.name == "fake"
    assert "tensorrt is configured and cannot be used" in standby.note and why in standby.note
    assert [e["event"] for e in logs] == ["gpu_unusable"]


def test_a_gpu_that_dies_between_its_test_and_its_service_is_declared() -> None:
    gpu = FakeGpu()
    preparing = Preparing(gpu)
    standby = preparing.standby()
    preparing.finish()
    gpu.dead = True
    standby.take()
    assert standby.serving.name == "fake"
    assert "cannot be used: the GPU failed" in standby.note


def test_a_lost_gpu_gives_its_place_to_the_cpu_and_is_left_alone() -> None:
    gpu = FakeGpu()
    standby = settled(gpu)
    with capture_logs() as logs:
        assert standby.lost(BackendFailed("the GPU failed: Xid 79"))
    assert (standby.serving.name, standby.waiting) == ("fake", False)
    assert "the GPU was lost (the GPU failed: Xid 79)" in standby.note and "restart the service" in standby.note
    assert [e["event"] for e in logs] == ["gpu_lost"]
    assert not standby.lost(BackendFailed("the CPU too"))  # nobody is left
    standby.close()
    assert not gpu.closed  # after an error of the driver not even closing can be trusted


def test_closing_ends_the_preparation() -> None:
    preparing = Preparing(FakeGpu())
    standby = preparing.standby()
    standby.close()
    assert not standby.preparing and not standby.waiting and not preparing.woken.is_set()


def test_closing_releases_a_gpu_that_serves_or_waits() -> None:
    serving, waiting = FakeGpu(), FakeGpu()
    settled(serving).close()
    preparing = Preparing(waiting)
    standby = preparing.standby()
    preparing.finish()
    standby.close()
    assert serving.closed and waiting.closed


def test_the_distance_is_measured_kept_and_known_without_the_gpu(tmp_path: Path) -> None:
    standby = settled(FakeGpu(), tmp_path)
    measured = standby.distances["f32"]
    assert 0 < measured < 1e-5
    assert standby.lost(BackendFailed("gone"))
    assert standby.distances == {"f16": measured}
    assert settled(FakeGpu(off=0.015), tmp_path).distances == {"f32": measured}  # once per bundle
    later = Preparing(FakeGpu()).standby(tmp_path)
    assert later.distances == {"f16": measured}
    later.close()
    assert distance.kept(tmp_path, BUNDLE, "int8") == {}


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"f16": 1}', b'{"f16|f32": "x"}', b'{"f16|f32": -1}', b'{"a|b": 5}']
)
def test_distances_that_cannot_be_read_are_unknown(tmp_path: Path, content: bytes) -> None:
    distance.keep(tmp_path, BUNDLE, ("f16", "f32"), 1e-6)
    (file,) = tmp_path.iterdir()
    file.write_bytes(content)
    with capture_logs() as logs:
        assert distance.kept(tmp_path, BUNDLE, "f32") == {}
    assert [e["event"] for e in logs] == ["distances_unreadable"]
    distance.keep(tmp_path, BUNDLE, ("int8", "f32"), 1e-4)
    assert distance.kept(tmp_path, BUNDLE, "f32") == {"int8": 1e-4}


def test_a_distance_is_the_largest_between_two_directions() -> None:
    assert distance.measure(FakeEmbedder(), FakeEmbedder(), BUNDLE) < 1e-12
    assert distance.measure(FakeEmbedder(), FakeGpu(off=3.0), BUNDLE) > 1e-3


# -- in the daemon ----------------------------------------------------------------------------------------------------


class Daemon:
    """What the runtime does around a Serving, with a real library of banks, without sockets."""

    def __init__(self, folder: Path, standby: Standby) -> None:
        self.config = Config.model_validate(
            {
                "site": "s",
                "edge": "e",
                "state_dir": str(folder),
                "window": WINDOW.model_dump(),
                "machines": [PRESS.model_dump()],
            }
        )
        self.standby = standby
        model = Model(BUNDLE.name, BUNDLE.digest, BUNDLE.weights, "", "", "")
        self.engine = served_by(Engine(BUNDLE, Frontend(BUNDLE.frontend), standby.serving, model), standby)
        self.library = BankLibrary(self.config, BankFiles(folder / "banks"), self.engine)
        self.pipeline = Pipeline(frontend=self.engine.frontend, embedder=standby.serving)
        self.problem = ""
        self.adopted: list[str] = []
        self.serving = Serving(self.engine, standby, in_compute=self._in_compute, adopt=self._adopt)

    async def _in_compute(self, function: Callable[..., Any], *args: Any) -> Any:
        return await asyncio.to_thread(function, *args)

    async def _adopt(self, engine: Engine) -> None:
        self.engine, self.pipeline.embedder = engine, engine.embedder
        self.library.serve(engine)
        self.use_bank()
        self.adopted.append(engine.model.backend)

    def use_bank(self) -> None:
        bank, self.problem = self.library.load(PRESS)
        self.pipeline.judges[PRESS.id] = self.library.judge(PRESS, bank)

    def enrol(self) -> None:
        self.library.learn(PRESS, running(seconds=30))
        self.use_bank()

    @property
    def judging(self) -> bool:
        bank = self.pipeline.judges[PRESS.id].bank
        return bank is not None


def some_moments() -> list[Moment]:
    return list(moments(running(seconds=4, seed=5), PRESS, WINDOW))[:4]


async def test_the_gpu_takes_over_and_the_bank_of_the_cpu_stays_good(tmp_path: Path) -> None:
    preparing = Preparing(FakeGpu())
    daemon = Daemon(tmp_path, preparing.standby(tmp_path / "cache"))
    daemon.enrol()
    await daemon.serving.settle()
    assert daemon.adopted == [] and daemon.serving.for_systemd == BUILDING
    before = await daemon.serving.process(daemon.pipeline, some_moments())
    preparing.finish()
    await daemon.serving.settle()
    assert daemon.adopted == ["tensorrt"] and daemon.serving.for_systemd == ()
    assert (daemon.engine.model.precision, daemon.engine.model.note, daemon.problem) == ("f16", "", "")
    after = await daemon.serving.process(daemon.pipeline, some_moments())
    assert [v.bank for v in after] == [v.bank for v in before]
    np.testing.assert_allclose([v.score for v in after], [v.score for v in before], rtol=0.05)
    await daemon.serving.settle()
    assert daemon.adopted == ["tensorrt"]  # once
    await daemon.serving.aclose()


@pytest.mark.parametrize("how", ["dead", "nan"])
async def test_moments_that_the_gpu_fails_on_are_judged_by_the_cpu(tmp_path: Path, how: str) -> None:
    gpu = FakeGpu()
    daemon = Daemon(tmp_path, settled(gpu, tmp_path / "cache"))
    daemon.enrol()  # a bank of float16
    setattr(gpu, how, True)
    verdicts = await daemon.serving.process(daemon.pipeline, some_moments())
    assert len(verdicts) == 4 and all(v.scored for v in verdicts)
    assert daemon.adopted == ["fake"] and daemon.problem == ""
    assert "the GPU was lost" in daemon.engine.model.note and daemon.engine.model.precision == "f32"
    await daemon.serving.aclose()


async def test_a_bank_is_not_judged_by_a_precision_too_far_from_its_own(tmp_path: Path) -> None:
    """The rule of a tenth of the limit: the machine is declared not scored, and the process goes on."""
    gpu = FakeGpu()
    daemon = Daemon(tmp_path, settled(gpu))
    daemon.enrol()
    assert daemon.judging
    daemon.standby._distance = {"f32": 0.05}  # as a coarser precision would have measured
    gpu.dead = True
    verdicts = await daemon.serving.process(daemon.pipeline, some_moments())
    assert not daemon.judging and not any(v.scored for v in verdicts)
    assert "precision f16, now f32" in daemon.problem and "banks rebuild" in daemon.problem
    await daemon.serving.aclose()


async def test_a_bank_of_the_gpu_is_judged_by_the_cpu_before_the_gpu_is_back(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    first = Daemon(tmp_path, settled(FakeGpu(), cache))
    first.enrol()
    await first.serving.aclose()
    again = Daemon(tmp_path, Preparing(FakeGpu()).standby(cache))
    again.use_bank()
    assert again.problem == "" and again.judging
    await again.serving.aclose()
    unknown = Daemon(tmp_path, Preparing(FakeGpu()).standby(tmp_path / "an empty cache"))
    unknown.use_bank()
    assert "precision f16, now f32" in unknown.problem
    await unknown.serving.aclose()


async def test_an_error_of_the_cpu_ends_the_process(tmp_path: Path) -> None:
    standby = settled(BackendFailed("no device"))
    daemon = Daemon(tmp_path, standby)
    daemon.enrol()
    daemon.pipeline.embedder = standby.serving
    standby.serving.embed = FakeGpuThatFails().embed  # type: ignore[method-assign]
    with pytest.raises(BackendFailed, match="unspecified launch failure"):
        await daemon.serving.process(daemon.pipeline, some_moments())
    await daemon.serving.aclose()


async def test_without_a_gpu_nothing_is_waited_for(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path, Preparing(FakeGpu()).standby())
    daemon.enrol()
    alone = Serving(daemon.engine, None, in_compute=daemon._in_compute, adopt=daemon._adopt)
    alone.start(lambda: None)
    await alone.settle()
    assert len(await alone.process(daemon.pipeline, some_moments())) == 4
    assert alone.for_systemd == () and daemon.adopted == []
    await alone.aclose()
    await daemon.serving.aclose()


class FakeGpuThatFails(FakeGpu):
    def __init__(self) -> None:
        super().__init__()
        self.dead = True
