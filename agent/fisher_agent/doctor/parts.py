"""What is gathered of a box: each part by itself, so that one that fails leaves the others. Nothing is written.

Files that hold secrets are looked at (`stat`), never opened.
"""

import json
import os
import platform
import resource
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from importlib.metadata import distributions, version
from pathlib import Path
from typing import Any
from urllib.parse import quote

from fisher_agent import RELEASED_NS, client, statedb
from fisher_agent.app import find_bundle
from fisher_agent.bankfiles import BankFiles
from fisher_agent.config import Config
from fisher_agent.errors import BadFile, Unavailable
from fisher_agent.schema import LATEST

UNIT = "fisher-agent"
JOURNAL_LINES = 500
COMMAND_S = 20.0
ANSWER_S = 10.0
MAX_ENTRIES = 50_000
CPU_KEYS = frozenset({"model name", "flags", "Features"})
VARIABLES = ("FISHER_CONFIG", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "LANG", "TZ")
DEVICES = """
import json
from fisher_models.cpu import core
print(json.dumps({name: str(core().get_property(name, "FULL_DEVICE_NAME")) for name in core().available_devices}))
"""


@dataclass(frozen=True, slots=True)
class Box:
    """Where to look. `config` is None where it is broken; `document` is what of it could be read."""

    config: Config | None
    document: dict[str, Any]
    state_dir: Path


def versions(_box: Box) -> Any:
    """The agent, Python, the system, every package."""
    release = platform.freedesktop_os_release()
    return {
        "fisher-agent": version("fisher-agent"),
        "released": RELEASED_NS // 10**9,
        "python": sys.version,
        "executable": sys.executable,
        "system": platform.platform(),
        "os": release.get("PRETTY_NAME", ""),
        "libc": " ".join(platform.libc_ver()),
        "sqlite": sqlite3.sqlite_version,
        "packages": dict(sorted({d.name: d.version for d in distributions()}.items())),
        "environment": {name: os.environ[name] for name in VARIABLES if name in os.environ},
    }


def daemon(box: Box) -> Any:
    """What the running daemon says of itself, and its alarms; Unavailable where none answers."""
    config = _whole(box)
    if not client.daemon_answers(config):
        raise Unavailable(f"no daemon runs on {config.state_dir}")
    return {
        "status": client.ask(config, "status", timeout_s=ANSWER_S),
        "alarms": client.ask(config, "alarms", timeout_s=ANSWER_S),
    }


def bundle(box: Box) -> Any:
    """The configured model."""
    found = find_bundle(_whole(box))
    return {"name": found.name, "digest": found.digest, "weights": found.weights, "path": str(found.path)}


def banks(box: Box) -> Any:
    """Every version of every machine's bank with its manifest; no waveforms."""
    root = box.state_dir / "banks"
    files, rows = BankFiles(root), []
    for machine in sorted(p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith(".")):
        row: dict[str, Any] = {"machine": machine}
        try:
            row["active"] = files.active(machine)
        except BadFile as error:
            row["problem"] = str(error)
        row["versions"] = [_manifest(files, machine, v) for v in files.versions(machine)]
        rows.append(row)
    return rows


def _manifest(files: BankFiles, machine: str, name: str) -> dict[str, Any]:
    try:
        return {"version": name, **files.manifest(machine, name)}
    except BadFile as error:
        return {"version": name, "problem": str(error)}


def state(box: Box) -> Any:
    """Sizes below state_dir, and the room on its disk."""
    found, entries = {}, 0
    for top in sorted(box.state_dir.iterdir()):
        size = 0
        for path in (top, *top.rglob("*")) if top.is_dir() else (top,):
            entries += 1
            if entries > MAX_ENTRIES:
                break
            size += path.lstat().st_size
        found[top.name + "/" * top.is_dir()] = size
    disk, inodes = shutil.disk_usage(box.state_dir), os.statvfs(box.state_dir)
    return {
        "bytes": found,
        "damaged": sorted(p.name for p in (box.state_dir / "damaged").glob("*")),
        "disk_total": disk.total,
        "disk_free": disk.free,
        "inodes_free": inodes.f_favail,
        "inodes_total": inodes.f_files,
        "lock": (box.state_dir / "lock").read_text(errors="replace") if (box.state_dir / "lock").exists() else "",
    }


