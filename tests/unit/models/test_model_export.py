"""Weights to bundles: reproducible, atomic, and never one whose graph is wrong."""

from pathlib import Path

import numpy as np
import pytest
import torch

from fisher_models import export
from fisher_models.bundle import MANIFEST, load
from fisher_models.errors import BundleError
from fisher_models.execute import openvino_runner, torch_runner
from fisher_models.export import export_fisher
from fisher_models.fisher import POSITIONS, PRESETS, FisherConfig, from_bundle, from_state, seeded_fisher, seeded_state
from fisher_models.frontend import Frontend

SMALL = FisherConfig(embed_dim=128, heads=2, band_bins=50, depth=2)


def _export(out: Path, *, seed: int = 0, config: FisherConfig = SMALL) -> Path:
    state = seeded_state(config, seed=seed)
    return export_fisher(config, state, out=out, weights="untrained", origin="a test").path


@pytest.mark.parametrize(
    ("preset", "trainable", "positions"),
    [("tiny", 5_388_288, 1_228_800), ("mini", 9_543_680, 1_638_400), ("small", 21_393_408, 2_457_600)],
)
def test_presets_have_the_published_keys_and_sizes(preset: str, trainable: int, positions: int) -> None:
    state = seeded_fisher(preset, seed=0).state_dict()
    assert len(state) == 150
    assert state.pop(POSITIONS).numel() == positions
    assert sum(value.numel() for value in state.values()) == trainable
    dim = PRESETS[preset].embed_dim
    assert state["blocks.11.mlp.fc1.weight"].shape == (4 * dim, dim)
    assert state["modality_encoders.IMAGE.local_encoder.proj.weight"].shape == (dim, 1, 16, 16)


def test_the_shipped_bundle_is_what_its_origin_says(tmp_path: Path) -> None:
    shipped = load("fisher-tiny")
    assert shipped.origin == "seeded_fisher('tiny', seed=0)"
    state = seeded_state(PRESETS["tiny"], seed=0)
    again = export_fisher(
        PRESETS["tiny"], state, out=tmp_path / "fisher-tiny", weights="untrained", origin=shipped.origin
    )
    assert again.digest == shipped.digest  # over every byte of every file


def test_another_seed_is_another_model(tmp_path: Path) -> None:
    first, second = load(_export(tmp_path / "a", seed=0)), load(_export(tmp_path / "b", seed=1))
    assert np.abs(first.selftest.embedding - second.selftest.embedding).max() > 0.1


@pytest.mark.parametrize("t", [16, 112, 1024])
def test_graph_and_reference_agree_for_every_number_of_patches(tmp_path: Path, t: int) -> None:
    bundle = load(_export(tmp_path / "model"))
    bands = np.random.default_rng(t).normal(-1, 0.5, (3, t, 50)).astype(np.float32)
    assert np.abs(openvino_runner(bundle)(bands) - torch_runner(bundle)(bands)).max() < 1e-5


def test_weights_that_float16_cannot_hold_are_kept_as_float32(tmp_path: Path) -> None:
    state = seeded_state(SMALL, seed=0)
    key = "blocks.1.mlp.fc2.weight"
    state[key] = state[key] + np.float32(1e-6)
    bundle = export_fisher(SMALL, state, out=tmp_path / "model", weights="trained", origin="a test")
    stored = bundle.state()
    assert np.array_equal(stored[key], state[key])
    assert {k for k, v in stored.items() if v.dtype == np.float32} == {key}
    bands = np.random.default_rng(0).normal(-1, 0.5, (2, 32, 50)).astype(np.float32)
    assert np.abs(openvino_runner(bundle)(bands) - torch_runner(bundle)(bands)).max() < 1e-5


def test_leaving_out_rows_that_cannot_be_reached_changes_nothing(tmp_path: Path) -> None:
    whole = from_state(SMALL, seeded_state(SMALL, seed=0))
    cropped = from_bundle(load(_export(tmp_path / "model")))
    bands = torch.from_numpy(np.random.default_rng(0).normal(-1, 0.5, (1, 1024, 50)).astype(np.float32))
    assert torch.equal(whole(bands), cropped(bands))


def test_a_graph_that_does_not_reproduce_the_reference_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = export.graph.build

    def wrong(config: FisherConfig, weights: Path) -> object:
        return build(FisherConfig.from_dict({**config.to_dict(), "eps": 0.1}), weights)

    monkeypatch.setattr(export.graph, "build", wrong)
    with pytest.raises(BundleError, match="not written: the graph is off by"):
        _export(tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_an_older_bundle_is_replaced_whole(tmp_path: Path) -> None:
    before = load(_export(tmp_path / "model", seed=0)).digest
    after = load(_export(tmp_path / "model", seed=1)).digest
    assert before != after
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_folder_that_is_no_bundle_is_not_replaced(tmp_path: Path) -> None:
    precious = tmp_path / "model" / "thesis.txt"
    precious.parent.mkdir()
    precious.write_text("years of work")
    with pytest.raises(BundleError, match="exists and is no bundle"):
        _export(tmp_path / "model")
    assert precious.read_text() == "years of work"
    assert not (tmp_path / "model" / MANIFEST).exists()


@pytest.mark.parametrize("change", ["missing", "extra", "misshapen"])
def test_weights_of_another_model_are_refused_by_key(tmp_path: Path, change: str) -> None:
    state = seeded_state(SMALL, seed=0)
    key = "blocks.1.norm2.weight"
    if change == "missing":
        del state[key]
    elif change == "extra":
        key = "decoder.weight"
        state[key] = np.zeros(3, np.float32)
    else:
        state[key] = state[key][:-1]
    with pytest.raises(BundleError, match=key):
        export_fisher(SMALL, state, out=tmp_path / "model", weights="trained", origin="a test")
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_is_a_number_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="cannot be a bundle's name"):
        _export(tmp_path / "42")


def test_untrained_embeddings_tell_signals_apart(tmp_path: Path) -> None:
    bundle = load("fisher-tiny")
    frontend, run = Frontend(bundle.frontend), openvino_runner(bundle)
    rng, t = np.random.default_rng(0), np.arange(32000) / 16000

    def embedding(x: np.ndarray) -> np.ndarray:
        values = run(frontend.bands(x.astype(np.float32), 16000)[0]).ravel()
        return values / np.linalg.norm(values)

    tone, higher = (embedding(0.1 * np.sin(2 * np.pi * f * t)) for f in (440, 1200))
    noise, other_noise = (embedding(rng.normal(0, 0.1, t.size)) for _ in range(2))
    impulses = embedding(np.where(np.arange(t.size) % 800 == 0, 1.0, 0.0))
    same = 1 - noise @ other_noise
    for a, b in ((tone, noise), (tone, impulses), (noise, impulses)):
        assert 1 - a @ b > 20 * same
    assert 1 - tone @ higher > same
