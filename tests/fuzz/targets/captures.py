"""What was kept of an alarm: its document, and the FLAC and npz files beside it."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import numpy as np

from fakes import WINDOW, channel, machine
from fisher_agent.captures import CaptureFiles
from fisher_agent.errors import FisherError
from fisher_agent.files import read_many
from fisher_agent.page.evidence import Evidence
from fisher_agent.rawfiles import arrays_of, npz, pack, unpack
from fisher_agent.wire import scaled
from fuzz.harness import Opened, Target
from fuzz.mutate import damaged, json_of, mixed
from fuzz.targets.archives import an_npz

RATES = {"vib": 8000, "amp": 4000}
T_NS = 1_795_000_000_000_000_000


def _parts() -> tuple[dict[str, object], dict[str, bytes]]:
    """A small capture: one channel as FLAC, one as npz, and the nearest enrolled window of the first."""
    rng = np.random.default_rng(4)
    whole = rng.integers(-2000, 2000, 1600).astype(np.int16)
    samples = {"vib": scaled(whole, 0.001), "amp": rng.normal(size=800).astype(np.float32)}
    packed = {c: pack(x, scale=0.001, rate_hz=RATES[c]) for c, x in samples.items()}
    files = {c + raw.suffix: raw.body for c, raw in packed.items()}
    files["nearest-vib.npz"] = npz(samples=samples["vib"], rate_hz=8000.0)
    document = {
        "schema": "fisher.capture/1", "machine": "press-07", "alarm": "anomaly", "occurrence": 7, "onset_ns": T_NS,
        "raised_ns": T_NS + 10**8, "text": "press-07: anomaly", "bank": "v1", "model": "m1",
        "channels": [
            {"id": c, "file": c + raw.suffix, "rate_hz": RATES[c], "unit": "g", "scale": 0.001, "t_ns": T_NS,
             "n": len(samples[c]), "format": raw.format,
             "blocks": [[T_NS, 400, False], [T_NS + 10**9, len(samples[c]) - 400, True]]}
            for c, raw in packed.items()
        ],
        "verdict": {"t_ns": T_NS + 2 * 10**9, "score": 3.5, "window_s": 0.1},
        "explanation": {"nearest": [{"channel": "vib", "t_ns": T_NS - 10**12}], "fault": "outer-race"},
    }  # fmt: skip
    return document, files


@contextmanager
def _capture(work: Path) -> Iterator[Opened]:
    """The document, changed; every reader of captures looks at it: the page, the command line, an enrolment."""
    document, files = _parts()
    kept = CaptureFiles(work / "captures")
    kept.save("press-07", "7", document=document, files=files, max_bytes=10**9)
    folder = work / "captures" / "press-07" / "7"
    whole = (folder / "capture.json").read_bytes()
    evidence = Evidence(work)
    press = machine(*(channel(c, rate) for c, rate in RATES.items()))

    def run(data: bytes) -> None:
        (folder / "capture.json").write_bytes(data)
        refused: FisherError | None = None
        for look in (
            lambda: kept.rows(),
            lambda: [evidence.whole("press-07", 7, c) for c in RATES],
            lambda: [evidence.alarmed("press-07", 7, c) for c in RATES],
            lambda: evidence.nearest("press-07", 7, "vib"),
            lambda: json.dumps(evidence.document("press-07", 7)).encode(),
            lambda: list(read_many([folder], machine=press, window=WINDOW)),
        ):
            try:
                look()
            except FisherError as error:
                refused = error
        if refused is not None:
            raise refused

    yield Opened(
        [whole],
        mixed((0.9, lambda rng: json_of(rng, [json.loads(whole)])), (0.1, lambda rng: damaged(rng, [whole]))),
        run,
    )


@contextmanager
def _raw(_work: Path) -> Iterator[Opened]:
    """The files of samples; the first byte says of which format they should be."""
    rng = np.random.default_rng(4)
    wide = scaled(rng.integers(-(2**20), 2**20, 3000).astype(np.int32), 1e-6)
    bodies = [
        b"\x00" + pack(scaled(rng.integers(-2000, 2000, 3000).astype(np.int16), 0.001), scale=0.001, rate_hz=8000).body,
        b"\x01" + pack(wide, scale=1e-6, rate_hz=12800).body,
        b"\x02" + npz(samples=rng.normal(size=300).astype(np.float32)),
    ]
    scales = (0.001, 1e-6, 1.0)

    def run(data: bytes) -> None:
        at = (data[0] if data else 0) % 3
        samples = unpack(data[1:], form=("i16", "i24", "f32")[at], scale=scales[at])
        assert samples.dtype == np.float32
        assert samples.ndim == 1
        if at == 2:
            arrays_of(data[1:])

    def npz_of(rng: Random) -> bytes:
        return b"\x02" + an_npz(rng)

    yield Opened(bodies, mixed((0.7, lambda rng: damaged(rng, bodies)), (0.3, npz_of)), run)


TARGETS = (Target("capture", _capture, share=0.05), Target("capture-samples", _raw, share=0.3))
