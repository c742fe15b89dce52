"""Replay: what comes out is what went in, in small blocks, channels abreast, at the speed asked for."""

import asyncio
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fisher_agent.files import end_ns
from fisher_agent.sources.replay import Replay, blocks
from fisher_agent.stages import Frame, Source

S = 1_000_000_000
T0_NS = 1_795_210_782 * S


def frame(channel: str, start_s: float, length_s: float, rate_hz: float, *, seq: int | None = None) -> Frame:
    n = round(length_s * rate_hz)
    return Frame("m", channel, T0_NS + round(start_s * S), rate_hz, np.arange(n, dtype=np.float32), seq, gap=True)


@settings(max_examples=60)
@given(
    length_s=st.floats(0.01, 3.0),
    rate_hz=st.sampled_from([1000.0, 11025.0, 97656.25]),
    block_s=st.floats(0.0005, 5.0),
)
def test_blocks_put_together_are_the_frame(length_s: float, rate_hz: float, block_s: float) -> None:
    whole = frame("a", 0, length_s, rate_hz)
    pieces = list(blocks([whole], block_s))
    assert np.array_equal(np.concatenate([p.samples for p in pieces]), whole.samples)
    first = 0
    for piece in pieces:
        assert piece.t_ns == whole.t_ns + round(first * 1e9 / rate_hz)
        first += len(piece.samples)
    assert [p.gap for p in pieces] == [True] + [False] * (len(pieces) - 1)


def test_channels_of_different_rates_progress_together() -> None:
    frames = [frame("slow", 0, 3, 1000), frame("fast", 0, 3, 25600), frame("late", 1.05, 1.5, 8000)]
    seen = [end_ns(piece) for piece in blocks(frames, 0.1)]
    assert seen == sorted(seen)
    assert len(seen) == 30 + 30 + 15


def test_recordings_one_after_another_stay_in_order() -> None:
    frames = [frame(c, s, 1, 1000) for s in (0, 2, 4) for c in "ab"]
    pieces = list(blocks(frames, 0.4))
    assert [p.channel for p in pieces] == list("ab" * 9)
    assert sum(p.gap for p in pieces) == 6


def test_snapshots_and_short_frames_stay_whole_and_keep_their_seq() -> None:
    frames = [
        frame("stream", 0, 1, 1000, seq=4),
        frame("snap", 0, 0.5, 1000, seq=7),
        frame("stream", 1, 0.05, 1000, seq=5),
    ]
    pieces = list(blocks(frames, 0.1, uncut={("m", "snap")}))
    assert [(p.seq, len(p.samples)) for p in pieces if p.channel == "snap"] == [(7, 500)]
    assert [p.seq for p in pieces if p.channel == "stream"] == [None] * 10 + [5]
    assert [end_ns(p) for p in pieces] == sorted(end_ns(p) for p in pieces)


def test_frames_out_of_order_are_refused() -> None:
    with pytest.raises(ValueError, match="not in order"):
        list(blocks([frame("a", 5, 1, 1000), frame("a", 0, 1, 1000)]))


def test_an_endless_iterator_is_read_no_further_than_needed() -> None:
    taken = 0

    def endless() -> Iterator[Frame]:
        nonlocal taken
        while True:
            yield frame("a", taken, 1, 1000)
            taken += 1

    pieces = blocks(endless(), 0.5)
    for _ in range(5):
        next(pieces)
    assert taken <= 3


async def drain(source: Source) -> list[list[Frame]]:
    async with source:
        return [list(batch) async for batch in source.frames()]


async def test_replay_batches_what_ends_within_one_block() -> None:
    frames = [frame("a", 0, 1, 1000), frame("b", 0, 1, 25600)]
    batches = await drain(Replay(frames))
    assert [[f.channel for f in batch] for batch in batches] == [["a", "b"]] * 10


async def test_an_unpaced_replay_lets_other_tasks_run() -> None:
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other(), name="other")
    batches = await drain(Replay([frame("a", 0, 1, 1000)]))
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert turns >= len(batches) == 10


async def test_a_paced_replay_asks_for_event_time_over_speed_gaps_included() -> None:
    due: list[float] = []

    async def pace(seconds: float) -> None:
        due.append(seconds)

    frames = [frame("a", 0, 0.4, 1000), frame("a", 10, 0.2, 1000)]
    batches = await drain(Replay(frames, block_s=0.2, speed=4.0, pace=pace))
    assert len(batches) == len(due)
    assert due == pytest.approx([0.05, 0.1, 2.55])


def test_a_speed_without_a_pace_is_refused() -> None:
    with pytest.raises(ValueError, match="needs a pace"):
        Replay([], speed=2.0)
