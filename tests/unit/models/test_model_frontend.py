"""The front-end beside the reference vectors: rates, lengths, bands, and what it refuses."""

import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.signal.windows import hann

from fisher_models.errors import BundleError, SignalError
from fisher_models.frontend import Floats, Frontend, FrontendSpec

SPEC = FrontendSpec(mean=-3.0, divisor=4.3, band_bins=100)
FRONTEND = Frontend(SPEC)
KEEPING = Frontend(  # every bin and every frame is seen, and what is longer than one pass is segmented
    FrontendSpec(
        mean=-5.9,
        divisor=10.4,
        band_bins=32,
        patch_bins=32,
        max_frames=64,
        remainder="pad-front",
        trailing="pad",
        longer="mean",
    )
)


def _noise(n: int) -> Floats:
    return np.random.default_rng(0).normal(0, 0.1, n).astype(np.float32)


def test_a_frame_is_the_windowed_transform_by_its_definition() -> None:
    x = _noise(16000)
    found = FRONTEND.log_spectrogram(x, 16000)
    segment = (x - x.mean())[3 * 160 : 3 * 160 + 400].astype(np.float64) * hann(400, sym=False)
    expected = (np.log(np.abs(np.fft.rfft(segment)) + 1e-10) + 3.0) / 4.3
    assert found.shape == (98, 201)
    assert np.abs(found[3] - expected).max() < 1e-5


def test_a_constant_added_to_the_waveform_changes_nothing() -> None:
    x = _noise(16000)
    assert np.abs(FRONTEND.log_spectrogram(x + np.float32(2), 16000) - FRONTEND.log_spectrogram(x, 16000)).max() < 1e-2


def test_silence_is_the_log_floor() -> None:
    found = FRONTEND.log_spectrogram(np.zeros(8000, np.float32), 16000)
    assert np.allclose(found, (np.log(1e-10) + 3.0) / 4.3, atol=1e-6)


@pytest.mark.parametrize(
    ("rate_hz", "bands", "unseen"),
    [
        (1000, 1, None),
        (4000, 1, None),
        (7960, 1, None),
        (8000, 1, None),
        (12000, 1, (4000, 6000)),
        (12800, 1, (4000, 6400)),
        (16000, 2, None),
        (25600, 3, (12000, 12800)),
        (48000, 6, None),
        (97656.25, 12, (48008, 48828.1)),
    ],
)
def test_bands_and_what_is_not_seen_follow_from_the_rate(
    rate_hz: float, bands: int, unseen: tuple[float, float] | None
) -> None:
    edges = FRONTEND.band_edges_hz(rate_hz)
    assert len(edges) == bands
    assert edges[0][0] == 0
    assert all(high == low for (_, high), (low, _) in pairwise(edges))
    found = FRONTEND.unseen_hz(rate_hz)
    assert (found is None) == (unseen is None)
    if found is None:
        assert edges[-1][1] == rate_hz / 2
    else:
        assert found == pytest.approx(unseen, rel=1e-4)
    made, centres = FRONTEND.bands(_noise(round(rate_hz)), rate_hz)
    assert made.shape == (bands, 96, 100)
    assert made.dtype == centres.dtype == np.float32
    assert len(centres) == bands


def test_bands_are_cut_low_band_first_and_the_remainder_is_dropped() -> None:
    x = _noise(25600)
    seen = FRONTEND.log_spectrogram(x, 25600)
    bands, centres = FRONTEND.bands(x, 25600)
    assert seen.shape == (98, 321)
    assert all(np.array_equal(bands[b], seen[:96, 100 * b : 100 * b + 100]) for b in range(3))
    assert centres == pytest.approx([(2 * b * 100 + 99) / 640 for b in range(3)])


def test_a_rate_under_one_band_is_padded_with_zeros_at_the_high_end() -> None:
    x = _noise(4000)
    bands, centres = FRONTEND.bands(x, 4000)
    assert np.array_equal(bands[0, :, :51], FRONTEND.log_spectrogram(x, 4000)[:96])
    assert not bands[0, :, 51:].any()
    assert centres == pytest.approx([0.5])


def test_short_input_is_padded_with_zeros_to_one_patch() -> None:
    x = _noise(1600)  # 0.1 s: 8 frames
    bands, _ = FRONTEND.bands(x, 16000)
    assert bands.shape == (2, 16, 100)
    assert np.array_equal(bands[0, :8], FRONTEND.log_spectrogram(x, 16000)[:, :100])
    assert not bands[:, 8:].any()


