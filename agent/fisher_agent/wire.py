"""Payloads <-> frames of samples, sans-I/O: what a source decodes by, and what a simulator encodes with.

The formats are those of the agent's contract, section 1. All channels of one message have one time. A stated rate that
differs from the configured one is no error here: the frame carries it, and the window cutter decides.
"""

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fisher_agent.clock import ArrivalClock
from fisher_agent.config import ChannelConfig, Config, Format, expand
from fisher_agent.errors import BadPayload, ConfigError
from fisher_agent.jsontext import shown
from fisher_agent.stages import Floats, Frame
from fisher_agent.tags import TagBinding, read_tag, tag_bindings

MAX_PAYLOAD_BYTES = 64 * 1024 * 1024
MAX_JSON_BYTES = 8 * 1024 * 1024  # parsing takes 25 to 80 ms per MB, on the event loop
MAX_JSON_PARTS = 4096  # lists, objects and keys: a few a channel are right, and millions of them cost most
STATED_RATES_HZ = (1e-6, 1e7)  # a sample in eleven days; slower ones would overflow the time of their end
MAX_T_NS = 9_000_000_000_000_000_000  # the year 2255; leaves room below 2**63 for the end of a block
MAX_SEQ = 2**32 - 1
T_UNITS = ((1e11, 10**9), (1e14, 10**6), (1e17, 10**3))  # below this a `t` counts units of so many ns; else ns

HEADER = struct.Struct("<4sBBHqdII")  # fisher-frame/1: magic, dtype, channels, flags, t_ns, rate_hz, seq, samples
MAGIC = b"FSH1"
FRAME_DTYPES: dict[int, np.dtype[Any]] = {
    1: np.dtype("<f4"),
    2: np.dtype("<i2"),
    3: np.dtype("<i4"),
    4: np.dtype("<f8"),
}
BARE_DTYPES: dict[str, np.dtype[Any]] = {
    "f32le": np.dtype("<f4"),
    "f64le": np.dtype("<f8"),
    "i16le": np.dtype("<i2"),
    "i24le": np.dtype("V3"),
    "i32le": np.dtype("<i4"),
}


class Reason(StrEnum):
    """Why a payload was dropped; the bounded list that counters are keyed by."""

    UNKNOWN_TOPIC = "unknown-topic"
    TOO_BIG = "too-big"
    EMPTY = "empty"
    LENGTH = "length"  # not a whole number of samples, or not what the header says
    NOT_FINITE = "not-finite"
    NOT_JSON = "not-json"
    MISSING = "missing"  # JSON without samples for any channel that is bound
    TYPE = "type"  # JSON whose value is not of the type it must be
    HEADER = "header"  # not a fisher-frame/1
    CHANNELS = "channels"  # carries another number of channels than is configured
    RATE = "rate"
    TIME = "time"
    SEQ = "seq"


@dataclass(frozen=True, slots=True)
class Bound:
    """One channel at its place in the messages of a topic."""

    machine: str
    config: ChannelConfig


@dataclass(frozen=True, slots=True)
class Binding:
    """What the messages of one topic carry."""

    label: str  # machine/channel of a topic with one channel, else the topic
    format: Format
    width: int  # interleaved channels; of fisher-frame/1, 0 leaves it to the header
    stamped: bool
    channels: tuple[Bound, ...]
    clocks: dict[int, ArrivalClock] = field(default_factory=dict)  # by the first channel present in a message


@dataclass(slots=True)  # not frozen: made for every message, and that costs three times as much
class _Message:
    """A message taken apart: raw samples per bound channel and what the sender says of them."""

    samples: Mapping[int, NDArray[Any]]  # position in Binding.channels -> (n,) of any real type
    t_ns: int | None = None
    rate_hz: float | None = None
    seq: int | None = None


