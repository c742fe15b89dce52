"""A short campaign over every place where bytes come in, always the same inputs; `make fuzz` runs the long ones."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from fisher_agent.errors import BadFile
from fuzz.campaign import run, seeded
from fuzz.harness import Opened, Target
from fuzz.mutate import json_of
from fuzz.targets import TARGETS

INPUTS = 600  # of a fast target: 20 s in all on one core of 2015
TESTS = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """In a process of its own, since a campaign sets limits that stay."""
    path = tmp_path_factory.mktemp("fuzz") / "report.json"
    command = [sys.executable, "-m", "fuzz", "--inputs", str(INPUTS), "--seed", "20261121", "--report", str(path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=110)
    assert done.returncode in (0, 1), done.stderr
    found: dict[str, Any] = {row["name"]: row for row in json.loads(path.read_text())["targets"]}
    return found


@pytest.mark.parametrize("name", list(TARGETS))
def test_nothing_but_a_clear_error_comes_of_any_input(report: dict[str, Any], name: str) -> None:
    row = report[name]
    assert row["findings"] == []
    assert row["inputs"] == max(1, round(INPUTS * TARGETS[name].share))


def test_the_same_seed_gives_the_same_inputs() -> None:
    documents = [{"a": [1, 2, {"b": "x"}], "t": 1.5}]
    first = [json_of(seeded(7, n), documents) for n in range(200)]
    assert first == [json_of(seeded(7, n), documents) for n in range(200)]
    assert len(set(first)) > 100
    assert first != [json_of(seeded(8, n), documents) for n in range(200)]


def test_the_harness_finds_what_it_is_there_for() -> None:
    """An exception, a hang, too much memory, a sample that is refused, and the end of the process."""
    kept: list[bytearray] = []

    def take(data: bytes) -> None:
        if data == b"raise":
            raise KeyError("x")
        if data == b"refuse":
            raise BadFile("no")
        while data == b"hang":
            pass
        if data == b"grow":
            kept.append(bytearray(b"x" * 150_000_000))
        if data == b"die":
            os.kill(os.getpid(), signal.SIGKILL)

    @contextmanager
    def broken(_work: Path) -> Iterator[Opened]:
        yield Opened([b"raise", b"refuse", b"hang", b"grow", b"die"], lambda rng: b"fine", take)

    result = run(Target("broken", broken), inputs=3, seed=1)
    found = {(f.kind, f.detail.partition(":")[0]) for f in result.findings.values()}
    assert found == {
        ("exception", "KeyError"), ("exception", "its own sample is refused"),
        ("crash", "the process ended by signal 9"),
        ("hang", "more than 1 s of processor time"), ("memory", next(d for k, d in found if k == "memory")),
    }  # fmt: skip
