import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fakes import (
    CURRENT,
    PRESS,
    SPEC,
    T0_NS,
    VIBRATION,
    WINDOW,
    FakeEmbedder,
    bundle,
    channel,
    frames,
    machine,
    recording,
    running,
    signal,
)
from fisher_agent.bank import Bank
from fisher_agent.codes import Quality
from fisher_agent.config import WindowConfig
from fisher_agent.detect import Judge
from fisher_agent.enrolment import Recording, Report, learn, learn_fault, rebuild
from fisher_agent.errors import BankMismatch, ConfigError, NotLearnt
from fisher_agent.indicators import level
from fisher_agent.pipeline import Pipeline
from fisher_agent.stages import Floats, Verdict
from fisher_agent.survey import moments
from fisher_models.frontend import Frontend

FRONTEND = Frontend(SPEC)
LATER_NS = T0_NS + 10**13


def enrol(given: Recording, **keys: Any) -> tuple[Bank, Report]:
    return learn(given, **(model() | keys))


def model(**keys: Any) -> dict[str, Any]:
    return {
        "machine": PRESS, "window": WINDOW, "bundle": bundle(), "frontend": FRONTEND, "embedder": FakeEmbedder(),
        "version": "v1", "created_ns": 7,
    } | keys  # fmt: skip


def verdicts(bank: Bank, given: Recording, *, config: Any = PRESS) -> list[Verdict]:
    judge = Judge(config, WINDOW, bank, frontend=FRONTEND)
    pipeline = Pipeline(frontend=FRONTEND, embedder=FakeEmbedder(), judges={"press-07": judge})
    return pipeline.process(list(moments(given, config, WINDOW)))


@pytest.fixture(scope="module")
def learnt() -> tuple[Bank, Report]:
    return enrol(running(seconds=60))


@pytest.fixture(scope="module")
def bank(learnt: tuple[Bank, Report]) -> Bank:
    return learnt[0]


# What is learnt


def test_held_out_normal_running_stays_under_the_limit_and_its_p_values_are_spread(bank: Bank) -> None:
    held_out = verdicts(bank, running(seconds=100, seed=2, t_ns=LATER_NS))
    assert len(held_out) == 199
    assert max(v.score for v in held_out) < 1
    assert all(v.quality is Quality.GOOD and v.fault is None for v in held_out)
    assert np.quantile([v.p_value for v in held_out], [0.25, 0.5, 0.75]) == pytest.approx([0.25, 0.5, 0.75], abs=0.2)


def test_a_new_line_in_the_spectrum_passes_the_limit_and_is_named(bank: Bank) -> None:
    for verdict in verdicts(bank, running(seconds=10, seed=3, t_ns=LATER_NS, tone_hz=1230.37)):
        assert verdict.score > 2
        assert verdict.fault == "unknown"
        assert verdict.p_value == pytest.approx(1 / 61)
        assert verdict.top is not None
        assert verdict.top.channel == "vib"
        assert verdict.top.contribution > 0.9
        assert verdict.top.peak_band is not None
        assert verdict.top.peak_band.hz_low < 1230 < verdict.top.peak_band.hz_high


def test_a_change_of_level_is_visible(bank: Bank) -> None:
    assert min(v.score for v in verdicts(bank, running(seconds=10, seed=3, t_ns=LATER_NS, level=1.5))) > 1


def test_the_gain_brings_the_median_rms_to_a_tenth(bank: Bank) -> None:
    for learnt_channel in bank.channels:
        assert learnt_channel.gain * learnt_channel.median_rms == pytest.approx(0.1)
    vib = signal(VIBRATION, 60, seed=1)
    assert bank.channel("vib").median_rms == pytest.approx(level(vib).rms, rel=0.01)


