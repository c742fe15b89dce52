"""Bank files: immutable versions, complete or not there, and a pointer."""

import json
from pathlib import Path

import pytest

from fisher_agent.bankfiles import BankFiles
from fisher_agent.errors import BadFile, ConfigError, FisherError
from fisher_agent.store import Store


@pytest.fixture
def banks(tmp_path: Path) -> BankFiles:
    files = BankFiles(tmp_path / "banks")
    files.sweep()
    return files


def save(banks: BankFiles, *versions: str, waveforms: bytes | None = None) -> None:
    for version in versions:
        data = f"bank {version}".encode()
        banks.save("m", version, data=data, manifest={"report": {"windows": 5}}, waveforms=waveforms)


def test_a_saved_bank_reads_back_and_is_not_active_by_itself(banks):
    save(banks, "v1", waveforms=b"waves")
    assert banks.read("m", "v1") == b"bank v1"
    assert banks.waveforms("m", "v1") == b"waves"
    assert banks.active("m") is None
    manifest = banks.manifest("m", "v1")
    assert manifest["report"] == {"windows": 5}
    assert manifest["number"] == 1
    assert set(manifest["files"]) == {"bank.safetensors", "waveforms.safetensors"}


def test_waveforms_may_be_missing(banks):
    save(banks, "v1")
    assert banks.waveforms("m", "v1") is None


def test_a_machine_without_banks_has_none(banks):
    assert banks.versions("m") == []
    assert banks.active("m") is None
    banks.forget("m")
    with pytest.raises(ConfigError, match="enrol it"):
        banks.rollback("m")
    with pytest.raises(BadFile, match="no bank 'v1'"):
        banks.read("m", "v1")


def test_versions_stand_in_the_order_in_which_they_were_made(banks):
    save(banks, "vz", "va", "vm")
    assert banks.versions("m") == ["vz", "va", "vm"]


def test_a_version_is_immutable(banks):
    save(banks, "v1")
    with pytest.raises(BadFile, match="immutable"):
        banks.save("m", "v1", data=b"other", manifest={})
    assert banks.read("m", "v1") == b"bank v1"


def test_rollback_goes_one_version_back_until_there_is_none(banks):
    save(banks, "v1", "v2", "v3")
    banks.activate("m", "v3")
    assert (banks.rollback("m"), banks.active("m")) == ("v2", "v2")
    assert banks.rollback("m") == "v1"
    with pytest.raises(ConfigError, match="before v1"):
        banks.rollback("m")
    assert banks.active("m") == "v1"


def test_only_a_version_that_exists_becomes_active(banks):
    save(banks, "v1")
    banks.activate("m", "v1")
    with pytest.raises(BadFile, match="it has: v1"):
        banks.activate("m", "v2")
    assert banks.active("m") == "v1"


def test_forget_removes_one_machine(banks, tmp_path):
    save(banks, "v1")
    banks.save("other", "v1", data=b"x", manifest={})
    banks.activate("m", "v1")
    banks.forget("m")
    assert (banks.active("m"), banks.versions("m")) == (None, [])
    assert banks.read("other", "v1") == b"x"
    assert [p.name for p in (tmp_path / "banks").iterdir()] == ["other"]


@pytest.mark.parametrize("name", ["bank.safetensors", "waveforms.safetensors", "manifest.json"])
@pytest.mark.parametrize("cut", [0, 3])
def test_a_truncated_file_is_never_used(banks, tmp_path, name, cut):
    save(banks, "v1", "v2", waveforms=b"waves")
    banks.activate("m", "v2")
    path = tmp_path / "banks" / "m" / "v2" / name
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(BadFile, match="damaged"):
        banks.read("m", "v2") and banks.waveforms("m", "v2")
    assert banks.read("m", banks.rollback("m")) == b"bank v1"


def test_a_changed_byte_is_found(banks, tmp_path):
    save(banks, "v1")
    (tmp_path / "banks" / "m" / "v1" / "bank.safetensors").write_bytes(b"bank vX")
    with pytest.raises(BadFile, match=r"damaged.*rollback --machine m"):
        banks.read("m", "v1")


def test_a_missing_file_is_found(banks, tmp_path):
    save(banks, "v1")
    (tmp_path / "banks" / "m" / "v1" / "bank.safetensors").unlink()
    with pytest.raises(BadFile, match="cannot be read"):
        banks.read("m", "v1")


