"""The reference backend: the model in torch, on a CUDA device where there is one. The only runtime use of torch."""

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from fisher_agent.backends.pieces import MAX_FRAMES, Piece, embed_in_pieces
from fisher_agent.errors import BackendFailed, ConfigError
from fisher_agent.stages import Floats
from fisher_models.bundle import Bundle
from fisher_models.errors import BundleError
from fisher_models.families import model_from

TYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}
MAX_CUDA_FRAMES = 16 * MAX_FRAMES  # of one piece on a GPU: about 64 windows of 10 s
MAX_GRAPHS = 8
OFTEN = 3  # uses of a shape before a graph of it is tried
TRIALS = 5
PAYS = 0.95  # of the time without a graph
SAME = 1e-3  # between a graph and the calls it was recorded from


class TorchEmbedder:
    """Implements `stages.Embedder`. Call it from one thread; `threads` sets torch's process-wide number.

    On a CPU float32 alone; on a GPU the whole model is cast to `precision`, but for what it keeps in float32 itself.
    """

    name = "torch"

    def __init__(self, bundle: Bundle, *, precision: str = "auto", threads: int | None = None) -> None:
        on_gpu = torch.cuda.is_available()
        offered = tuple(TYPES) if on_gpu else ("f32",)
        self.precision = "f32" if precision == "auto" else precision
        self.device = "cuda" if on_gpu else "cpu"
        if self.precision not in offered:
            raise ConfigError(
                f"model.precision: torch has no {precision!r} on this {self.device}; use {', '.join(offered)}"
            )
        if threads is not None:
            torch.set_num_threads(threads)
        try:
            model = model_from(bundle)
            self._model: torch.nn.Module | None = model.to(self.device, TYPES[self.precision])
        except (BundleError, RuntimeError) as error:
            raise BackendFailed(f"torch: {error}") from error
        self._bundle = bundle
        self._graphs = Graphs(self._forward) if on_gpu else None

    def embed(self, bands: Floats, centres: Floats) -> Floats:
        """(n, t, f), (n,) -> (n, d); raises BackendFailed."""
        if self._model is None:
            raise BackendFailed("torch: this embedder is closed")
        most = MAX_FRAMES if self._graphs is None else MAX_CUDA_FRAMES
        # cuDNN would convolve in TF32, whose 10-bit mantissa is outside the tolerance of f32.
        with torch.inference_mode(), torch.backends.cudnn.flags(allow_tf32=False):
            return embed_in_pieces(self._run, self._bundle, bands=bands, centres=centres, max_frames=most)

    def close(self) -> None:
        """Free the model; calling it again does nothing."""
        self._model = self._graphs = None

    def _run(self, pieces: Sequence[Piece]) -> Iterator[Floats]:
        call = self._forward if self._graphs is None else self._graphs
        for bands, centres in pieces:
            try:
                out: Floats = call(torch.tensor(bands), torch.tensor(centres)).float().cpu().numpy()
            except RuntimeError as error:
                raise BackendFailed(f"torch failed on bands of shape {bands.shape}: {error}") from error
            yield out

    def _forward(self, bands: torch.Tensor, centres: torch.Tensor) -> torch.Tensor:
        assert self._model is not None
        out: torch.Tensor = self._model(bands.to(self.device, TYPES[self.precision]), centres.to(self.device))
        return out


@dataclass(slots=True)
class _Shape:
    """One shape of batch: how often it came, and its graph with the memory that the graph reads and writes."""

    uses: int = 0
    graph: "torch.cuda.CUDAGraph | None" = None
    inputs: tuple[torch.Tensor, ...] = ()
    output: torch.Tensor | None = None


class Graphs:
    """Calls a model on a GPU by CUDA graphs, one for each shape that comes often, where that is faster."""

    def __init__(self, forward: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> None:
        self._forward = forward
        self._shapes: OrderedDict[tuple[int, ...], _Shape] = OrderedDict()

    def __call__(self, bands: torch.Tensor, centres: torch.Tensor) -> torch.Tensor:
        """As the model; the result is overwritten by the next call."""
        key = tuple(bands.shape)
        shape = self._shapes.pop(key, None) or _Shape()
        self._shapes[key] = shape
        if len(self._shapes) > MAX_GRAPHS:
            self._shapes.popitem(last=False)
        shape.uses += 1
        if shape.uses == OFTEN:
            self._record(shape, bands, centres)
        if shape.graph is None or shape.output is None:
            return self._forward(bands, centres)
        return _replayed(shape, (bands, centres))

    def _record(self, shape: _Shape, bands: torch.Tensor, centres: torch.Tensor) -> None:
        """Keep a graph of this shape if it is faster than the calls one by one, and gives the same."""
        plain_s, expected = _timed(lambda: self._forward(bands, centres))
        shape.inputs = (bands.cuda(), centres.cuda())
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            shape.output = self._forward(*shape.inputs)
        shape.graph = graph
        graph_s, found = _timed(lambda: _replayed(shape, (bands, centres)))
        if graph_s >= PAYS * plain_s or not torch.allclose(found, expected, rtol=0, atol=SAME):
            shape.graph = shape.output = None
            shape.inputs = ()


def _replayed(shape: _Shape, given: tuple[torch.Tensor, ...]) -> torch.Tensor:
    assert shape.graph is not None and shape.output is not None
    for there, here in zip(shape.inputs, given, strict=True):
        there.copy_(here)
    shape.graph.replay()
    return shape.output


def _timed(work: Callable[[], torch.Tensor]) -> tuple[float, torch.Tensor]:
    """The shortest time of some calls, and a copy of what they gave."""
    taken_s = []
    for _ in range(TRIALS):
        began_s = time.perf_counter()
        out = work()
        torch.cuda.synchronize()
        taken_s.append(time.perf_counter() - began_s)
    return min(taken_s), out.clone()
