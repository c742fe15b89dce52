"""A FISHER as an ONNX graph: bands (n, t, f) -> embedding (n, d), for any number of bands and of time patches."""

from pathlib import Path

from onnx import ModelProto

from fisher_models.fisher import POSITIONS, FisherConfig
from fisher_models.nodes import BlockKeys, Nodes

_IMAGE = "modality_encoders.IMAGE"


def build(config: FisherConfig, weights: Path) -> ModelProto:
    """The graph over a safetensors file that will lie beside it."""
    add, dim = Nodes(weights), config.embed_dim
    image = add("Unsqueeze", "bands", add.ints(1), name="image")  # (n, 1, t, f)
    kernel = [add.key(f"{_IMAGE}.local_encoder.proj", part) for part in ("weight", "bias")]
    size = [config.patch, config.patch]
    grid = add("Conv", image, *kernel, name="grid", kernel_shape=size, strides=size)  # (n, d, t/16, f//16)
    flat = add("Reshape", grid, add.ints(0, dim, -1), name="flat")
    patches = add("Transpose", flat, name="patches", perm=[0, 2, 1])  # (n, L, d), frequency fastest
    shape = add("Shape", patches, name="shape")
    count = add.part(shape, 1, 2, axis=0, name="count")  # [L]
    rows = add("Slice", f"{POSITIONS}/f32", add.ints(0), count, add.ints(1), name="positions")
    placed = add("Add", patches, rows, name="placed")
    batch = add.part(shape, 0, 1, axis=0, name="batch")  # [n]
    token = add("Concat", batch, add.ints(1, dim), name="token_shape", axis=0)
    cls = add("Expand", f"{_IMAGE}.extra_tokens/f32", token, name="cls")
    tokens = add("Concat", cls, placed, name="tokens", axis=1)  # (n, 1 + L, d)
    x = add.norm(tokens, f"{_IMAGE}.context_encoder.norm", eps=config.eps)
    for i in range(config.depth):
        b = f"blocks.{i}"
        keys = BlockKeys(
            b, f"{b}.attn.qkv", f"{b}.attn.proj", f"{b}.norm1", f"{b}.mlp.fc1", f"{b}.mlp.fc2", f"{b}.norm2"
        )
        block = add.last_block if i == config.depth - 1 else add.block
        x = block(x, keys, dim=dim, heads=config.heads, eps=config.eps)
    add("Reshape", x, add.ints(0, dim), name="embedding")
    return add.model("fisher", inputs={"bands": ["n", "t", config.band_bins]}, outputs={"embedding": ["n", dim]})
