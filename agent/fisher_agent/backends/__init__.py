"""Choosing a backend, and making it prove itself before it may serve. Each one is imported only when it is opened."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import cast

import numpy as np

from fisher_agent.errors import BackendFailed, ConfigError
from fisher_agent.stages import Embedder
from fisher_models.bundle import Bundle

BACKENDS: Mapping[str, str] = {
    "openvino": "fisher_agent.backends.openvino:OpenVinoEmbedder",
    "torch": "fisher_agent.backends.torch:TorchEmbedder",
}
_INSTALL: Mapping[str, str] = {"openvino": "openvino", "torch": "fisher-agent[torch]"}
_AUTO = "openvino"


def open_embedder(bundle: Bundle, *, backend: str = "auto", precision: str = "auto") -> tuple[Embedder, str]:
    """The configured backend, and in words how it is less than what was configured ("" where it is not).

    Raises ConfigError for a backend or precision that is not there, naming what to install or write instead, and
    BackendFailed where the runtime does not take the bundle's graph. `self_test` is the caller's next step.
    """
    note = ""
    if backend == "tensorrt":
        note = f"tensorrt is configured, but this version has no TensorRT backend; {_AUTO} on the CPU serves instead"
        backend = _AUTO
    name = _AUTO if backend == "auto" else backend
    if name not in BACKENDS:
        raise ConfigError(f"model.backend: {name!r} is none of auto, {', '.join(BACKENDS)}")
    module, _, attribute = BACKENDS[name].partition(":")
    try:
        make = cast("Callable[..., Embedder]", getattr(import_module(module), attribute))
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"model.backend: {name} needs the package {error.name!r}: pip install '{_INSTALL[name]}'"
        ) from error
    return make(bundle, precision=precision), note


def self_test(embedder: Embedder, bundle: Bundle) -> float:
    """Largest absolute error on the bundle's stored input; BackendFailed where it is not within the tolerance."""
    limit = bundle.tolerance.get(embedder.precision)
    if limit is None:
        raise BackendFailed(f"{bundle.name} states no tolerance for {embedder.precision}; use precision = 'f32'")
    found = embedder.embed(bundle.selftest.bands, bundle.selftest.centres)
    if found.shape != bundle.selftest.embedding.shape:
        raise BackendFailed(f"{embedder.name} gave embeddings of shape {found.shape} for {bundle.name}")
    error = float(np.abs(found - bundle.selftest.embedding).max())
    if not error <= limit:  # NaN is not within anything
        raise BackendFailed(
            f"{embedder.name} ({embedder.precision}, {embedder.device}) does not reproduce the self-test of "
            f"{bundle.name}: off by {error:.2g}, allowed {limit:g}"
        )
    return error
