"""A stream over minutes: lost blocks, another rate, a clock that is off or drifts, and what only looks like it."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes import T0_NS, channel
from fisher_agent.clock import ArrivalClock
from fisher_agent.codes import Status
from fisher_agent.feed import Feed
from fisher_agent.sensor import Finding
from fisher_agent.stages import Frame

RATE_HZ = 1000.0
STAMPED = channel("vib", RATE_HZ, kind="vibration", format="fisher-frame/1")
BARE = channel("vib", RATE_HZ, kind="vibration", format="f32le")
BLOCK_S = 0.2


def stamped(
    seconds: float,
    *,
    offset_s: Callable[[float], float] = lambda _: 0.0,
    lost: Callable[[int], bool] = lambda _: False,
    speed: float = 1.0,
    jitter_s: float = 0.0,
    blocks: bool = False,
    stale_after_s: float = 10.0,
) -> Finding:
    """Blocks whose sender's clock is `offset_s` ahead, `speed` times as fast as life, each up to `jitter_s` late."""
    feed = Feed(STAMPED, stale_after_s=stale_after_s, blocks=blocks)
    rng = np.random.default_rng(0)
    n = round(BLOCK_S * RATE_HZ)
    for k in range(round(seconds / BLOCK_S)):
        if lost(k):
            continue
        now_s = (k + 1) * BLOCK_S / speed + jitter_s * float(rng.random())
        end_ns = T0_NS + round(((k + 1) * BLOCK_S + offset_s(now_s)) * 1e9)
        frame = Frame("m", "vib", end_ns - round(BLOCK_S * 1e9), RATE_HZ, np.zeros(n, np.float32))
        feed.take(frame, end_ns=end_ns, mono_s=now_s, utc_ns=T0_NS + round(now_s * 1e9))
    return feed.finding()


