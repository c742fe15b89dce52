"""Weights to bundles: reproducible, atomic, and never one whose graph is wrong."""

from importlib.resources import files
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from safetensors.numpy import load_file

from fisher_models import export, graph_echo
from fisher_models.bundle import MANIFEST, load
from fisher_models.echo import EchoConfig
from fisher_models.errors import BundleError
from fisher_models.execute import openvino_graph, openvino_runner, torch_runner
from fisher_models.export import export as export_bundle
from fisher_models.families import (
    PRESETS,
    Config,
    config_from,
    frontend_spec,
    model_from,
    model_from_state,
    seeded_state,
)
from fisher_models.fisher import FisherConfig
from fisher_models.frontend import Frontend
from fisher_models.nodes import linear_weights
from fisher_models.recordings import from_files

SMALL = FisherConfig(embed_dim=128, heads=2, band_bins=50, depth=2)
SMALL_ECHO = EchoConfig(embed_dim=128, heads=2, depth=2)
BOTH = pytest.mark.parametrize("config", [SMALL, SMALL_ECHO], ids=["fisher", "echo"])


def _export(out: Path, *, seed: int = 0, config: Config = SMALL) -> Path:
    state = seeded_state(config, seed=seed)
    return export_bundle(config, state, out=out, weights="untrained", origin="a test").path


RECORDINGS = Path(str(files("fisher_agent.recordings")))


def _given(n: int, t: int, config: Config) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(t)
    bands = rng.normal(-1, 0.5, (n, t, config.band_bins)).astype(np.float32)
    return bands, rng.uniform(0, 1, n).astype(np.float32)


def test_the_shipped_bundle_comes_out_again_from_its_weights(tmp_path: Path) -> None:
    shipped = load("fisher-tiny")
    assert shipped.weights == "trained"
    assert shipped.origin.startswith("fisher-models pretrain --config cpu-small")
    again = export_bundle(
        PRESETS["fisher-tiny"],
        load_file(shipped.weights_path),
        out=tmp_path / "fisher-tiny",
        weights=shipped.weights,
        origin=shipped.origin,
        calibrate=from_files(sorted(RECORDINGS.glob("mcsa_misalignment/*.flac"))),
    )
    assert again.digest == shipped.digest  # over every byte of every file


@BOTH
def test_exporting_again_gives_the_same_bytes(tmp_path: Path, config: Config) -> None:
    digests = {load(_export(tmp_path / folder / "model", config=config)).digest for folder in ("a", "b")}
    assert len(digests) == 1


@BOTH
def test_a_bundle_says_what_its_graph_takes(tmp_path: Path, config: Config) -> None:
    bundle = load(_export(tmp_path / "model", config=config))
    inputs = {port.name for port in onnx.load(bundle.graph_path, load_external_data=False).graph.input}
    assert inputs == ({"bands", "centres"} if bundle.family == "echo" else {"bands"})
    assert bundle.frontend == frontend_spec(config)
    assert config_from(bundle.model).embed_dim == bundle.embed_dim == 128


def test_another_seed_is_another_model(tmp_path: Path) -> None:
    first, second = load(_export(tmp_path / "a", seed=0)), load(_export(tmp_path / "b", seed=1))
    assert np.abs(first.selftest.embedding - second.selftest.embedding).max() > 0.1


@BOTH
@pytest.mark.parametrize("t", [16, 112, 1024])
def test_graph_and_reference_agree_for_every_number_of_patches(tmp_path: Path, t: int, config: Config) -> None:
    bundle, given = load(_export(tmp_path / "model", config=config)), _given(3, t, config)
    assert np.abs(openvino_runner(bundle)(*given) - torch_runner(bundle)(*given)).max() < 1e-5


def test_the_shortened_last_block_gives_what_the_whole_one_gives(tmp_path: Path) -> None:
    bundle, (bands, centres) = load(_export(tmp_path / "model", config=SMALL_ECHO)), _given(3, 160, SMALL_ECHO)
    path = bundle.path / "whole.onnx"
    path.write_bytes(graph_echo.build(SMALL_ECHO, bundle.weights_path, frames=True).SerializeToString())
    whole, short = openvino_graph(path, "embedding")(bands, centres), openvino_runner(bundle)(bands, centres)
    assert np.abs(whole - short).max() < 1e-5
    with torch.inference_mode():
        tokens = model_from(bundle).tokens(torch.from_numpy(bands), torch.from_numpy(centres)).numpy()
    assert np.abs(openvino_graph(path, "frames")(bands, centres) - tokens[:, 1:]).max() < 1e-5


