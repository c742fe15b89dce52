"""FISHER-tiny against the published architecture, number by number; tolerances are those of the vectors' README."""

import json
from collections.abc import Mapping
from pathlib import Path
from shutil import copy

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from fisher_agent.backends import open_embedder
from fisher_models.bundle import Bundle
from fisher_models.cli import main
from fisher_models.fisher import POSITIONS, Fisher, from_state, position_table
from fisher_models.frontend import Frontend
from fisher_models.verify import LIMITS, Golden, front_end

FROM_STORED = 2e-5  # largest error where the stage before is given


@pytest.fixture(scope="module")
def model(golden: Golden) -> Fisher:
    return from_state(golden.config, golden.state)


@pytest.fixture(scope="module")
def stages(golden: Golden) -> Mapping[str, torch.Tensor]:
    return {name: torch.from_numpy(value) for name, value in golden.stages.items()}


def _error(found: torch.Tensor, expected: torch.Tensor) -> float:
    assert found.shape == expected.shape
    return float((found - expected).abs().max())


@pytest.mark.parametrize("backend", ["openvino", "torch"])
def test_every_case_is_reproduced_by_the_agents_backend(golden: Golden, golden_bundle: Bundle, backend: str) -> None:
    frontend = Frontend(golden_bundle.frontend)
    embedder, _ = open_embedder(golden_bundle, backend=backend)
    errors = {
        name: float(np.abs(embedder.embed(bands, np.zeros(len(bands), np.float32)) - expected).max())
        for name, bands, expected in golden.expectations(frontend)
    }
    embedder.close()
    assert len(errors) == len(golden.outputs) > 20
    assert {name: error for name, error in errors.items() if not error <= LIMITS[backend]} == {}


def test_the_spectrogram_is_reproduced(golden: Golden, golden_bundle: Bundle) -> None:
    check = front_end(golden, Frontend(golden_bundle.frontend))
    assert check.passed, check


def test_the_front_end_in_the_bundle_is_the_one_of_the_vectors(golden_folder: Path, golden_bundle: Bundle) -> None:
    stated = json.loads((golden_folder / "fisher_tiny.config.json").read_text())
    spec = golden_bundle.frontend
    assert spec.mean == stated["spec_mean"]
    assert spec.divisor == stated["spec_std"] * stated["spec_std_coeff"]
    assert (spec.band_bins, spec.max_frames, spec.log_floor, spec.win_ms, spec.hop_ms) == tuple(
        stated[key] for key in ("band_width", "target_length", "log_floor", "win_ms", "hop_ms")
    )


def test_every_stage_is_reproduced_from_the_one_before(model: Fisher, stages: Mapping[str, torch.Tensor]) -> None:
    image = model.modality_encoders["IMAGE"]
    bands = stages["bands"][:, 0]  # (n, t, f), with the frames that fill no patch
    with torch.inference_mode():
        assert _error(image.patches(bands), stages["patch_tokens"]) <= FROM_STORED
        assert _error(image(bands), stages["block_input"]) <= FROM_STORED
        x = stages["block_input"]
        for i, block in enumerate(model.blocks):
            x = block(x)
            if f"block{i}_output" in stages:
                assert _error(x, stages[f"block{i}_output"]) <= FROM_STORED
        assert _error(x, stages["final_tokens"]) <= FROM_STORED
        assert _error(model(bands), stages["final_tokens"][:, 0]) <= FROM_STORED


def test_our_position_table_is_the_published_one(golden: Golden) -> None:
    stored = golden.state[POSITIONS]
    assert np.abs(position_table(golden.config) - stored.astype(np.float32)).max() < 2**-11  # stored as float16


def test_verify_prints_every_case_and_ends_with_0(golden_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "--golden", str(golden_folder), "--backend", "openvino"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == f"{len(lines) - 1} of {len(lines) - 1} reproduced"
    assert any("emb_pad1024.a44k1_1s" in line for line in lines)
    assert any("emb_batch" in line for line in lines)


def test_verify_ends_with_1_where_a_vector_is_not_reproduced(
    golden_folder: Path, golden: Golden, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for file in golden_folder.glob("*"):
        if file.name.startswith(("fisher_tiny", "cases", "index", "waves")):
            copy(file, tmp_path / file.name)
    wrong = golden.outputs["emb.a16k_0s2"] + np.float32(0.01)
    outputs = tmp_path / "fisher_tiny.outputs.safetensors"
    outputs.chmod(0o600)
    save_file({"emb.a16k_0s2": wrong, "emb.a02k_1s": golden.outputs["emb.a02k_1s"]}, outputs)
    assert main(["verify", "--golden", str(tmp_path), "--backend", "torch"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines if line.endswith("FAILED")] == ["emb.a16k_0s2"]
