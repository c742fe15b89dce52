"""A configuration is checked against the bundle that it names, before anything is opened."""

import json
import shutil
from pathlib import Path

import pytest

from fisher_agent.app import find_bundle
from fisher_agent.config import Config
from fisher_agent.errors import ConfigError
from fisher_models.bundle import load


def _config(bundle: Path | str, length_s: float) -> Config:
    model, window = {"bundle": str(bundle)}, {"length_s": length_s, "hop_s": 1.0}
    return Config.model_validate({"site": "s", "edge": "e", "model": model, "window": window})


@pytest.fixture
def short_sighted(tmp_path: Path) -> Path:
    """A bundle whose model sees 512 frames."""
    copy = Path(shutil.copytree(load("fisher-tiny").path, tmp_path / "fisher-tiny"))
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["frontend"]["max_frames"] = 512
    (copy / "manifest.json").write_text(json.dumps(manifest))
    return copy


def test_a_window_that_the_model_does_not_see_whole_is_refused(short_sighted: Path) -> None:
    with pytest.raises(ConfigError, match=r"window\.length_s is 6; fisher-tiny sees at most 5\.135 s"):
        find_bundle(_config(short_sighted, 6.0))
    assert find_bundle(_config(short_sighted, 5.0)).name == "fisher-tiny"


def test_a_model_that_takes_long_input_in_segments_refuses_no_window(short_sighted: Path) -> None:
    manifest = json.loads((short_sighted / "manifest.json").read_text())
    manifest["frontend"]["longer"] = "mean"
    (short_sighted / "manifest.json").write_text(json.dumps(manifest))
    assert find_bundle(_config(short_sighted, 10.0)).frontend.longer == "mean"
