"""A configuration is checked against the bundle that it names, before anything is opened."""

import json
import shutil
from pathlib import Path

import pytest

from fisher_agent.app import find_bundle
from fisher_agent.config import Config
from fisher_agent.configfile import parse
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


def test_only_the_bundle_of_the_configured_digest_is_used(short_sighted: Path) -> None:
    digest = load("fisher-tiny").digest
    pinned = _config("fisher-tiny", 5.0).model_dump()
    pinned["model"]["digest"] = digest
    assert find_bundle(Config.model_validate(pinned)).digest == digest
    # Whole and consistent in itself, as an attacker would leave it.
    pinned["model"]["bundle"] = str(short_sighted)
    with pytest.raises(ConfigError, match=f"model.digest is {digest}, and {short_sighted} is b") as wrong:
        find_bundle(Config.model_validate(pinned))
    assert load(short_sighted).digest in str(wrong.value)


@pytest.mark.parametrize("digest", ["", "b", "0" * 64, "b" + "0" * 63, "b" + "g" * 64, "b" + "0" * 64 + "\n"])
def test_a_digest_is_whole(digest: str) -> None:
    with pytest.raises(ConfigError, match=r"model\.digest: must be a bundle's digest"):
        parse(f'site = "s"\nedge = "e"\n[model]\ndigest = {json.dumps(digest)}')
