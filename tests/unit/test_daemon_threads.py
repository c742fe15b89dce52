"""BLAS has one thread in the daemon: idle ones spin, which costs more than they save."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fisher_agent import app, cli


def test_the_command_line_chooses_before_numpy_is_loaded() -> None:
    code = "import sys, fisher_agent.cli; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize(("before", "then"), [(None, "1"), ("2", "2")], ids=["unset", "the administrator's own"])
def test_blas_has_one_thread_unless_somebody_chose(
    before: str | None, then: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[Path, str]] = []
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", before or "")  # so that it is put back
    if before is None:
        monkeypatch.delenv("OPENBLAS_NUM_THREADS")
    monkeypatch.setattr(app, "run", lambda path: seen.append((path, os.environ["OPENBLAS_NUM_THREADS"])))
    assert cli.main(["--config", "here.toml", "run"]) == 0
    assert seen == [(Path("here.toml"), then)]
