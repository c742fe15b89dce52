"""Physical indicators of one window: level, shape, vibration velocity and third-octave levels."""

import math
from dataclasses import dataclass

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from fisher_agent.stages import Floats

Doubles = NDArray[np.float64]

STANDARD_GRAVITY_M_S2 = 9.80665
ACCELERATION_UNITS = {"g": STANDARD_GRAVITY_M_S2, "m/s2": 1.0, "m/s^2": 1.0, "m/s²": 1.0}
VELOCITY_BAND_HZ = (10.0, 1000.0)  # ISO 20816-1's broad band
OCTAVE_RATIO = 10**0.3  # IEC 61260-1, base ten
LOWEST_CENTRE_HZ = 10.0
BINS_PER_BAND = 2  # a band narrower than this many bins says more about the leakage of its neighbours than of itself
CLIPPED_RUN = 3
CLIPPED_SHARE = 1e-4
CLIPPED_SURE = 0.01  # so many at one extreme need no runs: a fast signal stays there for a sample or two
CLIPPED_PILE = 5  # the extreme value occurs this many times as often as the next one: measured signals taper off


@dataclass(frozen=True, slots=True)
class Level:
    """What the running gate needs of a window. `valid` is False where a sample is NaN or infinite; then `rms` is 0."""

    rms: float  # mean removed, except where the value itself counts
    flat: bool  # all samples are equal
    valid: bool

    @property
    def usable(self) -> bool:
        """Whether there is a signal that can be compared."""
        return self.valid and not self.flat


@dataclass(frozen=True, slots=True)
class Indicators:
    """The numbers an engineer knows, in the channel's unit, mean removed; all 0 where the window is not valid."""

    rms: float
    peak: float
    crest: float  # peak / RMS
    kurtosis: float  # Pearson's: 3 for a normal distribution
    velocity_rms_mm_s: float | None  # 10 to 1000 Hz, for acceleration only
    clipped: bool


def level(samples: Floats) -> Level:
    """RMS, flatness and validity of samples (n,), n >= 1."""
    if not np.isfinite(samples).all():
        return Level(0.0, flat=False, valid=False)
    if samples.max() == samples.min():
        return Level(0.0, flat=True, valid=True)
    return Level(float(samples.std(dtype=np.float64)), flat=False, valid=True)


def value_level(samples: Floats) -> Level:
    """As `level` with the mean left in; a value that stands still is none the worse for it."""
    if not np.isfinite(samples).all():
        return Level(0.0, flat=False, valid=False)
    return Level(float(np.sqrt(np.square(samples, dtype=np.float64).mean())), flat=False, valid=True)


def measure(samples: Floats, rate_hz: float, *, kind: str = "other", unit: str = "") -> Indicators:
    """All indicators of samples (n,) in `unit`."""
    now = level(samples)
    if not now.usable:
        return Indicators(0.0, 0.0, 0.0, 0.0, None, clipped=False)
    centred = samples.astype(np.float64)
    centred -= centred.mean()
    squares = centred * centred
    variance = float(squares.mean())
    rms = variance**0.5
    peak = float(max(centred.max(), -centred.min()))
    if variance == 0:  # squares of denormal samples vanish
        return Indicators(0.0, peak, 0.0, 0.0, None, clipped=False)
    kurtosis = float(np.dot(squares, squares)) / len(squares) / variance**2
    velocity = None
    if kind == "vibration" and unit in ACCELERATION_UNITS:
        velocity = _velocity_rms_mm_s(centred, rate_hz, ACCELERATION_UNITS[unit])
    return Indicators(rms, peak, peak / rms, kurtosis, velocity, clipped=is_clipped(samples))


def spectrum(samples: NDArray[np.floating], rate_hz: float) -> tuple[Doubles, Doubles]:
    """(n,) -> frequencies (m,), power (m,), Hann-windowed; the power sums to about the variance."""
    n = len(samples)
    taper = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n) / n)
    centred: Doubles = samples.astype(np.float64)
    centred -= centred.mean()
    power = np.asarray(np.abs(scipy.fft.rfft(centred * taper)) ** 2, dtype=np.float64)
    power *= 2 / (n * float(np.dot(taper, taper)))
    frequencies = np.asarray(np.arange(len(power)) * (rate_hz / n), dtype=np.float64)
    return frequencies, power


