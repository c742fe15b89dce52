"""Small ways with tasks and threads that asyncio does not bring along."""

import asyncio
import contextlib
import os
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

T = TypeVar("T")
BLOCKED = 32  # calls at once; asyncio's own six of a box with two cores could all wait for a name server
AGAIN_S = 3.0  # a goodbye to a server may take so long


def nice(by: int) -> None:
    """Lower the priority of the calling thread only (Linux: nice values are per thread)."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, by)


class OneThread:
    """A thread that does one thing after another; awaited, it calls a function and gives back what that returns."""

    def __init__(self, name: str, *, niceness: int = 0) -> None:
        self._pool = ThreadPoolExecutor(1, name, initializer=partial(nice, niceness))

    async def __call__(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """What the function returns or raises; the event loop goes on meanwhile."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, partial(function, *args, **kwargs))

    def wait_for(self, function: Callable[..., T], *args: Any) -> T:
        """The same from another thread, which waits."""
        return self._pool.submit(function, *args).result()

    def give_up(self) -> None:
        """Let what is running end by itself, and do nothing of what waits."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def finish(self) -> None:
        """Do all that waits, then end."""
        self._pool.shutdown(wait=True)


class BlockingCalls(ThreadPoolExecutor):
    """The threads of `asyncio.to_thread` and of name resolution; the loop's end waits for none of them.

    Behind a firewall that drops questions for names each takes a minute and cannot be cancelled: waiting for them, a
    clean stop took too long and was ended by force.
    """

    def __init__(self) -> None:
        super().__init__(BLOCKED, "blocking")

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: ARG002
        """Begin nothing more; what runs ends by itself or with the process."""
        super().shutdown(wait=False, cancel_futures=True)


async def surely(work: Awaitable[None], *, again_s: float = AGAIN_S) -> None:
    """Do it; where this is cancelled, cancel it again and again until it has ended.

    Before Python 3.12 `asyncio.wait_for` loses a cancellation that comes together with its result
    (https://github.com/python/cpython/issues/86296), and aiomqtt waits by it: a connection then lived on, and the
    process with it, after everything else had ended.
    """
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            task.cancel()
            await asyncio.wait([task], timeout=again_s)
        if not task.cancelled():
            task.exception()  # counts as seen: whoever cancelled it does not ask how it ended
        raise


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
