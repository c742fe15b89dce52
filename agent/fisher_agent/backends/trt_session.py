"""An engine at work: fixed pinned and device buffers, and a CUDA graph for each shape that comes often.

TensorRT forbids to change a context whose work was recorded, so every graph has a context of its own; all contexts use
the same scratch memory, since only one works at a time. Batches are filled up with zeros to one of a few sizes, so
that few shapes cover all.
"""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import structlog
import tensorrt as trt

from fisher_agent.backends.trt_device import Device, Graphs
from fisher_agent.errors import BackendFailed
from fisher_agent.stages import Floats

INPUTS, OUTPUT = ("bands", "centres"), "embedding"
MAX_GRAPHS = 8  # windows of a plant are of one length or two, with seven sizes of batch below 32
OFTEN = 3  # uses of a shape before a graph of it is tried
TRIALS = 5
SAME = 1e-3  # between a graph and the calls it was recorded from; kernels may sum in another order
PAYS = 0.95  # of the time without a graph; above it the graph is not worth its memory
log = structlog.get_logger()


class Journal(trt.ILogger):  # type: ignore[misc]  # tensorrt publishes no types
    """TensorRT's messages in our log; the last error is kept for what is raised where a call gives nothing."""

    def __init__(self) -> None:
        trt.ILogger.__init__(self)
        self.last_error = "TensorRT gives no reason"

    def log(self, severity: Any, msg: str) -> None:
        """Called by TensorRT, from any of its threads."""
        if severity in (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR):
            self.last_error = msg
            log.error("tensorrt", message=msg)
        elif severity == trt.ILogger.WARNING:
            log.debug("tensorrt", message=msg)


@dataclass(slots=True)
class _Shape:
    """How one (rows, t) is run: by `graph` where it has one that pays, else call by call."""

    context: Any
    uses: int = 0
    graph: int = 0
    tried: bool = False


