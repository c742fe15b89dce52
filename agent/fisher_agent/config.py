"""The configuration: frozen pydantic models read from TOML, checked all at once.

`load` reports every mistake with its key's path, as in
`machines[2].channels[0].rate_hz: 800 is below 1000; the model sees nothing there`.
Secrets are never keys; keys that end in `_file` name a file that holds one.
"""

import os
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from fisher_agent.errors import ConfigError

DEFAULT_PATH = Path("/etc/fisher-agent/config.toml")
RESERVED_IDS = frozenset({"status", "alive", "health", "alarms"})
STAMPED_FORMATS = frozenset({"json", "fisher-frame/1"})
MAX_WINDOW_S = 10.255  # FISHER's 1024 frames of 25 ms every 10 ms
MIN_RATE_HZ = 1000.0
MAX_RATE_HZ = 200_000.0
STAND_INS = {"site": "-", "edge": "-", "id": "-", "rate_hz": MIN_RATE_HZ}  # to find mistakes beside a missing one

Format = Literal["f32le", "f64le", "i16le", "i24le", "i32le", "json", "fisher-frame/1"]
Kind = Literal["vibration", "current", "sound", "voltage", "process", "other"]
Verb = Literal[
    "ack", "shelve", "unshelve", "suppress", "unsuppress", "out-of-service", "in-service", "mode", "enroll-start",
    "enroll-stop", "maintenance", "capture",
]  # fmt: skip
Id = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,48}$")]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Strict(BaseModel):
    """Unknown keys are errors, values never change, and a string is not a number."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)


class ModelConfig(Strict):
    """Which bundle embeds, on what."""

    bundle: str = "fisher-tiny"
    backend: Literal["auto", "tensorrt", "openvino", "torch"] = "auto"
    precision: Literal["auto", "f32", "bf16", "f16", "int8"] = "auto"


class WindowConfig(Strict):
    """The event-time grid."""

    length_s: Annotated[float, Field(ge=0.175, le=MAX_WINDOW_S)] = 5.0
    hop_s: Annotated[float, Field(ge=0.05, le=3600)] = 2.5
    lateness_s: Annotated[float, Field(ge=0, le=60)] = 1.0


def _checked_url(url: str, schemes: tuple[str, ...]) -> str:
    parts = urlsplit(url)
    if parts.username or parts.password:
        raise ValueError("a user or password does not belong in a url; use username and password_file")
    if parts.scheme not in schemes:
        raise ValueError(f"{url!r} must start with one of {', '.join(s + '://' for s in schemes)}")
    if not parts.hostname and parts.scheme != "ipc":
        raise ValueError(f"{url!r} names no host")
    try:
        port = parts.port
    except ValueError as error:
        raise ValueError(f"{url!r}: {error}") from error
    if parts.scheme == "tcp" and port is None:
        raise ValueError(f"{url!r} names no port")
    return url


class MqttLink(Strict):
    """How to reach an MQTT broker; shared by the plant's broker and by sources."""

    url: str = "mqtt://127.0.0.1:1883"
    version: Literal["auto", "5", "3.1.1"] = "auto"
    username: str | None = None
    password_file: Path | None = None
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    keepalive_s: Annotated[int, Field(ge=2, le=15)] = 15

    @field_validator("url")
    @classmethod
    def _url(cls, url: str) -> str:
        return _checked_url(url, ("mqtt", "mqtts"))

    @property
    def tls(self) -> bool:
        """Whether the link is encrypted; then the broker's certificate is verified."""
        return self.url.startswith("mqtts://")

    @property
    def host(self) -> str:
        """Host name or address of the broker."""
        return urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        """Port of the broker: 1883, or 8883 with TLS, unless the url names one."""
        return urlsplit(self.url).port or (8883 if self.tls else 1883)


class MqttConfig(MqttLink):
    """The plant's broker: alarms, state, commands."""

    prefix: Annotated[str, Field(pattern=r"^[^#+/\s$][^#+\s]*[^#+/\s]$")] = "fisher/v1"
    commands: tuple[Verb, ...] = ("ack", "shelve", "unshelve")


