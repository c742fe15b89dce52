"""Captures on disk: the raw waveform around an alarm with what was said of it, written atomically and bounded in bytes.

    captures/<machine>/<occurrence>/capture.json        what, when, why; sha256 and block stamps of every file
                                   /<channel>.flac|npz  the samples as they were heard, to the bit (`rawfiles`)
                                   /nearest-<channel>.npz  the nearest enrolled window, where the bank kept it

A capture is complete or not there, like a bank (`bankfiles`). What an operator asked for is named `now-<ms>` instead of
an occurrence. Reading needs no lock; who writes holds the lock of state_dir.
"""

import json
import math
import re
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fisher_agent.durable import sha256, sync, write
from fisher_agent.errors import BadFile, Unavailable
from fisher_agent.jsontext import loads, shown
from fisher_agent.rawfiles import arrays_of, unpack
from fisher_agent.stages import Floats, Frame
from fisher_agent.wire import MAX_T_NS, STATED_RATES_HZ

SCHEMA = "fisher.capture/1"
DOCUMENT = "capture.json"
CAPTURES = "captures"  # the folder under state_dir
MACHINE = re.compile(r"^[A-Za-z0-9_-]{1,48}$")
NAME = re.compile(r"^[A-Za-z0-9_-][A-Za-z0-9_.-]{0,63}$")
FILE = re.compile(r"^[A-Za-z0-9_-]{1,64}\.(flac|npz)$")
MAX_DOCUMENT_BYTES = 64_000_000
MB = 1_000_000
LARGEST_SCALE = 1e38  # of a sample in single precision

Block = tuple[int, int, bool]
"""Event time of its first sample, how many, and whether samples are missing before it."""


@dataclass(frozen=True, slots=True)
class Capture:
    """One capture in a folder, wherever that is; every file is verified as it is read."""

    folder: Path
    document: Mapping[str, Any]

    @classmethod
    def open(cls, folder: Path) -> "Capture":
        """BadFile, saying what is wrong, for what is damaged or no capture."""
        path = folder / DOCUMENT
        try:
            if path.stat().st_size > MAX_DOCUMENT_BYTES:
                raise BadFile(f"{path} is no capture: it has {path.stat().st_size} bytes")
            document = _finite(loads(path.read_bytes()))
        except FileNotFoundError as error:
            raise BadFile(f"{folder} is no capture: it has no {DOCUMENT}") from error
        except (OSError, ValueError) as error:
            raise BadFile(f"{path} is damaged: {error}") from error
        if problem := _problem(document):
            raise BadFile(f"{path} {problem}")
        return cls(folder, document)

    @property
    def machine(self) -> str:
        """Whose it is."""
        machine: str = self.document["machine"]
        return machine

    @property
    def channels(self) -> tuple[str, ...]:
        """Channels that samples were kept of."""
        return tuple(c["id"] for c in self.document["channels"])

    def samples(self, channel: str) -> Floats:
        """All blocks of a channel behind one another, in its unit; BadFile where there is none, or it was changed."""
        entry = self._entry(channel)
        body = self._body(entry["file"])
        try:
            samples = unpack(body, form=entry["format"], scale=entry["scale"])
        except BadFile as error:
            raise BadFile(f"{self.folder / entry['file']}: {error}") from error
        if len(samples) != entry["n"]:
            raise BadFile(f"{self.folder / entry['file']} holds {len(samples)} samples, {DOCUMENT} says {entry['n']}")
        return samples

    def frames(self, channel: str) -> Iterator[Frame]:
        """The blocks of a channel as they were heard, in the order of their stamps; of those sent twice, the first."""
        entry, samples = self._entry(channel), self.samples(channel)
        first, at_ns = 0, None
        placed: list[tuple[int, int, int, bool]] = []
        for t_ns, n, gap in entry["blocks"]:
            placed.append((t_ns, first, n, gap))
            first += n
        for t_ns, first, n, gap in sorted(placed, key=lambda block: block[0]):
            if t_ns != at_ns:
                yield Frame(self.machine, channel, t_ns, entry["rate_hz"], samples[first : first + n], gap=bool(gap))
            at_ns = t_ns

    def nearest(self, channel: str) -> tuple[Floats, float] | None:
        """Samples and rate of the nearest enrolled window of a channel; None where the bank had kept none."""
        name = f"nearest-{channel}.npz"
        if name not in self.document["sha256"]:
            return None
        arrays = arrays_of(self._body(name))
        samples, rate_hz = arrays.get("samples"), arrays.get("rate_hz")
        low_hz, high_hz = STATED_RATES_HZ
        if samples is None or samples.dtype != np.float32 or samples.ndim != 1 or rate_hz is None or rate_hz.size != 1:
            raise BadFile(f"{self.folder / name} lacks float32 `samples` and a `rate_hz`")
        if rate_hz.dtype.kind not in "iuf" or not low_hz <= rate_hz.item() <= high_hz:
            raise BadFile(f"{self.folder / name} has a rate_hz that no channel can have")
        return samples, float(rate_hz.item())

    def _entry(self, channel: str) -> Mapping[str, Any]:
        for entry in self.document["channels"]:
            if entry["id"] == channel:
                found: Mapping[str, Any] = entry
                return found
        raise BadFile(f"{self.folder} holds no channel {channel!r}; it holds: {', '.join(self.channels) or 'none'}")

    def _body(self, name: str) -> bytes:
        path = self.folder / name
        try:
            body = path.read_bytes()
        except OSError as error:
            raise BadFile(f"{path} cannot be read: {error}") from error
        if sha256(body) != self.document["sha256"].get(name):
            raise BadFile(f"{path} is damaged: its contents do not match the checksum in {DOCUMENT}")
        return body


