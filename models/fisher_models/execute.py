"""Runs a bundle offline: bands in, embeddings out, on OpenVINO or torch. The agent has its own backends."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np

from fisher_models.bundle import Bundle
from fisher_models.cpu import core
from fisher_models.errors import ModelError
from fisher_models.frontend import Floats

Runner = Callable[[Floats, Floats], Floats]  # bands (n, t, f), centres (n,) -> (n, d)
MAX_FRAMES = 4096  # at once: larger batches are no faster on a CPU and take more memory


def openvino_runner(bundle: Bundle) -> Runner:
    """The bundle's graph in float32 on the CPU."""
    return openvino_graph(bundle.graph_path, "embedding")


def openvino_graph(graph: Path, output: str) -> Runner:
    """One output of a graph whose weights lie beside it, in float32 on the CPU."""
    try:
        model = core().compile_model(core().read_model(graph), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    except RuntimeError as error:
        raise ModelError(f"OpenVINO does not take {graph}: {error}") from error
    request = model.create_infer_request()
    wanted = {port.any_name for port in model.inputs}

    def run(bands: Floats, centres: Floats) -> Floats:
        given = {name: values for name, values in (("bands", bands), ("centres", centres)) if name in wanted}
        return np.array(request.infer(given)[output])

    return _chunked(run)


def torch_runner(bundle: Bundle) -> Runner:
    """The reference implementation over the bundle's weights, float32 on the CPU."""
    from fisher_models.families import model_from

    return torch_function(model_from(bundle))


def torch_function(function: Callable[..., object]) -> Runner:
    """A function of tensors as one of arrays."""
    import torch

    def run(bands: Floats, centres: Floats) -> Floats:
        with torch.inference_mode():
            out: Floats = function(torch.from_numpy(bands), torch.from_numpy(centres)).numpy()  # type: ignore[attr-defined]
        return out

    return _chunked(run)


def lower_runner(bundle: Bundle, precision: str) -> Runner:
    """The bundle's graph of a lower precision, executed as it stands; ModelError where it has none."""
    if precision not in bundle.lower:
        raise ModelError(f"{bundle.name} has no {precision} graph; export it again")
    return openvino_graph(bundle.lower[precision], "embedding")


RUNNERS: Mapping[str, Callable[[Bundle], Runner]] = {"openvino": openvino_runner, "torch": torch_runner}
LOWER: Mapping[str, Callable[[Bundle], Runner]] = {
    f"openvino-{precision}": partial(lower_runner, precision=precision) for precision in ("f16", "int8")
}


def _chunked(run: Runner) -> Runner:
    def in_pieces(bands: Floats, centres: Floats) -> Floats:
        step = max(1, MAX_FRAMES // bands.shape[1])
        return np.concatenate([run(bands[i : i + step], centres[i : i + step]) for i in range(0, len(bands), step)])

    return in_pieces
