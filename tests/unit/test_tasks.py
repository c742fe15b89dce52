"""Tasks that end when they are told to."""

import asyncio
import threading
import time

import pytest

from fisher_agent.tasks import BLOCKED, BlockingCalls, surely


async def deaf(times: int, heard: list[int]) -> None:
    """Loses so many cancellations, as `asyncio.wait_for` of Python 3.11 does at a bad moment."""
    while True:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            heard.append(1)
            if len(heard) > times:
                raise


@pytest.mark.parametrize("times", [0, 1, 3])
async def test_what_loses_a_cancellation_is_cancelled_again(times: int) -> None:
    heard: list[int] = []
    task = asyncio.create_task(surely(deaf(times, heard), again_s=0.02))
    await asyncio.sleep(0.01)
    task.cancel()
    async with asyncio.timeout(5):
        with pytest.raises(asyncio.CancelledError):
            await task
    assert len(heard) == times + 1


async def test_a_group_ends_though_a_member_loses_its_cancellation() -> None:
    async def fails() -> None:
        await asyncio.sleep(0.01)
        raise ZeroDivisionError

    began_s = time.monotonic()
    with pytest.raises(ExceptionGroup) as caught:
        async with asyncio.timeout(10), asyncio.TaskGroup() as group:
            group.create_task(surely(deaf(1, []), again_s=0.02))
            group.create_task(fails())
    assert [type(e) for e in caught.value.exceptions] == [ZeroDivisionError]
    assert time.monotonic() - began_s < 9


async def test_its_own_end_is_passed_on() -> None:
    async def fails() -> None:
        raise ValueError("own")

    await surely(asyncio.sleep(0))
    with pytest.raises(ValueError, match="own"):
        await surely(fails())
    with pytest.raises(asyncio.CancelledError):
        await surely(cancelled())


async def cancelled() -> None:
    raise asyncio.CancelledError


def test_a_loop_ends_without_waiting_for_calls_that_block() -> None:
    blocked, ended = threading.Event(), threading.Event()

    async def life() -> None:
        asyncio.get_running_loop().set_default_executor(BlockingCalls())
        # More than asyncio's own threads of a box with two cores.
        held = [asyncio.create_task(asyncio.to_thread(blocked.wait, 60.0)) for _ in range(BLOCKED - 1)]
        await asyncio.sleep(0)
        assert await asyncio.wait_for(asyncio.to_thread(lambda: True), 10.0)
        assert not any(task.done() for task in held)

    def run() -> None:
        asyncio.run(life())
        ended.set()

    threading.Thread(target=run, daemon=True).start()
    try:
        assert ended.wait(30.0), "the loop waits for its threads"
    finally:
        blocked.set()
