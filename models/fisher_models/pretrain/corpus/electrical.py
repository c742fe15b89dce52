"""Motor currents and voltages: supply with harmonics, slots, inverters, and what mechanical faults add beside it.

Supply harmonics of order 6 k +- 1 and a little of the others (IEC 61000-2-4); rotor slots at R turns +- the supply,
eccentricity and load torque as sidebands at multiples of the shaft, bearings at theirs, broken bars at twice the slip
(Nandi, Toliyat & Li, IEEE Trans. Energy Convers. 20, 2005; Thomson & Fenger, IEEE Ind. Appl. Mag. 7, 2001). Inverters
leave groups about multiples of the carrier, phase-modulated by the supply (Holmes & Lipo, Pulse Width Modulation for
Power Converters, 2003). An unbalanced or shorted winding raises order 3 (Cruz &
Cardoso, IEEE Trans. Ind. Appl. 37, 2001).
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from fisher_models.pretrain.corpus.draws import Draws
from fisher_models.pretrain.corpus.motion import Course, steady
from fisher_models.pretrain.corpus.span import Span
from fisher_models.pretrain.corpus.tables import look_up, table

_ORDERS, _SIDEBANDS = 50, 3


@dataclass(frozen=True, slots=True, eq=False)
class Electrical:
    """The supply of n machines; levels are RMS."""

    level: Tensor  # (n,) of the supply; 0 where the signal is no current or voltage
    supply_hz: Tensor  # (n,)
    series: Tensor  # (n, 50) complex, harmonics of the supply
    slots: Tensor  # (n,) per turn of the shaft
    slotting: Tensor  # (n,) their share of the fundamental
    carrier_hz: Tensor  # (n,) of the inverter
    carrier: Tensor  # (n,) its share; 0: fed by the grid
    swing: Tensor  # (n,) depth of the carrier's phase modulation, radians
    side_order: Tensor  # (n, 3) sidebands, per turn of the shaft
    side: Tensor  # (n, 3) their depth
    bars: Tensor  # (n,) depth of the modulation by broken bars
    slip_hz: Tensor  # (n,)
    fault: Tensor  # (n,) what a mechanical fault adds to the first sideband's depth; set by whoever wants one


def draw(draws: Draws, level: Tensor) -> tuple[Electrical, Tensor]:
    """Grid-fed and inverter-fed machines of 1 to 4 pole pairs; and the turns per second (n,) that follow."""
    n = len(level)
    grid = draws.chance(n, p=0.6)
    supply_hz = torch.where(grid > 0, draws.among(n, values=(50.0, 60.0)), draws.log_uniform(n, low=8, high=200))
    pole_pairs = draws.whole(n, low=1, high=4)
    slip = draws.log_uniform(n, low=0.002, high=0.06)
    shaft_hz = supply_hz / pole_pairs * (1 - slip)
    order = torch.arange(_ORDERS)
    odd = (order % 2 == 1) & (order > 1)
    usual = odd & (order % 3 != 0)
    fall = order.clamp(min=1.0).float() ** -draws.uniform(n, 1, low=0.5, high=2)
    size = draws.decibels(n, 1, low=-40, high=-15) * draws.normal(n, _ORDERS, std=0.7).exp() * fall * 5
    size = size * torch.where(usual, 1.0, torch.where(odd, draws.decibels(n, 1, low=-25, high=0), 0.03))
    size[:, 0], size[:, 1] = 0.0, 1.0
    sides = torch.stack([torch.ones(n), 2 * torch.ones(n), draws.log_uniform(n, low=2.5, high=12)], 1)
    inverter = (1 - grid) * draws.decibels(n, low=-60, high=-10)
    electrical = Electrical(
        level=level,
        supply_hz=supply_hz,
        series=size * (2 / size.square().sum(1, keepdim=True)).sqrt() * draws.phasors(n, _ORDERS),
        slots=draws.whole(n, low=18, high=60).float(),
        slotting=draws.decibels(n, low=-70, high=-25),
        carrier_hz=draws.log_uniform(n, low=1000, high=20000),
        carrier=inverter,
        swing=draws.uniform(n, low=0.3, high=3),
        side_order=sides,
        side=draws.decibels(n, _SIDEBANDS, low=-75, high=-35),
        bars=draws.chance(n, p=0.2) * draws.decibels(n, low=-60, high=-30),
        slip_hz=slip * supply_hz,
        fault=torch.zeros(n),
    )
    return electrical, shaft_hz


def render(electrical: Electrical, rows: Tensor, moving: Course, span: Span) -> Tensor:
    """(rows, samples)."""
    supply_hz, n = electrical.supply_hz[rows], len(rows)
    start = span.random(n, 1)
    supply = steady(supply_hz, start, span)
    period = table(electrical.series[rows], supply_hz, highest_hz=0.49 * span.rate_hz)
    out = look_up(period, supply)
    beside = _cosine(steady(2 * electrical.slip_hz[rows], span.random(n, 1), span)) * electrical.bars[rows, None]
    fastest = moving.fastest_hz[rows]
    for k in range(_SIDEBANDS):
        depth = electrical.side[rows, k] + (electrical.fault[rows] if k == 0 else 0)
        order = electrical.side_order[rows, k]
        heard = depth * (fastest * order + supply_hz < 0.49 * span.rate_hz)
        beside.addcmul_(_cosine(moving.phase(order, rows, span)), heard[:, None])
    out.mul_(beside.mul_(span.filled(moving.load[rows])).add_(1))
    slots = electrical.slotting[rows] * (fastest * electrical.slots[rows] + supply_hz < 0.49 * span.rate_hz)
    wave = _cosine(moving.phase(electrical.slots[rows], rows, span))
    out.add_(wave.mul_(_cosine(supply)).mul_(slots[:, None]))
    fed = torch.nonzero(electrical.carrier[rows] > 0).flatten()
    if len(fed):
        out.index_add_(0, fed, _carrier(electrical, rows[fed], supply[fed], span))
    return out.mul_(electrical.level[rows, None])


def _carrier(electrical: Electrical, rows: Tensor, supply: Tensor, span: Span) -> Tensor:
    """The groups about the carrier and its double."""
    swing = _cosine(supply).mul_(electrical.swing[rows, None] / (2 * math.pi))
    turns = steady(electrical.carrier_hz[rows], span.random(len(rows), 1), span)
    out = torch.zeros_like(turns)
    for harmonic in (1, 2):
        widest = harmonic * (electrical.carrier_hz[rows] + 4 * electrical.supply_hz[rows])
        share = electrical.carrier[rows] / harmonic * (widest < 0.49 * span.rate_hz)
        out.addcmul_(_cosine(turns.add(swing).mul_(harmonic)), share[:, None])
    return out


def _cosine(turns: Tensor) -> Tensor:
    return torch.cos(turns * (2 * math.pi))