def test_the_bank_is_bound_to_what_made_it(bank: Bank) -> None:
    assert (bank.bundle_digest, bank.bundle_name, bank.precision) == (bundle().digest, "fake", "f32")
    assert (bank.length_s, bank.hop_s, bank.version, bank.created_ns, bank.mode) == (1.0, 0.5, "v1", 7, "default")
    assert (bank.channel("amp").rate_hz, bank.channel("amp").unit) == (4000.0, "A")
    assert enrol(running(seconds=12), mode="slow")[0].mode == "slow"


def test_left_out_with_a_window_is_its_block_and_every_window_that_touches_it() -> None:
    """Every second is another random machine, so that only windows that share samples resemble one another."""
    rng = np.random.default_rng(0)
    lines = [rng.uniform(100, 3900, 6) for _ in range(24)]
    t = np.arange(8000) / 8000
    samples = np.concatenate([np.sin(2 * np.pi * hz[:, None] * t).sum(axis=0) for hz in lines]).astype(np.float32)
    bank, report = enrol(recording({VIBRATION: samples}), machine=machine(VIBRATION))
    vectors = bank.channels[0].vectors.astype(np.float64)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    starts = np.arange(len(vectors)) * 0.5
    block = np.arange(len(vectors)) * 10 // len(vectors)
    distances = []
    for i, vector in enumerate(vectors):
        mine = starts[block == block[i]]
        apart = (starts + 1.0 <= mine[0]) | (starts >= mine[-1] + 1.0)
        distances.append((1 - vectors[apart] @ vector).min())
    assert bank.channels[0].typical == pytest.approx(np.median(distances), rel=1e-6)
    assert report.channels[0].p95_distance == pytest.approx(np.quantile(distances, 0.95), rel=1e-6)


def test_p_values_count_windows_that_do_not_overlap(bank: Bank) -> None:
    assert len(bank.channel("vib").vectors) == 119
    assert len(bank.calibration) == 60
    assert (np.diff(bank.calibration) >= 0).all()
    assert bank.calibration[-1] < 1


def test_an_enrolment_is_the_same_however_its_blocks_came(bank: Bank) -> None:
    parts = {c: signal(c, 60, seed=1) for c in PRESS.channels}
    other, _ = enrol(recording(parts, block_s=0.0371))
    assert other.limit == pytest.approx(bank.limit, rel=1e-4)
    assert np.allclose(other.channel("vib").vectors, bank.channel("vib").vectors, atol=1e-4)


def test_progress_counts_every_window_once() -> None:
    seen: list[tuple[int, int]] = []
    enrol(running(seconds=20), progress=lambda done, total: seen.append((done, total)))
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})
    assert seen[-1] == (78, 78)
    assert {total for _, total in seen} == {78}


def test_the_report_says_what_was_learnt(learnt: tuple[Bank, Report]) -> None:
    bank, report = learnt
    text = "\n".join(report.lines())
    assert "119 moments learnt (60 without overlap)" in text
    assert f"limit {bank.channel('amp').limit:.2g}" in text
    assert report.too_little == ()
    assert json.loads(json.dumps(report.as_dict()))["channels"][0]["windows"] == 119


def test_a_short_enrolment_says_that_it_was_short() -> None:
    bank, report = enrol(running(seconds=10))
    assert any("only 10 windows do not overlap" in s for s in report.too_little)
    assert max(v.score for v in verdicts(bank, running(seconds=30, seed=5, t_ns=LATER_NS))) < 1


# Starts, stops, gaps


def ramped(stop_s: float = 10.0, *, total_s: float = 60.0) -> Recording:
    """Normal running with a standstill in the middle."""
    parts: dict[Any, Floats] = {}
    for config in PRESS.channels:
        samples = signal(config, total_s, seed=1)
        first = round(20 * config.rate_hz)
        samples[first : first + round(stop_s * config.rate_hz)] *= 0.01
        parts[config] = samples
    return recording(parts)


