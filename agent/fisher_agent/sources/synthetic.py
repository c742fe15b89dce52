"""A generated rotating machine with ground truth: vibration, current and sound at their own rates; a bearing fault.

A four-pole induction motor on a 50 Hz supply drives a gear and a seven-bladed fan. Load moves slip, so speed, torque,
current and level move together; levels of the noise wander by about half a dB on their own, so that normal is not one
point. The fault is a growing defect of the outer race: once per ball pass, with slip, a short impulse rings a
resonance of the housing (McFadden & Smith 1984; Antoni & Randall 2003, for the random slip).

Every sample is a function of (seed, absolute event time) alone: signals are made in hops of 0.1 s whose random numbers
come from the hop's own seed, so any start, stop and block length give the same samples.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import numpy as np
import scipy.fft

from fisher_agent.sources.rotor import (
    BALL_PASS,
    HOP_NS,
    HOP_S,
    NOISE,
    PHASES,
    SHAFT_HZ,
    Doubles,
    Hop,
    Story,
    at,
    base,
)
from fisher_agent.stages import Floats, Frame

Kind = Literal["vibration", "current", "sound"]

RESONANCE_HZ = 3400.0  # what the fault rings

_WANDER_DB = 0.4
_BAND_CENTRES_HZ = (200.0, 1000.0, 3000.0, 8000.0)  # noise wanders in these bands, each on its own
_KINDS: tuple[Kind, ...] = ("vibration", "current", "sound")


@dataclass(frozen=True, slots=True)
class _Model:
    """What one kind of channel hears. Tones are (multiple of the shaft speed, amplitude)."""

    tones: tuple[tuple[int, float], ...]
    noise_rms: float
    corner_hz: float  # noise falls off above
    resonances: tuple[tuple[float, float, float], ...]  # centre Hz, width Hz, height over the plateau
    sensor_rms: float  # what is left when the machine stands
    ring: float  # peak of one fault impulse, fully grown
    ring_hz: float
    decay_s: float


_MODELS: Mapping[Kind, _Model] = {
    "vibration": _Model(  # g
        tones=(
            (1, 0.02),
            (2, 0.012),
            (3, 0.005),
            (7, 0.03),
            (14, 0.01),
            (28, 0.006),
            (29, 0.04),
            (30, 0.008),
            (58, 0.015),
        ),
        noise_rms=0.06,
        corner_hz=6000.0,
        resonances=((900.0, 60.0, 2.5), (2200.0, 150.0, 2.0), (RESONANCE_HZ, 250.0, 1.5), (5600.0, 300.0, 1.5)),
        sensor_rms=0.003,
        ring=0.5,
        ring_hz=RESONANCE_HZ,
        decay_s=0.0009,
    ),
    "current": _Model(  # A; the tones are those of eccentricity and slots, around the supply
        tones=((1, 0.03), (28, 0.06)),
        noise_rms=0.03,
        corner_hz=500.0,
        resonances=(),
        sensor_rms=0.01,
        ring=0.04,  # amplitude of the sidebands at the ball-pass frequency
        ring_hz=0.0,
        decay_s=0.0,
    ),
    "sound": _Model(  # Pa
        tones=((7, 0.05), (14, 0.02), (21, 0.01), (29, 0.02), (58, 0.008)),
        noise_rms=0.1,
        corner_hz=350.0,
        resonances=((900.0, 90.0, 1.5), (2200.0, 200.0, 0.5)),
        sensor_rms=0.01,
        ring=0.12,
        ring_hz=RESONANCE_HZ,
        decay_s=0.002,
    ),
}
_SUPPLY_HARMONICS = ((1, 1.0), (3, 0.01), (5, 0.03), (7, 0.02), (11, 0.008), (13, 0.006))  # of the amplitude


@dataclass(frozen=True, slots=True)
class RotatingMachine:
    """One generated machine; the same (seed, time) always gives the same samples.

    Ground truth: shaft at `SHAFT_HZ` +-0.4 %, outer-race defect at `bpfo_hz`, ringing at `RESONANCE_HZ`.
    """

    machine: str
    seed: int
    channels: tuple[tuple[str, Kind, float], ...] = (  # id, kind, rate_hz
        ("vib", "vibration", 25600.0),
        ("cur", "current", 12800.0),
        ("mic", "sound", 16000.0),
    )
    growth_s: float = 4.0  # from nothing to the whole fault
    severity: float = 1.0  # 1: impulses of 0.5 g

    @property
    def bpfo_hz(self) -> float:
        """Ball-pass frequency of the outer race at nominal speed."""
        return float(SHAFT_HZ * BALL_PASS)

    def frames(
        self,
        start_ns: int,
        stop_ns: int,
        *,
        block_s: float = 0.1,
        fault_from_ns: int | None = None,
        stopped: Sequence[tuple[int, int]] = (),
    ) -> Iterator[Frame]:
        """Yield [start_ns, stop_ns) in blocks of `block_s`, all channels of one block before the next block.

        The fault grows over `growth_s` from `fault_from_ns`. In each of `stopped` (switched off at, on again at) the
        machine coasts down for 3 s and stands; then it runs up in 2 s, with inrush current. These times count in hops
        of 0.1 s, the fault's rounded up.
        """
        block_ns = round(block_s * 1e9)
        if start_ns < 0 or block_ns <= 0:
            raise ValueError(f"start_ns {start_ns} and block_s {block_s} must be positive")
        story = Story(self.seed, fault_from_ns, self.growth_s, self.severity, stopped)
        voices = [_Voice(story, i, kind, rate_hz) for i, (_, kind, rate_hz) in enumerate(self.channels)]
        first_hop = k = start_ns // HOP_NS
        pending: list[list[Floats]] = [[] for _ in voices]
        for t_ns in range(start_ns, stop_ns, block_ns):
            end_ns = min(t_ns + block_ns, stop_ns)
            while k * HOP_NS < end_ns:
                for voice, parts in zip(voices, pending, strict=True):
                    samples = voice.hop(k)
                    parts.append(
                        samples[voice.index(start_ns) - voice.index(k * HOP_NS) :] if k == first_hop else samples
                    )
                k += 1
            for (channel, _, rate_hz), voice, parts in zip(self.channels, voices, pending, strict=True):
                begin, n = voice.index(t_ns), voice.index(end_ns) - voice.index(t_ns)
                joined = parts[0] if len(parts) == 1 else np.concatenate(parts)
                parts[:] = [joined[n:]]
                if n:
                    block = joined[:n]
                    block.flags.writeable = False
                    yield Frame(self.machine, channel, voice.time_ns(begin), rate_hz, block)


class _Voice:
    """One channel: turns the story into samples, hop after hop."""

    def __init__(self, story: Story, number: int, kind: Kind, rate_hz: float) -> None:
        self._story, self._number, self._kind, self._model = story, number, kind, _MODELS[kind]
        self._per_ns = Fraction(rate_hz) / 1_000_000_000
        self._rate_hz = rate_hz
        self._render: Callable[[int, Hop, Doubles], Floats] = self._current if kind == "current" else self._structure
        self._phases = story.random(PHASES, 1, number).random(16)
        self._segments: dict[int, tuple[Floats, Floats]] = {}
        longest = int(rate_hz * HOP_S) + 1
        angle = (np.arange(longest // 4) + 0.5) / (longest // 4) * (np.pi / 2)
        self._fade = np.sin(angle).astype(np.float32)  # its mirror image is the cosine, so powers sum to 1
        self._size = scipy.fft.next_fast_len(longest + len(angle), real=True)
        hz = np.asarray(np.fft.rfftfreq(self._size, 1 / rate_hz), np.float64)
        # Complex normals of variance 2 then give noise_rms.
        self._spectrum = (_spectrum(self._model, hz) * self._size / 2).astype(np.float32)
        log_hz, centres = np.log(np.maximum(hz, 1.0)), np.log(_BAND_CENTRES_HZ)
        weights = [np.interp(log_hz, centres, row) for row in np.eye(len(centres))]
        self._bands = np.stack(weights).astype(np.float32)  # (band, bin)

    def index(self, t_ns: int) -> int:
        """The first sample not before a time."""
        return int(-(-t_ns * self._per_ns.numerator // self._per_ns.denominator))

    def time_ns(self, index: int) -> int:
        """When a sample lies."""
        return round(index / self._per_ns)

    def hop(self, k: int) -> Floats:
        """The samples of hop k: (n,) float32."""
        first = self.index(k * HOP_NS)
        n = self.index((k + 1) * HOP_NS) - first
        offset = float((first / self._per_ns - k * HOP_NS) / HOP_NS)
        x = offset + np.arange(n) / (self._rate_hz * HOP_S)  # 0..1 over the hop
        hop = self._story.hop(k)
        noise, sensor = self._noise(k, n)
        samples = self._render(k, hop, x)
        samples += noise * _line(hop.speed, x)
        samples += sensor
        return samples

    def _structure(self, k: int, hop: Hop, x: Doubles) -> Floats:
        """Vibration and sound: tones of shaft, fan and gear, and the fault's impulses ringing."""
        turns = self._turns(k, hop, x)
        loud = [
            (0.7 + 0.5 * load) * 10 ** (_WANDER_DB * w[0] / 20) for load, w in zip(hop.load, hop.wander, strict=True)
        ]
        samples = self._tones(turns) * _line((loud[0], loud[1]), x) * _line(hop.speed, x) ** 2
        if max(hop.fault) > 0:
            self._ring(samples, k, x)
        return samples

    def _ring(self, samples: Floats, k: int, x: Doubles) -> None:
        """Add every impulse of this hop, and the tails of the hop before."""
        model, n = self._model, len(samples)
        before = self._story.hop(k - 1).impulses if k else ()
        tail_s = 9 * model.decay_s
        impulses = [(t - HOP_S, a) for t, a in before if t + tail_s > HOP_S] + list(self._story.hop(k).impulses)
        if not impulses:
            return
        times_s, strengths = np.array(impulses).T[:, :, None]  # (impulse, 1)
        first = np.ceil((times_s - x[0] * HOP_S) * self._rate_hz)
        place = first + np.arange(int(tail_s * self._rate_hz))  # (impulse, sample of the tail)
        since = (place / self._rate_hz + x[0] * HOP_S - times_s).astype(np.float32)
        ring = np.exp(since * np.float32(-1 / model.decay_s)) * np.sin(since * np.float32(2 * np.pi * model.ring_hz))
        inside = (place >= 0) & (place < n)
        weights = (model.ring * strengths * ring)[inside]
        rung = np.bincount(place[inside].astype(np.int64), weights, minlength=n)
        samples += (rung * _line(self._story.hop(k).fault, x)).astype(np.float32)

    def _current(self, k: int, hop: Hop, x: Doubles) -> Floats:
        """Supply with harmonics, slot harmonics and eccentricity beside it; a trace of the fault as sidebands."""
        supply = 50 * HOP_S * x + at(hop.supply, x)  # 50 Hz makes whole turns in a hop
        turns = self._turns(k, hop, x)
        # Magnetising and torque current are at right angles.
        size = [
            10 * float(np.hypot(0.5, 0.9 * load)) * (1 + 0.01 * w[1])
            for load, w in zip(hop.load, hop.wander, strict=True)
        ]
        orders, shares = np.array(_SUPPLY_HARMONICS).T
        wave = shares.astype(np.float32) @ _cos(np.outer(orders, supply) + self._phases[:1] * (orders != 1)[:, None])
        samples: Floats = wave * _line((size[0], size[1]), x)
        beside = self._tones(turns) * _line(hop.load, x)
        if max(hop.fault) > 0:
            span = float(SHAFT_HZ * BALL_PASS) * HOP_S
            passes = base(SHAFT_HZ * BALL_PASS, k) + span * x + float(BALL_PASS) * at(hop.turns, x)
            beside += np.float32(self._model.ring) * _cos(passes) * _line(hop.fault, x)
        samples += 2 * beside * _cos(supply)  # a product of cosines is a pair of sidebands
        return samples * _line(hop.drive, x)

    def _turns(self, k: int, hop: Hop, x: Doubles) -> Doubles:
        """Turns of the shaft, modulo a whole number per hop."""
        return base(SHAFT_HZ, k) + float(SHAFT_HZ) * HOP_S * x + at(hop.turns, x)

    def _tones(self, turns: Doubles) -> Floats:
        multiples, amplitudes = np.array(self._model.tones).T
        tones: Floats = amplitudes.astype(np.float32) @ _cos(
            np.outer(multiples, turns) + self._phases[: len(multiples), None]
        )
        return tones

    def _noise(self, k: int, n: int) -> tuple[Floats, Floats]:
        """Noise of the machine and of the sensor in hop k, both (n,).

        The first is shaped and of constant power: the end of a segment fades out while the next one fades in.
        """
        self._segments = {j: s for j, s in self._segments.items() if j == k - 1}
        for j in (k - 1, k):
            if j not in self._segments and j >= 0:
                self._segments[j] = self._segment(j)
        segment, sensor = self._segments[k]
        noise = segment[:n].copy()
        m = len(self._fade)
        noise[:m] *= self._fade
        if k > 0:
            before = self.index(k * HOP_NS) - self.index((k - 1) * HOP_NS)
            noise[:m] += self._segments[k - 1][0][before : before + m] * self._fade[::-1]
        return noise, sensor[:n]

    def _segment(self, j: int) -> tuple[Floats, Floats]:
        bins = len(self._spectrum)
        first = 2 + _KINDS.index(self._kind) * len(_BAND_CENTRES_HZ)
        level_db = _WANDER_DB * self._story.hop(j).wander[1][first : first + len(_BAND_CENTRES_HZ)]
        shape = self._spectrum * np.exp((level_db * (np.log(10) / 20)).astype(np.float32) @ self._bands)
        normal = self._story.random(NOISE, self._number, j).standard_normal(
            2 * bins + self._size - len(self._fade), np.float32
        )
        noise: Floats = scipy.fft.irfft(normal[: 2 * bins].view(np.complex64) * shape, self._size)
        return noise, normal[2 * bins :] * np.float32(self._model.sensor_rms)


def _spectrum(model: _Model, hz: Doubles) -> Doubles:
    """Magnitudes whose squares sum to noise_rms^2, in units of the synthesis."""
    shape = 1 / np.sqrt(1 + (hz / model.corner_hz) ** 2)
    for centre_hz, width_hz, height in model.resonances:
        shape = shape + height / np.sqrt(1 + ((hz - centre_hz) / (width_hz / 2)) ** 2)
    shape[hz < 5] = 0.0
    return np.asarray(shape * model.noise_rms / np.sqrt(np.sum(shape**2)), np.float64)


def _line(ends: tuple[float, float], x: Doubles) -> Floats:
    return (ends[0] + (ends[1] - ends[0]) * x).astype(np.float32)


def _cos(turns: Doubles) -> Floats:
    """Cosine of a phase in turns; whole turns are taken off in double precision, the rest is done in single."""
    return np.cos(((turns - np.floor(turns)) * (2 * np.pi)).astype(np.float32))
