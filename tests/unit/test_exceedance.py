import math
from dataclasses import replace

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.signal import lfilter
from scipy.stats import poisson

from fisher_agent import exceedance
from fisher_agent.alarmconfig import AlarmConfig
from fisher_agent.alarms import Event, MachineAlarms
from fisher_agent.bank import _Taker
from fisher_agent.budget import Budget
from fisher_agent.codes import Quality
from fisher_agent.errors import BadFile
from fisher_agent.exceedance import HIGHEST, KEPT, Blocks, Calibrated
from fisher_agent.stages import Verdict

Doubles = NDArray[np.float64]
NOTHING = Blocks(0, np.zeros(0), 5, 2.5)
maxima = st.lists(st.floats(0.01, 3), min_size=2, max_size=40)


def wander(rng: np.random.Generator, n: int, *, rho: float = 0.0, law: str = "normal") -> Doubles:
    """Ratios whose logarithm is an autoregressive process of the first order."""
    drawn = rng.standard_t(3, n + 200) if law == "heavy" else rng.normal(size=n + 200)
    return np.asarray(0.5 * np.exp(0.1 * lfilter([math.sqrt(1 - rho**2)], [1, -rho], drawn)[200:]))


def calibrated(blocks: Blocks, per_h: float, *, margin: float = 1e-9) -> Calibrated:
    return Calibrated(Budget(per_h), blocks, margin, margin, least_apart=8)


# What raises an alarm


@given(st.lists(st.floats(0, 2), max_size=30), st.integers(1, 5), st.integers(0, 4), st.floats(0.1, 1.9))
def test_n_of_m_reach_a_limit_where_the_nth_largest_does(ratios: list[float], n: int, more: int, limit: float) -> None:
    m = n + more
    found = exceedance.sustained(np.asarray(ratios), n=n, m=m)
    runs = [ratios[i : i + m] for i in range(len(ratios) - m + 1)]
    assert (found >= limit).tolist() == [sum(x >= limit for x in run) >= n for run in runs]


