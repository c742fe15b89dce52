"""The backlog: bounded in bytes, drops the oldest of whoever floods it, loses count of nothing."""

import hypothesis.strategies as st
import numpy as np
from hypothesis import given

from fisher_agent.outbox import Backlog
from fisher_agent.stages import Moment, Window


def moment(number: int, *, windows: int = 1, samples: int = 100, machine: str = "m") -> Moment:
    made = tuple(
        Window(machine, f"c{i}", number, 1000.0, np.zeros(samples, np.float32), end_ns=number) for i in range(windows)
    )
    return Moment(machine, number, made)


def test_the_oldest_is_dropped_when_the_newest_does_not_fit():
    backlog = Backlog(1000)  # 2 moments of 400 bytes
    assert [backlog.put(moment(n)) for n in range(4)] == [0, 0, 1, 1]
    assert [m.end_ns for m in backlog.take(10)] == [2, 3]


def test_the_newest_is_kept_even_where_it_alone_is_over_the_bound():
    backlog = Backlog(1000)
    backlog.put(moment(1))
    assert backlog.put(moment(2, samples=10_000)) == 1
    assert [m.end_ns for m in backlog.take(10)] == [2]
    assert backlog.nbytes == 0


def test_a_flooding_machine_loses_its_own_moments_and_a_slow_one_none():
    backlog = Backlog(4000)
    backlog.put(moment(0, machine="slow"))
    for number in range(1, 100):
        backlog.put(moment(number, machine="fast"))
    kept = backlog.take(100)
    assert [m.end_ns for m in kept if m.machine == "slow"] == [0]
    assert [m.end_ns for m in kept if m.machine == "fast"] == list(range(91, 100))  # the newest of its own


def test_a_batch_is_bounded_in_bytes_and_holds_at_least_one_moment():
    backlog = Backlog(10_000)
    for number in range(5):
        backlog.put(moment(number))  # 400 bytes
    assert [m.end_ns for m in backlog.take(64, max_bytes=900)] == [0, 1]
    assert [m.end_ns for m in backlog.take(64, max_bytes=1)] == [2]


def test_a_caller_that_waits_for_room_loses_nothing():
    backlog = Backlog(1000)
    for number in range(20):
        while not backlog.fits(moment(number)):
            backlog.take(1)
        assert backlog.put(moment(number)) == 0
    assert backlog.dropped == 0


def test_full_says_that_the_next_would_push_one_out():
    backlog = Backlog(1000)
    assert not backlog.full
    backlog.put(moment(1))
    assert not backlog.full
    backlog.put(moment(2))
    assert backlog.full


def test_a_moment_is_never_split_and_never_stuck():
    backlog = Backlog(10_000)
    backlog.put(moment(1, windows=3))
    backlog.put(moment(2, windows=3))
    assert [m.end_ns for m in backlog.take(2)] == [1]
    assert [m.end_ns for m in backlog.take(5)] == [2]
    assert backlog.take(5) == []


@given(st.lists(st.one_of(st.tuples(st.integers(1, 4), st.integers(1, 500)), st.integers(1, 6)), max_size=60))
def test_every_window_is_taken_or_dropped_or_waiting(acts):
    backlog = Backlog(2000)
    put, got = [], []
    for number, act in enumerate(acts):
        if isinstance(act, tuple):
            put.append(moment(number, windows=act[0], samples=act[1]))
            backlog.put(put[-1])
        else:
            got += backlog.take(act)
        assert backlog.made == backlog.taken + backlog.dropped + backlog.waiting
        assert backlog.nbytes <= 2000 or len(backlog) == 1
    got += backlog.take(10**6)
    assert backlog.waiting == backlog.nbytes == len(backlog) == 0
    assert backlog.made == sum(len(m.windows) for m in put)
    assert backlog.taken == sum(len(m.windows) for m in got)
    assert [m.end_ns for m in got] == sorted(m.end_ns for m in got)
