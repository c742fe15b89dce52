import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fisher_agent.nearest import Index, band_shares
from fisher_agent.stages import Floats

N_BANDS, D = 3, 4
vectors = arrays(np.float32, (6, N_BANDS * D), elements=st.floats(-10, 10, width=32)).filter(
    lambda a: bool((np.linalg.norm(a, axis=1) > 0.1).all())
)


def cosine_distance(x: Floats, y: Floats) -> float:
    a, b = x.astype(np.float64), y.astype(np.float64)
    return float(1 - a @ b / np.linalg.norm(a) / np.linalg.norm(b))


@given(vectors)
def test_the_shares_of_the_bands_sum_to_the_cosine_distance(rows: Floats) -> None:
    position, distance, shares = Index(rows[1:], n_bands=N_BANDS).nearest(rows[:1])
    assert (shares >= 0).all()
    assert shares.sum(axis=1) == pytest.approx(distance)
    assert distance[0] == pytest.approx(cosine_distance(rows[0], rows[1 + position[0]]), abs=1e-7)


@given(vectors)
def test_nothing_is_nearer_than_the_nearest(rows: Floats) -> None:
    _, distance, _ = Index(rows[1:], n_bands=N_BANDS).nearest(rows[:1])
    assert distance[0] == pytest.approx(min(cosine_distance(rows[0], r) for r in rows[1:]), abs=1e-6)


def test_the_share_of_a_band_is_half_the_square_of_its_difference() -> None:
    x, y = np.asarray([[0.6, 0.0, 0.8]]), np.asarray([[0.0, 0.6, 0.8]])
    assert band_shares(x, y, n_bands=3).tolist() == [[pytest.approx(0.18), pytest.approx(0.18), 0.0]]


def test_distances_far_under_the_precision_of_a_float32_product_are_told_apart() -> None:
    rng = np.random.default_rng(0)
    common = 100 * rng.normal(size=192)
    rows = np.stack([common + scale * rng.normal(size=192) for scale in (0.02, 0.01, 0.04)]).astype(np.float32)
    query = common[None].astype(np.float32)
    position, distance, _ = Index(rows, n_bands=1).nearest(query)
    assert position[0] == 1
    assert distance[0] == pytest.approx(0.5 * 0.01**2 / 100**2, rel=0.2)


def test_rows_left_out_take_no_part_and_all_of_them_is_an_error() -> None:
    rows = np.eye(3, dtype=np.float32)
    index = Index(rows, n_bands=1)
    assert index.nearest(rows[:1])[0].tolist() == [0]
    assert index.nearest(rows[:1] + 0.1 * rows[2:], left_out=np.asarray([True, False, False]))[0].tolist() == [2]
    with pytest.raises(ValueError, match="nothing remains"):
        index.nearest(rows[:1], left_out=np.ones(3, dtype=bool))


def test_centring_compares_directions_from_the_centre() -> None:
    centre = np.asarray([10.0, 10.0], np.float32)
    rows = centre + np.asarray([[1.0, 0.0], [0.0, 1.0]], np.float32)
    query = centre + np.asarray([[5.0, 0.0]], np.float32)
    _, distance, _ = Index(rows, n_bands=1, centre=centre).nearest(query)
    assert distance[0] == pytest.approx(0, abs=1e-9)
    assert Index(rows, n_bands=1).nearest(query)[1][0] > 1e-4


def test_many_queries_give_what_each_gives_alone() -> None:
    rng = np.random.default_rng(0)
    index = Index(rng.normal(size=(50, 8)).astype(np.float32), n_bands=2)
    queries = rng.normal(size=(600, 8)).astype(np.float32)
    together = index.nearest(queries)
    alone = [index.nearest(q[None]) for q in queries]
    assert together[0].tolist() == [a[0][0] for a in alone]
    assert together[1] == pytest.approx(np.asarray([a[1][0] for a in alone]))
