"""The torch front-end beside the numpy one, which is beside the published vectors."""

import numpy as np
import pytest
import torch

from fisher_models.errors import SignalError
from fisher_models.families import PRESETS, frontend_spec
from fisher_models.frontend import Frontend
from fisher_models.pretrain.spectra import Spectra


@pytest.mark.parametrize("preset", ["fisher-tiny", "fisher-small", "echo-small"])
@pytest.mark.parametrize("rate_hz", [1000.0, 2000.0, 8000.0, 12800.0, 16000.0, 22050.0, 48000.0, 97656.25])
def test_both_front_ends_make_the_same_bands(preset: str, rate_hz: float) -> None:
    spec = frontend_spec(PRESETS[preset])
    rng = np.random.default_rng(0)
    n = round(1.3 * rate_hz)
    tones = np.sin(np.arange(n) * rng.uniform(0.05, 3, (3, 1)))
    waves = (rng.normal(0.4, 0.05, (3, n)) + 0.3 * tones).astype(np.float32)
    spectra, reference = Spectra(spec), Frontend(spec)
    found, centres = spectra.bands(spectra.log_spectrograms(torch.from_numpy(waves), rate_hz), rate_hz)
    for row, wave in zip(found, waves, strict=True):
        expected, expected_centres = reference.bands(wave, rate_hz)
        assert row.shape == expected.shape
        # Where a bin's terms cancel to under a hundredth, single precision leaves either 1e-4 off the true value.
        cancelled = expected < np.float32((np.log(0.01) - spec.mean) / spec.divisor)
        error = np.abs(row.numpy() - expected)
        assert error[~cancelled].max() < 1e-4
        assert error.max() < 1e-3
        assert np.abs(centres.numpy() - expected_centres).max() < 1e-6
    assert spectra.count(rate_hz) == found.shape[1]
    assert spectra.bins(rate_hz) == reference.log_spectrogram(waves[0], rate_hz).shape[1]


def test_silence_is_the_log_floor_in_both() -> None:
    spec = frontend_spec(PRESETS["fisher-tiny"])
    found = Spectra(spec).log_spectrograms(torch.zeros(1, 8000), 8000)[0].numpy()
    assert np.abs(found - Frontend(spec).log_spectrogram(np.zeros(8000, np.float32), 8000)).max() < 1e-5


def test_input_above_the_longest_is_cut_where_the_spec_says_so() -> None:
    spectra = Spectra(frontend_spec(PRESETS["fisher-tiny"]))
    assert spectra.log_spectrograms(torch.zeros(1, 11000), 1000).shape == (1, 1024, 13)


def test_samples_give_exactly_the_frames_asked_for() -> None:
    spectra = Spectra(frontend_spec(PRESETS["fisher-tiny"]))
    for rate_hz in (1000, 22050, 44100, 97656.25):
        n = spectra.samples(48, rate_hz)
        assert spectra.log_spectrograms(torch.zeros(1, n), rate_hz).shape[1] == 48
        assert spectra.log_spectrograms(torch.zeros(1, n - 1), rate_hz).shape[1] == 47


def test_a_gain_of_the_waveform_is_a_shift_of_its_spectrogram() -> None:
    spectra = Spectra(frontend_spec(PRESETS["fisher-tiny"]))
    wave = torch.randn(1, 4000, generator=torch.Generator().manual_seed(0))
    quiet = spectra.log_spectrograms(wave * 0.01, 4000)
    shifted = spectra.log_spectrograms(wave, 4000) + spectra.gain(torch.tensor(0.01))
    assert (quiet - shifted).abs().max() < 1e-4


def test_too_few_samples_are_refused() -> None:
    with pytest.raises(SignalError, match="less than one frame"):
        Spectra(frontend_spec(PRESETS["fisher-tiny"])).log_spectrograms(torch.zeros(2, 199), 8000)
