from collections.abc import Sequence

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st

from fakes import T0_NS, VIBRATION, channel, frames, machine, signal
from fisher_agent.config import WindowConfig
from fisher_agent.errors import BadFile
from fisher_agent.gather import Gatherer
from fisher_agent.stages import Floats, Frame
from fisher_agent.waveforms import Recording

RATE_HZ = 1000.0
ONE = machine(channel("a", RATE_HZ))
WINDOW = WindowConfig(length_s=1.0, hop_s=0.5)


def frame(
    t_s: float, n: int, *, name: str = "a", gap: bool = False, seq: int | None = None, value: float = 0.0
) -> Frame:
    samples = (np.arange(n) % 7 + value).astype(np.float32)
    return Frame("press-07", name, T0_NS + round(t_s * 1e9), RATE_HZ, samples, seq=seq, gap=gap)


def recorded(given: Sequence[Frame]) -> Recording:
    out = Recording()
    for one in given:
        out.add(one)
    return out


def windows(given: Sequence[Frame]) -> list[tuple[int, bytes]]:
    gatherer = Gatherer(ONE, WINDOW)
    moments = [m for f in given for m in gatherer.push(f)] + gatherer.flush()
    return [(m.end_ns, w.samples.tobytes()) for m in moments for w in m.windows]


@given(st.lists(st.integers(1, 1500), min_size=1, max_size=30), st.data())
def test_a_recording_gives_the_windows_of_the_stream_however_it_was_chunked(
    sizes: list[int], data: st.DataObject
) -> None:
    stream: list[Frame] = []
    at_s = data.draw(st.floats(0, 1))
    for i, n in enumerate(sizes):
        stream.append(frame(at_s, n, value=float(i)))
        at_s += n / RATE_HZ + data.draw(st.sampled_from([0.0, 0.0, 0.0, 0.7]))
    assert windows(list(recorded(stream).frames())) == windows(stream)


def test_blocks_that_came_out_of_order_or_twice_are_put_in_order_once() -> None:
    stream = [frame(0.25 * i, 250, value=float(i), seq=i) for i in range(12)]
    shuffled = [stream[i] for i in (0, 2, 1, 3, 3, 4, 5, 7, 8, 6, 9, 10, 11, 5)]
    assert windows(list(recorded(shuffled).frames())) == windows(stream)


def test_a_hole_in_the_counter_that_no_stamp_shows_is_a_gap() -> None:
    stream = [frame(0.001 * i, 1, seq=i) for i in range(10)] + [frame(0.010, 1, seq=11)]
    assert [f.gap for f in recorded(stream).frames()] == [False, True]
    stream[-1] = frame(0.010, 1, seq=10)
    assert [f.gap for f in recorded(stream).frames()] == [False]


def test_a_counter_that_wraps_is_no_gap() -> None:
    stream = [frame(0, 1, seq=2**32 - 1), frame(0.001, 1, seq=0)]
    assert [len(f.samples) for f in recorded(stream).frames()] == [2]


def test_short_blocks_are_joined_and_snapshots_never() -> None:
    short = recorded([frame(0.01 * i, 10) for i in range(100)])
    assert len(list(short.frames())) == 4
    snapshots = recorded([frame(0.05 * i, 50) for i in range(10)])
    assert len(list(snapshots.frames(whole=["a"]))) == 10


def test_channels_are_replayed_side_by_side() -> None:
    long = recorded([frame(0, 9000, name="a"), frame(0, 9000, name="b")])
    ends = [f.t_ns + round(len(f.samples) * 1e6) for f in long.frames()]
    assert ends == sorted(ends)
    assert {f.channel for f in list(long.frames())[:2]} == {"a", "b"}


def test_samples_are_shared_not_copied() -> None:
    given = frame(0, 500)
    assert np.shares_memory(next(recorded([given]).frames()).samples, given.samples)


def test_what_was_heard_is_counted() -> None:
    both = recorded([frame(0, 1000), frame(5, 500), frame(0, 100, name="b"), frame(1, 10, name="b")])
    assert both.duration_s == pytest.approx(1.5)
    assert both.channel_s("b") == pytest.approx(0.11)
    assert both.channel_s("nobody") == 0
    assert both.nbytes == 4 * 1610
    assert Recording().duration_s == 0


@given(st.integers(0, 9000))
def test_thinning_keeps_the_latest_stretch_of_every_channel_within_the_bound(max_bytes: int) -> None:
    both = recorded([frame(0.25 * i, 250, name=c, value=float(i)) for i in range(4) for c in ("a", "b")])
    thin = both.thinned(max_bytes)
    assert thin.nbytes == min(max_bytes // 1000 * 1000, 8000)
    kept = {c: [f.t_ns for f in thin.frames() if f.channel == c] for c in ("a", "b")}
    everything = [T0_NS + round(0.25e9 * i) for i in range(4)]
    for times in kept.values():
        assert times == everything[len(everything) - len(times) :]
    assert abs(len(kept["a"]) - len(kept["b"])) <= 1


def test_a_long_file_can_be_thinned_too() -> None:
    thin = recorded([frame(0, 60_000)]).thinned(4 * 25_000)
    assert thin.duration_s == pytest.approx(20)
    assert next(thin.frames()).t_ns == T0_NS + 40 * 10**9


def test_a_recording_survives_its_arrays() -> None:
    samples: Floats = signal(VIBRATION, 2.0, seed=1)
    original = recorded([*frames(VIBRATION, samples), frame(7, 300, gap=True)])
    arrays = safetensors.numpy.load(safetensors.numpy.save(original.to_arrays()))
    again = Recording.from_arrays(arrays)
    assert [(f.machine, f.channel, f.t_ns, f.rate_hz, f.gap, f.samples.tobytes()) for f in again.frames()] == [
        (f.machine, f.channel, f.t_ns, f.rate_hz, f.gap, f.samples.tobytes()) for f in original.frames()
    ]
    assert Recording.from_arrays(Recording().to_arrays()).nbytes == 0


@pytest.mark.parametrize("part", ["t_ns", "length", "samples"])
def test_arrays_that_do_not_fit_together_are_refused(part: str) -> None:
    arrays = recorded([frame(0, 300), frame(1, 300)]).to_arrays()
    arrays[f"a/{part}"] = arrays[f"a/{part}"][1:]
    with pytest.raises(BadFile, match="enrol again"):
        Recording.from_arrays(arrays)


def test_missing_arrays_are_refused() -> None:
    arrays = recorded([frame(0, 300)]).to_arrays()
    del arrays["a/gap"]
    with pytest.raises(BadFile, match="enrol again"):
        Recording.from_arrays(arrays)
