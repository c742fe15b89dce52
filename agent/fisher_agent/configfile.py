"""The configuration file: TOML -> Config, with every mistake at once and each with its key's path.

As in `machines[2].channels[0].source: 'mqt' is not the name of a source (plant)`.
"""

import os
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from fisher_agent.config import (
    SEEN_FROM_HZ,
    SPEED_UNITS,
    ChannelConfig,
    Config,
    MachineConfig,
    MqttSource,
    ZmqSource,
    expand,
)
from fisher_agent.errors import ConfigError
from fisher_agent.modeconfig import mode_problems

STAND_INS = {"site": "-", "edge": "-", "id": "-", "rate_hz": SEEN_FROM_HZ}  # to find mistakes beside a missing one
RESERVED_IDS = frozenset({"status", "alive", "health", "alarms"})
MAX_TOPIC_BYTES = 4096  # MQTT takes 65535, with {machine} and {channel} filled in and our own topics around them
DEFAULT_PATH = Path("/etc/fisher-agent/config.toml")


def default_path() -> Path:
    """Where the configuration is read from: FISHER_CONFIG, or /etc/fisher-agent/config.toml."""
    return Path(os.environ.get("FISHER_CONFIG") or DEFAULT_PATH)


def load(path: Path) -> Config:
    """Read, merge defaults, validate. ConfigError holds every mistake at once, each with its key."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ConfigError(
            f"{path} does not exist; write one with `fisher-agent init --output {path}` or name another with --config"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    return parse(text, origin=str(path))


def parse(text: str, *, origin: str = "configuration") -> Config:
    """TOML text -> Config; see `load`."""
    try:
        document = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # beside its own error: numbers without end, and nesting
        raise ConfigError(f"{origin} is not TOML: {error}") from error
    if problems := list(_zeros(document)):
        raise ConfigError(problems)
    document = _with_defaults(document)
    try:
        config = Config.model_validate(document)
    except ValidationError as error:
        raise ConfigError(_mistakes(document, [dict(e) for e in error.errors()])) from error
    if problems := list(_cross_checks(config)):
        raise ConfigError(problems)
    return config


def _zeros(node: Any, at: tuple[int | str, ...] = ()) -> Iterator[str]:
    """Strings with U+0000, which neither a file's name nor a topic can hold: it would show when they are first used."""
    if isinstance(node, str):
        if "\x00" in node:
            yield f"{_path(at)}: holds U+0000, which no file name, topic or id can"
    elif isinstance(node, dict | list):
        for key, value in node.items() if isinstance(node, dict) else enumerate(node):
            yield from _zeros(value, (*at, key))


def _with_defaults(document: dict[str, Any]) -> dict[str, Any]:
    """Merge each `[machines.defaults]` into that machine's channels; a channel's own keys win."""
    machines = document.get("machines")
    if not isinstance(machines, list):
        return document
    merged = []
    for machine in machines:
        if not isinstance(machine, dict) or not isinstance(machine.get("defaults"), dict):
            merged.append(machine)
            continue
        rest = {k: v for k, v in machine.items() if k != "defaults"}
        channels = rest.get("channels")
        if isinstance(channels, list):
            rest["channels"] = [{**machine["defaults"], **c} if isinstance(c, dict) else c for c in channels]
        merged.append(rest)
    return {**document, "machines": merged}


def _mistakes(document: dict[str, Any], errors: list[dict[str, Any]]) -> list[str]:
    """A sentence for each error; and what `_cross_checks` finds, where the document can be read without them."""
    # The union's own tag is no key.
    by_place = {e["loc"][:2] + e["loc"][3:] if e["loc"][0] == "sources" else e["loc"]: e for e in errors}
    for at in [at for at, e in by_place.items() if e["type"] == "too_short"]:
        if any(len(p) > len(at) and p[: len(at)] == at for p in by_place):
            del by_place[at]  # a list is not too short because of what is wrong in its only entry
    sayings = {_path(at): _sentence(error, _path(at)) for at, error in by_place.items()}
    try:
        rest = _cross_checks(Config.model_validate(_without(document, set(by_place))))
    except ValidationError:
        rest = []
    return [*sayings.values(), *(p for p in rest if p.partition(": ")[0] not in sayings)]


