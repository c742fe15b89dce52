"""Which patches the student sees: inverse block masks (EAT, arXiv 2401.03497, after data2vec 2.0) or plain random ones.

An inverse block mask draws blocks to keep instead of blocks to hide, so that what is kept hangs together and what must
be predicted is far from it.
"""

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own convention)
from torch import Tensor

from fisher_models.pretrain.config import MaskSpec


def count_kept(patches: int, ratio: float) -> int:
    """How many patches stay: int(L (1 - ratio)), at least 1. As published, 1 - 0.8 < 0.2 rounds 320 down to 63."""
    return max(1, int(patches * (1 - ratio)))


def kept(n: int, grid: tuple[int, int], spec: MaskSpec, generator: torch.Generator) -> Tensor:
    """(n, kept) indices into the flattened grid (time patches, frequency patches), ascending; a mask for each of n.

    Inverse block: floor(L (1 - ratio + adjust) / block^2) centres anywhere in the grid, repeats included, each keep a
    block clamped at the borders; then patches are taken away or added at random until exactly `count_kept` stay. The
    count of centres is at least 1, where the published formula gives none on grids of under 93 patches.
    """
    rows, columns = grid
    patches = rows * columns
    chosen = torch.rand(n, patches, generator=generator, device=generator.device)
    if spec.kind == "inverse-block":
        centres = max(1, int(patches * ((1 - spec.ratio) + spec.adjust) / spec.block**2))
        drawn = torch.randint(patches, (n, centres), generator=generator, device=generator.device)
        marked = torch.zeros_like(chosen).scatter_(1, drawn, 1.0).view(n, 1, rows, columns)
        left, right = (spec.block - 1) // 2, spec.block // 2
        blocks = F.max_pool2d(F.pad(marked, (right, left, right, left)), spec.block, stride=1)
        chosen += blocks.view(n, patches)  # those in a block come first, in random order
    return chosen.topk(count_kept(patches, spec.ratio), dim=1, sorted=False).indices.sort(1).values


def hidden(kept_indices: Tensor, patches: int) -> Tensor:
    """(n, kept) -> (n, patches - kept): the other patches, ascending."""
    seen = torch.zeros(len(kept_indices), patches, device=kept_indices.device)
    seen.scatter_(1, kept_indices, 1.0)
    return seen.argsort(dim=1, stable=True)[:, : patches - kept_indices.shape[1]]


def clones(sub_bands: int, *, most: int, cap: int) -> int:
    """How many masks each sub-band gets: `most`, fewer where all together would be more than `cap`; 1 at least."""
    return max(1, min(most, cap // sub_bands))
