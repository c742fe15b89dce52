"""What an upgrade, or one that is taken back, looks like to who runs the agent."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from fisher_agent.schema import LATEST
from integration.harness import MACHINE, cli
from integration.small import small_config

NOWHERE = "tcp://127.0.0.1:9"


@pytest.mark.parametrize("command", [("run",), ("alarms",), ("forget", "--machine", MACHINE), ("banks", "rebuild")])
def test_no_command_touches_the_state_of_a_newer_agent(
    tmp_path: Path, enrolled: Path, command: tuple[str, ...]
) -> None:
    """2, so that the service manager does not try again for ever."""
    config = small_config(tmp_path, enrolled=enrolled, source=NOWHERE)
    path = tmp_path / "state" / "state.db"
    with closing(sqlite3.connect(path)) as db:
        db.executescript(f"CREATE TABLE of_tomorrow (x); PRAGMA user_version = {LATEST + 1}")
    before = path.read_bytes()
    done = cli(config, *command)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(f"fisher-agent: {path} was written by a newer fisher-agent")
    assert "Traceback" not in done.stderr
    assert path.read_bytes() == before
    assert list((tmp_path / "state" / "banks").glob("*/*/bank.safetensors"))
