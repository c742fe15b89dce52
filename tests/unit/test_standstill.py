"""How long a value has stood still does not depend on how it was cut into windows."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fisher_agent.stages import Window
from fisher_agent.standstill import REVERSALS, Standstill

T0_NS = 1_795_000_000_000_000_000
RATE_HZ = 2.0


def window(values: list[float], first: int, n: int) -> Window:
    at = max(0, first)
    samples = np.asarray(values[at : first + n], np.float32)
    return Window("m", "temp", T0_NS + round(at * 1e9 / RATE_HZ), RATE_HZ, samples)


def taken(values: list[float], *, length: int, hop: int) -> tuple[float, float | None]:
    still, last = Standstill(gap_ns=2 * 10**9), 0.0
    for first in range(0, len(values) - length + 1, hop):
        last = still.take(window(values, first, length))
    return last, still.longest_s


@given(st.lists(st.sampled_from([1.0, 2.0, 3.0]), min_size=40, max_size=80), st.integers(1, 10), st.integers(1, 10))
def test_any_cut_gives_the_same(values: list[float], length: int, hop: int) -> None:
    hop = min(hop, length)
    covered = (len(values) - length) // hop * hop + length
    whole = taken(values[:covered], length=covered, hop=covered)
    assert taken(values[:covered], length=length, hop=hop) == whole
    run = 1
    while run < covered and values[covered - run - 1] == values[covered - 1]:
        run += 1
    assert whole[0] == run / RATE_HZ


def test_a_value_that_only_climbs_says_nothing_of_standing_still() -> None:
    assert taken([float(n // 5) for n in range(200)], length=200, hop=200)[1] is None
    jittery = [float(n // 5 % 2) for n in range(5 * (REVERSALS + 2))]
    assert taken(jittery, length=len(jittery), hop=1)[1] == 2.5


def test_after_a_gap_nothing_is_known_and_a_window_seen_before_changes_nothing() -> None:
    still = Standstill(gap_ns=10**9)
    values = [1.0] * 100
    assert still.take(window(values, 0, 10)) == 5.0
    assert still.take(window(values, 0, 10)) == 5.0
    assert still.take(window(values, 12, 10)) == 11.0, "a gap of a second is none"
    assert still.take(window(values, 30, 10)) == 5.0
