"""FISHER and ECHO against the published architectures, number by number; limits are those of the vectors' README."""

import json
from pathlib import Path
from shutil import copy

import numpy as np
import pytest
from safetensors.numpy import save_file

from fisher_agent.backends import open_embedder
from fisher_models.bundle import Bundle
from fisher_models.cli import main
from fisher_models.errors import BundleError, RecordingError
from fisher_models.families import frontend_spec
from fisher_models.golden import Golden, models
from fisher_models.verify import LIMITS, embedding, features_runner, frames, front_end


@pytest.mark.slow
@pytest.mark.timeout(400)  # 20 s of two cores, where nothing else runs
@pytest.mark.parametrize("backend", ["openvino", "torch"])
def test_every_embedding_is_reproduced_by_the_agents_backend(
    golden: Golden, golden_bundle: Bundle, backend: str, tmp_path: Path
) -> None:
    embedder, _ = open_embedder(golden_bundle, backend=backend, precision="f32", cache=tmp_path)
    errors = {
        expected.name: float(np.abs(embedding(embedder.embed, expected) - expected.output).max())
        for expected in golden.expectations()
        if not expected.frames
    }
    embedder.close()
    assert len(errors) >= 22
    assert {name: error for name, error in errors.items() if not error <= LIMITS[backend]} == {}


@pytest.mark.parametrize("backend", ["openvino", "torch"])
@pytest.mark.parametrize("golden", ["echo-small"], indirect=True)
def test_the_features_of_every_patch_are_reproduced(golden: Golden, golden_bundle: Bundle, backend: str) -> None:
    wanted = [expected for expected in golden.expectations() if expected.frames]
    run = features_runner(golden_bundle, backend)
    assert {expected.name.partition(".")[2] for expected in wanted} == set(golden.index["echo_frame_cases"])
    for expected in wanted:
        assert np.abs(frames(run, expected) - expected.output).max() <= LIMITS[backend]


@pytest.mark.parametrize("golden", ["fisher-tiny"], indirect=True)
def test_a_fisher_has_no_features_of_patches(golden_bundle: Bundle) -> None:
    with pytest.raises(BundleError, match="only ECHO"):
        features_runner(golden_bundle, "openvino")


def test_the_spectrogram_is_reproduced(golden: Golden) -> None:
    check = front_end(golden)
    assert check.passed, check


def test_the_front_end_in_the_bundle_is_the_one_of_the_vectors(golden: Golden, golden_bundle: Bundle) -> None:
    stated, spec = golden.stated, golden_bundle.frontend
    assert spec == frontend_spec(golden.config)
    assert spec.mean == stated["spec_mean"]
    assert spec.divisor == stated["spec_std"] * stated["spec_std_coeff"]
    assert (spec.band_bins, spec.log_floor) == (stated["band_width"], stated["log_floor"])
    if stated["model"] == "echo":
        assert (spec.win_ms, spec.hop_ms) == (1000 * stated["win_s"], 1000 * stated["hop_s"])
        assert (spec.max_frames, spec.patch_frames) == (stated["max_segment_frames"], stated["shift_size"])
        assert (spec.remainder, spec.trailing, spec.longer) == ("pad-front", "pad", "mean")
    else:
        assert (spec.win_ms, spec.hop_ms) == (stated["win_ms"], stated["hop_ms"])
        assert (spec.max_frames, spec.patch_frames) == (stated["target_length"], stated["patch_size"])
        assert (spec.remainder, spec.trailing, spec.longer) == ("drop", "drop", "cut")


def test_blocks_that_are_stored_once_are_repeated(golden: Golden) -> None:
    stored = golden.stated["stored_blocks"]
    assert len(golden.state) == 150
    key = "encoder.layers.{}.linear1.weight" if golden.model == "echo-small" else "blocks.{}.mlp.fc1.weight"
    for i in range(12):
        assert np.array_equal(golden.state[key.format(i)], golden.state[key.format(i % stored)])
    assert not np.array_equal(golden.state[key.format(0)], golden.state[key.format(1)])


def test_verify_prints_every_case_and_the_worst_and_ends_with_0(
    golden_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["verify", "--golden", str(golden_folder), "--backend", "openvino", "--model", "fisher-tiny"]
    assert main(given) == 0
    lines = capsys.readouterr().out.splitlines()
    checks = [line for line in lines if line.endswith("ok")]
    assert lines[-1] == f"{len(checks)} of {len(checks)} reproduced"
    assert sum("worst of all" in line for line in lines) == 2  # the front-end and openvino
    assert any("emb_pad1024.a44k1_1s" in line for line in checks)
    assert any("emb_batch" in line for line in checks)
    assert all(line.startswith("fisher-tiny") for line in checks)


def _fisher_tiny(golden_folder: Path, to: Path) -> None:
    for file in golden_folder.glob("*"):
        if file.name.startswith(("fisher_tiny", "cases", "index", "waves")):
            copy(file, to / file.name)
            (to / file.name).chmod(0o600)


@pytest.mark.parametrize("golden", ["fisher-tiny"], indirect=True)
def test_verify_ends_with_1_where_a_vector_is_not_reproduced(
    golden_folder: Path, golden: Golden, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _fisher_tiny(golden_folder, tmp_path)
    wrong = golden.outputs["emb.a16k_0s2"] + np.float32(0.01)
    outputs = {"emb.a16k_0s2": wrong, "emb.a02k_1s": golden.outputs["emb.a02k_1s"]}
    save_file(outputs, tmp_path / "fisher_tiny.outputs.safetensors")
    assert main(["verify", "--golden", str(tmp_path), "--backend", "torch"]) == 1  # all models there are: one
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[2] for line in lines if line.endswith("FAILED")] == ["emb.a16k_0s2"]


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("fisher_tiny.weights.safetensors", b"no", "holds no reference vectors of fisher-tiny"),
        ("fisher_tiny.config.json", b"{}", "holds no reference vectors of fisher-tiny"),
        ("fisher_tiny.config.json", b'{"model": "fisher", "embed_dim": "wide"}', "holds no reference vectors"),
        ("cases.json", b"{", "holds no reference vectors"),
        ("waves.safetensors", None, "holds no reference vectors"),
    ],
)
def test_vectors_that_are_not_whole_are_refused(
    golden_folder: Path, tmp_path: Path, file: str, content: bytes | None, message: str
) -> None:
    _fisher_tiny(golden_folder, tmp_path)
    if content is None:
        (tmp_path / file).unlink()
    else:
        (tmp_path / file).write_bytes(content)
    with pytest.raises(RecordingError, match=message):
        Golden(tmp_path, "fisher-tiny")


def test_a_model_without_vectors_is_named(
    golden_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", "--golden", str(golden_folder), "--model", "echo-large"]) == 2
    assert "no reference vectors of echo-large: echo-small, fisher-small, fisher-tiny" in capsys.readouterr().err
    assert main(["verify", "--golden", str(tmp_path)]) == 2
    assert "no reference vectors of any model" in capsys.readouterr().err
    assert models(tmp_path) == []


def test_the_sizes_come_from_the_vectors(golden_folder: Path, golden: Golden) -> None:
    stated = json.loads((golden_folder / f"{golden.model.replace('-', '_')}.config.json").read_text())
    assert (golden.config.embed_dim, golden.config.heads) == (stated["embed_dim"], stated["num_heads"])
