"""The learning rate over a run, and which parameters decay."""

import math
from collections.abc import Sequence

from torch import nn

from fisher_models.pretrain.config import OptimizerSpec


def rate_at(step: int, steps: int, spec: OptimizerSpec) -> float:
    """Warm-up from 0, then held or falling as a cosine; linear to 0 over the last `decay` of the run.

    The decay to zero is what makes a teacher that follows closely as good as one that averages for long.
    """
    warm = round(spec.warmup * steps)
    if step < warm:
        return spec.rate * (step + 1) / warm
    done = (step - warm) / max(1, steps - warm)
    level = 0.5 + 0.5 * math.cos(math.pi * done) if spec.schedule == "cosine" else 1.0
    falling = spec.decay * steps
    return spec.rate * level * (min(1.0, (steps - step) / falling) if falling else 1.0)


def groups(model: nn.Module, spec: OptimizerSpec) -> Sequence[dict[str, object]]:
    """Matrices and kernels decay; biases, norms and the class token do not."""
    trained = [p for p in model.parameters() if p.requires_grad]
    wide = [p for p in trained if p.squeeze().ndim > 1]
    narrow = [p for p in trained if p.squeeze().ndim <= 1]
    return [{"params": wide, "weight_decay": spec.weight_decay}, {"params": narrow, "weight_decay": 0.0}]
