"""The cache of engines: one file per bundle and box, that says what it was made for and proves that it is whole.

An engine is compiled for one bundle, TensorRT, GPU and driver (`identity`). The file is a line of JSON with the
identity and the SHA-256 of the engine, and then the engine. What does not fit or is damaged is built again.
"""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import structlog

from fisher_agent.errors import BackendFailed, ConfigError
from fisher_models.bundle import Bundle

SCHEMA = "fisher.engine/1"
BUILD_TIMEOUT_S = 3600.0  # a small Jetson takes a quarter of an hour for a large model
POLL_S = 0.25
KEPT = 3  # engines per bundle: the one in use, and what a rollback of the driver or of TensorRT would want
MAX_HEADER = 4096
log = structlog.get_logger()


def check(bundle: Bundle, precision: str) -> None:
    """Raise ConfigError for what TensorRT could never serve of this bundle."""
    if precision not in ("auto", "f16"):
        raise ConfigError(f"model.precision: tensorrt has no {precision!r}; use 'auto' or 'f16'")
    if "f16" not in bundle.lower:
        raise ConfigError(f"model.backend: {bundle.name} has no f16 graph for tensorrt; export it again")


def default_cache() -> Path:
    """Where engines of commands without a configuration lie (XDG Base Directory Specification)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fisher-agent" / "engines"


def engine_path(cache: Path, bundle: Bundle, identity: Mapping[str, str]) -> Path:
    """The file of this identity."""
    return cache / f"{bundle.name}-{_hash(identity)}.engine"


def timing_path(cache: Path, identity: Mapping[str, str]) -> Path:
    """TensorRT's measurements of kernels, which every model on this box shares."""
    box = {key: value for key, value in identity.items() if key in ("tensorrt", "gpu", "compute_capability", "driver")}
    return cache / f"timing-{_hash(box)}.cache"


def read(path: Path, identity: Mapping[str, str]) -> bytes | None:
    """The engine, or None where there is none of this identity, whole; what is wrong with a file is logged."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        log.warning("engine_unreadable", path=str(path), why=str(error))
        return None
    line, _, plan = data.partition(b"\n")
    why = ""
    try:
        header = json.loads(line[:MAX_HEADER])
        if header["identity"] != dict(identity):
            why = "it was built for " + ", ".join(f"{k} {v}" for k, v in sorted(dict(header["identity"]).items()))
        elif header["sha256"] != hashlib.sha256(plan).hexdigest():
            why = "its SHA-256 does not match"
    except (ValueError, KeyError, TypeError):
        why = "it is no engine file"
    if why:
        log.warning("engine_refused", path=str(path), why=why, then="it is built again")
        return None
    return plan


def write(path: Path, plan: bytes, identity: Mapping[str, str]) -> None:
    """Whole or not at all; older engines of the same bundle beyond `KEPT` are removed. Raises OSError."""
    header = {"identity": dict(identity), "sha256": hashlib.sha256(plan).hexdigest()}
    replace(path, json.dumps(header).encode() + b"\n" + plan)
    bundle = path.name.rpartition("-")[0]
    others = [p for p in path.parent.glob(f"{bundle}-*.engine") if p.name.rpartition("-")[0] == bundle]
    for old in sorted(others, key=lambda p: p.stat().st_mtime_ns)[:-KEPT]:
        old.unlink(missing_ok=True)


def replace(path: Path, data: bytes) -> None:
    """Write a file whole or not at all. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=".", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    finally:
        Path(name).unlink(missing_ok=True)


def prepare(
    bundle: Bundle, *, cache: Path, cancelled: threading.Event | None = None, timeout_s: float = BUILD_TIMEOUT_S
) -> Path:
    """The file of a proven engine for this box: the cached one, or a new one. Blocking, for minutes.

    A child process builds it and runs the self-test, so that a crash of a driver ends the child and not the agent.
    Raises BackendFailed, with what the child said.
    """
    module = "fisher_agent.backends.trt_build"
    command = [sys.executable, "-m", module, str(bundle.path), bundle.digest, str(cache)]
    deadline_s = time.monotonic() + timeout_s
    with tempfile.TemporaryFile() as said:
        # This interpreter, this module, and the path of a verified bundle:
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=said) as child:  # noqa: S603
            try:
                out = _finished(child, deadline_s, cancelled)
            finally:
                child.kill()
        said.seek(0)
        words = said.read().decode(errors="replace").strip().splitlines()
    answer = _answer(out)
    if child.returncode != 0 or "engine" not in answer:
        last = answer.get("error") or (words[-1] if words else "it said nothing")
        raise BackendFailed(f"TensorRT has no engine for {bundle.name} (exit {child.returncode}): {last}")
    log.info("engine", **answer)
    return Path(answer["engine"])


def _finished(child: "subprocess.Popen[bytes]", deadline_s: float, cancelled: threading.Event | None) -> bytes:
    while True:
        try:
            return child.communicate(timeout=POLL_S)[0]
        except subprocess.TimeoutExpired:
            if cancelled is not None and cancelled.is_set():
                raise BackendFailed("the engine is no longer wanted: the agent stops") from None
            if time.monotonic() > deadline_s:
                raise BackendFailed(
                    "building the engine took too long; build it by `fisher-agent build-engine`"
                ) from None


def _answer(out: bytes) -> dict[str, Any]:
    lines = out.decode(errors="replace").strip().splitlines()
    try:
        answer = json.loads(lines[-1]) if lines else {}
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) else {}


def _hash(identity: Mapping[str, str]) -> str:
    return hashlib.sha256(json.dumps(dict(identity), sort_keys=True).encode()).hexdigest()[:16]
