"""What a lower precision costs: generated machines to measure it on, and the measure. numpy only.

A precision is judged by what the agent does with an embedding: whether it keeps its direction (cosine), the order of
distances (Spearman's rank correlation over all pairs) and the nearest neighbour (share of inputs that keep theirs).
"""

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from fisher_models.frontend import Floats, Frontend, FrontendSpec

MAX_BANDS = 96
_SECONDS = 1.0
_RATES_HZ = (8_000.0, 16_000.0, 25_600.0, 48_000.0)
_STATES = (0.0, 0.0, 0.5, 2.0)  # strength of the fault, in units of the machine's own level: two normal, two not


@dataclass(frozen=True, slots=True)
class Quality:
    """How close one precision's embeddings are to float32's."""

    cosine: float  # the worst of all inputs
    spearman: float  # of the cosine distances of all pairs
    nearest: float  # share of inputs with the same nearest neighbour

    def to_dict(self) -> dict[str, float]:
        """For manifests and reports."""
        return {key: round(value, 6) for key, value in asdict(self).items()}


def bands(spec: FrontendSpec, *, seed: int) -> tuple[Floats, Floats]:
    """(n, t, f), (n,): bands of 16 generated machine states at several rates, at most `MAX_BANDS`, evenly thinned.

    Each machine is coloured noise, harmonics of its shaft and noise modulated by it; its fault is a train of decaying
    resonances (the model of McFadden and Smith 1984). The same seed gives the same bands.
    """
    frontend, rng = Frontend(spec), np.random.default_rng(seed)
    made = [frontend.bands(wave, rate_hz) for rate_hz in _RATES_HZ for wave in _machine(rng, rate_hz)]
    all_bands, centres = np.concatenate([b for b, _ in made]), np.concatenate([c for _, c in made])
    kept = np.linspace(0, len(all_bands) - 1, min(len(all_bands), MAX_BANDS)).round().astype(int)
    return np.ascontiguousarray(all_bands[kept]), centres[kept]


def quality(reference: Floats, found: Floats) -> Quality:
    """Two sets of embeddings (n, d) of the same inputs, n >= 3; what is not finite has a quality of zero."""
    if not np.isfinite(found).all():
        return Quality(0.0, 0.0, 0.0)
    a, b = _unit(reference), _unit(found)
    pairs = np.triu_indices(len(a), 1)
    near_a, near_b = (np.round(x @ x.T, 12) for x in (a, b))  # finer differences are those of the summation
    ranks = _ranks(near_a[pairs]), _ranks(near_b[pairs])
    alike = any(np.ptp(r) == 0 for r in ranks)  # embeddings that are all alike have no order
    np.fill_diagonal(near_a, -np.inf)
    np.fill_diagonal(near_b, -np.inf)
    return Quality(
        cosine=float(np.einsum("ij,ij->i", a, b).min()),
        spearman=0.0 if alike else float(np.corrcoef(*ranks)[0, 1]),
        nearest=float((near_a.argmax(axis=1) == near_b.argmax(axis=1)).mean()),
    )


def _machine(rng: np.random.Generator, rate_hz: float) -> list[Floats]:
    """One machine in each of `_STATES`."""
    shaft_hz, fault_hz, resonance_hz = rng.uniform(15, 50), rng.uniform(60, 140), rng.uniform(0.15, 0.4) * rate_hz
    slope, level = rng.uniform(0.3, 1.2), 10 ** rng.uniform(-2, 0)
    return [level * _wave(rng, rate_hz, shaft_hz, fault_hz, resonance_hz, slope, state) for state in _STATES]


def _wave(
    rng: np.random.Generator, rate_hz: float, shaft_hz: float, fault_hz: float, resonance_hz: float,
    slope: float, fault: float,
) -> Floats:  # fmt: skip
    n = round(rate_hz * _SECONDS)
    t_s = np.arange(n) / rate_hz
    spectrum = np.fft.rfft(rng.standard_normal(n)) / np.maximum(np.arange(n // 2 + 1), 20.0) ** (slope / 2)
    noise = np.fft.irfft(spectrum, n)
    noise /= noise.std()
    hum = sum(np.sin(2 * np.pi * (k * shaft_hz * t_s + rng.uniform())) / k for k in range(1, 9))
    modulated = 0.3 * rng.standard_normal(n) * (1 + 0.8 * np.sin(2 * np.pi * shaft_hz * t_s))
    since_s = np.mod(t_s + rng.uniform() / fault_hz, 1 / fault_hz)
    ringing = np.exp(-since_s * 800) * np.sin(2 * np.pi * resonance_hz * since_s)
    return np.asarray(noise + hum + modulated + 3 * fault * ringing, np.float32)


def _unit(vectors: Floats) -> NDArray[np.float64]:
    wide = np.asarray(vectors, np.float64)
    return np.asarray(wide / np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-30), np.float64)


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Equal values share the mean of their ranks."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts + 1) / 2)[inverse], np.float64)
