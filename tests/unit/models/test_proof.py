"""What a lower precision costs, measured."""

import numpy as np
import pytest

from fisher_models import proof
from fisher_models.bundle import load

SPEC = load("fisher-tiny").frontend


def test_the_signals_are_the_same_for_the_same_seed_and_bounded():
    bands, centres = proof.bands(SPEC, seed=3)
    again, _ = proof.bands(SPEC, seed=3)
    other, _ = proof.bands(SPEC, seed=4)
    assert bands.shape[1:] == (96, SPEC.band_bins) and 32 <= len(bands) <= proof.MAX_BANDS
    assert centres.shape == (len(bands),) and bands.dtype == centres.dtype == np.float32
    assert np.array_equal(bands, again) and not np.array_equal(bands, other)


def test_equal_embeddings_keep_everything():
    a = np.random.default_rng(0).standard_normal((20, 8)).astype(np.float32)
    kept = proof.quality(a, a.copy())
    assert (kept.cosine, kept.spearman, kept.nearest) == pytest.approx((1, 1, 1))


def test_noise_costs_in_the_order_of_its_strength():
    rng = np.random.default_rng(0)
    a = rng.standard_normal((40, 16)).astype(np.float32)
    noise = rng.standard_normal(a.shape).astype(np.float32)
    weak, strong = proof.quality(a, a + 0.02 * noise), proof.quality(a, a + noise)
    assert 0.99 < weak.cosine < 1 and strong.cosine < 0.8
    assert weak.spearman > 0.99 > strong.spearman
    assert weak.nearest > strong.nearest


def test_one_spoilt_input_shows_in_the_cosine():
    a = np.random.default_rng(0).standard_normal((40, 16)).astype(np.float32)
    b = a.copy()
    b[7] = -b[7]
    assert proof.quality(a, b).cosine == pytest.approx(-1)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_has_no_quality(bad: float):
    a = np.ones((4, 3), np.float32)
    b = a.copy()
    b[0, 0] = bad
    assert proof.quality(a, b) == proof.Quality(0.0, 0.0, 0.0)


def test_embeddings_that_are_all_alike_have_no_order_to_keep():
    a = np.random.default_rng(0).standard_normal((10, 4)).astype(np.float32)
    assert proof.quality(a, np.ones_like(a)).spearman == 0.0
