"""Reads checkpoint files and folders: safetensors, and torch files with `weights_only=True`. Runs no code of theirs.

What a file is, is told by its first bytes and not by its name: names of downloads are often wrong.
"""

import hashlib
import json
import pickle
import re
import struct
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from fisher_models.bundle import MANIFEST
from fisher_models.errors import CheckpointError

CONFIG, SAFETENSORS, TORCH = "config.json", "model.safetensors", "pytorch_model.bin"
INDEX = f"{SAFETENSORS}.index.json"  # of weights that are spread over several files
_ENDINGS = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")
_MAX_JSON_BYTES = 16 * 1024**2
# What a torch file of any bytes makes the restricted unpickler raise; found by damaging files in every place.
_UNREADABLE = (
    pickle.UnpicklingError, RuntimeError, EOFError, LookupError, ValueError, TypeError, AttributeError,
    AssertionError, OverflowError, MemoryError, struct.error, zipfile.BadZipFile,
)  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """What is stored, not yet looked into."""

    content: Mapping[str, Any]  # tensors by key, perhaps inside "model" or "encoder"
    config: Mapping[str, Any] | None  # the config.json beside it
    digests: Mapping[str, str]  # file name -> SHA-256 of each file of weights


def read(path: Path) -> Checkpoint:
    """A file of weights, or a folder with one and its config.json. Raises CheckpointError."""
    if path.is_dir():
        return _folder(path)
    if not path.is_file():
        raise CheckpointError(f"{path} is neither a file nor a folder; a model on the hub is hf:OWNER/NAME")
    return Checkpoint(_weights(path), None, {path.name: _digest(path)})


def _folder(folder: Path) -> Checkpoint:
    if (folder / MANIFEST).is_file():
        raise CheckpointError(f"{folder} is a bundle already; use it as it is")
    config = _json(folder / CONFIG) if (folder / CONFIG).is_file() else None
    for name in (SAFETENSORS, INDEX, TORCH):
        if (folder / name).is_file():
            paths = _shards(folder) if name == INDEX else [folder / name]
            break
    else:
        paths = sorted(path for path in folder.iterdir() if path.suffix in _ENDINGS and path.is_file())
        if len(paths) != 1:
            found = ", ".join(path.name for path in paths) or "none"
            raise CheckpointError(f"{folder} needs one file of weights, such as {SAFETENSORS}; found: {found}")
    content: dict[str, Any] = {}
    for path in paths:
        part = _weights(path)
        if twice := sorted(content.keys() & part.keys()):
            raise CheckpointError(f"{path} holds {twice[0]} again; the parts of the model do not belong together")
        content.update(part)
    return Checkpoint(content, config, {path.name: _digest(path) for path in paths})


def _shards(folder: Path) -> list[Path]:
    parts = _json(folder / INDEX).get("weight_map")
    names = (
        set(parts.values()) if isinstance(parts, dict) and all(isinstance(v, str) for v in parts.values()) else set()
    )
    if not names:
        raise CheckpointError(f"{folder / INDEX} holds no weight_map of keys to files")
    if outside := sorted(name for name in names if PurePath(name).name != name):
        raise CheckpointError(f"{folder / INDEX} names {outside[0]!r}, which is not a file of its folder")
    if missing := sorted(name for name in names if not (folder / name).is_file()):
        raise CheckpointError(f"{folder} lacks {', '.join(missing)}, which {INDEX} names; download all parts")
    return [folder / name for name in sorted(names)]


def _json(path: Path) -> dict[str, Any]:
    if path.stat().st_size > _MAX_JSON_BYTES:
        raise CheckpointError(f"{path} is larger than {_MAX_JSON_BYTES // 1024**2} MB; it holds no settings")
    try:
        values = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:  # bytes that are no UTF-8, or no JSON
        raise CheckpointError(f"{path} is no JSON: {error}; download it again") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path} holds a {type(values).__name__}, expected an object")
    return values


def _weights(path: Path) -> Mapping[str, Any]:
    with path.open("rb") as file:
        head = file.read(512)
    if head.startswith(b"PK\x03\x04"):
        _check_zip(path)
        return _torch(path)
    brace = head[8:9] == b"{"  # a safetensors file begins with the length of its header, eight bytes
    if head.startswith(b"\x80") and not (brace and head[4:8] == bytes(4)):  # a pickle of protocol 2 or later
        return _torch(path)
    if brace:
        return _safetensors(path)
    raise CheckpointError(f"{path} {_unusable(head)}")


def _unusable(head: bytes) -> str:
    start = head.lstrip()[:64].lower()
    if not head:
        return "is empty; download it again"
    if start.startswith(b"version https://git-lfs"):
        return "is a Git LFS pointer and not the file itself; run `git lfs pull`, or download it from the web page"
    if start.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "is a web page and not the file itself; download it again, by the link of the file"
    if head.startswith((b"\x1f\x8b", b"7z\xbc\xaf", b"BZh", b"\xfd7zXZ")) or head[257:262] == b"ustar":
        return "is an archive; unpack it, then import what it holds"
    return "is neither a safetensors nor a torch file; download it again, or see whether it is of another format"


def _safetensors(path: Path) -> Mapping[str, Any]:
    try:
        tensors: dict[str, Any] = load_file(path)
    except (SafetensorError, ValueError, TypeError, LookupError, RuntimeError) as error:
        raise CheckpointError(f"{path} is a damaged safetensors file: {error}; download it again") from error
    return tensors


def _check_zip(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = [PurePath(name).name for name in archive.namelist()]
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise CheckpointError(f"{path} is truncated or damaged: {error}; download it again") from error
    if "constants.pkl" in names:
        raise CheckpointError(f"{path} is a TorchScript archive, which is code; save its state dict as safetensors")
    if "data.pkl" not in names:
        raise CheckpointError(f"{path} is a zip archive and no torch file; unpack it, then import what it holds")


def _torch(path: Path) -> Mapping[str, Any]:
    try:
        with warnings.catch_warnings(), path.open("rb") as file:  # opened here: torch goes by the ending of a name
            warnings.simplefilter("ignore", UserWarning)  # on pickle protocols: what they hold is refused or read
            content = torch.load(file, map_location="cpu", weights_only=True)
    except _UNREADABLE as error:
        raise CheckpointError(_refusal(path, error)) from error
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path} holds a {type(content).__name__}, expected a dictionary of tensors")
    return content


def _refusal(path: Path, error: BaseException) -> str:
    wants = re.search(r"GLOBAL (\S+)", str(error))
    if wants or "Unsupported operand" in str(error):
        what = f"wants to run {wants[1]}" if wants else "is a pickle that may run anything"
        return (
            f"{path} {what} when it is read; import never runs code from a file. If you trust it, load it in a place "
            "that may be lost, with torch.load(..., weights_only=False), and write its tensors with "
            "safetensors.torch.save_file and its sizes (cfg['model']) into a config.json beside them; then import "
            "that folder"
        )
    reason = next(iter(str(error).splitlines()), "") or type(error).__name__
    return f"{path} is truncated or damaged: {reason[:200]}; download it again"


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
