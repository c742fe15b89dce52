"""Spaces, neighbours and late fusion, by facts that can be worked out by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fisher_models.errors import ModelError
from fisher_models.evaluate.encoders import INDICATORS, load_encoder
from fisher_models.evaluate.fusion import (
    Apart,
    contestant,
    fused_distances,
    fused_strangeness,
    neighbourhood,
)
from fisher_models.evaluate.neighbours import SPACES, distances, strangeness, vote
from fisher_models.evaluate.protocol import Layout


def _channels(seed: int, n: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal((n, d)).astype(np.float32) + d for d in (3, 8)]


@pytest.mark.parametrize("space", SPACES)
def test_a_window_lies_on_itself_and_distances_are_symmetric(space: str) -> None:
    train = _channels(0, 20)
    test, own = distances(space, train, train)
    assert np.allclose(test, own)
    assert np.allclose(own, own.T)
    assert np.abs(np.diag(own)).max() < 1e-6
    assert (own + np.eye(20) > 1e-4).all()


def test_the_cosine_distance_is_the_mean_over_the_channels() -> None:
    train, test = _channels(0, 5), _channels(1, 4)
    expected = np.zeros((4, 5))
    for a, b in zip(test, train, strict=True):
        a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b))
        expected += (1 - a @ b.T) / 2
    assert np.allclose(distances("cosine", train, test)[0], expected, atol=1e-6)
    louder = [3 * channel for channel in test]
    assert np.allclose(distances("cosine", train, louder)[0], expected, atol=1e-6)
    assert not np.allclose(distances("centred", train, louder)[0], distances("centred", train, test)[0], atol=1e-3)


def test_the_standard_space_counts_deviations_of_the_training_windows_and_clips() -> None:
    train = [np.array([[0.0, 5], [2, 5], [0, 5], [2, 5]], np.float32)]
    test = [np.array([[4.0, 5], [1, 7], [1000, 5]], np.float32)]
    found, _ = distances("standard", train, test)
    assert found[0] == pytest.approx([4, 2, 4, 2])
    assert found[1] == pytest.approx([np.hypot(1, 2)] * 4)  # a still dimension is left as it is
    assert found[2] == pytest.approx([11, 9, 11, 9])  # clipped at 10


def test_whitening_evens_out_directions_that_scatter_more() -> None:
    rng = np.random.default_rng(0)
    train = [(rng.standard_normal((400, 2)) * [100, 1]).astype(np.float32)]
    across, along = (np.array([point], np.float32) for point in ([0, 100], [100, 0]))
    far, near = (strangeness(distances("whitened", train, [point])[0]) for point in (across, along))
    assert far > 5 * near  # 100 is strange where training windows scatter by 1, and not where they scatter by 100


def test_an_unknown_space_is_refused() -> None:
    with pytest.raises(ModelError, match="'manhattan' is no space"):
        distances("manhattan", _channels(0, 3), _channels(1, 3))


def test_strangeness_is_the_mean_of_the_nearest() -> None:
    apart = np.array([[5.0, 1, 9, 2, 3, 4, 100], [1, np.inf, np.inf, 3, np.inf, np.inf, np.inf]])
    assert strangeness(apart).tolist() == [3, 2]
    assert strangeness(apart[:1], k=1).tolist() == [1]
    assert strangeness(apart[:1, :2]).tolist() == [3]
    with pytest.raises(ModelError, match="no other to be compared with"):
        strangeness(np.full((1, 4), np.inf))


def test_a_vote_goes_to_the_majority_and_a_tie_to_the_nearest() -> None:
    apart = np.array([[5.0, 1, 2, 3, 4], [1, 2, 3, 4, 5]])
    labels = np.array(["a", "b", "c", "b", "c"])
    assert vote(apart, labels).tolist() == ["b", "b"]
    assert vote(apart, labels, k=3).tolist() == ["b", "a"]


@given(scale=st.floats(1e-3, 1e3), rule=st.sampled_from(["mean", "max", "z"]))
def test_a_fusion_does_not_depend_on_the_units_of_its_parts(scale: float, rule: str) -> None:
    one, two = (_apart(seed) for seed in (0, 1))
    other = Apart(scale * two.test, scale * two.train, two.left_out)
    assert np.allclose(fused_strangeness([one, two], rule), fused_strangeness([one, other], rule), rtol=1e-6)
    assert np.allclose(fused_distances([one, two], rule), fused_distances([one, other], rule), rtol=1e-6)


def _apart(seed: int) -> Apart:
    train, test = _channels(seed, 30), _channels(seed + 10, 7)
    return Apart(*distances("standard", train, test), np.eye(30, dtype=bool))


def test_one_part_alone_is_not_touched_by_a_fusion() -> None:
    one = _apart(0)
    assert (fused_strangeness([one], "mean") == strangeness(one.test)).all()
    assert (fused_distances([one], "z") == one.test).all()


def test_what_either_part_finds_strange_the_largest_ratio_finds_strange() -> None:
    calm, upset = _apart(0), _apart(1)
    upset.test[3] += 50
    assert fused_strangeness([calm, upset], "max").argmax() == 3
    assert fused_strangeness([calm, upset], "mean").argmax() == 3
    assert fused_strangeness([calm, upset], "z").argmax() == 3


def test_the_neighbourhood_of_a_window_is_its_recording_its_tenth_and_what_overlaps() -> None:
    # recording a: 40 windows of 2 s, one each second; b: 3 windows
    layout = Layout(np.repeat([0, 1], [40, 3]), np.r_[0:40, 0:3], np.r_[2.0:42, 2.0:5], None)
    names = np.repeat(["a", "b"], [40, 3])
    out = neighbourhood(layout, np.arange(43), names, window_s=2.0)
    assert np.flatnonzero(out[5]).tolist() == [4, 5, 6, 7]
    assert np.flatnonzero(out[8]).tolist() == [7, 8, 9, 10, 11]  # 7 overlaps it, across the border of its block
    assert np.flatnonzero(out[41]).tolist() == [40, 41, 42]
    alone = Layout(np.zeros(3, int), np.arange(3), np.r_[2.0:8:2], None)
    assert (neighbourhood(alone, np.arange(3), np.array(["b"] * 3), window_s=2.0) == np.eye(3, dtype=bool)).all()


def test_contestants_are_read_from_their_written_form() -> None:
    made = contestant("indicators+indicators-no-envelope:whitened@z", load_encoder)
    assert [(part.encoder.name, part.space) for part in made.parts] == [
        ("indicators", "standard"), ("indicators-no-envelope", "whitened"),
    ]  # fmt: skip
    assert made.rule == "z"
    assert contestant(INDICATORS, load_encoder).parts[0].space == "standard"


@pytest.mark.parametrize(
    "text", ["", "indicators+", "indicators@mean", "indicators+indicators@median", ":cosine", "no-such-bundle"]
)
def test_a_contestant_that_is_not_understood_is_refused(text: str) -> None:
    with pytest.raises(ModelError):
        contestant(text, load_encoder)
