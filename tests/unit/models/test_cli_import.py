"""`fisher-models import`: from each source to a bundle that names it, or to an error that says why not."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import layouts
from fisher_models.bundle import Bundle, load
from fisher_models.cli import main
from fisher_models.echo import EchoConfig
from fisher_models.execute import openvino_runner, torch_runner
from fisher_models.families import PRESETS, seeded_state
from fisher_models.fisher import FisherConfig
from servers.hub import COMMIT, Hub

FISHER = FisherConfig(embed_dim=128, heads=2, band_bins=50, depth=2)
ECHO = EchoConfig(embed_dim=64, heads=1, depth=2, max_frames=320)
SOURCES: dict[str, Callable[[Path], Path]] = {
    "fisher .pt": lambda folder: layouts.fisher_pt(folder / "FISHER-tiny.pt", FISHER, seeded_state(FISHER, seed=0)),
    "fisher folder": lambda folder: layouts.folder(
        folder / "hub", seeded_state(FISHER, seed=0), layouts.fisher_sizes(FISHER)
    ),
    "echo .pth": lambda folder: layouts.echo_pth(folder / "echo.pth", seeded_state(ECHO, seed=0), model_type="nano"),
    "echo folder": lambda folder: layouts.folder(
        folder / "hub", seeded_state(ECHO, seed=0), layouts.echo_sizes(ECHO), prefix=""
    ),
    "echo shards": lambda folder: layouts.sharded(folder / "hub", seeded_state(ECHO, seed=0), layouts.echo_sizes(ECHO)),
}


def _fails(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert main(["import", *map(str, arguments)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("fisher-models: ")
    assert printed.err.count("\n") == 1
    return printed.err


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("layout", SOURCES)
def test_a_checkpoint_becomes_a_bundle_that_serves_its_weights(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], layout: str
) -> None:
    source = SOURCES[layout](tmp_path)
    assert main(["import", str(source), "--out", str(tmp_path / "plant-model")]) == 0
    bundle = load(tmp_path / "plant-model")
    assert capsys.readouterr().out == f"plant-model {bundle.digest} (published) -> {bundle.path}\n"
    assert bundle.weights == "published"
    config = FISHER if layout.startswith("fisher") else ECHO
    _serves(bundle, config)


def _serves(bundle: Bundle, config: FisherConfig | EchoConfig) -> None:
    """The weights are those of the state, and both backends agree on what they make of it."""
    for key, value in seeded_state(config, seed=0).items():
        stored = bundle.state()[key].astype(np.float32)
        assert np.array_equal(stored, value[:, : stored.shape[1]] if stored.ndim == 3 else value), key
    rng = np.random.default_rng(0)
    bands = rng.normal(-1, 0.5, (3, 48, config.band_bins)).astype(np.float32)
    centres = np.array([0.1, 0.5, 0.9], np.float32)
    a, b = torch_runner(bundle)(bands, centres), openvino_runner(bundle)(bands, centres)
    assert np.abs(a - b).max() < 1e-5
    assert np.abs(a[0] - a[1]).max() > 0.01


def test_the_origin_names_the_file_and_its_digest(tmp_path: Path) -> None:
    source = SOURCES["echo .pth"](tmp_path)
    assert main(["import", str(source), "--out", str(tmp_path / "echo"), "--standing", "trained"]) == 0
    bundle = load(tmp_path / "echo")
    assert bundle.origin == f"echo.pth, SHA-256 {_sha256(source)}"
    assert bundle.weights == "trained"


def test_the_origin_of_a_folder_names_every_file_of_weights(tmp_path: Path) -> None:
    source = SOURCES["echo shards"](tmp_path)
    assert main(["import", str(source), "--out", str(tmp_path / "echo")]) == 0
    first, second = sorted(source.glob("*.safetensors"))
    assert load(tmp_path / "echo").origin == (
        f"hub, {first.name} SHA-256 {_sha256(first)}, {second.name} SHA-256 {_sha256(second)}"
    )


def test_the_same_checkpoint_gives_the_same_bundle(tmp_path: Path) -> None:
    source = SOURCES["fisher .pt"](tmp_path)
    for out in (tmp_path / "a" / "model", tmp_path / "b" / "model"):
        assert main(["import", str(source), "--out", str(out)]) == 0
    assert load(tmp_path / "a" / "model").digest == load(tmp_path / "b" / "model").digest


def test_what_was_left_out_or_assumed_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = replace(PRESETS["fisher-tiny"], depth=1)  # type: ignore[type-var]
    state = seeded_state(config, seed=0) | {"recon_proj.weight": np.zeros(3, np.float32)}
    source = layouts.folder(tmp_path / "hub", state)
    assert main(["import", str(source), "--out", str(tmp_path / "tiny")]) == 0
    assert capsys.readouterr().err.splitlines() == [
        "fisher-models: took 'model.' off the keys",
        "fisher-models: left out what only training uses: recon_proj.weight",
        "fisher-models: it does not say its band width: took 100 bins, as fisher-tiny has",
    ]
    assert load(tmp_path / "tiny").frontend.band_bins == 100


def test_a_file_that_would_run_code_ends_with_2_and_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
            return os.mkdir, (str(tmp_path / "mark"),)

    torch.save({"cfg": Trap(), "model": {}}, tmp_path / "trap.pt")
    assert "wants to run " in _fails(capsys, tmp_path / "trap.pt", "--out", tmp_path / "model")
    assert [path.name for path in tmp_path.iterdir()] == ["trap.pt"]


def test_wrong_weights_are_named_with_their_source_and_leave_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = seeded_state(ECHO, seed=0)
    del state["norm.bias"]
    source = layouts.echo_pth(tmp_path / "echo.pth", state, model_type="nano")
    error = _fails(capsys, source, "--out", tmp_path / "model")
    assert error.startswith(f"fisher-models: {source}: the weights do not fit a model of embed_dim 64, depth 2")
    assert "1 missing: norm.bias" in error
    assert [path.name for path in tmp_path.iterdir()] == ["echo.pth"]


def test_a_bundle_is_no_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["import", str(SOURCES["echo .pth"](tmp_path)), "--out", str(tmp_path / "echo")]) == 0
    capsys.readouterr()
    error = _fails(capsys, tmp_path / "echo", "--out", tmp_path / "again")
    assert "is a bundle already" in error


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (["nowhere.pt"], "is neither a file nor a folder"),
        (["model.pt", "--revision", "v1"], "--revision pins a model on the hub"),
        (["hf:tiny"], "named hf:OWNER/NAME"),
        (["hf:a/b@v1", "--revision", "v2"], "name two revisions"),
    ],
)
def test_what_cannot_be_a_source_ends_with_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], match: str
) -> None:
    assert match in _fails(capsys, *arguments, "--out", tmp_path / "model")


def test_a_model_on_the_hub_becomes_a_bundle_that_names_its_commit(tmp_path: Path) -> None:
    source = SOURCES["fisher folder"](tmp_path)
    weights = source / "model.safetensors"
    code = b"raise SystemExit('code of the repository was run')"
    files = {path.name: path.read_bytes() for path in source.iterdir()} | {"modeling_fisher.py": code}
    with Hub("jiangab/FISHER-tiny-0723", files) as hub:
        done = subprocess.run(
            [
                sys.executable, "-m", "fisher_models.cli", "import", "hf:jiangab/FISHER-tiny-0723",
                "--revision", "main", "--out", str(tmp_path / "fisher"),
            ],
            env={"PATH": "", **hub.environment(tmp_path / "home")}, capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == "fisher-models: took 'model.' off the keys\n"
    bundle = load(tmp_path / "fisher")
    assert bundle.origin == f"hf:jiangab/FISHER-tiny-0723@{COMMIT}, model.safetensors SHA-256 {_sha256(weights)}"
    _serves(bundle, FISHER)


def test_without_the_client_the_extra_is_named(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['huggingface_hub'] = None\n"
        "from fisher_models.cli import main\n"
        "sys.exit(main(['import', 'hf:a/b', '--out', sys.argv[1]]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "b")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr == (
        "fisher-models: this needs huggingface_hub, which the base install leaves out: "
        "pip install 'fisher-agent[torch]'\n"
    )


def test_a_config_beside_the_weights_is_obeyed(tmp_path: Path) -> None:
    config = replace(FISHER, heads=4, eps=1e-5)
    source = layouts.folder(tmp_path / "hub", seeded_state(config, seed=0), layouts.fisher_sizes(config))
    assert json.loads((source / "config.json").read_text())["num_heads"] == 4
    assert main(["import", str(source), "--out", str(tmp_path / "fisher")]) == 0
    model = load(tmp_path / "fisher").model
    assert (model["heads"], model["eps"]) == (4, 1e-5)
