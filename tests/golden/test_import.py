"""The reference weights in every published layout: imported, they are the bundle that reproduces the vectors."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import layouts
from fisher_models.bundle import FILES, Bundle, load
from fisher_models.checkpoints import read
from fisher_models.cli import main
from fisher_models.execute import RUNNERS
from fisher_models.golden import Golden
from fisher_models.upstream import convert
from fisher_models.verify import LIMITS, embedding

FEW = ("a02k_1s", "a16k_0s2", "a44k1_1s")  # of the cases; the golden tests of each model run them all


@pytest.fixture(scope="module")
def imported(golden: Golden, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The bundle that the command makes of the published file."""
    folder = tmp_path_factory.mktemp(golden.model)
    source = LAYOUTS["published file"](folder, golden)
    assert main(["import", str(source), "--out", str(folder / golden.model)]) == 0
    return load(folder / golden.model)


def _safetensors(folder: Path, golden: Golden) -> Path:
    """As the vectors store them: float16."""
    path = folder / "weights.safetensors"
    save_file(layouts.tensors(golden.state, dtype=torch.float16), path)
    return path


def _bare_pth(folder: Path, golden: Golden) -> Path:
    torch.save(layouts.tensors(golden.state), folder / "bare.pth")
    return folder / "bare.pth"


def _sizes(golden: Golden) -> dict[str, Any]:
    config: Any = golden.config
    return layouts.echo_sizes(config) if golden.model.startswith("echo") else layouts.fisher_sizes(config)


LAYOUTS: dict[str, Callable[[Path, Golden], Path]] = {
    "published file": lambda folder, golden: (
        layouts.echo_pth(folder / "echo.pth", golden.state)
        if golden.model.startswith("echo")
        else layouts.fisher_pt(folder / "fisher.pt", golden.config, golden.state)  # type: ignore[arg-type]
    ),
    "safetensors": _safetensors,
    "bare state dict": _bare_pth,
    "hub folder": lambda folder, golden: layouts.folder(folder / "hub", golden.state, _sizes(golden)),
    "sharded folder": lambda folder, golden: layouts.sharded(folder / "shards", golden.state, _sizes(golden)),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_reference_sizes_and_weights(tmp_path: Path, golden: Golden, layout: str) -> None:
    checkpoint = read(LAYOUTS[layout](tmp_path, golden))
    upstream = convert(checkpoint.content, checkpoint.config)
    assert upstream.config == golden.config
    assert upstream.state.keys() == golden.state.keys()
    for key, value in golden.state.items():
        assert np.array_equal(upstream.state[key], value.astype(np.float32)), key


def test_an_imported_bundle_is_the_one_of_the_reference_weights(golden_bundle: Bundle, imported: Bundle) -> None:
    expected = golden_bundle
    assert (imported.weights, expected.weights) == ("published", "untrained")
    assert (imported.model, imported.frontend) == (expected.model, expected.frontend)
    assert [name for name in FILES if (imported.path / name).read_bytes() != (expected.path / name).read_bytes()] == []


@pytest.mark.parametrize("backend", RUNNERS)
def test_an_imported_bundle_reproduces_the_vectors(golden: Golden, imported: Bundle, backend: str) -> None:
    run = RUNNERS[backend](imported)
    errors = {
        expected.name: float(np.abs(embedding(run, expected) - expected.output).max())
        for expected in golden.expectations()
        if not expected.frames and expected.name.partition(".")[2] in FEW
    }
    assert len(errors) >= len(FEW)
    assert {name: error for name, error in errors.items() if not error <= LIMITS[backend]} == {}
