"""Inputs that are almost right: valid samples with wounds, and values at the edge of what there is. Seeded, so that a
number of an input is enough to make it again.
"""

import copy
import json
import struct
from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Any

Make = Callable[[Random], bytes]

# Where numbers overflow, are cut short or have a second meaning.
WHOLE = (
    0, 1, -1, 2, 127, 128, 255, 256, 32767, 32768, 65535, 65536, 2**24, 2**31 - 1, 2**31, -(2**31) - 1, 2**32 - 1,
    2**32, 2**36 - 1, 2**53, 2**53 + 1, 2**63 - 1, 2**63, -(2**63), -(2**63) - 1, 2**64 - 1, 2**64,
)  # fmt: skip
BROKEN = (0.0, -0.0, 5e-324, 1e-310, 1e-9, 0.1, 1e17, 1.7e308, -1.7e308, 3.5e38, 0.5)
# As JSON text, since Python could not write all of them: half a surrogate, numbers of more digits than int() takes.
JSON_EDGES = (
    "NaN", "Infinity", "-Infinity", "1e400", "-1e400", "1e-400", "-0", "1" + "0" * 400, "-1" + "0" * 4290,
    "9" * 4300, "9" * 4301, "null", "true", "false", '""', '" "', '"\\u0000"', '"\\ud800"', '"\\udfff\\ud800"',
    '"\\u2028"', '"a\\nb"', '"%00"', '"../../x"', '"' + "a" * 300 + '"', '"' + "\\u00e9" * 100 + '"', '"1"', '"-1"',
    '"NaN"', '"1e999"', '"0x10"', '"2026-02-30"', '"9999-12-31T23:59:59+23:59"', '"0001-01-01T00:00:00-23:59"', "[]",
    "{}", "[null]", "[[]]", "[1,2]", '{"":0}', '{"a":{"a":1}}',
)  # fmt: skip
DEEP = (3, 30, 330, 900, 5000, 60_000)


def damaged(rng: Random, samples: Sequence[bytes]) -> bytes:
    """A sample with one to six wounds: bits, cuts, insertions, repeats, a piece of another, numbers at an edge."""
    data = bytearray(rng.choice(samples))
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 6))):
        _wound(rng, data, samples)
    return bytes(data)


def _wound(rng: Random, data: bytearray, samples: Sequence[bytes]) -> None:
    # Headers lie at the beginning and, of archives, at the end.
    at = rng.randrange(len(data) + 1) if rng.random() < 0.5 else min(len(data), rng.randrange(80))
    if rng.random() < 0.15:
        at = max(0, len(data) - rng.randrange(1, 120))
    span = rng.choice((1, 1, 2, 4, 8, 30, 500))
    kind = rng.randrange(8)
    if kind == 0 and at < len(data):
        data[at] ^= 1 << rng.randrange(8)
    elif kind == 1:
        data[at : at + span] = rng.randbytes(min(span, len(data) - at))
    elif kind == 2:
        del data[at : at + span]
    elif kind == 3:
        data[at:at] = rng.choice((bytes(span), b"\xff" * span, rng.randbytes(span), data[at : at + span] * 3))
    elif kind == 4:
        del data[at if rng.random() < 0.5 else len(data) - min(len(data), span) :]
    elif kind == 5:
        other = rng.choice(samples)
        begin = rng.randrange(len(other) + 1)
        data[at : at + rng.choice((0, span))] = other[begin : begin + span]
    else:
        form = rng.choice(("<b", "<h", ">h", "<i", ">i", "<q", ">q", "<d", "<f"))
        size = struct.calcsize(form)
        if form[1] in "df":
            number = struct.pack(form, rng.choice((float("nan"), float("inf"), -1.0, 1e30, 1e-40, 0.0)))
        else:
            number = (rng.choice(WHOLE) % 256**size).to_bytes(size, "little" if form[0] == "<" else "big")
        data[at : at + size] = number


def nested(rng: Random) -> str:
    """JSON deeper than anybody means, often near to where an interpreter gives up."""
    depth = rng.choice((rng.choice(DEEP), rng.randrange(850, 1000)))
    if rng.random() < 0.7:
        return "[" * depth + "]" * depth
    return '{"a":' * depth + "1" + "}" * depth


class _Verbatim(str):
    """JSON text that stands for itself in a document."""

    __slots__ = ()


def edge(rng: Random) -> Any:
    """Any JSON value that a program might not expect."""
    kind = rng.randrange(6)
    if kind < 2:
        return rng.choice(WHOLE)
    if kind == 2:
        return rng.choice(BROKEN) * rng.choice((1, -1))
    return _Verbatim(nested(rng) if rng.random() < 0.08 else rng.choice(JSON_EDGES))


def json_of(rng: Random, documents: Sequence[Any]) -> bytes:
    """One of the documents with one to four of its values, keys or places changed, as JSON."""
    document = copy.deepcopy(rng.choice(documents))
    for _ in range(rng.choice((1, 1, 1, 2, 2, 4))):
        document = altered(rng, document)
    text = dumped(document, ensure_ascii=rng.random() < 0.5)
    if rng.random() < 0.05 and "{" in text:
        key = rng.choice(("t", "rate", "samples", "schema", "a"))
        text = text.replace("{", f'{{"{key}": {rng.choice(JSON_EDGES)}, "{key}": 1,', 1)  # keys that come twice
    data = text.encode("utf-8", "surrogatepass")
    return damaged(rng, [data]) if rng.random() < 0.15 else data


def dumped(document: Any, *, ensure_ascii: bool = True) -> str:
    """As JSON, with what stands for itself put in."""
    verbatim: list[str] = []

    def marked(node: Any) -> Any:
        if isinstance(node, _Verbatim):
            verbatim.append(str(node))
            return f"@{len(verbatim) - 1}@verbatim@"
        if isinstance(node, dict):
            return {key: marked(value) for key, value in node.items()}
        return [marked(value) for value in node] if isinstance(node, list | tuple) else node

    text = json.dumps(marked(document), ensure_ascii=ensure_ascii)
    for n, literal in enumerate(verbatim):
        text = text.replace(f'"@{n}@verbatim@"', literal, 1)
    return text


def altered(rng: Random, document: Any) -> Any:
    """The document, changed in place where that can be, with one value replaced, lost, renamed, doubled or swapped."""
    places = list(_places(document))
    if not places or rng.random() < 0.03:
        return edge(rng)
    holder, key = rng.choice(places)
    kind = rng.random()
    if kind < 0.6:
        holder[key] = edge(rng)
    elif kind < 0.7:
        del holder[key]
    elif kind < 0.8:
        other, other_key = rng.choice(places)
        holder[key] = copy.deepcopy(other[other_key])
    elif kind < 0.9:
        holder[key] = [holder[key]] * rng.choice((0, 1, 2, 40))
    elif isinstance(holder, dict):
        holder[rng.choice(("", "a", "id", "\x00", "é", key.upper(), key + " "))] = holder.pop(key)
    else:
        holder.insert(0, edge(rng))
    return document


def _places(node: Any) -> Iterator[tuple[Any, Any]]:
    keys = list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ()
    for key in keys:
        yield node, key
        yield from _places(node[key])


def mixed(*makers: tuple[float, Make]) -> Make:
    """Inputs of several makers, by their weights."""
    weights, functions = [w for w, _ in makers], [f for _, f in makers]
    return lambda rng: rng.choices(functions, weights)[0](rng)