def third_octaves(rate_hz: float, duration_s: float) -> Doubles:
    """Centres (k,) of the third-octave bands that a window of this rate and length resolves, lowest first."""
    width = OCTAVE_RATIO ** (1 / 6) - OCTAVE_RATIO ** (-1 / 6)  # of a band, relative to its centre
    lowest = max(LOWEST_CENTRE_HZ, BINS_PER_BAND / duration_s / width)
    first = int(np.ceil(3 * np.log(lowest / 1000) / np.log(OCTAVE_RATIO) - 1e-9))
    last = int(np.floor(3 * np.log(rate_hz / 2 / 1000) / np.log(OCTAVE_RATIO) - 0.5 + 1e-9))
    return np.asarray(1000 * OCTAVE_RATIO ** (np.arange(first, last + 1) / 3), dtype=np.float64)


def octave_edges(centre_hz: float) -> tuple[float, float]:
    """Lower and upper edge of the third-octave band around a centre."""
    return centre_hz * OCTAVE_RATIO ** (-1 / 6), centre_hz * OCTAVE_RATIO ** (1 / 6)


def third_octave_levels(samples: Floats, rate_hz: float, *, centres_hz: Doubles, floor: float) -> Floats:
    """Levels (k,) in dB re unit² of neighbouring bands; `floor` (unit²), added to each, keeps empty ones still.

    A band that holds no bin (a snapshot shorter than the enrolled ones) is NaN.
    """
    frequencies, power = spectrum(samples, rate_hz)
    edges = np.append(centres_hz * OCTAVE_RATIO ** (-1 / 6), centres_hz[-1:] * OCTAVE_RATIO ** (1 / 6))
    at = np.searchsorted(frequencies, edges)
    cumulative = np.append(0.0, np.cumsum(power))
    sums = np.maximum(cumulative[at[1:]] - cumulative[at[:-1]], 0)
    return np.where(np.diff(at) > 0, 10 * np.log10(sums + floor), np.nan).astype(np.float32)


def is_clipped(samples: Floats) -> bool:
    """Whether samples pile up at an extreme in runs, as at the end of a converter's range."""
    return clipped_share(samples) > 0


def clipped_share(samples: Floats) -> float:
    """The share of samples (n,) that pile up at an extreme in runs; 0 where none do."""
    clipped = 0
    for signed in (samples, -samples):
        top = signed.max()
        at_top = signed == top
        count = int(at_top.sum())
        if count < max(CLIPPED_RUN, CLIPPED_SHARE * len(samples)):
            continue
        below = signed[~at_top]
        if not len(below) or count < CLIPPED_PILE * int((below == below.max()).sum()):
            continue
        in_runs = (at_top[2:] & at_top[1:-1] & at_top[:-2]).any()
        if in_runs or (count >= CLIPPED_SURE * len(samples) and _is_scattered(below, float(top), count)):
            clipped += count
    return clipped / len(samples)


def _is_scattered(below: Floats, top: float, count: int) -> bool:
    """Whether no value between the extremes comes nearly as often: a tone sampled in step with itself has few."""
    some = below[:: max(1, len(below) // 8192)].astype(np.float64)
    some = some[some > below.min()]
    if not len(some):
        return False
    _, counts = np.unique(np.rint(1e4 * some / max(abs(top), float(np.abs(some).max()))), return_counts=True)
    return CLIPPED_PILE * int(counts.max()) * len(below) <= count * len(some)


def _velocity_rms_mm_s(centred: Doubles, rate_hz: float, m_s2_per_unit: float) -> float | None:
    frequencies, power = spectrum(centred, rate_hz)
    low, high = VELOCITY_BAND_HZ
    band = (frequencies >= low) & (frequencies <= high)
    if not band.any():
        return None
    mean_square = float((power[band] / (2 * np.pi * frequencies[band]) ** 2).sum())
    return 1000 * m_s2_per_unit * math.sqrt(mean_square)
