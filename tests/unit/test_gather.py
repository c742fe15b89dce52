"""A machine's windows to Moments: when a grid time closes, what is late, snapshots, steps of the clock."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fisher_agent.codes import Status
from fisher_agent.config import ChannelConfig, MachineConfig, WindowConfig
from fisher_agent.gather import Gatherer
from fisher_agent.stages import Frame

MS = 1_000_000
S = 1_000_000_000
T0 = 1_795_000_000 * S
RATES_HZ = {"a": 1000.0, "b": 1600.0, "c": 1102.5}


def gatherer(streams="ab", snapshots="", *, lateness_s=1.0):
    channels = [ChannelConfig(id=c, rate_hz=RATES_HZ[c]) for c in streams]
    channels += [ChannelConfig(id=c, rate_hz=1000, capture="snapshot", period_s=60) for c in snapshots]
    return Gatherer(
        MachineConfig(id="m", channels=tuple(channels)), WindowConfig(length_s=2, hop_s=1, lateness_s=lateness_s)
    )


def block(channel, i, *, span_ms=200, shift_s=0.0, rate_hz=None):
    """Block i of 200 ms, stamped to the ns."""
    rate_hz = rate_hz or RATES_HZ[channel]
    first, last = (round(k * span_ms * rate_hz / 1000) for k in (i, i + 1))
    samples = np.arange(first, last, dtype=np.float32)
    return Frame("m", channel, T0 + round(first * S / rate_hz) + round(shift_s * S), rate_hz, samples, i)


def blocks(channel, begin_s, end_s, **options):
    return [block(channel, i, **options) for i in range(round(begin_s * 5), round(end_s * 5))]


def together(*streams):
    """Frames in the order in which their blocks end, as they arrive in life."""
    return sorted((f for s in streams for f in s), key=lambda f: (f.t_ns + len(f.samples) * S / f.rate_hz, f.channel))


def shot(channel, t_s, *, seconds=1.0):
    return Frame("m", channel, T0 + round(t_s * S), 1000.0, np.ones(round(seconds * 1000), np.float32))


def push_all(g, frames):
    return [m for f in frames for m in g.push(f)]


def seen(moments):
    """[(end in s, channels)]"""
    return [((m.end_ns - T0) / S, "".join(w.channel for w in m.windows)) for m in moments]


def assert_conserved(g, moments):
    assert g.gathered_windows == sum(len(m.windows) for m in moments)
    assert g.made_windows == g.gathered_windows + g.late_windows + g.waiting_windows


def test_channels_of_different_rates_meet_at_equal_grid_times():
    g = gatherer("abc")
    moments = push_all(g, together(*(blocks(c, 0, 6) for c in "abc"))) + g.flush()
    assert seen(moments) == [(t, "abc") for t in (2, 3, 4, 5, 6)]
    for m in moments:
        assert [len(w.samples) for w in m.windows] == [2000, 3200, 2205]
        assert all(w.end_ns == m.end_ns for w in m.windows)
        assert all(abs(w.t_ns - (m.end_ns - 2 * S)) < MS for w in m.windows)


def test_a_grid_time_waits_for_a_channel_that_is_behind_by_less_than_the_lateness():
    g = gatherer()
    assert push_all(g, together(blocks("a", 0, 2.8), blocks("b", 0, 1.8))) == []
    assert seen(push_all(g, blocks("b", 1.8, 2.2))) == [(2, "ab")]


def test_a_grid_time_waits_no_longer_than_the_lateness_and_then_drops_what_is_late():
    g = gatherer()
    moments = push_all(g, together(blocks("a", 0, 1.8), blocks("b", 0, 1.8)))
    moments += push_all(g, blocks("a", 1.8, 2.8))
    assert moments == []
    moments += push_all(g, blocks("a", 2.8, 3.0))
    assert seen(moments) == [(2, "a"), (3, "a")]
    moments += push_all(g, together(blocks("a", 3, 4.2), blocks("b", 1.8, 4.2)))
    assert seen(moments) == [(2, "a"), (3, "a"), (4, "ab")]
    assert g.counters["b"].late == 2
    assert_conserved(g, moments)


def test_a_channel_that_was_never_heard_delays_the_first_moments_only():
    g = gatherer()
    closed_at = {}
    for i, f in enumerate(blocks("a", 0, 10)):
        for m in g.push(f):
            closed_at[(m.end_ns - T0) // S] = (i + 1) / 5
    assert closed_at == {t: float(t) for t in range(2, 11)}


def test_a_channel_that_falls_silent_delays_one_moment_by_the_lateness():
    g = gatherer()
    push_all(g, together(blocks("a", 0, 3.8), blocks("b", 0, 3.8)))
    closed_at = {}
    for f in blocks("a", 3.8, 8):
        for m in g.push(f):
            closed_at[(m.end_ns - T0) // S] = round((f.t_ns - T0) / S + 0.2, 3)
    assert closed_at == {4: 5.0, 5: 5.0, 6: 6.0, 7: 7.0, 8: 8.0}


def test_lateness_zero_still_gives_a_lone_channel_all_its_windows():
    g = gatherer("c", lateness_s=0)
    moments = push_all(g, blocks("c", 0, 30))
    assert len(moments) == 29
    assert g.late_windows == 0


def test_a_gap_in_one_channel_leaves_the_other_alone_in_the_moments_it_touches():
    g = gatherer()
    b = [f for f in blocks("b", 0, 9) if f.seq != 17]
    moments = push_all(g, together(blocks("a", 0, 9), b)) + g.flush()
    assert seen(moments) == [(2, "ab"), (3, "ab"), (4, "a"), (5, "a"), (6, "ab"), (7, "ab"), (8, "ab"), (9, "ab")]
    assert g.late_windows == 0
    assert g.counters["b"].gaps == 1


def test_a_channel_that_waited_for_a_lost_block_is_still_in_time():
    g = gatherer(lateness_s=5)
    b = [f for f in blocks("b", 0, 19) if f.seq != 17]
    moments = push_all(g, together(blocks("a", 0, 19), b)) + g.flush()
    assert [t for t, channels in seen(moments) if channels == "a"] == [4, 5]
    assert g.late_windows == 0


def test_a_grid_time_without_any_window_gives_no_moment():
    g = gatherer("a")
    moments = push_all(g, blocks("a", 0, 3) + blocks("a", 60, 63))
    assert seen(moments) == [(2, "a"), (3, "a"), (62, "a"), (63, "a")]


def test_status_is_that_of_the_latest_frame():
    g = gatherer("a")
    push_all(g, blocks("a", 0, 1))
    assert g.status("a") is Status.OK
    g.push(block("a", 5, rate_hz=1600.0))
    assert g.status("a") is Status.RATE_MISMATCH
    g.push(block("a", 20))
    assert g.status("a") is Status.GAP
    with pytest.raises(KeyError):
        g.status("another")


def test_flush_closes_what_waits_and_may_be_repeated():
    g = gatherer(lateness_s=60)
    moments = push_all(g, blocks("a", 0, 5))
    assert (moments, g.waiting_windows) == ([], 4)
    moments += g.flush() + g.flush()
    assert seen(moments) == [(2, "a"), (3, "a"), (4, "a"), (5, "a")]
    assert_conserved(g, moments)


def test_a_snapshot_joins_the_first_grid_time_after_its_end_and_holds_nothing_up():
    g = gatherer("a", "x")
    frames = [*blocks("a", 0, 3), shot("x", 3.1, seconds=0.3), *blocks("a", 3, 8)]
    assert seen(push_all(g, frames)) == [(2, "a"), (3, "a"), (4, "ax"), (5, "a"), (6, "a"), (7, "a"), (8, "a")]


def test_a_snapshot_that_comes_late_joins_the_next_grid_time_that_is_open():
    g = gatherer("a", "x")
    moments = push_all(g, [*blocks("a", 0, 6), shot("x", 1.0), *blocks("a", 6, 8)])
    assert seen(moments)[-2:] == [(7, "ax"), (8, "a")]
    assert all(w.end_ns == m.end_ns for m in moments for w in m.windows)
    assert g.late_windows == 0


def test_of_two_snapshots_for_one_grid_time_the_newer_counts():
    g = gatherer("a", "x")
    moments = push_all(g, [*blocks("a", 0, 2), shot("x", 2.1, seconds=0.2), shot("x", 2.5, seconds=0.2)])
    moments += push_all(g, blocks("a", 2, 4))
    [window] = [w for m in moments for w in m.windows if w.channel == "x"]
    assert window.t_ns == T0 + 2_500 * MS
    assert g.counters["x"].late == 1
    assert_conserved(g, moments)


def test_snapshots_of_a_machine_whose_streams_are_silent_wait_in_bounded_number():
    g = gatherer("a", "x")
    moments = push_all(g, [shot("x", 60 * i) for i in range(100)])
    assert moments == []
    assert g.waiting_windows == 11
    assert_conserved(g, moments)


def test_a_machine_of_snapshots_closes_a_grid_time_when_all_have_delivered():
    g = gatherer("", "xy")
    assert push_all(g, [shot("x", 60)]) == []
    assert seen(push_all(g, [shot("y", 60)])) == [(61, "xy")]


def test_a_machine_of_snapshots_does_not_wait_for_one_longer_than_the_lateness():
    g = gatherer("", "xy")
    moments = push_all(g, [shot("x", 60), shot("x", 120), shot("y", 61), shot("x", 180)])
    assert seen(moments) == [(61, "x"), (121, "xy")]
    assert_conserved(g, moments)


def test_one_snapshot_channel_gives_a_moment_for_each_snapshot_at_once():
    g = gatherer("", "x")
    assert [seen(g.push(shot("x", t))) for t in (10, 70, 130)] == [[(11, "x")], [(71, "x")], [(131, "x")]]


def test_a_clock_of_the_whole_machine_an_hour_back_restarts_the_grid():
    g = gatherer()
    moments = push_all(g, together(blocks("a", 0, 8), blocks("b", 0, 8)))
    back = together(blocks("a", 8, 16, shift_s=-3600), blocks("b", 8, 16, shift_s=-3600))
    after = push_all(g, back)
    assert seen(after) == [(t - 3600, "ab") for t in (10, 11, 12, 13, 14, 15, 16)]
    assert_conserved(g, moments + after)


def test_windows_cut_before_the_clock_went_back_come_out_before_the_grid_restarts():
    g = gatherer("a", lateness_s=10)
    moments = push_all(g, [f for f in blocks("a", 0, 6.2) if f.seq != 11])
    assert seen(moments) == [(2, "a")]
    last = g.push(block("a", 31, shift_s=-3600))
    assert seen(last) == [(5, "a"), (6, "a")]
    assert_conserved(g, moments + last)


def test_a_clock_of_the_whole_machine_a_few_seconds_back_repeats_no_grid_time():
    g = gatherer()
    frames = together(blocks("a", 0, 20), blocks("b", 0, 20))
    frames += together(blocks("a", 20, 40, shift_s=-6), blocks("b", 20, 40, shift_s=-6))
    moments = push_all(g, frames)
    assert seen(moments) == [(t, "ab") for t in range(2, 21)] + [(t, "ab") for t in range(21, 35)]
    assert g.late_windows > 0
    assert_conserved(g, moments)


def test_a_channel_alone_with_a_clock_an_hour_back_is_late_and_the_others_go_on():
    g = gatherer()
    moments = push_all(g, together(blocks("a", 0, 8), blocks("b", 0, 8)))
    behind = blocks("b", 8, 20, shift_s=-3600)
    for f, other in zip(blocks("a", 8, 20), behind, strict=True):
        moments += g.push(f) + g.push(other)
    assert seen(moments)[-10:] == [(t, "a") for t in range(11, 21)]
    assert g.counters["b"].late == 11
    assert_conserved(g, moments)


def test_one_block_of_a_far_future_costs_a_moment_and_not_the_machine():
    g = gatherer()
    a = [block("a", i, shift_s=3.15e7 if i == 40 else 0) for i in range(100)]
    moments = push_all(g, [f for pair in zip(a, blocks("b", 0, 20), strict=True) for f in pair]) + g.flush()
    ends = [t for t, _ in seen(moments)]
    assert ends == sorted(set(ends))
    assert [m for m in seen(moments) if m[1] == "ab"] == [(t, "ab") for t in (*range(2, 9), *range(11, 21))]
    assert_conserved(g, moments)


def test_a_channel_that_died_in_the_future_is_forgotten_after_ten_minutes():
    g = gatherer()
    push_all(g, together(blocks("a", 0, 8), blocks("b", 0, 8)))
    g.push(block("b", 40, shift_s=1e6))
    moments = push_all(g, blocks("a", 8, 1000))
    ends = [t for t, _ in seen(moments)]
    assert 600 < ends[0] < 620
    assert ends[-1] == 1000
    assert len(ends) == ends[-1] - ends[0] + 1


def test_recordings_one_after_another_give_the_windows_of_each():
    g = gatherer("a")
    moments = []
    for hour in (5, 1, 3):
        long_block = block("a", 0, span_ms=10_000, shift_s=3600 * hour)
        moments += g.push(Frame("m", "a", long_block.t_ns, 1000.0, long_block.samples, gap=True))
    moments += g.flush()
    assert [t for t, _ in seen(moments)] == [3600 * hour + t for hour in (5, 1, 3) for t in range(2, 11)]
    assert_conserved(g, moments)


@settings(max_examples=80)
@given(st.data())
def test_every_window_is_gathered_late_or_waiting_whatever_happens_to_the_frames(data):
    g = gatherer("ab", "x", lateness_s=data.draw(st.sampled_from((0, 0.3, 1, 5))))
    frames = together(blocks("a", 0, 12), blocks("b", 0, 12), [shot("x", t, seconds=0.5) for t in range(12)])
    backs = 0
    faults = st.sampled_from(("lose", "repeat", "swap", "delay", "silence", "back"))
    for fault, i in data.draw(st.lists(st.tuples(faults, st.integers(0, len(frames) - 2)), max_size=12)):
        i = min(i, len(frames) - 2)
        if fault == "lose":
            del frames[i]
        elif fault == "repeat":
            frames.insert(i, frames[i])
        elif fault == "swap":
            frames[i], frames[i + 1] = frames[i + 1], frames[i]
        elif fault == "delay":
            frames.insert(min(i + 25, len(frames) - 1), frames.pop(i))
        elif fault == "silence":
            quiet = frames[i].channel
            frames[i:] = [f for f in frames[i:] if f.channel != quiet]
            if len(frames) < 3:
                break
        elif backs < 2:  # more than 10 s in all may restart the grid
            backs += 1
            frames[i:] = [Frame("m", f.channel, f.t_ns - 4 * S, f.rate_hz, f.samples, f.seq) for f in frames[i:]]
    moments = []
    for f in frames:
        moments += g.push(f)
        assert_conserved(g, moments)
    moments += g.flush()
    assert g.waiting_windows == 0
    assert_conserved(g, moments)
    assert np.all(np.diff([m.end_ns for m in moments]) > 0)
    for m in moments:
        channels = [w.channel for w in m.windows]
        assert channels == sorted(set(channels))
        assert all(w.end_ns == m.end_ns for w in m.windows)
        assert all(np.all(np.diff(w.samples) == 1) for w in m.windows if not w.snapshot)
