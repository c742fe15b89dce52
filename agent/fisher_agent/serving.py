"""Which embedder serves the daemon: it changes between two batches, and every machine's bank is checked anew."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, replace
from typing import Any

import structlog

from fisher_agent.backends.standby import Standby
from fisher_agent.banks import Engine
from fisher_agent.errors import BackendFailed
from fisher_agent.ledger import Model
from fisher_agent.pipeline import Pipeline
from fisher_agent.stages import Moment, Verdict

# sd_notify(3): harmless while the service runs, and what it waits for where it has not said READY yet
BUILDING = ("EXTEND_TIMEOUT_USEC=30000000", "STATUS=the CPU serves while TensorRT is being prepared")
CLOSE_S = 1.0
log = structlog.get_logger()


class Serving:
    """The engine and its standby; used by the one task that computes."""

    def __init__(
        self,
        engine: Engine,
        standby: Standby | None,
        *,
        in_compute: Callable[..., Awaitable[Any]],
        adopt: Callable[[Engine], Awaitable[None]],
    ) -> None:
        """`adopt` makes everything go on with another engine, before it returns."""
        self._engine, self._standby = engine, standby
        self._in_compute, self._adopt = in_compute, adopt

    def start(self, wake: Callable[[], object]) -> None:
        """Prepare the GPU where one is configured; `wake` comes from another thread, when `settle` has work."""
        if self._standby is not None:
            self._standby.start(wake)

    @property
    def for_systemd(self) -> tuple[str, ...]:
        """What the service manager is told every second while a GPU is being prepared."""
        return BUILDING if self._standby is not None and self._standby.preparing else ()

    async def settle(self) -> None:
        """Let the GPU take over where it is ready; to be called between two batches."""
        if self._standby is not None and self._standby.waiting:
            await self._in_compute(self._standby.take)
            await self._change(self._standby)

    async def process(self, pipeline: Pipeline, moments: Sequence[Moment]) -> list[Verdict]:
        """As `Pipeline.process`; where the GPU fails in it, the same moments again on the CPU."""
        verdicts: list[Verdict]
        try:
            verdicts = await self._in_compute(pipeline.process, moments)
        except BackendFailed as error:
            if self._standby is None or not await self._in_compute(self._standby.lost, error):
                raise
            await self._change(self._standby)
            verdicts = await self._in_compute(pipeline.process, moments)
        return verdicts

    async def aclose(self) -> None:
        """End a build that is under way, and release the devices, unless a call of theirs does not come back."""
        if self._standby is not None:
            await asyncio.to_thread(self._standby.cancel)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_S):
                    await self._in_compute(self._standby.close)

    async def _change(self, standby: Standby) -> None:
        self._engine = served_by(self._engine, standby)
        await self._adopt(self._engine)
        say(self._engine.model)
        log.info("serving", backend=standby.serving.name, degraded=standby.note or None)


def served_by(engine: Engine, standby: Standby) -> Engine:
    """The engine with what serves now, and what is said of it."""
    now = standby.serving
    model = replace(engine.model, backend=now.name, precision=now.precision, device=now.device, note=standby.note)
    return replace(engine, embedder=now, model=model, distances=standby.distances)


def say(model: Model) -> None:
    """Log what judges from now on."""
    log.info("model", **{key: value for key, value in asdict(model).items() if value})
    if model.weights == "untrained":
        log.warning("weights_untrained", bundle=model.bundle, meaning="scores show change, they are not diagnoses")
