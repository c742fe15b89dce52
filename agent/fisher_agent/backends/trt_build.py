"""Builds an engine, proves it and puts it into the cache; the main program of a child process of the agent.

`python -m fisher_agent.backends.trt_build BUNDLE DIGEST CACHE` prints one JSON object: {"engine", "built",
"seconds", "self_test"}, or {"error"}, with exit code 1. DIGEST is the one that the agent verified.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import structlog
import tensorrt as trt

from fisher_agent.backends import self_test, trt_engine
from fisher_agent.backends.tensorrt import TensorRtEmbedder
from fisher_agent.backends.trt_device import Device, driver_graphs
from fisher_agent.backends.trt_session import Journal, Session
from fisher_agent.errors import BackendFailed, FisherError
from fisher_agent.logs import configure
from fisher_models.bundle import Bundle, load
from fisher_models.errors import ModelError

MAX_ROWS = 64  # what the pipeline gives at most in one call
USUAL_ROWS, USUAL_S = 16, 5.0  # for which the kernels are chosen
WORKSPACE_BYTES = 1 << 30  # on a Jetson it is taken from the memory of the whole box
NICE = 10
log = structlog.get_logger()


def identity(bundle: Bundle, device: Device) -> dict[str, str]:
    """Everything that an engine depends on."""
    return {
        "schema": trt_engine.SCHEMA,
        "bundle": bundle.digest,
        "precision": "f16",
        "max_rows": str(MAX_ROWS),
        "tensorrt": str(trt.__version__),
        "gpu": device.name,
        "compute_capability": device.capability,
        "driver": device.driver,
    }


def build(bundle: Bundle, *, timing: bytes = b"") -> tuple[bytes, bytes]:
    """The engine of the bundle's float16 graph, and the timing cache with what was measured for it.

    Precision stands in the graph and nowhere else: TensorRT 11 has no other way, and 10.3 is asked for the same.
    """
    journal = Journal()
    builder = trt.Builder(journal)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, journal)
    if not parser.parse_from_file(str(bundle.lower["f16"])):  # from its file: the weights lie beside it
        found = "; ".join(str(parser.get_error(i).desc()) for i in range(parser.num_errors))
        raise BackendFailed(f"TensorRT does not take the graph of {bundle.name}: {found or journal.last_error}")
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, WORKSPACE_BYTES)
    config.clear_flag(trt.BuilderFlag.TF32)  # what is float32 in the graph is so because 10 bits are too few
    cache = config.create_timing_cache(timing)
    if not config.set_timing_cache(cache, ignore_mismatch=False):
        cache = config.create_timing_cache(b"")
        config.set_timing_cache(cache, ignore_mismatch=False)
    profile = builder.create_optimization_profile()
    for i in range(network.num_inputs):
        tensor = network.get_input(i)
        profile.set_shape(tensor.name, *_shapes(tensor.name, bundle))
    if config.add_optimization_profile(profile) < 0:
        raise BackendFailed(f"TensorRT refuses the range of shapes of {bundle.name}: {journal.last_error}")
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise BackendFailed(f"TensorRT builds no engine for {bundle.name}: {journal.last_error}")
    return bytes(plan), bytes(config.get_timing_cache().serialize())


def _shapes(name: str, bundle: Bundle) -> tuple[tuple[int, ...], ...]:
    """Smallest, usual and largest shape of an input."""
    if name == "centres":
        return (1,), (USUAL_ROWS,), (MAX_ROWS,)
    if name != "bands":
        raise BackendFailed(f"{bundle.name} wants an input {name!r} that this version does not know")
    spec = bundle.frontend
    patch = spec.patch_frames
    usual = min(spec.max_frames, round(USUAL_S * 1e3 / spec.hop_ms)) // patch * patch
    largest = spec.max_frames // patch * patch
    return (1, patch, spec.band_bins), (USUAL_ROWS, usual, spec.band_bins), (MAX_ROWS, largest, spec.band_bins)


def make(bundle: Bundle, cache: Path) -> dict[str, Any]:
    """The cached engine if it proves itself, else a new one; what came of it. Raises BackendFailed and OSError."""
    device = Device()
    mine = identity(bundle, device)
    path = trt_engine.engine_path(cache, bundle, mine)
    began_s = time.monotonic()
    plan = trt_engine.read(path, mine)
    if plan is not None:
        try:
            return {"engine": str(path), "built": False, "seconds": 0.0, "self_test": _proven(plan, bundle, device)}
        except BackendFailed as error:
            log.warning("engine_refused", path=str(path), why=str(error), then="it is built again")
    timing = trt_engine.timing_path(cache, mine)
    plan, measured = build(bundle, timing=timing.read_bytes() if timing.is_file() else b"")
    off = _proven(plan, bundle, device)
    trt_engine.write(path, plan, mine)
    trt_engine.replace(timing, measured)
    return {"engine": str(path), "built": True, "seconds": round(time.monotonic() - began_s, 1), "self_test": off}


def _proven(plan: bytes, bundle: Bundle, device: Device) -> float:
    """The self-test's error, with graphs in use as in service."""
    embedder = TensorRtEmbedder.of(Session(plan, device, graphs=driver_graphs()), bundle, device)
    try:
        return self_test(embedder, bundle)
    finally:
        embedder.close()


def main(arguments: list[str]) -> int:
    """The exit code."""
    configure("info")
    os.nice(NICE)  # the CPU is serving meanwhile
    try:
        path, digest, cache = arguments
        answer = make(load(Path(path), digest=digest), Path(cache))
    except (FisherError, ModelError, OSError) as error:
        print(json.dumps({"error": str(error)}))
        return 1
    print(json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
