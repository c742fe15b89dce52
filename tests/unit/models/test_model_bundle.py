"""A bundle proves itself: what is missing, damaged, foreign or unknown is refused by name."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fisher_models import bundle as bundles
from fisher_models.bundle import FILES, LOWER, Bundle, installed, load
from fisher_models.errors import BundleError


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(load("fisher-tiny").path, tmp_path / "fisher-tiny"))


def _edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


def test_the_shipped_bundle_says_what_it_is() -> None:
    bundle = load("fisher-tiny")
    assert "fisher-tiny" in installed()
    assert (bundle.name, bundle.family, bundle.embed_dim, bundle.weights) == ("fisher-tiny", "fisher", 192, "trained")
    assert bundle.frontend.band_bins == 100
    assert bundle.tolerance["f32"] == 1e-3
    assert bundle.tolerance.keys() == {"f32", "bf16", *LOWER}
    assert {precision: path.name for precision, path in bundle.lower.items()} == LOWER
    assert bundle.digest.startswith("b")
    assert len(bundle.digest) == 65


def test_no_file_of_the_shipped_bundle_is_large() -> None:
    files = {path.name: path.stat().st_size for path in load("fisher-tiny").path.iterdir()}
    assert files.keys() == {"manifest.json", "MODEL_CARD.md", *FILES, *LOWER.values()}
    assert max(files.values()) < 12e6


def test_a_folder_gives_the_same_bundle_as_the_name(copy: Path) -> None:
    named = load("fisher-tiny")
    for given in (copy, str(copy), f"{copy}/"):
        assert load(given).digest == named.digest
    assert load(copy).path == copy


def test_the_embeddings_of_the_self_test_differ() -> None:
    embedding = load("fisher-tiny").selftest.embedding
    unit = embedding / np.linalg.norm(embedding, axis=1, keepdims=True)
    distances = 1 - unit @ unit.T
    # An error of 1e-3 in every value, the tolerance, moves a cosine distance by 5e-7.
    assert distances[np.triu_indices(len(unit), 1)].min() > 1e-3


@pytest.mark.parametrize("name", ["nope", "FISHER", "..", "", "fisher-tiny.json"])
def test_an_unknown_name_lists_the_installed_ones(name: str) -> None:
    with pytest.raises(BundleError, match=r"no bundle named .*installed \(.*fisher-tiny"):
        load(name)


def test_a_path_that_is_no_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="is not a folder"):
        load(tmp_path / "absent")
    with pytest.raises(BundleError, match=r"manifest\.json cannot be read"):
        load(tmp_path)


def test_a_bundle_need_not_have_graphs_of_lower_precision(copy: Path) -> None:
    for name in LOWER.values():
        (copy / name).unlink()
    _edit(copy, lambda m: [m["files"].pop(name) for name in LOWER.values()])
    assert load(copy).lower == {}


@pytest.mark.parametrize("name", (*FILES, *LOWER.values()))
def test_a_truncated_file_is_refused(copy: Path, name: str) -> None:
    raw = (copy / name).read_bytes()
    (copy / name).write_bytes(raw[: len(raw) // 2])
    with pytest.raises(BundleError, match=rf"{name} has \d+ bytes instead of {len(raw)}"):
        load(copy)


@pytest.mark.parametrize("name", (*FILES, *LOWER.values()))
def test_one_flipped_bit_is_refused(copy: Path, name: str) -> None:
    raw = bytearray((copy / name).read_bytes())
    raw[len(raw) // 2] ^= 1
    (copy / name).write_bytes(raw)
    with pytest.raises(BundleError, match=rf"{name} is damaged: its SHA-256"):
        load(copy)


@pytest.mark.parametrize("name", (*FILES, *LOWER.values()))
def test_a_missing_file_is_refused(copy: Path, name: str) -> None:
    (copy / name).unlink()
    with pytest.raises(BundleError, match=rf"{name} cannot be read: No such file"):
        load(copy)


def test_a_truncated_manifest_is_refused(copy: Path) -> None:
    path = copy / "manifest.json"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(BundleError, match="is damaged"):
        load(copy)


@pytest.mark.parametrize("text", ["[]", "{}", "null", '{"schema": "fisher.bundle/2"}'])
def test_an_unknown_schema_is_refused(copy: Path, text: str) -> None:
    (copy / "manifest.json").write_text(text)
    with pytest.raises(BundleError, match=r"this version reads 'fisher\.bundle/1'"):
        load(copy)


def test_a_file_that_links_out_of_the_bundle_is_refused(copy: Path, tmp_path: Path) -> None:
    outside = tmp_path / "weights.safetensors"
    (copy / "weights.safetensors").rename(outside)
    (copy / "weights.safetensors").symlink_to(outside)
    with pytest.raises(BundleError, match="link out of the bundle"):
        load(copy)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda m: m["files"].update({"../graph.onnx": m["files"].pop("graph.onnx")}),
            "files must be graph.onnx, .* and may be",
        ),
        (lambda m: m["files"].pop("weights.safetensors"), "files must be graph.onnx"),
        (lambda m: m["files"].update({"graph.onnx": "x"}), "must hold bytes and sha256"),
        (lambda m: m.update(name="42"), "a letter first"),
        (lambda m: m.update(weights="excellent"), "is none of untrained, trained, published"),
        (lambda m: m.update(model={}), "no family"),
        (lambda m: m.update(model={"family": ""}), "no family"),
        (lambda m: m.update(tolerance={}), "tolerance"),
        (lambda m: m.update(tolerance={"f32": -1.0}), "tolerance"),
        (lambda m: m.update(extra=1), "missing or unknown: extra"),
        (lambda m: m.pop("origin"), "missing or unknown: origin"),
        (lambda m: m["frontend"].pop("mean"), "missing or unknown: mean"),
        (lambda m: m["frontend"].update(band_bins=50), "do not fit together"),
    ],
)
def test_a_manifest_that_makes_no_sense_is_refused(copy: Path, change: Callable[[Any], object], message: str) -> None:
    _edit(copy, change)
    with pytest.raises(BundleError, match=message):
        load(copy)


def test_another_manifest_is_another_digest(copy: Path) -> None:
    before = load(copy).digest
    _edit(copy, lambda m: m.update(weights="trained"))
    assert load(copy).digest != before


def test_a_folder_without_a_manifest_is_not_installed(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (copy.parent / "empty").mkdir()
    monkeypatch.setattr(bundles, "_INSTALLED", copy.parent)
    assert installed() == ["fisher-tiny"]


def test_the_weights_are_the_state_dict_without_rows_that_cannot_be_reached() -> None:
    bundle: Bundle = load("fisher-tiny")
    state = bundle.state()
    assert len(state) == 150
    assert state["modality_encoders.IMAGE.fixed_positional_encoder.positions"].shape == (1, 384, 192)
    assert {str(value.dtype) for value in state.values()} == {"float16"}
