"""npy and npz files that are valid to the zip reader and strange inside: what a flipped bit never is."""

import io
import struct
import warnings
import zipfile
from functools import cache
from random import Random

from fuzz.mutate import WHOLE

DESCRS = (
    "'<f4'", "'<f8'", "'<i2'", "'>f4'", "'|b1'", "'|O'", "'<U4'", "'|S4'", "'<c8'", "'<M8[ns]'", "'|V2000000000'",
    "'<f2'", "'|S0'", "''", "'x'", "None", "[('a','<f4')]", "[('a',[('b','O')])]", "'<f4" + "x" * 300 + "'",
    "('<f4',(9,9))",     "[('a','<f4',(99999,99999))]",
)  # fmt: skip
SHAPES = (
    "(8,)", "()", "(0,)", "(-1,)", "(2, 4)", "(4, 2)", "(9223372036854775807,)", "(18446744073709551616,)",
    "(4294967296, 4294967296)", "(100000000000,)", "(1e3,)", "('a',)", "[8]", "8", "None", "(True,)", "(8L,)",
    "(" + "1," * 70 + ")", "(0, 9223372036854775807)", "(((((((8,)))))))", "(10**9,)",
)  # fmt: skip
HEADS = (
    "{{'descr': {d}, 'fortran_order': {o}, 'shape': {s}, }}", "{{'descr': {d}, 'fortran_order': {o}, 'shape': {s}",
    "{{'descr': {d}, 'shape': {s}}}", "{{'descr': {d}, 'fortran_order': {o}, 'shape': {s}, 'x': 1}}", "[{d}, {s}, {o}]",
    "{{'descr': {d}, 'fortran_order': {o}, 'shape': {s}, }} + 1", "  \t{d}\n  x", "('''{d}", "\x00{d}{s}{o}",
)  # fmt: skip
NAMES = ("samples.npy", "vib.npy", "rate_hz.npy", "t_ns.npy", "vib.rate_hz.npy", "vib.t_ns.npy", "../x.npy", "x",
         ".npy", "amp.npy", "\x00.npy", "é.npy", "a" * 300 + ".npy")  # fmt: skip


def an_npy(rng: Random) -> bytes:
    """A header that may say anything, and a body that may not be that."""
    plain = rng.random() < 0.5  # then only one thing is strange
    strange = rng.randrange(3)
    d = rng.choice(DESCRS) if not plain or strange == 0 else rng.choice(("'<f4'", "'<f8'", "'<i4'"))
    s = rng.choice(SHAPES) if not plain or strange == 1 else rng.choice(("(8,)", "()", "(2, 4)"))
    head = rng.choice(HEADS) if not plain or strange == 2 else HEADS[0]
    if rng.random() < 0.02:
        depth = rng.choice((50, 150, 900, 3000))
        s = "(" * depth + "8" + ")" * depth
    text = head.format(d=d, o=rng.choice(("True", "False", "False", "1", "x")), s=s) + " " * rng.choice((0, 7, 64))
    version = rng.choice((1, 1, 1, 2, 3, 0, 4))
    raw = (text + "\n").encode("utf-8" if version == 3 else "latin-1", "replace")
    length = len(raw) if rng.random() < 0.9 else rng.choice(WHOLE) % (65536 if version == 1 else 2**32)
    form = "<H" if version == 1 else "<I"
    body = _numbers(rng) if rng.random() < 0.8 else rng.randbytes(rng.choice((0, 7, 32, 64)))
    return (
        b"\x93NUMPY" + bytes([version, 0]) + struct.pack(form, length % 2 ** (8 * struct.calcsize(form))) + raw + body
    )


def _numbers(rng: Random) -> bytes:
    edges = (1.0, 0.0, -1.0, 8000.0, 1e300, -1e300, float("nan"), float("inf"), 1.79e18, 1e-310)
    return struct.pack("<8d", *(rng.choice(edges) for _ in range(8))) if rng.random() < 0.5 else bytes(32)


def an_npz(rng: Random) -> bytes:
    """A zip archive of such files, by turns compressed, encrypted in name only, twice the same, or a bomb."""
    if rng.random() < 0.004:
        return _bomb()
    buffer = io.BytesIO()
    with warnings.catch_warnings(action="ignore"), zipfile.ZipFile(buffer, "w") as archive:
        for _ in range(rng.choice((0, 1, 2, 3))):
            entry = zipfile.ZipInfo(rng.choice(NAMES))
            entry.compress_type = rng.choice(
                (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
            )
            body = an_npy(rng)
            archive.writestr(entry, body, compresslevel=1)
    data = bytearray(buffer.getvalue())
    if rng.random() < 0.3 and (at := data.find(b"PK\x01\x02")) >= 0:
        # Fields of the central directory: version, flags, method, sizes, offsets.
        field, size = rng.choice(
            ((4, 2), (6, 2), (8, 2), (10, 2), (16, 4), (20, 4), (24, 4), (28, 2), (30, 2), (42, 4))
        )
        data[at + field : at + field + size] = (rng.choice((*WHOLE, 9, 97, 99)) % 256**size).to_bytes(size, "little")
    return bytes(data)


@cache
def _bomb() -> bytes:
    """120 MB of zeros in half a megabyte."""
    n, buffer = 30_000_000, io.BytesIO()
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({n},), }}\n".encode()
    with (
        zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("vib.npy", "w") as f,
    ):
        f.write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header)
        for _ in range(120):
            f.write(bytes(1_000_000))
    return buffer.getvalue()
