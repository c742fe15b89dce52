"""safetensors files with another header that is still whole: what a flipped bit never gives."""

import json
from collections.abc import Mapping
from random import Random
from typing import Any

from fuzz.mutate import Make, altered, dumped, edge, json_of

DTYPES = ("F32", "F64", "I64", "I32", "U8", "BOOL", "BF16", "F16", "F8_E4M3", "C64", "F4", "X", "", 3)
SHAPES = ([], [0], [1], [-1], [2**63], [2**40, 2**40], [0, 2**62], [1.5], "x", None, [[1]], [1] * 40)


def read(file: bytes) -> tuple[dict[str, Any], bytes]:
    """The header and what follows it."""
    size = int.from_bytes(file[:8], "little")
    return json.loads(file[8 : 8 + size]), file[8 + size :]


def written(header: Mapping[str, Any], body: bytes) -> bytes:
    """The reverse, whatever the header holds."""
    text = dumped(header).encode("utf-8", "surrogatepass")
    return len(text).to_bytes(8, "little") + text + body


def reshaped(rng: Random, header: dict[str, Any]) -> dict[str, Any]:
    """A header in which one tensor is described differently."""
    names = [key for key in header if key != "__metadata__"]
    if not names:
        return header
    name = rng.choice(names)
    entry = header[name]
    kind = rng.randrange(7) if isinstance(entry, dict) and {"dtype", "shape", "data_offsets"} <= entry.keys() else 6
    if kind == 0:
        entry["dtype"] = rng.choice(DTYPES)
    elif kind == 1:
        entry["shape"] = rng.choice(SHAPES)
    elif kind == 2:
        entry["data_offsets"] = [edge(rng), edge(rng)]
    elif kind == 3:
        header[rng.choice(("", "x/samples", "machine", name + "/a", "\x00", "calibration"))] = header.pop(name)
    elif kind == 4:
        del header[name]
    elif kind == 5:  # as many bytes, seen in another way
        width = {"F32": 4, "F64": 8, "I64": 8, "U8": 1, "BOOL": 1}.get(str(entry["dtype"]), 1)
        offsets = entry["data_offsets"] if isinstance(entry.get("data_offsets"), list) else [0, 0]
        begin, end = [*(n if isinstance(n, int) else 0 for n in offsets), 0, 0][:2]
        new = rng.choice(
            (("U8", 1), ("F32", 4), ("F64", 8), ("I64", 8), ("BOOL", 1), ("I32", 4), ("F16", 2), ("BF16", 2))
        )
        entry |= {"dtype": new[0], "shape": [(end - begin) // new[1]]}
        if rng.random() < 0.3:
            entry["shape"] = rng.choice(([], [1, *entry["shape"]], [*entry["shape"], 1], [0], [width]))
    else:
        return altered(rng, header)  # type: ignore[no-any-return]
    return header


def maker(files: list[bytes]) -> Make:
    """Files with headers that were changed, and sometimes with other numbers in the body."""

    def make(rng: Random) -> bytes:
        header, body = read(rng.choice(files))
        for _ in range(rng.choice((1, 1, 2))):
            changed = reshaped(rng, header)
            if not isinstance(changed, dict) or len(changed) < 2:
                return written(changed, body)
            header = changed
        if rng.random() < 0.4 and body:
            body = bytearray(body)
            for _ in range(rng.choice((1, 1, 3))):
                at = rng.randrange(len(body)) // 8 * 8
                body[at : at + 8] = rng.choice((bytes(8), b"\xff" * 8, rng.randbytes(8), b"\x00" * 7 + b"\x7f"))
        return written(header, bytes(body))

    return make


def metadata(files: list[bytes], key: str) -> Make:
    """Files in whose JSON metadata one document was changed."""

    def make(rng: Random) -> bytes:
        header, body = read(rng.choice(files))
        document = json.loads(header["__metadata__"][key])
        header["__metadata__"][key] = json_of(rng, [document]).decode(errors="replace")
        return written(header, body)

    return make