def test_windows_at_start_up_and_shut_down_are_dropped() -> None:
    bank, report = enrol(ramped())
    assert report.dropped_moments > 18
    ends_s = (bank.channel("vib").end_ns - T0_NS) / 1e9
    assert not ((ends_s > 19.5) & (ends_s - 1 < 30.5)).any()  # those that only adjoin are dropped too
    assert f"{report.dropped_moments} dropped" in "\n".join(report.lines())


def test_a_bank_of_a_machine_that_stopped_once_is_as_tight_as_one_of_steady_running(bank: Bank) -> None:
    assert enrol(ramped())[0].channel("vib").limit == pytest.approx(bank.channel("vib").limit, rel=0.5)


def test_a_stopped_machine_is_not_scored(bank: Bank) -> None:
    stopped = verdicts(bank, running(seconds=10, t_ns=LATER_NS, level=0.01))
    assert stopped
    both = machine(VIBRATION)
    alone, _ = enrol(running(both, seconds=20), machine=both)
    silent = verdicts(alone, running(both, seconds=5, t_ns=LATER_NS, level=0.01), config=both)
    assert not any(v.running or v.scored or v.score for v in silent)


def test_files_that_do_not_follow_one_another_are_learnt_together() -> None:
    parts = Recording()
    for i in range(14):
        for config in PRESS.channels:
            for frame in frames(config, signal(config, 1.0, seed=i), t_ns=T0_NS + i * 10**10):
                parts.add(frame)
    bank, report = enrol(parts)
    assert report.moments == report.independent == 14
    assert bank.channel("vib").vectors.shape[0] == 14


# Refusals


def test_a_channel_without_data_is_refused_by_name() -> None:
    with pytest.raises(NotLearnt, match=r"press-07/amp gave no data"):
        enrol(recording({VIBRATION: signal(VIBRATION, 20, seed=1)}))


def test_a_recording_shorter_than_a_window_is_refused() -> None:
    with pytest.raises(NotLearnt, match=r"no whole window of 1 s \(0\.6 s"):
        enrol(running(seconds=0.6))


def test_a_flat_channel_is_refused_by_name() -> None:
    parts = {VIBRATION: signal(VIBRATION, 20, seed=1), CURRENT: np.full(80_000, 4.2, np.float32)}
    with pytest.raises(NotLearnt, match=r"press-07/amp is flat"):
        enrol(recording(parts))


def test_samples_that_are_no_numbers_are_refused_by_name() -> None:
    parts = {VIBRATION: np.full(160_000, np.nan, np.float32), CURRENT: signal(CURRENT, 20, seed=1)}
    with pytest.raises(NotLearnt, match=r"press-07/vib gave samples that are no numbers"):
        enrol(recording(parts))


def test_a_machine_under_its_running_rms_is_refused() -> None:
    quiet = machine(VIBRATION, channel("amp", 4000, kind="current", unit="A", running_rms=5.0))
    with pytest.raises(NotLearnt, match=r"does not run.*amp.*running_rms of 5"):
        enrol(running(seconds=20), machine=quiet)


def test_a_machine_far_under_the_level_of_the_bank_before_is_refused(bank: Bank) -> None:
    quiet = {c: signal(c, 20, seed=1, level=0.1) for c in PRESS.channels}
    with pytest.raises(NotLearnt, match=r"does not run.*bank v1.*amp 0\.10"):
        enrol(recording(quiet), previous=bank)
    assert enrol(running(seconds=20), previous=bank)[0].machine == "press-07"


def test_a_channel_whose_scale_changed_is_not_compared_with_the_bank_before(bank: Bank) -> None:
    quiet = {c: signal(c, 20, seed=1, level=0.1) for c in PRESS.channels}
    rescaled = machine(*(c.model_copy(update={"scale": 0.1}) for c in PRESS.channels))
    assert enrol(recording(quiet), machine=rescaled, previous=bank)[0].channel("amp").scale == 0.1


def test_a_machine_that_mostly_stands_is_refused() -> None:
    with pytest.raises(NotLearnt, match=r"mostly stood still"):
        enrol(ramped(stop_s=38.0))


