"""A float32 graph to one whose linear layers compute in int8: static ranges, QDQ form (ONNX operators 13).

Activations are uint8 per tensor, weights are int8 per output channel. Weights keep to 7 bits: without VNNI a CPU adds
pairs of uint8 x int8 products in 16 bits, and with 8-bit weights those saturate (measured on an AVX2 machine: cosine
0.84 to float32, with 7 bits 0.999). Attention itself stays in float32: its products are a fifth of the work, and its
softmax is what is most easily spoilt.
"""

import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper, numpy_helper

from fisher_models.cpu import core
from fisher_models.errors import BundleError
from fisher_models.frontend import Floats
from fisher_models.nodes import LINEAR, linear_weights

Ranges = Mapping[str, tuple[float, float]]
_WEIGHT_MAX = 63  # 7 bits, see above


def activation_ranges(graph: Path, bands: Floats, centres: Floats) -> dict[str, tuple[float, float]]:
    """What goes into each linear layer of a graph on disk: its smallest and largest value over these inputs.

    In a child process that never frees its compiled graph: with many outputs and several shapes OpenVINO 2026.4 was
    seen to crash there (in the cache of its subgraph executors), about once in a thousand times.
    """
    with tempfile.TemporaryDirectory() as folder:
        inputs = Path(folder) / "inputs.npz"
        np.savez(inputs, bands=bands, centres=centres)
        command = [sys.executable, "-m", "fisher_models.quantize", str(graph), str(inputs)]
        done = subprocess.run(command, capture_output=True, text=True)  # noqa: S603 (this interpreter, this module)
    if done.returncode != 0:
        raise BundleError(f"the ranges of {graph} could not be measured: {done.stderr[-500:] or done.returncode}")
    measured: dict[str, list[float]] = json.loads(done.stdout)
    if not measured:
        raise BundleError(f"{graph} has no linear layers to quantise")
    return {name: (-_upward(-low), _upward(high)) for name, (low, high) in measured.items()}


def _measure(graph: Path, inputs: Path) -> NoReturn:
    """The child: prints name -> (low, high), which hold zero, so that zero has an exact code, and ends at once."""
    given = {name: np.asarray(value) for name, value in np.load(inputs).items()}
    model = core().read_model(graph)
    names = sorted({op.input_value(0).any_name for op in model.get_ops() if op.friendly_name.endswith(LINEAR)})
    model.add_outputs(names)
    compiled = core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    wanted = {port.any_name for port in compiled.inputs}
    ranges = dict.fromkeys(names, (0.0, 0.0))
    step = 8  # every activation of a piece is held at once
    for i in range(0, len(given["bands"]), step):
        found = compiled({name: value[i : i + step] for name, value in given.items() if name in wanted})
        for name, (low, high) in ranges.items():
            ranges[name] = min(low, float(found[name].min())), max(high, float(found[name].max()))
    print(json.dumps(ranges), flush=True)
    os._exit(0)


def quantize(model: ModelProto, state: Mapping[str, NDArray[Any]], ranges: Ranges) -> ModelProto:
    """A copy whose every linear layer has its input and its weight through QuantizeLinear and DequantizeLinear.

    `state` is that of the bundle. Raises BundleError where a range is missing.
    """
    weights = linear_weights(model)
    out = ModelProto()
    out.CopyFrom(model)
    nodes: list[NodeProto] = []
    done: set[str] = set()
    for node in out.graph.node:
        if node.op_type == "MatMul" and node.name.endswith(LINEAR):
            x, weight = node.input
            if x not in done:
                done.add(x)
                nodes += _activation(out, x, ranges)
            scale = np.abs(np.asarray(state[weights[node.name]], np.float32)).max(axis=1)
            nodes += _pair(
                out, weight, np.maximum(scale, 1e-30) / np.float32(_WEIGHT_MAX), np.zeros(len(scale), np.int8)
            )
            node.input[0], node.input[1] = f"{x}/dq", f"{weight}/dq"
        nodes.append(node)
    if not done:
        raise BundleError("the graph has no linear layers to quantise")
    del out.graph.node[:]
    out.graph.node.extend(nodes)
    return out


def _upward(bound: float) -> float:
    """To the next sixteenth of an octave: two machines, whose float32 differs in the last bits, get the same range."""
    return 2.0 ** (math.ceil(math.log2(bound) * 16) / 16) if bound > 0 else 0.0


def _activation(model: ModelProto, name: str, ranges: Ranges) -> list[NodeProto]:
    if name not in ranges:
        raise BundleError(f"no range was measured for {name}")
    low, high = ranges[name]
    scale = np.float32(max(high - low, 1e-6) / 255)
    return _pair(model, name, scale, np.array(np.clip(np.rint(-low / scale), 0, 255), np.uint8))


def _pair(model: ModelProto, name: str, scale: Any, zero: NDArray[Any]) -> list[NodeProto]:
    """QuantizeLinear and DequantizeLinear behind `name`; the result is `name/dq`."""
    inputs = [f"{name}/scale", f"{name}/zero"]
    for key, value in zip(inputs, (np.asarray(scale, np.float32), zero), strict=True):
        model.graph.initializer.append(numpy_helper.from_array(value, key))
    axis = {"axis": 1} if zero.ndim else {}
    return [
        helper.make_node("QuantizeLinear", [name, *inputs], [f"{name}/q"], name=f"{name}/q", **axis),
        helper.make_node("DequantizeLinear", [f"{name}/q", *inputs], [f"{name}/dq"], name=f"{name}/dq", **axis),
    ]


if __name__ == "__main__":
    _measure(Path(sys.argv[1]), Path(sys.argv[2]))
