"""A float32 graph to the same graph in float16, for runtimes that compute exactly in the types the graph states.

TensorRT 11 knows only such strongly typed networks, so the precision has to stand in the graph. What is sensitive stays
in float32: every LayerNormalization (its variance is a sum of squares over the width, which overflows float16 above
65504), and whatever a Sin or Cos is computed from (ECHO's angles reach 25, where float16 is 0.008 apart). Softmax
becomes float16, as fused attention kernels want it; they sum in float32 inside. Inputs and outputs stay float32.

The weights stay where they are: initializers keep pointing into the bundle's weights file and are cast, where they are
not float16 already, by nodes that every runtime folds into constants.
"""

from collections.abc import Iterable, Sequence

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper, shape_inference

from fisher_models.errors import ModelError

GRAPH = "graph.f16.onnx"
WIDE = frozenset({"LayerNormalization", "InstanceNormalization", "GroupNormalization", "ReduceMean", "ReduceSum"})
ANGLES = frozenset({"Sin", "Cos"})
_F32, _F16 = TensorProto.FLOAT, TensorProto.FLOAT16
_FLOATS = (_F32, _F16)


def halve(model: ModelProto) -> ModelProto:
    """The same graph in float16; `model` is left as it is. Raises ModelError for what cannot be said in float16."""
    types, shapes = _tensors(model)
    wide = _wide(model.graph.node)
    out = _Halved(model, types, shapes)
    for node in model.graph.node:
        if node.op_type == "Cast" and types[node.output[0]] in _FLOATS and types[node.input[0]] in _FLOATS:
            out.alias(node.output[0], node.input[0])  # of weights, from the type they are stored in
        elif node.op_type == "Conv":
            out.patches(node)
        else:
            out.add(node, _F32 if node.name in wide else _F16)
    return out.finish()


def _tensors(model: ModelProto) -> tuple[dict[str, int], dict[str, tuple[int | None, ...]]]:
    """Element type of every tensor, and the shape of those that are computed, None where a length is dynamic."""
    graph = shape_inference.infer_shapes(model, strict_mode=True).graph
    values = (*graph.input, *graph.value_info, *graph.output)
    types = {t.name: t.data_type for t in graph.initializer} | {v.name: v.type.tensor_type.elem_type for v in values}
    shapes = {
        v.name: tuple(d.dim_value if d.HasField("dim_value") else None for d in v.type.tensor_type.shape.dim)
        for v in values
    }
    for node in graph.node:
        for name in node.output:
            if name and not types.get(name):
                raise ModelError(f"the type of {name!r} ({node.op_type}) in the graph is unknown; it cannot be halved")
    return types, shapes


def _wide(nodes: Sequence[NodeProto]) -> set[str]:
    """Names of the nodes that stay in float32: the sensitive ones, and everything that an angle comes from."""
    names = {node.name for node in nodes}
    if len(names) != len(nodes) or "" in names:
        raise ModelError("every node of the graph needs a name of its own; it cannot be halved")
    wide = {node.name for node in nodes if node.op_type in WIDE | ANGLES}
    wanted = {name for node in nodes if node.op_type in ANGLES for name in node.input}
    for node in reversed(nodes):  # an ONNX graph is in topological order
        if wanted & set(node.output):
            wide.add(node.name)
            wanted |= set(node.input)
    return wide


