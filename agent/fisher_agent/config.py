"""The configuration's shape: frozen pydantic models; what is wrong with a single key or section shows here.

Secrets are never keys; keys that end in `_file` name a file that holds one. `configfile` reads and cross-checks.
"""

import re
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from fisher_agent.alarmconfig import AlarmConfig, BearingConfig
from fisher_agent.configtypes import Id, Positive, Strict
from fisher_agent.errors import ConfigError
from fisher_agent.modeconfig import ModeConfig
from fisher_agent.pageconfig import CaptureConfig, PageConfig
from fisher_models.minisign import PUBLIC_KEY

STAMPED_FORMATS = frozenset({"json", "fisher-frame/1"})
MAX_WINDOW_S = 10.255  # FISHER's 1024 frames of 25 ms every 10 ms
MIN_RATE_HZ = 1 / 3600
SEEN_FROM_HZ = 1000.0  # the models see nothing of slower channels: those are judged by indicators alone
VALUES_BELOW_HZ = 20.0  # no waveform of a machine is sampled as slowly
SPARSE_BELOW = 64  # samples in a window: too few for a spectrum
SPARSE_S = 20.0  # of a sparse channel, the last samples that are looked at together
SPEED_UNITS = {"Hz": 1.0, "rpm": 1 / 60, "1/min": 1 / 60}  # of a speed channel, as turns per second
HELD_PERIODS = 3  # a snapshot, or a sparse channel's value, counts for so long
MAX_RATE_HZ = 200_000.0

Format = Literal["f32le", "f64le", "i16le", "i24le", "i32le", "json", "fisher-frame/1"]
Kind = Literal["vibration", "current", "sound", "voltage", "process", "other"]
Verb = Literal[
    "ack", "shelve", "unshelve", "suppress", "unsuppress", "out-of-service", "in-service", "mode", "enroll-start",
    "enroll-stop", "maintenance", "capture",
]  # fmt: skip
JudgeBy = Literal["indicators", "both", "embedding"]


class ModelConfig(Strict):
    """Which bundle embeds, on what."""

    bundle: str = "fisher-tiny"
    digest: str | None = None  # of the one bundle that may be used, see deploy/docs/security.md
    signed_by: str | None = None  # minisign's public key, of whoever must have signed the bundle
    backend: Literal["auto", "tensorrt", "openvino", "torch"] = "auto"
    precision: Literal["auto", "f32", "bf16", "f16", "int8"] = "auto"
    threads: Annotated[int, Field(ge=1, le=1024)] | None = None  # cores of a CPU backend; None: all
    judge_by: JudgeBy = "indicators"  # what measured best; see agent/DECISIONS.md, 45

    @field_validator("digest")
    @classmethod
    def _digest(cls, digest: str | None) -> str | None:
        if digest is not None and not re.fullmatch(r"b[0-9a-f]{64}", digest):
            raise ValueError("must be a bundle's digest: b and 64 of 0-9 a-f, as `status --json` says for model")
        return digest

    @field_validator("signed_by")
    @classmethod
    def _signed_by(cls, key: str | None) -> str | None:
        if key is not None and not PUBLIC_KEY.fullmatch(key):
            raise ValueError("must be minisign's public key itself: the 56 characters of the .pub file's second line")
        return key


class WindowConfig(Strict):
    """The event-time grid."""

    length_s: Annotated[float, Field(ge=0.175, le=MAX_WINDOW_S)] = 5.0
    hop_s: Annotated[float, Field(ge=0.05, le=3600)] = 2.5
    lateness_s: Annotated[float, Field(ge=0, le=60)] = 1.0

    def sparse(self, channel: "ChannelConfig") -> bool:
        """Whether a stream holds so few samples in a window that its last ones are looked at instead."""
        return channel.slow and not channel.snapshot and channel.rate_hz * self.length_s < SPARSE_BELOW

    def held(self, channel: "ChannelConfig") -> bool:
        """Whether a window of the channel joins the next grid time and keeps its value until it is stale."""
        return channel.snapshot or self.sparse(channel)

    def kept_samples(self, channel: "ChannelConfig") -> int:
        """How many of its last samples make a window of a sparse channel."""
        return max(1, round(max(self.length_s, SPARSE_S) * channel.rate_hz))

    def memory_s(self, channel: "ChannelConfig") -> float:
        """How far back a verdict looks on a channel: what two of them share, neither decides alone."""
        if self.sparse(channel):
            return self.kept_samples(channel) / channel.rate_hz
        return self.length_s if channel.period_s is None else channel.period_s

    def hold_ns(self, channel: "ChannelConfig") -> int:
        """For how long, in event time, the last window of a channel that is held stays part of the verdicts."""
        period_s = channel.period_s or (max(1 / channel.rate_hz, self.hop_s) if self.sparse(channel) else 0.0)
        return round(HELD_PERIODS * period_s * 1e9)


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

    prefix: Annotated[str, Field(pattern=r"^[^#+/\s$][^#+\s]*[^#+/\s]$", max_length=1024)] = "fisher/v1"
    commands: tuple[Verb, ...] = ("ack", "shelve", "unshelve")
    command_key_file: Path | None = None  # with it only signed commands are obeyed


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
    prove_every_s: Annotated[float, Field(ge=0, le=86400)] = 3600.0  # a point is read back; 0: never

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
    client_keys_file: Path | None = None  # of a CURVE server: the public keys that are let in, a line each

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
    rate_hz: Annotated[float, Field(ge=MIN_RATE_HZ, le=MAX_RATE_HZ, allow_inf_nan=False)]
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
    def slow(self) -> bool:
        """Whether the models see nothing of it."""
        return self.rate_hz < SEEN_FROM_HZ

    @property
    def valued(self) -> bool:
        """Whether its mean says something: a temperature's or a flow's does, and what is sent a few times a second is
        a value even where it is called a current; the mean of a waveform is its sensor's affair."""
        return self.slow and (self.kind in ("process", "other") or self.rate_hz < VALUES_BELOW_HZ)

    @property
    def snapshot(self) -> bool:
        """Whether each block is a window of its own."""
        return self.capture == "snapshot"


class MachineConfig(Strict):
    """A machine: its channels are judged together."""

    id: Id
    running_ratio: Annotated[float, Field(ge=0, lt=1)] = 0.3
    settle_s: Annotated[float, Field(ge=0, le=86_400)] = 0.0  # not judged for so long after a start or a change of mode
    channels: Annotated[tuple[ChannelConfig, ...], Field(min_length=1)]
    alarm: AlarmConfig = AlarmConfig()
    shaft_hz: Positive | None = None  # turns per second
    speed_channel: Id | None = None  # the channel that measures it instead
    speed_tolerance: Annotated[float, Field(ge=0, le=0.1)] = 0.02  # relative, of the speed and of bearings' slip
    bearings: tuple[BearingConfig, ...] = ()
    mode: ModeConfig | None = None  # None: one mode, or those that `enroll --mode` was given

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
    keep_versions: Annotated[int, Field(ge=2, le=1000)] = 10  # of a machine's bank; the oldest go
    coreset: Annotated[float, Field(gt=0, le=1)] = 1.0  # share of the windows that those kept stand for; 1: keep all


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
    capture: CaptureConfig = CaptureConfig()
    page: PageConfig = PageConfig()
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
            return HELD_PERIODS * channel.period_s
        return max(10.0, 2 * self.window.length_s, HELD_PERIODS / channel.rate_hz)


def expand(topic: str, machine: str, channel: str) -> str:
    """Fill {machine} and {channel} into a topic pattern."""
    return topic.replace("{machine}", machine).replace("{channel}", channel)
