"""What OpenVINO makes of a bundle on this CPU: the rate of its large products, and where a graph's time goes."""

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

from fisher_models.bundle import Bundle
from fisher_models.cpu import core
from fisher_models.frontend import Floats
from fisher_models.ov import ov

ops = ov.opset13


class Product:
    """One large product in OpenVINO, as fast as this box multiplies in a precision.

    Of int8 the faster of signed and unsigned inputs: CPUs differ in which of them their kernels are made for.
    """

    def __init__(self, precision: str, *, size: int = 2048) -> None:
        ranges = ((-1.0, 127 / 128), (0.0, 255 / 128)) if precision == "int8" else (None,)
        compiled = [_product(precision, quantised, size) for quantised in ranges]
        self._values = np.random.default_rng(1).uniform(-1, 1, (size, size)).astype(np.float32)
        self._operations = 2 * size**3
        self._request = max((model.create_infer_request() for model in compiled), key=self._rate)
        infos = [node.get_rt_info() for node in self._request.get_compiled_model().get_runtime_model().get_ops()]
        products = [info for info in infos if info["layerType"].astype(str) in ("FullyConnected", "MatMul")]
        self.ran_in = ", ".join(str(info["runtimePrecision"].astype(str)) for info in products)

    def rate(self) -> float:
        """Operations per second, now."""
        return self._rate(self._request)

    def _rate(self, request: ov.InferRequest) -> float:
        return self._operations / best_s(lambda: request.infer([self._values], share_inputs=True), repeats=3)


def _product(precision: str, quantised: tuple[float, float] | None, size: int) -> ov.CompiledModel:
    given = ops.parameter([size, size], np.float32)
    weights = np.random.default_rng(0).uniform(-1, 1, (size, size)).astype(np.float32)
    a: Any = given
    b: Any = ops.constant(weights)
    if quantised:
        low, high = np.float32(quantised[0]), np.float32(quantised[1])
        a = ops.fake_quantize(given, low, high, low, high, 256)
        b = ops.multiply(ops.convert(ops.constant((weights * 127).astype(np.int8)), np.float32), np.float32(1 / 127))
    model = ov.Model([ops.matmul(a, b, False, True)], [given], "product")
    hint = {"INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32"}
    return core().compile_model(model, "CPU", hint)


def operators(bundle: Bundle, precision: str, *, frames: int) -> list[tuple[str, float]]:
    """(kind of operator, its share of the time) of the graph on four bands, in OpenVINO; the largest first."""
    graph = bundle.lower.get(precision, bundle.graph_path)
    hint = {"INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32", "PERF_COUNT": True}
    compiled = core().compile_model(str(graph), "CPU", hint)
    given: dict[str, Floats] = {
        "bands": np.random.default_rng(0).normal(-1, 0.25, (4, frames, bundle.frontend.band_bins)).astype(np.float32),
        "centres": np.linspace(0.1, 0.9, 4, dtype=np.float32),
    }
    request = compiled.create_infer_request()
    spent: Counter[str] = Counter()
    for run in range(4):
        request.infer({port.any_name: given[port.any_name] for port in compiled.inputs})
        if run:  # the first one compiles kernels
            for entry in request.get_profiling_info():
                spent[f"{entry.node_type} ({entry.exec_type})"] += entry.real_time.total_seconds()
    total_s = sum(spent.values())
    return [(kind, taken_s / total_s) for kind, taken_s in spent.most_common()]


def best_s(act: Callable[[], object], *, repeats: int = 7) -> float:
    """Seconds of the fastest of some runs, after one that does not count."""
    act()
    taken_s = []
    for _ in range(repeats):
        began_s = time.perf_counter()
        act()
        taken_s.append(time.perf_counter() - began_s)
    return min(taken_s)