@pytest.mark.parametrize(("window", "seconds"), [(WINDOW, 5.0), (WindowConfig(length_s=1.0, hop_s=0.05), 4.0)])
def test_too_few_windows_are_refused_and_the_message_says_how_long_to_enrol(
    window: WindowConfig, seconds: float
) -> None:
    with pytest.raises(NotLearnt, match=r"at least 10 and 5 are needed: enrol for \d+"):
        enrol(running(seconds=seconds), window=window)


def test_the_length_that_a_refusal_asks_for_is_enough() -> None:
    with pytest.raises(NotLearnt) as refused:
        enrol(running(seconds=3))
    needed_s = float(str(refused.value).split("enrol for ")[1].split(" s")[0])
    assert enrol(running(seconds=needed_s))[1].moments >= 10


# Snapshots


SNAP = channel("snap", 8000, kind="vibration", unit="g", capture="snapshot", period_s=2.0)


def with_snapshots(count: int, *, seed: int = 1, seconds: float = 40.0, t_ns: int = T0_NS, **fault: float) -> Recording:
    out = recording({CURRENT: signal(CURRENT, seconds, seed=seed)}, t_ns=t_ns)
    for i in range(count):
        samples = signal(SNAP, 0.2, seed=1000 * seed + i, **fault)
        for frame in frames(SNAP, samples, t_ns=t_ns + round((2 * i + 0.1) * 1e9)):
            out.add(frame)
    return out


def test_a_machine_with_streams_and_snapshots_is_learnt_and_judged_at_every_grid_time() -> None:
    mixed = machine(CURRENT, SNAP)
    bank, report = enrol(with_snapshots(20), machine=mixed)
    assert [c.windows for c in report.channels] == [79, 20]
    normal = verdicts(bank, with_snapshots(20, seed=2, t_ns=LATER_NS), config=mixed)
    assert max(v.score for v in normal) < 1
    assert sum(v.quality is Quality.GOOD for v in normal) >= len(normal) - 1
    strange = verdicts(
        bank, with_snapshots(3, seed=3, seconds=6, t_ns=LATER_NS, tone_hz=1500.23, tone=1.0), config=mixed
    )
    assert max(v.score for v in strange) > 1


def test_too_few_snapshots_are_refused_in_terms_of_their_period() -> None:
    with pytest.raises(NotLearnt, match=r"press-07/snap gave 6 windows.*enrol for 21 s"):
        enrol(with_snapshots(6), machine=machine(CURRENT, SNAP))


# Faults


@pytest.fixture(scope="module")
def with_fault(bank: Bank) -> tuple[Bank, Report]:
    return learn_fault(running(seconds=10, seed=4, tone_hz=1230.37), bank=bank, fault="bearing", **model(version="v2"))


def test_an_enrolled_fault_is_named_another_one_is_unknown(with_fault: tuple[Bank, Report]) -> None:
    bank, _ = with_fault
    again = verdicts(bank, running(seconds=10, seed=5, t_ns=LATER_NS, tone_hz=1230.37))
    assert {v.fault for v in again} == {"bearing"}
    assert all(v.fault_confidence == 1.0 and v.bank == "v2" for v in again)
    other = verdicts(bank, running(seconds=10, seed=5, t_ns=LATER_NS, tone_hz=3100.41))
    assert {v.fault for v in other} == {"unknown"}
    assert {v.fault for v in verdicts(bank, running(seconds=10, seed=5, t_ns=LATER_NS))} == {None}


def test_a_second_fault_joins_the_first(with_fault: tuple[Bank, Report]) -> None:
    bank, _ = learn_fault(running(seconds=10, seed=4, tone_hz=3100.41), bank=with_fault[0], fault="belt", **model())
    assert bank.faults is not None
    assert bank.faults.counts == {"bearing": 19, "belt": 19}
    assert {v.fault for v in verdicts(bank, running(seconds=5, seed=6, t_ns=LATER_NS, tone_hz=3100.41))} == {"belt"}
    assert {v.fault for v in verdicts(bank, running(seconds=5, seed=6, t_ns=LATER_NS, tone_hz=1230.37))} == {"bearing"}


