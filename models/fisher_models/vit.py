"""What the post-norm transformers of both families are made of (data2vec style), in torch."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 (torch's own convention)
from numpy.typing import NDArray
from torch import Tensor, nn

from fisher_models.errors import BundleError

M = TypeVar("M", bound=nn.Module)


def with_weights(make: Callable[[], M], state: Mapping[str, NDArray[Any]], *, name: str) -> M:
    """What `make` gives, with these weights, for evaluation; BundleError names keys and shapes that do not fit."""
    with torch.device("meta"):  # every tensor comes from `state`; initialising them first would be thrown away
        model = make()
    tensors = {key: torch.from_numpy(np.array(value, np.float32)) for key, value in state.items()}
    try:
        model.load_state_dict(tensors, strict=True, assign=True)
    except RuntimeError as error:
        raise BundleError(f"these weights are no {name} of this size: {error}") from error
    model.eval().requires_grad_(False)
    return model


def attend(qkv: Tensor, heads: int) -> Tensor:
    """Queries, keys and values side by side (n, tokens, 3 dim) -> (n, tokens, dim): attention without a mask."""
    n, tokens, width = qkv.shape
    q, k, v = qkv.reshape(n, tokens, 3, heads, width // 3 // heads).permute(2, 0, 3, 1, 4)
    mixed = F.scaled_dot_product_attention(q, k, v)  # (n, heads, tokens, dim / heads)
    return mixed.transpose(1, 2).reshape(n, tokens, width // 3)


class Attention(nn.Module):
    """Self-attention over all tokens; head dimension 64 in every released size."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(n, tokens, dim) -> the same."""
        out: Tensor = self.proj(attend(self.qkv(x), self.heads))
        return out


class Mlp(nn.Module):
    """Two linear layers around an exact (erf) GELU."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(n, tokens, dim) -> the same."""
        out: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return out


class Block(nn.Module):
    """a = x + Attn(x); h = LN1(a); y = LN2(h + MLP(h)): the norms stand after the sums."""

    def __init__(self, dim: int, heads: int, *, mlp_ratio: float, eps: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=eps)
        self.attn = Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim, eps=eps)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))

    def forward(self, x: Tensor) -> Tensor:
        """(n, tokens, dim) -> the same."""
        h = self.norm1(x + self.attn(x))
        y: Tensor = self.norm2(h + self.mlp(h))
        return y
