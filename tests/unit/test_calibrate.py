import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from fisher_agent import calibrate


@st.composite
def spans(draw: st.DrawFn) -> NDArray[np.int64]:
    """Windows in order of their ends, overlapping or with gaps."""
    length = draw(st.integers(1, 20))
    steps = draw(st.lists(st.integers(1, 30), min_size=1, max_size=60))
    ends = np.cumsum(steps).astype(np.int64)
    return np.stack([ends - length, ends], axis=1)


@given(spans())
def test_independent_windows_do_not_overlap_and_no_other_fits_between(windows: NDArray[np.int64]) -> None:
    chosen = calibrate.independent(windows)
    assert chosen[0] == 0
    assert (windows[chosen[1:], 0] >= windows[chosen[:-1], 1]).all()
    for i in set(range(len(windows))) - set(chosen.tolist()):
        assert calibrate.touches(windows[chosen], windows[i]).any()


@given(spans())
def test_leaving_out_a_block_leaves_out_every_window_that_touches_any_of_its_windows(
    windows: NDArray[np.int64],
) -> None:
    block = calibrate.blocks(windows)
    block_spans = calibrate.block_spans(windows, block)
    for b, span in enumerate(block_spans):
        left_out = calibrate.touches(windows, span)
        for i in np.flatnonzero(block == b):
            overlaps = (windows[:, 0] < windows[i, 1]) & (windows[:, 1] > windows[i, 0])
            assert overlaps[i]
            assert not (overlaps & ~left_out).any()


@given(spans())
def test_blocks_are_runs_of_neighbours_and_at_most_ten(windows: NDArray[np.int64]) -> None:
    block = calibrate.blocks(windows)
    assert block[0] == 0
    assert set(np.diff(block).tolist()) <= {0, 1}
    assert block[-1] == min(10, len(calibrate.independent(windows))) - 1


def test_windows_that_only_meet_do_not_touch() -> None:
    windows = np.asarray([[0, 10], [10, 20], [19, 29]])
    assert calibrate.touches(windows, np.asarray([10, 20])).tolist() == [False, True, True]


@pytest.mark.parametrize(("score", "p"), [(0.0, 1.0), (0.5, 0.8), (0.51, 0.6), (0.9, 0.4), (0.91, 0.2), (7.0, 0.2)])
def test_p_is_the_share_of_calibration_scores_at_least_as_large_counting_the_window_itself(
    score: float, p: float
) -> None:
    assert calibrate.p_value(score, np.asarray([0.3, 0.5, 0.7, 0.9])) == pytest.approx(p)


@given(st.lists(st.floats(0, 2), min_size=1, max_size=50), st.floats(0, 3))
def test_p_is_its_definition(scores: list[float], score: float) -> None:
    calibration = np.sort(np.asarray(scores))
    assert calibrate.p_value(score, calibration) == (1 + sum(c >= score for c in scores)) / (1 + len(scores))


def test_p_of_a_normal_window_is_uniform() -> None:
    rng = np.random.default_rng(0)
    ps = [calibrate.p_value(rng.normal(), np.sort(rng.normal(size=99))) for _ in range(4000)]
    assert np.quantile(ps, [0.1, 0.5, 0.9]).tolist() == pytest.approx([0.1, 0.5, 0.9], abs=0.03)


@pytest.mark.parametrize("spread", [0.1, 0.2, 0.3])
@pytest.mark.parametrize("n", [10, 40, 240])
def test_the_limit_is_passed_by_fewer_than_two_normal_windows_in_a_thousand(spread: float, n: int) -> None:
    rng = np.random.default_rng(0)
    passed = [
        np.mean(rng.lognormal(0, spread, 5000) >= calibrate.limit(rng.lognormal(0, spread, 2 * n), n_independent=n))
        for _ in range(100)
    ]
    assert np.mean(passed) < 2e-3


def test_the_limit_is_not_moved_by_one_knock() -> None:
    distances = np.random.default_rng(0).lognormal(0, 0.2, 239)
    knocked = distances.copy()
    knocked[[50, 51]] = 1000
    assert calibrate.limit(knocked, n_independent=120) < 1.2 * calibrate.limit(distances, n_independent=120)


def test_the_limit_is_never_more_than_twice_what_was_seen() -> None:
    two_regimes = np.concatenate([np.ones(100), np.full(20, 10.0)])
    assert calibrate.limit(two_regimes, n_independent=60) == pytest.approx(20)


def test_fewer_independent_windows_give_a_wider_limit() -> None:
    distances = np.linspace(0.8, 1.25, 40)
    assert calibrate.limit(distances, n_independent=5) > calibrate.limit(distances, n_independent=200)


def test_the_limit_of_a_signal_that_repeats_exactly_is_the_floor() -> None:
    assert calibrate.limit(np.zeros(40), n_independent=20) == calibrate.LIMIT_FLOOR


def test_a_held_value_lasts_until_it_is_stale() -> None:
    values = np.asarray([np.nan, 2.0, np.nan, np.nan, np.nan, 5.0])
    out = calibrate.held(values, np.arange(6, dtype=np.int64), stale_ns=2)
    assert np.isnan(out[[0, 4]]).all()
    assert out[[1, 2, 3, 5]].tolist() == [2, 2, 2, 5]
