"""Rules that every test lives under: no task may outlive its test; sockets stay on the loopback (see pyproject)."""

import asyncio
import inspect
from collections.abc import AsyncIterator, Iterator

import pytest
import structlog
from hypothesis import HealthCheck, settings

# A busy box is no defect of what is tested: no example has a deadline. On CI it adds to Hypothesis' own profile there.
settings.register_profile("busy", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")


@pytest.fixture(autouse=True)
def log_of_its_own() -> Iterator[None]:
    """A command that ran in this process has set up the log for a stderr that was closed with its test."""
    yield
    structlog.reset_defaults()


@pytest.fixture
async def no_leaked_tasks() -> AsyncIterator[None]:
    """A test that leaves a task running fails: in the daemon such a task would be one that nobody watches."""
    before = asyncio.all_tasks()
    yield
    leaked = [t for t in asyncio.all_tasks() - before if t is not asyncio.current_task() and not t.done()]
    for task in leaked:
        task.cancel()
    assert not leaked, f"leaked tasks: {[t.get_name() for t in leaked]}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every coroutine test is watched for leaked tasks."""
    for item in items:
        if isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.function):
            item.fixturenames.insert(0, "no_leaked_tasks")