class _Halved:
    """Builds the new graph node by node; float tensors are cast where a node wants another type than they have."""

    def __init__(self, model: ModelProto, types: dict[str, int], shapes: dict[str, tuple[int | None, ...]]) -> None:
        self._model = model
        self._shapes = shapes
        self._types = dict(types)  # of the new graph, as it grows
        self._nodes: list[NodeProto] = []
        self._casts: dict[tuple[str, int], str] = {}
        self._alias: dict[str, str] = {}
        self._initializers = {t.name: t for t in model.graph.initializer}
        self._added: dict[str, TensorProto] = {}

    def alias(self, name: str, source: str) -> None:
        """`name` is `source`, whatever type it has: a cast is made where one is wanted."""
        self._alias[name] = self._alias.get(source, source)

    def add(self, node: NodeProto, wanted: int) -> None:
        """The node, its float inputs and outputs in the wanted type."""
        copy = NodeProto()
        copy.CopyFrom(node)
        copy.input[:] = [self.typed(name, wanted) for name in node.input]
        for attribute in copy.attribute:
            if attribute.name == "to" and attribute.i in _FLOATS:
                attribute.i = wanted
            elif attribute.name == "value" and attribute.t.data_type in _FLOATS:  # Constant, ConstantOfShape
                attribute.t.CopyFrom(self._narrowed(attribute.t) if wanted == _F16 else attribute.t)
        self._nodes.append(copy)
        for name in node.output:
            if self._types.get(name) in _FLOATS:
                self._types[name] = wanted

    def typed(self, name: str, wanted: int) -> str:
        """The tensor as it is where it is no float, else in the wanted type."""
        name = self._alias.get(name, name)
        found = self._types.get(name, 0)
        if found not in _FLOATS or found == wanted:
            return name
        if (name, wanted) not in self._casts:
            suffix = "f16" if wanted == _F16 else "f32"
            cast = f"{name}/{suffix}"
            inline = self._initializers.get(name)
            if inline is not None and inline.data_location != TensorProto.EXTERNAL and wanted == _F16:
                self._added[cast] = self._narrowed(inline, cast)
            else:
                self._nodes.append(helper.make_node("Cast", [name], [cast], name=cast, to=wanted))
            self._types[cast] = wanted
            self._casts[name, wanted] = cast
        return self._casts[name, wanted]

    def patches(self, node: NodeProto) -> None:
        """A Conv whose patches do not overlap, over one channel, as the matrix product that it is.

        TensorRT takes a kernel as weights only from an initializer of the network's own type, not from a cast one.
        Unlike Conv, it refuses a signal whose length is no whole number of patches.
        """
        kernel = self._initializers[self._alias.get(node.input[1], node.input[1])]
        given = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        d, channels, height, width = kernel.dims
        sides = self._shapes.get(node.input[0], (None,) * 4)[2:]
        plain = not any(given.get("pads", ())) and given.get("group", 1) == 1 and set(given.get("dilations", ())) <= {1}
        plain = plain and channels == 1 and len(node.input) == 3 and list(given.get("strides", ())) == [height, width]
        if not plain or sides.count(None) > 1:
            raise ModelError(f"{node.name!r} is no embedding of patches of one channel; the graph cannot be halved")
        at, image = node.name, self.typed(node.input[0], _F16)
        # (n, 1, t, f) -> (n, t/h, h, f/w, w) -> (n, t/h, f/w, h w) -> (n, t/h, f/w, d) -> (n, d, t/h, f/w)
        counts = []
        for axis, (side, step) in enumerate(zip(sides, (height, width), strict=True), start=2):
            counts.append(-1 if side is None else side // step)
            if side is not None and side % step:
                bounds = [self._ints([0]), self._ints([side // step * step]), self._ints([axis])]
                image = self._step("Slice", [image, *bounds], f"{at}/whole{axis}")
        split = self._step("Reshape", [image, self._ints([0, counts[0], height, counts[1], width])], f"{at}/split")
        turned = self._step("Transpose", [split], f"{at}/turned", perm=[0, 1, 3, 2, 4])
        rows = self._step("Reshape", [turned, self._ints([0, 0, 0, height * width])], f"{at}/rows")
        flat = self._step("Reshape", [self.typed(node.input[1], _F16), self._ints([d, height * width])], f"{at}/flat")
        weight = self._step("Transpose", [flat], f"{at}/weight", perm=[1, 0])
        product = self._step("MatMul", [rows, weight], f"{at}/product")
        placed = self._step("Add", [product, self.typed(node.input[2], _F16)], f"{at}/biased")
        self._step("Transpose", [placed], node.output[0], perm=[0, 3, 1, 2])

    def _step(self, op: str, inputs: list[str], name: str, **attributes: object) -> str:
        self._nodes.append(helper.make_node(op, inputs, [name], name=name, **attributes))
        self._types[name] = _F16
        return name

    def _ints(self, values: Iterable[int]) -> str:
        array = np.array(list(values), np.int64)
        name = "patch_" + "_".join(str(v).replace("-", "minus") for v in array)
        self._added[name] = numpy_helper.from_array(array, name)
        self._types[name] = TensorProto.INT64
        return name

    def _narrowed(self, tensor: TensorProto, name: str = "") -> TensorProto:
        wide = numpy_helper.to_array(tensor).astype(np.float32)
        with np.errstate(over="ignore"):
            narrow = wide.astype(np.float16)
        if not np.isfinite(narrow).all() or ((narrow == 0) & (wide != 0)).any():
            raise ModelError(f"the constant {tensor.name!r} of the graph does not fit in float16")
        return numpy_helper.from_array(narrow, name or tensor.name)

    def finish(self) -> ModelProto:
        """The model; outputs are cast back to float32 and keep their names."""
        results = []
        for value in self._model.graph.output:
            if self._types[value.name] == _F16:
                inner = f"{value.name}/inner"
                for node in self._nodes:
                    for names in (node.input, node.output):
                        names[:] = [inner if name == value.name else name for name in names]
                results.append(helper.make_node("Cast", [inner], [value.name], name=value.name + "/wide", to=_F32))
        nodes = [*self._nodes, *results]
        used = {name for node in nodes for name in node.input}
        model = ModelProto()
        model.CopyFrom(self._model)
        del model.graph.node[:], model.graph.initializer[:], model.graph.value_info[:]
        model.graph.node.extend(nodes)
        every = [*self._model.graph.initializer, *(t for n, t in self._added.items() if n not in self._initializers)]
        model.graph.initializer.extend(t for t in every if t.name in used)
        model.graph.name = f"{self._model.graph.name}-f16"
        return model
