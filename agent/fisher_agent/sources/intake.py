"""What lies between a socket and the frames: a bounded queue of messages, decoding, and the count of what is wrong."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from typing import NamedTuple

import structlog

from fisher_agent.errors import BadPayload, Unavailable
from fisher_agent.stages import Frame
from fisher_agent.stats import Stats
from fisher_agent.wire import Decoder

QUEUE_BYTES = 64_000_000
LOG_EVERY_S = 10.0
GATHER_S = 0.05  # messages are stamped at once and decoded together: half the CPU at 100 messages a second
log = structlog.get_logger()

Tap = Callable[[str, bytes], object]


class _Message(NamedTuple):
    topic: str
    payload: bytes
    mono_ns: int
    utc_ns: int


class Intake:
    """Takes messages as they arrive, yields their frames; beyond `queue_bytes` the oldest messages are dropped.

    Counts `source_dropped` by source, and `rejected` by channel (or topic, or source) and reason.
    """

    def __init__(
        self, name: str, decoder: Decoder, *, stats: Stats, queue_bytes: int = QUEUE_BYTES, tap: Tap | None = None
    ) -> None:
        self._name = name
        self._decoder = decoder
        self._stats = stats
        self._limit = queue_bytes
        self._tap = tap
        self._waiting: deque[_Message] = deque()
        self._bytes = 0
        self._news = asyncio.Event()
        self._wake: asyncio.TimerHandle | None = None
        self._lost: Unavailable | None = None
        self._logged_s: dict[str, float] = {}

    def put(self, topic: str, payload: bytes) -> None:
        """Take one message, stamped with its arrival."""
        self._waiting.append(_Message(topic, payload, time.monotonic_ns(), time.time_ns()))
        self._bytes += len(payload)
        if self._wake is None:
            self._wake = asyncio.get_running_loop().call_later(GATHER_S, self._news.set)
        if self._bytes > self._limit:
            self._drop()

    def rebind(self, decoder: Decoder) -> None:
        """Decode by another configuration from the next message on; arrival clocks that still apply go on."""
        decoder.adopt(self._decoder)
        self._decoder = decoder

    def lose(self, why: Unavailable) -> None:
        """The link is gone: `frames` yields what is here and raises this; the first reason counts."""
        self._lost = self._lost or why
        self._news.set()

    def begin(self) -> None:
        """A new link: samples may have been missed, and nothing is lost yet."""
        self._lost = None
        self._decoder.restart()

    def end(self) -> None:
        """The source is closed: nothing is left running."""
        if self._wake is not None:
            self._wake.cancel()
            self._wake = None

    async def frames(self) -> AsyncIterator[Sequence[Frame]]:
        """Yield the frames of what has arrived since the last turn; raises what `lose` was told."""
        while True:
            while self._waiting:
                batch = [frame for _ in range(len(self._waiting)) for frame in self._decode(self._next())]
                if batch:
                    yield batch
            if self._lost is not None:
                raise self._lost
            self._news.clear()
            self._wake = None
            await self._news.wait()

    def _next(self) -> _Message:
        message = self._waiting.popleft()
        self._bytes -= len(message.payload)
        return message

    def _decode(self, message: _Message) -> list[Frame]:
        topic, payload, mono_ns, utc_ns = message
        if self._tap is not None:
            self._tap(topic, payload)
        try:
            return self._decoder.decode(topic, payload, mono_ns=mono_ns, utc_ns=utc_ns)
        except BadPayload as error:
            key = f"{self._decoder.label(topic)}:{error.reason}"
            self._stats.count("rejected", key=key)
            self._warn(key, "payload_rejected", channel=self._decoder.label(topic), topic=topic[:200], error=str(error))
            return []

    def _drop(self) -> None:
        dropped = 0
        while self._bytes > self._limit:
            self._next()
            dropped += 1
        self._decoder.restart()  # unstamped samples on both sides of the hole must not be joined
        self._stats.count("source_dropped", dropped, key=self._name)
        self._warn("dropped", "messages_dropped", count=dropped, total=self._stats.by_key("source_dropped")[self._name])

    def _warn(self, key: str, event: str, **facts: object) -> None:
        now_s = time.monotonic()
        if now_s - self._logged_s.get(key, -LOG_EVERY_S) >= LOG_EVERY_S:
            self._logged_s[key] = now_s
            log.warning(event, source=self._name, **facts)
