"""Monitors say when a model has collapsed and what can be read from it; neighbours tell good features from bad."""

import csv
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor

from fisher_models.errors import TrainingError
from fisher_models.families import PRESETS, frontend_spec
from fisher_models.pretrain import heldout, labelled, monitors
from fisher_models.pretrain.config import KnnSpec
from fisher_models.pretrain.statistics import NAMES, statistics

CPU = torch.device("cpu")
FRONTEND = frontend_spec(PRESETS["fisher-tiny"])
SMALL = KnnSpec(machines=2, windows=4, rates_hz=(8000,), frames=48)


def _noise(bands: Tensor, _centres: Tensor) -> Tensor:
    return torch.randn(len(bands), 8, generator=torch.Generator().manual_seed(0))


def _spectrum(bands: Tensor, _centres: Tensor) -> Tensor:
    return torch.cat([bands.mean(1), bands.std(1)], 1)


def test_the_effective_rank_counts_directions() -> None:
    g = torch.Generator().manual_seed(0)
    line = torch.randn(500, 1, generator=g) @ torch.randn(1, 16, generator=g)
    assert monitors.effective_rank(line) == pytest.approx(1, abs=1e-3)
    assert monitors.effective_rank(torch.randn(5000, 16, generator=g)) == pytest.approx(16, rel=0.02)
    assert monitors.effective_rank(torch.ones(10, 4)) == 0


def test_probes_find_what_an_embedding_holds_and_not_what_it_lacks() -> None:
    g = torch.Generator().manual_seed(0)
    level, rough = torch.randn(400, 1, 1, generator=g), torch.rand(400, 1, 1, generator=g)
    bands = level + rough * torch.randn(400, 1, 100, generator=g) + 0.01 * torch.randn(400, 32, 100, generator=g)
    batches = [(some, torch.zeros(len(some))) for some in bands.split(50)]

    def embed(bands: Tensor, _centres: Tensor) -> Tensor:
        noise = torch.randn(len(bands), 3, generator=torch.Generator().manual_seed(int(bands[0, 0, 0] * 1e6) % 1000))
        return torch.cat([bands.mean((1, 2), keepdim=False)[:, None], noise], 1)

    found = monitors.look(embed, batches)
    assert found["r2_level"] > 0.95
    assert found["r2_tonality"] < 0.3
    assert found["deviation"] > 0.5
    collapsed = monitors.look(lambda bands, _c: torch.ones(len(bands), 4), batches)
    assert collapsed["deviation"] == 0
    assert collapsed["rank"] == 0


def test_statistics_say_what_they_are_named_for() -> None:
    t, f = 96, 100
    flat = torch.zeros(1, t, f) + 0.5
    tonal = flat.clone()
    tonal[:, :, ::10] += 2
    swinging = flat + 0.3 * torch.sin(2 * np.pi * 8 * torch.arange(t) / 100)[None, :, None]
    bursts = flat.clone()
    bursts[:, ::24] += 2
    rising = flat + torch.linspace(-1, 1, f)

    def of(bands: Tensor, name: str) -> float:
        return float(statistics(bands)[0, NAMES.index(name)])

    assert of(flat, "level") == pytest.approx(0.5)
    assert of(tonal, "tonality") > of(flat, "tonality") + 0.3
    assert of(swinging, "modulation") > 0.2 > of(flat, "modulation")
    assert of(bursts, "burstiness") > 2 > of(swinging, "burstiness")
    assert of(rising, "tilt") == pytest.approx(2, rel=0.05)
    eight = NAMES.index("modulation6-10Hz")
    rates = statistics(swinging)[0, 13:]
    assert int(rates.argmax()) + 13 == eight


def test_padding_does_not_count_in_statistics() -> None:
    real = torch.randn(4, 48, 51, generator=torch.Generator().manual_seed(0)) + 1
    padded = torch.cat([real, torch.zeros(4, 48, 49)], 2)
    for name in ("level", "tonality", "modulation", "burstiness"):
        at = NAMES.index(name)
        assert torch.allclose(statistics(padded)[:, at], statistics(real)[:, at], atol=1e-5), name


def test_machines_held_out_are_the_same_for_everyone_and_their_faults_can_be_heard() -> None:
    first, again = heldout.make(SMALL, FRONTEND, CPU), heldout.make(SMALL, FRONTEND, CPU)
    assert torch.equal(first[0].bands, again[0].bands)
    assert first[0].bands.shape == (2 * 8 * 4, 1, 48, 100)
    good = heldout.judge(_spectrum, first, CPU)
    bad = heldout.judge(_noise, first, CPU)
    assert good["diagnosis"] > 0.4
    assert good["anomaly"] > 0.7
    assert bad["diagnosis"] < 0.35
    assert 0.2 < bad["anomaly"] < 0.8


def test_auc_counts_ties_half() -> None:
    assert heldout.auc(torch.tensor([0.0, 1.0]), torch.tensor([1.0, 2.0])) == pytest.approx(0.875)


def _manifest(folder: Path, labels: list[str]) -> Path:
    rng = np.random.default_rng(0)
    rows: list[list[object]] = [["file", "channel", "channel_index", "sample_rate_hz", "label", "scale"]]
    for k, label in enumerate(labels):
        tone = np.sin(np.arange(16_000) * {"a": 0.3, "b": 1.1}.get(label, 2.0)) * 0.1
        soundfile.write(folder / f"{k}.flac", (tone + rng.normal(0, 0.02, 16_000)).astype(np.float32), 8000)
        rows.append([f"{k}.flac", "mic", 0, 8000, label, 1.0])
    with (folder / "manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return folder / "manifest.csv"


def test_recordings_are_told_apart_by_others_of_their_label(tmp_path: Path) -> None:
    spec = SMALL.model_copy(update={"manifests": (_manifest(tmp_path, ["a", "a", "b", "b"]),), "window_s": 0.5})
    sets = labelled.load(spec, FRONTEND)
    name = f"knn_{tmp_path.name}_8000"
    assert labelled.judge(_spectrum, sets, CPU) == {name: 1.0}
    assert labelled.judge(_noise, sets, CPU)[name] < 0.9
    assert len(sets[0].recording.unique()) == 4


def test_a_label_in_one_recording_only_cannot_be_found_in_others(tmp_path: Path) -> None:
    spec = SMALL.model_copy(update={"manifests": (_manifest(tmp_path, ["a", "a", "b"]),), "window_s": 0.5})
    found = labelled.judge(_spectrum, labelled.load(spec, FRONTEND), CPU)
    assert found[f"knn_{tmp_path.name}_8000"] == 0.5


def test_a_manifest_without_two_labels_is_refused(tmp_path: Path) -> None:
    spec = SMALL.model_copy(update={"manifests": (_manifest(tmp_path, ["a", "a"]),)})
    with pytest.raises(TrainingError, match="no rate with two labels"):
        labelled.load(spec, FRONTEND)
