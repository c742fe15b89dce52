"""Choosing a backend, and making it prove itself before it may serve. Each one is imported only when it is opened."""

import threading
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import cast

import numpy as np
import structlog

from fisher_agent.errors import BackendFailed, ConfigError
from fisher_agent.stages import Embedder
from fisher_models.bundle import Bundle

BACKENDS: Mapping[str, str] = {
    "openvino": "fisher_agent.backends.openvino:OpenVinoEmbedder",
    "tensorrt": "fisher_agent.backends.tensorrt:TensorRtEmbedder",
    "torch": "fisher_agent.backends.torch:TorchEmbedder",
}
_INSTALL: Mapping[str, str] = {name: f"fisher-agent[{name}]" for name in BACKENDS} | {"openvino": "openvino"}
_AUTO = "openvino"
log = structlog.get_logger()


def open_embedder(
    bundle: Bundle,
    *,
    backend: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
    cache: Path | None = None,
) -> tuple[Embedder, str]:
    """The configured backend, and in words how it is less than what was configured ("" where it is not).

    `threads` bounds the cores that a CPU backend uses; the folder `cache` keeps what was measured or built for this
    box.

    Raises ConfigError for a backend or precision that is not there, naming what to install or write instead, and
    BackendFailed where the runtime does not take the bundle's graph. `self_test` is the caller's next step.
    """
    name = _AUTO if backend == "auto" else backend
    if name == "tensorrt":
        try:
            gpu = open_gpu(bundle, precision=precision, cache=cache)
            self_test(gpu, bundle)
        except BackendFailed as error:
            log.warning("gpu_unusable", why=str(error))
            cpu = open_stand_in(bundle, threads=threads, cache=cache)
            return cpu, f"tensorrt is configured and cannot be used: {error}; {cpu.name} on the CPU serves"
        return gpu, ""
    make = constructor(name)
    if name == "openvino":
        from fisher_agent.backends.probe import choose

        choice = choose(bundle, precision=precision, threads=threads, cache=cache)
        why = choice.refused.get(precision)
        note = f"{precision} is configured and does not serve: {why}; {choice.precision} serves" if why else ""
        return choice.open(bundle), note
    return make(bundle, precision=precision, threads=threads), ""


def open_gpu(
    bundle: Bundle, *, precision: str = "auto", cache: Path | None = None, cancelled: threading.Event | None = None
) -> Embedder:
    """TensorRT, blocking until its engine is there: built, for minutes, where the cache holds none for this box.

    ConfigError for what is not installed or can never be served; BackendFailed where this box cannot do it now.
    """
    make = constructor("tensorrt")
    engines = None if cache is None else cache / "engines"
    try:
        return make(bundle, precision=precision, cache=engines, cancelled=cancelled)
    except OSError as error:
        raise BackendFailed(f"tensorrt: {error}") from error


def open_stand_in(bundle: Bundle, *, threads: int | None = None, cache: Path | None = None) -> Embedder:
    """The CPU in place of a GPU: in float32, which lies so near every precision that the banks stay good."""
    from fisher_agent.backends.probe import choose

    return choose(bundle, precision="f32", threads=threads, cache=cache).open(bundle)


def constructor(name: str) -> Callable[..., Embedder]:
    """A backend's class. ConfigError where it is unknown or not installed, BackendFailed where it cannot be loaded."""
    if name not in BACKENDS:
        raise ConfigError(f"model.backend: {name!r} is none of auto, {', '.join(BACKENDS)}")
    module, _, attribute = BACKENDS[name].partition(":")
    try:
        return cast("Callable[..., Embedder]", getattr(import_module(module), attribute))
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"model.backend: {name} needs the package {error.name!r}: pip install '{_INSTALL[name]}'"
        ) from error
    except ImportError as error:  # a library that its package wants, such as the driver's
        raise BackendFailed(f"{name} is installed and cannot be loaded: {error}") from error


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
