"""Bundles: a folder that somebody copied onto the box."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import numpy as np
import safetensors.numpy

from fisher_models.bundle import GRAPH, MANIFEST, SELFTEST, WEIGHTS, load
from fisher_models.errors import ModelError
from fuzz.harness import Opened, Target
from fuzz.mutate import damaged, json_of, mixed
from fuzz.targets.tensors import maker


@contextmanager
def _bundle(work: Path) -> Iterator[Opened]:
    """The first byte says whether the rest is the manifest or, with its checksum put right, the self-test."""
    document = json.loads((load("fisher-tiny").path / MANIFEST).read_bytes())
    tests = [
        safetensors.numpy.save(
            {"bands": np.zeros((n, 16, 100), np.float32), "centres": np.zeros(n, np.float32),
             "embedding": np.zeros((n, 8), np.float32)}
        )
        for n in (1, 2)
    ]  # fmt: skip
    files = {GRAPH: b"graph", WEIGHTS: b"weights", SELFTEST: tests[0]}
    document["files"] = {name: _stated(body) for name, body in files.items()}
    folder = work / "b"
    folder.mkdir()
    for name, body in files.items():
        (folder / name).write_bytes(body)
    whole = json.dumps(document).encode()

    def run(data: bytes) -> None:
        manifest, selftest = data[1:], tests[0]
        if data[:1] == b"\x01":
            selftest = data[1:]
            stated = {**document, "files": {**document["files"], SELFTEST: _stated(selftest)}}
            manifest = json.dumps(stated).encode()
        (folder / MANIFEST).write_bytes(manifest)
        (folder / SELFTEST).write_bytes(selftest)
        bundle = load(folder)
        assert bundle.embed_dim >= 0
        assert bundle.frontend.longest_s > 0
        assert bundle.family

    def of_manifest(rng: Random) -> bytes:
        return b"\x00" + (json_of(rng, [document]) if rng.random() < 0.9 else damaged(rng, [whole]))

    def of_selftest(rng: Random) -> bytes:
        return b"\x01" + (maker(tests)(rng) if rng.random() < 0.9 else damaged(rng, tests))

    yield Opened([b"\x00" + whole, b"\x01" + tests[1]], mixed((0.6, of_manifest), (0.4, of_selftest)), run)


def _stated(body: bytes) -> dict[str, object]:
    return {"bytes": len(body), "sha256": hashlib.sha256(body).hexdigest()}


TARGETS = (Target("bundle", _bundle, allowed=(ModelError,), share=0.1),)
