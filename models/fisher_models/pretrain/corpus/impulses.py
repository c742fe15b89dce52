"""Trains of impulses, one each time a phase passes a whole turn: so knock defects, loose parts and teeth.

Spacing jitters both from one impulse to the next and as a random walk (Antoni & Randall, J. Vib. Acoust. 125, 2003:
cyclic but not periodic); each impulse has a size of its own.
"""

import torch
from torch import Tensor

from fisher_models.pretrain.corpus.span import Span


def walk(rate_hz: Tensor, jitter: Tensor, span: Span) -> Tensor:
    """(n, c) turns of a random walk at the knots whose deviation after one impulse is `jitter` (n,) of a spacing.

    `rate_hz` (n,) is how often impulses come.
    """
    step = jitter * torch.sqrt(rate_hz * (span.knot / span.rate_hz))  # grows with the root of the number of impulses
    drawn = torch.randn(len(rate_hz), len(span.knots_s()), device=span.device, generator=span.noise)
    return drawn.cumsum(1) * step[:, None]


def train(turns: Tensor, spread: Tensor, jitter: Tensor, span: Span, *, size: Tensor | None = None) -> Tensor:
    """(n, c) turns at the knots -> (n, samples): an impulse of about 1 at each whole turn, split between two samples.

    `spread` (n,) is the relative deviation of the impulses' sizes, `jitter` (n,) of their spacing; `size` (n, c - 1)
    scales those that fall after each knot.
    """
    passed = turns.floor().cummax(1).values  # a random walk may step back; nothing strikes twice
    counts = passed.diff(dim=1).long()  # (n, c - 1)
    flat, segments = counts.flatten(), counts.shape[1]
    place = torch.repeat_interleave(flat)  # (k,) segment of each impulse
    k = len(place)
    first = flat.cumsum(0) - flat
    nth = torch.arange(k, device=place.device) - first[place]  # within its segment
    start, gained = turns[:, :-1].flatten()[place], turns.diff(dim=1).flatten()[place]
    whole = passed[:, :-1].flatten()[place] + 1 + nth
    share = ((whole - start) / gained.clamp(min=1e-9)).clamp(0, 1).float()
    row = place // segments
    noise = torch.randn(2, k, device=span.device, generator=span.noise)
    spacing = span.knot / gained.float().clamp(min=1e-3)  # samples
    when = (place % segments + share) * span.knot + noise[0] * jitter[row] * spacing
    weight = (1 + spread[row] * noise[1]).clamp_(min=0.05)
    if size is not None:
        weight = weight * size.flatten()[place]
    when = when.clamp_(0, span.samples - 2)
    sample = when.long()
    late = when - sample
    out = span.zeros(len(turns))
    at = row * span.samples + sample
    out.view(-1).index_add_(0, torch.cat([at, at + 1]), torch.cat([weight * (1 - late), weight * late]))
    return out
