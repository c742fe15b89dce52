"""Which precision, threads, streams and batch are fastest on this CPU: measured once, in a child process, and kept.

A child, so that what was compiled for trying leaves no memory behind, and a kernel that this CPU cannot run ends the
child and not the agent. A lower precision serves only if it keeps the embeddings (`ENOUGH`) and is worth it
(`WORTH`). A precision once chosen stays while it is good enough: the banks were made with it.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import structlog

from fisher_agent.backends import self_test
from fisher_agent.backends.openvino import OpenVinoEmbedder, graph, precisions
from fisher_agent.backends.pieces import MAX_FRAMES
from fisher_agent.errors import BackendFailed
from fisher_agent.stages import Floats
from fisher_models import bundle as bundles
from fisher_models import proof
from fisher_models.bundle import Bundle
from fisher_models.cpu import core
from fisher_models.ov import ov
from fisher_models.proof import Quality

SCHEMA = "fisher.probe/1"
TIMEOUT_S = 120.0
ENOUGH = Quality(cosine=0.995, spearman=0.99, nearest=0.9)  # the least that a lower precision must keep
WORTH = 1.2  # times float32: less is not worth any loss
_FRAMES = (1024, MAX_FRAMES)
_REPEATS = 3
_TIMED_BANDS, _TIMED_FRAMES = 16, 480
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Choice:
    """How the CPU backend is opened, and what was measured for it."""

    precision: str = "f32"
    threads: int | None = None
    streams: int = 1
    max_frames: int = MAX_FRAMES
    ms_per_band: Mapping[str, float] = field(default_factory=dict)  # precision -> of its best setting, 4.8 s bands
    quality: Mapping[str, Mapping[str, float]] = field(default_factory=dict)  # precision -> what it keeps
    refused: Mapping[str, str] = field(default_factory=dict)  # precision -> why it may not serve

    def open(self, bundle: Bundle) -> OpenVinoEmbedder:
        """The embedder."""
        return OpenVinoEmbedder(
            bundle,
            precision=self.precision,
            threads=self.threads,
            streams=self.streams,
            max_frames=self.max_frames,
        )


def choose(bundle: Bundle, *, precision: str = "auto", threads: int | None = None, cache: Path | None = None) -> Choice:
    """The kept choice for this bundle, CPU and runtime, or a new one, kept in the folder `cache`.

    With float32 and a number of threads given there is nothing worth a measurement. A precision that does not keep the
    embeddings is not served, whoever asked for it: `refused` says why. A probe that fails is logged, and the agent
    serves in float32 with the runtime's own settings: slower at worst. ConfigError for what this box does not have.
    """
    if precision != "auto":
        graph(bundle, precision)
    if precision == "f32" and threads is not None:
        return Choice(threads=threads)
    identity = {
        "schema": SCHEMA, "bundle": bundle.digest, "openvino": ov.__version__, "wanted": precision, "threads": threads,
        "cpu": str(core().get_property("CPU", "FULL_DEVICE_NAME")), "cores": _cores(None),
    }  # fmt: skip
    path = None if cache is None else cache / f"probe-{bundle.digest[:13]}.json"
    kept = _read(path) if path else {}
    if kept.get("identity") == identity:
        return Choice(**kept["choice"])
    before = kept.get("choice", {}).get("precision", "") if kept.get("identity", {}).get("wanted") == precision else ""
    module = "fisher_agent.backends.probe"
    command = [sys.executable, "-m", module, str(bundle.path), bundle.digest, precision, str(threads or 0)]
    began_s = time.monotonic()
    try:
        done = subprocess.run(  # noqa: S603 (this interpreter, this module, a verified bundle's path)
            [*command, before], capture_output=True, text=True, timeout=TIMEOUT_S, check=True
        )
        choice = Choice(**json.loads(done.stdout))
    except (OSError, subprocess.SubprocessError, ValueError, TypeError) as error:
        said = (getattr(error, "stderr", "") or "")[-500:]
        log.warning("probe_failed", error=str(error), said=said, serving="f32")
        refused = {} if precision in ("auto", "f32") else {precision: f"its probe failed: {error}"}
        return Choice(threads=threads, refused=refused)
    log.info("probed", seconds=round(time.monotonic() - began_s, 1), **asdict(choice))
    if path:
        _keep(path, {"identity": identity, "choice": asdict(choice)})
    return choice


def measure(bundle: Bundle, *, precision: str, threads: int | None, before: str = "") -> Choice:
    """Try what this CPU has. `before` names a precision that serves as long as it is good enough."""
    signals = proof.bands(bundle.frontend, seed=1)  # the calibration of int8 drew from seed 0
    reference = OpenVinoEmbedder(bundle, threads=threads).embed(*signals)
    kept: dict[str, Quality] = {}
    refused: dict[str, str] = {}
    times: dict[str, tuple[float, Choice]] = {}
    for name in precisions(bundle) if precision == "auto" else dict.fromkeys((precision, "f32")):
        try:
            embedder = OpenVinoEmbedder(bundle, precision=name, threads=threads)
            self_test(embedder, bundle)
            if name != "f32":
                kept[name] = proof.quality(reference, embedder.embed(*signals))
                if short := _short_of_enough(kept[name]):
                    refused[name] = short
                    continue
            times[name] = min(_timings(bundle, name, threads), key=lambda timed: timed[0])
        except BackendFailed as error:
            refused[name] = str(error)
    if not times:
        raise BackendFailed(f"no precision serves: {refused}")
    best = precision if precision in times else _best(times, before)
    return Choice(
        precision=best,
        threads=times[best][1].threads,
        streams=times[best][1].streams,
        max_frames=times[best][1].max_frames,
        ms_per_band={name: round(ms, 3) for name, (ms, _) in times.items()},
        quality={name: quality.to_dict() for name, quality in kept.items()},
        refused=refused,
    )


def _best(times: Mapping[str, tuple[float, Choice]], before: str) -> str:
    if before in times:
        return before
    fastest = min(times, key=lambda name: times[name][0])
    plain = "f32" if "f32" in times else fastest
    return fastest if times[plain][0] >= WORTH * times[fastest][0] else plain


def _timings(bundle: Bundle, precision: str, threads: int | None) -> Iterator[tuple[float, Choice]]:
    """(ms per band, setting) of each setting worth trying."""
    rng = np.random.default_rng(2)
    bands: Floats = rng.normal(-1, 0.25, (_TIMED_BANDS, _TIMED_FRAMES, bundle.frontend.band_bins)).astype(np.float32)
    centres: Floats = np.linspace(0.1, 0.9, len(bands), dtype=np.float32)
    cores = _cores(threads)
    for streams in sorted({1, cores}):
        for max_frames in _FRAMES:
            setting = Choice(precision=precision, threads=cores, streams=streams, max_frames=max_frames)
            embedder = setting.open(bundle)
            embedder.embed(bands, centres)  # compiles the kernels for this shape
            taken_s = []
            for _ in range(_REPEATS):
                began_s = time.perf_counter()
                embedder.embed(bands, centres)
                taken_s.append(time.perf_counter() - began_s)
            yield min(taken_s) / len(bands) * 1e3, setting
            embedder.close()


def _short_of_enough(found: Quality) -> str:
    limits, values = asdict(ENOUGH), asdict(found)
    return ", ".join(
        f"{key} {values[key]:.4f} is under {limits[key]:g}" for key in limits if not values[key] >= limits[key]
    )


def _cores(threads: int | None) -> int:
    available = len(os.sched_getaffinity(0))
    return available if threads is None else min(threads, available)


def _read(path: Path) -> dict[str, Any]:
    """What was kept; nothing where it is missing, damaged or of another form, for then it is measured again."""
    try:
        kept = json.loads(path.read_bytes())
        Choice(**kept["choice"])
        kept["identity"]["wanted"]
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, KeyError) as error:
        log.warning("probe_unreadable", path=str(path), error=str(error))
        return {}
    return dict(kept)


def _keep(path: Path, document: Mapping[str, Any]) -> None:
    """Whole or not at all; a disk that is full only costs the next start its time."""
    try:
        path.parent.mkdir(exist_ok=True)  # not its parents: a command must not make the daemon's folder
        with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
            json.dump(document, file)
        Path(file.name).chmod(0o644)
        Path(file.name).replace(path)
    except OSError as error:
        log.warning("probe_not_kept", path=str(path), error=str(error))


def _child(arguments: list[str]) -> None:
    path, digest, precision, threads, before = arguments
    bundle = bundles.load(Path(path), digest=digest)  # the one that the agent verified
    print(
        json.dumps(asdict(measure(bundle, precision=precision, threads=int(threads) or None, before=before))),
        flush=True,
    )
    os._exit(0)  # seen once in hundreds of runs: the runtime crashes while it frees its compiled graphs


if __name__ == "__main__":
    _child(sys.argv[1:])