@pytest.mark.parametrize("pointer", [b"", b"../../etc", b"\xff\xfe"])
def test_a_damaged_pointer_is_declared(banks, tmp_path, pointer):
    save(banks, "v1")
    (tmp_path / "banks" / "m" / "active").write_bytes(pointer)
    with pytest.raises(BadFile, match="active"):
        banks.active("m")


def test_what_a_crash_left_unfinished_is_no_version_and_is_swept_away(banks, tmp_path):
    save(banks, "v1")
    banks.activate("m", "v1")
    draft = tmp_path / "banks" / "m" / ".v2.draft"
    draft.mkdir()
    (draft / "bank.safetensors").write_bytes(b"half")
    (tmp_path / "banks" / "m" / ".active").write_bytes(b"v2")
    (tmp_path / "banks" / ".gone.forgotten").mkdir()
    with Store.open(tmp_path, max_outbox_bytes=2**20):  # the start of an agent
        assert (banks.versions("m"), banks.active("m")) == (["v1"], "v1")
    assert sorted(p.name for p in (tmp_path / "banks").rglob(".*")) == []


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "a b", ".hidden", "x" * 65])
def test_names_cannot_leave_the_folder(banks, name):
    for call in (lambda: banks.active(name), lambda: banks.save("m", name, data=b"", manifest={})):
        with pytest.raises((ValueError, FisherError)):
            call()


def test_the_manifest_is_readable_by_people(banks, tmp_path):
    save(banks, "v1")
    text = (tmp_path / "banks" / "m" / "v1" / "manifest.json").read_text()
    assert json.loads(text)["version"] == "v1"
    assert text.count("\n") > 5


def test_the_oldest_versions_go_but_none_that_is_needed(tmp_path: Path) -> None:
    files = BankFiles(tmp_path)
    for n in range(8):
        files.save("m", f"v{n}", data=b"x", manifest={"waits": n == 1}, waveforms=b"w" if n == 0 else None)
    files.activate("m", "v3")
    assert files.prune("m", keep=8) == []
    assert files.prune("m", keep=3) == ["v0", "v1", "v4"]
    assert files.versions("m") == ["v2", "v3", "v5", "v6", "v7"]
    assert files.rollback("m") == "v2"
    (tmp_path / "m" / "v5" / "manifest.json").write_text("{")
    assert files.prune("m", keep=2) == ["v3"], "what judges stays, and what is damaged is left to be looked at"
    assert "v5" in files.versions("m")
    assert files.read("m", "v2") == b"x"
    assert not [p for p in (tmp_path / "m").iterdir() if p.name.startswith(".")]


def refine(files: BankFiles, version: str) -> None:
    before = files.active("m")
    assert before is not None
    root = files.root("m", before)
    files.save("m", version, data=b"x", manifest={"refined": {"from": before, "root": root}}, like=before)
    files.activate("m", version)


def test_a_version_that_waits_stays_however_often_limits_are_refined(tmp_path: Path) -> None:
    files = BankFiles(tmp_path)
    files.save("m", "v0", data=b"x", manifest={}, waveforms=b"w")
    files.activate("m", "v0")
    files.save("m", "w", data=b"y", manifest={"waits": True})
    for n in range(20):
        refine(files, f"r{n}")
        files.prune("m", keep=2)
        assert files.waiting("m") == "w"
    assert files.waveforms("m", "r19") == b"w", "shared on the disk"
    assert files.versions("m") == ["w", "r18", "r19"]
    assert files.rollback("m") == "r18"


def test_what_a_rollback_leads_to_stays_though_much_waited_after_it(tmp_path: Path) -> None:
    files = BankFiles(tmp_path)
    files.save("m", "v1", data=b"x", manifest={})
    files.activate("m", "v1")
    for n in range(10):
        files.save("m", f"w{n}", data=b"y", manifest={"waits": True})
        files.prune("m", keep=5)
    files.activate("m", "w9")
    files.save("m", "x", data=b"z", manifest={"waits": True})
    files.prune("m", keep=5)
    assert files.rollback("m") == "v1"


def test_nothing_goes_while_it_is_unclear_what_is_needed(tmp_path: Path) -> None:
    files = BankFiles(tmp_path)
    files.save("m", "v0", data=b"x", manifest={})
    files.activate("m", "v0")
    for n in range(5):
        refine(files, f"r{n}")
    (tmp_path / "m" / "r2" / "manifest.json").write_text("{")
    assert files.prune("m", keep=2) == ["v0", "r0", "r1"], "a damaged one that is past does not stand in the way"
    (tmp_path / "m" / "active").write_text("../x")
    assert files.prune("m", keep=2) == []
