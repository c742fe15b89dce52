"""What stands between a machine and its sensor, and beside it: rooms, neighbours, mains hum.

A room is its direct sound and an exponentially decaying noise tail (Moorer, Comput. Music J. 3, 1979; Polack's
statistical model, 1988), reverberation times of 0.1 to 2 s (ISO 3382-2). A neighbour is another signal of the batch,
quieter. Hum is the mains with harmonics, picked up by cables.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from fisher_models.pretrain.corpus.draws import Draws
from fisher_models.pretrain.corpus.motion import steady
from fisher_models.pretrain.corpus.span import Span
from fisher_models.pretrain.corpus.tables import look_up, table

_HUM_ORDERS = 12


@dataclass(frozen=True, slots=True, eq=False)
class Surroundings:
    """Of n signals."""

    tail: Tensor  # (n,) energy of the reverberation beside the direct sound; 0: no room
    reverberation_s: Tensor  # (n,) to fall by 60 dB
    hum: Tensor  # (n,) level, RMS; 0: none
    mains_hz: Tensor  # (n,)
    series: Tensor  # (n, 12) complex
    neighbour: Tensor  # (n,) amplitude of the next signal of the batch; 0: none


def draw(draws: Draws, tail: Tensor, hum: Tensor, neighbour: Tensor) -> Surroundings:
    """Rooms from a cabin to a hall."""
    n = len(tail)
    size = draws.normal(n, _HUM_ORDERS).exp() / torch.arange(1, _HUM_ORDERS + 1)
    size[:, 0] = 0
    series = size * (2 / size.square().sum(1, keepdim=True)).sqrt() * draws.phasors(n, _HUM_ORDERS)
    mains = draws.among(n, values=(50.0, 60.0))
    return Surroundings(tail, draws.log_uniform(n, low=0.1, high=2), hum, mains, series, neighbour)


def room(surroundings: Surroundings, rows: Tensor, span: Span) -> Tensor:
    """(rows, bins) complex: from machine to microphone. It wraps around, as the signal does."""
    t = torch.arange(span.samples, device=span.device) / span.rate_hz
    decay = torch.exp(t * (-6.9 / surroundings.reverberation_s[rows, None]))
    tail = decay.mul_(span.white(len(rows)))
    tail *= (surroundings.tail[rows, None] / tail.square().sum(1, keepdim=True)).sqrt()
    tail[:, 0] += 1
    return torch.fft.rfft(tail)


def hum(surroundings: Surroundings, rows: Tensor, span: Span) -> Tensor:
    """(rows, samples)."""
    mains = surroundings.mains_hz[rows]
    period = table(surroundings.series[rows], mains, highest_hz=0.49 * span.rate_hz)
    return look_up(period, steady(mains, span.random(len(rows), 1), span)).mul_(surroundings.hum[rows, None])


def mixed(surroundings: Surroundings, signals: Tensor) -> Tensor:
    """(n, samples) -> each with its neighbour, the next one, mixed in."""
    if not bool((surroundings.neighbour > 0).any()):
        return signals
    return torch.addcmul(signals, signals.roll(-1, 0), surroundings.neighbour[:, None])
