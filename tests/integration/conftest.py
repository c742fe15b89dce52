"""What is made once for all integration tests."""

from pathlib import Path

import pytest

from integration.small import enrol, record, small_config


@pytest.fixture(scope="session")
def enrolled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state folder in which the small machine is enrolled; for `small_config`, never to be changed."""
    folder = tmp_path_factory.mktemp("enrolled")
    config = small_config(folder, source="mqtt://127.0.0.1:1883")
    enrol(config, record(folder / "normal.npz", seconds=40))
    return folder / "state"
