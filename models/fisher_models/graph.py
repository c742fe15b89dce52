"""A FISHER as an ONNX graph, written node by node: one graph for any number of bands and of time patches.

Initializers carry the names of the state dict and point into the bundle's weights file (ONNX external data), so the
weights are stored once and the graph is the same on every machine, byte by byte.
"""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, checker, helper, numpy_helper

from fisher_models.fisher import POSITIONS, FisherConfig

OPSET = 17
_IMAGE = "modality_encoders.IMAGE"
_TYPES = {"F16": TensorProto.FLOAT16, "F32": TensorProto.FLOAT}


class _Nodes:
    """Collects nodes in order; each call returns the name of its output."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: dict[str, TensorProto] = {}

    def __call__(self, op: str, *inputs: str, name: str, **attributes: object) -> str:
        self.nodes.append(helper.make_node(op, list(inputs), [name], name=name, **attributes))
        return name

    def ints(self, *values: int) -> str:
        """A constant vector of integers; equal ones are shared."""
        name = "ints_" + "_".join(str(v).replace("-", "minus") for v in values)
        self.constants[name] = numpy_helper.from_array(np.array(values, np.int64), name)
        return name

    def scalar(self, value: float) -> str:
        name = f"scalar_{value!r}"
        self.constants[name] = numpy_helper.from_array(np.float32(value), name)
        return name

    def linear(self, x: str, layer: str) -> str:
        """x W^T + b, with W as the state dict has it: (out, in)."""
        turned = self("Transpose", f"{layer}.weight/f32", name=f"{layer}.weight/t", perm=[1, 0])
        product = self("MatMul", x, turned, name=f"{layer}/matmul")
        return self("Add", product, f"{layer}.bias/f32", name=layer)

    def norm(self, x: str, layer: str, *, eps: float) -> str:
        scale, shift = f"{layer}.weight/f32", f"{layer}.bias/f32"
        return self("LayerNormalization", x, scale, shift, name=layer, axis=-1, epsilon=eps)


def build(config: FisherConfig, weights: Path) -> ModelProto:
    """The graph over a safetensors file that will lie beside it.

    Input `bands` (n, t, band_bins), output `embedding` (n, embed_dim), both float32.
    """
    add = _Nodes()
    tensors = _external(weights)
    for key in tensors:
        add("Cast", key, name=f"{key}/f32", to=TensorProto.FLOAT)

    image = add("Unsqueeze", "bands", add.ints(1), name="image")  # (n, 1, t, f)
    kernel = [f"{_IMAGE}.local_encoder.proj.{part}/f32" for part in ("weight", "bias")]
    size = [config.patch, config.patch]
    grid = add("Conv", image, *kernel, name="grid", kernel_shape=size, strides=size)  # (n, d, t/16, f//16)
    flat = add("Reshape", grid, add.ints(0, config.embed_dim, -1), name="flat")
    patches = add("Transpose", flat, name="patches", perm=[0, 2, 1])  # (n, L, d), frequency fastest
    shape = add("Shape", patches, name="shape")
    count = add("Slice", shape, add.ints(1), add.ints(2), name="count")  # [L]
    rows = add("Slice", f"{POSITIONS}/f32", add.ints(0), count, add.ints(1), name="positions")
    placed = add("Add", patches, rows, name="placed")
    batch = add("Slice", shape, add.ints(0), add.ints(1), name="batch")  # [n]
    token = add("Concat", batch, add.ints(1, config.embed_dim), name="token_shape", axis=0)
    cls = add("Expand", f"{_IMAGE}.extra_tokens/f32", token, name="cls")
    tokens = add("Concat", cls, placed, name="tokens", axis=1)  # (n, 1 + L, d)
    x = add.norm(tokens, f"{_IMAGE}.context_encoder.norm", eps=config.eps)
    for i in range(config.depth):
        x = _block(add, x, f"blocks.{i}", config)
    first = add("Slice", x, add.ints(0), add.ints(1), add.ints(1), name="first")
    add("Reshape", first, add.ints(0, config.embed_dim), name="embedding")

    graph = helper.make_graph(
        add.nodes,
        "fisher",
        [helper.make_tensor_value_info("bands", TensorProto.FLOAT, ["n", "t", config.band_bins])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", config.embed_dim])],
        [*tensors.values(), *add.constants.values()],
    )
    opset = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(graph, opset_imports=opset, producer_name="fisher_models", ir_version=8)
    checker.check_model(_without_data(model))
    return model


def _block(add: _Nodes, x: str, name: str, config: FisherConfig) -> str:
    heads, dim = config.heads, config.embed_dim
    qkv = add.linear(x, f"{name}.attn.qkv")
    split = add("Reshape", qkv, add.ints(0, 0, 3, heads, dim // heads), name=f"{name}/split")
    turned = add("Transpose", split, name=f"{name}/turned", perm=[2, 0, 3, 1, 4])  # (3, n, heads, tokens, 64)
    q, k, v = (
        add("Squeeze", add("Slice", turned, add.ints(i), add.ints(i + 1), add.ints(0), name=f"{name}/{part}_axis"),
            add.ints(0), name=f"{name}/{part}")
        for i, part in enumerate("qkv")
    )  # fmt: skip
    scaled = add("Mul", q, add.scalar((dim // heads) ** -0.5), name=f"{name}/scaled")
    k_turned = add("Transpose", k, name=f"{name}/k_turned", perm=[0, 1, 3, 2])
    weights = add("Softmax", add("MatMul", scaled, k_turned, name=f"{name}/scores"), name=f"{name}/weights", axis=-1)
    mixed = add("Transpose", add("MatMul", weights, v, name=f"{name}/mixed"), name=f"{name}/back", perm=[0, 2, 1, 3])
    merged = add("Reshape", mixed, add.ints(0, 0, dim), name=f"{name}/merged")
    attended = add.linear(merged, f"{name}.attn.proj")
    h = add.norm(add("Add", x, attended, name=f"{name}/a"), f"{name}.norm1", eps=config.eps)

    hidden = add.linear(h, f"{name}.mlp.fc1")
    erf = add("Erf", add("Mul", hidden, add.scalar(2**-0.5), name=f"{name}/over_sqrt2"), name=f"{name}/erf")
    gate = add("Add", erf, add.scalar(1.0), name=f"{name}/gate")
    halved = add("Mul", hidden, add.scalar(0.5), name=f"{name}/halved")
    active = add("Mul", halved, gate, name=f"{name}/gelu")
    grown = add("Add", h, add.linear(active, f"{name}.mlp.fc2"), name=f"{name}/grown")
    return add.norm(grown, f"{name}.norm2", eps=config.eps)


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
