"""What was kept of an alarm: state_dir/captures/<machine>/<occurrence>/ with capture.json and the samples beside it.

Every part may be missing; then the page says so. Names that come from the file never leave the folder. Blocking.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import soundfile

from fisher_agent.errors import BadFile
from fisher_agent.stages import Floats

SCHEMA = "fisher.capture/1"
SIDECAR = "capture.json"
MAX_SIDECAR = 1_000_000
MAX_SAMPLES = 8_000_000  # of one channel, 32 MB: 80 s at 100 kHz
MAX_LISTED = 200


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """One channel of a capture, in its physical unit. `t_ns` is 0 where the time is not known."""

    samples: Floats
    rate_hz: float
    t_ns: int
    unit: str


class Captures:
    """The captures of one state_dir."""

    def __init__(self, state_dir: Path) -> None:
        self._root = state_dir / "captures"

    def occurrences(self, machine: str) -> list[int]:
        """The occurrences of a machine that something was kept of, newest first."""
        try:
            names = [entry.name for entry in (self._root / machine).iterdir()]
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise BadFile(f"{self._root / machine} cannot be read: {error}") from error
        return sorted((int(n) for n in names if n.isascii() and n.isdigit()), reverse=True)[:MAX_LISTED]

    def sidecar(self, machine: str, occurrence: int) -> dict[str, Any]:
        """capture.json, with what JSON cannot say made null; BadFile where there is none."""
        path = self._folder(machine, occurrence) / SIDECAR
        try:
            if path.stat().st_size > MAX_SIDECAR:
                raise BadFile(f"{path} has more than {MAX_SIDECAR} bytes")
            document = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise BadFile(f"no capture was kept of occurrence {occurrence} of {machine}") from error
        except (OSError, ValueError, RecursionError) as error:
            raise BadFile(f"{path} cannot be read: {error}") from error
        if not isinstance(document, dict) or document.get("schema") != SCHEMA:
            raise BadFile(f"{path} is not a {SCHEMA} document")
        cleaned = _finite(document)
        assert isinstance(cleaned, dict)
        return cleaned

    def samples(self, machine: str, occurrence: int, channel: str) -> Samples:
        """What was captured of a channel; BadFile says what is missing."""
        for entry in _dicts(self.sidecar(machine, occurrence).get("channels")):
            if entry.get("id") == channel:
                break
        else:
            raise BadFile(f"the capture holds nothing of {channel}")
        rate_hz, scale = _number(entry, "rate_hz"), _number(entry, "scale", 1.0)
        path = self._file(machine, occurrence, entry.get("file"))
        if rate_hz <= 0:
            raise BadFile(f"the capture does not say how fast {channel} was sampled")
        samples = _flac(path, scale) if path.suffix == ".flac" else _npz(path)[0]
        return Samples(samples, rate_hz, int(_number(entry, "t_ns")), str(entry.get("unit", "")))

    def nearest(self, machine: str, occurrence: int, channel: str) -> Samples:
        """The enrolled window of a channel that comes nearest; BadFile says what is missing."""
        explanation = self.sidecar(machine, occurrence).get("explanation")
        entries = _dicts(explanation.get("nearest")) if isinstance(explanation, dict) else []
        found = [e for e in entries if e.get("channel") == channel]
        if not found:
            raise BadFile(f"the capture names no enrolled window of {channel}")
        entry = min(found, key=lambda e: _number(e, "distance", math.inf))
        samples, rate_hz = _npz(self._file(machine, occurrence, entry.get("file") or f"nearest-{channel}.npz"))
        return Samples(samples, rate_hz, int(_number(entry, "t_ns")), "")

    def _folder(self, machine: str, occurrence: int) -> Path:
        return self._root / machine / str(int(occurrence))

    def _file(self, machine: str, occurrence: int, name: object) -> Path:
        if not isinstance(name, str) or not name or Path(name).name != name or name.startswith("."):
            raise BadFile("the capture names no file of that channel")
        path = self._folder(machine, occurrence) / name
        if not path.is_file():
            raise BadFile(f"{name} is not in the capture any more")
        return path


def _flac(path: Path, scale: float) -> Floats:
    """Physical value = scale x integer; libsndfile gives int32 with the file's bits at the top."""
    try:
        with soundfile.SoundFile(path) as file:
            bits = {"PCM_S8": 8, "PCM_16": 16, "PCM_24": 24}.get(file.subtype)
            if bits is None:
                raise BadFile(f"{path.name} holds {file.subtype}, not whole numbers")
            raw = file.read(MAX_SAMPLES, dtype="int32", always_2d=True)[:, 0]
    except (soundfile.SoundFileError, OSError) as error:
        raise BadFile(f"{path.name} cannot be read: {error}") from error
    samples: Floats = ((raw >> (32 - bits)) * scale).astype(np.float32)
    return samples


def _npz(path: Path) -> tuple[Floats, float]:
    """`samples` and `rate_hz` (0 where it is not there)."""
    try:
        # Opened here, for np.load leaves a file open that turns out to be no archive.
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            samples = np.asarray(file["samples"], np.float32).reshape(-1)[:MAX_SAMPLES]
            rate_hz = float(file["rate_hz"]) if "rate_hz" in file.files else 0.0
    except (OSError, ValueError, KeyError, TypeError, BadZipFile, EOFError) as error:
        raise BadFile(f"{path.name} cannot be read: {error}") from error
    return samples, rate_hz


def _dicts(value: object) -> list[dict[str, Any]]:
    return [v for v in value if isinstance(v, dict)] if isinstance(value, list) else []


def _number(entry: Mapping[str, Any], key: str, default: float = 0.0) -> float:
    value = entry.get(key, default)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else default


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
