"""Checkpoint files and folders: what they hold is read, what is damaged or would run code is refused."""

import argparse
import hashlib
import io
import json
import os
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save, save_file

import layouts
from fisher_models.checkpoints import read
from fisher_models.errors import CheckpointError

STATE = {"a.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones(4, np.float32)}


class Trap:
    """Its unpickling would make a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (str(self.path),)


def _refused(path: Path, match: str) -> None:
    with pytest.raises(CheckpointError, match=match) as caught:
        read(path)
    assert str(path) in str(caught.value)


def _holds_state(content: Any) -> None:
    assert content.keys() == STATE.keys()
    for key, value in STATE.items():
        assert np.array_equal(content[key].float().numpy(), value)


@pytest.mark.parametrize("new_format", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("name", ["model.pt", "model.safetensors", "download"])
def test_a_torch_file_is_told_by_its_bytes_whatever_its_name(tmp_path: Path, name: str, new_format: bool) -> None:
    saved = {"cfg": {"model": {"depth": 2}}, "model": OrderedDict(layouts.tensors(STATE))}
    torch.save(saved, tmp_path / name, _use_new_zipfile_serialization=new_format)
    found = read(tmp_path / name)
    _holds_state(found.content["model"])
    assert found.content["cfg"] == {"model": {"depth": 2}}
    assert found.config is None


@pytest.mark.parametrize("length", [0, 128])  # of the header: 0x80 is how a pickle begins too
def test_a_safetensors_file_is_told_by_its_bytes_whatever_its_name(tmp_path: Path, length: int) -> None:
    raw = save(layouts.tensors(STATE))
    header = json.loads(raw[8 : 8 + struct.unpack("<Q", raw[:8])[0]])
    padded = json.dumps(header, separators=(",", ":")).encode().ljust(length or 256)
    assert length == 0 or len(padded) == length
    path = tmp_path / "weights.bin"
    path.write_bytes(struct.pack("<Q", len(padded)) + padded + raw[-40:])
    _holds_state(read(path).content)


def test_bfloat16_is_read(tmp_path: Path) -> None:
    save_file(layouts.tensors(STATE, dtype=torch.bfloat16), tmp_path / "w.safetensors")
    _holds_state(read(tmp_path / "w.safetensors").content)


def test_the_digest_is_that_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "w.safetensors").write_bytes(save({"a": torch.zeros(2)}))
    digest = hashlib.sha256((tmp_path / "w.safetensors").read_bytes()).hexdigest()
    assert read(tmp_path / "w.safetensors").digests == {"w.safetensors": digest}


# Code


@pytest.mark.parametrize("new_format", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("where", ["cfg", "model"])
def test_a_file_that_would_run_code_is_refused_by_its_name_and_runs_none(
    tmp_path: Path, where: str, new_format: bool
) -> None:
    path, mark = tmp_path / "trap.pt", tmp_path / "mark"
    torch.save({"cfg": {}, "model": {}, where: Trap(mark)}, path, _use_new_zipfile_serialization=new_format)
    _refused(path, r"wants to run (posix|nt)\.mkdir when it is read; import never runs code")
    assert not mark.exists()


def test_settings_that_are_an_object_are_refused_with_the_way_out(tmp_path: Path) -> None:
    path = tmp_path / "namespace.pt"
    torch.save({"cfg": argparse.Namespace(depth=2), "model": layouts.tensors(STATE)}, path)
    _refused(
        path, r"wants to run argparse.Namespace .*write its tensors with safetensors.torch.save_file and its sizes"
    )


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_bare_pickle_is_refused_and_runs_nothing(tmp_path: Path, protocol: int) -> None:
    path, mark = tmp_path / "trap.pkl", tmp_path / "mark"
    path.write_bytes(pickle.dumps(Trap(mark), protocol=protocol))
    _refused(path, "import never runs code|damaged")
    assert not mark.exists()


def test_a_torchscript_archive_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "script.pt", "w") as archive:
        for name in ("data.pkl", "constants.pkl", "code/__torch__.py"):
            archive.writestr(f"script/{name}", b"")
    _refused(tmp_path / "script.pt", "is a TorchScript archive, which is code")


# Other files


@pytest.mark.parametrize(
    ("raw", "match"),
    [
        (b"", "is empty; download it again"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 21556312\n", "is a Git LFS pointer"),
        (b"\n<!DOCTYPE html><html>Sign in</html>", "is a web page and not the file itself"),
        (b"\x1f\x8b\x08\x00rest", "is an archive; unpack it"),
        (b"7z\xbc\xaf\x27\x1c", "is an archive; unpack it"),
        (b"x" * 257 + b"ustar" + b"\0" * 300, "is an archive; unpack it"),
        (b"RIFF\x24\x00\x00\x00WAVEfmt ", "is neither a safetensors nor a torch file"),
        (b"tiny", "is neither a safetensors nor a torch file"),
        (b"\x80", "is truncated or damaged"),
        (b"\x80\x02}q\x00.", "is truncated or damaged|expected a dictionary"),
        (b"PK\x03\x04", "is truncated or damaged"),
        (struct.pack("<Q", 2**63) + b"{}", "is a damaged safetensors file"),
        (struct.pack("<Q", 1000) + b"{}", "is a damaged safetensors file"),
        (struct.pack("<Q", 2) + b"{[", "is a damaged safetensors file"),
    ],
)
def test_what_is_no_checkpoint_is_refused_by_what_it_is(tmp_path: Path, raw: bytes, match: str) -> None:
    (tmp_path / "model.pt").write_bytes(raw)
    _refused(tmp_path / "model.pt", match)


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [2], "data_offsets": [0, 2**40]},
        {"dtype": "F32", "shape": [2], "data_offsets": [4, 0]},
        {"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]},
        {"dtype": "F99", "shape": [2], "data_offsets": [0, 8]},
        {"shape": [2]},
    ],
)
def test_a_safetensors_file_with_a_lying_header_is_refused(tmp_path: Path, entry: dict[str, Any]) -> None:
    header = json.dumps({"a": entry}).encode()
    (tmp_path / "w.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(8))
    _refused(tmp_path / "w.safetensors", "is a damaged safetensors file")


def test_an_ordinary_zip_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("model.safetensors", b"")
    _refused(tmp_path / "a.zip", "is a zip archive and no torch file; unpack it")


def test_a_list_of_tensors_is_refused(tmp_path: Path) -> None:
    torch.save([torch.zeros(1)], tmp_path / "list.pt")
    _refused(tmp_path / "list.pt", "holds a list, expected a dictionary of tensors")


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    _refused(tmp_path / "none.pt", "is neither a file nor a folder; a model on the hub is hf:OWNER/NAME")


@pytest.fixture(scope="module")
def wholes() -> dict[str, bytes]:
    """A file of each format."""
    saved, files = {"cfg": {"model": {"depth": 2, "eps": 1e-6}}, "model": layouts.tensors(STATE)}, {}
    for name, new_format in (("zip", True), ("legacy", False)):
        raw = io.BytesIO()
        torch.save(saved, raw, _use_new_zipfile_serialization=new_format)
        files[name] = raw.getvalue()
    return {**files, "safetensors": save(layouts.tensors(STATE))}


@pytest.mark.parametrize("form", ["zip", "legacy", "safetensors"])
@settings(max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data())
def test_a_file_damaged_anywhere_is_read_or_refused(
    tmp_path: Path, wholes: dict[str, bytes], form: str, data: st.DataObject
) -> None:
    raw = bytearray(wholes[form])
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "damaged"
    path.write_bytes(raw)
    try:
        read(path)
    except CheckpointError as error:
        assert str(path) in str(error)


@pytest.mark.parametrize("form", ["zip", "legacy", "safetensors"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.97])
def test_a_truncated_file_is_refused(tmp_path: Path, wholes: dict[str, bytes], form: str, share: float) -> None:
    raw = wholes[form]
    (tmp_path / "cut").write_bytes(raw[: int(len(raw) * share)])
    _refused(tmp_path / "cut", "download it again")


# Folders


def test_a_folder_is_read_with_its_config(tmp_path: Path) -> None:
    found = read(layouts.folder(tmp_path / "hub", STATE, {"depth": 2}, prefix=""))
    _holds_state(found.content)
    assert found.config == {"depth": 2}
    assert list(found.digests) == ["model.safetensors"]


def test_safetensors_are_preferred_to_pickles(tmp_path: Path) -> None:
    folder = layouts.folder(tmp_path / "hub", STATE, prefix="")
    (folder / "pytorch_model.bin").write_bytes(b"never opened")
    _holds_state(read(folder).content)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "FISHER-tiny.pt", "echo-small.pth"])
def test_a_folder_with_one_torch_file_is_read(tmp_path: Path, name: str) -> None:
    torch.save(layouts.tensors(STATE), tmp_path / name)
    (tmp_path / "README.md").write_text("a model")
    _holds_state(read(tmp_path).content)


def test_a_folder_with_several_or_none_is_refused(tmp_path: Path) -> None:
    _refused(tmp_path, "needs one file of weights, such as model.safetensors; found: none")
    for name in ("b.pt", "a.pth"):
        (tmp_path / name).write_bytes(b"")
    _refused(tmp_path, r"found: a\.pth, b\.pt")


@pytest.mark.parametrize(
    ("raw", "match"),
    [
        (b"{", "config.json is no JSON"),
        (b"\xff\xfe\x00", "config.json is no JSON"),
        (b"[" * 200_000, "config.json is no JSON"),
        (b"[1]", "config.json holds a list, expected an object"),
        (b" " * (16 * 1024**2 + 1), "config.json is larger than 16 MB"),
    ],
    ids=["cut", "utf16", "deep", "list", "large"],
)
def test_a_config_that_is_none_is_refused(tmp_path: Path, raw: bytes, match: str) -> None:
    folder = layouts.folder(tmp_path / "hub", STATE)
    (folder / "config.json").write_bytes(raw)
    _refused(folder, match)


def test_weights_spread_over_files_are_put_together(tmp_path: Path) -> None:
    found = read(layouts.sharded(tmp_path / "hub", STATE, {"depth": 2}))
    _holds_state(found.content)
    assert list(found.digests) == ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]


def test_a_part_that_is_missing_is_named(tmp_path: Path) -> None:
    folder = layouts.sharded(tmp_path / "hub", STATE, {})
    (folder / "model-00002-of-00002.safetensors").unlink()
    _refused(folder, "lacks model-00002-of-00002.safetensors, which model.safetensors.index.json names")


def test_parts_that_hold_a_key_twice_are_refused(tmp_path: Path) -> None:
    folder = layouts.sharded(tmp_path / "hub", STATE, {})
    with pytest.raises(CheckpointError, match=r"holds a\.weight again"):
        save_file(layouts.tensors(STATE), folder / "model-00002-of-00002.safetensors")
        read(folder)


@pytest.mark.parametrize(
    ("index", "match"),
    [
        ({}, "holds no weight_map"),
        ({"weight_map": {}}, "holds no weight_map"),
        ({"weight_map": {"a": 1}}, "holds no weight_map"),
        ({"weight_map": {"a": "../../secret.safetensors"}}, "which is not a file of its folder"),
        ({"weight_map": {"a": "/etc/passwd"}}, "which is not a file of its folder"),
    ],
)
def test_an_index_that_is_wrong_is_refused(tmp_path: Path, index: dict[str, Any], match: str) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    _refused(tmp_path, match)
