"""How far one bundle's precisions lie apart: measured where two embedders are at hand, and kept for when only one is.

A bank enrolled on one precision is judged on another only under this distance (`bank.check`). Kept, because a box whose
GPU is away at start has only the CPU, and banks of the GPU's precision.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import structlog

from fisher_agent.backends.trt_engine import replace
from fisher_agent.stages import Embedder
from fisher_models import proof
from fisher_models.bundle import Bundle

SEED = 11
BANDS = 16  # evenly thinned from those of 16 machine states: a slow CPU takes a second for each with a large model
MAX_DISTANCE = 2.0  # of two directions
log = structlog.get_logger()


def measure(one: Embedder, other: Embedder, bundle: Bundle) -> float:
    """The largest cosine distance between both embeddings of generated machines. Raises BackendFailed as they do."""
    bands, centres = proof.bands(bundle.frontend, seed=SEED)
    some = np.linspace(0, len(bands) - 1, min(len(bands), BANDS)).round().astype(int)
    a, b = (np.asarray(e.embed(bands[some], centres[some]), np.float64) for e in (one, other))
    lengths = np.maximum(np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1), 1e-30)
    return float(max(0.0, (1 - np.einsum("ij,ij->i", a, b) / lengths).max()))


def keep(cache: Path, bundle: Bundle, precisions: tuple[str, str], distance: float) -> None:
    """Write down a measurement; a disk that takes nothing is logged."""
    known = {**_read(cache, bundle), _pair(*precisions): distance}
    try:
        replace(_path(cache, bundle), json.dumps(known).encode())
    except OSError as error:
        log.warning("distances_not_kept", path=str(_path(cache, bundle)), why=str(error))


def kept(cache: Path, bundle: Bundle, precision: str) -> dict[str, float]:
    """Other precisions and their distance from this one, as far as they were measured on this box."""
    pairs = {tuple(pair.split("|")): distance for pair, distance in _read(cache, bundle).items()}
    return {other: d for (a, b), d in pairs.items() for mine, other in ((a, b), (b, a)) if mine == precision}


def _read(cache: Path, bundle: Bundle) -> Mapping[str, float]:
    """Nothing where there is none; what is damaged is measured again, and until then nothing is known."""
    path = _path(cache, bundle)
    try:
        document = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        log.warning("distances_unreadable", path=str(path), why=str(error))
        return {}
    if not isinstance(document, dict) or not all(_sane(pair, d) for pair, d in document.items()):
        log.warning("distances_unreadable", path=str(path), why="it is no map of two precisions to a distance")
        return {}
    return document


def _sane(pair: str, distance: object) -> bool:
    return pair.count("|") == 1 and isinstance(distance, int | float) and 0 <= distance <= MAX_DISTANCE


def _pair(a: str, b: str) -> str:
    return "|".join(sorted((a, b)))


def _path(cache: Path, bundle: Bundle) -> Path:
    return cache / f"distances-{bundle.digest[:17]}.json"
