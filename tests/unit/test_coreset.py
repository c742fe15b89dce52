import math
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes import (
    PRESS,
    SPEC,
    T0_NS,
    VIBRATION,
    WINDOW,
    FakeEmbedder,
    bundle,
    channel,
    machine,
    recording,
    running,
    signal,
)
from fisher_agent import calibrate
from fisher_agent.bank import Bank
from fisher_agent.bankfiles import BankFiles
from fisher_agent.banks import BankLibrary, Engine
from fisher_agent.config import Config
from fisher_agent.coreset import POOL, coreset
from fisher_agent.detect import Judge
from fisher_agent.enrolment import learn
from fisher_agent.learnt import Report
from fisher_agent.ledger import Model
from fisher_agent.nearest import Index
from fisher_agent.pipeline import Pipeline
from fisher_agent.stages import Floats, Verdict
from fisher_agent.survey import moments
from fisher_agent.waveforms import Recording
from fisher_models.frontend import Frontend

FRONTEND = Frontend(SPEC)
FIRST = np.zeros(1, dtype=np.intp)


def pairwise(rows: Floats) -> np.ndarray:
    exact = rows.astype(np.float64)
    return 0.5 * np.square(exact[:, None] - exact[None]).sum(axis=2)


def greedy(rows: Floats, start: np.ndarray, radius: float, coverage: float) -> list[int]:
    """What the docstring says, in a few lines."""
    distances = pairwise(rows)
    kept = sorted(set(start.tolist()))
    while np.mean(distances[kept].min(axis=0) <= radius) < coverage:
        kept.append(int(distances[kept].min(axis=0).argmax()))
    return sorted(kept)


