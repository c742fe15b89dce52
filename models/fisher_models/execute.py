"""Runs a bundle offline: bands in, embeddings out, on OpenVINO or torch. The agent has its own backends."""

from collections.abc import Callable, Mapping

import numpy as np

from fisher_models.bundle import Bundle
from fisher_models.errors import ModelError
from fisher_models.frontend import Floats

Runner = Callable[[Floats], Floats]  # (n, t, f) -> (n, d)
MAX_FRAMES = 4096  # at once: larger batches are no faster on a CPU and take more memory


def openvino_runner(bundle: Bundle) -> Runner:
    """The bundle's graph in float32 on the CPU."""
    import openvino as ov

    core = ov.Core()
    try:
        model = core.compile_model(core.read_model(bundle.graph_path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    except RuntimeError as error:
        raise ModelError(f"OpenVINO does not take {bundle.graph_path}: {error}") from error
    request = model.create_infer_request()
    return _chunked(lambda bands: np.array(request.infer([bands])[0]))


def torch_runner(bundle: Bundle) -> Runner:
    """The reference implementation over the bundle's weights, float32 on the CPU."""
    import torch

    from fisher_models.fisher import from_bundle

    model = from_bundle(bundle)

    def run(bands: Floats) -> Floats:
        with torch.inference_mode():
            out: Floats = model(torch.from_numpy(bands)).numpy()
        return out

    return _chunked(run)


RUNNERS: Mapping[str, Callable[[Bundle], Runner]] = {"openvino": openvino_runner, "torch": torch_runner}


def _chunked(run: Runner) -> Runner:
    def in_pieces(bands: Floats) -> Floats:
        step = max(1, MAX_FRAMES // bands.shape[1])
        return np.concatenate([run(bands[i : i + step]) for i in range(0, len(bands), step)])

    return in_pieces
