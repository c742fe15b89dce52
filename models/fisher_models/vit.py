"""The post-norm transformer block that FISHER is made of (data2vec style), in torch."""

import torch.nn.functional as F  # noqa: N812 (torch's own convention)
from torch import Tensor, nn


class Attention(nn.Module):
    """Self-attention without a mask over all tokens; head dimension 64 in every released size."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(n, tokens, dim) -> the same."""
        n, tokens, dim = x.shape
        qkv = self.qkv(x).reshape(n, tokens, 3, self.heads, dim // self.heads).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(qkv[0], qkv[1], qkv[2])  # (n, heads, tokens, dim / heads)
        out: Tensor = self.proj(mixed.transpose(1, 2).reshape(n, tokens, dim))
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
