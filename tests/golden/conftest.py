"""Where the reference vectors are: $FISHER_SHARED, or the folder `shared` beside the checkout."""

import os
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from fisher_models.bundle import Bundle
from fisher_models.golden import Golden


@pytest.fixture(scope="session")
def golden_folder() -> Path:
    shared = os.environ.get("FISHER_SHARED")
    folder = (Path(shared) if shared else Path(__file__).parents[3] / "shared") / "golden"
    if not folder.is_dir():
        pytest.skip(f"no reference vectors in {folder}; set FISHER_SHARED to the folder that holds golden/")
    return folder


@pytest.fixture(scope="session", params=["fisher-tiny", "fisher-small", "echo-small"])
def golden(golden_folder: Path, request: pytest.FixtureRequest) -> Golden:
    return Golden(golden_folder, request.param)


@pytest.fixture(scope="session")
def golden_bundle(golden: Golden, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return golden.bundle(tmp_path_factory.mktemp("bundles"))


@pytest.fixture(scope="session")
def stages(golden: Golden) -> Mapping[str, torch.Tensor]:
    return {name: torch.from_numpy(value) for name, value in golden.stages.items()}
