import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fisher_agent import nearest
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


@st.composite
def banks(draw: st.DrawFn) -> tuple[Floats, Floats, np.ndarray]:
    """Rows, queries and a mask: groups apart by 1 with rows apart by 0 to 1, copies, multiples, zeros."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n, q, groups = draw(st.integers(1, 60)), draw(st.integers(1, 9)), draw(st.integers(1, 3))
    width = N_BANDS * draw(st.sampled_from([1, 4, 40]))
    spread = 10.0 ** draw(st.sampled_from([-12, -7, -5, -3, 0]))
    scale = 10.0 ** draw(st.sampled_from([-15, 0, 15]))
    centres = rng.normal(size=(groups, width))
    around = centres[rng.integers(groups, size=n + q)] + spread * rng.normal(size=(n + q, width))
    for kind in draw(st.sets(st.sampled_from(["copies", "multiples", "zeros", "coarse", "queries of the bank"]))):
        some, of = rng.random(n + q) < 0.4, rng.integers(n + q, size=n + q)
        if kind == "copies":
            around[some] = around[of[some]]
        elif kind == "multiples":
            around[some] = around[of[some]] * rng.uniform(0.1, 10, size=(int(some.sum()), 1))
        elif kind == "zeros":
            around[some] = 0
        elif kind == "coarse":  # many equal distances
            around = np.round(around)
        else:
            around[n:] = around[rng.integers(n, size=q)]
    left_out = rng.random(n) < draw(st.sampled_from([0.0, 0.5, 0.9]))
    left_out[rng.integers(n)] = False
    vectors = (scale * around).astype(np.float32)
    return vectors[:n], vectors[n:], left_out


@given(banks(), st.sampled_from([1, 7, 8192]), st.sampled_from([1, 5, 4 << 20]))
def test_position_and_distance_are_those_of_brute_force_in_float64(
    bank: tuple[Floats, Floats, np.ndarray], screen_rows: int, block_rows: int
) -> None:
    rows, queries, left_out = bank
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nearest, "SCREEN_ROWS", screen_rows)
        patch.setattr(nearest, "BLOCK_BYTES", 8 * rows.shape[1] * block_rows)
        index = Index(rows, n_bands=N_BANDS)
        position, distance, _ = index.nearest(queries, left_out=left_out)
    for query, found, near in zip(index.unit(queries), position, distance, strict=True):
        all_shares = band_shares(np.tile(query, (len(rows), 1)), index.unit(rows), n_bands=N_BANDS)
        brute = np.where(left_out, np.inf, all_shares.sum(axis=1))
        assert (found, near) == (brute.argmin(), brute.min())  # argmin: the lowest position of equal ones


def test_two_tight_groups_far_apart_are_searched_exactly() -> None:
    rng = np.random.default_rng(0)
    groups = rng.normal(size=(2, 1152)).astype(np.float32)
    rows = np.repeat(groups, 500, axis=0) * (1 + np.float32(3e-6) * rng.normal(size=(1000, 1152)).astype(np.float32))
    queries = np.repeat(groups, 20, axis=0) * (1 + np.float32(3e-6) * rng.normal(size=(40, 1152)).astype(np.float32))
    position, distance, _ = Index(rows, n_bands=1).nearest(queries)
    exact = rows.astype(np.longdouble) / np.linalg.norm(rows.astype(np.longdouble), axis=1, keepdims=True)
    for query, found, near in zip(queries.astype(np.longdouble), position, distance, strict=True):
        distances = 0.5 * np.square(exact - query / np.sqrt(query @ query)).sum(axis=1)
        assert found == distances.argmin()
        assert near == pytest.approx(float(distances.min()), rel=1e-3)
        assert near < 1e-10


@pytest.mark.parametrize("kind", ["random", "copies"])
def test_building_and_searching_need_bounded_memory_besides_the_rows(kind: str) -> None:
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((8_000, 1152), dtype=np.float32)
    if kind == "copies":
        rows[:] = rows[0]
    queries = rng.standard_normal((20, 1152), dtype=np.float32)
    tracemalloc.start()
    try:
        index = Index(rows, n_bands=1)
        kept, most_building = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        index.nearest(queries)
        _, most_searching = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < rows.nbytes + 1e6  # 4 bytes a value, and no copy of the raw rows
    assert most_building - kept < 48e6
    assert most_searching - kept < 48e6


def test_an_index_of_no_rows_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Index(np.empty((0, 8), dtype=np.float32), n_bands=2)
