"""What is compared: indicators, bundles, and untrained models, all as windows of one channel in and vectors out."""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy.signal import resample_poly

from fisher_models import bundle as bundles
from fisher_models.errors import ModelError
from fisher_models.execute import LOWER, RUNNERS, Runner, torch_function
from fisher_models.frontend import Floats, Frontend, FrontendSpec
from fisher_models.indicators import indicators

INDICATORS, NO_ENVELOPE = "indicators", "indicators-no-envelope"
UNTRAINED = re.compile(r"(?P<preset>[a-z]+-[a-z]+)-untrained(-(?P<seed>\d+))?")
TARGET_RMS = 0.1  # what a model sees of an enrolment; the gain is constant, so a change of level stays visible
STRETCH = 64  # the most that a slow channel is resampled by to be seen at all
_WINDOWS_AT_ONCE = 64


class Encoder(Protocol):
    """Windows of one channel to vectors; frozen, so that what it made once can be kept."""

    @property
    def name(self) -> str:
        """As tables show it."""
        ...

    @property
    def identity(self) -> str:
        """Changes whenever its vectors would; names a folder of the cache."""
        ...

    @property
    def space(self) -> str:
        """The space that its vectors are compared in where nothing else is said."""
        ...

    @property
    def levelled(self) -> bool:
        """Whether samples are brought to a common level first, by one gain per channel and enrolment."""
        ...

    def sees(self, rate_hz: float, n_samples: int) -> bool:
        """Whether windows of this rate and length mean anything to it."""
        ...

    def embed(self, windows: Floats, rate_hz: float) -> Floats:
        """(m, n) -> (m, d); d depends on the rate alone."""
        ...


@dataclass(frozen=True, slots=True)
class IndicatorEncoder:
    """The classical indicators, which see every rate. Without the envelope some published figures were made."""

    envelope: bool = True
    space: str = "standard"
    levelled: bool = False

    @property
    def name(self) -> str:
        """One of two."""
        return INDICATORS if self.envelope else NO_ENVELOPE

    @property
    def identity(self) -> str:
        """Raised by hand with the recipe."""
        return f"{self.name}-2"

    def sees(self, rate_hz: float, n_samples: int) -> bool:
        """Whatever has a sample."""
        return rate_hz > 0 and n_samples > 0

    def embed(self, windows: Floats, rate_hz: float) -> Floats:
        """(m, n) -> (m, 51), (m, 35) without the envelope, or (m, 2) of slow channels."""
        return np.stack([indicators(window, rate_hz, envelope=self.envelope) for window in windows])


@dataclass(frozen=True, slots=True, eq=False)
class ModelEncoder:
    """A model and its front-end: the embeddings of a window's bands end to end, averaged over its segments."""

    name: str
    identity: str
    spec: FrontendSpec
    run: Runner
    space: str = "cosine"
    levelled: bool = True
    stretch: bool = False  # resample channels that are too slow to be seen, by a whole number

    def sees(self, rate_hz: float, n_samples: int) -> bool:
        """At least one frame, of a rate that the model was made for."""
        times = self._times(rate_hz)
        if not 0 < times <= (STRETCH if self.stretch else 1):
            return False
        return Frontend(self.spec).frames(n_samples * times, rate_hz * times) > 0

    def _times(self, rate_hz: float) -> int:
        return math.ceil(self.spec.min_rate_hz / rate_hz) if rate_hz > 0 else 0

    def embed(self, windows: Floats, rate_hz: float) -> Floats:
        """(m, n) -> (m, bands x d). Raises SignalError for what `sees` denies."""
        times = self._times(rate_hz) if self.stretch else 1
        frontend, out = Frontend(self.spec), []
        for at in range(0, len(windows), _WINDOWS_AT_ONCE):
            some = windows[at : at + _WINDOWS_AT_ONCE]
            if times > 1:
                some = np.asarray(resample_poly(some, times, 1, axis=1), np.float32)
            made = [frontend.segments(window, rate_hz * times) for window in some]
            out.append(run_segments(self.run, made))
        return np.concatenate(out)


def run_segments(run: Runner, made: list[tuple[Floats, Floats]]) -> Floats:
    """`Frontend.segments` of m equally long windows -> (m, bands x d), the mean over each window's segments."""
    bands, centres = np.stack([b for b, _ in made]), made[0][1]
    m, s, b, t, f = bands.shape  # windows, segments, bands, frames, bins
    found = run(bands.reshape(m * s * b, t, f), np.tile(centres, m * s))
    return np.asarray(found.reshape(m, s, -1).mean(axis=1), np.float32)


def load_encoder(name: str, *, backend: str = "openvino", stretch: bool = False) -> Encoder:
    """An encoder by its name: the two of indicators, PRESET-untrained[-SEED] (needs torch), or a bundle's name or path.

    Raises ModelError for one that is not known.
    """
    if name in (INDICATORS, NO_ENVELOPE):
        return IndicatorEncoder(envelope=name == INDICATORS)
    if match := UNTRAINED.fullmatch(name):
        return _untrained(name, match["preset"], int(match["seed"] or 0), stretch=stretch)
    bundle = bundles.load(name)
    make: Callable[[bundles.Bundle], Runner] = {**RUNNERS, **LOWER}[backend]
    return ModelEncoder(
        bundle.name, f"{bundle.digest[:17]}-{backend}{_suffix(stretch)}", bundle.frontend, make(bundle), stretch=stretch
    )


def _untrained(name: str, preset: str, seed: int, *, stretch: bool) -> ModelEncoder:
    from fisher_models.families import PRESETS, frontend_spec, model_from_state, seeded_state

    if preset not in PRESETS:
        raise ModelError(f"{name}: {preset!r} is no preset; known are {', '.join(PRESETS)}")
    config = PRESETS[preset]
    state = seeded_state(config, seed=seed)
    total = sum(float(np.abs(values, dtype=np.float64).sum()) for values in state.values())  # the recipe may change
    run = torch_function(model_from_state(config, state))
    identity = f"{preset}-seed{seed}-{total:.3f}{_suffix(stretch)}"
    return ModelEncoder(name, identity, frontend_spec(config), run, stretch=stretch)


def _suffix(stretch: bool) -> str:
    return "-stretched" if stretch else ""
