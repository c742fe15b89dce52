"""One CUDA device through pycuda: its context, memory and stream; and CUDA graphs, which pycuda does not wrap.

The context is the device's primary one, as TensorRT's own CUDA runtime uses it, and it is made current for each piece
of work and let go after it: the engine may be prepared in one thread and used in another, never in two at once.
"""

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pycuda.driver as cuda
import structlog

from fisher_agent.errors import BackendFailed
from fisher_agent.stages import Floats

KERNEL_DRIVER = Path("/sys/module/nvidia/version")  # proc(5); Jetson's nvgpu has none
log = structlog.get_logger()
THREAD_LOCAL = 1  # CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: other threads of the process may go on calling CUDA


class Graphs(Protocol):
    """Records what is put on a stream, to launch it again as one piece of work."""

    def capture(self, stream: int, work: Callable[[], None]) -> int:
        """Record `work`, which puts calls on the stream and waits for nothing; returns the graph to launch."""
        ...

    def launch(self, graph: int, stream: int) -> None:
        """Put the whole graph on the stream."""
        ...

    def free(self, graph: int) -> None:
        """Forget a graph."""
        ...


class Device:
    """A CUDA device and, between `begin` and `end`, a stream on it.

    `with device.current(): ...` stands around everything that touches it.
    """

    def __init__(self, ordinal: int = 0) -> None:
        with raised("CUDA cannot be used"):
            cuda.init()
            self._device = cuda.Device(ordinal)
            self.name = str(self._device.name())
            major, minor = self._device.compute_capability()
            self._context = self._device.retain_primary_context()
        self.capability = f"{major}.{minor}"
        kernel = KERNEL_DRIVER.read_text(encoding="ascii").strip() if KERNEL_DRIVER.is_file() else ""
        self.driver = f"{cuda.get_driver_version()} {kernel}".strip()
        self._stream: Any = None

    @contextmanager
    def current(self) -> Iterator[None]:
        """Make the context the calling thread's; whatever CUDA refuses in it becomes BackendFailed."""
        with raised("the GPU failed"):
            self._context.push()
            try:
                yield
            finally:
                cuda.Context.pop()

    def begin(self) -> None:
        """Make the stream."""
        self._stream = cuda.Stream()

    def end(self) -> None:
        """Forget the stream, while the context is current: pycuda frees it then and in no other thread."""
        self._stream = None

    @property
    def stream(self) -> int:
        """The stream's address."""
        return int(self._stream.handle)

    def pinned(self, n: int) -> Floats:
        """Host memory for n floats that the device copies from and to by itself."""
        array: Floats = cuda.pagelocked_empty(n, np.float32)
        return array

    def allocate(self, nbytes: int) -> Any:
        """Device memory; `int()` of it is its address, and it is freed when it is forgotten."""
        return cuda.mem_alloc(max(nbytes, 1))

    def to_device(self, there: Any, here: Floats) -> None:
        """Put a copy from pinned memory on the stream."""
        cuda.memcpy_htod_async(there, here, self._stream)

    def to_host(self, here: Floats, there: Any) -> None:
        """Put a copy to pinned memory on the stream."""
        cuda.memcpy_dtoh_async(here, there, self._stream)

    def wait(self) -> None:
        """Until everything on the stream is done."""
        self._stream.synchronize()


@contextmanager
def raised(what: str) -> Iterator[None]:
    """CUDA's errors as BackendFailed."""
    try:
        yield
    except cuda.Error as error:
        raise BackendFailed(f"{what}: {error}") from error


class DriverGraphs:
    """CUDA graphs by the driver's C interface (CUDA Driver API, "Graph Management" and "Stream Management")."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._cuda = library

    def capture(self, stream: int, work: Callable[[], None]) -> int:
        """Record work; BackendFailed where it cannot be recorded, and the stream is as before."""
        handle = ctypes.c_void_p(stream)
        self._call("cuStreamBeginCapture_v2", handle, ctypes.c_int(THREAD_LOCAL))
        graph, executable = ctypes.c_void_p(), ctypes.c_void_p()
        try:
            with raised("this work cannot be recorded"):
                work()
        finally:
            self._call("cuStreamEndCapture", handle, ctypes.byref(graph))
        try:
            self._call("cuGraphInstantiateWithFlags", ctypes.byref(executable), graph, ctypes.c_ulonglong(0))
        finally:
            self._call("cuGraphDestroy", graph)
        return int(executable.value or 0)

    def launch(self, graph: int, stream: int) -> None:
        """Put the graph on the stream."""
        self._call("cuGraphLaunch", ctypes.c_void_p(graph), ctypes.c_void_p(stream))

    def free(self, graph: int) -> None:
        """Destroy the graph."""
        self._call("cuGraphExecDestroy", ctypes.c_void_p(graph))

    def _call(self, name: str, *arguments: Any) -> None:
        if code := getattr(self._cuda, name)(*arguments):
            raise BackendFailed(f"{name} gave CUDA error {code}")


def driver_graphs() -> DriverGraphs | None:
    """CUDA graphs, or None where the driver's library cannot be loaded by itself: work then goes call by call."""
    try:
        return DriverGraphs(ctypes.CDLL("libcuda.so.1"))
    except OSError as error:
        log.info("no_cuda_graphs", why=str(error))
        return None
