"""The teacher: an exponential moving average of the student, in float32, that is never trained itself."""

import copy

import torch
from torch import nn


def teacher_of(student: nn.Module) -> nn.Module:
    """A copy to begin with; in evaluation mode and without gradients."""
    return copy.deepcopy(student).eval().requires_grad_(False)


def follow(teacher: nn.Module, student: nn.Module, *, tau: float) -> None:
    """teacher = tau x teacher + (1 - tau) x student, the patch projection included; buffers are copied."""
    mine, theirs = list(teacher.parameters()), [p.detach() for p in student.parameters()]
    with torch.no_grad():
        torch._foreach_lerp_(mine, theirs, 1 - tau)
        for buffer, theirs_now in zip(teacher.buffers(), student.buffers(), strict=True):
            buffer.copy_(theirs_now)


def tau_at(step: int, *, start: float, end: float, steps: int) -> float:
    """Linear from `start` to `end` over the first `steps`, then constant (EAT: 0.9998 to 0.99999 over 100,000)."""
    return end if step >= steps else start + (end - start) * step / steps
