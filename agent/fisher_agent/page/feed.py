"""Live updates as server-sent events: one snapshot a second for everybody who looks, of which only changes are sent.

Nothing is computed while nobody looks. Every second brings an event, changed or not: a page that misses them for a
while shows what it has as stale.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

PUSH_S = 1.0
MAX_WATCHERS = 16
BEHIND = 8  # events that a browser may be behind; then it is let go, and connects again from a fresh snapshot
Snapshot = Mapping[str, Any]


class TooManyWatchers(Exception):
    """As many browsers look as are served."""


def encode(event: str, document: Any) -> bytes:
    """One event; compact JSON has no line end."""
    return f"event: {event}\ndata: {json.dumps(document, separators=(',', ':'), allow_nan=False)}\n\n".encode()


def difference(before: Snapshot, after: Snapshot) -> dict[str, Any]:
    """What changed, two levels deep: a section's entries that are new or other, and null for those that are gone."""
    changes: dict[str, Any] = {}
    for section, now in after.items():
        was = before.get(section, {})
        changed = {key: value for key, value in now.items() if key not in was or was[key] != value}
        changed |= dict.fromkeys(was.keys() - now.keys())
        if changed:
            changes[section] = changed
    return changes


class Feed:
    """`run` is its only task; `watch` is what each browser reads."""

    def __init__(self, snapshot: Callable[[], Snapshot], *, push_s: float = PUSH_S) -> None:
        self._snapshot = snapshot
        self._push_s = push_s
        self._sent: Snapshot = {}
        self._watchers: set[asyncio.Queue[bytes | None]] = set()
        self._wanted = asyncio.Event()
        self._closed = False

    @property
    def watched(self) -> int:
        """How many browsers look."""
        return len(self._watchers)

    @property
    def full(self) -> bool:
        """Whether no more browsers are taken."""
        return self._closed or len(self._watchers) >= MAX_WATCHERS

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._wanted.wait()
            self._push()
            await asyncio.sleep(self._push_s)

    @asynccontextmanager
    async def watch(self) -> AsyncIterator[AsyncIterator[bytes]]:
        """Events, the whole snapshot first; the iterator ends when the feed is closed or the reader is too slow."""
        if self.full:
            raise TooManyWatchers
        queue: asyncio.Queue[bytes | None] = asyncio.Queue(BEHIND)
        if self._watchers:
            self._push()  # so that the newcomer and the others go on from the same snapshot
        else:
            self._sent = self._snapshot()
        queue.put_nowait(encode("all", self._sent))
        self._watchers.add(queue)
        self._wanted.set()
        try:
            yield _drain(queue)
        finally:
            self._watchers.discard(queue)
            if not self._watchers:
                self._wanted.clear()

    def close(self) -> None:
        """Say good-bye: the agent stops."""
        self._closed = True
        self._send(encode("bye", {}))
        for queue in self._watchers:
            _end(queue)

    def _push(self) -> None:
        now = self._snapshot()
        changes = difference(self._sent, now)
        self._sent = now
        self._send(encode("some", changes))

    def _send(self, event: bytes) -> None:
        for queue in self._watchers:
            try:
                queue.put_nowait(event)
            except asyncio.QueueFull:
                _end(queue)


def _end(queue: asyncio.Queue[bytes | None]) -> None:
    if queue.full():
        queue.get_nowait()
    queue.put_nowait(None)


async def _drain(queue: asyncio.Queue[bytes | None]) -> AsyncIterator[bytes]:
    while (event := await queue.get()) is not None:
        yield event