class InfluxConfig(Strict):
    """The time-series database."""

    url: str = "http://127.0.0.1:8086"
    api: Literal["auto", "v2", "v1"] = "auto"
    org: str = ""
    bucket: Annotated[str, Field(min_length=1)] = "condition"
    username: str | None = None
    password_file: Path | None = None
    token_file: Path | None = None
    ca_file: Path | None = None
    timeout_s: Annotated[float, Field(ge=0.5, le=120)] = 10.0

    @field_validator("url")
    @classmethod
    def _url(cls, url: str) -> str:
        return _checked_url(url, ("http", "https"))


class MqttSource(MqttLink):
    """Raw samples over MQTT."""

    name: Id
    type: Literal["mqtt"]
    qos: Literal[0, 1] = 0  # 1 is a persistent session, allowed for stamped formats only


class ZmqSource(Strict):
    """Raw samples over ZeroMQ."""

    name: Id
    type: Literal["zmq"]
    url: str
    socket: Literal["sub", "pull"] = "sub"
    bind: bool = False
    server_key_file: Path | None = None  # CURVE: the public key of the other side, Z85
    public_key_file: Path | None = None
    secret_key_file: Path | None = None

    @field_validator("url")
    @classmethod
    def _url(cls, url: str) -> str:
        return _checked_url(url, ("tcp", "ipc"))


SourceConfig = Annotated[MqttSource | ZmqSource, Field(discriminator="type")]


class ChannelConfig(Strict):
    """One sensor channel of a machine."""

    id: Id
    kind: Kind = "other"
    unit: str = ""
    scale: Annotated[float, Field(allow_inf_nan=False)] = 1.0
    rate_hz: Annotated[float, Field(gt=0, le=MAX_RATE_HZ, allow_inf_nan=False)]
    source: str = ""
    topic: str = ""  # exact; {machine} and {channel} are filled in; "" on a ZeroMQ socket that carries one channel
    format: Format = "f32le"
    index: Annotated[int, Field(ge=0, le=254)] = 0  # which of the interleaved channels of the topic
    interleaved: Annotated[int, Field(ge=1, le=255)] | None = None  # how many there are; default: as many as are bound
    clock: Literal["sensor", "arrival"] | None = None  # default: sensor for stamped formats, arrival for bare ones
    capture: Literal["stream", "snapshot"] = "stream"
    period_s: Positive | None = None  # of a snapshot channel
    stale_s: Positive | None = None  # silence after which the channel is stale
    running_rms: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0  # below this the machine does not run

    @field_validator("scale")
    @classmethod
    def _scale(cls, scale: float) -> float:
        if scale == 0:
            raise ValueError("0 would turn every sample into 0")
        return scale

    @model_validator(mode="after")
    def _combination(self) -> Self:
        if self.clock == "sensor" and self.format not in STAMPED_FORMATS:
            raise ValueError(
                f"clock = 'sensor' needs a stamped format (json, fisher-frame/1); {self.format} has no time"
            )
        if self.capture == "snapshot" and self.period_s is None:
            raise ValueError("capture = 'snapshot' needs period_s, the seconds between two snapshots")
        if self.capture == "stream" and self.period_s is not None:
            raise ValueError("period_s belongs to capture = 'snapshot'")
        if self.interleaved is not None and self.index >= self.interleaved:
            raise ValueError(f"index {self.index} does not fit interleaved = {self.interleaved} (counted from 0)")
        return self

    @property
    def stamped(self) -> bool:
        """Whether the sender's clock is used."""
        return (self.clock or ("sensor" if self.format in STAMPED_FORMATS else "arrival")) == "sensor"

    @property
    def snapshot(self) -> bool:
        """Whether each block is a window of its own."""
        return self.capture == "snapshot"


