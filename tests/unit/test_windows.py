"""One channel's frames to windows: gaps, order, duplicates, clock steps, rates, memory. Samples count up, so a window
whose samples are not consecutive has spanned a gap."""

import tracemalloc

import numpy as np
import pytest

from fisher_agent.codes import Status
from fisher_agent.stages import Frame
from fisher_agent.windows import SnapshotWindows, StreamWindows

MS = 1_000_000
S = 1_000_000_000
T0 = 1_795_000_000 * S
BLOCK = 100  # samples, 100 ms


def stream(rate_hz=1000.0, *, length_ms=500, hop_ms=250, lateness_ms=300):
    return StreamWindows(
        machine="m", channel="c", rate_hz=rate_hz, length_ns=length_ms * MS, hop_ns=hop_ms * MS,
        lateness_ns=lateness_ms * MS,
    )  # fmt: skip


def block(i, *, seq=True, shift_ms=0.0, n=BLOCK, rate_hz=1000.0, gap=False, seq_is=None):
    """Block i of a signal whose sample number is its value; 1 kHz, so that is also its time in ms."""
    samples = np.arange(i * n, (i + 1) * n, dtype=np.float32)
    t_ns = T0 + round(i * n * S / 1000) + round(shift_ms * MS)
    number = (i & 0xFFFFFFFF if seq_is is None else seq_is) if seq else None
    return Frame("m", "c", t_ns, rate_hz, samples, number, gap)


def push_all(cutter, frames):
    return [w for f in frames for w in cutter.push(f)]