@BOTH
def test_every_linear_layer_of_a_graph_names_its_weight(tmp_path: Path, config: Config) -> None:
    bundle = load(_export(tmp_path / "model", config=config))
    weights = linear_weights(onnx.load(bundle.graph_path, load_external_data=False))
    assert len(weights) == 4 * config.depth - 1  # the last block's queries, keys and values are of one token each
    assert all(bundle.state()[key].ndim == 2 for key in weights.values())


@BOTH
@pytest.mark.parametrize("t", [8, 40, 2064], ids=["no whole patch", "half a patch", "more than there are positions"])
def test_what_is_no_number_of_patches_fails_or_is_cut_but_is_never_padded(
    tmp_path: Path, t: int, config: Config
) -> None:
    run, (bands, centres) = openvino_runner(load(_export(tmp_path / "model", config=config))), _given(2, t, config)
    if t == 40 and config is SMALL:  # a convolution leaves out what fills no patch
        assert np.array_equal(run(bands, centres), run(bands[:, :32], centres))
    else:
        with pytest.raises(RuntimeError):
            run(bands, centres)


def test_weights_that_float16_cannot_hold_are_kept_as_float32(tmp_path: Path) -> None:
    state = seeded_state(SMALL, seed=0)
    key = "blocks.1.mlp.fc2.weight"
    state[key] = state[key] + np.float32(1e-6)
    bundle = export_bundle(SMALL, state, out=tmp_path / "model", weights="trained", origin="a test")
    stored = bundle.state()
    assert np.array_equal(stored[key], state[key])
    assert {k for k, v in stored.items() if v.dtype == np.float32} == {key}
    given = _given(2, 32, SMALL)
    assert np.abs(openvino_runner(bundle)(*given) - torch_runner(bundle)(*given)).max() < 1e-5


def test_leaving_out_rows_that_cannot_be_reached_changes_nothing(tmp_path: Path) -> None:
    whole = model_from_state(SMALL, seeded_state(SMALL, seed=0))
    cropped = model_from(load(_export(tmp_path / "model")))
    bands, centres = (torch.from_numpy(values) for values in _given(1, 1024, SMALL))
    assert torch.equal(whole(bands, centres), cropped(bands, centres))
    assert len(whole.state_dict()) == len(cropped.state_dict())


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
        export_bundle(SMALL, state, out=tmp_path / "model", weights="trained", origin="a test")
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_is_a_number_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="cannot be a bundle's name"):
        _export(tmp_path / "42")


@pytest.mark.parametrize("preset", ["fisher-tiny", "echo-tiny"])
def test_untrained_embeddings_tell_signals_apart(preset: str) -> None:
    config = PRESETS[preset]
    model, frontend = model_from_state(config, seeded_state(config, seed=0)), Frontend(frontend_spec(config))
    rng, t = np.random.default_rng(0), np.arange(32000) / 16000

    def embedding(x: np.ndarray) -> np.ndarray:
        given = [torch.from_numpy(values) for values in frontend.bands(x.astype(np.float32), 16000)]
        with torch.inference_mode():
            values = model(*given).numpy().ravel()
        return values / np.linalg.norm(values)

    tone, higher = (embedding(0.1 * np.sin(2 * np.pi * f * t)) for f in (440, 1200))
    noise, other_noise = (embedding(rng.normal(0, 0.1, t.size)) for _ in range(2))
    impulses = embedding(np.where(np.arange(t.size) % 800 == 0, 1.0, 0.0))
    same = 1 - noise @ other_noise
    for a, b in ((tone, noise), (tone, impulses), (noise, impulses)):
        assert 1 - a @ b > 20 * same
    assert 1 - tone @ higher > same


def test_the_self_test_of_an_echo_needs_its_centres(tmp_path: Path) -> None:
    bundle = load(_export(tmp_path / "model", config=SMALL_ECHO))
    test, run = bundle.selftest, openvino_runner(bundle)
    assert np.abs(run(test.bands, test.centres) - test.embedding).max() < 1e-5
    assert np.abs(run(test.bands, test.centres[::-1].copy()) - test.embedding).max() > 0.1
