"""`fisher_models.indicators`: each part answers to what it is named for, and bad input is refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fisher_models.errors import SignalError
from fisher_models.indicators import ENVELOPE, ENVELOPE_BANDS, POWER_BANDS, SHORTEST, indicators

RATE = 12_000
RMS, KURTOSIS, CREST = POWER_BANDS, POWER_BANDS + 1, POWER_BANDS + 2


def _time(seconds: float = 0.5) -> np.ndarray:
    return np.arange(round(seconds * RATE)) / RATE


def test_a_tone_stands_out_in_its_own_band() -> None:
    edges = np.geomspace(4, RATE / 2, POWER_BANDS + 1)  # 2 bins of a window of 0.5 s, to Nyquist
    for hertz in (60.0, 440.0, 3000.0):
        found = indicators(np.sin(2 * np.pi * hertz * _time()).astype(np.float32), RATE)
        assert found[:POWER_BANDS].argmax() == np.searchsorted(edges, hertz) - 1


def test_level_shape_and_crest_have_their_textbook_values() -> None:
    wave = indicators((0.2 * np.sin(2 * np.pi * 100 * _time()) + 5).astype(np.float32), RATE)
    assert wave[RMS] == pytest.approx(np.log10(0.2 / np.sqrt(2)), abs=1e-4)
    assert wave[KURTOSIS] == pytest.approx(1.5, abs=1e-3)
    assert wave[CREST] == pytest.approx(np.sqrt(2), abs=1e-3)
    noise = indicators(np.random.default_rng(0).standard_normal(60_000).astype(np.float32), RATE)
    assert noise[KURTOSIS] == pytest.approx(3, abs=0.1)


def test_the_envelope_holds_the_rate_of_modulation_of_a_carrier() -> None:
    carrier = np.sin(2 * np.pi * 4000 * _time())
    edges = np.geomspace(4, 500, ENVELOPE_BANDS + 1)
    for hertz in (30.0, 107.0, 300.0):
        found = indicators(((1 + 0.5 * np.sin(2 * np.pi * hertz * _time())) * carrier).astype(np.float32), RATE)
        assert found[ENVELOPE].argmax() == np.searchsorted(edges, hertz) - 1


@given(gain=st.floats(0.01, 100))
def test_a_gain_moves_levels_and_nothing_else(gain: float) -> None:
    signal = np.random.default_rng(1).standard_normal(4000).astype(np.float32)
    before, after = indicators(signal, RATE), indicators(np.float32(gain) * signal, RATE)
    assert after[RMS] - before[RMS] == pytest.approx(np.log10(gain), abs=1e-3)
    assert np.allclose(after[:POWER_BANDS] - before[:POWER_BANDS], 2 * np.log10(gain), atol=1e-2)
    assert np.allclose(after[KURTOSIS:], before[KURTOSIS:], atol=1e-2)


@pytest.mark.parametrize("n", [1, 2, SHORTEST - 1])
def test_a_slow_channel_is_its_mean_and_deviation(n: int) -> None:
    samples = np.linspace(3, 7, n, dtype=np.float32)
    assert indicators(samples, 1) == pytest.approx([samples.mean(), samples.std()], rel=1e-5)


@pytest.mark.parametrize("rate", [0.1, 1, 200, 1000, 12_000, 102_400.0, 97_656.25])
@pytest.mark.parametrize("n", [SHORTEST, 200, 5001])
def test_every_rate_and_length_gives_finite_numbers_and_one_length(rate: float, n: int) -> None:
    rng = np.random.default_rng(2)
    for samples in (rng.standard_normal(n), np.zeros(n), np.full(n, 7.0), np.eye(1, n)[0]):
        found = indicators(samples.astype(np.float32), rate)
        assert found.shape == (POWER_BANDS + 3 + ENVELOPE_BANDS,)
        assert found.dtype == np.float32
        assert np.isfinite(found).all()


@pytest.mark.parametrize(
    ("samples", "rate", "says"),
    [
        (np.zeros(0), 100, "one channel"),
        (np.zeros((100, 2)), 100, "one channel"),
        (np.full(100, np.nan), 100, "NaN"),
        (np.full(100, np.inf), 100, "NaN"),
        (np.zeros(100), 0, "rate"),
        (np.zeros(100), float("nan"), "rate"),
    ],
)
def test_what_cannot_be_measured_is_refused(samples: np.ndarray, rate: float, says: str) -> None:
    with pytest.raises(SignalError, match=says):
        indicators(samples.astype(np.float32), rate)
