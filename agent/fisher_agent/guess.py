"""What a sensor really sends, from what was heard of it: measured rate and level, and guesses at a wrong setting. Pure.

A wrong dtype, scale or rate enrols without complaint and costs ten minutes and a wrong bank; it shows in seconds.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from fisher_agent.config import ChannelConfig

WIDTHS = {"f32le": 4, "f64le": 8, "i16le": 2, "i24le": 3, "i32le": 4}
RATE_TOLERANCE = (
    0.02  # 12.0 against 12.5 kHz is the usual mistake; beside what the longest silence between two messages leaves open
)
EXPONENT_SPREAD = 5.0  # std of log2|x|: 1.6 for Gaussian noise, 1.3 for a sine, over 20 for integers read as floats
PLAUSIBLE_LEVEL = {"g": (1e-5, 200.0), "m/s2": (1e-4, 2000.0), "A": (1e-4, 1e5), "V": (1e-4, 1e6), "Pa": (1e-5, 1e4)}
FAR_OFF_MS = 5000.0
OFFSET = 500.0  # times the RMS: an accelerometer that feels gravity and a machine at rest stay under it
RAIL = 3.0  # times as many samples at the largest value as just below it; an unclipped, coarse sine has up to 2.4
MIN_SAMPLES = 64


@dataclass(frozen=True, slots=True)
class Heard:
    """One channel, as it was heard: `arrivals_s` and `payloads` of its topic, decoded `samples` in its unit."""

    channel: ChannelConfig
    bound: int  # channels interleaved on the topic
    arrivals_s: Sequence[float]
    payloads: Sequence[bytes]
    samples: NDArray[np.float32]  # of all messages that parsed, one after another
    lengths: Sequence[int]  # samples per parsed message
    stated_rate_hz: float  # what the sender states; 0 where its format states none
    clock_offset_ms: float  # of the latest stamp against this box's clock
    rejected: int


@dataclass(frozen=True, slots=True)
class Findings:
    """What `check --connect` prints of one channel."""

    messages: int
    rate_hz: float  # 0 where it could not be measured
    rms: float
    peak: float
    dc: float
    clipped: float  # share of samples at the largest magnitude, where that looks like a rail
    clock_offset_ms: float
    guesses: tuple[str, ...]


def examine(heard: Heard) -> Findings:
    """Measure and guess."""
    channel = heard.channel
    rate_hz = _rate(heard)
    x = heard.samples.astype(np.float64)
    dc = float(x.mean()) if x.size else 0.0
    rms = float(np.sqrt(np.mean((x - dc) ** 2))) if x.size else 0.0
    peak = float(np.abs(x).max()) if x.size else 0.0
    clipped = _clipped(x)
    guesses = []
    if not heard.payloads:
        guesses.append(f"nothing was heard on {channel.topic or 'its socket'!r}; is the topic right and the sensor on?")
    elif (other := _other_format(heard)) is not None:
        guesses.append(f"looks like {other}, configured {channel.format}")
    else:
        guesses += _stamp_guesses(heard)
        guesses += _rate_guesses(heard, rate_hz)
        guesses += _level_guesses(heard, x, rms, clipped)
        if channel.stamped and abs(heard.clock_offset_ms) > FAR_OFF_MS:
            hours = heard.clock_offset_ms / 3.6e6
            zone = "; a time zone?" if abs(hours) > 0.4 and abs(hours * 2 - round(hours * 2)) < 0.02 else ""
            guesses.append(f"the sensor's clock is {heard.clock_offset_ms / 1e3:+.1f} s from this box's{zone}")
    return Findings(
        len(heard.payloads), rate_hz, rms, peak, dc, clipped, heard.clock_offset_ms if channel.stamped else 0.0,
        tuple(guesses),
    )  # fmt: skip


def _rate(heard: Heard) -> float:
    """Samples per second by arrival: all but the first message over the time from the first to the last."""
    span = _span_s(heard)
    return sum(heard.lengths[1:]) / span if span > 0 else 0.0


def _span_s(heard: Heard) -> float:
    return heard.arrivals_s[-1] - heard.arrivals_s[0] if len(heard.arrivals_s) > 1 else 0.0


def _at_rate(heard: Heard, rate_hz: float) -> bool:
    """Whether a measured rate agrees with the configured one, as far as arrivals can tell: gateways send in bursts."""
    longest_s = max(b - a for a, b in pairwise(heard.arrivals_s))
    return abs(rate_hz / heard.channel.rate_hz - 1) <= RATE_TOLERANCE + longest_s / _span_s(heard)


def _other_format(heard: Heard) -> str | None:
    """A format that fits what was heard better than the configured one; None where the configured one fits."""
    configured = heard.channel.format
    if all(p.startswith(b"FSH1") for p in heard.payloads):
        return "fisher-frame/1" if configured != "fisher-frame/1" else None
    if all(p.lstrip().startswith(b'{"') for p in heard.payloads):
        return "json" if configured != "json" else None
    if configured not in WIDTHS:
        return next(iter(_plausible(heard)), None) or "a bare format (f32le, i16le, ...)"
    fitting = _plausible(heard)
    if configured in fitting or not fitting:
        return None
    return " or ".join(fitting)


def _plausible(heard: Heard) -> list[str]:
    """The bare formats that decode to a signal and, where the rate can be measured, to the configured rate."""
    span = _span_s(heard)
    found, at_rate, signed = [], [], False
    for name, width in WIDTHS.items():
        if any(len(p) % (width * heard.bound) for p in heard.payloads):
            continue
        decoded = [_decode(p, name)[:: heard.bound] for p in heard.payloads[:20]]
        x = np.concatenate(decoded)
        if x.size < MIN_SAMPLES or not _signal_like(x, name):
            continue
        if name == "i32le" and "f32le" in found and signed:
            continue  # only an integer that never changes its sign reads as floats of one magnitude by chance
        if name == "f32le":
            signed = bool((x < 0).any() and (x > 0).any())
        found.append(name)
        samples = sum(len(p) for p in heard.payloads[1:]) / (width * heard.bound)
        if span > 0 and _at_rate(heard, samples / span):
            at_rate.append(name)
    return at_rate or found


def _decode(payload: bytes, name: str) -> NDArray[np.float64]:
    if name == "i24le":
        raw = np.frombuffer(payload, np.uint8).reshape(-1, 3).astype(np.int32)
        value = raw[:, 0] | raw[:, 1] << 8 | raw[:, 2] << 16
        return np.asarray((value ^ 0x800000) - 0x800000, np.float64)
    kind = {"f32le": "<f4", "f64le": "<f8", "i16le": "<i2", "i32le": "<i4"}[name]
    with np.errstate(invalid="ignore", over="ignore"):
        return np.frombuffer(payload, kind).astype(np.float64)


def _signal_like(x: NDArray[np.float64], name: str) -> bool:
    """Whether these numbers can be samples: finite, of one magnitude, and not the two halves of wider words."""
    if not np.isfinite(x).all():
        return False
    nonzero = np.abs(x[x != 0])
    if not nonzero.size:
        return True
    if name.startswith("f"):
        return float(np.log2(nonzero).std()) < EXPONENT_SPREAD and 1e-12 < float(np.median(nonzero)) < 1e12
    if name == "i32le":
        return _wide(x.astype(np.int64))
    # A float's or a wider integer's low words fill the whole range evenly, and the high words of a small one only
    # extend its sign; a signal does neither.
    full = 2.0 ** {"i16le": 15, "i24le": 23}[name]
    phases = [x[k::step] for step in (2, 3, 4) for k in range(step)]
    return not any(_uniform(p / full) or set(np.unique(p)) == {-1.0, 0.0} for p in phases)


def _wide(x: NDArray[np.int64]) -> bool:
    """Whether integers are wider than 16 bits or extend their sign, instead of being two samples of 16 bits each."""
    low, high = (x & 0xFFFF) - 0x8000, x >> 16
    small = float(np.isin(high, (-1, 0)).mean()) > 0.9
    return small or not (x & 0xFFFF).any() or _uniform(low / 2.0**15, memory=1.1)


def _uniform(x: NDArray[np.float64], *, memory: float = 0.3) -> bool:
    """Whether values fill -1..1 evenly and without memory: variance 1/3, kurtosis 1.8, neighbours unrelated."""
    if x.size < MIN_SAMPLES // 4:
        return False
    centred = x - x.mean()
    variance = float(np.mean(centred**2))
    if not 0.25 < variance < 0.42:
        return False
    kurtosis = float(np.mean(centred**4)) / variance**2
    related = abs(float(np.mean(centred[1:] * centred[:-1]))) / variance
    return kurtosis < 2.1 and related < memory


def _stamp_guesses(heard: Heard) -> list[str]:
    """A channel on the sensor's clock whose JSON carries no stamp falls back to the arrival clock: say so."""
    if heard.channel.format != "json" or not heard.channel.stamped or not heard.payloads:
        return []
    try:
        document = json.loads(heard.payloads[-1])
    except ValueError:
        return []
    if not isinstance(document, dict) or "t" in document:
        return []
    keys = ", ".join(sorted(map(str, document))[:10])
    return [f"the messages carry no stamp 't' (their keys: {keys}); send it, or set clock = \"arrival\""]


