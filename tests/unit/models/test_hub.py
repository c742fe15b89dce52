"""Models on the hub: the real client against a hub on the loopback, each in a process with settings of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fisher_models.errors import CheckpointError
from fisher_models.hub import Repository, parse
from servers.hub import COMMIT, Hub
from servers.process import free_port

NAME = "jiangab/FISHER-tiny-0723"
FILES = {
    "config.json": b'{"depth": 2}',
    "model.safetensors": b"weights",
    "README.md": b"#",
    "modeling_fisher.py": b"1/0",
}
FETCH = """
import json, sys
from fisher_models.errors import CheckpointError
from fisher_models.hub import fetch, parse
try:
    found = fetch(parse(sys.argv[1]))
    answer = {"commit": found.commit, "files": {p.name: p.read_text() for p in found.folder.iterdir()}}
except CheckpointError as error:
    answer = {"error": str(error)}
print(json.dumps({**answer, "torch": "torch" in sys.modules}))
"""


def _fetch(source: str, environment: dict[str, str]) -> dict[str, Any]:
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGING"))}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", FETCH, source],
        env={**inherited, **environment}, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""  # neither progress nor warnings where there is no terminal
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_only_weights_and_config_are_fetched(tmp_path: Path) -> None:
    with Hub(NAME, FILES) as hub:
        found = _fetch(f"hf:{NAME}", hub.environment(tmp_path))
        assert sorted(hub.asked_for) == ["config.json", "model.safetensors"]
    assert found["commit"] == COMMIT
    assert found["files"] == {"config.json": '{"depth": 2}', "model.safetensors": "weights"}
    assert not found["torch"]


@pytest.mark.parametrize("name", ["pytorch_model.bin", "FISHER-tiny.pt", "echo-small.pth"])
def test_a_torch_file_is_fetched_where_there_is_nothing_better(tmp_path: Path, name: str) -> None:
    with Hub(NAME, {"config.json": b"{}", name: b"weights", "run.py": b""}) as hub:
        found = _fetch(f"hf:{NAME}", hub.environment(tmp_path))
    assert sorted(found["files"]) == sorted(["config.json", name])


def test_a_torch_file_is_left_alone_where_there_are_safetensors(tmp_path: Path) -> None:
    with Hub(NAME, FILES | {"pytorch_model.bin": b"pickle", "training.pt": b"pickle"}) as hub:
        _fetch(f"hf:{NAME}", hub.environment(tmp_path))
        assert sorted(hub.asked_for) == ["config.json", "model.safetensors"]


@pytest.mark.parametrize("revision", [COMMIT, "v1"])
def test_a_revision_is_pinned(tmp_path: Path, revision: str) -> None:
    with Hub(NAME, FILES, branches=("v1",)) as hub:  # no main
        assert _fetch(f"hf:{NAME}@{revision}", hub.environment(tmp_path))["commit"] == COMMIT
        assert "has no revision None" in _fetch(f"hf:{NAME}", hub.environment(tmp_path))["error"]


def test_what_was_fetched_serves_with_the_network_away(tmp_path: Path) -> None:
    with Hub(NAME, FILES) as hub:
        environment = hub.environment(tmp_path)
        online = _fetch(f"hf:{NAME}", environment)
        assert len(hub.asked_for) == 2
        assert _fetch(f"hf:{NAME}", environment) == online
        assert len(hub.asked_for) == 2  # nothing is fetched twice
    assert _fetch(f"hf:{NAME}", environment) == online  # nobody listens there now
    assert _fetch(f"hf:{NAME}", environment | {"HF_HUB_OFFLINE": "1"}) == online


@pytest.mark.parametrize("offline", [{}, {"HF_HUB_OFFLINE": "1"}], ids=["nobody listens", "told to be offline"])
def test_offline_the_manual_way_is_told(tmp_path: Path, offline: dict[str, str]) -> None:
    environment = {"HF_ENDPOINT": f"http://127.0.0.1:{free_port()}", "HF_HOME": str(tmp_path), **offline}
    error = _fetch(f"hf:{NAME}@v1", environment)["error"]
    assert error.startswith("the hub cannot be reached; ")
    assert (
        f"download model.safetensors (or the .pt or .pth) and config.json from https://huggingface.co/{NAME}/tree/v1"
        in error
    )
    assert error.endswith("run: fisher-models import FOLDER --out BUNDLE")


def test_a_model_a_revision_or_weights_that_are_not_there_are_named(tmp_path: Path) -> None:
    with Hub(NAME, FILES) as hub:
        environment = hub.environment(tmp_path)
        assert "the hub has no model jiangab/none" in _fetch("hf:jiangab/none", environment)["error"]
        assert f"{NAME} has no revision 'v9'" in _fetch(f"hf:{NAME}@v9", environment)["error"]
    with Hub(NAME, {"README.md": b"#", "run.py": b""}) as hub:
        error = _fetch(f"hf:{NAME}", hub.environment(tmp_path / "other"))["error"]
        assert "holds no weights: no safetensors, .bin, .pt or .pth at its top" in error
        assert hub.asked_for == []


def test_a_file_that_cannot_be_downloaded_ends_with_the_manual_way(tmp_path: Path) -> None:
    with Hub(NAME, FILES) as hub:
        hub.lost = {"model.safetensors"}
        error = _fetch(f"hf:{NAME}", hub.environment(tmp_path))["error"]
    assert error.startswith("the download failed: 404 ")
    assert "download model.safetensors" in error


@pytest.mark.parametrize(
    ("source", "revision", "expected"),
    [
        ("hf:a/b", None, Repository("a/b", None)),
        ("hf:a/b", "v1", Repository("a/b", "v1")),
        ("hf:a/b@v1", None, Repository("a/b", "v1")),
        ("hf:a/b@refs/pr/3", "refs/pr/3", Repository("a/b", "refs/pr/3")),
        ("hf:yucongzh/echo-small-0824", None, Repository("yucongzh/echo-small-0824", None)),
    ],
)
def test_a_source_names_model_and_revision(source: str, revision: str | None, expected: Repository) -> None:
    assert parse(source, revision=revision) == expected


@pytest.mark.parametrize(
    ("source", "revision", "match"),
    [
        ("hf:", None, "named hf:OWNER/NAME"),
        ("hf:tiny", None, "named hf:OWNER/NAME"),
        ("hf:a/b/c", None, "named hf:OWNER/NAME"),
        ("hf:../b", None, "named hf:OWNER/NAME"),
        ("hf:a/..", None, "named hf:OWNER/NAME"),
        ("hf:https://huggingface.co/a/b", None, "named hf:OWNER/NAME"),
        ("hf:a/b@", None, "is no revision"),
        ("hf:a/b@x/../../y", None, "is no revision"),
        ("hf:a/b@v1", "v2", "name two revisions"),
        ("hf:a/b", "", "is no revision"),
    ],
)
def test_a_source_that_names_no_model_is_refused(source: str, revision: str | None, match: str) -> None:
    with pytest.raises(CheckpointError, match=match):
        parse(source, revision=revision)
