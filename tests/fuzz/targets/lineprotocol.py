"""Points to line protocol and back, by a parser that follows the specification and shares nothing with the writer."""

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fisher_agent.lines import EMPTY_TAG, INT64, MAX_STRING, MAX_TAG, MS, line
from fisher_agent.stages import Point
from fuzz.harness import Opened, Target
from fuzz.mutate import json_of

DOCUMENT = {
    "tags": {"site": "s", "machine": "press 07", "mode": "a=b,c", "x": "ü\\"},
    "fields": {"score": 1.5, "level": 2, "text": 'a "b" \\ c', "ok": True},
    "t_ns": 1_795_210_782_324_000_000,
}
PLAIN = {"\\": "/"}


def _read(text: str) -> tuple[str, dict[str, str], dict[str, Any], int]:
    """One line, character by character."""
    at = 0

    def word(ends: str) -> str:
        nonlocal at
        found = ""
        while at < len(text) and text[at] not in ends:
            if text[at] == "\\" and at + 1 < len(text) and text[at + 1] in ",= ":
                at += 1
            found += text[at]
            at += 1
        return found

    def value() -> Any:
        nonlocal at
        if text[at] != '"':
            raw = word(", ")
            if raw in ("true", "false"):
                return raw == "true"
            return int(raw[:-1]) if raw.endswith("i") else float(raw)
        found, at = "", at + 1
        while text[at] != '"':
            if text[at] == "\\" and text[at + 1] in '\\"':
                at += 1
            found += text[at]
            at += 1
        at += 1
        return found

    measurement, tags, fields = word(", "), {}, {}
    while text[at] == ",":
        at += 1
        key = word("=")
        at += 1
        tags[key] = word(", ")
        assert tags[key], "an empty tag is a syntax error"
    assert text[at] == " "
    while text[at] in " ,":
        at += 1
        key = word("=")
        at += 1
        fields[key] = value()
        if text[at] == " ":
            break
    return measurement, tags, fields, int(text[at + 1 :])


def _plain(text: str, *, name: bool) -> str:
    """What the protocol can hold of a text."""
    shown = "".join(" " if ord(c) < 32 or ord(c) in (127, 0x85, 0x2028, 0x2029) else c for c in text)
    return "".join(PLAIN.get(c, c) for c in shown[:MAX_TAG]) if name else shown[:MAX_STRING]


@contextmanager
def _lines(_work: Path) -> Iterator[Opened]:
    def run(data: bytes) -> None:
        try:
            document = json.loads(data)
            tags = [(k, v) for k, v in document["tags"].items() if isinstance(v, str)]
            fields = [(k, v) for k, v in document["fields"].items() if isinstance(v, str | int | float)]
            point = Point("fisher_x", tuple(tags), tuple(fields), int(document["t_ns"]))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError):
            return
        written = line(point)
        keys = [_plain(k, name=True) for k, _ in (*tags, *fields)]
        if written is None or not all(keys) or len(set(keys)) < len(keys):
            return  # keys are constants of the code
        stored = written.encode(errors="replace").decode()  # as the outbox keeps it
        assert "\n" not in stored
        assert "\r" not in stored
        measurement, read_tags, read_fields, t_ms = _read(stored)
        assert (measurement, t_ms) == ("fisher_x", point.t_ns // MS)
        shown = {_plain(k, name=True): _plain(v, name=True) or EMPTY_TAG for k, v in tags}
        assert {k: v.encode(errors="replace").decode() for k, v in shown.items()} == read_tags
        wanted = {
            _plain(k, name=True): _plain(v, name=False).encode(errors="replace").decode() if isinstance(v, str) else v
            for k, v in fields
            if isinstance(v, str | bool)
            or (isinstance(v, float) and math.isfinite(v))
            or (isinstance(v, int) and -INT64 <= v < INT64)
        }
        assert read_fields == wanted

    yield Opened([json.dumps(DOCUMENT).encode()], lambda rng: json_of(rng, [DOCUMENT]), run)


TARGETS = (Target("line-protocol", _lines),)
