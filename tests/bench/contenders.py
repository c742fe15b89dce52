"""Ours, as the agent runs it: the front-end, then one batch through the embedder that the probe chose."""

import subprocess
import sys
import time
from ctypes import CDLL, byref, c_int
from dataclasses import asdict, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from bench import products
from bench.workloads import Embeddings, Workload, per_window, same_rate
from fisher_agent.backends import open_embedder, probe
from fisher_agent.backends.openvino import PRECISIONS, OpenVinoEmbedder
from fisher_agent.errors import ConfigError
from fisher_agent.stages import Embedder
from fisher_models import proof
from fisher_models.bundle import Bundle
from fisher_models.frontend import Floats, Frontend

OURS = tuple(("openvino", precision) for precision in PRECISIONS)
GPU = (("tensorrt", "f16"), ("torch", "f16"))
PROOF_SEED = 2  # neither the one that int8 was calibrated with nor the probe's
RSS = """
import sys
from bench import contenders, workloads
from fisher_agent.service import keep_heap_small, rss_bytes
from fisher_models.bundle import load
keep_heap_small()
ours = contenders.Ours(load(sys.argv[1]), *sys.argv[2:])
ours.run(workloads.same_rate(count=1))
print(rss_bytes())
"""


class Ours:
    """One backend in one precision; `cache` keeps what the probe chose.

    Raises ConfigError or BackendFailed where this machine has it not.
    """

    def __init__(self, bundle: Bundle, backend: str, precision: str, cache: str) -> None:
        self.bundle, self.frontend = bundle, Frontend(bundle.frontend)
        self.front_end_s = 0.0  # of the last run
        self.opened_as: dict[str, Any] = {}
        self._product: products.Product | None = None
        self.embedder = self._open(backend, precision, cache)

    def run(self, workload: Workload) -> Embeddings:
        """Every window of it."""
        began_s = time.perf_counter()
        cut = [self.frontend.bands(wave, rate_hz) for wave, rate_hz in workload.windows]
        bands, centres = (np.concatenate(parts) for parts in zip(*cut, strict=True))
        self.front_end_s = time.perf_counter() - began_s
        return per_window(self.embedder.embed(bands, centres), [len(part) for part, _ in cut])

    def proof(self) -> Floats:
        """Embeddings of the signals that a precision is judged by."""
        return self.embedder.embed(*proof.bands(self.bundle.frontend, seed=PROOF_SEED))

    def scaling(self, *, pairs: int, window_s: float) -> list[float]:
        """Time of a batch of 64 channels over 8 times that of a batch of 8, 16 kHz each, pair by pair."""
        few, many = (same_rate(count=count, window_s=window_s, rate_hz=16_000) for count in (8, 64))
        self.run(few), self.run(many)
        return [self._timed(many) / (8 * self._timed(few)) for _ in range(pairs)]

    def describe(self) -> dict[str, Any]:
        """What serves: the device, and the threads and streams where a probe chose them."""
        return {"device": self.embedder.device, **self.opened_as}

    def matmul_rate(self) -> tuple[float, str]:
        """Operations per second of a large product in this precision, now, and the type that it ran in."""
        if self._product is None:
            self._product = products.Product(self.embedder.precision)
        return self._product.rate(), self._product.ran_in

    def operators(self, *, frames: int) -> list[tuple[str, float]]:
        """(kind of operator, share of the time), the largest first; of OpenVINO only."""
        return products.operators(self.bundle, self.embedder.precision, frames=frames)

    def _open(self, backend: str, precision: str, cache: str) -> Embedder:
        if backend == "openvino":
            OpenVinoEmbedder(self.bundle, precision=precision).close()  # says what this machine has not
            choice = probe.choose(self.bundle, precision=precision, cache=Path(cache) / precision)
            choice = replace(
                choice, precision=precision
            )  # one that the probe refuses is measured, and shown as refused
            self.opened_as = {key: asdict(choice)[key] for key in ("threads", "streams", "max_frames")}
            return choice.open(self.bundle)
        if find_spec(backend) is None:
            raise ConfigError(f"the package {backend} is not installed")
        if not _cuda():
            raise ConfigError("no CUDA device")
        embedder, note = open_embedder(self.bundle, backend=backend, precision=precision)
        if embedder.name != backend:
            embedder.close()
            raise ConfigError(note)
        return embedder

    def _timed(self, workload: Workload) -> float:
        began_s = time.perf_counter()
        self.run(workload)
        return time.perf_counter() - began_s


def rss_mb(bundle: Bundle, *opening: str, path: str) -> float:
    """Resident memory of a fresh process that has opened the model and embedded one window of 10 s at 48 kHz.

    `opening` is what `Ours` takes beside the bundle, `path` the folder that holds `bench`.
    """
    code = f"import sys; sys.path.insert(0, {path!r})\n{RSS}"
    command = [sys.executable, "-c", code, str(bundle.path), *opening]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return int(done.stdout.split()[-1]) / 1e6


def _cuda() -> bool:
    """Whether the driver counts a device; asks neither torch nor TensorRT, which may be built without it."""
    try:
        driver = CDLL("libcuda.so.1")
    except OSError:
        return False
    count = c_int()
    return driver.cuInit(0) == 0 and driver.cuDeviceGetCount(byref(count)) == 0 and count.value > 0