class AlarmConfig(Strict):
    """Delays, in windows, and the ratio at which an alarm is severe."""

    on_delay_windows: Annotated[int, Field(ge=1, le=1000)] = 3
    off_delay_windows: Annotated[int, Field(ge=1, le=1000)] = 5
    alarm_ratio: Annotated[float, Field(gt=1, le=100)] = 2.0


class MachineConfig(Strict):
    """A machine: its channels are judged together."""

    id: Id
    running_ratio: Annotated[float, Field(ge=0, lt=1)] = 0.3
    channels: Annotated[tuple[ChannelConfig, ...], Field(min_length=1)]
    alarm: AlarmConfig = AlarmConfig()

    def channel(self, channel_id: str) -> ChannelConfig:
        """The channel of that id; KeyError where there is none."""
        for channel in self.channels:
            if channel.id == channel_id:
                return channel
        raise KeyError(channel_id)


class EnrollConfig(Strict):
    """How much is learnt and kept."""

    duration_s: Annotated[float, Field(ge=1, le=7 * 86400)] = 600.0
    keep_mb: Annotated[float, Field(ge=0, le=100_000)] = 256.0


class OutboxConfig(Strict):
    """What is kept on disk while a server is away."""

    max_mb: Annotated[float, Field(ge=1, le=1_000_000)] = 512.0


class BacklogConfig(Strict):
    """Windows that wait for the model, in memory; beyond it the oldest are dropped and counted."""

    max_mb: Annotated[float, Field(ge=1, le=100_000)] = 64.0


class LogConfig(Strict):
    """What is logged."""

    level: Literal["debug", "info", "warning", "error"] = "info"


class Config(Strict):
    """The whole configuration."""

    site: Id
    edge: Id
    state_dir: Path = Path("/var/lib/fisher-agent")
    control_socket: Path | None = None  # default: /run/fisher-agent/ctl.sock where that folder exists, else state_dir
    model: ModelConfig = ModelConfig()
    window: WindowConfig = WindowConfig()
    mqtt: MqttConfig | None = None
    influx: InfluxConfig | None = None
    sources: tuple[SourceConfig, ...] = ()
    machines: tuple[MachineConfig, ...] = ()
    enroll: EnrollConfig = EnrollConfig()
    outbox: OutboxConfig = OutboxConfig()
    backlog: BacklogConfig = BacklogConfig()
    log: LogConfig = LogConfig()

    def machine(self, machine_id: str) -> MachineConfig:
        """The machine of that id; ConfigError naming those that exist where there is none."""
        for machine in self.machines:
            if machine.id == machine_id:
                return machine
        known = ", ".join(m.id for m in self.machines) or "none"
        raise ConfigError(f"machine {machine_id!r} is not in the configuration; it has: {known}")

    def stale_after_s(self, channel: ChannelConfig) -> float:
        """Seconds of silence after which the channel is stale: three periods of a snapshot, else two windows."""
        if channel.stale_s is not None:
            return channel.stale_s
        if channel.period_s is not None:
            return 3 * channel.period_s
        return max(10.0, 2 * self.window.length_s)


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
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{origin} is not TOML: {error}") from error
    document = _with_defaults(document)
    try:
        config = Config.model_validate(document)
    except ValidationError as error:
        raise ConfigError(_mistakes(document, [dict(e) for e in error.errors()])) from error
    if problems := list(_cross_checks(config)):
        raise ConfigError(problems)
    return config


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


def expand(topic: str, machine: str, channel: str) -> str:
    """Fill {machine} and {channel} into a topic pattern."""
    return topic.replace("{machine}", machine).replace("{channel}", channel)


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
    """What no single key can know: references, duplicates, what the model cannot see."""
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
    return problems


def _channel_problems(where: str, channel: ChannelConfig, sources: dict[str, MqttSource | ZmqSource]) -> list[str]:
    problems: list[str] = []
    if channel.rate_hz < MIN_RATE_HZ:
        problems.append(
            f"{where}.rate_hz: {channel.rate_hz:g} is below {MIN_RATE_HZ:g}; the model sees nothing there, "
            "so such a channel cannot be judged yet"
        )
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
