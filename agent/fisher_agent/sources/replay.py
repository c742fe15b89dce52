"""Recorded or generated frames as a source: cut into small blocks, channels merged by time, at any speed."""

import asyncio
import heapq
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Self

from fisher_agent.stages import Frame

Pace = Callable[[float], Awaitable[None]]


def blocks(
    frames: Iterable[Frame], block_s: float = 0.1, *, uncut: Collection[tuple[str, str]] = ()
) -> Iterator[Frame]:
    """Cut frames into blocks of `block_s` and merge all channels by the time at which each block ends.

    `frames` come in order of their start (any order among equals; ValueError otherwise); they are consumed as they are
    needed, so an endless iterator is fine. Block edges are counted from the frame's start and rounded to samples once,
    so no error accumulates. Frames of the (machine, channel) pairs in `uncut`, such as snapshots, stay whole. Only the
    first block of a frame keeps its `gap`; `seq` is kept by frames that are not cut.
    """
    if block_s <= 0:
        raise ValueError(f"block_s is {block_s}; it must be positive")
    waiting: list[tuple[int, int, Frame, Iterator[Frame]]] = []  # by the end of the next block, then by arrival
    source = iter(frames)
    upcoming = next(source, None)
    arrivals = 0
    while waiting or upcoming is not None:
        # A frame that starts before the next block ends may hold a block that ends earlier still.
        while upcoming is not None and (not waiting or upcoming.t_ns <= waiting[0][0]):
            pieces = iter((upcoming,)) if (upcoming.machine, upcoming.channel) in uncut else _cut(upcoming, block_s)
            if (piece := next(pieces, None)) is not None:
                heapq.heappush(waiting, (_end_ns(piece), arrivals, piece, pieces))
                arrivals += 1
            started_ns, upcoming = upcoming.t_ns, next(source, None)
            if upcoming is not None and upcoming.t_ns < started_ns:
                raise ValueError(f"frames are not in order: {upcoming.channel} at {upcoming.t_ns} after {started_ns}")
        if not waiting:
            continue
        _, order, piece, pieces = heapq.heappop(waiting)
        yield piece
        if (following := next(pieces, None)) is not None:
            heapq.heappush(waiting, (_end_ns(following), order, following, pieces))


@dataclass
class Replay:
    """A `Source` over frames; it ends when they end.

    `speed` None is as fast as the consumer takes them. Otherwise blocks come at `speed` times real time: `pace` is
    awaited with the seconds since the start of the replay at which the block is due and returns when they have passed
    (absolute, so that no delay accumulates).
    """

    source: Iterable[Frame]
    name: str = "replay"
    block_s: float = 0.1
    speed: float | None = None
    pace: Pace | None = None
    uncut: Collection[tuple[str, str]] = field(default=())  # (machine, channel) whose frames stay whole: snapshots

    def __post_init__(self) -> None:
        if self.speed is not None and (self.speed <= 0 or self.pace is None):
            raise ValueError(f"speed is {self.speed}: it must be positive and needs a pace")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    async def frames(self) -> AsyncIterator[Sequence[Frame]]:
        """Yield the blocks that end within the same `block_s`, oldest first."""
        block_ns = round(self.block_s * 1e9)
        batch: list[Frame] = []
        begin_ns: int | None = None
        for block in blocks(self.source, self.block_s, uncut=self.uncut):
            if begin_ns is None:
                begin_ns = block.t_ns
            if batch and _end_ns(block) >= _end_ns(batch[0]) + block_ns:
                await self._wait(_end_ns(batch[-1]) - begin_ns)
                yield batch
                batch = []
            batch.append(block)
        if batch and begin_ns is not None:
            await self._wait(_end_ns(batch[-1]) - begin_ns)
            yield batch

    async def _wait(self, elapsed_ns: int) -> None:
        if self.pace is not None and self.speed is not None:
            await self.pace(elapsed_ns / 1e9 / self.speed)
        else:
            await asyncio.sleep(0)  # let the others run: nothing else in this loop waits


def _cut(frame: Frame, block_s: float) -> Iterator[Frame]:
    n, k, first = len(frame.samples), 1, 0
    while first < n:
        last = min(n, max(first + 1, round(k * block_s * frame.rate_hz)))
        if first == 0 and last == n:
            yield frame
        else:
            t_ns = frame.t_ns + round(first * 1e9 / frame.rate_hz)
            samples = frame.samples[first:last]
            yield replace(frame, t_ns=t_ns, samples=samples, seq=None, gap=frame.gap and first == 0)
        first, k = last, k + 1


def _end_ns(frame: Frame) -> int:
    return frame.t_ns + round(len(frame.samples) * 1e9 / frame.rate_hz)
