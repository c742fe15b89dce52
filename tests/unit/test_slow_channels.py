"""Channels that the model does not see join enrolment, bank, verdict, report and check like any other."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fakes import PRESS, SPEC, T0_NS, VIBRATION, WINDOW, FakeEmbedder, bundle, channel, frames, machine, running, signal
from fisher_agent.bank import NO_FEATURES, Bank
from fisher_agent.bankcheck import Setting, check
from fisher_agent.codes import Level, Quality, Status
from fisher_agent.config import MachineConfig
from fisher_agent.detect import Judge
from fisher_agent.enrolment import learn, learn_fault, rebuild
from fisher_agent.errors import BadFile, BankMismatch, NotLearnt
from fisher_agent.pipeline import Pipeline
from fisher_agent.report import Names, verdict_points
from fisher_agent.stages import Floats, Verdict
from fisher_agent.survey import moments
from fisher_agent.waveforms import Recording
from fisher_models.frontend import Frontend

FRONTEND = Frontend(SPEC)
TEMP = channel("temp", 2.0, kind="process", unit="degC")
SLOW_VIB = channel("shake", 200.0, kind="vibration", unit="g")
MIXED = machine(VIBRATION, TEMP, SLOW_VIB)
TANK = machine(TEMP)
LATER_NS = T0_NS + 10**13
MODEL: dict[str, Any] = {
    "window": WINDOW, "bundle": bundle(), "frontend": FRONTEND, "embedder": FakeEmbedder(), "version": "v1",
    "created_ns": 7,
}  # fmt: skip


def temperatures(seconds: float, *, at: float = 60.0, seed: int = 0) -> Floats:
    return (at + 0.3 * np.random.default_rng(seed).normal(size=round(2 * seconds))).astype(np.float32)


def heard(config: MachineConfig, seconds: float = 150.0, *, t_ns: int = T0_NS, temp: float = 60.0, level: float = 1.0,
          seed: int = 1) -> Recording:  # fmt: skip
    out = Recording()
    for c in config.channels:
        given = temperatures(seconds, at=temp, seed=seed) if c is TEMP else signal(c, seconds, seed=seed, level=level)
        for frame in frames(c, given, t_ns=t_ns):
            out.add(frame)
    return out


def judged(bank: Bank, recording: Recording, config: MachineConfig) -> list[Verdict]:
    judge = Judge(config, WINDOW, bank, frontend=FRONTEND)
    pipeline = Pipeline(frontend=FRONTEND, embedder=FakeEmbedder(), judges={"press-07": judge})
    return [v for v in pipeline.process(list(moments(recording, config, WINDOW))) if v.quality is Quality.GOOD]


@pytest.fixture(scope="module")
def mixed() -> Bank:
    return learn(heard(MIXED), machine=MIXED, **MODEL)[0]


def test_a_bank_holds_the_slow_channels_without_a_vector_and_survives_its_file(mixed: Bank) -> None:
    temp, shake, vib = mixed.channel("temp"), mixed.channel("shake"), mixed.channel("vib")
    assert (temp.n_bands, temp.vectors.shape[1], temp.features.shape[1]) == (0, 0, 2)
    assert (shake.n_bands, shake.features.shape[1]) == (0, 35)
    assert (vib.n_bands > 0, vib.features.shape[1]) == (True, 35)
    again = Bank.from_bytes(mixed.to_bytes())
    for mine, theirs in zip(mixed.channels, again.channels, strict=True):
        assert np.array_equal(mine.features, theirs.features)
        assert (mine.feature_limit, mine.typical_ratio, mine.n_bands) == (
            theirs.feature_limit, theirs.typical_ratio, theirs.n_bands,
        )  # fmt: skip
        assert np.array_equal(mine.feature_spread, theirs.feature_spread)


def test_normal_running_scores_low_and_a_warm_bearing_is_named(mixed: Bank) -> None:
    calm = judged(mixed, heard(MIXED, t_ns=LATER_NS, seed=2), MIXED)
    assert len(calm) > 50
    assert np.mean([v.score >= 1 for v in calm]) < 0.05
    hot = judged(mixed, heard(MIXED, t_ns=LATER_NS, temp=66.0, seed=2), MIXED)
    assert all(v.score >= 1 for v in hot)
    top = hot[-1].top
    assert top is not None
    assert (top.channel, top.distance, top.peak_band, top.bands) == ("temp", -1.0, None, ())
    assert top.mean == pytest.approx(66, abs=0.5)
    assert hot[-1].fault == "unknown"


def test_a_level_is_seen_and_a_bank_without_indicators_is_judged_as_it_was(mixed: Bank) -> None:
    embedding_only = replace(
        mixed, channels=tuple(replace(c, features=NO_FEATURES) if c.n_bands else c for c in mixed.channels)
    )
    louder = heard(MIXED, t_ns=LATER_NS, level=1.6, seed=2)
    vib = [next(r for r in v.readings if r.channel == "vib") for v in judged(mixed, louder, MIXED)]
    blind = [next(r for r in v.readings if r.channel == "vib") for v in judged(embedding_only, louder, MIXED)]
    assert min(r.ratio for r in vib) > 1
    assert {b.deviation for b in blind} == {-1.0}


def test_a_machine_of_slow_channels_alone_is_judged_and_learns_no_faults() -> None:
    bank, report = learn(heard(TANK), machine=TANK, **MODEL)
    assert "of indicators alone" in "\n".join(report.lines())
    assert np.mean([v.score >= 1 for v in judged(bank, heard(TANK, t_ns=LATER_NS, seed=3), TANK)]) < 0.05
    assert all(v.score >= 1 for v in judged(bank, heard(TANK, t_ns=LATER_NS, temp=50.0, seed=3), TANK))
    with pytest.raises(NotLearnt, match="1 kHz or more"):
        learn_fault(heard(TANK, temp=80.0), bank=bank, fault="leak", machine=TANK, **MODEL)


def test_faults_of_a_mixed_machine_are_learnt_by_the_channels_that_the_model_sees(mixed: Bank) -> None:
    bank, _ = learn_fault(
        heard(MIXED, t_ns=LATER_NS, temp=66.0, seed=5), bank=mixed, fault="hot", machine=MIXED, **MODEL
    )
    assert bank.faults is not None
    assert set(bank.faults.vectors) == {"vib"}
    again = Bank.from_bytes(bank.to_bytes())
    named = judged(again, heard(MIXED, t_ns=LATER_NS, temp=66.0, seed=5), MIXED)
    assert {v.fault for v in named} == {"hot"}


def test_a_value_that_stands_still_is_normal_and_zero_too() -> None:
    for value in (60.0, 0.0):
        still = Recording()
        for frame in frames(TEMP, np.full(400, value, np.float32)):
            still.add(frame)
        bank, _ = learn(still, machine=TANK, **MODEL)
        later = Recording()
        for frame in frames(TEMP, np.full(400, value, np.float32), t_ns=LATER_NS):
            later.add(frame)
        assert {v.score < 1 for v in judged(Bank.from_bytes(bank.to_bytes()), later, TANK)} == {True}


def test_a_pump_that_stopped_is_known_by_its_flow() -> None:
    bank, _ = learn(heard(TANK, temp=60.0), machine=TANK, **MODEL)
    judge = Judge(TANK, WINDOW, bank, frontend=FRONTEND)
    pipeline = Pipeline(frontend=FRONTEND, embedder=FakeEmbedder(), judges={"press-07": judge})
    (*_, last) = pipeline.process(list(moments(heard(TANK, t_ns=LATER_NS, temp=2.0), TANK, WINDOW)))
    assert (last.running, last.scored) == (False, False)


def test_a_rebuild_makes_indicators_for_a_bank_that_had_none(mixed: Bank) -> None:
    old = replace(mixed, channels=tuple(replace(c, features=NO_FEATURES) for c in mixed.channels if c.n_bands))
    small = machine(VIBRATION)
    only_vib = heard(small)
    new, _ = rebuild(only_vib, replace(old, version="v0"), machine=small, **MODEL)
    assert new.channel("vib").features.shape == (len(new.channel("vib").vectors), 35)


def test_a_bank_whose_indicators_were_tampered_with_is_refused(mixed: Bank) -> None:
    temp = mixed.channel("temp")
    for wrong, said in (
        ({"features": NO_FEATURES}, "features are missing"),
        ({"feature_spread": np.zeros(2)}, "not above 0"),
        ({"feature_centre": np.zeros(3)}, "feature_centre"),
        ({"features": temp.features[:-1]}, "features"),
    ):
        bad = replace(mixed, channels=tuple(replace(c, **wrong) if c.channel == "temp" else c for c in mixed.channels))
        with pytest.raises(BadFile, match=said):
            Bank.from_bytes(bad.to_bytes())


def test_points_carry_deviation_and_mean_and_no_distance_that_was_not_measured(mixed: Bank) -> None:
    (verdict, *_) = judged(mixed, heard(MIXED, t_ns=LATER_NS, seed=2), MIXED)
    points = verdict_points(
        Names("fisher/v1", "plant1", "edge-1"), verdict, level=Level.NORMAL, fault_code=0, latency_ms=1.0,
        statuses={c.id: Status.OK for c in MIXED.channels}, inputs={},
    )  # fmt: skip
    fields = {dict(p.tags)["channel"]: dict(p.fields) for p in points if p.measurement == "fisher_channel"}
    assert "distance" not in fields["temp"] and fields["temp"]["deviation"] >= 0
    assert fields["temp"]["mean"] == pytest.approx(60, abs=0.5)
    assert {"distance", "deviation"} <= fields["vib"].keys() and "mean" not in fields["vib"]


def test_a_bank_of_fast_channels_alone_is_as_before() -> None:
    bank, _ = learn(running(seconds=60), machine=PRESS, **MODEL)
    assert all(c.n_bands for c in bank.channels)
    with pytest.raises(BankMismatch, match="channels"):
        check(bank, Setting(bank.bundle_digest, "f32", WINDOW, MIXED, judged_by=bank.judged_by))


@pytest.mark.parametrize("judge_by", ["both", "indicators", "embedding"])
def test_what_decides_is_what_was_chosen_and_a_slow_channel_has_its_indicators(judge_by: Any, mixed: Bank) -> None:
    bank, _ = learn(heard(MIXED), machine=MIXED, judge_by=judge_by, **MODEL)
    assert Bank.from_bytes(bank.to_bytes()).judged_by == judge_by
    for verdict in judged(bank, heard(MIXED, t_ns=LATER_NS, level=1.6, temp=63.0, seed=2), MIXED):
        for reading in verdict.readings:
            channel_bank = bank.channel(reading.channel)
            seen = reading.distance / channel_bank.limit
            measured = reading.deviation / channel_bank.feature_limit
            by = {"both": max(seen, measured), "indicators": measured, "embedding": seen}[judge_by]
            assert reading.ratio == pytest.approx(by if channel_bank.n_bands else measured)


def test_indicators_decide_unless_told_otherwise(mixed: Bank) -> None:
    assert mixed.judged_by == "indicators"
