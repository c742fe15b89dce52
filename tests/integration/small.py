"""A small machine that is judged in a second: one vibration channel of 8 kHz, a recording of it, and its bank."""

import io
import json
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import structlog

from fisher_agent.cli import main
from fisher_agent.sources.synthetic import RotatingMachine
from integration.harness import BASE, MACHINE, cli, write_config

WINDOW_S = (1.0, 0.5)
T0_NS = 1_795_000_000_000_000_000
ROTOR = RotatingMachine(MACHINE, seed=7, channels=(("vib", "vibration", 8000.0),))
HERE = f"{BASE}/{MACHINE}"
SMALL = f"""
[[machines]]
id = "{MACHINE}"
[[machines.channels]]
id = "vib"
kind = "vibration"
unit = "g"
rate_hz = 8000
source = "plant"
topic = "raw/{MACHINE}/vib"
format = "fisher-frame/1"
"""


def small_config(folder: Path, *, enrolled: Path | None = None, machines: str = SMALL, **options: Any) -> Path:
    """`write_config` for the small machine; with `enrolled` (the fixture) its bank lies in state_dir already."""
    folder.mkdir(parents=True, exist_ok=True)
    if enrolled is not None:
        shutil.copytree(enrolled / "banks", folder / "state" / "banks", dirs_exist_ok=True)
    return write_config(folder, machines=machines, window_s=WINDOW_S, **options)


def record(path: Path, *, seconds: int, start_s: int = 0, fault_from_s: int | None = None) -> Path:
    """What the machine does from `start_s` on, as an npz file."""
    start_ns = T0_NS + start_s * 10**9
    fault_ns = None if fault_from_s is None else T0_NS + fault_from_s * 10**9
    made = [f.samples for f in ROTOR.frames(start_ns, start_ns + seconds * 10**9, fault_from_ns=fault_ns)]
    np.savez(path, vib=np.concatenate(made), rate_hz=8000.0, t_ns=start_ns)
    return path


def enrol(config: Path, recording: Path) -> None:
    """Enrol from a file, with the command."""
    done = cli(config, "enroll", "--machine", MACHINE, "--from", recording)
    assert done.returncode == 0, done.stderr


@contextmanager
def state_db(config: Path) -> Iterator[sqlite3.Connection]:
    """The agent's database, read beside it or after its end."""
    with closing(sqlite3.connect(f"file:{config.parent}/state/state.db?mode=ro", uri=True)) as db:
        yield db


def counters(config: Path, queue: str) -> dict[str, int]:
    """The counters of one queue of the outbox, as they are on the disk."""
    with state_db(config) as db:
        return dict(db.execute("SELECT name, value FROM counter WHERE queue = ?", (queue,)))


def call(config: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """The command line in this process: as `cli`, without the second and a half that a new process takes to import."""
    argv = [*map(str, arguments), "--config", str(config)]
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        try:
            code = main(argv)
        except SystemExit as end:
            code = int(end.code or 0)
        finally:
            structlog.reset_defaults()  # the log went to `err`
    return subprocess.CompletedProcess(argv, code, out.getvalue(), err.getvalue())


def call_json(config: Path, *arguments: str | Path) -> Any:
    """What a command prints with --json; fails where it does not end with 0."""
    done = call(config, *arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
