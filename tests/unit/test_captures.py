"""Captures on disk: complete or not there, bounded, verified as they are read; nothing foreign is trusted."""

import errno
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fisher_agent import durable
from fisher_agent.captures import DOCUMENT, SCHEMA, Capture, CaptureFiles, blocks_of
from fisher_agent.durable import sha256
from fisher_agent.errors import BadFile, Unavailable
from fisher_agent.rawfiles import npz, pack, same_bits
from fisher_agent.stages import Frame
from fisher_agent.wire import scaled

T0 = 1_795_000_000_000_000_000
SCALE = 1e-3
SAMPLES = scaled(np.arange(-300, 300, dtype=np.int16), SCALE)
NEAREST = np.linspace(0, 1, 50, dtype=np.float32)


def document(**changes: Any) -> dict[str, Any]:
    channel = {
        "id": "vib", "file": "vib.flac", "rate_hz": 100.0, "unit": "g", "scale": SCALE, "kind": "vibration",
        "t_ns": T0, "n": 600, "format": "i16", "blocks": [[T0, 400, False], [T0 + 5_000_000_000, 200, True]],
    }  # fmt: skip
    return {
        "schema": SCHEMA, "machine": "press", "alarm": "anomaly", "occurrence": 7, "onset_ns": T0, "raised_ns": T0 + 5,
        "text": "press: anomaly", "bank": "v1", "model": "b0", "backend": "openvino", "precision": "f32",
        "channels": [channel], "verdict": {"score": 1.5}, "explanation": {"fault": "unknown"},
    } | changes  # fmt: skip


def contents() -> dict[str, bytes]:
    return {
        "vib.flac": pack(SAMPLES, scale=SCALE, rate_hz=100.0).body,
        "nearest-vib.npz": npz(samples=NEAREST, rate_hz=np.float64(100.0)),
    }


def save(kept: CaptureFiles, name: str = "7", **options: Any) -> str:
    whole = {"max_bytes": 10**9, "document": document(), "files": contents()} | options
    return kept.save("press", name, **whole)


@pytest.fixture
def files(tmp_path: Path) -> CaptureFiles:
    return CaptureFiles(tmp_path / "captures")


def test_what_was_saved_is_read_again(files: CaptureFiles, tmp_path: Path) -> None:
    digest = save(files)
    assert digest == sha256((tmp_path / "captures" / "press" / "7" / DOCUMENT).read_bytes())
    assert files.document("press", 7)["text"] == "press: anomaly"
    assert same_bits(files.samples("press", "7", "vib"), SAMPLES)
    nearest = files.nearest("press", 7, "vib")
    assert nearest is not None and same_bits(nearest[0], NEAREST) and nearest[1] == 100.0
    assert files.nearest("press", 7, "other") is None
    first, second = files.open("press", 7).frames("vib")
    assert (first.t_ns, first.gap, len(first.samples)) == (T0, False, 400)
    assert (second.t_ns, second.gap) == (T0 + 5_000_000_000, True)
    assert same_bits(second.samples, SAMPLES[400:])
    (row,) = files.rows()
    assert (row["capture"], row["occurrence"], row["problem"], row["fault"]) == ("press/7", 7, "", "unknown")
    assert row["bytes"] == sum(p.stat().st_size for p in Path(row["path"]).iterdir())
    assert files.rows("other") == []


def test_blocks_are_given_in_the_order_of_their_stamps_and_once(files: CaptureFiles) -> None:
    late = [[T0 + 4_000_000_000, 100, False], [T0, 400, False], [T0, 100, False]]
    changed = document()
    changed["channels"][0]["blocks"] = late
    save(files, document=changed)
    found = [(f.t_ns, float(f.samples[0])) for f in files.open("press", 7).frames("vib")]
    assert found == [(T0, SAMPLES[100]), (T0 + 4_000_000_000, SAMPLES[0])]


def test_the_oldest_go_first_and_never_those_of_open_alarms(files: CaptureFiles, tmp_path: Path) -> None:
    save(files, "1")
    size = files.rows()[0]["bytes"]
    for n in range(2, 6):
        save(files, str(n))
    for n in range(1, 6):  # the times of the folders tell their age, and may be equal within a tick
        os.utime(tmp_path / "captures" / "press" / str(n), (n, n))
    save(files, "6", max_bytes=4 * size + 100, keep={("press", "1")})
    assert {r["name"] for r in files.rows()} == {"1", "4", "5", "6"}
    with pytest.raises(Unavailable, match=r"press/7 takes 0\.0 MB and does not fit: captures of open alarms"):
        save(files, "7", max_bytes=4 * size, keep={("press", n) for n in "1456"})
    assert {r["name"] for r in files.rows()} == {"1", "4", "5", "6"}
    with pytest.raises(Unavailable, match="does not fit"):
        save(files, "8", max_bytes=10)


def test_a_capture_of_that_name_from_another_life_is_set_aside(files: CaptureFiles) -> None:
    save(files, document=document(text="older"))
    save(files, document=document(text="newer"))
    assert files.document("press", 7)["text"] == "newer"
    assert {r["text"] for r in files.rows()} == {"older", "newer"}


