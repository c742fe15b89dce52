"""From the outbox and the board to the database and the broker, until there is nothing left to deliver."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import structlog

from fisher_agent import RELEASED_NS
from fisher_agent.board import Board
from fisher_agent.errors import Unavailable
from fisher_agent.outbox import Queue
from fisher_agent.sinks.influx import InfluxSink
from fisher_agent.sinks.mqtt import PlantLink
from fisher_agent.stats import Stats
from fisher_agent.store import Store

BATCH_POINTS = 2000
BATCH_MESSAGES = 50
WAIT_S = 1.0
log = structlog.get_logger()


def clock_unset() -> bool:
    """Whether this box's clock was never set: it is before the release was built, so its points would lie."""
    return time.time_ns() < RELEASED_NS


class Delivery:
    """Drains the two queues. After `finish`, each loop returns once its queue is empty."""

    def __init__(self, store: Store, in_store: Callable[..., Awaitable[Any]], *, board: Board, stats: Stats) -> None:
        self._stats = stats
        self._store = store
        self._in_store = in_store
        self._board = board
        self._news = {"influx": asyncio.Event(), "mqtt": asyncio.Event()}
        self._finishing = False
        self._delivered: dict[Queue, set[int]] = {"influx": set(), "mqtt": set()}  # but not noted, for want of a disk

    def announce(self) -> None:
        """There is something new to deliver."""
        for news in self._news.values():
            news.set()

    def finish(self) -> None:
        """Nothing more will be added."""
        self._finishing = True
        self.announce()

    async def write_points(self, sink: InfluxSink) -> None:
        """Write batches of points, oldest first, until the sink raises Unavailable."""
        while True:
            rows = [] if clock_unset() else await self._waiting("influx", BATCH_POINTS)
            if not rows:
                if self._finishing:
                    return
                await self._wait("influx")
                continue
            rejected = await sink.write([line for _, line in rows])
            bad = set(rejected.positions)
            await self._note("influx", [row for n, (row, _) in enumerate(rows) if n not in bad])
            if bad:
                log.warning("points_rejected", count=len(bad), reason=rejected.reason)
                self._stats.count("rejected", len(bad), key="influx")
                await self._in_store(self._store.quarantine, [rows[n][0] for n in sorted(bad)], rejected.reason)

    async def publish(self, link: PlantLink) -> None:
        """Show everything to a broker that may have forgotten it, then what changes."""
        self._board.renew()
        self._board.forget_live()
        while True:
            # Alarms first: `level` must come after the alarm object it belongs to.
            while waiting := await self._waiting("mqtt", BATCH_MESSAGES):
                for row, message in waiting:
                    await link.publish(message)
                    await self._note("mqtt", [row])
            shown = self._board.take()
            for n, message in enumerate(shown):
                try:
                    await link.publish(message)
                except Unavailable:
                    self._board.put_back(shown[n:])
                    raise
            if self._finishing and not shown:
                return
            await self._wait("mqtt")

    async def _waiting(self, queue: Queue, limit: int) -> list[tuple[int, Any]]:
        """The oldest rows that were not delivered yet."""
        delivered = self._delivered[queue]
        rows = await self._in_store(self._store.peek, queue, limit + len(delivered))
        return [(row, item) for row, item in rows if row not in delivered]

    async def _note(self, queue: Queue, rows: Sequence[int] = ()) -> None:
        """Remove what was delivered. A full disk refuses that too; then it is remembered, or it would go out again."""
        delivered = self._delivered[queue]
        delivered.update(rows)
        if delivered:
            with contextlib.suppress(Unavailable):  # the ledger finds the same, and declares it
                await self._in_store(self._store.done, list(delivered))
                delivered.clear()

    async def _wait(self, queue: Queue) -> None:
        await self._note(queue)
        if not self._finishing:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(WAIT_S):
                    await self._news[queue].wait()
        self._news[queue].clear()
