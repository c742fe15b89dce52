"""An ECHO as an ONNX graph: bands (n, t, f), centres (n,) -> embedding (n, d), or the tokens of every patch as well."""

from pathlib import Path

import numpy as np
from onnx import ModelProto

from fisher_models.echo import POSITIONS, EchoConfig
from fisher_models.nodes import BlockKeys, Nodes


def build(config: EchoConfig, weights: Path, *, frames: bool = False) -> ModelProto:
    """The graph over a safetensors file that will lie beside it; with `frames`, output `frames` (n, t/16, d) too."""
    add, dim = Nodes(weights), config.embed_dim
    where = _frequency(add, config)
    tokens = add(
        "Concat", add("Add", "cls_token/f32", where, name="cls"), _patches(add, config, where), name="tokens", axis=1
    )
    x = tokens  # (n, 1 + P, d)
    for i in range(config.depth):
        b = f"encoder.layers.{i}"
        keys = BlockKeys(
            b,
            f"{b}.self_attn.in_proj",
            f"{b}.self_attn.out_proj",
            f"{b}.norm1",
            f"{b}.linear1",
            f"{b}.linear2",
            f"{b}.norm2",
        )
        block = add.last_block if i == config.depth - 1 and not frames else add.block
        x = block(x, keys, dim=dim, heads=config.heads, eps=config.eps)
    x = add.norm(x, "norm", eps=config.final_eps)
    outputs: dict[str, list[str | int]] = {"embedding": ["n", dim]}
    if frames:
        add("Slice", x, add.ints(1), add.ints(config.positions), add.ints(1), name="frames")
        x = add.part(x, 0, 1, axis=1, name="first")
        outputs["frames"] = ["n", "p", dim]
    add("Reshape", x, add.ints(0, dim), name="embedding")
    return add.model("echo", inputs={"bands": ["n", "t", config.band_bins], "centres": ["n"]}, outputs=outputs)


def _frequency(add: Nodes, config: EchoConfig) -> str:
    """(n, 1, d): sines and cosines by turns. Angles reach gamma: nodes named `frequency/` want float32 everywhere."""
    dim = config.embed_dim
    speeds = config.gamma * np.exp(np.arange(0, dim, 2) * (-np.log(10000.0) / dim))  # (d/2,)
    column = add("Unsqueeze", "centres", add.ints(1, 2), name="frequency/centres")  # (n, 1, 1)
    angle = add(
        "Mul", column, add.vector("frequency/speeds", speeds.astype(np.float32)[:, None]), name="frequency/angle"
    )
    parts = [add(op, angle, name=f"frequency/{op.lower()}") for op in ("Sin", "Cos")]  # (n, d/2, 1) each
    pairs = add("Concat", *parts, name="frequency/pairs", axis=2)
    return add("Reshape", pairs, add.ints(0, 1, dim), name="frequency/code")


def _patches(add: Nodes, config: EchoConfig, where: str) -> str:
    """(n, P, d). A patch is `patch` whole rows of `bands`, so the convolution is one product with what lies there."""
    dim, size = config.embed_dim, config.patch * config.band_bins
    rows = add("Reshape", "bands", add.ints(0, -1, size), name="patch_rows")
    kernel = add("Transpose", add.key("patch_embed.proj", "weight"), name="patch_kernel/turned", perm=[1, 3, 2, 0])
    kernel = add("Reshape", kernel, add.ints(size, dim), name="patch_kernel")  # (1, 16, 32, d) -> (512, d)
    patches = add(
        "Add", add("MatMul", rows, kernel, name="patch_product"), add.key("patch_embed.proj", "bias"), name="patches"
    )
    count = add.part(add("Shape", patches, name="shape"), 1, 2, axis=0, name="count")  # [P]
    end = add("Add", count, add.ints(1), name="end")
    times = add("Slice", f"{POSITIONS}/f32", add.ints(1), end, add.ints(1), name="positions")
    placed = add("Add", patches, times, name="patches_in_time")
    return add("Add", placed, where, name="placed")
