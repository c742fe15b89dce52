"""Judging with embeddings and banks made by hand, so that every distance is known."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest

from fakes import SPEC, T0_NS, WINDOW, channel, machine
from fisher_agent.bank import Bank, ChannelBank, FaultWindows
from fisher_agent.codes import Quality
from fisher_agent.config import ChannelConfig, MachineConfig
from fisher_agent.detect import Judge
from fisher_agent.errors import BankMismatch
from fisher_agent.stages import Embedding, Floats, Moment, Verdict, Window
from fisher_models.frontend import Frontend

FRONTEND = Frontend(SPEC)
VIB = channel("vib", 16_000, kind="vibration", unit="g")  # two bands
AMP = channel("amp", 4000, kind="current", unit="A")  # one
SNAP = channel("snap", 8000, kind="vibration", unit="g", capture="snapshot", period_s=2.0)
N_BANDS = {"vib": 2, "amp": 1, "snap": 1}
D = 4
LIMIT = 0.01
OCTAVES_HZ = 1000 * 10 ** (0.1 * np.arange(-10, 9))  # 100 Hz to 6.3 kHz


def at_distance(distance: float, n_bands: int, *, band: int = 0, axis: int = 1) -> Floats:
    """(n_bands * D,): a vector at this cosine distance from `e0` of its band, with all of it in that band."""
    angle = np.arccos(1 - distance)
    vector = np.zeros((n_bands, D))
    vector[band, 0], vector[band, axis] = np.cos(angle), np.sin(angle)
    return vector.reshape(-1).astype(np.float32)


def learnt(config: ChannelConfig, *, share_median: Sequence[float] | None = None) -> ChannelBank:
    """One enrolled window: e0 of every band, or of the first where there is one only."""
    n_bands = N_BANDS[config.id]
    k = len(OCTAVES_HZ)
    rows = np.stack([at_distance(0, n_bands, band=b) for b in range(n_bands)])
    return ChannelBank(
        channel=config.id, rate_hz=config.rate_hz, scale=1.0, unit=config.unit, snapshot=config.snapshot, gain=0.1,
        median_rms=1.0, n_bands=n_bands, limit=LIMIT, typical=0.2 * LIMIT, vectors=rows,
        end_ns=np.zeros(n_bands, np.int64), share_median=np.asarray(share_median or [0.0] * n_bands),
        octave_hz=OCTAVES_HZ, octave_db=np.full((n_bands, k), -70, np.float32), octave_spread_db=np.ones(k),
        octave_floor=1e-8,
    )  # fmt: skip


def make_bank(config: MachineConfig, *, limit: float = 1.0, faults: FaultWindows | None = None) -> Bank:
    return Bank(
        machine=config.id, version="v1", created_ns=0, mode="default", bundle_digest="b", bundle_name="fake",
        precision="f32", length_s=1.0, hop_s=0.5, channels=tuple(learnt(c) for c in config.channels), limit=limit,
        calibration=np.linspace(0.1, 0.9, 9), faults=faults,
    )  # fmt: skip


def window(config: ChannelConfig, end_s: float, *, rms: float = 1.0, hz: float = 1000.0) -> Window:
    t = np.arange(round(config.rate_hz)) / config.rate_hz
    samples = (rms * 2**0.5 * np.sin(2 * np.pi * hz * t)).astype(np.float32)
    end_ns = T0_NS + round(end_s * 1e9)
    return Window(
        "press-07", config.id, end_ns - 10**9, config.rate_hz, samples, end_ns=end_ns, snapshot=config.snapshot
    )


def judge_at(
    judge: Judge, end_s: float, given: Mapping[ChannelConfig, float | Floats], *, rms: float = 1.0, hz: float = 1000.0
) -> Verdict:
    """Judge a moment whose channels lie at the given distances from the bank."""
    windows = tuple(window(c, end_s, rms=rms, hz=hz) for c in given)
    moment = Moment("press-07", windows[0].end_ns if windows else T0_NS + round(end_s * 1e9), windows)
    vectors = {c.id: v if isinstance(v, np.ndarray) else at_distance(v, N_BANDS[c.id]) for c, v in given.items()}
    embeddings = {
        w.channel: Embedding("press-07", w.channel, w.t_ns, vectors[w.channel].reshape(N_BANDS[w.channel], D))
        for w in judge.wants(moment)
    }
    return judge.judge(moment, embeddings)


def judge_of(*channels: ChannelConfig, limit: float = 1.0, faults: FaultWindows | None = None, **keys: object) -> Judge:
    config = machine(*channels, **keys)
    return Judge(config, WINDOW, make_bank(config, limit=limit, faults=faults), frontend=FRONTEND)


def test_the_score_is_the_largest_ratio_over_the_calibrated_limit() -> None:
    verdict = judge_at(judge_of(VIB, AMP, limit=1.25), 1, {VIB: 0.5 * LIMIT, AMP: 2 * LIMIT})
    assert verdict.score == pytest.approx(2 / 1.25, rel=1e-4)
    assert [r.ratio for r in verdict.readings] == pytest.approx([0.5, 2.0], rel=1e-4)
    assert verdict.top is verdict.readings[1]
    assert verdict.quality is Quality.GOOD


def test_a_distance_at_the_limit_scores_exactly_one() -> None:
    config = machine(AMP)
    bank = make_bank(config)
    vector = at_distance(LIMIT, 1)
    measured = judge_at(Judge(config, WINDOW, bank, frontend=FRONTEND), 1, {AMP: vector}).readings[0].distance
    exact = replace(bank, channels=(replace(bank.channels[0], limit=measured),))
    verdict = judge_at(Judge(config, WINDOW, exact, frontend=FRONTEND), 1, {AMP: vector})
    assert verdict.score == 1.0
    assert verdict.fault == "unknown"


def test_p_comes_from_the_calibration_scores() -> None:
    assert judge_at(judge_of(AMP), 1, {AMP: 0.55 * LIMIT}).p_value == pytest.approx(5 / 10)
    assert judge_at(judge_of(AMP), 1, {AMP: 3 * LIMIT}).p_value == pytest.approx(1 / 10)


def test_contributions_are_the_excess_over_the_typical_ratio_and_sum_to_one() -> None:
    verdict = judge_at(judge_of(VIB, AMP), 1, {VIB: 0.1 * LIMIT, AMP: 2 * LIMIT})
    assert [r.contribution for r in verdict.readings] == [0.0, 1.0]
    verdict = judge_at(judge_of(VIB, AMP), 1, {VIB: 0.8 * LIMIT, AMP: 2 * LIMIT})
    assert [r.contribution for r in verdict.readings] == pytest.approx([0.25, 0.75], rel=1e-3)
    verdict = judge_at(judge_of(VIB, AMP), 1, {VIB: 0.1 * LIMIT, AMP: 0.1 * LIMIT})
    assert [r.contribution for r in verdict.readings] == [0.0, 0.0]


def test_a_missing_channel_makes_the_verdict_partial_and_is_named() -> None:
    verdict = judge_at(judge_of(VIB, AMP), 1, {AMP: 2 * LIMIT})
    assert verdict.quality is Quality.PARTIAL
    assert verdict.score == pytest.approx(2, rel=1e-4)
    assert "vib" in verdict.note


@pytest.mark.parametrize("value", [0.0, np.nan])
def test_a_flat_or_broken_channel_is_not_compared(value: float) -> None:
    judge = judge_of(VIB, AMP)
    vib, amp = window(VIB, 1), window(AMP, 1)
    moment = Moment("press-07", vib.end_ns, (replace(vib, samples=np.full_like(vib.samples, value)), amp))
    assert [w.channel for w in judge.wants(moment)] == ["amp"]
    verdict = judge.judge(moment, {"amp": Embedding("press-07", "amp", 0, at_distance(LIMIT / 2, 1)[None])})
    assert verdict.quality is Quality.PARTIAL
    assert verdict.readings[0].flat is (value == 0.0)
    assert verdict.readings[0].ratio == -1
    assert verdict.scored


def test_a_machine_of_which_every_channel_is_flat_has_bad_quality_and_does_not_look_normal() -> None:
    judge = judge_of(VIB, AMP)
    flat = tuple(replace(w, samples=np.zeros_like(w.samples)) for w in (window(VIB, 1), window(AMP, 1)))
    moment = Moment("press-07", flat[0].end_ns, flat)
    assert judge.wants(moment) == []
    verdict = judge.judge(moment, {})
    assert verdict.quality is Quality.BAD
    assert not verdict.running
    assert not verdict.scored


def test_a_stopped_machine_is_neither_embedded_nor_scored() -> None:
    judge = judge_of(VIB, AMP)
    moment = Moment("press-07", window(VIB, 1).end_ns, (window(VIB, 1, rms=0.1), window(AMP, 1, rms=0.1)))
    assert judge.wants(moment) == []
    verdict = judge.judge(moment, {})
    assert (verdict.running, verdict.score, verdict.p_value, verdict.fault) == (False, 0.0, 1.0, None)
    assert verdict.quality is Quality.GOOD
    assert verdict.mode is None
    assert [r.rms for r in verdict.readings] == pytest.approx([0.1, 0.1], rel=1e-3)


def test_a_machine_that_is_not_enrolled_has_indicators_and_bad_quality() -> None:
    config = machine(VIB, AMP)
    judge = Judge(config, WINDOW, None, frontend=FRONTEND)
    moment = Moment("press-07", window(VIB, 1).end_ns, (window(VIB, 1, hz=500.0), window(AMP, 1)))
    assert judge.wants(moment) == []
    verdict = judge.judge(moment, {})
    assert not verdict.enrolled
    assert verdict.quality is Quality.BAD
    assert verdict.bank == ""
    assert verdict.readings[0].velocity_rms_mm_s == pytest.approx(9806.65 / (2 * np.pi * 500), rel=0.01)


def test_a_channel_that_left_the_configuration_is_not_looked_at() -> None:
    judge = judge_of(AMP)
    moment = Moment("press-07", window(VIB, 1).end_ns, (window(VIB, 1), window(AMP, 1)))
    assert [w.channel for w in judge.wants(moment)] == ["amp"]
    verdict = judge.judge(moment, {"amp": Embedding("press-07", "amp", 0, at_distance(LIMIT / 2, 1)[None])})
    assert [r.channel for r in verdict.readings] == ["amp"]


def test_an_embedding_of_another_shape_is_refused() -> None:
    moment = Moment("press-07", window(AMP, 1).end_ns, (window(AMP, 1),))
    with pytest.raises(BankMismatch, match="banks rebuild"):
        judge_of(AMP).judge(moment, {"amp": Embedding("press-07", "amp", 0, np.ones((2, D), np.float32))})


# Snapshots


def test_a_snapshot_stays_part_of_the_verdicts_until_it_is_stale() -> None:
    judge = judge_of(AMP, SNAP)
    low = 0.1 * LIMIT
    assert judge_at(judge, 0.5, {AMP: low}).quality is Quality.PARTIAL
    assert judge_at(judge, 1.0, {AMP: low, SNAP: 3 * LIMIT}).score == pytest.approx(3, rel=1e-4)
    held = judge_at(judge, 7.0, {AMP: low})  # three periods of 2 s later
    assert held.score == pytest.approx(3, rel=1e-4)
    assert held.quality is Quality.GOOD
    assert [r.channel for r in held.readings] == ["amp", "snap"]
    stale = judge_at(judge, 7.5, {AMP: low})
    assert stale.score == pytest.approx(0.1, rel=1e-3)
    assert stale.quality is Quality.PARTIAL


def test_a_new_snapshot_replaces_the_held_one_and_a_flat_one_removes_it() -> None:
    judge = judge_of(AMP, SNAP)
    judge_at(judge, 1.0, {AMP: LIMIT / 10, SNAP: 3 * LIMIT})
    assert judge_at(judge, 2.0, {AMP: LIMIT / 10, SNAP: 2 * LIMIT}).score == pytest.approx(2, rel=1e-4)
    snap, amp = window(SNAP, 3.0, rms=0.0), window(AMP, 3.0)
    embedding = Embedding("press-07", "amp", 0, at_distance(LIMIT / 10, 1)[None])
    verdict = judge.judge(Moment("press-07", amp.end_ns, (amp, snap)), {"amp": embedding})
    assert verdict.quality is Quality.PARTIAL
    assert verdict.score == pytest.approx(0.1, rel=1e-3)


# Explanation


def test_the_shares_of_a_channel_sum_to_one_and_name_the_band() -> None:
    reading = judge_at(judge_of(VIB), 1, {VIB: at_distance(2 * LIMIT, 2, band=1)}).readings[0]
    assert reading.bands == pytest.approx((0.0, 1.0), abs=1e-6)
    assert reading.band_edges_hz == ((0.0, 4000.0), (4000.0, 8000.0))


def test_the_median_share_of_the_enrolment_is_taken_off_and_nothing_is_left_of_a_typical_window() -> None:
    config = machine(VIB)
    usual = learnt(VIB, share_median=[0.5 * LIMIT, 0.0])
    judge = Judge(config, WINDOW, replace(make_bank(config), channels=(usual,)), frontend=FRONTEND)
    both = np.zeros((2, D))
    both[0, :2] = np.cos(0.2), np.sin(0.2)  # 0.02 of distance in the first band, before the second takes its part
    both[1, 1] = 0.1
    reading = judge_at(judge, 1, {VIB: both.reshape(-1).astype(np.float32)}).readings[0]
    unit = both.reshape(-1) / np.linalg.norm(both)
    rows = np.eye(2 * D)[0]
    parts = 0.5 * np.square(unit - rows).reshape(2, D).sum(axis=1) - [0.5 * LIMIT, 0]
    assert reading.bands == pytest.approx(tuple(parts / parts.sum()), rel=1e-4)
    assert judge_at(judge, 2, {VIB: 0.4 * LIMIT}).readings[0].bands == (0.0, 0.0)


def test_the_frequency_that_is_named_is_where_the_spectrum_changed() -> None:
    peak = judge_at(judge_of(VIB), 1, {VIB: 2 * LIMIT}, hz=1250.0).readings[0].peak_band
    assert peak is not None
    assert peak.hz_low < 1250 < peak.hz_high
    assert peak.change_db == pytest.approx(70, abs=0.5)


def test_the_frequency_that_is_named_lies_in_the_band_that_was_scored() -> None:
    far = at_distance(2 * LIMIT, 2, band=1)
    peak = judge_at(judge_of(VIB), 1, {VIB: far}, hz=1250.0).readings[0].peak_band
    assert peak is not None
    assert peak.hz_low > 3500


def test_a_line_that_always_moves_is_not_named() -> None:
    config = machine(VIB)
    spread = np.where(np.abs(OCTAVES_HZ - 1259) < 10, 100.0, 1.0)
    restless = replace(learnt(VIB), octave_spread_db=spread)
    judge = Judge(config, WINDOW, replace(make_bank(config), channels=(restless,)), frontend=FRONTEND)
    peak = judge_at(judge, 1, {VIB: 2 * LIMIT}, hz=1259.0).readings[0].peak_band
    assert peak is not None
    assert not peak.hz_low < 1259 < peak.hz_high


def test_nothing_is_explained_under_the_limit() -> None:
    assert judge_at(judge_of(VIB), 1, {VIB: 0.9 * LIMIT}).readings[0].peak_band is None


# Faults


def labelled(*rows: tuple[str, Floats | None, Floats | None], reach: float = 2.0) -> FaultWindows:
    """Windows (class, vib or None, amp or None)."""
    labels = tuple(label for label, *_ in rows)
    return FaultWindows(
        labels=labels,
        end_ns=np.arange(len(rows), dtype=np.int64),
        vectors={
            "vib": np.stack([np.zeros(2 * D, np.float32) if v is None else v for _, v, _ in rows]),
            "amp": np.stack([np.zeros(D, np.float32) if a is None else a for *_, a in rows]),
        },
        present={
            "vib": np.asarray([v is not None for _, v, _ in rows]),
            "amp": np.asarray([a is not None for *_, a in rows]),
        },
        reach=dict.fromkeys(labels, reach),
    )


FAR = 0.2  # 20 limits


def only_amp(label: str, distance: float = FAR, *, axis: int = 1) -> tuple[str, None, Floats]:
    return label, None, at_distance(distance, 1, axis=axis)


def test_a_fault_is_named_by_the_vote_of_the_nearest_five() -> None:
    faults = labelled(
        *[only_amp("bearing", FAR + i * 1e-4) for i in range(4)],
        only_amp("belt", FAR + 5e-4),
        only_amp("belt", FAR + 9e-4),
    )
    verdict = judge_at(judge_of(VIB, AMP, faults=faults), 1, {AMP: FAR})
    assert verdict.fault == "bearing"
    assert verdict.fault_confidence == pytest.approx(0.8)
    assert verdict.faults == {"bearing": pytest.approx(0.8), "belt": pytest.approx(0.2)}


def test_one_labelled_window_is_enough() -> None:
    verdict = judge_at(judge_of(VIB, AMP, faults=labelled(only_amp("bearing"))), 1, {AMP: FAR})
    assert (verdict.fault, verdict.fault_confidence) == ("bearing", 1.0)


def test_no_fault_is_named_of_a_normal_window() -> None:
    verdict = judge_at(judge_of(VIB, AMP, faults=labelled(only_amp("bearing", LIMIT / 2))), 1, {AMP: LIMIT / 2})
    assert verdict.fault is None
    assert verdict.faults == {}


def test_a_strange_window_without_labelled_ones_is_unknown() -> None:
    verdict = judge_at(judge_of(AMP), 1, {AMP: FAR})
    assert (verdict.fault, verdict.fault_confidence) == ("unknown", 0.0)


def test_a_window_far_from_every_labelled_one_is_unknown() -> None:
    faults = labelled(only_amp("bearing", axis=2))
    assert judge_at(judge_of(VIB, AMP, faults=faults), 1, {AMP: FAR}).fault == "unknown"


def test_a_window_nearer_to_normal_than_to_a_fault_is_unknown() -> None:
    faults = labelled(only_amp("bearing", 0.1), reach=1000.0)
    assert judge_at(judge_of(VIB, AMP, faults=faults), 1, {AMP: 1.1 * LIMIT}).fault == "unknown"
    assert judge_at(judge_of(VIB, AMP, faults=faults), 1, {AMP: 9 * LIMIT}).fault == "bearing"


def test_a_vote_without_a_majority_is_unknown() -> None:
    faults = labelled(only_amp("bearing"), only_amp("belt"))
    verdict = judge_at(judge_of(VIB, AMP, faults=faults), 1, {AMP: FAR})
    assert (verdict.fault, verdict.fault_confidence) == ("unknown", 0.0)
    assert verdict.faults == {"bearing": 0.5, "belt": 0.5}


def test_only_channels_that_both_have_are_compared() -> None:
    elsewhere = at_distance(FAR, 2, axis=3)
    faults = labelled(("bearing", None, at_distance(FAR, 1)), ("belt", elsewhere, at_distance(FAR, 1)))
    near_both = {VIB: at_distance(FAR, 2), AMP: at_distance(FAR, 1)}
    assert judge_at(judge_of(VIB, AMP, faults=faults), 1, near_both).fault == "bearing"
    assert judge_at(judge_of(VIB, AMP, faults=faults), 1, {VIB: elsewhere}).fault == "belt"