class CaptureFiles:
    """The captures of every machine under one folder. ValueError for names that are no machine's or capture's."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def sweep(self) -> None:
        """Remove what a crash left unfinished."""
        for left in self._root.glob("*/.*"):
            shutil.rmtree(left, ignore_errors=True)

    def save(
        self,
        machine: str,
        name: str,
        *,
        document: Mapping[str, Any],
        files: Mapping[str, bytes],
        max_bytes: int,
        keep: Collection[tuple[str, str]] = (),
    ) -> str:
        """Write a capture, after removing the oldest others that are not in `keep` to make room for it.

        Returns the sha256 of capture.json, in which those of the files stand. Unavailable where the disk refuses, or
        what must be kept leaves no room; then nothing was written. One of that name from before (the state database was
        started anew, and with it the count of occurrences) is set aside under its time.
        """
        if bad := [file for file in files if not FILE.fullmatch(file)]:
            raise ValueError(f"{bad[0]!r} is not the name of a file of a capture")
        final = self._path(machine, name)
        whole = {**_finite(document), "sha256": {file: sha256(body) for file, body in files.items()}}
        body = json.dumps(whole, ensure_ascii=False, allow_nan=False).encode()
        if problem := _problem(whole):
            raise ValueError(f"the document {problem}")
        self._make_room(sum(map(len, files.values())) + len(body), max_bytes, keep, wanted=f"{machine}/{name}")
        draft = final.with_name(f".{name}.draft")
        try:
            shutil.rmtree(draft, ignore_errors=True)
            draft.mkdir(mode=0o750, parents=True)
            for file, content in {**files, DOCUMENT: body}.items():
                write(draft / file, content)
            sync(draft)
            if final.exists():
                aside = final.with_name(f"{name}.{final.stat().st_mtime_ns // 10**9}")
                shutil.rmtree(aside, ignore_errors=True)
                final.rename(aside)
            draft.rename(final)
            sync(final.parent)
            sync(self._root)
        except OSError as error:
            shutil.rmtree(draft, ignore_errors=True)
            raise Unavailable(f"capture {machine}/{name} cannot be written to {final}: {error}") from error
        return sha256(body)

    def rows(self, machine: str | None = None) -> list[dict[str, Any]]:
        """A row per capture, the latest first; `problem` says why one cannot be read."""
        rows = []
        for folder in self._folders():
            if machine is not None and folder.parent.name != machine:
                continue
            row: dict[str, Any] = {
                "machine": folder.parent.name,
                "name": folder.name,
                "capture": f"{folder.parent.name}/{folder.name}",
                "path": str(folder),
                "bytes": _size(folder),
                "problem": "",
            }
            try:
                document = Capture.open(folder).document
                row |= {k: document[k] for k in ("occurrence", "alarm", "onset_ns", "raised_ns", "text", "bank")}
                row["fault"] = document["explanation"].get("fault", "")
                row["channels"] = [c["id"] for c in document["channels"]]
            except BadFile as error:
                row |= {"occurrence": 0, "alarm": "", "onset_ns": 0, "raised_ns": 0, "text": "", "bank": ""}
                row |= {"fault": "", "channels": [], "problem": str(error)}
            rows.append(row)
        return sorted(rows, key=lambda row: (row["raised_ns"], row["name"]), reverse=True)

    def names(self, machine: str) -> list[str]:
        """The captures of a machine, read or not."""
        return [folder.name for folder in self._folders() if folder.parent.name == machine]

    def open(self, machine: str, occurrence: int | str) -> Capture:
        """One capture; BadFile where it is not there or damaged."""
        return Capture.open(self._path(machine, str(occurrence)))

    def document(self, machine: str, occurrence: int | str) -> Mapping[str, Any]:
        """Its capture.json."""
        return self.open(machine, occurrence).document

    def samples(self, machine: str, occurrence: int | str, channel: str) -> Floats:
        """As `Capture.samples`."""
        return self.open(machine, occurrence).samples(channel)

    def nearest(self, machine: str, occurrence: int | str, channel: str) -> tuple[Floats, float] | None:
        """As `Capture.nearest`."""
        return self.open(machine, occurrence).nearest(channel)

    def _make_room(self, wanted_bytes: int, max_bytes: int, keep: Collection[tuple[str, str]], *, wanted: str) -> None:
        try:
            found = sorted((folder.stat().st_mtime_ns, _size(folder), folder) for folder in self._folders())
            used = sum(size for _, size, _ in found)
            free_to_go = [(s, f) for _, s, f in found if (f.parent.name, f.name) not in keep]
            if used - sum(s for s, _ in free_to_go) + wanted_bytes > max_bytes:
                raise Unavailable(
                    f"capture {wanted} takes {wanted_bytes / MB:.1f} MB and does not fit: captures of open alarms take "
                    f"{(used - sum(s for s, _ in free_to_go)) / MB:.1f} of capture.max_mb = {max_bytes / MB:g}"
                )
            for size, folder in free_to_go:
                if used + wanted_bytes <= max_bytes:
                    return
                grave = folder.with_name(f".{folder.name}.gone")
                folder.rename(grave)  # gone in one step, even if the removal is cut short
                shutil.rmtree(grave, ignore_errors=True)
                used -= size
        except OSError as error:
            raise Unavailable(f"{self._root} cannot be read to make room for capture {wanted}: {error}") from error

    def _folders(self) -> list[Path]:
        if not self._root.is_dir():
            return []
        machines = [m for m in self._root.iterdir() if MACHINE.fullmatch(m.name) and m.is_dir()]
        return sorted(f for m in machines for f in m.iterdir() if NAME.fullmatch(f.name) and f.is_dir())

    def _path(self, machine: str, name: str) -> Path:
        if not MACHINE.fullmatch(machine):
            raise ValueError(f"{machine!r} is not a machine id")
        if not NAME.fullmatch(name):
            raise ValueError(f"{name!r} is not the name of a capture: an occurrence, or now-<ms>")
        return self._root / machine / name


def blocks_of(frames: list[Frame], *, whole: bool) -> list[Block]:
    """The stamps of frames. Those of a stream that follow on to the nanosecond are one: they give the same windows."""
    found: list[Block] = []
    for frame in frames:
        if found and not whole and not frame.gap:
            t_ns, n, gap = found[-1]
            if frame.t_ns == t_ns + round(n * 1e9 / frame.rate_hz):
                found[-1] = t_ns, n + len(frame.samples), gap
                continue
        found.append((frame.t_ns, len(frame.samples), frame.gap))
    return found


_TYPES: Mapping[str, type | tuple[type, ...]] = {
    "machine": str, "alarm": str, "occurrence": int, "onset_ns": int, "raised_ns": int, "text": str, "bank": str,
    "model": str, "sha256": dict, "channels": list, "verdict": dict, "explanation": dict,
}  # fmt: skip
_CHANNEL: Mapping[str, type | tuple[type, ...]] = {
    "id": str, "file": str, "rate_hz": (int, float), "unit": str, "scale": (int, float), "t_ns": int, "n": int,
    "format": str, "blocks": list,
}  # fmt: skip


def _problem(document: Any) -> str:
    """What is wrong with a capture.json, or ""."""
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        found = document.get("schema") if isinstance(document, dict) else type(document).__name__
        return f"is no capture: its schema is {found!r}, this version reads {SCHEMA!r}"
    if problem := _wrong_types(document, _TYPES):
        return f"is damaged: {problem}"
    if not MACHINE.fullmatch(document["machine"]):
        return f"is damaged: {document['machine'][:48]!r} is not a machine id"
    for n, entry in enumerate(document["channels"]):
        problem = "no object" if not isinstance(entry, dict) else _wrong_types(entry, _CHANNEL) or _wrong_entry(entry)
        if problem:
            return f"is damaged: channels[{n}]: {problem}"
    return ""


def _wrong_types(document: Mapping[str, Any], types: Mapping[str, type | tuple[type, ...]]) -> str:
    for key, kind in types.items():
        if key not in document:
            return f"{key} is missing"
        if not isinstance(document[key], kind) or isinstance(document[key], bool):
            return f"{key} is a {type(document[key]).__name__}"
    return ""


def _wrong_entry(entry: Mapping[str, Any]) -> str:
    if not FILE.fullmatch(entry["file"]) or not MACHINE.fullmatch(entry["id"]):
        return f"{entry['file'][:80]!r} of {entry['id'][:48]!r} is not the name of a file of a capture"
    low_hz, high_hz = STATED_RATES_HZ
    if not low_hz <= entry["rate_hz"] <= high_hz or not 0 < abs(entry["scale"]) < LARGEST_SCALE:
        return f"rate_hz {shown(entry['rate_hz'])}, scale {shown(entry['scale'])}"
    if not 0 <= entry["t_ns"] <= MAX_T_NS:
        return f"t_ns is {shown(entry['t_ns'])}"
    if not all(_is_block(block) for block in entry["blocks"]):
        return "blocks must be [t_ns, n, gap] each"
    if sum(n for _, n, _ in entry["blocks"]) != entry["n"]:
        return f"its blocks hold {shown(sum(n for _, n, _ in entry['blocks']))} samples, n is {shown(entry['n'])}"
    return ""


def _is_block(block: Sequence[Any]) -> bool:
    return (
        isinstance(block, list | tuple)
        and len(block) == 3
        and all(isinstance(part, int) for part in block)
        and 0 <= block[0] <= MAX_T_NS
        and 0 < block[1] < 2**63
    )


def _finite(node: Any) -> Any:
    """Floats that JSON cannot hold become null."""
    if isinstance(node, float):
        return node if math.isfinite(node) else None
    if isinstance(node, Mapping):
        return {key: _finite(value) for key, value in node.items()}
    return [_finite(value) for value in node] if isinstance(node, list | tuple) else node


def _size(folder: Path) -> int:
    return sum(f.stat().st_size for f in folder.iterdir())
