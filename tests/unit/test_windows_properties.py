"""What holds of windows for every stream: independence of chunking, no gap spanned, everything accounted for."""

from fractions import Fraction
from math import ceil

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fisher_agent.stages import Frame
from fisher_agent.windows import StreamWindows

MS = 1_000_000
S = 1_000_000_000
T0 = 1_795_000_000 * S
SIGNAL = np.random.default_rng(1).standard_normal(400_000).astype(np.float32)
RATES_HZ = (1000.0, 11025.0, 12800.0, 25600.0, 44100.0, 97656.25)
quick = settings(max_examples=60)


def cut(rate_hz, *, length_ns, hop_ns, frames, lateness_ns=S // 4):
    cutter = StreamWindows(
        machine="m", channel="c", rate_hz=rate_hz, length_ns=length_ns, hop_ns=hop_ns, lateness_ns=lateness_ns
    )
    windows = [w for f in frames for w in cutter.push(f)]
    return windows + cutter.flush(), cutter


def defined(rate_hz, first_ns, n, *, length_ns, hop_ns):
    """(end_ns, first sample) of each window as the contract defines them, by fractions and without any stream."""
    rate = Fraction(rate_hz) / S
    period_ns = 1 / rate
    tolerance_ns = min(max(Fraction(1000), period_ns / 100), period_ns / 2)
    size = round(length_ns * rate_hz / S)
    k = (first_ns - 2 * S) // hop_ns
    found = []
    while True:
        first = ceil((k * hop_ns - tolerance_ns - first_ns) * rate)
        if first + size > n:
            return found
        if first >= 0:
            found.append((k * hop_ns + length_ns, first))
        k += 1


@st.composite
def chunkings(draw):
    sizes = draw(
        st.lists(st.one_of(st.integers(1, 9), st.integers(500, 9000), st.integers(30_000, 200_000)), max_size=8)
    )
    return [*sizes, draw(st.integers(2000, 6000))]


@quick
@given(
    rate_hz=st.sampled_from(RATES_HZ),
    phase_ns=st.integers(0, 3 * S),
    unit_ns=st.sampled_from((1, 1000, MS)),
    sizes=chunkings(),
    grid_ms=st.sampled_from(((500, 250), (500, 500), (700, 100), (200, 450), (2500, 1250))),
)
def test_any_chunking_gives_the_windows_of_the_definition(rate_hz, phase_ns, unit_ns, sizes, grid_ms):
    n = min(len(SIGNAL), round(4 * rate_hz))
    length_ns, hop_ns = (ms * MS for ms in grid_ms)
    frames, at = [], 0
    while at < n:
        size = sizes[len(frames) % len(sizes)]
        true_ns = T0 + phase_ns + Fraction(at * S) / Fraction(rate_hz)
        stamp_ns = round(true_ns / unit_ns) * unit_ns
        frames.append(Frame("m", "c", stamp_ns, rate_hz, SIGNAL[at : min(at + size, n)], len(frames)))
        at += size
    windows, cutter = cut(rate_hz, length_ns=length_ns, hop_ns=hop_ns, frames=frames)
    wanted = defined(rate_hz, frames[0].t_ns, n, length_ns=length_ns, hop_ns=hop_ns)
    assert [w.end_ns for w in windows] == [end_ns for end_ns, _ in wanted]
    size = round(length_ns * rate_hz / S)
    for w, (_, first) in zip(windows, wanted, strict=True):
        assert w.samples.tobytes() == SIGNAL[first : first + size].tobytes()
        assert abs(w.t_ns - (frames[0].t_ns + first * S / Fraction(rate_hz))) <= Fraction(1, 2)
        assert -1000 <= w.t_ns - (w.end_ns - length_ns) < S / rate_hz
    assert cutter.counters.gaps == 0


BLOCK = 64  # ms and samples at 1 kHz
EVENTS = ("lose", "repeat", "repeat-old", "swap", "delay")


@st.composite
def troubled_streams(draw):
    """Frames of a signal whose value is its sample number, with faults of the network and of the sender's clock.

    Without seq a stamp is all there is to tell a lost block from a clock that stepped back by just one, so the one
    step is then never a whole number of blocks.
    """
    seq = draw(st.booleans())
    count = 100
    step_at = draw(st.integers(1, count - 1))
    step_ms = draw(st.sampled_from((0, 0, 32, 9_000, -20, -32, -32 - 5 * BLOCK, -4000, -3_600_016)))
    restart_at = draw(st.none() | st.integers(1, count - 1))
    frames = []
    for i in range(count):
        number = i - restart_at if restart_at is not None and i >= restart_at else i + 1000
        t_ns = T0 + (i * BLOCK + (step_ms if i >= step_at else 0)) * MS
        samples = np.arange(i * BLOCK, (i + 1) * BLOCK, dtype=np.float32)
        frames.append(Frame("m", "c", t_ns, 1000.0, samples, number if seq else None))
    for event, where in draw(st.lists(st.tuples(st.sampled_from(EVENTS), st.integers(0, count - 1)), max_size=10)):
        i = min(where, len(frames) - 2)
        if event == "lose":
            del frames[i]
        elif event == "repeat":
            frames.insert(i, frames[i])
        elif event == "repeat-old":
            frames.insert(i, frames[i // 2])
        elif event == "swap":
            frames[i], frames[i + 1] = frames[i + 1], frames[i]
        else:
            frames.insert(min(i + 9, len(frames) - 1), frames.pop(i))
    return frames, step_ms


@settings(quick, max_examples=500)
@given(troubled_streams(), st.sampled_from((0, 130, 400)))
def test_no_window_spans_a_gap_and_none_comes_twice(stream, lateness_ms):
    frames, step_ms = stream
    length_ns, hop_ns = 320 * MS, 160 * MS
    windows, cutter = cut(1000.0, length_ns=length_ns, hop_ns=hop_ns, frames=frames, lateness_ns=lateness_ms * MS)
    for w in windows:
        assert len(w.samples) == 320
        assert np.all(np.diff(w.samples) == 1)
        assert -1000 <= w.t_ns - (w.end_ns - length_ns) < MS + 2 * MS  # one sample, and the tolerance of a stamp
    if step_ms > -10_000:
        assert np.all(np.diff([w.end_ns for w in windows]) > 0)
    assert cutter.counters.frames == len(frames)
    assert cutter.counters.windows == len(windows) + cutter.counters.late


@settings(quick, max_examples=200)
@given(st.data())
def test_swaps_and_repeats_within_the_lateness_change_nothing(data):
    seq = data.draw(st.booleans())
    straight = [
        Frame("m", "c", T0 + i * BLOCK * MS, 1000.0, SIGNAL[i * BLOCK : (i + 1) * BLOCK], i if seq else None)
        for i in range(60)
    ]
    shuffled = list(straight[:1])
    for i in range(1, 59, 2):
        pair = straight[i : i + 2]
        shuffled += data.draw(st.sampled_from((pair, pair[::-1], pair + pair, pair[:1] * 3 + pair[1:])))
    shuffled.append(straight[-1])
    wanted, _ = cut(1000.0, length_ns=500 * MS, hop_ns=250 * MS, frames=straight)
    windows, cutter = cut(1000.0, length_ns=500 * MS, hop_ns=250 * MS, frames=shuffled)
    assert [w.samples.tobytes() for w in windows] == [w.samples.tobytes() for w in wanted]
    assert cutter.counters.gaps == 0
    assert cutter.counters.duplicates == len(shuffled) - len(straight)
