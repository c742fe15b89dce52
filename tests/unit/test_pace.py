"""How much goes to the model at once."""

import math

import pytest

from fisher_agent.pace import Pace


def test_nothing_bounds_the_first_batch():
    assert Pace().max_bytes == math.inf


def test_a_batch_is_as_large_as_the_bound_allows_at_the_measured_cost():
    pace = Pace(bound_s=0.5)
    pace.learn(1_000_000, taken_s=0.1)
    assert pace.max_bytes == pytest.approx(5_000_000)


def test_a_box_that_becomes_slower_gets_smaller_batches():
    pace = Pace(bound_s=0.5)
    pace.learn(1_000_000, taken_s=0.1)
    for _ in range(40):
        pace.learn(1_000_000, taken_s=1.0)
    assert pace.max_bytes == pytest.approx(500_000, rel=0.01)


@pytest.mark.parametrize(("nbytes", "taken_s"), [(0, 1.0), (100, 0.0), (100, -1.0)])
def test_a_measurement_that_says_nothing_is_ignored(nbytes: int, taken_s: float):
    pace = Pace()
    pace.learn(nbytes, taken_s=taken_s)
    assert pace.max_bytes == math.inf