def _without(node: Any, wrong: set[tuple[int | str, ...]], at: tuple[int | str, ...] = ()) -> Any:
    """A copy in which wrong values are left out, or replaced where one is required."""
    if isinstance(node, list):
        return [_without(value, wrong, (*at, n)) for n, value in enumerate(node)]
    if not isinstance(node, dict):
        return node
    copy = {k: _without(value, wrong, (*at, k)) for k, value in node.items() if (*at, k) not in wrong}
    return copy | {k: v for k, v in STAND_INS.items() if (*at, k) in wrong}


def _path(keys: tuple[int | str, ...]) -> str:
    path = ""
    for part in keys:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else part
    return path


def _sentence(error: dict[str, Any], path: str) -> str:
    kind = error["type"]
    if kind == "extra_forbidden":
        return f"{path}: unknown key; see `fisher-agent init` for the keys there are"
    if kind == "missing":
        return f"{path}: is required and missing"
    if kind.startswith("union_tag"):
        return f"{path}.type: is required and must be 'mqtt' or 'zmq'"
    message = re.sub(r"^Value error, ", "", error["msg"])
    shown = repr(error["input"])
    # A validator's own sentence repeats what may be repeated: a url can hold a password.
    plain = kind != "value_error" and not isinstance(error["input"], dict | list) and len(shown) < 80
    given = f" (is {shown})" if plain else ""
    if kind == "string_pattern_mismatch":
        topic = "must be words with / between them, without spaces, # and +, not beginning with / or $"
        message = "must be 1 to 48 of A-Z a-z 0-9 _ -" if path.rpartition(".")[2] != "prefix" else topic
    return f"{path}: {message}{given}"


def _cross_checks(config: Config) -> list[str]:
    """What no single key can know: references and duplicates."""
    problems: list[str] = []
    sources = {s.name: s for s in config.sources}
    if len(sources) != len(config.sources):
        problems.append("sources: two sources share a name; names must be unique")
    if config.window.hop_s > config.window.length_s:
        problems.append(
            f"window.hop_s: {config.window.hop_s} is longer than window.length_s {config.window.length_s}; "
            "samples between two windows would never be looked at"
        )
    seen_ids: set[str] = set()
    bound: dict[tuple[str, str, int], str] = {}
    for m, machine in enumerate(config.machines):
        at = f"machines[{m}]"
        if machine.id in RESERVED_IDS:
            problems.append(f"{at}.id: {machine.id!r} is reserved (it is a topic of the agent itself)")
        if machine.id in seen_ids:
            problems.append(f"{at}.id: {machine.id!r} is used twice")
        seen_ids.add(machine.id)
        ids = [c.id for c in machine.channels]
        problems += [f"{at}.channels[{i}].id: {c!r} is used twice" for i, c in enumerate(ids) if c in ids[:i]]
        problems += _rotation_problems(at, machine)
        for c, channel in enumerate(machine.channels):
            where = f"{at}.channels[{c}]"
            problems += _channel_problems(where, channel, sources)
            topic = expand(channel.topic, machine.id, channel.id)
            slot = (channel.source, topic, channel.index)
            by_name = channel.format == "json"  # json names its channels, so several may share a topic and an index
            if slot in bound and not by_name:
                problems.append(
                    f"{where}.topic: {topic!r} index {channel.index} of source {channel.source!r} is already bound to "
                    f"{bound[slot]}; give the interleaved channels of one topic each its own index"
                )
            bound.setdefault(slot, f"{machine.id}/{channel.id}")
    return problems + _tag_problems(config, {(source, topic) for source, topic, _ in bound})


