"""A power cut at any moment: what was written is recorded, and played back up to every point without what no disk had.

What `fsync` has not confirmed may be missing after a power cut: names that were made or renamed in a folder that was
not flushed since, and the end of SQLite's log. A file's contents are flushed as they are written (`durable.write`).
"""

import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fisher_agent import bankfiles, captures
from fisher_agent.bankfiles import BankFiles
from fisher_agent.captures import SCHEMA, CaptureFiles
from fisher_agent.codes import State
from fisher_agent.lifecycle import Alarm
from fisher_agent.stages import Message, Point
from fisher_agent.store import Store
from fisher_agent.storerows import Score

SUBSETS = 6  # of what was not flushed, for each moment


@dataclass(frozen=True)
class Entry:
    """A change of a folder: it is on the disk for sure once that folder was flushed."""

    folder: Path
    apply: Callable[[Path, Path], None]  # from the recorded folder's place to the played one


@dataclass(frozen=True)
class Flush:
    """A folder that was flushed."""

    folder: Path


class Recorder:
    """Lets the code under test run on the real disk, and notes what it did below a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.log: list[Entry | Flush] = []

    def write(self, path: Path, body: bytes) -> None:
        path.write_bytes(body)
        self._note(path.parent, lambda at: at(path).write_bytes(body))

    def sync(self, folder: Path) -> None:
        self.log.append(Flush(folder))

    def mkdir(self, path: Path) -> None:
        self._note(path.parent, lambda at: at(path).mkdir(parents=True, exist_ok=True))

    def rename(self, source: Path, target: Path) -> None:
        self._note(source.parent, lambda at: at(source).replace(at(target)))

    def link(self, path: Path, target: Path) -> None:
        self._note(path.parent, lambda at: at(path).hardlink_to(at(target)))

    def remove(self, path: Path) -> None:
        self._note(path.parent, lambda at: shutil.rmtree(at(path), ignore_errors=True))

    def _note(self, folder: Path, act: Callable[[Callable[[Path], Path]], Any]) -> None:
        def apply(root: Path, played: Path) -> None:
            act(lambda path: played / path.relative_to(root))

        self.log.append(Entry(folder, apply))

    def played(self, upto: int, folder: Path, base: Path, rng: random.Random | None) -> None:
        """The disk after a cut: all that is flushed, and of the rest a random part (None: nothing)."""
        shutil.copytree(base, folder)
        log = self.log[:upto]
        for n, entry in enumerate(log):
            if isinstance(entry, Flush):
                continue
            flushed = any(isinstance(e, Flush) and e.folder == entry.folder for e in log[n:])
            if flushed or (rng is not None and rng.random() < 0.5):
                try:
                    entry.apply(self.root, folder)
                except OSError:
                    continue  # it rests on something that is missing


@contextmanager
def recorded(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Recorder]:
    recorder = Recorder(root)
    originals = {name: getattr(Path, name) for name in ("mkdir", "rename", "replace", "hardlink_to")}
    remove = shutil.rmtree

    def mkdir(path: Path, *args: Any, **kwargs: Any) -> None:
        originals["mkdir"](path, *args, **kwargs)
        if path.is_relative_to(root):
            recorder.mkdir(path)

    def renamed(name: str) -> Callable[[Path, Path], Path]:
        def rename(path: Path, target: Path) -> Path:
            moved: Path = originals[name](path, target)
            recorder.rename(path, Path(target))
            return moved

        return rename

    def link(path: Path, target: Path) -> None:
        originals["hardlink_to"](path, target)
        recorder.link(path, target)

    def rmtree(path: Path, **kwargs: Any) -> None:
        remove(path, **kwargs)
        recorder.remove(Path(path))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "mkdir", mkdir)
        for name in ("rename", "replace"):
            patch.setattr(Path, name, renamed(name))
        patch.setattr(Path, "hardlink_to", link)
        patch.setattr(shutil, "rmtree", rmtree)
        for module in (bankfiles, captures):
            patch.setattr(module, "write", recorder.write)
            patch.setattr(module, "sync", recorder.sync)
        yield recorder


def disks(recorder: Recorder, base: Path, folder: Path) -> Iterator[tuple[int, Path]]:
    """Every disk that a cut may leave: after each step, with none, and with random parts of what was not flushed."""
    for upto in range(len(recorder.log) + 1):
        for n in range(SUBSETS + 1):
            disk = folder / f"{upto}-{n}"
            recorder.played(upto, disk, base, random.Random(100 * upto + n) if n else None)
            yield upto, disk


def bank_of(disk: Path) -> tuple[str, bytes, bytes | None]:
    """As the next start reads it."""
    banks = BankFiles(disk / "banks")
    banks.sweep()
    version = banks.active("press")
    assert version is not None, "the machine has lost its bank"
    assert version in banks.versions("press")
    for other in banks.versions("press"):
        banks.read("press", other)
        banks.waveforms("press", other)
    return version, banks.read("press", version), banks.waveforms("press", version)


def test_a_bank_is_the_old_one_or_the_new_one_and_the_new_one_once_that_was_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, base = tmp_path / "disk", tmp_path / "base"
    banks = BankFiles(root / "banks")
    root.mkdir()
    banks.sweep()
    banks.save("press", "v1", data=b"old bank", manifest={}, waveforms=b"waves")
    banks.activate("press", "v1")
    shutil.copytree(root, base)
    with recorded(root, monkeypatch) as recorder:
        banks.save("press", "v2", data=b"new bank", manifest={}, like="v1")
        banks.activate("press", "v2")
    assert len(recorder.log) > 8
    seen = set()
    for upto, disk in disks(recorder, base, tmp_path / "cuts"):
        found = bank_of(disk)
        seen.add(found)
        if upto == len(recorder.log):
            assert found == ("v2", b"new bank", b"waves"), "it was said to be active"
    assert seen == {("v1", b"old bank", b"waves"), ("v2", b"new bank", b"waves")}


def test_the_first_bank_of_a_machine_is_there_once_that_was_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, base = tmp_path / "disk", tmp_path / "base"
    root.mkdir()
    banks = BankFiles(root / "banks")
    banks.sweep()
    shutil.copytree(root, base)
    with recorded(root, monkeypatch) as recorder:
        banks.save("press", "v1", data=b"bank", manifest={})
        banks.activate("press", "v1")
    for upto, disk in disks(recorder, base, tmp_path / "cuts"):
        files = BankFiles(disk / "banks")
        files.sweep()
        if files.active("press") is not None:
            assert bank_of(disk) == ("v1", b"bank", None)
        assert files.active("press") or upto < len(recorder.log), "it was said to be active"


def test_a_capture_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, base = tmp_path / "disk", tmp_path / "base"
    root.mkdir()
    files = CaptureFiles(root / "captures")
    document = {
        "schema": SCHEMA, "machine": "press", "alarm": "anomaly", "occurrence": 1, "onset_ns": 1, "raised_ns": 2,
        "text": "t", "bank": "v1", "model": "b1", "channels": [], "verdict": {}, "explanation": {},
    }  # fmt: skip
    shutil.copytree(root, base)
    with recorded(root, monkeypatch) as recorder:
        files.save("press", "1", document=document, files={"nearest-vib.npz": b"x"}, max_bytes=10**6)
    whole = 0
    for upto, disk in disks(recorder, base, tmp_path / "cuts"):
        left = CaptureFiles(disk / "captures")
        left.sweep()
        rows = left.rows()
        assert [row["problem"] for row in rows] in ([], [""])
        whole += len(rows)
        assert rows or upto < len(recorder.log)
    assert whole


def alarm(seq: int) -> Alarm:
    return Alarm(machine="press", alarm="anomaly", base=State.UNACK, seq=seq, occurrence=seq)


def lived(store: Store, turns: Sequence[int]) -> None:
    for seq in turns:
        store.add_points([Point("m", (("machine", "press"),), (("x", seq),), seq * 10**6)])
        store.add_scores([Score("press", seq, 0.5, 0.5, 0, 0, 0)])
        event = Message("B/press/event", b"%d" % seq)
        store.commit_alarms("press", [alarm(seq)], seq, messages=[event])
        if seq % 3 == 0:
            store.done([i for i, _ in store.peek("influx", 2)])


@pytest.mark.parametrize("seed", range(3))
def test_the_state_is_of_one_moment_wherever_its_log_was_cut(seed: int, tmp_path: Path) -> None:
    turns = range(1, 13)
    rng = random.Random(seed)
    with Store.open(tmp_path / "live", max_outbox_bytes=2**20) as store:
        lived(store, turns)
        database, log = ((tmp_path / "live" / name).read_bytes() for name in ("state.db", "state.db-wal"))
    found = set()
    for n, cut in enumerate([0, *(rng.randrange(len(log)) for _ in range(25)), len(log)]):
        folder = tmp_path / f"cut-{n}"
        folder.mkdir()
        (folder / "state.db").write_bytes(database)
        (folder / "state.db-wal").write_bytes(log[:cut])
        with Store.open(folder, max_outbox_bytes=2**20) as left:
            assert left.notes == []
            for queue in ("influx", "mqtt"):
                counters = left.counters(queue)
                assert counters.added == counters.written + counters.rejected + counters.evicted + counters.held
            alarms, occurrence = left.load_alarms("press")
            seqs = [a.seq for a in left.journal("press")]
            assert sorted(seqs) == list(range(1, len(seqs) + 1)), "a transition is missing"
            assert ([a.seq for a in alarms] or [0]) == [len(seqs)], "the alarm is not what its journal says"
            assert occurrence == len(seqs)
            assert left.counters("mqtt").added == len(seqs), "a transition and its announcement are one"
            found.add(len(seqs))
    assert max(found) == len(turns), "the whole log holds what was committed"
    assert len(found) > 3
