import numpy as np
import pytest
from numpy.typing import NDArray

from fisher_agent.indicators import (
    is_clipped,
    level,
    measure,
    octave_edges,
    spectrum,
    third_octave_levels,
    third_octaves,
)
from fisher_agent.stages import Floats

RATE_HZ = 8000.0


def sine(hz: float, *, amplitude: float = 1.0, seconds: float = 1.0) -> Floats:
    t = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    return (amplitude * np.sin(2 * np.pi * hz * t)).astype(np.float32)


def test_level_ignores_the_mean() -> None:
    assert level(sine(100) + np.float32(5)).rms == pytest.approx(2**-0.5, rel=1e-4)


def test_equal_samples_are_flat_and_a_single_other_one_is_not() -> None:
    samples = np.full(100, 3.25, np.float32)
    assert level(samples).flat
    samples[7] += 1e-3
    assert not level(samples).flat


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_sample_that_is_no_number_makes_a_window_invalid_and_its_indicators_zero(bad: float) -> None:
    samples = sine(100)
    samples[5] = bad
    assert not level(samples).valid
    assert measure(samples, RATE_HZ, kind="vibration", unit="g").rms == 0


def test_a_sine_has_the_indicators_of_the_textbook() -> None:
    seen = measure(sine(100, amplitude=3), RATE_HZ)
    assert seen.peak == pytest.approx(3, rel=1e-3)
    assert seen.crest == pytest.approx(2**0.5, rel=1e-3)
    assert seen.kurtosis == pytest.approx(1.5, rel=1e-3)


def test_kurtosis_of_normal_noise_is_three() -> None:
    noise = np.random.default_rng(0).normal(size=200_000).astype(np.float32)
    assert measure(noise, RATE_HZ).kurtosis == pytest.approx(3, abs=0.1)


@pytest.mark.parametrize(("unit", "m_s2"), [("g", 9.80665), ("m/s2", 1.0)])
def test_velocity_of_a_sine_is_its_acceleration_over_its_angular_frequency(unit: str, m_s2: float) -> None:
    seen = measure(sine(83.3), RATE_HZ, kind="vibration", unit=unit)
    assert seen.velocity_rms_mm_s == pytest.approx(1000 * m_s2 / 2**0.5 / (2 * np.pi * 83.3), rel=2e-3)


def test_velocity_leaves_out_what_lies_outside_10_to_1000_hz() -> None:
    inside = measure(sine(100), RATE_HZ, kind="vibration", unit="g").velocity_rms_mm_s
    both = measure(sine(100) + sine(3, amplitude=1) + sine(2000), RATE_HZ, kind="vibration", unit="g").velocity_rms_mm_s
    assert both == pytest.approx(inside, rel=1e-3)


@pytest.mark.parametrize(("kind", "unit"), [("current", "g"), ("vibration", "V"), ("vibration", "mm/s")])
def test_velocity_is_given_for_acceleration_only(kind: str, unit: str) -> None:
    assert measure(sine(100), RATE_HZ, kind=kind, unit=unit).velocity_rms_mm_s is None


def test_the_spectrum_sums_to_the_variance() -> None:
    noise = np.random.default_rng(1).normal(size=80_000)
    assert spectrum(noise, RATE_HZ)[1].sum() == pytest.approx(noise.var(), rel=0.03)


def test_third_octaves_are_those_of_the_standard() -> None:
    centres = third_octaves(25_600, 5.0)
    assert np.round(centres[:4], 1).tolist() == [10.0, 12.6, 15.8, 20.0]
    assert octave_edges(float(centres[-1]))[1] <= 12_800 * (1 + 1e-9)
    assert octave_edges(float(third_octaves(25_600, 0.05)[0]))[0] > 100  # a snapshot of 50 ms has bins of 20 Hz


def test_a_tone_stands_in_its_third_octave_at_its_level() -> None:
    centres = third_octaves(RATE_HZ, 1.0)
    levels = third_octave_levels(sine(990), RATE_HZ, centres_hz=centres, floor=1e-8)
    top = int(levels.argmax())
    low, high = octave_edges(float(centres[top]))
    assert low < 990 < high
    assert levels[top] == pytest.approx(10 * np.log10(0.5), abs=0.05)
    assert np.delete(levels, top).max() < -60


def test_the_floor_bounds_an_empty_band() -> None:
    centres = third_octaves(RATE_HZ, 1.0)
    assert third_octave_levels(sine(990), RATE_HZ, centres_hz=centres, floor=1e-4).min() == pytest.approx(-40, abs=0.1)


def test_a_band_without_a_bin_is_not_a_number() -> None:
    centres = third_octaves(RATE_HZ, 1.0)
    levels = third_octave_levels(sine(990, seconds=0.05), RATE_HZ, centres_hz=centres, floor=1e-8)  # bins of 20 Hz
    assert np.isnan(levels[0])
    assert np.isfinite(levels[centres > 100]).all()


def noise(seed: int) -> NDArray[np.float64]:
    return np.random.default_rng(seed).normal(size=8000)


@pytest.mark.parametrize(
    ("samples", "clipped"),
    [
        (np.clip(noise(0), -1.5, 1.5), True),
        (np.clip(noise(1), -np.inf, 1.5), True),
        (np.clip(1.05 * sine(50), -1, 1), True),
        (noise(2), False),
        (sine(50), False),
        (np.round(1000 * sine(5)), False),  # a slow sine in steps of its converter stays long at the top
        (np.round(2 * noise(3)), False),  # a few steps of noise
        (np.where(sine(50) >= 0, 1, -1), False),  # a digital signal has no other value
    ],
)
def test_clipping_is_samples_that_pile_up_at_an_extreme(samples: NDArray[np.float64], clipped: bool) -> None:
    assert is_clipped(samples.astype(np.float32)) is clipped