def _tag_problems(config: Config, bound: set[tuple[str, str]]) -> list[str]:
    problems: list[str] = []
    for m, machine in enumerate(config.machines):
        if machine.mode is not None:
            source = machine.mode.source or machine.channels[0].source
            topic = expand(machine.mode.topic or "", machine.id, "")
            problems += mode_problems(
                f"machines[{m}].mode",
                machine.mode,
                channels=[c.id for c in machine.channels],
                sources={s.name: s.type for s in config.sources},
                source=source,
                bound=machine.mode.topic is not None and (source, topic) in bound,
            )
    return problems


def _rotation_problems(at: str, machine: MachineConfig) -> list[str]:
    """What is wrong between the shaft's speed, the bearings and the channels."""
    problems: list[str] = []
    channels = {c.id: c for c in machine.channels}
    known = ", ".join(channels)
    if machine.speed_channel is not None:
        where, speed = f"{at}.speed_channel", channels.get(machine.speed_channel)
        if machine.shaft_hz is not None:
            problems.append(f"{where}: shaft_hz gives the speed already; name one of the two")
        elif speed is None:
            problems.append(f"{where}: {machine.speed_channel!r} is not a channel of this machine ({known})")
        elif speed.unit not in SPEED_UNITS:
            problems.append(f"{where}: the unit of {speed.id!r} is {speed.unit!r}; it must be {', '.join(SPEED_UNITS)}")
    if machine.bearings and machine.shaft_hz is None and machine.speed_channel is None:
        problems.append(f"{at}.bearings: their frequencies follow from the speed; give shaft_hz or speed_channel")
    ids = [b.id for b in machine.bearings]
    for i, bearing in enumerate(machine.bearings):
        where = f"{at}.bearings[{i}]"
        if bearing.id in ids[:i]:
            problems.append(f"{where}.id: {bearing.id!r} is used twice")
        if bearing.ball_mm >= bearing.pitch_mm:
            problems.append(
                f"{where}.ball_mm: {bearing.ball_mm:g} does not fit pitch_mm {bearing.pitch_mm:g}, the diameter of the "
                "circle that the balls' centres run on"
            )
        problems += [
            f"{where}.channels: {c!r} is not a channel of this machine ({known})"
            for c in dict.fromkeys(bearing.channels)
            if c not in channels
        ]
        if not bearing.channels and not any(c.kind == "vibration" and not c.slow for c in machine.channels):
            problems.append(f"{where}.channels: the machine has no vibration channel; name those that feel the bearing")
    return problems


def _channel_problems(where: str, channel: ChannelConfig, sources: dict[str, MqttSource | ZmqSource]) -> list[str]:
    problems: list[str] = []
    if channel.source not in sources:
        known = ", ".join(sources) or "none are configured"
        problems.append(f"{where}.source: {channel.source!r} is not the name of a source ({known})")
        return problems
    source = sources[channel.source]
    if source.type == "mqtt":
        if not channel.topic:
            problems.append(f"{where}.topic: is required for an mqtt source")
        if "#" in channel.topic or "+" in channel.topic:
            problems.append(
                f"{where}.topic: {channel.topic!r} holds a wildcard; use an exact topic, {{machine}} or {{channel}}"
            )
        if source.qos == 1 and not channel.stamped:
            problems.append(
                f"{where}.format: {channel.format} on the arrival clock needs qos = 0 of source {source.name!r}"
            )
    if len(channel.topic.encode()) > MAX_TOPIC_BYTES:
        problems.append(f"{where}.topic: it is longer than {MAX_TOPIC_BYTES} bytes")
    braces = re.findall(r"\{[^}]*\}?", channel.topic)
    problems += [
        f"{where}.topic: {b} is not known; a pattern may hold {{machine}} and {{channel}}"
        for b in braces
        if b not in ("{machine}", "{channel}")
    ]
    if channel.snapshot and channel.stale_s is not None and channel.period_s and channel.stale_s < channel.period_s:
        problems.append(
            f"{where}.stale_s: {channel.stale_s:g} is shorter than period_s; the channel would always be stale"
        )
    return problems
