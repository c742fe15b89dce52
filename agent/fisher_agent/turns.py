"""Long computations beside the daemon's own: in a thread, whose model batches take turns with live windows."""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

from fisher_agent.errors import Unavailable
from fisher_agent.runtime import Agent
from fisher_agent.stages import Floats

Say = Callable[[int, int], None]


class TakingTurns:
    """An embedder that runs each batch in the daemon's compute thread, so that enrolling never starves live windows."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._embedder = agent.engine.embedder
        self.name, self.precision, self.device = self._embedder.name, self._embedder.precision, self._embedder.device

    def embed(self, bands: Floats, centres: Floats) -> Floats:
        """(n, t, f), (n,) -> (n, d)."""
        return self._agent.in_compute.wait_for(self._embedder.embed, bands, centres)

    def close(self) -> None:
        """The daemon's embedder stays open."""


async def in_turns(agent: Agent, say: Say, work: Callable[..., Any]) -> Any:
    """Run `work(embedder=, progress=)` in a thread of its own."""
    loop = asyncio.get_running_loop()

    def tell(done: int, total: int) -> None:
        with contextlib.suppress(Unavailable):  # what was heard is learnt, whether anybody still waits for it or not
            say(done, total)

    def progress(done: int, total: int) -> None:
        loop.call_soon_threadsafe(tell, done, total)

    return await asyncio.to_thread(work, embedder=TakingTurns(agent), progress=progress)
