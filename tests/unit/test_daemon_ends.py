"""How the daemon ends where it cannot go on: with an exit code that the service manager knows, and no traceback."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from fisher_agent import app, cli
from fisher_agent.errors import BadFile, ConfigError, FisherError, Unavailable


async def in_a_task(error: Exception) -> None:
    async def fail() -> None:
        raise error

    async with asyncio.TaskGroup() as outer:

        async def inner() -> None:
            async with asyncio.TaskGroup() as group:
                group.create_task(fail())

        outer.create_task(inner())


async def at_once(error: Exception) -> None:
    raise error


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.toml"
    path.write_text(f'site = "s"\nedge = "e"\nstate_dir = "{tmp_path / "state"}"\n[page]\nenabled = false')
    return path


@pytest.mark.parametrize("how", [at_once, in_a_task])
@pytest.mark.parametrize(
    ("error", "code"),
    [
        (BadFile("state.db is damaged; start the agent again"), 3),  # 2 would keep systemd from starting it again
        (Unavailable("the socket is gone"), 3),
        (ConfigError("machines: none"), 2),
    ],
    ids=["damage", "unavailable", "configuration"],
)
def test_our_own_errors_end_it_with_their_code_and_in_a_sentence(
    config: Path,
    how: Callable[[Exception], Coroutine[Any, Any, None]],
    error: FisherError,
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(app, "keep_memory_private", lambda: None)
    monkeypatch.setattr(app, "_run", lambda *_: how(error))
    assert cli.main(["--config", str(config), "run"]) == code
    assert capsys.readouterr().err.splitlines()[-1] == f"fisher-agent: {error}"


def test_a_defect_beside_them_shows_itself(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def both() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(at_once(BadFile("state.db is damaged")))
            group.create_task(at_once(KeyError("a defect")))

    monkeypatch.setattr(app, "keep_memory_private", lambda: None)
    monkeypatch.setattr(app, "_run", lambda *_: both())
    with pytest.raises(ExceptionGroup) as raised:
        cli.main(["--config", str(config), "run"])
    assert raised.value.subgroup(KeyError) and raised.value.subgroup(BadFile)