class Decoder:
    """Bytes of one source's topics -> frames. It keeps the arrival clocks, so one connection has one decoder."""

    def __init__(
        self, source: str, bindings: Mapping[str, Binding], tags: Mapping[str, tuple[TagBinding, ...]] | None = None
    ) -> None:
        self.source = source
        self.bindings = bindings
        self.tags = tags or {}

    @property
    def topics(self) -> tuple[str, ...]:
        """The exact topics to subscribe to; "" is a ZeroMQ socket that carries one channel."""
        return (*self.bindings, *self.tags)

    def label(self, topic: str) -> str:
        """What to count a bad message of this topic under; bounded, whatever topics arrive."""
        if topic in self.tags:
            return topic
        binding = self.bindings.get(topic)
        return binding.label if binding else self.source

    def restart(self) -> None:
        """The link was away: samples without a time of their own begin anew, with a gap."""
        for binding in self.bindings.values():
            for clock in binding.clocks.values():
                clock.restart()

    def adopt(self, before: "Decoder") -> None:
        """Go on with the arrival clocks of bindings that did not change, so that a reload makes no gap in them."""
        for topic, binding in self.bindings.items():
            older = before.bindings.get(topic)
            if older is not None and replace(older, clocks=binding.clocks) == binding:
                binding.clocks.update(older.clocks)

    def decode(self, topic: str, payload: bytes | memoryview, *, mono_ns: int, utc_ns: int) -> list[Frame]:
        """The frames in one message, one per bound channel in it; BadPayload (see `Reason`) drops the message.

        `mono_ns` and `utc_ns` are the two clocks at its arrival. Samples may be a read-only view of `payload`.
        """
        if topic in self.tags:
            return [*read_tag(payload, self.tags[topic], utc_ns=utc_ns, t_ns_of=_t_ns)]
        binding = self.bindings.get(topic)
        if binding is None:
            raise BadPayload(Reason.UNKNOWN_TOPIC, f"nothing is bound to {topic!r} of source {self.source!r}")
        if len(payload) > MAX_PAYLOAD_BYTES:
            raise BadPayload(Reason.TOO_BIG, f"{len(payload)} bytes; at most {MAX_PAYLOAD_BYTES} are taken")
        if binding.format == "json":
            message = _from_json(payload, binding)
        elif binding.format == "fisher-frame/1":
            message = _from_frame(payload, binding)
        else:
            message = _Message(_deinterleave(_raw(payload, BARE_DTYPES[binding.format]), binding.width, binding))
        physical = {p: scaled(raw, binding.channels[p].config.scale) for p, raw in message.samples.items()}
        t_ns, gap = message.t_ns, False
        if t_ns is None or not binding.stamped:
            t_ns, gap = _arrived(binding, message, mono_ns=mono_ns, utc_ns=utc_ns)
        return [
            Frame(
                binding.channels[p].machine,
                binding.channels[p].config.id,
                t_ns,
                message.rate_hz or binding.channels[p].config.rate_hz,
                samples,
                message.seq,
                gap,
            )
            for p, samples in physical.items()
        ]


def decoder_for(config: Config, source_name: str) -> Decoder:
    """Bind the channels that name this source. ConfigError where channels of one topic contradict each other."""
    topics: dict[str, list[Bound]] = {}
    for machine in config.machines:
        for channel in machine.channels:
            if channel.source == source_name:
                topic = expand(channel.topic, machine.id, channel.id)
                topics.setdefault(topic, []).append(Bound(machine.id, channel))
    problems = [p for topic, bound in topics.items() if (p := _contradiction(topic, bound)) is not None]
    if problems:
        raise ConfigError(problems)
    bindings = {topic: _bind(topic, bound) for topic, bound in topics.items()}
    return Decoder(source_name, bindings, tag_bindings(config, source_name))


def _contradiction(topic: str, bound: list[Bound]) -> str | None:
    first = bound[0].config
    names = ", ".join(f"{b.machine}/{b.config.id}" for b in bound)
    where = f"topic {topic!r} of source {first.source!r} ({names})"
    if len({b.config.format for b in bound}) > 1:
        return f"{where}: channels of one topic must have the same format"
    if len({b.config.stamped for b in bound}) > 1:
        return f"{where}: channels of one topic must have the same clock"
    if first.format == "json":
        return None
    if len({b.config.rate_hz for b in bound}) > 1:
        return f"{where}: interleaved channels must have the same rate_hz"
    if len({b.config.interleaved for b in bound} - {None}) > 1:
        return f"{where}: the channels disagree on how many are interleaved"
    width = _width(bound)
    highest = max(b.config.index for b in bound)
    if width and highest >= width:
        return f"{where}: index {highest} does not fit {width} interleaved channels (counted from 0); set `interleaved`"
    return None


def _width(bound: list[Bound]) -> int:
    stated = [b.config.interleaved for b in bound if b.config.interleaved is not None]
    return stated[0] if stated else 0 if bound[0].config.format == "fisher-frame/1" else len(bound)


def _bind(topic: str, bound: list[Bound]) -> Binding:
    first = bound[0]
    label = f"{first.machine}/{first.config.id}" if len(bound) == 1 else topic or first.config.source
    return Binding(label, first.config.format, _width(bound), first.config.stamped, tuple(bound))


def _arrived(binding: Binding, message: _Message, *, mono_ns: int, utc_ns: int) -> tuple[int, bool]:
    leader = next(iter(message.samples))
    rate_hz = message.rate_hz or binding.channels[leader].config.rate_hz
    clock = binding.clocks.get(leader)
    if clock is None or clock.rate_hz != rate_hz:
        clock = binding.clocks[leader] = ArrivalClock(rate_hz)
    return clock.stamp(len(message.samples[leader]), mono_ns=mono_ns, utc_ns=utc_ns)


