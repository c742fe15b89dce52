"""What a window shows of its sensor, apart from its machine: held samples, pile-ups, lone jumps, mains hum, colour.

All of it is in samples and shares, so none of it depends on the scale. `sensor` judges it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import scipy.fft
from numpy.typing import NDArray
from pydantic import Field

from fisher_agent.config import ChannelConfig
from fisher_agent.indicators import Level, clipped_share, spectrum
from fisher_agent.stages import Floats

Doubles = NDArray[np.float64]

HOLD_SHARE = 0.05  # of a window, in one run: a shorter one is no concern
MANY_STEPS = 32  # fewer say nothing about a staircase
STAIR_REGULAR = 0.8  # share of the runs that are as long as most are, or multiples of it, give or take a sample
STAIR_STEP = 4.0  # times the finest step: what a slow signal holds for lack of resolution moves by one step
LARGEST = float(np.finfo(np.float32).max)
JUMP = 20.0  # times the median difference of neighbouring samples
JUMP_QUIET = 0.15  # of the jump: what all other differences around it stay under
JUMP_NEAR, JUMP_FAR = 2, 10  # differences: one or two make the jump, those up to the second must be quiet
MANY_JUMPS = 4096  # candidates: so many are no lone ones
LAGS = 24
HUM_S = (0.5, 2.0)  # shortest and longest stretch that is looked at for mains hum
MAINS_HZ = np.concatenate([np.arange(49.7, 50.31, 0.05), np.arange(59.7, 60.31, 0.05)])  # interconnected grids
HUM_ORDERS = np.arange(1, 13)  # many more, and some comb fits any machine
HUM_BINS = np.arange(-2, 3)  # the main lobe of a Hann window
ELECTRICAL = frozenset({"current", "voltage"})

_Share = Annotated[float, Field(ge=0, allow_inf_nan=False)]


@dataclass(frozen=True, slots=True)
class Traits:
    """How a healthy sensor of this channel looked during the enrolment."""

    longest_hold_s: _Share | None = None  # None: nothing is known of how long it stands still
    jumps: _Share = 0.0  # lone jumps, the most of any window
    hum_share: _Share = 1.0  # of the power, in lines of the mains; 1: not known
    colour: _Share = 0.0  # largest autocorrelation at short lags; 0: white, or not known


@dataclass(frozen=True, slots=True)
class Hum:
    """Mains hum in a window: its frequency, its share of the power, and the RMS of all the rest."""

    hz: float
    share: float
    rest_rms: float


@dataclass(frozen=True, slots=True)
class Measured:
    """One window; `hum` and `colour` are None where they were not looked at, or could not be."""

    n: int
    rate_hz: float
    rms: float
    invalid: int = 0  # samples that are NaN or infinite; where there are any, the rest was not looked at
    flat: bool = False
    clipped: float = 0.0  # share of the samples at the ends of the range
    hold: int = 0  # samples in the longest run of equal ones; 0: none longer than a twentieth of the window
    moving: float = 1.0  # share of the other samples that differ from the one before
    repeats: int = 0  # so many times every value comes in a row; 0: no staircase
    jumps: int = 0
    outweighed: bool = False  # a lone sample holds more than half of the power
    hum: Hum | None = None
    colour: float | None = None


def measure(
    samples: Floats,
    rate_hz: float,
    *,
    level: Level,
    config: ChannelConfig,
    wants_hum: Callable[[], bool] = lambda: True,
    wants_colour: Callable[[], bool] = lambda: True,
) -> Measured:
    """Look at samples (n,), n >= 1. The two costly parts are taken only where they are wanted.

    Of a value (`config.valued`) only what is no number counts; how long it stands still is for `Standstill`.
    """
    n = len(samples)
    if not level.valid:
        return Measured(n, rate_hz, 0.0, invalid=n - int(np.isfinite(samples).sum()))
    if config.valued or level.flat:
        return Measured(n, rate_hz, level.rms, flat=level.flat)
    hold, at_rail, moving, repeats = _holds(samples)
    clipped = 0.0 if hold and not at_rail else clipped_share(samples)
    if hold and at_rail and clipped and hold < clipped * n / 2:
        hold = 0  # one of many runs at the end of the range
    elif hold:
        clipped = 0.0
    jumps, outweighed = (0, False) if config.slow else _jumps(samples)
    hum = colour = None
    if not (hold or repeats or clipped or config.slow):
        if config.kind not in ELECTRICAL:
            hum = mains_hum(samples, rate_hz) if wants_hum() else None
        colour = autocorrelation(samples) if wants_colour() else None
    return Measured(
        n, rate_hz, level.rms, clipped=clipped, hold=hold, moving=moving, repeats=repeats,
        jumps=0 if config.kind in ELECTRICAL else jumps, outweighed=outweighed, hum=hum, colour=colour,
    )  # fmt: skip


def traits_of(windows: Sequence[Measured], *, longest_hold_s: float | None = None) -> Traits:
    """What windows of a healthy sensor have in common; `longest_hold_s` of a value, that of waveforms is in them."""
    hums = [w.hum.share for w in windows if w.hum is not None]
    colours = [w.colour for w in windows if w.colour is not None]
    if longest_hold_s is None:
        longest_hold_s = max((w.hold / w.rate_hz for w in windows), default=None)
    return Traits(
        longest_hold_s,
        jumps=max((w.jumps for w in windows), default=0),
        hum_share=float(np.median(hums)) if hums else 1.0,
        colour=float(np.median(colours)) if colours else 0.0,
    )


def _holds(samples: Floats) -> tuple[int, bool, float, int]:
    """Length of the longest run of equal samples, whether it is at an extreme, share of the rest that moves, repeats.

    Without a run of `HOLD_SHARE` and with most samples moving: 0, False, that share, 0.
    """
    n = len(samples)
    moves = samples[1:] != samples[:-1]
    count = int(np.count_nonzero(moves))
    if count > (1 - HOLD_SHARE) * (n - 1):
        return 0, False, count / max(n - 1, 1), 0
    at = np.flatnonzero(moves)
    runs = np.diff(at, prepend=-1, append=n - 1)
    longest = int(runs.argmax())
    hold = int(runs[longest])
    value = samples[at[longest] if longest < len(at) else n - 1]
    at_rail = bool(value == samples.max() or value == samples.min())
    moving = (count + 1) / max(n - hold, 1)
    return hold if hold >= HOLD_SHARE * n else 0, at_rail, moving, _repeats(samples, at, runs)


def _repeats(samples: Floats, at: NDArray[np.intp], runs: NDArray[np.intp]) -> int:
    """How often every value of a staircase comes in a row; 0 where it is none."""
    inner = runs[1:-1]
    if len(inner) < MANY_STEPS or (usual := int(np.median(inner))) < 2:
        return 0
    off = np.abs(inner - np.maximum(np.round(inner / usual), 1) * usual)
    steps = np.abs(samples[at + 1].astype(np.float64) - samples[at])
    coarse = np.median(steps) < STAIR_STEP * np.quantile(steps, 0.01)
    return 0 if coarse or np.mean(off <= (1 if usual > 2 else 0)) < STAIR_REGULAR else usual


def _jumps(samples: Floats) -> tuple[int, bool]:
    """How many lone jumps there are, and whether the largest is of a sample that outweighs all others.

    What strikes a machine rings; a jump after which everything is as quiet as before is not of this world.
    """
    with np.errstate(over="ignore"):
        steps = np.abs(samples[1:] - samples[:-1])
    usual = float(np.median(steps[:: max(1, len(steps) // 16_384)])) if len(steps) else 0.0
    if usual == 0:
        usual = float(np.min(steps, where=steps > 0, initial=np.inf))
    found = np.flatnonzero(steps > min(JUMP * usual, LARGEST))
    if not 0 < len(found) <= MANY_JUMPS:
        return 0, False
    around = np.lib.stride_tricks.sliding_window_view(np.pad(steps, JUMP_FAR), 2 * JUMP_FAR + 1)[found]
    quiet = np.ones(2 * JUMP_FAR + 1, np.bool_)
    quiet[JUMP_FAR - JUMP_NEAR : JUMP_FAR + JUMP_NEAR + 1] = False
    lone = found[around[:, quiet].max(axis=1) < JUMP_QUIET * steps[found]]
    if not len(lone):
        return 0, False
    wide = samples.astype(np.float64)
    powers = np.square(wide - np.median(wide[:: max(1, len(wide) // 16_384)]))
    beside = powers[np.concatenate([lone, lone + 1])]
    return 1 + int((np.diff(lone) > JUMP_NEAR).sum()), bool(2 * beside.max() > powers.sum())


def autocorrelation(samples: Floats) -> float | None:
    """Largest magnitude of the autocorrelation at lags 1 to 24: near 0 for white noise; None for too few samples."""
    if len(samples) < 40 * LAGS:
        return None
    wide = samples.astype(np.float64)
    wide -= wide.mean()
    power = float(np.dot(wide, wide))
    if power == 0:
        return None
    lagged = (abs(float(np.dot(wide[lag:], wide[:-lag]))) for lag in range(1, LAGS + 1))
    return max(lagged) / power


def is_periodic(samples: Floats, rate_hz: float, *, rest_rms: float) -> bool:
    """Whether a tenth of a second later (5 periods of 50 Hz, 6 of 60 Hz) comes the same again, but for `rest_rms`.

    A cheap first look: it lets through all that `mains_hum` could find.
    """
    lag = round(0.1 * rate_hz)
    some = samples[: 11 * lag].astype(np.float64)
    if lag < 2 or len(some) <= 2 * lag:
        return False
    change = some[lag:] - some[:-lag]
    return float(np.dot(change, change)) / (2 * len(change)) <= rest_rms**2 + 0.25 * float(some.var())


def mains_hum(samples: Floats, rate_hz: float) -> Hum | None:
    """The best comb of mains lines; None for a window that is too short or too slow, or without power."""
    shortest, longest = (round(s * rate_hz) for s in HUM_S)
    if len(samples) < shortest or rate_hz < 4 * MAINS_HZ[-1]:
        return None
    some = samples[: scipy.fft.prev_fast_len(min(len(samples), longest), real=True)]
    frequencies, power = spectrum(some, rate_hz)
    total = float(power.sum())
    if total == 0:
        return None
    lines_hz = MAINS_HZ[:, None] * HUM_ORDERS  # (candidate, order)
    bins = np.rint(lines_hz / frequencies[1]).astype(np.intp)[:, :, None] + HUM_BINS
    inside = bins < len(power)
    combs = np.where(inside, power[np.where(inside, bins, 0)], 0.0).sum(axis=(1, 2))
    best = int(combs.argmax())
    in_lines = float(combs[best])
    return Hum(float(MAINS_HZ[best]), in_lines / total, max(total - in_lines, 0.0) ** 0.5)
