"""Arrays in npy and npz files of unknown origin: nothing is allocated that the file does not hold, nothing executed.

numpy's own reader believes the header: it allocates what a header of a hundred bytes promises, and what it raises for a
damaged one comes from zlib, tokenize, struct and Python's parser. Here everything is a ValueError.
Format: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
"""

import io
import math
import re
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAGIC = b"\x93NUMPY"
MAX_HEADER = 4096
HEADER = re.compile(
    r"\{\s*'descr':\s*'([<>|=]?[biufcSUV]\d{1,9})',\s*'fortran_order':\s*(True|False),\s*'shape':\s*\(([\d,\s]{0,200})\),?"
    r"\s*\}\s*"
)
KINDS = "biufc"
PLAIN = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # what numpy writes
ENCRYPTED = 0x1
PIECE = 1 << 20
SLACK_BYTES, MOST_PACKED = 16_000_000, 20  # measured signals hardly pack; what packs better is a bomb, or silence


def archive(source: Path | bytes, *, max_bytes: int) -> dict[str, NDArray[Any]]:
    """The arrays of an npz file, read-only; ValueError where it is none, or holds more than `max_bytes` unpacked."""
    size = len(source) if isinstance(source, bytes) else source.stat().st_size
    try:
        with zipfile.ZipFile(io.BytesIO(source) if isinstance(source, bytes) else source) as file:
            entries = [e for e in file.infolist() if not e.filename.endswith("/")]
            if (total := sum(e.file_size for e in entries)) > min(max_bytes, SLACK_BYTES + MOST_PACKED * size):
                raise ValueError(
                    f"its {size} bytes unpack to {total}, more than is taken; split it, or save it without compression"
                )
            if odd := [e for e in entries if e.compress_type not in PLAIN or e.flag_bits & ENCRYPTED]:
                raise ValueError(f"{odd[0].filename!r} is encrypted, or packed in a way that npz files are not")
            return {e.filename.removesuffix(".npy"): array(_unpacked(file, e)) for e in entries}
    except (zipfile.BadZipFile, zlib.error, struct.error, EOFError, NotImplementedError, OverflowError) as error:
        raise ValueError(f"it is damaged: {error}") from error


def array(body: bytes) -> NDArray[Any]:
    """The array of an npy file, read-only, sharing `body`; ValueError where that does not hold exactly one."""
    dtype, shape, fortran, offset = head(body[: 12 + MAX_HEADER])
    if len(body) - offset != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{len(body) - offset} bytes of data are no {shape} of {dtype}; it is damaged, or cut short")
    if not math.prod(shape):
        return np.zeros(shape, dtype)
    return np.frombuffer(body, dtype, offset=offset).reshape(shape, order="F" if fortran else "C")


def mapped(path: Path) -> NDArray[Any]:
    """As `array`, of a file, whose pages are read when they are looked at."""
    with path.open("rb") as file:
        dtype, shape, fortran, offset = head(file.read(12 + MAX_HEADER))
    if (held := path.stat().st_size - offset) != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{held} bytes of data are no {shape} of {dtype}; it is damaged, or cut short")
    if not held:
        return np.zeros(shape, dtype)
    return np.memmap(path, dtype, "r", offset, shape, "F" if fortran else "C")


def head(begin: bytes) -> tuple[np.dtype[Any], tuple[int, ...], bool, int]:
    """What an npy file says of itself: dtype, shape, whether columns come first, and where the data begin."""
    if begin[:6] != MAGIC or len(begin) < 10 or begin[6] not in (1, 2, 3):
        raise ValueError("it is no npy file of a known version")
    width = 2 if begin[6] == 1 else 4
    size = int.from_bytes(begin[8 : 8 + width], "little")
    offset = 8 + width + size
    if size > MAX_HEADER or offset > len(begin):
        raise ValueError("its header is cut short, or too long")
    found = HEADER.fullmatch(begin[8 + width : offset].decode("latin-1"))
    if found is None:
        raise ValueError("its header does not describe an array of plain numbers")
    try:
        dtype = np.dtype(found[1])
        shape = tuple(int(n) for n in found[3].split(",") if n.strip())
    except (TypeError, ValueError) as error:
        raise ValueError(f"its header is damaged: {error}") from error
    if dtype.kind not in KINDS or dtype.hasobject:
        raise ValueError(f"it holds {dtype}, and no plain numbers")
    if len(shape) > 8 or math.prod(shape) * dtype.itemsize >= 2**62 or any(n >= 2**62 for n in shape):
        raise ValueError(f"its shape {shape} is none that a file can have")
    return dtype, shape, found[2] == "True", offset


def _unpacked(file: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    """In pieces, since what a directory promises may not be there."""
    body = bytearray()
    with file.open(entry) as packed:
        while piece := packed.read(PIECE):
            body += piece
    return bytes(body)