def test_labelling_leaves_normal_running_as_it_was(bank: Bank, with_fault: tuple[Bank, Report]) -> None:
    labelled, report = with_fault
    assert replace(labelled, faults=None, version=bank.version).to_bytes() == bank.to_bytes()
    assert (report.fault, report.moments) == ("bearing", 19)


def test_a_fault_that_looks_normal_is_reported(bank: Bank) -> None:
    _, report = learn_fault(running(seconds=10, seed=4), bank=bank, fault="bearing", **model())
    assert any("19 of 19 windows look normal" in s for s in report.too_little)


def test_a_fault_of_a_machine_that_stands_is_refused(bank: Bank) -> None:
    standing = recording({c: signal(c, 10, seed=1, level=0.01) for c in PRESS.channels})
    with pytest.raises(NotLearnt, match="record the fault while the machine runs"):
        learn_fault(standing, bank=bank, fault="bearing", **model())


@pytest.mark.parametrize("name", ["", "unknown", "a b", "x" * 43, "bearing\n"])
def test_a_fault_class_must_fit_an_alarm_id(bank: Bank, name: str) -> None:
    with pytest.raises(ConfigError, match="fault class"):
        learn_fault(running(seconds=5), bank=bank, fault=name, **model())


def test_a_fault_cannot_join_a_bank_of_another_model(bank: Bank) -> None:
    with pytest.raises(BankMismatch, match="banks rebuild"):
        learn_fault(running(seconds=5), bank=bank, fault="belt", **model(bundle=bundle(digest="b1")))


def test_learning_anew_keeps_the_faults_whose_recordings_are_given_and_names_the_others(
    with_fault: tuple[Bank, Report],
) -> None:
    fault = running(seconds=10, seed=4, tone_hz=1230.37)
    kept, report = enrol(running(seconds=20), previous=with_fault[0], faults={"bearing": fault})
    assert kept.faults is not None
    assert not any("is not in this one" in s for s in report.too_little)
    lost, report = enrol(running(seconds=20), previous=with_fault[0])
    assert lost.faults is None
    assert any("fault bearing of bank v2 is not in this one" in s for s in report.too_little)


# Rebuilding


def test_a_rebuilt_bank_is_for_the_new_bundle_window_and_precision_and_keeps_gains(
    with_fault: tuple[Bank, Report],
) -> None:
    old = with_fault[0]
    window = WindowConfig(length_s=0.5, hop_s=0.5)
    keys = model(bundle=bundle(digest="b1"), window=window, embedder=FakeEmbedder(precision="int8"), version="v3")
    fault = running(seconds=10, seed=4, tone_hz=1230.37)
    bank, _ = rebuild(running(seconds=20), old, faults={"bearing": fault}, **keys)
    assert (bank.bundle_digest, bank.precision, bank.length_s, bank.version) == ("b1", "int8", 0.5, "v3")
    assert [c.gain for c in bank.channels] == [c.gain for c in old.channels]
    assert [c.median_rms for c in bank.channels] == [c.median_rms for c in old.channels]
    assert bank.faults is not None
    assert set(bank.faults.counts) == {"bearing"}


def test_rebuilding_with_the_same_model_from_the_same_waveforms_gives_the_same_bank(bank: Bank) -> None:
    again, _ = rebuild(running(seconds=60), bank, **model())
    assert again.to_bytes() == bank.to_bytes()


def test_a_bank_of_another_sensor_cannot_be_rebuilt(bank: Bank) -> None:
    with pytest.raises(BankMismatch, match="enrol again"):
        rebuild(running(seconds=20), bank, **model(machine=machine(VIBRATION)))
