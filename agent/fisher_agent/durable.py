"""Files that are there after a power cut: written beside their place, flushed, renamed, the folder flushed."""

import hashlib
import os
from pathlib import Path


def write(path: Path, body: bytes) -> None:
    """Write a whole file and flush it to the disk; OSError where the disk refuses."""
    with path.open("wb") as file:
        file.write(body)
        file.flush()
        os.fsync(file.fileno())


def sync(folder: Path) -> None:
    """Flush a folder: a rename is durable only then (rename(2), fsync(2))."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256(body: bytes) -> str:
    """Of a file's contents, in hex."""
    return hashlib.sha256(body).hexdigest()
