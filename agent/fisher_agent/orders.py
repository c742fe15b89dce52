"""Fault frequencies of bearings and shafts, and how far they stand out of a window's envelope spectrum. Pure.

Kinematics: R. B. Randall, J. Antoni, "Rolling element bearing diagnostics: a tutorial", MSSP 25 (2011) 485-520, eq. 1-4
(outer ring fixed, no slip). The envelope is squared, of the band in which the signal is most impulsive (spectral
kurtosis, J. Antoni, MSSP 20 (2006) 282-307), as in W. A. Smith, R. B. Randall, MSSP 64-65 (2015) 100-131.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from fisher_agent.alarmconfig import BearingConfig
from fisher_agent.config import SPEED_UNITS, MachineConfig
from fisher_agent.stages import Floats, Window

Doubles = NDArray[np.float64]

HARMONICS = 3
SPLITS = (2, 3, 4, 6, 8)  # of the range up to Nyquist, into bands of which one is chosen
LOWEST_SHARE = 0.05  # of Nyquist: below lie the shaft's own orders, which no resonance carries
MIN_BINS = 256  # of a band: a kurtosis of fewer values says nothing
FLOOR_SHARE = 0.12  # the floor at f is the median over f -+ this share of it, and at least FLOOR_BINS bins each way
FLOOR_BINS = 24
MIN_TURNS = 4  # of the slowest frequency in a window: fewer leave no bin between it and the mean
TINY = 1e-300


@dataclass(frozen=True, slots=True)
class Line:
    """A frequency at which something that turns shows itself."""

    name: str  # "BPFO", "2xBPFO", "1x" (of the shaft), with the bearing's id before it
    order: float  # in turns of the shaft

    def hz(self, shaft_hz: float) -> float:
        """At this speed."""
        return self.order * shaft_hz


@dataclass(frozen=True, slots=True)
class Level:
    """How far a line stands out of the local noise floor of an envelope spectrum."""

    name: str
    hz: float  # of the highest bin within the tolerance
    db: float


def fault_orders(bearing: BearingConfig) -> dict[str, float]:
    """FTF, BSF, BPFO and BPFI in turns of the shaft."""
    ratio = bearing.ball_mm / bearing.pitch_mm * math.cos(math.radians(bearing.contact_deg))
    return {
        "BPFO": bearing.balls / 2 * (1 - ratio),
        "BPFI": bearing.balls / 2 * (1 + ratio),
        "BSF": bearing.pitch_mm / (2 * bearing.ball_mm) * (1 - ratio**2),
        "FTF": (1 - ratio) / 2,
    }


def lines_of(machine: MachineConfig) -> dict[str, list[Line]]:
    """Channel -> the lines to look for in it; empty where neither a speed nor a bearing is configured."""
    if machine.shaft_hz is None and machine.speed_channel is None:
        return {}
    vibration = [c.id for c in machine.channels if c.kind == "vibration" and not c.slow]
    felt = {b.id: b.channels or tuple(vibration) for b in machine.bearings}
    found: dict[str, list[Line]] = {}
    for channel in (c.id for c in machine.channels):
        bearings = [b for b in machine.bearings if channel in felt[b.id]]
        if bearings or channel in vibration:
            found[channel] = [*_harmonics("", {"": 1.0})]
            for bearing in bearings:
                found[channel] += _harmonics(f"{bearing.id} ", fault_orders(bearing))
    return found


def _harmonics(prefix: str, orders: Mapping[str, float]) -> Iterator[Line]:
    for name, order in orders.items():
        for k in range(1, HARMONICS + 1):
            times = f"{k}x" if k > 1 or not name else ""
            yield Line(f"{prefix}{times}{name}", k * order)


def shaft_hz(machine: MachineConfig, windows: Mapping[str, Window]) -> float | None:
    """The speed during these windows: as configured, or the mean of the speed channel; None where it has none."""
    if machine.shaft_hz is not None:
        return machine.shaft_hz
    window = windows.get(machine.speed_channel or "")
    if window is None:
        return None
    mean = float(window.samples.mean(dtype=np.float64))
    turns = abs(mean) * SPEED_UNITS.get(machine.channel(window.channel).unit, 1.0)
    return turns if math.isfinite(turns) and turns > 0 else None


def levels(
    samples: Floats, rate_hz: float, *, lines: list[Line], speed_hz: float, tolerance: float
) -> tuple[list[Level], tuple[float, float]]:
    """The level of each line within the tolerance, and the band (Hz) whose envelope was taken.

    Lines that the window cannot resolve, or that lie above what the envelope holds, are left out.
    """
    if not lines or not len(samples) or float(np.ptp(samples)) == 0:
        return [], (0.0, 0.0)
    highest_hz = max(line.hz(speed_hz) for line in lines) * (1 + tolerance)
    squared, envelope_hz, band = squared_envelope(samples, rate_hz, holds_hz=highest_hz)
    frequencies, power = _spectrum(squared, envelope_hz)
    lowest_hz = MIN_TURNS * rate_hz / len(samples)
    found = [
        _level(line.name, line.hz(speed_hz), frequencies, power, tolerance)
        for line in lines
        if lowest_hz <= line.hz(speed_hz) <= frequencies[-1] * (1 - tolerance - FLOOR_SHARE)
    ]
    return found, band


def squared_envelope(samples: Floats, rate_hz: float, *, holds_hz: float) -> tuple[Doubles, float, tuple[float, float]]:
    """Samples (n,) -> squared envelope (m,), its rate, and its band in Hz: that of the largest spectral kurtosis.

    A band's complex envelope is the inverse transform of its bins alone; padded to twice their number, its square does
    not alias. Bands are wide enough to hold modulations up to `holds_hz`, or are all there is.
    """
    n = len(samples)
    centred = samples.astype(np.float64)
    centred -= centred.mean()
    bins = np.asarray(scipy.fft.rfft(centred), dtype=np.complex128)[: n // 2]
    bin_hz = rate_hz / n
    first = max(1, round(LOWEST_SHARE * len(bins)))
    narrowest = max(MIN_BINS, math.ceil(holds_hz / bin_hz))
    bands = [(first, len(bins))]
    for parts in SPLITS:
        edges = np.linspace(first, len(bins), parts + 1).round().astype(int).tolist()
        bands += [(a, b) for a, b in pairwise(edges) if b - a >= narrowest]
    best: tuple[float, tuple[int, int], Doubles] | None = None
    for low, high in bands:
        squared = _square_of_band(bins[low:high])
        kurtosis = _kurtosis(squared)
        if best is None or kurtosis > best[0]:
            best = kurtosis, (low, high), squared
    assert best is not None
    _, (low, high), squared = best
    return squared, 2 * (high - low) * bin_hz, (low * bin_hz, high * bin_hz)


def _square_of_band(bins: NDArray[np.complex128]) -> Doubles:
    analytic = scipy.fft.ifft(bins, 2 * len(bins))
    return np.asarray(analytic.real**2 + analytic.imag**2, dtype=np.float64)


def _kurtosis(squared: Doubles) -> float:
    """Of the complex envelope: 0 for noise, above it for impulses."""
    mean = float(squared.mean())
    return float(np.square(squared).mean()) / max(mean**2, TINY) - 2


def _spectrum(squared: Doubles, rate_hz: float) -> tuple[Doubles, Doubles]:
    """Hann-windowed power of the squared envelope without its mean."""
    n = len(squared)
    taper = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n) / n)
    power = np.asarray(np.abs(scipy.fft.rfft((squared - squared.mean()) * taper)) ** 2, dtype=np.float64)
    return np.asarray(np.arange(len(power)) * (rate_hz / n), dtype=np.float64), power


def _level(name: str, hz: float, frequencies: Doubles, power: Doubles, tolerance: float) -> Level:
    bin_hz = float(frequencies[1])
    reach = max(tolerance * hz, bin_hz)
    low, high = math.ceil((hz - reach) / bin_hz), math.floor((hz + reach) / bin_hz)
    peak = low + int(power[low : high + 1].argmax())
    around = max(round(FLOOR_SHARE * hz / bin_hz), FLOOR_BINS)
    # Two bins of leakage on each side belong to the peak; below the second bin lies the mean.
    floor = np.concatenate([power[max(2, low - 2 - around) : max(2, low - 2)], power[high + 3 : high + 3 + around]])
    ratio = power[peak] / max(float(np.median(floor)), TINY)
    return Level(name, float(frequencies[peak]), 10 * math.log10(max(ratio, TINY)))