def bare(
    seconds: float,
    *,
    true_hz: float,
    lost: Callable[[int], bool] = lambda _: False,
    jitter_s: float = 0.0,
    burst: int = 1,
) -> Finding:
    """Blocks without a time, through the arrival clock; `burst` of them come together."""
    feed, clock = Feed(BARE, stale_after_s=10.0, blocks=False), ArrivalClock(RATE_HZ)
    rng = np.random.default_rng(0)
    n = round(BLOCK_S * RATE_HZ)
    for k in range(round(seconds * true_hz / n)):
        if lost(k):
            continue
        now_s = -(-(k + 1) // burst) * burst * n / true_hz + jitter_s * float(rng.random())
        mono_ns, utc_ns = round(now_s * 1e9), T0_NS + round(now_s * 1e9)
        t_ns, gap = clock.stamp(n, mono_ns=mono_ns, utc_ns=utc_ns)
        frame = Frame("m", "vib", t_ns, RATE_HZ, np.zeros(n, np.float32), gap=gap)
        feed.take(frame, end_ns=t_ns + round(n * 1e9 / RATE_HZ), mono_s=now_s, utc_ns=utc_ns)
    return feed.finding()


def test_a_stream_that_is_as_promised_is_fine() -> None:
    assert not stamped(700, jitter_s=0.3).bad
    assert not bare(700, true_hz=RATE_HZ, jitter_s=0.1).bad
    assert not bare(700, true_hz=RATE_HZ, burst=5).bad
    assert not bare(700, true_hz=1.0002 * RATE_HZ).bad


@pytest.mark.parametrize(("off", "burst"), [(0.9, 1), (0.97, 1), (1.03, 1), (1.25, 1), (1.03, 5), (1.25, 5)])
def test_another_rate_than_configured_is_found_within_four_minutes(off: float, burst: int) -> None:
    found = bare(240, true_hz=off * RATE_HZ, burst=burst)
    assert found.status is Status.RATE_MISMATCH
    assert float(found.text.split()[0]) == pytest.approx(off * RATE_HZ, rel=0.01)


def test_in_bursts_nobody_can_tell_a_slower_rate_from_loss_and_it_is_found_all_the_same() -> None:
    assert bare(240, true_hz=0.9 * RATE_HZ, burst=5).status in (Status.RATE_MISMATCH, Status.GAP)


def test_a_rate_that_is_a_little_off_is_left_to_the_clock() -> None:
    assert not bare(400, true_hz=1.005 * RATE_HZ).bad


@pytest.mark.parametrize("one_in", [5, 10])
def test_lost_blocks_are_missing_and_no_other_rate(one_in: int) -> None:
    found = bare(240, true_hz=RATE_HZ, lost=lambda k: k % one_in == 3)
    assert found.status is Status.GAP
    found = stamped(240, lost=lambda k: k % one_in == 3)
    assert found.status is Status.GAP
    assert f"{1 - 1 / one_in:.0%}" in found.text


def test_a_link_that_was_away_for_some_seconds_is_forgotten_after_a_minute() -> None:
    away = range(500, 540)
    assert stamped(130, lost=lambda k: k in away).status is Status.GAP
    assert not stamped(175, lost=lambda k: k in away).bad
    assert not bare(300, true_hz=RATE_HZ, lost=lambda k: k in away).bad


def test_snapshots_are_not_expected_without_a_break() -> None:
    assert not stamped(300, lost=lambda k: k % 50 > 0, blocks=True).bad


@pytest.mark.parametrize("offset_s", [2.5, 3600.0, -15.0, -7200.0])
def test_a_clock_that_is_off_is_found_within_three_minutes(offset_s: float) -> None:
    found = stamped(185, offset_s=lambda _: offset_s)
    assert found.status is Status.CLOCK_DRIFT
    assert f"{abs(offset_s):.1f} s {'ahead' if offset_s > 0 else 'behind'}" in found.text


@pytest.mark.parametrize("offset_s", [1.5, -1.5, -8.0])
def test_a_gateway_that_collects_for_some_seconds_is_no_wrong_clock(offset_s: float) -> None:
    assert not stamped(400, offset_s=lambda _: offset_s).bad
    assert not stamped(400, offset_s=lambda t: -(t % 6)).bad


@pytest.mark.parametrize("ppm", [400.0, -400.0, 2000.0])
def test_a_clock_that_drifts_is_found_and_one_within_its_tolerance_is_not(ppm: float) -> None:
    found = stamped(720, offset_s=lambda t: ppm * 1e-6 * t, jitter_s=0.05)
    assert found.status is Status.CLOCK_DRIFT
    assert "ppm" in found.text
    assert not stamped(720, offset_s=lambda t: np.sign(ppm) * 100e-6 * t, jitter_s=0.05).bad


@pytest.mark.parametrize("speed", [0.5, 4.0, 100.0])
def test_a_replay_is_no_clock(speed: float) -> None:
    assert not stamped(max(900.0, 400 * speed), speed=speed, offset_s=lambda _: -86_400.0).bad


def test_after_a_pause_of_the_process_all_begins_anew() -> None:
    feed = Feed(STAMPED, stale_after_s=10.0, blocks=False)
    for k in range(1000):
        end_ns = T0_NS + (k + 1) * 200_000_000
        frame = Frame("m", "vib", end_ns - 200_000_000, RATE_HZ, np.zeros(100, np.float32))
        feed.take(frame, end_ns=end_ns, mono_s=0.2 * k, utc_ns=end_ns)
    assert feed.finding().bad
    feed.reset()
    assert not feed.finding().bad


TIMES = st.integers(0, 4 * 10**18)


@given(st.lists(st.tuples(TIMES, st.integers(0, 500), st.floats(0, 400), TIMES), max_size=80), st.booleans())
def test_no_stamps_raise(steps: list[tuple[int, int, float, int]], is_stamped: bool) -> None:
    feed, mono_s = Feed(STAMPED if is_stamped else BARE, stale_after_s=10.0, blocks=False), 0.0
    for t_ns, n, step_s, utc_ns in steps:
        mono_s += step_s
        frame = Frame("m", "vib", t_ns, RATE_HZ, np.zeros(n, np.float32))
        feed.take(frame, end_ns=t_ns + n * 1_000_000, mono_s=mono_s, utc_ns=utc_ns)
        found = feed.finding()
        assert found.bad == bool(found.text)
