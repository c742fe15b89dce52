"""ONNX graphs written node by node: the pieces that every family's graph is made of.

Initializers carry the names of the state dict and point into the bundle's weights file (ONNX external data), so the
weights are stored once and the graph is the same on every machine, byte by byte. Every weight is read through a Cast
named `<key>/f32`; the product of a linear layer is a MatMul named `<layer>/matmul`.
"""

import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, checker, helper, numpy_helper

from fisher_models.frontend import Floats

OPSET = 17
LINEAR = "/matmul"
_TYPES = {"F16": TensorProto.FLOAT16, "F32": TensorProto.FLOAT}


@dataclass(frozen=True, slots=True)
class BlockKeys:
    """How the state dict of a family calls the parts of one post-norm block."""

    name: str
    qkv: str  # a layer's weight is `<layer>.weight`; published ECHO joins this one's with an underscore
    proj: str
    norm1: str
    fc1: str
    fc2: str
    norm2: str


class Nodes:
    """Collects nodes in order; each call returns the name of its output."""

    def __init__(self, weights: Path) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: dict[str, TensorProto] = {}
        self.tensors = _external(weights)
        for key in self.tensors:
            self("Cast", key, name=f"{key}/f32", to=TensorProto.FLOAT)

    def __call__(self, op: str, *inputs: str, name: str, **attributes: object) -> str:
        """Add a node of one output, which gets the node's name."""
        self.nodes.append(helper.make_node(op, list(inputs), [name], name=name, **attributes))
        return name

    def ints(self, *values: int) -> str:
        """A constant vector of integers; equal ones are shared."""
        name = "ints_" + "_".join(str(v).replace("-", "minus") for v in values)
        self.constants[name] = numpy_helper.from_array(np.array(values, np.int64), name)
        return name

    def scalar(self, value: float) -> str:
        """A constant number; equal ones are shared."""
        return self.vector(f"scalar_{value!r}", np.array(value, np.float32))

    def vector(self, name: str, values: Floats) -> str:
        """A constant array."""
        self.constants[name] = numpy_helper.from_array(np.asarray(values, np.float32), name)
        return name

    def key(self, layer: str, part: str) -> str:
        """The weight or bias of a layer as float32."""
        joined = f"{layer}.{part}"
        return f"{joined if joined in self.tensors else f'{layer}_{part}'}/f32"

    def turned(self, layer: str) -> str:
        """A layer's weight, which the state dict has as (out, in), as (in, out)."""
        return self("Transpose", self.key(layer, "weight"), name=f"{layer}.weight/t", perm=[1, 0])

    def linear(self, x: str, layer: str) -> str:
        """x W^T + b."""
        product = self("MatMul", x, self.turned(layer), name=f"{layer}{LINEAR}")
        return self("Add", product, self.key(layer, "bias"), name=layer)

    def norm(self, x: str, layer: str, *, eps: float) -> str:
        """LayerNorm over the last axis."""
        scale, shift = self.key(layer, "weight"), self.key(layer, "bias")
        return self("LayerNormalization", x, scale, shift, name=layer, axis=-1, epsilon=eps)

    def part(self, x: str, start: int, end: int, *, axis: int, name: str) -> str:
        """x[start:end] along one axis."""
        return self("Slice", x, self.ints(start), self.ints(end), self.ints(axis), name=name)

    def block(self, x: str, keys: BlockKeys, *, dim: int, heads: int, eps: float) -> str:
        """One post-norm block over all tokens: (n, tokens, dim) -> the same."""
        attended = self._attention(x, keys, dim=dim, heads=heads)
        return self._rest(x, attended, keys, eps=eps)

    def last_block(self, x: str, keys: BlockKeys, *, dim: int, heads: int, eps: float) -> str:
        """The first token after one more block: (n, tokens, dim) -> (n, 1, dim).

        Exactly what `block` gives there, in another order of the same products: with one query per head, the query
        goes through the keys' weights (and the mean of the tokens through the values') instead of every token. The
        bias of the keys adds the same to all scores of a head, which softmax does not see.
        """
        name, size = keys.name, dim // heads
        first = self.part(x, 0, 1, axis=1, name=f"{name}/first")  # (n, 1, dim)
        weight, bias = self.key(keys.qkv, "weight"), self.key(keys.qkv, "bias")
        wq, wk, wv = (
            self.part(weight, i * dim, (i + 1) * dim, axis=0, name=f"{name}/w{part}") for i, part in enumerate("qkv")
        )
        bq = self.part(bias, 0, dim, axis=0, name=f"{name}/bq")
        bv = self.part(bias, 2 * dim, 3 * dim, axis=0, name=f"{name}/bv")

        wq = self("Transpose", wq, name=f"{name}/wq_t", perm=[1, 0])
        q = self("Add", self("MatMul", first, wq, name=f"{name}/q_product"), bq, name=f"{name}/q")
        q = self("Mul", q, self.scalar(size**-0.5), name=f"{name}/scaled")
        q = self("Reshape", q, self.ints(0, heads, 1, size), name=f"{name}/q_heads")
        wk = self("Reshape", wk, self.ints(heads, size, dim), name=f"{name}/wk_heads")
        wanted = self("MatMul", q, wk, name=f"{name}/wanted")  # (n, heads, 1, dim)
        wanted = self("Reshape", wanted, self.ints(0, heads, dim), name=f"{name}/wanted_heads")

        x_turned = self("Transpose", x, name=f"{name}/x_turned", perm=[0, 2, 1])
        scores = self("MatMul", wanted, x_turned, name=f"{name}/scores")  # (n, heads, tokens)
        share = self("Softmax", scores, name=f"{name}/weights", axis=-1)
        mean = self("MatMul", share, x, name=f"{name}/mean")  # (n, heads, dim)

        mean = self("Reshape", mean, self.ints(0, heads, 1, dim), name=f"{name}/mean_heads")
        wv = self("Reshape", wv, self.ints(heads, size, dim), name=f"{name}/wv_heads")
        wv = self("Transpose", wv, name=f"{name}/wv_t", perm=[0, 2, 1])  # (heads, dim, size)
        mixed = self("MatMul", mean, wv, name=f"{name}/mixed")  # (n, heads, 1, size)
        merged = self("Reshape", mixed, self.ints(0, 1, dim), name=f"{name}/merged")
        attended = self.linear(self("Add", merged, bv, name=f"{name}/v"), keys.proj)
        return self._rest(first, attended, keys, eps=eps)

    def _attention(self, x: str, keys: BlockKeys, *, dim: int, heads: int) -> str:
        name = keys.name
        qkv = self.linear(x, keys.qkv)
        split = self("Reshape", qkv, self.ints(0, 0, 3, heads, dim // heads), name=f"{name}/split")
        turned = self("Transpose", split, name=f"{name}/turned", perm=[2, 0, 3, 1, 4])  # (3, n, heads, tokens, 64)
        parts = (self.part(turned, i, i + 1, axis=0, name=f"{name}/{part}_axis") for i, part in enumerate("qkv"))
        q, k, v = (self("Squeeze", p, self.ints(0), name=p.removesuffix("_axis")) for p in parts)
        scaled = self("Mul", q, self.scalar((dim // heads) ** -0.5), name=f"{name}/scaled")
        k_turned = self("Transpose", k, name=f"{name}/k_turned", perm=[0, 1, 3, 2])
        scores = self("MatMul", scaled, k_turned, name=f"{name}/scores")
        share = self("Softmax", scores, name=f"{name}/weights", axis=-1)
        mixed = self("MatMul", share, v, name=f"{name}/mixed")
        back = self("Transpose", mixed, name=f"{name}/back", perm=[0, 2, 1, 3])
        return self.linear(self("Reshape", back, self.ints(0, 0, dim), name=f"{name}/merged"), keys.proj)

    def _rest(self, x: str, attended: str, keys: BlockKeys, *, eps: float) -> str:
        """Sum, norm, MLP with an exact GELU, sum, norm."""
        name = keys.name
        h = self.norm(self("Add", x, attended, name=f"{name}/a"), keys.norm1, eps=eps)
        hidden = self.linear(h, keys.fc1)
        erf = self("Erf", self("Mul", hidden, self.scalar(2**-0.5), name=f"{name}/over_sqrt2"), name=f"{name}/erf")
        gate = self("Add", erf, self.scalar(1.0), name=f"{name}/gate")
        halved = self("Mul", hidden, self.scalar(0.5), name=f"{name}/halved")
        active = self("Mul", halved, gate, name=f"{name}/gelu")
        grown = self("Add", h, self.linear(active, keys.fc2), name=f"{name}/grown")
        return self.norm(grown, keys.norm2, eps=eps)

    def model(
        self, name: str, *, inputs: dict[str, list[str | int]], outputs: dict[str, list[str | int]]
    ) -> ModelProto:
        """The graph, checked; inputs and outputs are float32, given by their shapes."""
        given, made = (
            [helper.make_tensor_value_info(key, TensorProto.FLOAT, shape) for key, shape in ports.items()]
            for ports in (inputs, outputs)
        )
        graph = helper.make_graph(self.nodes, name, given, made, [*self.tensors.values(), *self.constants.values()])
        opset = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(graph, opset_imports=opset, producer_name="fisher_models", ir_version=8)
        checker.check_model(_without_data(model))
        return model


def linear_weights(model: ModelProto) -> dict[str, str]:
    """Of every linear layer the name of its MatMul and the state dict's key of its weight, (out, in)."""
    made_by = {output: node for node in model.graph.node for output in node.output}
    return {
        node.name: made_by[made_by[node.input[1]].input[0]].input[0]
        for node in model.graph.node
        if node.name.endswith(LINEAR)
    }


def _external(weights: Path) -> dict[str, TensorProto]:
    """Every tensor of a safetensors file as an initializer that points into it."""
    with weights.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header: dict[str, dict[str, Any]] = json.loads(file.read(length))
    tensors = {}
    for key in sorted(header.keys() - {"__metadata__"}):
        entry = header[key]
        start, end = entry["data_offsets"]
        tensor = TensorProto(name=key, data_type=_TYPES[entry["dtype"]], dims=entry["shape"])
        tensor.data_location = TensorProto.EXTERNAL
        for field, value in (("location", weights.name), ("offset", 8 + length + start), ("length", end - start)):
            tensor.external_data.add(key=field, value=str(value))
        tensors[key] = tensor
    return tensors


def _without_data(model: ModelProto) -> ModelProto:
    """A copy whose weights are inputs: the checker would look for the weights file in the working directory."""
    bare = ModelProto()
    bare.CopyFrom(model)
    external = [t for t in bare.graph.initializer if t.data_location == TensorProto.EXTERNAL]
    for tensor in external:
        bare.graph.initializer.remove(tensor)
        bare.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
    return bare