def _rate_guesses(heard: Heard, rate_hz: float) -> list[str]:
    configured = heard.channel.rate_hz
    if heard.stated_rate_hz and abs(heard.stated_rate_hz / configured - 1) > 1e-3:
        return [f"the sender states {heard.stated_rate_hz:g} samples/s, configured rate_hz = {configured:g}"]
    if heard.channel.snapshot or not rate_hz or _at_rate(heard, rate_hz):
        return []
    ratio = rate_hz / configured
    channels = round(ratio)
    if channels >= 2 and abs(ratio - channels) < 0.05 * channels and heard.bound == 1:
        several = f"are {channels} channels interleaved (give each its index), or is rate_hz wrong?"
        return [f"sends {rate_hz:.0f} samples/s, {channels} times the configured {configured:g}; {several}"]
    return [f"sends {rate_hz:.0f} samples/s, configured rate_hz = {configured:g}"]


def _level_guesses(heard: Heard, x: NDArray[np.float64], rms: float, clipped: float) -> list[str]:
    channel, guesses = heard.channel, []
    if x.size < MIN_SAMPLES:
        return [f"{heard.rejected} messages did not parse as {channel.format}"] if heard.rejected else []
    if np.ptp(x) == 0:
        return ["every sample is the same: is the sensor plugged in?"]
    raw = x / channel.scale
    counts = bool(np.all(np.abs(raw - np.round(raw)) < 1e-3)) and float(np.abs(raw).max()) > 100
    if counts and channel.scale == 1.0 and channel.unit not in ("", "counts"):
        guesses.append(
            f"these are whole numbers up to {np.abs(raw).max():.0f}: converter counts? Set scale to {channel.unit}"
        )
    elif channel.unit in PLAUSIBLE_LEVEL:
        low, high = PLAUSIBLE_LEVEL[channel.unit]
        if not low <= rms <= high:
            guesses.append(f"an RMS of {rms:.3g} {channel.unit} is not plausible; check scale = {channel.scale:g}")
    mean = abs(float(x.mean()))
    if channel.kind in ("vibration", "sound", "current") and mean > OFFSET * rms:
        guesses.append(
            f"a constant {x.mean():.3g} carries an RMS of only {rms:.3g}: wrong dtype or scale, or a DC sensor"
        )
    if clipped > 1e-3:
        guesses.append(f"{clipped:.1%} of the samples stand at the largest value: clipped")
    return guesses


def _clipped(x: NDArray[np.float64]) -> float:
    """Share of samples at the rails of the converter."""
    return _at_top(x) + _at_top(-x) if x.size >= MIN_SAMPLES else 0.0


def _at_top(x: NDArray[np.float64]) -> float:
    """Share of samples at the largest value, where they stand there in runs and far more than just below it."""
    rail = x == x.max()
    below = x[~rail]
    if 2 * below.size <= x.size or not (rail[2:] & rail[1:-1] & rail[:-2]).any():
        return 0.0  # what a signal is at most of the time is its resting value
    step = x.max() - below.max()  # of the converter, where it is a coarse one
    near = int((below > x.max() - max(1.5 * step, 0.005 * np.ptp(x))).sum())
    return float(rail.mean()) if int(rail.sum()) > RAIL * near else 0.0
