"""Batches: shapes, determinism by step and rank, crops, bands at any offset, recordings with a licence."""

import csv
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from fisher_models.errors import TrainingError
from fisher_models.families import PRESETS, frontend_spec
from fisher_models.pretrain.config import CorpusSpec, RecordedSpec
from fisher_models.pretrain.data import Feed
from fisher_models.pretrain.ranks import Rank

CPU = torch.device("cpu")
FISHER, ECHO = frontend_spec(PRESETS["fisher-tiny"]), frontend_spec(PRESETS["echo-tiny"])
SMALL = CorpusSpec(rates_hz=(4000, 16000, 25600), sub_bands=6, min_frames=32, max_frames=64)


def _feed(spec: CorpusSpec = SMALL, *, index: int = 0, world: int = 1, seed: int = 0) -> Feed:
    return Feed(spec, FISHER, seed=seed, rank=Rank(index, world, CPU))


def test_a_batch_depends_on_its_step_alone() -> None:
    feed = _feed()
    early = [feed.batch(step) for step in range(4)]
    late = _feed().batch(3)
    assert torch.equal(early[3].bands, late.bands)
    assert not any(torch.equal(early[3].bands, b.bands) for b in early[:3] if b.bands.shape == late.bands.shape)
    assert not torch.equal(_feed(seed=1).batch(3).bands.mean(), late.bands.mean())


def test_ranks_draw_one_shape_and_different_signals() -> None:
    batches = [_feed(index=i, world=2).batch(5) for i in range(2)]
    assert batches[0].rate_hz == batches[1].rate_hz
    assert batches[0].bands.shape == batches[1].bands.shape
    assert not torch.allclose(batches[0].bands, batches[1].bands)


def test_batches_hold_as_many_sub_bands_of_every_rate_and_length() -> None:
    feed, seen = _feed(), set()
    for step in range(20):
        batch = feed.batch(step)
        crops, t, f = batch.bands.shape
        assert (crops, f, batch.crops) == (12, 100, 2)
        assert t % 16 == 0
        assert 32 <= t <= 64
        assert torch.equal(batch.centres[:6], batch.centres[6:])
        assert torch.isfinite(batch.bands).all()
        seen.add((batch.rate_hz, t))
    assert {rate for rate, _ in seen} == {4000, 16000, 25600}
    assert {t for _, t in seen} == {32, 48, 64}


def test_padding_above_a_low_rate_stays_zero_whatever_the_gain() -> None:
    batch = _feed(CorpusSpec(rates_hz=(4000,), sub_bands=4, min_frames=32, max_frames=32)).batch(0)
    assert (batch.bands[:, :, 51:] == 0).all()
    assert (batch.bands[:, :, :51] != 0).all()


def test_two_crops_differ_in_gain_and_place_but_not_in_machine() -> None:
    plain = CorpusSpec(rates_hz=(16000,), sub_bands=8, min_frames=64, max_frames=64, crop_spread=0.0, gain_db=20)
    first, second = _feed(plain).batch(0).bands.chunk(2)
    shift = second - first
    assert shift.std((1, 2)).max() < 1e-4, "with no room to move, crops differ by their gains alone"
    levels = shift.mean((1, 2)) * FISHER.divisor * 20 / np.log(10)
    assert levels.abs().max() <= 40.1
    assert levels.std() > 5
    moved = plain.model_copy(update={"crop_spread": 1.0, "gain_db": 0.0})
    first, second = _feed(moved).batch(0).bands.chunk(2)
    assert (second - first).std((1, 2)).min() > 0.01
    other = (second.roll(2, 0) - first).square().mean()
    assert (second - first).square().mean() < 0.7 * other


def test_echo_bands_start_anywhere_and_carry_their_own_centre() -> None:
    spec = CorpusSpec(rates_hz=(16000,), sub_bands=40, min_frames=32, max_frames=32, crops=1, random_bands=True)
    batch = Feed(spec, ECHO, seed=0, rank=Rank(0, 1, CPU)).batch(0)
    assert batch.bands.shape == (40, 32, 32)
    starts = (batch.centres * 400 - 31) / 2  # p = (2 s + 31) / n_fft
    assert torch.allclose(starts, starts.round(), atol=1e-3)
    assert starts.min() >= 0
    assert starts.max() <= 201 - 32
    assert len({int(s) % 32 for s in starts.round()}) > 10, "not only on the grid"


def test_echo_pads_a_band_that_is_wider_than_the_spectrum_at_its_low_end() -> None:
    spec = CorpusSpec(rates_hz=(2000,), sub_bands=3, min_frames=32, max_frames=32, crops=1, random_bands=True)
    batch = Feed(spec, ECHO, seed=0, rank=Rank(0, 1, CPU)).batch(0)
    assert (batch.bands[:, :, :6] == 0).all()
    assert (batch.bands[:, :, 6:] != 0).all()


def _manifest(folder: Path, *, licence: str = "CC BY 4.0", split: str = "train", seconds: float = 1.0) -> Path:
    rng = np.random.default_rng(0)
    soundfile.write(
        folder / "a.flac", rng.normal(0, 0.01, round(8000 * seconds)).astype(np.float32), 8000, subtype="PCM_16"
    )
    columns = ["file", "channel", "channel_index", "sample_rate_hz", "label", "scale", "licence", "split_hint"]
    path = folder / "manifest.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([columns, ["a.flac", "mic", 0, 8000, "x", 1.0, licence, split]])
    return path


def test_recordings_are_mixed_in_at_their_rate_and_at_an_rms_of_a_tenth(tmp_path: Path) -> None:
    recorded = RecordedSpec(manifests=(_manifest(tmp_path),), share=1.0)
    batch = _feed(SMALL.model_copy(update={"recorded": recorded, "gain_db": 0.0})).batch(0)
    assert batch.rate_hz == 8000
    level = batch.bands.mean() * FISHER.divisor + FISHER.mean
    assert float(level) == pytest.approx(np.log(0.1 * (3 / 8 * 200) ** 0.5) - 0.288, abs=0.1)  # of white noise, Hann


def test_short_recordings_shorten_the_batch(tmp_path: Path) -> None:
    recorded = RecordedSpec(manifests=(_manifest(tmp_path, seconds=0.4),), share=1.0)
    batch = _feed(SMALL.model_copy(update={"recorded": recorded, "min_frames": 64})).batch(0)
    assert batch.bands.shape[1] == 32


@pytest.mark.parametrize(
    ("licence", "split"), [("CC BY-NC 3.0", "train"), ("no explicit licence", "train"), ("MIT", "test")]
)
def test_recordings_without_the_licence_or_held_back_for_tests_are_refused(
    tmp_path: Path, licence: str, split: str
) -> None:
    recorded = RecordedSpec(manifests=(_manifest(tmp_path, licence=licence, split=split),), share=0.5)
    with pytest.raises(TrainingError, match="holds nothing whose licence"):
        _feed(SMALL.model_copy(update={"recorded": recorded}))
