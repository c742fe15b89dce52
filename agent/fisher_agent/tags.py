"""A plant's tag of a machine's operating mode: the payloads that PLCs and gateways send, as a word. Pure."""

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fisher_agent.config import Config, MachineConfig, expand
from fisher_agent.errors import BadPayload
from fisher_agent.modeconfig import UNKNOWN_MODE
from fisher_agent.stages import Tag

MODE_ID = re.compile(r"[A-Za-z0-9_-]{1,48}")
MAX_TAG_BYTES = 4096
WORD_KEYS = ("mode", "value", "v")  # of a JSON object, the first that is there
TIME_KEYS = ("t", "ts", "timestamp")
NOTHING = np.zeros(0, np.float32)


@dataclass(frozen=True, slots=True)
class TagBinding:
    """One machine that a tag speaks of."""

    machine: str
    values: Mapping[str, str]


def tag_bindings(config: Config, source: str) -> dict[str, tuple[TagBinding, ...]]:
    """Topic -> the machines whose mode it tells."""
    found: dict[str, tuple[TagBinding, ...]] = {}
    for machine in config.machines:
        if (place := tag_of(machine)) is not None and place[0] == source:
            assert machine.mode is not None
            found[place[1]] = (*found.get(place[1], ()), TagBinding(machine.id, machine.mode.values))
    return found


def tag_of(machine: MachineConfig) -> tuple[str, str] | None:
    """The source and the topic of a machine's tag; None where it has none."""
    if machine.mode is None or machine.mode.topic is None:
        return None
    return machine.mode.source or machine.channels[0].source, expand(machine.mode.topic, machine.id, "")


def read_tag(
    payload: bytes | memoryview, bindings: Sequence[TagBinding], *, utc_ns: int, t_ns_of: Callable[[object], int]
) -> list[Tag]:
    """The mode of each machine from the tag's time on, or from its arrival where it has none.

    A payload is a word, a number, or a JSON object with `mode` (or `value`) and `t`. A value that the configuration
    does not list is an unknown mode: to keep the old one would judge by the wrong bank. BadPayload for anything else.
    """
    if len(payload) > MAX_TAG_BYTES:
        raise BadPayload("too-big", f"{len(payload)} bytes; a tag has at most {MAX_TAG_BYTES}")
    if not payload:
        raise BadPayload("empty", "a tag without a value")
    word, t_ns = _parsed(bytes(payload), utc_ns, t_ns_of)
    return [Tag(b.machine, "", t_ns, 1.0, NOTHING, word=_mode(word, b.values)) for b in bindings]


def _parsed(payload: bytes, utc_ns: int, t_ns_of: Callable[[object], int]) -> tuple[str, int]:
    try:
        text = payload.decode()
    except UnicodeDecodeError as error:
        raise BadPayload("type", f"no text: {payload[:40]!r}") from error
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text.strip(), utc_ns
    t_ns = utc_ns
    if isinstance(value, dict):
        t = next((value[k] for k in TIME_KEYS if value.get(k) is not None), None)
        t_ns = utc_ns if t is None else t_ns_of(t)
        key = next((k for k in WORD_KEYS if k in value), None)
        if key is None:
            raise BadPayload("missing", f"a JSON object with none of {', '.join(WORD_KEYS)}")
        value = value[key]
    if isinstance(value, bool):
        return str(value).lower(), t_ns
    if isinstance(value, float):
        if not math.isfinite(value):
            raise BadPayload("not-finite", "a mode that is no number")
        return f"{value:.12g}", t_ns  # a gateway may send 3.0 for 3
    if isinstance(value, str | int):
        return str(value).strip(), t_ns
    raise BadPayload("type", f"a JSON {type(value).__name__}; a word or a number is expected")


def _mode(word: str, values: Mapping[str, str]) -> str:
    if values:
        return values.get(word, UNKNOWN_MODE)
    if not MODE_ID.fullmatch(word):
        raise BadPayload("type", f"{word[:40]!r} is no mode: 1 to 48 of A-Z a-z 0-9 _ -; or list it in `values`")
    return word


def mode_key(machine: str) -> str:
    """Where the store keeps the operating mode that an operator stated; "" where none is."""
    return f"mode/{machine}"
