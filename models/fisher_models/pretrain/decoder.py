"""The shallow decoder: what the student kept, laid out on the grid of patches, to a prediction for every patch.

A few 2-D convolutions (data2vec 2.0, arXiv 2212.07525; EAT uses 6 of width 768, kernel 3, 16 groups), each with a layer
norm without affine and a GELU, residual where widths agree. Hidden places hold noise of deviation 0.01.
"""

from itertools import pairwise

import torch.nn.functional as F  # noqa: N812 (torch's own convention)
from torch import Tensor, nn

from fisher_models.pretrain.config import DecoderSpec


class Decoder(nn.Module):
    """Kept tokens to features of every patch."""

    def __init__(self, spec: DecoderSpec, dim: int) -> None:
        super().__init__()
        self.spec = spec
        widths = [dim] + [spec.dim] * spec.layers
        self.convs = nn.ModuleList(
            nn.Conv2d(a, b, spec.kernel, padding=spec.kernel // 2, groups=spec.groups) for a, b in pairwise(widths)
        )

    def forward(self, tokens: Tensor, kept: Tensor, grid: tuple[int, int], noise: Tensor) -> Tensor:
        """(m, kept, d), their indices (m, kept), (rows, columns), noise (m, L, d) of variance 1 -> (m, L, dim)."""
        rows, columns = grid
        x = (noise * self.spec.noise).to(tokens.dtype)
        x = x.scatter(1, kept[:, :, None].expand(-1, -1, tokens.shape[2]), tokens)
        x = x.transpose(1, 2).unflatten(2, (rows, columns))  # (m, d, rows, columns)
        for conv in self.convs:
            y = conv(x).permute(0, 2, 3, 1)
            y = F.gelu(F.layer_norm(y, y.shape[-1:])).permute(0, 3, 1, 2)
            x = y + x if y.shape == x.shape else y
        return x.flatten(2).transpose(1, 2)
