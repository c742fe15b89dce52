"""A machine as a sensor hears it: what turns, strikes, flows and is fed, through structure, room and converter.

Parameters are drawn apart from the noise that makes a window of them, so that the same machine can be heard again.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from fisher_models.pretrain.corpus import (
    bearings,
    electrical,
    flow,
    gears,
    modes,
    motion,
    noise,
    rotor,
    sensor,
    surroundings,
    transients,
)  # fmt: skip
from fisher_models.pretrain.corpus.draws import Draws

Kind = Literal["vibration", "sound", "current"]
KINDS: tuple[Kind, ...] = ("vibration", "sound", "current")


@dataclass(frozen=True, slots=True, eq=False)
class Machines:
    """The parameters of n machines, one row each, on one device."""

    kind: Tensor  # (n,) index into KINDS
    scale: Tensor  # (n,) by which the sum of all elements is brought to RMS 1
    motion: motion.Motion
    rotor: rotor.Rotor
    gears: gears.Gears
    bearings: bearings.Bearings
    bursts: flow.Bursts
    transients: transients.Transients
    electrical: electrical.Electrical
    noise: noise.Noise
    modes: modes.Modes
    surroundings: surroundings.Surroundings
    sensor: sensor.Sensor


# How often an element is present, by kind (vibration, sound, current), and between which levels (dB, RMS) it then is.
_PRESENT: Mapping[str, tuple[tuple[float, float, float], float, float]] = {
    "shaft": ((0.85, 0.6, 0.0), -25, 5),
    "loose": ((0.15, 0.08, 0.0), -20, 0),
    "mesh": ((0.35, 0.3, 0.0), -20, 5),
    "tooth": ((0.1, 0.05, 0.0), -20, 0),
    "bearing": ((0.35, 0.2, 0.0), -25, 3),
    "rub": ((0.12, 0.12, 0.0), -20, 0),
    "cavitation": ((0.12, 0.12, 0.0), -15, 3),
    "knock": ((0.12, 0.15, 0.03), -25, 0),
    "cycle": ((0.12, 0.2, 0.0), -15, 3),
    "supply": ((0.0, 0.0, 1.0), 0, 6),
    "ground": ((1.0, 1.0, 1.0), -30, 5),
    "quiet": ((1.0, 1.0, 1.0), -70, -25),  # the background of a current
    "leak": ((0.06, 0.2, 0.0), -20, 5),
    "room": ((0.0, 0.7, 0.0), -12, 10),
    "hum": ((0.15, 0.1, 0.05), -50, -15),
    "neighbour": ((0.25, 0.35, 0.05), -30, -3),
    "gated": ((0.08, 0.1, 0.05), 0, 0),
    "mechanical": ((0.0, 0.0, 0.6), -55, -20),  # sidebands of a fault in a current
}
_STATIONARY = ("neighbour", "gated")  # left out where windows of one machine are to be alike


def draw(draws: Draws, n: int, *, rate_hz: float, shares: Mapping[Kind, float], alike: bool = False) -> Machines:
    """n machines as they may be heard at a rate, on the CPU; `shares` says how many of each kind.

    With `alike`, what would make two windows of one machine differ beyond chance is left out: ramps, duty cycles and
    neighbours.
    """
    weights = torch.tensor([shares.get(kind, 0.0) for kind in KINDS])
    kind = torch.multinomial(weights, n, replacement=True, generator=draws.generator)
    level = {}
    for name, (often, low, high) in _PRESENT.items():
        here = draws.uniform(n) < torch.tensor(often)[kind]
        size = draws.decibels(n, low=low, high=high)
        level[name] = size * here * (not (alike and name in _STATIONARY))
    current = kind == KINDS.index("current")
    level["ground"] = torch.where(current, level["quiet"], level["ground"])
    moving = motion.draw(draws, n, ramps=0.0 if alike else 0.1)
    fed, shaft_hz = electrical.draw(draws, level["supply"])
    heard = [name for name in _PRESENT if name not in (*_STATIONARY, "quiet", "room", "mechanical")]
    total = torch.stack([level[name] for name in heard]).square().sum(0).sqrt()
    motion_hz = torch.where(current, shaft_hz, moving.shaft_hz)
    return Machines(
        kind=kind,
        scale=1 / total,
        motion=replace(moving, shaft_hz=motion_hz),
        rotor=rotor.draw(draws, level["shaft"], level["loose"]),
        gears=gears.draw(draws, level["mesh"], level["tooth"]),
        bearings=bearings.draw(draws, level["bearing"]),
        bursts=flow.draw(draws, level["rub"], level["cavitation"]),
        transients=transients.draw(draws, level["knock"], level["cycle"], (level["gated"] > 0).float()),
        electrical=replace(fed, fault=level["mechanical"]),
        noise=noise.draw(draws, level["ground"], level["leak"], rate_hz=rate_hz),
        modes=modes.draw(draws, n, rate_hz=rate_hz),
        surroundings=surroundings.draw(draws, level["room"].square(), level["hum"], level["neighbour"]),
        sensor=sensor.draw(draws, n, clipping=0.0 if alike else 0.06),
    )
