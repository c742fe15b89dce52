"""A few samples a second or a minute: windows of the last ones, whatever the blocks that they came in."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes import channel, machine
from fisher_agent.codes import Status
from fisher_agent.config import WindowConfig
from fisher_agent.gather import Gatherer
from fisher_agent.grid import Grid
from fisher_agent.sparse import SparseWindows
from fisher_agent.stages import Frame, Window

S = 1_000_000_000
T0 = 1_795_000_000 * S
GRID = Grid(length_ns=5 * S, hop_ns=5 * S // 2)
VALUES = np.random.default_rng(0).normal(60, 1, 500).astype(np.float32)


def cutter(rate_hz: float = 1.0, kept: int = 20) -> SparseWindows:
    return SparseWindows(machine="m", channel="temp", rate_hz=rate_hz, kept=kept, grid=GRID)


def block(first: int, n: int, *, rate_hz: float = 1.0, shift_ns: int = 0, stated_hz: float | None = None) -> Frame:
    t_ns = T0 + round(first / rate_hz * S) + shift_ns
    return Frame("m", "temp", t_ns, stated_hz or rate_hz, VALUES[first : first + n])


def pushed(made: SparseWindows, *blocks: Frame) -> list[Window]:
    return [w for b in blocks for w in made.push(b)]


def test_a_window_holds_the_last_samples_and_belongs_to_the_next_grid_time() -> None:
    found = pushed(cutter(), *(block(i, 1) for i in range(40)))
    assert [w.end_ns % (5 * S // 2) for w in found] == [0] * len(found)
    assert len({w.end_ns for w in found}) == len(found) == 8  # one each 2.5 s, after the first 20 samples
    for w in found:
        last = round((w.t_ns - T0) / S) + 19
        assert np.array_equal(w.samples, VALUES[last - 19 : last + 1])
        assert 0 <= w.end_ns - (T0 + last * S) < 5 * S // 2
        assert w.snapshot and not w.samples.flags.writeable


@settings(max_examples=60)
@given(sizes=st.lists(st.integers(1, 60), min_size=1, max_size=20), rate_hz=st.sampled_from((0.05, 1.0, 3.7, 10.0)))
def test_blocks_of_any_length_give_the_same_windows(sizes: list[int], rate_hz: float) -> None:
    total = min(sum(sizes), len(VALUES))
    whole = pushed(cutter(rate_hz), block(0, total, rate_hz=rate_hz))
    made, first, parts = cutter(rate_hz), 0, []
    for n in sizes:
        n = min(n, total - first)
        parts += pushed(made, block(first, n, rate_hz=rate_hz)) if n else []
        first += n
    assert [w.end_ns for w in parts] == [w.end_ns for w in whole]
    assert all(abs(a.t_ns - b.t_ns) <= 1 for a, b in zip(parts, whole, strict=True)), "a stamp is whole nanoseconds"
    assert all(np.array_equal(a.samples, b.samples) for a, b in zip(parts, whole, strict=True))


def test_one_sample_a_minute_is_a_window_by_itself() -> None:
    found = pushed(cutter(1 / 60, kept=1), *(block(i, 1, rate_hz=1 / 60) for i in range(5)))
    assert [w.samples.tolist() for w in found] == [[v] for v in VALUES[:5].tolist()]


def test_missing_values_are_a_gap_and_no_window_spans_it() -> None:
    made = cutter()
    before = pushed(made, block(0, 30))
    after = pushed(made, block(34, 1))
    assert (made.last_fault, made.counters.gaps) == (Status.GAP, 1)
    after += pushed(made, block(35, 25))
    assert before and after
    assert min(w.t_ns for w in after) == T0 + 34 * S


def test_one_late_or_missed_poll_is_none() -> None:
    made = cutter()
    pushed(made, block(0, 10), block(11, 1, shift_ns=S // 3), block(12, 1))
    assert made.counters.gaps == 0


def test_what_was_seen_is_dropped_and_a_clock_that_stepped_back_begins_anew() -> None:
    made = cutter(kept=2)
    pushed(made, block(0, 30))
    assert pushed(made, block(29, 1)) == []
    assert (made.counters.duplicates, made.counters.out_of_order) == (1, 0)
    assert pushed(made, block(10, 1)) == []
    assert (made.counters.out_of_order, made.counters.gaps) == (1, 0)
    again = pushed(made, *(block(i, 1) for i in range(11, 20)))
    assert made.counters.gaps == 1
    assert again and again[0].end_ns < T0 + 20 * S


def test_another_rate_is_refused_and_an_empty_block_is_nothing() -> None:
    made = cutter()
    assert pushed(made, block(0, 30, stated_hz=2.0)) == []
    assert (made.last_fault, made.counters.rate_mismatch) == (Status.RATE_MISMATCH, 1)
    assert pushed(made, block(0, 0)) == []


@pytest.mark.parametrize(
    ("rate_hz", "kind", "sparse", "kept"),
    [
        (1 / 60, "process", True, 1), (1.0, "process", True, 20), (10.0, "current", True, 200),
        (200.0, "vibration", False, 0), (1000.0, "vibration", False, 0),
    ],
)  # fmt: skip
def test_which_channels_are_sparse(rate_hz: float, kind: str, sparse: bool, kept: int) -> None:
    window, config = WindowConfig(), channel("c", rate_hz, kind=kind)
    assert window.sparse(config) is window.held(config) is sparse
    assert not sparse or window.kept_samples(config) == kept
    assert not sparse or window.hold_ns(config) == 3 * max(round(S / rate_hz), 5 * S // 2)


def test_a_sparse_channel_holds_up_no_stream_and_joins_its_moments() -> None:
    window = WindowConfig(length_s=5.0, hop_s=2.5)
    config = machine(channel("vib", 1000.0, kind="vibration"), channel("temp", 1.0, kind="process"))
    gatherer = Gatherer(config, window)
    samples = np.random.default_rng(1).normal(size=1000).astype(np.float32)
    moments = []
    for i in range(40):
        moments += gatherer.push(Frame("press-07", "vib", T0 + i * S, 1000.0, samples))
        if i < 30:
            moments += gatherer.push(Frame("press-07", "temp", T0 + i * S, 1.0, VALUES[i : i + 1]))
    moments += gatherer.flush()
    with_temp = [m for m in moments if any(w.channel == "temp" for w in m.windows)]
    assert [m.end_ns for m in moments] == sorted(m.end_ns for m in moments)
    assert len(moments) == 15
    assert 4 <= len(with_temp) <= 5
    assert gatherer.made_windows == gatherer.gathered_windows + gatherer.late_windows
