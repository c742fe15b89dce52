"""The one retry loop: every connection is opened, used, and after a failure opened again with backoff and jitter."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import TypeVar

import structlog

from fisher_agent.errors import ConfigError, Unavailable
from fisher_agent.retry import Backoff
from fisher_agent.tasks import first

T = TypeVar("T")
SHORT_LIVED_S = 5.0
SUSPICIOUS = 3  # connections in a row that the other side closed at once
log = structlog.get_logger()


@dataclass(slots=True)
class _Link:
    tried: asyncio.Event = field(default_factory=asyncio.Event)
    problem: str = "not tried yet"
    doubt: str = ""  # it is up, and does not do what it should
    proof: str = ""  # what was last seen to work, or why nothing can be seen


class Links:
    """What the agent is connected to, and what keeps it from being so."""

    def __init__(self) -> None:
        self._links: dict[str, _Link] = {}
        self._ending = asyncio.Event()
        self._nudge = asyncio.Event()  # set and replaced when a link comes up: others to the same box may, too

    @property
    def problems(self) -> dict[str, str]:
        """Link -> why it is down, or not to be trusted; links that are well are not in it."""
        return {name: why for name, link in self._links.items() if (why := link.problem or link.doubt)}

    @property
    def up(self) -> dict[str, bool]:
        """Every link -> whether it is connected."""
        return {name: not link.problem for name, link in self._links.items()}

    @property
    def proofs(self) -> dict[str, str]:
        """Link -> what a round trip showed; only of links that were put to the proof."""
        return {name: link.proof for name, link in self._links.items() if link.proof}

    def proven(self, name: str, proof: str, *, doubt: str = "") -> None:
        """Note what a round trip over a link showed, and what speaks against the link; nothing does by default."""
        if link := self._links.get(name):
            link.proof, link.doubt = proof, doubt

    def end(self) -> None:
        """From now on a failure is final: nothing is opened again."""
        self._ending.set()

    async def tried(self, timeout_s: float) -> None:
        """Wait until every link was tried once, at most so long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                for link in list(self._links.values()):
                    await link.tried.wait()

    def keep(
        self,
        name: str,
        opener: Callable[[], AbstractAsyncContextManager[T]],
        use: Callable[[T], Awaitable[None]],
        *,
        has_id: bool,
    ) -> Awaitable[None]:
        """The loop for one link, known under its name from now on; it ends when `use` returns.

        `has_id` where the other side knows us by an id (MQTT), and hangs up on one of two that use the same.
        """
        link = self._links[name] = _Link()
        return self._keep(name, link, opener, use, has_id=has_id)

    def forget(self, name: str) -> None:
        """A link that is no longer wanted is no problem."""
        self._links.pop(name, None)

    async def _keep(
        self,
        name: str,
        link: _Link,
        opener: Callable[[], AbstractAsyncContextManager[T]],
        use: Callable[[T], Awaitable[None]],
        *,
        has_id: bool,
    ) -> None:
        backoff, short_lived = Backoff(), 0
        while True:
            opened_s = time.monotonic()
            connected = False
            try:
                async with opener() as thing:
                    log.info("connected", link=name)
                    self._nudge.set()
                    self._nudge = asyncio.Event()
                    link.problem = ""
                    link.tried.set()
                    connected, opened_s = True, time.monotonic()
                    await use(thing)
                    return
            except (Unavailable, ConfigError) as error:
                if isinstance(error, ConfigError) and not link.tried.is_set():
                    raise  # found at the start; later, as while a secret is replaced, it must not end the watching
                lived_s = time.monotonic() - opened_s
                short_lived = short_lived + 1 if connected and lived_s < SHORT_LIVED_S else 0
                problem = str(error)
                if has_id and short_lived >= SUSPICIOUS:
                    # MQTT 3.1.1, and brokers that do not say so on 5, only hang up on a client that was taken over.
                    problem += " (closed at once, again and again: does another agent use the same site and edge?)"
                if link.problem != problem:
                    log.warning("unavailable", link=name, error=problem)
                link.problem = problem
                link.tried.set()
                told_s = getattr(error, "retry_after_s", None)
                delay = backoff.after(lived_s, told_s=told_s)
            await first(asyncio.sleep(delay), self._ending.wait(), *([] if told_s else [self._nudge.wait()]))
            if self._ending.is_set():
                return