@given(st.lists(st.sampled_from([0.5, 1.5]), min_size=8, max_size=200), st.integers(1, 4), st.integers(1, 6))
def test_an_alarm_is_never_raised_more_often_than_blocks_reach_the_limit_allow(
    scores: list[float], on: int, off: int
) -> None:
    alarms = MachineAlarms("m", ["c"], AlarmConfig(on_delay_windows=on, off_delay_windows=off))
    raised = 0
    for k, score in enumerate(scores):
        verdict = Verdict("m", k * 10**9, score, 0.5, "default", True, True, None, 0.0, Quality.GOOD)
        raised += sum(t.event is Event.RAISE for t in alarms.verdict(verdict, fault_code=0))
    windows = exceedance.block_windows(memory_s=2.0, step_s=1.0, m=on)
    found = exceedance.sustained(np.asarray(scores), n=on, m=on)
    # Whole blocks, and what is left over as one more.
    over = sum((found[i : i + windows] >= 1).any() for i in range(0, len(found), windows))
    assert raised <= over * -(-windows // (on + off))
    assert (raised > 0) == bool((found >= 1).any())


def test_a_block_is_longer_than_what_two_verdicts_share() -> None:
    assert exceedance.block_windows(memory_s=5.0, step_s=2.5, m=3) == 5
    assert exceedance.block_windows(memory_s=20.0, step_s=2.5, m=3) == 11
    assert exceedance.block_windows(memory_s=40.0, step_s=40.0, m=3) == 4


def test_blocks_are_cut_from_whole_runs_and_nothing_is_left_out() -> None:
    ratios = np.asarray([1, 1, 1, 0.2, 0.2, 0.3, 3, 3, 3, 0.1, 9, 9.0])
    blocks = exceedance.cut(ratios, n=2, m=2, windows=4, step_s=2.0)
    assert (blocks.count, blocks.block_s) == (2, 8.0)
    assert blocks.top.tolist() == [9, 1]  # of the first six runs of two, and of the last five
    assert exceedance.cut(ratios[:1], n=2, m=2, windows=4, step_s=2.0).count == 0


# Conformal: within what was seen


@pytest.mark.parametrize("law", ["normal", "heavy"])
@pytest.mark.parametrize(("n", "rank"), [(19, 1), (19, 3), (60, 1), (60, 6)])
def test_under_exchangeability_exactly_the_promised_share_of_new_blocks_passes(law: str, n: int, rank: int) -> None:
    rng = np.random.default_rng([n, rank])
    seeds, new = 400, 100
    passed = 0
    for _ in range(seeds):
        limit = NOTHING.added(wander(rng, n, law=law)).quantile(rank / (n + 1))
        passed += int((wander(rng, new, law=law) >= limit).sum())
    promised = seeds * new * rank / (n + 1)
    # Blocks of one seed share a limit: their number scatters more than a Poisson number, by this much (beta-binomial).
    scatter = 1 + (new - 1) / (n + 2)
    assert abs(passed - promised) < 3.3 * math.sqrt(promised * scatter)


@pytest.mark.parametrize("rho", [0.0, 0.6, 0.9])
@pytest.mark.parametrize("law", ["normal", "heavy"])
def test_alarms_of_an_autocorrelated_score_come_no_more_often_than_promised(rho: float, law: str) -> None:
    rng = np.random.default_rng([round(100 * rho), len(law)])
    per_h, raised, seeds, step_s, hours = 6.0, 0, 150, 2.5, 1.0
    for _ in range(seeds):
        enrolled = wander(rng, 480, rho=rho, law=law)  # 20 minutes
        found = calibrated(exceedance.cut(enrolled, n=3, m=3, windows=5, step_s=step_s), per_h)
        assert found.supported
        lived = exceedance.sustained(wander(rng, round(hours * 3600 / step_s), rho=rho, law=law), n=3, m=3)
        over = lived >= found.limit()
        raised += int((over & ~np.concatenate([[False], over[:-1]])).sum())
    promised = seeds * hours * per_h
    assert raised < poisson.ppf(0.999, promised)


@given(maxima, st.floats(0.005, 1.0))
def test_the_limit_is_the_least_whose_p_value_is_allowed(values: list[float], p: float) -> None:
    blocks = NOTHING.added(values)
    limit = blocks.quantile(p)
    if p * (1 + len(values)) < 1 - 1e-9:
        assert limit == math.inf
    elif math.isfinite(limit):
        assert blocks.p_value(limit) <= p * (1 + 1e-9)
        lower = [v for v in values if v < limit]
        assert not lower or blocks.p_value(max(lower)) > p * (1 - 1e-9)


@given(maxima, st.floats(0, 4))
def test_a_p_value_is_its_definition(values: list[float], x: float) -> None:
    assert NOTHING.added(values).p_value(x) == (1 + sum(v >= x for v in values)) / (1 + len(values))


def test_only_the_largest_are_kept_and_the_count_goes_on() -> None:
    rng = np.random.default_rng(5)
    values = rng.normal(1, 0.1, 3 * KEPT)
    bits = NOTHING
    for part in np.split(values, 48):
        bits = bits.added(part)
    assert (bits.count, len(bits.top)) == (3 * KEPT, KEPT)
    assert np.array_equal(bits.top, np.sort(values)[::-1][:KEPT])
    p = 0.1
    assert bits.quantile(p) == pytest.approx(float(np.sort(values)[::-1][math.floor(p * (1 + len(values))) - 1]))
    assert bits.p_value(0.0) == 1.0
    assert bits.p_value(float(bits.top[99])) == pytest.approx(101 / (1 + len(values)))


# The tail: beyond what was seen


@pytest.mark.parametrize("law", ["normal", "uniform", "exponential"])
@pytest.mark.parametrize("n", [30, 120, 600])
def test_a_tail_no_heavier_than_exponential_keeps_the_extrapolated_promise(law: str, n: int) -> None:
    rng = np.random.default_rng([n, len(law)])
    draw = {"normal": rng.standard_normal, "uniform": rng.random, "exponential": rng.standard_exponential}[law]
    known = {
        "normal": lambda x: 0.5 * math.erfc(x / math.sqrt(2)),
        "uniform": lambda x: max(0.0, 1 - x),
        "exponential": lambda x: math.exp(-x),
    }[law]
    p = 1e-5
    passed = [known(NOTHING.added(draw(n)).extrapolated(p)) for _ in range(300)]
    assert np.mean(passed) < p if law != "exponential" else np.median(passed) < p
    assert np.mean(np.asarray(passed) > p) < 0.1  # the confidence of the scale is 0.95


def test_a_heavier_tail_breaks_the_extrapolated_promise_which_is_why_it_is_declared() -> None:
    rng = np.random.default_rng(0)
    passed = [float(1 / NOTHING.added(1 / rng.random(120)).extrapolated(1e-5)) for _ in range(100)]  # Pareto, shape 1
    assert np.median(passed) > 1e-4


@given(maxima, st.floats(1e-4, 50), st.floats(1.0, 1000))
def test_a_tighter_budget_never_has_a_lower_limit(values: list[float], per_h: float, times: float) -> None:
    blocks = NOTHING.added(values)
    loose, tight = (calibrated(blocks, rate, margin=1.0) for rate in (per_h, per_h / times))
    assert tight.limit() >= loose.limit()
    assert tight.supported <= loose.supported


@given(maxima, st.floats(1e-5, 50), st.floats(1.0, 2.0))
def test_the_limit_lies_between_the_margin_and_a_quarter_more(values: list[float], per_h: float, margin: float) -> None:
    limit = calibrated(NOTHING.added(values), per_h, margin=margin).limit()
    assert margin <= limit <= HIGHEST * margin


@given(maxima, st.floats(1e-4, 50))
def test_at_the_limit_no_more_is_expected_than_was_asked_unless_it_is_said(values: list[float], per_h: float) -> None:
    found = calibrated(NOTHING.added(values), per_h, margin=1.0)
    promise = found.promise(found.limit())
    assert promise.kept or found.limit() == HIGHEST
    assert promise.supported == (promise.supported_per_h <= promise.asked_per_h * (1 + 1e-9))
    assert ("not kept" in promise.sentence) == (not promise.kept)


def test_one_block_says_nothing_of_a_tail() -> None:
    one = calibrated(NOTHING.added([0.4]), 1 / 720, margin=1.0)
    assert one.limit() == HIGHEST
    assert not one.promise(HIGHEST).kept
    assert "enrol longer" in one.promise(HIGHEST).sentence


def test_the_sentence_says_what_is_supported_and_what_would_support_more() -> None:
    blocks = NOTHING.added(np.random.default_rng(0).normal(0.7, 0.05, 600))
    found = calibrated(blocks, 1 / 720, margin=1.1)
    assert found.promise(found.limit()).sentence == (
        "supports at most one per 2.1 h; one per 30 days is extrapolated; confirm after probation (30 days of running "
        "would support it)"
    )
    loose = replace(found, budget=Budget(2.0))
    assert loose.promise(loose.limit()).sentence == (
        "at most one per 30 min asked; this enrolment supports at most one per 2.1 h"
    )


# Stored


@given(maxima, st.floats(1e-4, 50), st.floats(1, 2))
def test_it_is_read_as_it_was_written(values: list[float], per_h: float, margin: float) -> None:
    found = calibrated(NOTHING.added(values), per_h, margin=margin)
    back = Calibrated.read(_Taker(safetensors.numpy.load(safetensors.numpy.save(found.tensors()))))
    assert back.limit() == found.limit()
    assert back.promise(1.0) == found.promise(1.0)


@pytest.mark.parametrize(("where", "value"), [(0, 0.0), (0, -1.0), (1, 7.0), (2, 0.0), (3, 0.0), (4, 0.0), (6, 0.0)])
def test_what_no_calibration_can_be_is_refused(where: int, value: float) -> None:
    tensors = calibrated(NOTHING.added([0.5, 0.6, 0.7]), 1.0, margin=1.0).tensors()
    tensors["budget.facts"][where] = value
    with pytest.raises(BadFile, match="does not fit together"):
        Calibrated.read(_Taker(tensors))
    unsorted = calibrated(NOTHING.added([0.5, 0.6]), 1.0, margin=1.0).tensors()
    unsorted["budget.top"] = unsorted["budget.top"][::-1].copy()
    with pytest.raises(BadFile, match="does not fit together"):
        Calibrated.read(_Taker(unsorted))
