"""fisher-tiny with a float16 graph and the stand-ins for a GPU, for tests of the TensorRT backend without one."""

import hashlib
import json
import shutil
from pathlib import Path

import onnx

from fisher_models.bundle import LOWER, MANIFEST, Bundle, load
from fisher_models.halve import halve

GPUFAKES = Path(__file__).parent / "gpufakes"
TOLERANCE = 0.02


def halved_bundle(folder: Path) -> Bundle:
    """The installed bundle, with a float16 graph made anew."""
    shutil.copytree(load("fisher-tiny").path, folder, dirs_exist_ok=True)
    model = onnx.load(folder / "graph.onnx", load_external_data=False)
    raw = halve(model).SerializeToString(deterministic=True)
    (folder / LOWER["f16"]).write_bytes(raw)
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["files"][LOWER["f16"]] = {"bytes": len(raw), "sha256": hashlib.sha256(raw).hexdigest()}
    manifest["tolerance"]["f16"] = TOLERANCE
    (folder / MANIFEST).write_text(json.dumps(manifest))
    return load(folder)
