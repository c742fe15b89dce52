"""Small ways with tasks and threads that asyncio does not bring along."""

import asyncio
import contextlib
import os
import time
from collections.abc import Awaitable, Coroutine, Sequence
from typing import Any


def nice(by: int) -> None:
    """Lower the priority of the calling thread only (Linux: nice values are per thread)."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, by)


async def run(work: Awaitable[None]) -> None:
    """An awaitable as the coroutine that a task needs."""
    await work


async def first(*works: Coroutine[Any, Any, object]) -> None:
    """Wait until one of them is done; the others are cancelled."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()


async def finish(tasks: Sequence[asyncio.Task[None]], *, deadline: float) -> None:
    """Wait for tasks until the deadline, then cancel them."""
    if tasks:
        _, late = await asyncio.wait(tasks, timeout=max(0.0, deadline - time.monotonic()))
        for task in late:
            task.cancel()


async def set_within(event: asyncio.Event, seconds: float) -> bool:
    """Wait for an event, so long at most; whether it is set."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
    return event.is_set()
