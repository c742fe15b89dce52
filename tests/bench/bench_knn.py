"""The nearest of 100,000 enrolled windows for 64 queries: ours against faiss-cpu's flat index, in pairs."""

import argparse
import json
import os
import sys
import time
import tracemalloc
from collections.abc import Callable

import numpy as np

from fisher_agent.nearest import Index

try:
    import faiss
except ImportError:
    sys.exit("bench_knn compares with faiss: pip install faiss-cpu")

WINDOWS, DIMENSIONS, BANDS, QUERIES, PAIRS = 100_000, 1152, 6, 64, 15
REGIMES, SPREAD = 3, 0.1  # windows of one regime are 0.01 apart in cosine distance
BLAS_FROM = 20  # queries; faiss 1.15 waits for far more, and is 10 times slower here for it


def main() -> None:
    """Measure, check that both find the same windows, print the medians and the ratio."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--json", action="store_true")
    as_json = arguments.parse_args().json
    threads = (
        len(os.sched_getaffinity(0)) if "OMP_NUM_THREADS" not in os.environ else int(os.environ["OMP_NUM_THREADS"])
    )
    faiss.omp_set_num_threads(threads)
    rng = np.random.default_rng(0)
    regimes = rng.standard_normal((REGIMES, DIMENSIONS), dtype=np.float32)
    bank, queries = (
        regimes[rng.integers(REGIMES, size=n)] + SPREAD * rng.standard_normal((n, DIMENSIONS), dtype=np.float32)
        for n in (WINDOWS, QUERIES)
    )

    tracemalloc.start()
    began_s = time.perf_counter()
    ours = Index(bank, n_bands=BANDS)
    build_s = time.perf_counter() - began_s
    index_bytes, build_peak = tracemalloc.get_traced_memory()
    tracemalloc.reset_peak()
    position, _, _ = ours.nearest(queries)
    _, search_peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    unit_queries = _unit(queries)
    alternatives = _alternatives(_unit(bank), unit_queries)
    took = {name: min(_timed(search), _timed(search)) for name, search in alternatives.items()}
    name = min(took, key=lambda one: took[one])
    fastest = alternatives[name]
    times = [(_timed(lambda: ours.nearest(queries)), _timed(fastest)) for _ in range(PAIRS)]
    result = {
        "name": "knn_100k_x_1152_batch_64",
        "alternative": f"faiss-cpu {faiss.__version__} {name}",
        "threads": threads,
        "ours_ms": 1e3 * float(np.median([a for a, _ in times])),
        "alternative_ms": 1e3 * float(np.median([b for _, b in times])),
        "ratio": float(np.median([a / b for a, b in times])),
        "alternatives_ms": {one: 1e3 * seconds for one, seconds in took.items()},
        "same_neighbour_share": float(np.mean(position == fastest()[1][:, 0])),
        "build_s": build_s,
        "bank_mb": bank.nbytes / 1e6,
        "index_mb": index_bytes / 1e6,
        "build_extra_mb": (build_peak - index_bytes) / 1e6,
        "peak_extra_mb": (search_peak - index_bytes) / 1e6,
    }
    if as_json:
        print(json.dumps(result))
    else:
        for key, value in result.items():
            print(f"{key:28} {value}")


def _alternatives(bank: np.ndarray, queries: np.ndarray) -> dict[str, Callable[[], tuple[np.ndarray, np.ndarray]]]:
    """Both flat indices, as they come and with the BLAS from few queries on."""

    def search(index: faiss.Index, threshold: int) -> tuple[np.ndarray, np.ndarray]:
        faiss.cvar.distance_compute_blas_threshold = threshold
        found: tuple[np.ndarray, np.ndarray] = index.search(queries, 1)
        return found

    shipped = faiss.cvar.distance_compute_blas_threshold
    out: dict[str, Callable[[], tuple[np.ndarray, np.ndarray]]] = {}
    for kind in (faiss.IndexFlatL2, faiss.IndexFlatIP):
        index = kind(DIMENSIONS)
        index.add(bank)
        out[f"{kind.__name__} as shipped"] = lambda index=index: search(index, shipped)
        out[f"{kind.__name__} by BLAS"] = lambda index=index: search(index, BLAS_FROM)
    return out


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _timed(act: Callable[[], object]) -> float:
    began_s = time.perf_counter()
    act()
    return time.perf_counter() - began_s


if __name__ == "__main__":
    main()