class Session:
    """Runs a plan on a device. Raises BackendFailed for anything that TensorRT or CUDA refuses."""

    def __init__(
        self,
        plan: bytes,
        device: Device,
        *,
        graphs: Graphs | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._device, self._graphs, self._clock = device, graphs, clock
        self._journal = Journal()
        self._shapes: OrderedDict[tuple[int, int], _Shape] = OrderedDict()
        with device.current():
            device.begin()
            self._runtime = trt.Runtime(self._journal)
            engine = self._engine = self._runtime.deserialize_cuda_engine(plan)
            if engine is None:
                raise BackendFailed(f"TensorRT does not take the engine: {self._journal.last_error}")
            names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
            self._inputs = [n for n in names if engine.get_tensor_mode(n) == trt.TensorIOMode.INPUT]
            if not {"bands"} <= set(self._inputs) <= set(INPUTS) or OUTPUT not in names:
                raise BackendFailed(f"the engine has the tensors {', '.join(names)}; it is none of ours")
            largest = tuple(engine.get_tensor_profile_shape("bands", 0)[2])
            self.max_rows, self.max_frames, self._width = (int(n) for n in largest)
            self._dim = int(tuple(engine.get_tensor_shape(OUTPUT))[1])
            sizes = {"bands": int(np.prod(largest)), "centres": self.max_rows, OUTPUT: self.max_rows * self._dim}
            self._here = {name: device.pinned(n) for name, n in sizes.items()}
            self._there = {name: device.allocate(4 * n) for name, n in sizes.items()}
            self._scratch_bytes = int(engine.device_memory_size_v2)
            self._scratch = device.allocate(self._scratch_bytes)

    def run(self, bands: Floats, centres: Floats) -> Floats:
        """(n, t, f), (n,) -> (n, d); n and t within the engine's profile."""
        n, t, f = bands.shape
        if not (0 < n <= self.max_rows and 0 < t <= self.max_frames and f == self._width):
            raise BackendFailed(
                f"bands {bands.shape}: the engine takes up to {(self.max_rows, self.max_frames)} of {self._width} bins"
            )
        rows = rounded(n, self.max_rows)
        self._fill("bands", bands, rows * t * f)
        self._fill("centres", centres, rows)
        with self._device.current():
            shape = self._shape(rows, t)
            if shape.graph and self._graphs is not None:
                self._graphs.launch(shape.graph, self._device.stream)
            else:
                self._put(shape.context, rows, t)
            self._device.wait()
            if shape.uses >= OFTEN and not shape.tried:
                self._try_graph(shape, rows, t)
        return self._here[OUTPUT][: n * self._dim].reshape(n, self._dim).copy()

    def close(self) -> None:
        """Free everything on the device."""
        with self._device.current():
            for shape in self._shapes.values():
                self._forget(shape)
            self._shapes.clear()
            self._there, self._here, self._scratch = {}, {}, None
            self._engine = self._runtime = None
            self._device.end()

    def _fill(self, name: str, values: Floats, total: int) -> None:
        here = self._here[name]
        here[: values.size] = values.reshape(-1)
        here[values.size : total] = 0

    def _shape(self, rows: int, t: int) -> _Shape:
        """Most recently used last; beyond the bound the least recently used loses its context and graph."""
        shape = self._shapes.pop((rows, t), None)
        if shape is None:
            while len(self._shapes) >= MAX_GRAPHS:
                self._forget(self._shapes.popitem(last=False)[1])
            shape = _Shape(self._context(rows, t))
        shape.uses += 1
        self._shapes[rows, t] = shape
        return shape

    def _context(self, rows: int, t: int) -> Any:
        context = self._engine.create_execution_context(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
        if context is None:
            raise BackendFailed(f"TensorRT gives no context: {self._journal.last_error}")
        context.set_device_memory(int(self._scratch), self._scratch_bytes)
        given = {"bands": (rows, t, self._width), "centres": (rows,)}
        for name in self._inputs:
            if not context.set_input_shape(name, given[name]):
                raise BackendFailed(f"TensorRT refuses {name} of shape {given[name]}: {self._journal.last_error}")
        for name in (*self._inputs, OUTPUT):
            if not context.set_tensor_address(name, int(self._there[name])):
                raise BackendFailed(f"TensorRT refuses the memory of {name}: {self._journal.last_error}")
        return context

    def _put(self, context: Any, rows: int, t: int) -> None:
        """Copies in, the network, copy out, on the stream; waits for nothing."""
        used = {"bands": rows * t * self._width, "centres": rows, OUTPUT: rows * self._dim}
        for name in self._inputs:
            self._device.to_device(self._there[name], self._here[name][: used[name]])
        if not context.execute_async_v3(self._device.stream):
            raise BackendFailed(f"TensorRT failed on bands of shape {(rows, t)}: {self._journal.last_error}")
        self._device.to_host(self._here[OUTPUT][: used[OUTPUT]], self._there[OUTPUT])

    def _try_graph(self, shape: _Shape, rows: int, t: int) -> None:
        """Keep a graph of this shape if it is faster than the calls one by one. The input lies in the buffers still."""
        shape.tried = True
        graphs = self._graphs
        if graphs is None:
            return
        try:
            graph = graphs.capture(self._device.stream, lambda: self._put(shape.context, rows, t))
        except BackendFailed as error:
            log.info("no_cuda_graph", rows=rows, frames=t, why=str(error))
            return
        plain_s = self._timed(lambda: self._put(shape.context, rows, t))
        expected = self._here[OUTPUT][: rows * self._dim].copy()
        self._here[OUTPUT][: rows * self._dim] = 0
        graph_s = self._timed(lambda: graphs.launch(graph, self._device.stream))
        same = np.allclose(self._here[OUTPUT][: rows * self._dim], expected, rtol=0, atol=SAME)
        self._here[OUTPUT][: rows * self._dim] = expected
        log.debug("cuda_graph", rows=rows, frames=t, plain_ms=plain_s * 1e3, graph_ms=graph_s * 1e3, same=same)
        if same and graph_s < PAYS * plain_s:
            shape.graph = graph
        else:
            graphs.free(graph)

    def _timed(self, work: Callable[[], None]) -> float:
        taken_s = []
        for _ in range(TRIALS):
            began_s = self._clock()
            work()
            self._device.wait()
            taken_s.append(self._clock() - began_s)
        return min(taken_s)

    def _forget(self, shape: _Shape) -> None:
        if shape.graph and self._graphs is not None:
            self._graphs.free(shape.graph)
        shape.graph, shape.context = 0, None


def rounded(n: int, most: int) -> int:
    """Rows that a batch of n is filled up to: 1, 2, 4, 8, then whole eights."""
    size = 1 << (n - 1).bit_length() if n <= 8 else -(-n // 8) * 8
    return min(size, most)