def _raw(payload: bytes | memoryview, dtype: np.dtype[Any]) -> NDArray[Any]:
    if not payload:
        raise BadPayload(Reason.EMPTY, "no samples")
    if len(payload) % dtype.itemsize:
        raise BadPayload(Reason.LENGTH, f"{len(payload)} bytes are no whole number of {dtype.itemsize}-byte samples")
    if dtype.kind == "V":  # 24 bits: each into the upper bytes of an int32, then shifted down with its sign
        wide = np.zeros((len(payload) // 3, 4), dtype=np.uint8)
        wide[:, 1:] = np.frombuffer(payload, dtype=np.uint8).reshape(-1, 3)
        return wide.view("<i4")[:, 0] >> 8
    return np.frombuffer(payload, dtype=dtype)


def _deinterleave(raw: NDArray[Any], width: int, binding: Binding) -> dict[int, NDArray[Any]]:
    if len(raw) % width:
        raise BadPayload(Reason.LENGTH, f"{len(raw)} samples are no whole number of {width} interleaved channels")
    if width == 1:
        return {0: raw}
    table = raw.reshape(-1, width)  # (n, c)
    return {p: table[:, bound.config.index] for p, bound in enumerate(binding.channels)}


def scaled(raw: NDArray[Any], scale: float) -> Floats:
    """float32, contiguous, read-only, finite, or BadPayload; no copy where the payload is that already."""
    floating = raw.dtype.kind == "f"
    if floating and not np.isfinite(raw).all():
        raise BadPayload(Reason.NOT_FINITE, "a sample is NaN or infinite")
    samples: Floats
    if raw.dtype == np.float32 and scale == 1.0:
        samples = raw if raw.flags.c_contiguous and not raw.flags.writeable else raw.copy()
    elif abs(scale) <= 1.0 and raw.dtype != np.float64:
        precise = np.float64 if raw.dtype.itemsize == 4 and not floating else np.float32
        samples = np.multiply(raw, scale, dtype=precise).astype(np.float32, copy=False)
    else:
        with np.errstate(over="ignore"):
            samples = np.multiply(raw, scale, dtype=np.float64).astype(np.float32)
        if not np.isfinite(samples).all():
            raise BadPayload(Reason.NOT_FINITE, "a scaled sample is beyond float32")
    samples.flags.writeable = False
    return samples


def _from_frame(payload: bytes | memoryview, binding: Binding) -> _Message:
    if len(payload) < HEADER.size:
        raise BadPayload(Reason.HEADER, f"{len(payload)} bytes are shorter than the {HEADER.size}-byte header")
    magic, code, width, flags, t_ns, rate_hz, seq, count = HEADER.unpack_from(payload)
    dtype = FRAME_DTYPES.get(code)
    if magic != MAGIC or dtype is None or flags != 0:
        raise BadPayload(Reason.HEADER, f"magic {magic!r}, dtype {code}, flags {flags} is no fisher-frame/1")
    highest = max(b.config.index for b in binding.channels)
    if width <= highest or (binding.width and width != binding.width):
        wanted = binding.width or f"more than {highest}"
        raise BadPayload(Reason.CHANNELS, f"{width} channels; {wanted} are configured")
    if len(payload) - HEADER.size != width * count * dtype.itemsize:
        raise BadPayload(Reason.LENGTH, f"{len(payload)} bytes; the header says {width} x {count} {dtype} samples")
    raw = _raw(memoryview(payload)[HEADER.size :], dtype)
    return _Message(_deinterleave(raw, width, binding), _checked_t_ns(t_ns), _checked_rate(rate_hz), seq)


def _from_json(payload: bytes | memoryview, binding: Binding) -> _Message:
    if len(payload) > MAX_JSON_BYTES:
        raise BadPayload(Reason.TOO_BIG, f"{len(payload)} bytes of JSON; at most {MAX_JSON_BYTES} are taken")
    body = bytes(payload)
    if (parts := sum(map(body.count, (b"[", b"{", b":")))) > MAX_JSON_PARTS:
        raise BadPayload(Reason.NOT_JSON, f"{parts} lists, objects and keys; a message has a few for each channel")
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadPayload(Reason.NOT_JSON, str(error)[:200]) from error
    if not isinstance(document, dict):
        raise BadPayload(Reason.TYPE, f"a JSON {type(document).__name__}; an object is expected")
    samples: dict[int, NDArray[Any]]
    channels = document.get("channels")
    if isinstance(channels, dict):
        named = {p: channels[b.config.id] for p, b in enumerate(binding.channels) if b.config.id in channels}
        samples = {p: _json_samples(values) for p, values in named.items()}
    elif "samples" in document and len(binding.channels) == 1:
        samples = {0: _json_samples(document["samples"])}
    else:
        samples = {}
    if not samples:
        wanted = ", ".join(b.config.id for b in binding.channels)
        raise BadPayload(Reason.MISSING, f"neither `samples` of one channel nor `channels` with any of: {wanted}")
    if len({len(values) for values in samples.values()}) > 1:
        raise BadPayload(Reason.LENGTH, "the channels of one message differ in length")
    t, rate_hz, seq = document.get("t"), document.get("rate"), document.get("seq")
    return _Message(
        samples,
        None if t is None else _t_ns(t),
        None if rate_hz is None else _checked_rate(rate_hz),
        None if seq is None else _checked_seq(seq),
    )


def _json_samples(values: object) -> NDArray[Any]:
    if not isinstance(values, list) or not set(map(type, values)) <= {int, float}:
        raise BadPayload(Reason.TYPE, "samples must be a list of numbers")
    if not values:
        raise BadPayload(Reason.EMPTY, "no samples")
    try:
        return np.array(values, dtype=np.float64)
    except OverflowError as error:
        raise BadPayload(Reason.NOT_FINITE, "a sample is beyond float64") from error


def _t_ns(t: object) -> int:
    """The time of a JSON message; its size tells its unit."""
    # Its size is looked at first: a float may overflow when it is scaled, an int be too long to be shown afterwards.
    if isinstance(t, bool) or not isinstance(t, int | float) or not 0 <= t <= MAX_T_NS:
        raise BadPayload(Reason.TIME, f"t is {shown(t)}, no time between 1970 and 2255")
    unit = next((ns for below, ns in T_UNITS if t < below), 1)
    return _checked_t_ns(round(t * unit))


def _checked_t_ns(t_ns: int) -> int:
    if not 0 <= t_ns <= MAX_T_NS:
        raise BadPayload(Reason.TIME, f"{t_ns} ns is not between 1970 and 2255")
    return t_ns


def _checked_rate(rate_hz: object) -> float:
    low_hz, high_hz = STATED_RATES_HZ
    if isinstance(rate_hz, int | float) and not isinstance(rate_hz, bool) and low_hz <= rate_hz <= high_hz:
        return float(rate_hz)
    raise BadPayload(Reason.RATE, f"rate is {shown(rate_hz)}; it must be {low_hz:g} to {high_hz:g} Hz")


def _checked_seq(seq: object) -> int:
    if isinstance(seq, int) and not isinstance(seq, bool) and 0 <= seq <= MAX_SEQ:
        return seq
    raise BadPayload(Reason.SEQ, f"seq is {shown(seq)}; it must be a u32")


def encode(
    payload_format: Format,
    samples: NDArray[Any],
    *,
    t_ns: int | None = None,
    rate_hz: float | None = None,
    seq: int | None = None,
    channels: Sequence[str] | None = None,
    frame_dtype: int = 1,
) -> bytes:
    """One message of raw samples (n,) or interleaved (c, n), as a sensor sends it; integers are rounded and clipped.

    JSON leaves out what is None and names its channels where `channels` does. fisher-frame/1 needs t_ns and rate_hz,
    counts from seq 0, and has the dtype of that code (1 f32, 2 i16, 3 i32, 4 f64).
    """
    table = np.atleast_2d(samples)  # (c, n)
    if payload_format == "json":
        document: dict[str, Any] = {"t": t_ns, "rate": rate_hz, "seq": seq}
        document = {k: v for k, v in document.items() if v is not None}
        if channels is None:
            document["samples"] = table[0].tolist()
        else:
            document["channels"] = {c: row.tolist() for c, row in zip(channels, table, strict=True)}
        return json.dumps(document, separators=(",", ":")).encode()
    if payload_format == "fisher-frame/1":
        if t_ns is None or rate_hz is None:
            raise ValueError("fisher-frame/1 carries a time and a rate; give t_ns and rate_hz")
        header = HEADER.pack(MAGIC, frame_dtype, table.shape[0], 0, t_ns, rate_hz, seq or 0, table.shape[1])
        return header + _packed(table, FRAME_DTYPES[frame_dtype])
    return _packed(table, BARE_DTYPES[payload_format])


def _packed(table: NDArray[Any], dtype: np.dtype[Any]) -> bytes:
    interleaved = table.T.ravel()
    if dtype.kind == "f":
        return interleaved.astype(dtype).tobytes()
    top = 2 ** (8 * dtype.itemsize - 1)
    whole = np.clip(np.rint(interleaved.astype(np.float64)), -top, top - 1).astype("<i4")
    if dtype.itemsize == 3:
        return whole.view(np.uint8).reshape(-1, 4)[:, :3].tobytes()
    return whole.astype(dtype).tobytes()
