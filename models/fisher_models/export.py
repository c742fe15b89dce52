"""A state dict to a bundle. Refuses to write one whose graph does not reproduce the reference."""

import hashlib
import json
import math
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file

from fisher_models import bundle as bundles
from fisher_models import families, graph, lower
from fisher_models.bundle import Bundle
from fisher_models.errors import BundleError
from fisher_models.execute import openvino_runner
from fisher_models.families import Config
from fisher_models.frontend import Floats, FrontendSpec
from fisher_models.recordings import Recording

# Embeddings have a standard deviation of about 1; a working f32 backend is within 1e-5. The lower precisions' limits
# catch what is broken; whether one keeps the embeddings well enough to serve is measured on the machine that serves.
TOLERANCE = {"f32": 1e-3, "f16": 0.02, "bf16": 0.3, "int8": 0.6}


def export(
    config: Config,
    state: Mapping[str, NDArray[Any]],
    *,
    out: Path,
    weights: str,
    origin: str,
    calibrate: Iterable[Recording] = (),
) -> Bundle:
    """Write the folder `out`, whose last part is the bundle's name, and return it verified.

    `calibrate` holds real recordings for the ranges of int8, beside the generated signals that are always used. The
    same weights and recordings give the same bytes on every machine. The folder appears whole or not at all; an older
    bundle there is replaced, anything else is not. Raises BundleError, and SignalError for a recording that is unfit.
    """
    if not bundles.NAME.fullmatch(out.name):
        raise BundleError(f"{out.name!r} cannot be a bundle's name; lower case, digits, '.', '_', '-', a letter first")
    if out.exists() and not (out / bundles.MANIFEST).is_file():
        raise BundleError(f"{out} exists and is no bundle; remove it or choose another folder")
    sizes, kept = families.reachable(config, state)
    spec = families.frontend_spec(sizes)
    test = _selftest(families.model_from_state(sizes, kept), spec)

    out.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        work.chmod(0o755)
        save_file({key: _narrowed(value) for key, value in kept.items()}, work / bundles.WEIGHTS)
        save_file(test, work / bundles.SELFTEST)
        model = graph.build(sizes, work / bundles.WEIGHTS)
        (work / bundles.GRAPH).write_bytes(model.SerializeToString(deterministic=True))
        lower.write(work, model, kept, spec, calibrate)
        written = (*bundles.FILES, *bundles.LOWER.values())
        manifest = {
            "schema": bundles.SCHEMA,
            "name": out.name,
            "model": sizes.to_dict(),
            "weights": weights,
            "origin": origin,
            "frontend": spec.to_dict(),
            "tolerance": TOLERANCE,
            "files": {name: _fingerprint(work / name) for name in written},
        }
        (work / bundles.MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
        for name in (*written, bundles.MANIFEST):
            (work / name).chmod(0o644)
        _prove(bundles.load(work))
        if out.exists():
            old = work.with_name(work.name + "-old")
            out.rename(old)
            work.rename(out)
            shutil.rmtree(old)
        else:
            work.rename(out)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return bundles.load(out)


def _narrowed(value: NDArray[Any]) -> NDArray[Any]:
    """As float16 where that changes no value, else as float32."""
    wide = np.asarray(value, np.float32)
    with np.errstate(over="ignore"):
        narrow = wide.astype(np.float16)
    return narrow if np.array_equal(narrow.astype(np.float32), wide) else wide


def _selftest(model: torch.nn.Module, spec: FrontendSpec) -> dict[str, NDArray[Any]]:
    """Four synthetic bands (noise, tones, impulses, silence) and their embeddings, computed in float64.

    The bands are drawn, not transformed, and float64 leaves no rounding that depends on the machine's instructions:
    both would otherwise make two exports of the same weights differ in their last bits.
    """
    rng = np.random.default_rng(0)
    frames = min(96, spec.max_frames // spec.patch_frames * spec.patch_frames)
    bands = rng.normal(-1.0, 0.25, (4, frames, spec.band_bins))
    bands[1, :, 5::17] += 1.5
    bands[2, ::12] += 1.5
    bands[3] = round((math.log(spec.log_floor) - spec.mean) / spec.divisor * 8) / 8  # silence, exact in float16
    stored = bands.astype(np.float16)
    centres = np.linspace(0.125, 0.875, 4, dtype=np.float16)  # exact in float16
    with torch.inference_mode():
        given = [torch.from_numpy(values.astype(np.float64)) for values in (stored, centres)]
        embedding = model.double()(*given).numpy()
    return {"bands": stored, "centres": centres, "embedding": embedding.astype(np.float32)}


def _fingerprint(path: Path) -> dict[str, Any]:
    raw = path.read_bytes()
    return {"bytes": len(raw), "sha256": hashlib.sha256(raw).hexdigest()}


def _prove(bundle: Bundle) -> None:
    found: Floats = openvino_runner(bundle)(bundle.selftest.bands, bundle.selftest.centres)
    error = float(np.abs(found - bundle.selftest.embedding).max())
    if not error <= bundle.tolerance["f32"]:  # NaN is no success either
        raise BundleError(f"not written: the graph is off by {error:.2g}, more than {bundle.tolerance['f32']:g}")