def test_padding_comes_before_the_cut_to_whole_patches() -> None:
    x = _noise(16000)  # 98 frames, of which 2 fill no patch
    padded, _ = FRONTEND.bands(x, 16000, pad_frames=1024)
    assert padded.shape == (2, 1024, 100)
    assert np.array_equal(padded[0, :98], FRONTEND.log_spectrogram(x, 16000)[:, :100])
    assert not padded[:, 98:].any()
    assert FRONTEND.bands(x, 16000, pad_frames=5000)[0].shape == (2, 1024, 100)
    assert np.array_equal(FRONTEND.bands(x, 16000, pad_frames=50)[0], FRONTEND.bands(x, 16000)[0])


def test_only_the_first_frames_are_seen_but_the_mean_is_of_all() -> None:
    x = np.concatenate([np.zeros(200_000, np.float32), np.full(200_000, 2, np.float32)])
    found = FRONTEND.log_spectrogram(x, 16000)
    assert len(found) == FRONTEND.frames(len(x), 16000) == 1024
    assert found[0, 0] > found[0, 100] + 1  # the start lies 1 below the mean, and a constant has power in bin 0


@given(st.integers(0, 60_000), st.sampled_from([1000, 2000, 8000, 11025, 11025 * 2.5, 44100, 97656.25]))
def test_frames_says_how_many_frames_there_will_be(n: int, rate_hz: float) -> None:
    frames = FRONTEND.frames(n, rate_hz)
    if frames == 0:
        with pytest.raises(SignalError, match="less than one frame"):
            FRONTEND.log_spectrogram(np.zeros(n, np.float32), rate_hz)
    else:
        assert len(FRONTEND.log_spectrogram(np.zeros(n, np.float32), rate_hz)) == frames


def test_min_samples_is_the_least_that_fills_a_patch() -> None:
    assert FRONTEND.min_samples(16000) == 2800
    assert FRONTEND.frames(2800, 16000) == 16
    assert FRONTEND.frames(2799, 16000) == 15


@pytest.mark.parametrize("rate_hz", [0, -16000, 200, 999.9, np.nan, np.inf])
def test_a_rate_that_the_model_cannot_see_is_refused(rate_hz: float) -> None:
    with pytest.raises(SignalError, match="sees nothing under 1000 Hz"):
        FRONTEND.bands(_noise(16000), rate_hz)
    with pytest.raises(SignalError):
        FRONTEND.band_edges_hz(rate_hz)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("position", [0, 250_000], ids=["seen", "beyond the last frame"])
def test_a_sample_that_is_not_finite_is_refused(bad: float, position: int) -> None:
    x = _noise(300_000)
    x[position] = bad
    with pytest.raises(SignalError, match="NaN or infinite"):
        FRONTEND.bands(x, 16000)


def test_samples_beyond_float32_are_refused() -> None:
    with pytest.raises(SignalError, match="too large"):
        FRONTEND.bands(np.tile([1e300, -1e300], 8000), 16000)  # type: ignore[arg-type]


def test_two_channels_at_once_are_refused() -> None:
    with pytest.raises(SignalError, match="one channel at a time"):
        FRONTEND.bands(np.zeros((2, 16000), np.float32), 16000)


def test_the_waveform_is_left_as_it_was() -> None:
    x = _noise(16000)
    x.setflags(write=False)
    FRONTEND.bands(x, 16000)
    assert np.array_equal(x, _noise(16000))


def test_a_spec_survives_json() -> None:
    assert FrontendSpec.from_dict(json.loads(json.dumps(SPEC.to_dict()))) == SPEC


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"band_bins": "100"}, "band_bins is '100', expected int"),
        ({"band_bins": True}, "band_bins"),
        ({"mean": None}, "mean"),
        ({"colour": 1}, "missing or unknown: colour"),
        ({"remainder": "keep"}, r"remainder 'keep' is not known to this version \(drop, pad-front\)"),
        ({"trailing": "fold"}, "trailing 'fold'"),
        ({"longer": "forget"}, "longer 'forget'"),
        ({"longer": 1}, "longer is 1, expected str"),
        ({"trailing": "pad", "max_frames": 1000}, "must be a multiple of patch_frames"),
        ({"divisor": 0.0}, "must be positive: divisor"),
        ({"hop_ms": 0.1}, "less than one sample"),
        ({"band_bins": 8}, "smaller than one patch"),
    ],
)
def test_a_spec_that_cannot_be_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(BundleError, match=message):
        FrontendSpec.from_dict({**SPEC.to_dict(), **change})


