"""The CPU serves until the GPU has proven itself, and again when the GPU is lost.

A thread prepares the GPU: minutes, where its engine must be built. What serves changes only when the caller says so
(`take`, `lost`), in the thread that embeds, between two batches. A GPU that is lost stays lost until the service is
started again: after an error of the driver nothing of this process on the device can be trusted, not even to close it.
"""

import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import structlog

from fisher_agent.backends import constructor, open_gpu, open_stand_in, self_test
from fisher_agent.backends.distance import keep, kept, measure
from fisher_agent.backends.trt_engine import check
from fisher_agent.errors import BackendFailed, FisherError
from fisher_agent.stages import Embedder
from fisher_models.bundle import Bundle

JOIN_S = 1.0
log = structlog.get_logger()


class Standby:
    """Two embedders of one bundle, and which of them serves."""

    def __init__(
        self, bundle: Bundle, *, cpu: Embedder, open_gpu: Callable[[threading.Event], Embedder], cache: Path | None
    ) -> None:
        """`open_gpu` blocks until the GPU is ready, gives up when the event is set, and raises BackendFailed."""
        self.serving = cpu
        self.note = f"tensorrt is being prepared; {cpu.name} on the CPU serves meanwhile"
        self._bundle, self._cpu, self._open_gpu, self._cache = bundle, cpu, open_gpu, cache
        self._found: Embedder | BackendFailed | None = None
        self._lost: list[Embedder] = []  # kept from being destroyed
        self._cancelled = threading.Event()
        self._thread: threading.Thread | None = None
        self._distance: dict[str, float] = {}

    def start(self, wake: Callable[[], object]) -> None:
        """Prepare the GPU; `wake` is called, from another thread, when there is something to `take`."""
        self._thread = threading.Thread(target=self._prepare, args=(wake,), name="gpu", daemon=True)
        self._thread.start()

    @property
    def preparing(self) -> bool:
        """Whether the GPU is not ready yet, and still may be."""
        return self._thread is not None and self._thread.is_alive()

    @property
    def waiting(self) -> bool:
        """Whether there is something to `take`."""
        return self._found is not None

    @property
    def distances(self) -> dict[str, float]:
        """Other precisions and their measured distance from the one that serves."""
        known = {} if self._cache is None else kept(self._cache, self._bundle, self.serving.precision)
        return {**known, **self._distance}

    def take(self) -> None:
        """Serve by the GPU, or say why not. Both embed here, once per bundle, to measure how far apart they are."""
        found, self._found = self._found, None
        if isinstance(found, BackendFailed):
            self.note = f"tensorrt is configured and cannot be used: {found}; {self._cpu.name} on the CPU serves"
            log.warning("gpu_unusable", why=str(found))
        elif found is not None:
            try:
                distance = self._known(found) or measure(self._cpu, found, self._bundle)
            except BackendFailed as error:
                self._lost.append(found)
                self.note = f"tensorrt is configured and cannot be used: {error}; {self._cpu.name} on the CPU serves"
                log.warning("gpu_unusable", why=str(error))
                return
            self._know(found, distance)
            self.serving, self.note = found, ""
            log.info("gpu_serves", device=found.device, precision=found.precision, cross_precision_distance=distance)

    def lost(self, error: BackendFailed) -> bool:
        """The embedder that serves has failed: whether the CPU serves from now on, instead of the GPU."""
        if self.serving is self._cpu:
            return False
        self._lost.append(self.serving)
        precision = self.serving.precision
        self.serving = self._cpu
        self._distance = {precision: self._distance[self._cpu.precision]}
        self.note = (
            f"the GPU was lost ({error}); {self._cpu.name} on the CPU serves. Look into the box's kernel log, and "
            "restart the service to use the GPU again"
        )
        log.error("gpu_lost", why=str(error))
        return True

    def cancel(self) -> None:
        """Stop preparing, which ends a build."""
        self._cancelled.set()
        if self._thread is not None:
            self._thread.join(JOIN_S)

    def close(self) -> None:
        """Release both devices; in the thread that embeds."""
        self.cancel()
        found, self._found = self._found, None
        if found is not None and not isinstance(found, BackendFailed):
            found.close()
        if self.serving is not self._cpu:
            self.serving.close()
        self._cpu.close()

    def _known(self, gpu: Embedder) -> float | None:
        return None if self._cache is None else kept(self._cache, self._bundle, gpu.precision).get(self._cpu.precision)

    def _know(self, gpu: Embedder, distance: float) -> None:
        self._distance = {self._cpu.precision: distance}
        if self._cache is not None:
            keep(self._cache, self._bundle, (self._cpu.precision, gpu.precision), distance)

    def _prepare(self, wake: Callable[[], object]) -> None:
        try:
            gpu = self._open_gpu(self._cancelled)
            self_test(gpu, self._bundle)
            found: Embedder | BackendFailed = gpu
        except FisherError as error:
            found = BackendFailed(str(error))
        if not self._cancelled.is_set():
            self._found = found
            wake()


def open_standby(bundle: Bundle, *, precision: str, threads: int | None, cache: Path) -> Standby:
    """TensorRT, with the CPU before and after it; the CPU has proven itself. `start` prepares the GPU.

    ConfigError for what is not installed or could never serve; BackendFailed where not even the CPU can.
    """
    check(bundle, precision)
    with suppress(BackendFailed):  # said by the thread, when it meets the same
        constructor("tensorrt")
    cpu = open_stand_in(bundle, threads=threads, cache=cache)
    self_test(cpu, bundle)

    def gpu(cancelled: threading.Event) -> Embedder:
        return open_gpu(bundle, precision=precision, cache=cache, cancelled=cancelled)

    return Standby(bundle, cpu=cpu, open_gpu=gpu, cache=cache)
