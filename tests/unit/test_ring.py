"""The ring keeps the latest seconds within its bytes, holds what an alarm needs, and says what did not fit."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fisher_agent.ring import FRAME_BYTES, Ring
from fisher_agent.stages import Frame

S = 1_000_000_000
T0 = 1_795_000_000 * S
RATE = 100.0


def frame(second: float, *, machine: str = "m", channel: str = "a", n: int = 100, seq: int | None = None) -> Frame:
    """One second of samples that tell their time, unless `n` says otherwise."""
    samples = np.full(n, second, np.float32)
    return Frame(machine, channel, T0 + round(second * S), RATE, samples, seq)


def kept(ring: Ring, machine: str = "m", *, since_s: float = -1e6, until_s: float = 1e6) -> dict[str, list[float]]:
    found = ring.frames(
        machine,
        since_ns={c: T0 + round(since_s * S) for c in "ab"},
        until_ns=T0 + round(until_s * S),
        rates_hz=dict.fromkeys("ab", RATE),
    )
    return {c: [(f.t_ns - T0) / S for f in frames] for c, frames in found.items()}


def test_what_is_older_than_is_kept_goes() -> None:
    ring = Ring(10**9)
    ring.watch("m", {"a": 3 * S, "b": 10 * S})
    for second in range(8):
        ring.add(frame(second))
        ring.add(frame(second, channel="b"))
    assert kept(ring) == {"a": [4, 5, 6, 7], "b": [0, 1, 2, 3, 4, 5, 6, 7]}
    assert kept(ring, since_s=5.0, until_s=7.0) == {"a": [5, 6], "b": [5, 6]}
    assert ring.heads_ns("m") == {"a": T0 + 8 * S, "b": T0 + 8 * S}


def test_what_is_held_stays_until_it_is_released() -> None:
    ring = Ring(10**9)
    ring.watch("m", {"a": 2 * S})
    for second in range(20):
        ring.add(frame(second))
        if second == 5:
            ring.hold("alarm", "m", {"a": T0 + 4 * S})
    assert kept(ring)["a"] == list(range(3, 20))
    ring.release("alarm")
    ring.add(frame(20))
    assert kept(ring)["a"] == [18, 19, 20]


def test_the_bytes_bound_holds_whatever_is_held_and_is_told() -> None:
    size = 100 * 4 + FRAME_BYTES
    ring = Ring(10 * size + size // 2)
    ring.watch("m", {"a": 100 * S})
    ring.hold("alarm", "m", {"a": T0})
    for second in range(15):
        ring.add(frame(second))
        assert ring.nbytes <= 10 * size + size // 2
    assert kept(ring)["a"] == list(range(5, 15))
    assert ring.short_ns("m", "a", T0) == 5 * S
    assert ring.short_ns("m", "a", T0 + 9 * S) == 0


def test_the_machine_that_holds_most_gives_way() -> None:
    size = 100 * 4 + FRAME_BYTES
    ring = Ring(10 * size + size // 2)
    ring.watch("m", {"a": 100 * S})
    ring.watch("loud", {"a": 100 * S})
    for second in range(3):
        ring.add(frame(second))
    for second in range(30):
        ring.add(frame(second, machine="loud"))
    assert kept(ring)["a"] == [0, 1, 2]
    assert kept(ring, "loud")["a"] == list(range(23, 30))


def test_a_slow_channel_keeps_its_last_value_when_a_fast_one_needs_the_room() -> None:
    ring = Ring(6 * (100 * 4 + FRAME_BYTES))
    ring.watch("m", {"a": 1000 * S, "b": 1000 * S})
    ring.add(frame(0, channel="b", n=1))
    for second in range(20):
        ring.add(frame(second))
    assert kept(ring)["b"] == [0]


def test_a_hole_in_the_count_and_a_frame_of_another_rate_become_gaps() -> None:
    ring = Ring(10**9)
    ring.watch("m", {"a": 100 * S})
    short = [frame(0.001 * k, n=1, seq=k if k < 5 else k + 1) for k in range(10)]
    for one in (*short, replace(frame(1), rate_hz=200.0), frame(2)):
        ring.add(replace(one, rate_hz=1000.0) if len(one.samples) == 1 else one)
    found = ring.frames("m", since_ns={}, until_ns=T0 + 9 * S, rates_hz={"a": 1000.0})["a"]
    assert [f.gap for f in found] == [False] * 5 + [True] + [False] * 4
    found = ring.frames("m", since_ns={}, until_ns=T0 + 9 * S, rates_hz={"a": RATE})["a"]
    assert [(f.t_ns - T0, f.gap, f.seq) for f in found] == [(2 * S, True, None)]


def test_a_clock_that_steps_back_begins_anew() -> None:
    ring = Ring(10**9)
    ring.watch("m", {"a": 5 * S})
    for second in (100, 101, 102, 20, 21):
        ring.add(frame(second))
    assert kept(ring)["a"] == [20, 21]


def test_what_is_held_outlives_a_clock_that_steps_back_and_no_longer() -> None:
    ring = Ring(10**9)
    ring.watch("m", {"a": 5 * S})
    for second in (100, 101):
        ring.add(frame(second))
    ring.hold("alarm", "m", {"a": T0 + 99 * S})
    ring.add(frame(20))
    assert kept(ring)["a"] == [100, 101, 20]
    ring.release("alarm")
    ring.add(frame(21))
    assert kept(ring)["a"] == [20, 21]


def test_only_what_is_watched_is_kept_and_a_change_of_channels_keeps_the_others() -> None:
    ring = Ring(10**9)
    ring.watch("m", {"a": 50 * S, "b": 50 * S})
    for one in (frame(0), frame(0, channel="b"), frame(0, channel="c"), frame(0, machine="x"), frame(1, n=0)):
        ring.add(one)
    assert (kept(ring), ring.machines) == ({"a": [0], "b": [0]}, ("m",))
    ring.watch("m", {"a": 50 * S})
    assert kept(ring) == {"a": [0]}
    assert ring.nbytes == 100 * 4 + FRAME_BYTES
    ring.forget("m")
    assert (ring.nbytes, kept(ring)) == (0, {})


@pytest.mark.parametrize("max_frames", [3, 50])
@given(
    steps=st.lists(
        st.tuples(st.sampled_from("ab"), st.integers(0, 60), st.sampled_from(["add", "hold", "release"])), max_size=80
    )
)
def test_the_count_of_bytes_is_what_is_there_and_never_over_the_bound(
    max_frames: int, steps: list[tuple[str, int, str]]
) -> None:
    bound = max_frames * (100 * 4 + FRAME_BYTES)
    ring = Ring(bound)
    ring.watch("m", {"a": 20 * S, "b": 5 * S})
    for channel, second, act in steps:
        if act == "add":
            ring.add(frame(second, channel=channel))
            assert second in kept(ring)[channel]  # the newest is always there
        elif act == "hold":
            ring.hold("x", "m", {channel: T0 + second * S})
        else:
            ring.release("x")
        count = sum(map(len, kept(ring).values()))
        assert ring.nbytes == count * (100 * 4 + FRAME_BYTES) <= bound
