"""Signs of collapse, on bands that are never trained on. The bootstrap loss does not rank checkpoints; these do better.

Embedding variance and effective rank (Roy & Vetterli, EUSIPCO 2007: the exponential of the entropy of the singular
values) fall when a model collapses; linear probes say what can be read from an embedding.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from fisher_models.pretrain.statistics import NAMES, PROBED, statistics

Embed = Callable[[Tensor, Tensor], Tensor]  # bands (n, t, f), centres (n,) -> (n, d)
_RIDGE = 0.03  # of the number of examples


def look(embed: Embed, batches: Sequence[tuple[Tensor, Tensor]]) -> dict[str, float]:
    """`deviation` (mean over dimensions), `rank` and a probe `r2_...` for each of `PROBED`.

    `batches` are bands (n, t, f) with their centres (n,); probes are fitted on every other one and judged on the
    rest, so at least two are needed.
    """
    vectors = [embed(bands, centres).float().cpu() for bands, centres in batches]
    facts = [statistics(bands).cpu() for bands, _ in batches]
    together = torch.cat(vectors)
    probes = _probe(vectors, facts)
    return {
        "deviation": float(together.std(0).mean()),
        "rank": effective_rank(together),
        **{f"r2_{name}": float(probes[NAMES.index(name)]) for name in PROBED},
    }


def effective_rank(vectors: Tensor) -> float:
    """(n, d) -> exp(entropy of the normalised singular values), 1 where all lie on a line; 0 where all are equal."""
    values = torch.linalg.svdvals((vectors - vectors.mean(0)).double())
    total = values.sum()
    if not total > 1e-9:
        return 0.0
    share = values / total
    share = share[share > 0]
    return float(torch.exp(-(share * share.log()).sum()))


def _probe(vectors: Sequence[Tensor], facts: Sequence[Tensor]) -> Tensor:
    """R2 of each fact on batches that the ridge regression has not seen; no better than the mean is 0, or below."""
    x, y = torch.cat(list(vectors[::2])).double(), torch.cat(list(facts[::2])).double()
    new_x, new_y = torch.cat(list(vectors[1::2])).double(), torch.cat(list(facts[1::2])).double()
    mean, deviation = x.mean(0), x.std(0) + 1e-6
    x, new_x = (x - mean) / deviation, (new_x - mean) / deviation
    gram = x.T @ x + _RIDGE * len(x) * torch.eye(x.shape[1], dtype=x.dtype)
    weights = torch.linalg.solve(gram, x.T @ (y - y.mean(0)))
    rest = new_y - (new_x @ weights + y.mean(0))
    return 1 - rest.square().mean(0) / (new_y.var(0, correction=0) + 1e-9)