@st.composite
def grids(draw: st.DrawFn) -> tuple[Floats, np.ndarray]:
    """Rows of small integers, exact in float32, with copies and many equal distances; positions to start from."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n = draw(st.integers(1, 4 * POOL))
    rows = rng.integers(-9, 10, size=(n, draw(st.integers(1, 5)))).astype(np.float32)
    return rows, rng.integers(n, size=draw(st.integers(1, 3)))


@given(grids(), st.sampled_from([0.0, 0.5, 4.0, 30.0]), st.sampled_from([0.01, 0.5, 0.9, 1.0]))
def test_it_is_the_greedy_choice_of_the_farthest(grid: tuple[Floats, np.ndarray], radius: float, share: float) -> None:
    rows, start = grid
    assert coreset(rows, start=start, radius=radius, coverage=share).tolist() == greedy(rows, start, radius, share)


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.3, 0.9, 1.0]), st.floats(0.001, 0.5))
def test_the_stated_share_lies_within_the_radius_of_a_kept_one(seed: int, coverage: float, radius: float) -> None:
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(int(rng.integers(1, 200)), 24)).astype(np.float32)
    index = Index(rows, n_bands=1)
    kept = coreset(index.shifted, start=FIRST, radius=radius, coverage=coverage)
    _, distance, _ = Index(rows[kept], n_bands=1).nearest(rows)
    assert np.count_nonzero(distance <= radius + 1e-6) >= math.ceil(coverage * len(rows))
    assert (np.diff(kept) > 0).all()


def test_a_larger_share_keeps_the_same_windows_and_more() -> None:
    rows = np.random.default_rng(0).normal(size=(300, 8)).astype(np.float32)
    before: set[int] = set()
    for coverage in (0.2, 0.5, 0.8, 0.95, 1.0):
        kept = set(coreset(rows, start=FIRST, radius=2.0, coverage=coverage).tolist())
        assert before < kept
        before = kept
    assert len(before) < 300


def test_copies_are_kept_once() -> None:
    rows = np.repeat(np.random.default_rng(0).normal(size=(5, 8)).astype(np.float32), 40, axis=0)
    assert coreset(rows, start=FIRST, radius=1e-6, coverage=1.0).tolist() == [0, 40, 80, 120, 160]


def test_its_memory_is_bounded_by_the_pool() -> None:
    rows = np.random.default_rng(0).standard_normal((20_000, 64), dtype=np.float32)
    tracemalloc.start()
    try:
        coreset(rows, start=FIRST, radius=20.0, coverage=0.2)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < (4 * (POOL + 1) + 50) * len(rows)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"coverage": 0.0}, "coverage 0.0"),
        ({"coverage": 1.1}, "coverage 1.1"),
        ({"coverage": math.nan}, "coverage nan"),
        ({"radius": -1.0}, "radius -1.0"),
        ({"radius": math.nan}, "radius nan"),
        ({"start": np.empty(0, dtype=np.intp)}, "at least one"),
        ({"rows": np.empty((0, 3), dtype=np.float32)}, "needs rows"),
    ],
)
def test_what_makes_no_sense_is_refused(keys: dict[str, Any], message: str) -> None:
    given_keys = {"rows": np.eye(3, dtype=np.float32), "start": FIRST, "radius": 0.1, "coverage": 0.9} | keys
    with pytest.raises(ValueError, match=message):
        coreset(given_keys.pop("rows"), **given_keys)


# A bank of fewer windows


def enrol(given_recording: Recording, **keys: Any) -> tuple[Bank, Report]:
    return learn(
        given_recording,
        **{
            "machine": PRESS, "window": WINDOW, "bundle": bundle(), "frontend": FRONTEND, "embedder": FakeEmbedder(),
            "version": "v1", "created_ns": 7,
        }
        | keys,
    )  # fmt: skip


def verdicts(bank: Bank, given_recording: Recording) -> list[Verdict]:
    judge = Judge(PRESS, WINDOW, bank, frontend=FRONTEND)
    pipeline = Pipeline(frontend=FRONTEND, embedder=FakeEmbedder(), judges={"press-07": judge})
    return pipeline.process(list(moments(given_recording, PRESS, WINDOW)))


@pytest.fixture(scope="module")
def whole() -> Bank:
    return enrol(running(seconds=60))[0]


@pytest.fixture(scope="module")
def reduced() -> tuple[Bank, Report]:
    return enrol(running(seconds=60), coreset=0.7)


def test_a_reduced_bank_keeps_whole_windows_that_stand_for_the_share(whole: Bank, reduced: tuple[Bank, Report]) -> None:
    bank, report = reduced
    for full, fewer, said in zip(whole.channels, bank.channels, report.channels, strict=True):
        assert (said.windows, said.kept) == (len(full.vectors), len(fewer.vectors))
        assert said.kept < 0.9 * said.windows
        at = np.searchsorted(full.end_ns, fewer.end_ns)
        assert (full.end_ns[at] == fewer.end_ns).all()
        assert (full.vectors[at] == fewer.vectors).all()
        assert (full.octave_db[at] == fewer.octave_db).all()
        _, distance, _ = Index(fewer.vectors, n_bands=fewer.n_bands).nearest(full.vectors)
        assert np.mean(distance <= full.typical + 1e-7) >= 0.7
    assert f"{report.channels[0].windows} windows, {report.channels[0].kept} kept" in "\n".join(report.lines())
    assert len(Bank.from_bytes(bank.to_bytes()).channel("vib").vectors) == report.channels[0].kept


def test_limits_of_a_reduced_bank_are_of_all_windows_beside_the_kept_ones(
    whole: Bank, reduced: tuple[Bank, Report]
) -> None:
    for full, fewer, said in zip(whole.channels, reduced[0].channels, reduced[1].channels, strict=True):
        spans = np.stack([full.end_ns - 10**9, full.end_ns], axis=1)
        blocks = calibrate.blocks(spans)
        distances = np.empty(len(spans))
        for block, span in enumerate(calibrate.block_spans(spans, blocks)):
            apart = (fewer.end_ns <= span[0]) | (fewer.end_ns - 10**9 >= span[1])
            index = Index(fewer.vectors[apart], n_bands=1)
            distances[blocks == block] = index.nearest(full.vectors[blocks == block])[1]
        assert fewer.typical == pytest.approx(np.median(distances))
        assert said.p95_distance == pytest.approx(np.quantile(distances, 0.95))
        assert fewer.limit == calibrate.limit(distances, n_independent=len(calibrate.independent(spans)))


def test_a_reduced_bank_still_tells_a_fault_from_normal_running(reduced: tuple[Bank, Report]) -> None:
    later_ns = T0_NS + 10**13
    assert max(v.score for v in verdicts(reduced[0], running(seconds=30, seed=2, t_ns=later_ns))) < 1
    faulty = verdicts(reduced[0], running(seconds=10, seed=3, t_ns=later_ns, tone_hz=1230.37))
    assert min(v.score for v in faulty) > 2


def test_windows_that_all_look_alike_leave_one_in_each_block_to_calibrate_with() -> None:
    one = signal(VIBRATION, 1, seed=1)
    bank, report = enrol(recording({VIBRATION: np.tile(one, 40)}), machine=machine(VIBRATION), coreset=0.9)
    assert calibrate.BLOCKS <= report.channels[0].kept <= calibrate.BLOCKS + 2
    assert bank.channels[0].limit > 0


def test_a_channel_keeps_all_where_fewer_could_not_be_calibrated() -> None:
    """It falls silent at the start of the second block: the middle of what it has there touches the first."""
    other = channel("other", 8000, kind="vibration", unit="g")
    both = machine(VIBRATION, other)
    short = signal(other, 60, seed=1)[: 15 * 4000]
    bank, report = enrol(recording({VIBRATION: signal(VIBRATION, 60, seed=1), other: short}), machine=both, coreset=0.1)
    assert [(c.windows, c.kept) for c in report.channels] == [(119, 10), (14, 14)]
    assert len(bank.channel("other").vectors) == 14


def test_the_configuration_decides_what_a_new_and_a_rebuilt_bank_keep(tmp_path: Path, whole: Bank) -> None:
    config = Config.model_validate(
        {
            "site": "s",
            "edge": "e",
            "state_dir": str(tmp_path),
            "window": WINDOW.model_dump(),
            "machines": [PRESS.model_dump()],
            "enroll": {"coreset": 0.7},
        }
    )
    files = BankFiles(tmp_path / "banks")
    files.sweep()
    engine = Engine(bundle(), FRONTEND, FakeEmbedder(), Model("fake", bundle().digest, "untrained", "", "f32", ""))
    library = BankLibrary(config, files, engine)
    learnt, report = library.learn(PRESS, running(seconds=60))
    kept = report.reports[0].channels[0].kept
    assert len(learnt.banks[0].channel("vib").vectors) == kept < len(whole.channel("vib").vectors)
    assert files.manifest("press-07", learnt.version)["report"]["channels"][0]["kept"] == kept
    rebuilt, _ = library.rebuild(PRESS)
    assert (rebuilt.banks[0].channel("vib").end_ns == learnt.banks[0].channel("vib").end_ns).all()
    library.reconfigure(config.model_copy(update={"enroll": config.enroll.model_copy(update={"coreset": 1.0})}))
    assert len(library.rebuild(PRESS)[0].banks[0].channel("vib").vectors) == len(whole.channel("vib").vectors)
