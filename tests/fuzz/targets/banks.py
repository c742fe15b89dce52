"""Banks and the waveforms that they were made from, as they lie on the disk."""

import dataclasses
import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random
from typing import Any

import safetensors
import safetensors.numpy

from fakes import PRESS, SPEC, T0_NS, WINDOW, FakeEmbedder, bundle, running
from fisher_agent.bank import _digest
from fisher_agent.bankfiles import BankFiles
from fisher_agent.bankset import BankSet
from fisher_agent.config import WindowConfig
from fisher_agent.enrolment import learn, learn_fault
from fisher_agent.errors import BadFile, FisherError
from fisher_agent.gather import Gatherer
from fisher_agent.keptrecordings import pack, unpack
from fisher_agent.keptwaves import KeptWaves
from fisher_models.frontend import Frontend
from fuzz.harness import Opened, Target
from fuzz.mutate import damaged, json_of, mixed
from fuzz.targets.tensors import maker, metadata, read, written


def _banks() -> list[BankSet]:
    """A bank with a fault, and one of two modes."""
    common: dict[str, Any] = {
        "machine": PRESS, "window": WINDOW, "bundle": bundle(), "frontend": Frontend(SPEC), "embedder": FakeEmbedder(),
        "version": "v20261121T013000-3f2a", "created_ns": 5,
    }  # fmt: skip
    normal, _ = learn(running(seconds=12), **common)
    faulty, _ = learn_fault(running(seconds=4, tone_hz=1230.37), bank=normal, fault="bearing", **common)
    return [BankSet((faulty,)), BankSet((faulty, dataclasses.replace(normal, mode="idle")))]


def _proven(file: bytes) -> bytes:
    """With the checksum that its contents have; as it is where that cannot be put right."""
    with suppress(ValueError, KeyError, TypeError, AttributeError, RecursionError, safetensors.SafetensorError):
        header, body = read(file)
        document = json.loads(header["__metadata__"]["bank"])
        document["sha256"] = _digest(safetensors.numpy.load(file))
        header["__metadata__"]["bank"] = json.dumps(document)
        return written(header, body)
    return file


@contextmanager
def _bank(_work: Path) -> Iterator[Opened]:
    files = [banks.to_bytes() for banks in _banks()]
    one = [_proven(files[0])]

    def run(data: bytes) -> None:
        banks = BankSet.from_bytes(data)
        assert BankSet.from_bytes(banks.to_bytes()).modes == banks.modes
        for bank in banks:
            assert bank.faults is None or bank.faults.counts

    def proven(rng: Random) -> bytes:
        return _proven(rng.choice((maker(one), metadata(one, "bank")))(rng))

    def of_modes(rng: Random) -> bytes:
        return rng.choice((maker([files[1]]), metadata([files[1]], "banks")))(rng)

    yield Opened(files, mixed((0.6, proven), (0.25, of_modes), (0.15, lambda rng: damaged(rng, files))), run)


@contextmanager
def _kept(work: Path) -> Iterator[Opened]:
    """Read whole, to learn from, and in part, to show."""
    files = [pack({"": running(seconds=3), "@idle": running(seconds=2)}), pack({"bearing": running(seconds=1)})]
    path = work / "waveforms.safetensors"
    whole_window = WindowConfig(length_s=1.0, hop_s=0.5)

    def run(data: bytes) -> None:
        path.write_bytes(data)
        waves = KeptWaves(path, machine=PRESS, window=whole_window, labels=("", "@idle"))
        refused: FisherError | None = None
        try:
            waves.moments([T0_NS + 1_500_000_000, 0, -1])
        except BadFile as error:
            refused = error
        for recording in unpack(data).values():
            gatherer = Gatherer(PRESS, whole_window)
            assert recording.duration_s >= 0
            for frame in recording.frames():
                if frame.channel in {c.id for c in PRESS.channels}:
                    gatherer.push(frame)
            gatherer.flush()
            recording.thinned(10_000)
        if refused is not None:
            raise refused

    yield Opened(files[:1], mixed((0.85, maker(files)), (0.15, lambda rng: damaged(rng, files))), run)


@contextmanager
def _folder(work: Path) -> Iterator[Opened]:
    """What stands beside a bank: its manifest, and the name of the active version."""
    files = BankFiles(work)
    files.sweep()
    for version in ("v1", "v2"):
        files.save("m", version, data=b"x", manifest={"report": {}}, waveforms=b"y")
        files.activate("m", version)
    manifest = (work / "m" / "v1" / "manifest.json").read_bytes()
    document = json.loads(manifest) | {"waits": True, "refined": {"from": "v0"}}
    reads = (files.active, files.waiting, files.versions, files.before)

    def run(data: bytes) -> None:
        (work / "m" / "v1" / "manifest.json").write_bytes(data)
        (work / "m" / "active").write_bytes(data[:80] if data[:1] != b"{" else b"v1")
        refused: FisherError | None = None
        for look in (*reads, lambda m: files.manifest(m, "v1"), lambda m: files.waveforms(m, "v1")):
            try:
                look("m")
            except FisherError as error:
                refused = error
        if refused is not None and data != manifest:
            raise refused

    whole = [manifest]
    yield Opened(
        whole, mixed((0.8, lambda rng: json_of(rng, [document])), (0.2, lambda rng: damaged(rng, [b"v1", *whole]))), run
    )


TARGETS = (
    Target("bank", _bank, share=0.1),
    Target("kept-waveforms", _kept, share=0.05),
    Target("bank-folder", _folder, share=0.1),
)