@pytest.mark.parametrize("fails", ["mkdir", "fsync", "rename"])
def test_a_disk_that_refuses_leaves_nothing_and_says_so(
    fails: str, files: CaptureFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(files, "1")

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(*{"fsync": (durable.os, "fsync")}.get(fails, (Path, fails)), full)
    with pytest.raises(Unavailable, match=r"capture press/7 cannot be written .*No space left"):
        save(files)
    monkeypatch.undo()
    assert [r["name"] for r in files.rows()] == ["1"]
    assert not list((tmp_path / "captures").glob("*/.*"))


def test_what_a_crash_left_is_swept_and_never_shown(files: CaptureFiles, tmp_path: Path) -> None:
    files.sweep()  # nothing there yet
    save(files)
    draft = tmp_path / "captures" / "press" / ".8.draft"
    draft.mkdir()
    (draft / "vib.flac").write_bytes(b"half")
    assert [r["name"] for r in files.rows()] == ["7"]
    files.sweep()
    assert not draft.exists()
    assert [r["name"] for r in files.rows()] == ["7"]


@pytest.mark.parametrize("machine", ["..", "a/b", "", "a" * 49, ".hidden", "a\n"])
def test_a_name_never_leaves_the_folder(machine: str, files: CaptureFiles) -> None:
    with pytest.raises(ValueError, match="is not a machine id"):
        files.document(machine, 7)
    with pytest.raises(ValueError, match="is not the name of a capture"):
        files.document("press", f"{machine}/" if machine else "../7")
    with pytest.raises(ValueError, match="is not the name of a file"):
        save(files, files={"../vib.flac": b""})


def edited(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / DOCUMENT
    whole = json.loads(path.read_bytes())
    change(whole)
    path.write_text(json.dumps(whole))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda d: d.update(schema="fisher.capture/2"), "its schema is 'fisher.capture/2'"),
        (lambda d: d.pop("channels"), "channels is missing"),
        (lambda d: d.update(occurrence="7"), "occurrence is a str"),
        (lambda d: d.update(machine="../etc"), "'../etc' is not a machine id"),
        (lambda d: d["channels"].append(3), r"channels\[1\]: no object"),
        (lambda d: d["channels"][0].pop("n"), r"channels\[0\]: n is missing"),
        (lambda d: d["channels"][0].update(file="../../x.flac"), r"'../../x.flac' of 'vib'"),
        (lambda d: d["channels"][0].update(file="/etc/passwd"), r"'/etc/passwd' of 'vib'"),
        (lambda d: d["channels"][0].update(rate_hz=0), "rate_hz 0"),
        (lambda d: d["channels"][0].update(n=601), "its blocks hold 600 samples, n is 601"),
        (lambda d: d["channels"][0].update(blocks=[[T0, "600", 0]]), "blocks must be"),
        (lambda d: d["channels"][0].update(blocks=[[T0, -600, 0]]), "blocks must be"),
    ],
)
def test_a_damaged_or_foreign_document_is_named(
    change: Callable[[dict[str, Any]], object], says: str, files: CaptureFiles, tmp_path: Path
) -> None:
    save(files)
    edited(tmp_path / "captures" / "press" / "7", change)
    with pytest.raises(BadFile, match=says):
        files.open("press", 7)
    assert files.rows()[0]["problem"]


def test_damaged_files_are_named(files: CaptureFiles, tmp_path: Path) -> None:
    save(files)
    folder = tmp_path / "captures" / "press" / "7"
    with pytest.raises(BadFile, match="holds no channel 'other'; it holds: vib"):
        files.samples("press", 7, "other")
    body = (folder / "vib.flac").read_bytes()
    (folder / "vib.flac").write_bytes(body[:-1] + bytes([body[-1] ^ 1]))
    with pytest.raises(BadFile, match=r"vib\.flac is damaged: its contents do not match the checksum"):
        files.samples("press", 7, "vib")
    (folder / "vib.flac").unlink()
    with pytest.raises(BadFile, match="cannot be read"):
        files.samples("press", 7, "vib")
    (folder / DOCUMENT).write_bytes(b"{")
    with pytest.raises(BadFile, match="is damaged"):
        files.document("press", 7)
    (folder / DOCUMENT).unlink()
    with pytest.raises(BadFile, match=r"is no capture: it has no capture\.json"):
        Capture.open(folder)
    with pytest.raises(BadFile, match="is no capture"):
        files.document("press", 8)


def test_a_nearest_window_that_is_none_is_named(files: CaptureFiles) -> None:
    save(files, files=contents() | {"nearest-vib.npz": npz(samples=NEAREST.astype(np.float64), rate_hz=100.0)})
    with pytest.raises(BadFile, match="lacks float32 `samples`"):
        files.nearest("press", 7, "vib")


def test_blocks_that_follow_on_are_one_and_gaps_and_snapshots_are_not() -> None:
    def frames(*starts_ms: int, gap: int = -1) -> Iterator[Frame]:
        for n, ms in enumerate(starts_ms):
            yield Frame("m", "a", T0 + ms * 1_000_000, 1000.0, np.zeros(100, np.float32), gap=n == gap)

    assert blocks_of(list(frames(0, 100, 200)), whole=False) == [(T0, 300, False)]
    assert blocks_of(list(frames(0, 100, 200)), whole=True) == [(T0 + k * 100_000_000, 100, False) for k in range(3)]
    assert blocks_of(list(frames(0, 100, 201)), whole=False) == [(T0, 200, False), (T0 + 201_000_000, 100, False)]
    assert blocks_of(list(frames(0, 100, gap=1)), whole=False) == [(T0, 100, False), (T0 + 100_000_000, 100, True)]