def ends_ms(windows):
    return [(w.end_ns - T0) // MS for w in windows]


def assert_consecutive(windows):
    for w in windows:
        assert np.all(np.diff(w.samples) == 1)


def test_windows_begin_on_the_grid_and_overlap_by_length_less_hop():
    windows = push_all(stream(), [block(i) for i in range(10)])
    assert ends_ms(windows) == [500, 750, 1000]
    assert [w.samples[0] for w in windows] == [0, 250, 500]
    assert [len(w.samples) for w in windows] == [500] * 3
    assert [(w.t_ns - T0) // MS for w in windows] == [0, 250, 500]


def test_a_stream_that_begins_between_grid_times_has_its_first_window_at_the_next_one():
    cutter = stream()
    windows = push_all(cutter, [block(i, shift_ms=130) for i in range(10)])
    assert ends_ms(windows) == [750, 1000]
    assert windows[0].samples[0] == 120


def test_a_hop_longer_than_the_window_leaves_samples_out():
    windows = push_all(stream(length_ms=200, hop_ms=800), [block(i) for i in range(20)])
    assert ends_ms(windows) == [200, 1000, 1800]
    assert [w.samples[0] for w in windows] == [0, 800, 1600]
    assert_consecutive(windows)


@pytest.mark.parametrize("seq", [True, False])
def test_a_lost_block_ends_the_window_and_is_one_gap(seq):
    cutter = stream()
    windows = push_all(cutter, [block(i, seq=seq) for i in range(30) if i != 12])
    assert_consecutive(windows)
    assert ends_ms(windows) == [500, 750, 1000, 2000, 2250, 2500, 2750, 3000]
    assert (cutter.counters.gaps, cutter.counters.windows, cutter.counters.late) == (1, 8, 0)


def test_the_status_is_gap_for_the_frame_that_ends_the_window_only():
    cutter = stream(lateness_ms=0)
    seen = []
    for i in (0, 1, 3, 4):
        cutter.push(block(i))
        seen.append(cutter.last_fault)
    assert seen == [None, None, Status.GAP, None]


def test_a_gap_that_the_source_knows_of_ends_the_window_though_stamps_agree():
    cutter = stream()
    windows = push_all(cutter, [block(i, gap=i == 3) for i in range(12)])
    assert ends_ms(windows) == [1000]
    assert cutter.counters.gaps == 1


def test_a_hole_in_seq_ends_the_window_though_stamps_agree():
    cutter = stream(lateness_ms=0)
    assert ends_ms(push_all(cutter, [block(i, seq_is=i + (i >= 3)) for i in range(12)])) == [1000]
    assert cutter.counters.gaps == 1


def test_seq_wraps_at_32_bits_without_a_gap():
    cutter = stream()
    windows = push_all(cutter, [block(i, seq_is=(2**32 - 5 + i) % 2**32) for i in range(20)])
    assert len(windows) == 7
    assert cutter.counters.gaps == 0


def test_a_sender_that_restarts_its_seq_is_one_gap():
    cutter = stream()
    frames = [block(i) for i in range(100, 110)] + [block(i, seq_is=i - 112) for i in range(112, 130)]
    windows = push_all(cutter, frames)
    assert_consecutive(windows)
    assert cutter.counters.gaps == 1
    assert ends_ms(windows)[-1] == 13_000


@pytest.mark.parametrize("seq", [True, False])
def test_blocks_in_the_wrong_order_are_put_in_order(seq):
    cutter, straight = stream(), stream()
    order = [0, 2, 1, 3, 6, 5, 4, 7, 8, 9, 10, 11]
    windows = push_all(cutter, [block(i, seq=seq) for i in order])
    wanted = push_all(straight, [block(i, seq=seq) for i in sorted(order)])
    assert [w.samples.tobytes() for w in windows] == [w.samples.tobytes() for w in wanted]
    assert cutter.counters.gaps == 0
    assert cutter.counters.out_of_order == 3  # 1, 5 and 4 came after a later one


@pytest.mark.parametrize("seq", [True, False])
def test_a_block_that_comes_after_its_gap_was_declared_is_dropped(seq):
    cutter = stream()
    windows = push_all(cutter, [block(i, seq=seq) for i in [0, 1, 3, 4, 5, 6, 2, *range(7, 20)]])
    assert_consecutive(windows)
    assert (cutter.counters.gaps, cutter.counters.out_of_order) == (1, 1)
    assert ends_ms(windows)[-1] == 2000


def test_end_of_input_does_not_wait_for_a_missing_block():
    cutter = stream(lateness_ms=60_000)
    assert push_all(cutter, [block(i) for i in [0, *range(2, 12)]]) == []
    windows = cutter.flush()
    assert ends_ms(windows) == [750, 1000]
    assert_consecutive(windows)


def test_what_waits_for_a_missing_block_is_bounded_by_count():
    cutter = stream(lateness_ms=60_000)
    windows = push_all(cutter, [block(i) for i in [0, *range(2, 80)]])
    assert len(windows) > 0
    assert cutter.counters.gaps == 1


@pytest.mark.parametrize("seq", [True, False])
def test_repeated_blocks_change_nothing(seq):
    cutter, straight = stream(), stream()
    repeated = [0, 0, 1, 2, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 10, 11]
    windows = push_all(cutter, [block(i, seq=seq) for i in repeated])
    wanted = push_all(straight, [block(i, seq=seq) for i in range(12)])
    assert [w.samples.tobytes() for w in windows] == [w.samples.tobytes() for w in wanted]
    assert (cutter.counters.gaps, cutter.counters.duplicates) == (0, 12)


def test_a_block_repeated_while_it_waits_is_a_duplicate():
    cutter = stream()
    push_all(cutter, [block(i) for i in [0, 2, 2, 1, 3]])
    assert (cutter.counters.duplicates, cutter.counters.gaps) == (1, 0)


def test_a_block_that_waits_is_dropped_when_a_longer_one_covers_it():
    cutter = stream()
    longer = Frame("m", "c", T0 + 100 * MS, 1000.0, np.arange(100, 300, dtype=np.float32))
    frames = [block(0, seq=False), block(2, seq=False), longer, *(block(i, seq=False) for i in range(3, 8))]
    windows = push_all(cutter, frames)
    assert_consecutive(windows)
    assert ends_ms(windows) == [500, 750]
    assert (cutter.counters.gaps, cutter.counters.out_of_order) == (0, 2)


@pytest.mark.parametrize("seq", [True, False])
def test_a_block_that_overlaps_the_past_ends_the_window(seq):
    cutter = stream()
    frames = [block(i, seq=seq, shift_ms=-40 if i >= 8 else 0) for i in range(20)]
    windows = push_all(cutter, frames)
    assert_consecutive(windows)
    assert (cutter.counters.gaps, cutter.counters.out_of_order) == (1, 0)
    assert ends_ms(windows) == [500, 750, 1500, 1750]


@pytest.mark.parametrize("seq", [True, False])
@pytest.mark.parametrize("step_ms", [-300, -500, -930, -3000, -9000])
def test_a_clock_that_steps_back_neither_deafens_nor_splices_nor_repeats_a_grid_time(step_ms, seq):
    cutter = stream()
    before = 30
    frames = [block(i, seq=seq, shift_ms=step_ms if i >= before else 0) for i in range(before + 120)]
    windows = push_all(cutter, frames)
    assert_consecutive(windows)
    assert np.all(np.diff([w.end_ns for w in windows]) > 0)
    assert ends_ms(windows)[-1] == ((before + 120) * 100 + step_ms) // 250 * 250
    assert cutter.counters.gaps == 1
    assert cutter.counters.windows == len(windows) + cutter.counters.late


@pytest.mark.parametrize("seq", [True, False])
def test_a_clock_that_steps_back_an_hour_restarts_the_grid_at_once(seq):
    cutter = stream()
    push_all(cutter, [block(i, seq=seq) for i in range(30)])
    windows = push_all(cutter, [block(i, seq=seq, shift_ms=-3_600_000) for i in range(30, 40)])
    assert_consecutive(windows)
    assert ends_ms(windows) == [t - 3_600_000 for t in (3500, 3750, 4000)]
    assert cutter.counters.gaps == 1


def test_a_sender_that_restarts_with_a_clock_an_hour_behind_is_heard_after_a_second():
    cutter = stream()
    push_all(cutter, [block(i) for i in range(1000, 1030)])
    windows = push_all(cutter, [block(i, seq_is=i - 1030, shift_ms=-3_600_000) for i in range(1030, 1060)])
    assert_consecutive(windows)
    assert (windows[0].end_ns - T0) // MS <= 103_000 - 3_600_000 + 1000 + 750
    assert cutter.counters.gaps == 1


def test_one_block_of_a_far_future_does_not_deafen_the_channel():
    cutter = stream()
    frames = [block(i, shift_ms=3.15e10 if i == 10 else 0) for i in range(30)]
    windows = push_all(cutter, frames)
    assert_consecutive(windows)
    assert ends_ms(windows) == [500, 750, 1000, 1750, 2000, 2250, 2500, 2750, 3000]


@pytest.mark.parametrize("seq", [True, False])
def test_a_clock_that_steps_forward_is_a_gap(seq):
    cutter = stream()
    windows = push_all(cutter, [block(i, seq=seq, shift_ms=250 if i >= 7 else 0) for i in range(20)])
    assert_consecutive(windows)
    assert ends_ms(windows) == [500, 1500, 1750, 2000, 2250]
    assert cutter.counters.gaps == 1


def test_a_block_of_another_rate_is_dropped_and_ends_the_window():
    cutter = stream()
    windows = push_all(cutter, [block(i, rate_hz=2000.0 if i == 7 else 1000.0) for i in range(7)])
    assert cutter.push(block(7, rate_hz=2000.0)) == []
    assert cutter.last_fault is Status.RATE_MISMATCH
    windows += cutter.push(block(8))
    assert cutter.head_ns == T0 + 900 * MS  # nothing is waited for
    windows += push_all(cutter, [block(i) for i in range(9, 20)])
    assert_consecutive(windows)
    assert ends_ms(windows) == [500, 1500, 1750, 2000]
    assert (cutter.counters.gaps, cutter.counters.rate_mismatch) == (1, 1)


def test_a_rate_within_a_thousandth_is_drift_and_not_another_rate():
    cutter = stream()
    windows = push_all(cutter, [block(i, rate_hz=1000.9) for i in range(10)])
    assert len(windows) == 3
    assert {w.rate_hz for w in windows} == {1000.0}
    cutter.push(block(10, rate_hz=1001.1))
    cutter.push(block(11, rate_hz=float("nan")))
    assert cutter.counters.rate_mismatch == 2


def test_jitter_within_the_tolerance_is_no_gap_and_beyond_it_is():
    calm, wild = stream(), stream()
    push_all(calm, [block(i, shift_ms=0.9 * (-1) ** i) for i in range(50)])
    push_all(wild, [block(i, shift_ms=2.5 * (i == 20)) for i in range(50)])
    assert calm.counters.gaps == 0
    assert wild.counters.gaps == 2


@pytest.mark.parametrize("drift", [1e-4, -1e-4])
def test_a_drift_of_100_ppm_keeps_every_window_within_the_tolerance_of_the_grid(drift):
    cutter = stream(length_ms=2000, hop_ms=1000)
    true_hz = 1000 * (1 + drift)
    worst_s, count = 0.0, 0
    for i in range(3600):
        samples = np.arange(i * 1000, (i + 1) * 1000, dtype=np.float32)
        for w in cutter.push(Frame("m", "c", T0 + round(i * 1000 / true_hz * S), 1000.0, samples, i)):
            count += 1
            true_s = float(w.samples[0]) / true_hz
            grid_s = (w.end_ns - T0) / S - 2
            worst_s = max(worst_s, abs(true_s - grid_s))
            assert_consecutive([w])
    assert count in (3598, 3599)
    assert cutter.counters.gaps == 0
    assert worst_s < 0.003  # the tolerance and one sample; without re-anchoring it would be 0.36 s


@pytest.mark.parametrize("hop_ms", [250, 500])
def test_a_window_never_reaches_back_before_the_stamp_that_moved_its_beginning(hop_ms):
    cutter = stream(hop_ms=hop_ms)
    windows = push_all(cutter, [block(i, shift_ms=1.5 * (i >= 5)) for i in range(12)])
    [window] = [w for w in windows if w.end_ns == T0 + 1000 * MS]
    assert window.samples[0] == 500
    assert window.t_ns == T0 + 501_500_000
    assert cutter.counters.gaps == 0


def test_passed_counts_grid_times_that_can_never_come():
    cutter = stream()
    push_all(cutter, [block(i) for i in range(6)])
    assert (cutter.passed_ns - T0) // MS == 500
    cutter.push(block(40))
    assert (cutter.passed_ns - T0) // MS == 4250  # the run begins at 4000: its first window ends at 4500
    assert (cutter.head_ns - T0) // MS == 4100


def test_windows_stay_as_they_were_and_cannot_be_written():
    cutter = stream()
    kept = []
    for i in range(40):
        kept += [(w, w.samples.copy()) for w in cutter.push(block(i))]
    assert all(np.array_equal(w.samples, copy) for w, copy in kept)
    with pytest.raises(ValueError, match="read-only"):
        kept[0][0].samples[0] = 1.0


def test_windows_that_overlap_share_their_samples_instead_of_copying_them():
    windows = push_all(stream(length_ms=1000, hop_ms=50), [block(i) for i in range(100)])
    assert len(windows) == 181
    assert len({id(w.samples.base) for w in windows}) <= 10


def test_memory_is_bounded_by_the_window_whatever_the_frames():
    rate_hz, window_bytes = 100_000.0, 100_000 * 4
    cutter = stream(rate_hz, length_ms=1000, hop_ms=100)
    one_second = np.zeros(100_000, np.float32)
    tracemalloc.start()
    for i in range(30):
        cutter.push(Frame("m", "c", T0 + i * S, rate_hz, one_second, i))
    assert tracemalloc.get_traced_memory()[0] < 3 * window_bytes
    tracemalloc.stop()


def snapshots():
    return SnapshotWindows(machine="m", channel="s", rate_hz=1000.0, length_ns=5 * S, hop_ns=5 * S // 2)


def shot(t_s, *, n=1000, seq=None, rate_hz=1000.0):
    return Frame("m", "s", T0 + round(t_s * S), rate_hz, np.arange(n, dtype=np.float32), seq)


def test_a_snapshot_is_one_window_at_the_first_grid_time_not_before_its_end():
    cutter = snapshots()
    [window] = cutter.push(shot(61.0))
    assert window.snapshot
    assert len(window.samples) == 1000
    assert window.end_ns == T0 + 62_500 * MS
    [on_time] = cutter.push(shot(71.5))
    assert on_time.end_ns == T0 + 72_500 * MS


@pytest.mark.parametrize(("n", "kept"), [(49, False), (50, True), (10_000, True), (10_001, False)])
def test_a_snapshot_must_last_between_50_ms_and_10_s(n, kept):
    cutter = snapshots()
    assert len(cutter.push(shot(0, n=n))) == kept
    assert cutter.counters.unusable == (not kept)
    assert (cutter.last_fault is Status.GAP) != kept


def test_a_snapshot_of_another_rate_is_dropped():
    cutter = snapshots()
    assert cutter.push(shot(0, rate_hz=2000.0)) == []
    assert cutter.last_fault is Status.RATE_MISMATCH


def test_repeated_and_older_snapshots_are_dropped_but_a_clock_that_stepped_back_is_followed():
    cutter = snapshots()
    made = [len(cutter.push(shot(t))) for t in (600, 600, 540, 660, 60, 120, 180)]
    assert made == [1, 0, 0, 1, 0, 1, 1]
    assert (cutter.counters.duplicates, cutter.counters.out_of_order, cutter.counters.gaps) == (1, 2, 1)


def test_a_snapshot_whose_seq_goes_on_is_never_too_old():
    cutter = snapshots()
    assert [len(cutter.push(shot(t, seq=q))) for q, t in enumerate((600, 660, 60))] == [1, 1, 1]