def test_a_spec_with_a_missing_key_is_refused() -> None:
    values = SPEC.to_dict()
    del values["log_floor"]
    with pytest.raises(BundleError, match="missing or unknown: log_floor"):
        FrontendSpec.from_dict(values)
    with pytest.raises(BundleError, match="expected an object"):
        FrontendSpec.from_dict([])


def test_a_spec_from_before_the_rules_on_time_means_the_first_of_each() -> None:
    values = SPEC.to_dict()
    del values["trailing"], values["longer"]
    assert FrontendSpec.from_dict(values) == SPEC
    assert (SPEC.trailing, SPEC.longer) == ("drop", "cut")


def test_the_longest_input_follows_from_the_spec() -> None:
    assert SPEC.longest_s == pytest.approx(10.255)
    assert KEEPING.spec.longest_s == np.inf


@pytest.mark.parametrize(
    ("rate_hz", "n_fft", "bins", "bands"),
    [
        (1000, 25, 13, 1),
        (2000, 50, 26, 1),
        (2480, 62, 32, 1),
        (2560, 64, 33, 2),
        (8000, 200, 101, 4),
        (16000, 400, 201, 7),
        (22050, 551, 276, 9),
        (25600, 640, 321, 11),
        (48000, 1200, 601, 19),
        (64000, 1600, 801, 26),
    ],
)
def test_a_remainder_that_is_kept_is_a_band_of_its_own_with_zeros_below(
    rate_hz: float, n_fft: int, bins: int, bands: int
) -> None:
    x = _noise(round(rate_hz * 0.5))
    seen, (made, centres) = KEEPING.log_spectrogram(x, rate_hz), KEEPING.bands(x, rate_hz)
    frames = len(seen)
    assert (seen.shape[1], len(made)) == (bins, bands)
    for b, band in enumerate(made):
        start, end = 32 * b, min(32 * b + 32, bins)
        missing = 32 - (end - start)
        assert np.array_equal(band[:frames, missing:], seen[:, start:end])
        assert not band[:, :missing].any()
        assert centres[b] == pytest.approx((start + end - 1) / n_fft)
    edges = KEEPING.band_edges_hz(rate_hz)
    assert len(edges) == bands
    assert (edges[0][0], edges[-1][1]) == (0, rate_hz / 2)
    assert all(high == low for (_, high), (low, _) in pairwise(edges))
    assert all(low <= high for low, high in edges)
    assert KEEPING.unseen_hz(rate_hz) is None


@pytest.mark.parametrize(("frames", "t"), [(1, 16), (16, 16), (17, 32), (50, 64), (64, 64)])
def test_trailing_frames_that_are_kept_are_padded_to_a_whole_patch(frames: int, t: int) -> None:
    x = _noise(400 + (frames - 1) * 160)
    bands, _ = KEEPING.bands(x, 16000)
    assert bands.shape == (7, t, 32)
    assert np.array_equal(bands[0, :frames], KEEPING.log_spectrogram(x, 16000)[:, :32])
    assert not bands[:, frames:].any()


@pytest.mark.parametrize(
    ("frames", "starts"),
    [(64, [0]), (65, [0, 1]), (127, [0, 63]), (128, [0, 64]), (129, [0, 64, 65]), (200, [0, 64, 128, 136])],
)
def test_longer_input_is_cut_into_segments_of_which_the_last_ends_with_it(frames: int, starts: list[int]) -> None:
    x = _noise(400 + (frames - 1) * 160)
    seen = KEEPING.log_spectrogram(x, 16000)
    assert len(seen) == KEEPING.frames(len(x), 16000) == frames
    segments, centres = KEEPING.segments(x, 16000)
    assert segments.shape == (len(starts), 7, 64, 32)
    assert centres.shape == (7,)
    for segment, start in zip(segments, starts, strict=True):
        assert np.array_equal(segment[2], seen[start : start + 64, 64:96])
    if len(starts) > 1:
        with pytest.raises(SignalError, match=f"are {len(starts)} segments"):
            KEEPING.bands(x, 16000)


def test_input_that_is_cut_is_one_segment() -> None:
    x = _noise(200_000)
    segments, centres = FRONTEND.segments(x, 16000)
    bands, same = FRONTEND.bands(x, 16000)
    assert segments.shape == (1, 2, 1024, 100)
    assert np.array_equal(segments[0], bands)
    assert np.array_equal(centres, same)


def test_the_width_of_a_band_comes_from_the_spec() -> None:
    narrow = Frontend(replace(SPEC, band_bins=50))
    assert narrow.bands(_noise(16000), 16000)[0].shape == (4, 96, 50)
