"""The model's runtime sends nothing to anybody, makes no process of its own, and leaves no file in the home."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
WATCHED = """
import json, sys, threading
done = []
watched = ("os.fork", "os.posix_spawn", "socket.getaddrinfo", "socket.connect")
sys.addaudithook(lambda event, args: done.append(event) if event in watched else None)
import numpy as np
from fisher_agent.backends.openvino import OpenVinoEmbedder
from fisher_models.bundle import load
embedder = OpenVinoEmbedder(load("fisher-tiny"))
embedder.embed(np.zeros((1, 64, 100), np.float32), np.zeros(1, np.float32))
for thread in threading.enumerate():
    if thread is not threading.current_thread():
        thread.join(10)
print(json.dumps({"done": done, "threads": threading.active_count()}))
"""


def test_the_runtime_calls_nobody_forks_nothing_and_writes_nothing(tmp_path: Path) -> None:
    """An import of OpenVINO as it comes fails this: an event to Google Analytics, from a fork."""
    done = subprocess.run(
        [sys.executable, "-c", WATCHED],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "HOME": str(tmp_path)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"done": [], "threads": 1}
    assert list(tmp_path.iterdir()) == []


def test_openvino_is_imported_in_one_place() -> None:
    importing = {
        str(path.relative_to(ROOT))
        for part in ("agent", "models", "tools", "tests")
        for path in (ROOT / part).rglob("*.py")
        if re.search(r"^\s*(import openvino\b|from openvino\b)", path.read_text(), re.MULTILINE)
    }
    assert importing == {"models/fisher_models/ov.py"}
