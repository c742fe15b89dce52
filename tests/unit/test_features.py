"""Indicators as coordinates: what they see, how far is far, and the nearest of them."""

import numpy as np
import pytest

from fisher_agent.config import SPARSE_BELOW
from fisher_agent.features import FARTHEST, LEAST_SPREAD, Neighbours, Scale, features, long_enough
from fisher_models.indicators import SHORTEST

RNG = np.random.default_rng(0)


def noise(n: int, *, level: float = 1.0, mean: float = 0.0) -> np.ndarray:
    return (mean + level * RNG.normal(size=n)).astype(np.float32)


def test_the_mean_counts_where_the_channel_is_valued_and_nowhere_else() -> None:
    x = noise(2000, mean=60.0)
    assert features(x, 200.0, gain=1.0, valued=True)[0] == pytest.approx(60, abs=0.2)
    assert np.array_equal(features(x, 200.0, gain=1.0, valued=True)[1:], features(x, 200.0, gain=1.0, valued=False))
    assert np.allclose(
        features(x, 200.0, gain=1.0, valued=False), features(x - 60, 200.0, gain=1.0, valued=False), atol=1e-3
    )
    assert features(noise(5, mean=60.0), 1.0, gain=1.0, valued=True).shape == (2,)
    assert features(np.float32([7.0]), 1.0, gain=1.0, valued=True).tolist() == [7.0, 0.0]


def test_twice_the_level_lies_far_from_everything_that_was_enrolled() -> None:
    rows = np.stack([features(noise(8000), 8000.0, gain=1.0, valued=False) for _ in range(40)])
    known = Neighbours(rows[:30], Scale.of(rows[:30], valued=False))
    usual = known.nearest(rows[30:])[1]
    louder = known.nearest(features(noise(8000, level=2.0), 8000.0, gain=1.0, valued=False)[None])[1]
    assert louder[0] > 3 * usual.max()


def test_distances_are_the_mean_of_the_nearest_five_and_what_is_left_out_takes_no_part() -> None:
    rows = RNG.normal(size=(300, 35)).astype(np.float32)
    scale = Scale.of(rows, valued=False)
    left_out = np.arange(300) < 200
    position, distance = Neighbours(rows, scale).nearest(rows[:50], left_out=left_out)
    plain = np.sqrt(np.square(scale.apply(rows[:50])[:, None] - scale.apply(rows[200:])[None]).sum(axis=2))
    assert np.array_equal(position, 200 + plain.argmin(axis=1))
    assert distance == pytest.approx(np.sort(plain, axis=1)[:, :5].mean(axis=1), rel=1e-5)
    with pytest.raises(ValueError, match="nothing remains"):
        Neighbours(rows, scale).nearest(rows[:1], left_out=np.ones(300, np.bool_))


def test_fewer_windows_than_five_are_all_compared_with() -> None:
    rows = RNG.normal(size=(2, 35)).astype(np.float32)
    _, distance = Neighbours(rows, Scale.of(rows, valued=False)).nearest(rows)
    assert distance.shape == (2,) and np.isfinite(distance).all()


def test_what_never_moved_may_move_by_what_instruments_scatter_and_by_no_more() -> None:
    rows = np.tile(np.float32([60.0, 0.0]), (20, 1))
    scale = Scale.of(rows, valued=True)
    assert scale.spread == pytest.approx([0.3, 0.3])
    assert scale.apply(np.float32([[60.3, 0.0], [90.0, 0.0]])).tolist() == [[pytest.approx(1, abs=1e-4), 0], [30, 0]]
    zero = Scale.of(np.zeros((20, 2), np.float32), valued=True)
    assert (zero.spread > 0).all()
    assert zero.apply(np.float32([[1e-3, 0.0]]))[0, 0] == FARTHEST
    assert Scale.of(np.zeros((20, 35), np.float32), valued=False).spread == pytest.approx([LEAST_SPREAD] * 35)


def test_a_window_too_short_for_the_enrolled_features_is_told() -> None:
    enrolled = np.zeros((3, 35), np.float32)
    assert long_enough(np.zeros(SHORTEST, np.float32), enrolled)
    assert not long_enough(np.zeros(SHORTEST - 1, np.float32), enrolled)
    assert long_enough(np.zeros(5, np.float32), enrolled[:, :2])
    assert not long_enough(np.zeros(100, np.float32), enrolled[:, :2])
    assert long_enough(np.zeros(5, np.float32), np.zeros((0, 0), np.float32)), "an old bank has none"
    assert SPARSE_BELOW == SHORTEST


@pytest.mark.parametrize("garbage", [3e38, -3e38])
def test_a_garbage_sample_gives_finite_features(garbage: float) -> None:
    x = noise(8000)
    x[100] = garbage
    for gain, valued in ((1.0, True), (1e11, False)):
        assert np.isfinite(features(x, 8000.0, gain=gain, valued=valued)).all()
