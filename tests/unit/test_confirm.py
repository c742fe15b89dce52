"""One knock makes no bad sensor, and one good window no good one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fisher_agent.codes import Status
from fisher_agent.confirm import Confirm
from fisher_agent.sensor import FINE, Finding

BAD = Finding(Status.STUCK, "it stands")
WORSE = Finding(Status.FLAT, "all equal")
STEPS = st.lists(st.tuples(st.sampled_from([None, FINE, BAD, WORSE]), st.floats(-1, 20)), max_size=60)


def fresh() -> Confirm:
    return Confirm(on_count=3, on_s=10.0, off_count=2, off_s=4.0)


def test_it_stands_after_so_many_in_a_row_and_so_long_and_says_what_came_last() -> None:
    confirm = fresh()
    assert [confirm.take(BAD, t_s=t) for t in (0, 1, 2, 9)] == [FINE] * 4
    assert confirm.take(WORSE, t_s=10) == WORSE
    assert confirm.take(BAD, t_s=11) == BAD


def test_a_good_window_begins_the_count_anew_and_one_that_says_nothing_does_not() -> None:
    confirm = fresh()
    for t, finding in enumerate((BAD, BAD, FINE, BAD)):
        confirm.take(finding, t_s=10 * t)
    assert confirm.take(None, t_s=60) == FINE
    assert confirm.take(BAD, t_s=61) == FINE
    assert confirm.take(BAD, t_s=62) == BAD


def test_it_ends_the_same_way() -> None:
    confirm = fresh()
    for t in range(0, 30, 5):
        confirm.take(BAD, t_s=t)
    assert confirm.take(FINE, t_s=30) == BAD
    assert confirm.take(FINE, t_s=33) == BAD
    assert confirm.take(FINE, t_s=34) == FINE


def test_a_pause_forgets_what_was_in_a_row_and_not_what_stands() -> None:
    confirm = fresh()
    for t in range(0, 30, 5):
        confirm.take(BAD, t_s=t)
    confirm.take(FINE, t_s=30)
    confirm.take(FINE, t_s=33)
    confirm.pause()
    assert confirm.take(FINE, t_s=34) == BAD


@given(STEPS)
def test_it_never_stands_or_ends_on_fewer_than_it_takes(steps: list[tuple[Finding | None, float]]) -> None:
    confirm, t_s, said = fresh(), 0.0, []
    for finding, step in steps:
        t_s += step
        before = confirm.standing
        after = confirm.take(finding, t_s=t_s)
        said += [(finding, t_s)] if finding is not None else []
        if finding is None:
            assert after == before
        if after.bad != before.bad:
            count, span_s = (3, 10.0) if after.bad else (2, 4.0)
            tail = said[-count:]
            assert len(tail) == count and all(f is not None and f.bad == after.bad for f, _ in tail)
            run = [t for n, (f, t) in enumerate(said) if all(g is not None and g.bad == after.bad for g, _ in said[n:])]
            assert run[-1] - run[0] >= span_s
        if after.bad:
            assert after == next((f for f, _ in reversed(said) if f is not None and f.bad), None)


@given(st.integers(1, 5), st.floats(0, 20))
def test_a_bad_sensor_is_always_found_in_time(count: int, on_s: float) -> None:
    confirm = Confirm(on_count=count, on_s=on_s, off_count=1, off_s=0.0)
    for t in range(30):
        if confirm.take(BAD, t_s=t).bad:
            break
    assert t == pytest.approx(max(count - 1, on_s), abs=1)