def database(box: Box) -> Any:
    """Version, counters and quarantine of the state database, by a connection that cannot write."""
    path = box.state_dir / statedb.DATABASE
    with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=2.0)) as db:
        counters = db.execute("SELECT queue, name, value FROM counter").fetchall()
        return {
            "version": db.execute("PRAGMA user_version").fetchone()[0],
            "known": LATEST,
            "counters": {f"{queue} {name}": value for queue, name, value in counters},
            "quarantine": db.execute("SELECT queue, reason, count(*) FROM quarantine GROUP BY 1, 2").fetchall(),
        }


def files(box: Box) -> Any:
    """The files that the configuration names: whether they are there, and who may read them."""
    config, found = _whole(box), {}
    sections: list[tuple[str, Any]] = [("mqtt", config.mqtt), ("influx", config.influx), ("page", config.page)]
    sections += [(f"sources[{n}]", source) for n, source in enumerate(config.sources)]
    for where, section in sections:
        for key in type(section).model_fields if section is not None else ():
            path = getattr(section, key)
            if key.endswith("_file") and path is not None:
                found[f"{where}.{key}"] = _stat(path)
    return found


def _stat(path: Path) -> dict[str, Any]:
    try:
        seen = path.stat()
    except OSError as error:
        return {"problem": error.strerror}
    facts = {"mode": f"{seen.st_mode & 0o7777:04o}", "uid": seen.st_uid, "gid": seen.st_gid}
    return {**facts, "readable": os.access(path, os.R_OK)}


def clock(_box: Box) -> Any:
    """The box's clock, and what timedatectl says of it."""
    now = {"utc": time.time(), "up_s": time.clock_gettime(time.CLOCK_BOOTTIME), "unset": time.time_ns() < RELEASED_NS}
    try:
        shown = _run("timedatectl", "show")
    except (OSError, Unavailable) as error:
        return {**now, "timedatectl": {}, "problem": str(error)}
    return {**now, "timedatectl": dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)}


def machine(_box: Box) -> Any:
    """Processor with its flags, memory, load, limits."""
    lines = [line.split(":", 1) for line in Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()]
    cpu = {key.strip(): value.strip() for key, value in lines if key.strip() in CPU_KEYS}
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "allowed": len(os.sched_getaffinity(0)),
        "load": os.getloadavg(),
        "memory": Path("/proc/meminfo").read_text().splitlines()[:5],
        "open_files": resource.getrlimit(resource.RLIMIT_NOFILE),
        "uid": os.geteuid(),
        "groups": os.getgroups(),
    }


def devices(_box: Box) -> Any:
    """What OpenVINO can compute on, asked in a child process: a driver may take the process with it."""
    return json.loads(_run(sys.executable, "-c", DEVICES, timeout_s=60.0))


def gpu(_box: Box) -> Any:
    """NVIDIA's own list."""
    return _run("nvidia-smi", "-L")


def unit(_box: Box) -> Any:
    """What the service manager says of the service."""
    return dict(line.split("=", 1) for line in _run("systemctl", "show", UNIT).splitlines() if "=" in line)


def journal(_box: Box) -> Any:
    """The last lines of the service's log."""
    return _run("journalctl", "-u", UNIT, "-n", str(JOURNAL_LINES), "--no-pager", "-o", "short-iso")


PARTS: dict[str, Callable[[Box], Any]] = {
    part.__name__: part
    for part in (
        versions, daemon, bundle, banks, state, database, files, clock, machine, devices, gpu, unit, journal,
    )
}  # fmt: skip
"""Name -> what gathers it: a JSON document, or a text."""


def _whole(box: Box) -> Config:
    if box.config is None:
        raise Unavailable("the configuration cannot be used, so this cannot be known")
    return box.config


def _run(program: str, *arguments: str, timeout_s: float = COMMAND_S) -> str:
    path = shutil.which(program)
    if path is None:
        raise Unavailable(f"{program} is not installed")
    try:
        done = subprocess.run(  # noqa: S603 (fixed programs and arguments)
            [path, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise Unavailable(f"{program} did not end within {timeout_s:g} s") from error
    if done.returncode:
        said = " ".join(done.stderr.split())[-500:]
        raise Unavailable(f"{program} ended with {done.returncode}: {said}")
    return done.stdout
