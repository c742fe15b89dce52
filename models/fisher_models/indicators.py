"""Classical indicators of one window as a vector: band powers, level, shape, envelope; numpy and scipy only.

What a learnt embedding has to beat, computed the same way wherever it is judged. The recipe is that of the local
evaluation protocols: 32 logarithmic bands of the power spectrum, level, kurtosis, crest factor, and 16 logarithmic
bands of the envelope spectrum (W. A. Smith, R. B. Randall, MSSP 64-65 (2015), on why the envelope).
"""

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import fft, signal

from fisher_models.errors import SignalError
from fisher_models.frontend import Floats

Doubles = NDArray[np.float64]

POWER_BANDS = 32
ENVELOPE_BANDS = 16
SHORTEST = 64  # samples: of fewer most bands would hold no bin of their own
ENVELOPE = slice(POWER_BANDS + 3, POWER_BANDS + 3 + ENVELOPE_BANDS)  # where the envelope bands lie in the vector
_LOWEST_BINS = 2  # the power bands begin here: below lie the mean and its leakage
_LOWEST_SHARE = 1 / 4000  # of the rate, if that is higher
_ENVELOPE_TOP_HZ = 500.0
_CARRIER = 0.3  # of Nyquist: the envelope is that of what lies above
_FLOOR = 1e-12  # of power, in unit²: keeps digital silence finite; signals are expected well above 1e-6 unit
_ROUNDING = 1e-12  # of the peak: what is weaker than this above the carrier's limit is no signal


def indicators(samples: NDArray[np.floating], rate_hz: float, *, envelope: bool = True) -> Floats:
    """(n,) in any unit -> (51,): power bands, log10 RMS, kurtosis, crest factor, envelope bands; mean removed.

    Without the `envelope` they are 35, for a fraction of the work. Fewer than 64 samples, a slow channel, -> (2,):
    their mean and their standard deviation. Raises SignalError for what is not finite, not one channel, or empty.
    """
    if samples.ndim != 1 or not len(samples):
        raise SignalError(f"indicators are of the samples of one channel, not of shape {samples.shape}")
    if not (math.isfinite(rate_hz) and rate_hz > 0):
        raise SignalError(f"a rate of {rate_hz:g} Hz; it must be positive")
    given = np.asarray(samples, np.float64)
    if not np.isfinite(given).all():
        raise SignalError("the window holds NaN or infinite samples; drop or repair them first")
    if len(given) < SHORTEST:
        return np.array([given.mean(), given.std()], np.float32)
    centred = given - given.mean()
    squares = centred**2
    mean_square = float(squares.mean())
    rms = math.sqrt(mean_square)
    shape = [0.5 * math.log10(mean_square + _FLOOR), 0.0, 0.0]
    if mean_square**2 > 0:
        shape[1:] = [float((squares**2).mean()) / mean_square**2, float(np.abs(centred).max()) / rms]
    parts = [_power(centred, rate_hz), np.asarray(shape)]
    if envelope:
        parts.append(_envelope(centred, rate_hz))
    return np.concatenate(parts).astype(np.float32)


def _power(centred: Doubles, rate_hz: float) -> Doubles:
    n = len(centred)
    return _banded(_spectrum(centred), rate_hz / n, _lowest_hz(n, rate_hz), rate_hz / 2, POWER_BANDS)


def _envelope(centred: Doubles, rate_hz: float) -> Doubles:
    """Bands of the spectrum of the squared envelope over its mean, less 1."""
    n = len(centred)
    squared = np.abs(signal.hilbert(signal.sosfiltfilt(_high_pass(), centred))) ** 2
    mean = float(squared.mean())
    modulation = squared / mean - 1 if mean > (_ROUNDING * np.abs(centred).max()) ** 2 else np.zeros(n)
    lowest = _lowest_hz(n, rate_hz)
    top = max(lowest, min(_ENVELOPE_TOP_HZ, rate_hz / 4))
    return _banded(_spectrum(modulation), rate_hz / n, lowest, top, ENVELOPE_BANDS)


def _lowest_hz(n: int, rate_hz: float) -> float:
    return max(_LOWEST_BINS / n, _LOWEST_SHARE) * rate_hz


def _spectrum(centred: Doubles) -> Doubles:
    """(n,) -> power (n // 2 + 1,), Hann-windowed."""
    taper = _hann(len(centred))
    power: Doubles = np.abs(fft.rfft(centred * taper)) ** 2 / float(np.dot(taper, taper))
    return power


def _banded(power: Doubles, bin_hz: float, low_hz: float, high_hz: float, n: int) -> Doubles:
    """(m,) -> (n,): log10 of the mean power in bands of equal ratio; one too narrow for a bin takes the next higher."""
    edges = np.geomspace(low_hz, high_hz, n + 1) / bin_hz
    first = np.minimum(np.ceil(edges[:-1]).astype(int), len(power) - 1)
    last = np.minimum(np.maximum(np.ceil(edges[1:]).astype(int), first + 1), len(power))
    cumulative = np.append(0.0, np.cumsum(power))
    means = (cumulative[last] - cumulative[first]) / (last - first)
    return np.asarray(np.log10(np.maximum(means, 0) + _FLOOR), np.float64)


@lru_cache(maxsize=8)
def _hann(n: int) -> Doubles:
    return np.asarray(np.hanning(n), np.float64)


@lru_cache(maxsize=1)
def _high_pass() -> Doubles:
    sections: Doubles = signal.butter(3, _CARRIER, "highpass", output="sos")
    return sections
