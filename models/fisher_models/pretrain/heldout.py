"""Machines that are never trained on, healthy and with faults, heard several times; nearest neighbours on them.

Half of a machine's windows are its bank. `diagnosis` is the share of the other windows whose nearest neighbours have
their condition; `anomaly` is the AUC of the distance to the nearest healthy window. Both by cosine, per machine.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from fisher_models.frontend import FrontendSpec
from fisher_models.pretrain import seeds
from fisher_models.pretrain.config import KnnSpec
from fisher_models.pretrain.corpus import bearings, machine, rows
from fisher_models.pretrain.corpus.draws import Draws
from fisher_models.pretrain.corpus.span import Span
from fisher_models.pretrain.data import log_spectrograms
from fisher_models.pretrain.monitors import Embed
from fisher_models.pretrain.spectra import Spectra

SEED = 2**40  # no training seed: those are at most 2**31
CONDITIONS = ("healthy", "outer race", "inner race", "tooth", "looseness", "rub", "cavitation", "leak")
_LOW_DB, _HIGH_DB = -20.0, -8.0  # of a fault's RMS, to that of the healthy machine
_NEIGHBOURS = 3
_AT_ONCE = 256  # bands


@dataclass(frozen=True, slots=True, eq=False)
class HeldOut:
    """Windows of one rate: (machine, condition, window) flattened in this order."""

    bands: Tensor  # (windows, b, t, f), on the CPU
    centres: Tensor  # (b,)
    machines: int
    windows: int  # of each condition of a machine


def make(spec: KnnSpec, frontend: FrontendSpec, device: torch.device) -> tuple[HeldOut, ...]:
    """The same machines at every rate of the spec, whatever is trained."""
    return tuple(
        _at_rate(spec, Spectra(frontend), float(rate), number, device) for number, rate in enumerate(spec.rates_hz)
    )


def _at_rate(spec: KnnSpec, spectra: Spectra, rate_hz: float, number: int, device: torch.device) -> HeldOut:
    draws = Draws(seeds.generator(SEED, "machines", counter=number))
    drawn = machine.draw(draws, spec.machines, rate_hz=rate_hz, shares={"vibration": 0.5, "sound": 0.5}, alike=True)
    sound = _healthy(drawn)
    size = draws.decibels(spec.machines, low=_LOW_DB, high=_HIGH_DB) / sound.scale
    variants = [_with_fault(sound, condition, size) for condition in CONDITIONS]
    stacked = _joined(variants)  # condition-major
    m, c, w = spec.machines, len(CONDITIONS), spec.windows
    order = (torch.arange(c) * m + torch.arange(m)[:, None]).flatten().repeat_interleave(w)
    heard = rows.pick(stacked, order)
    n = len(order)
    speed = heard.motion.shaft_hz * draws.uniform(n, low=0.96, high=1.04)
    level = heard.sensor.level * draws.decibels(n, low=-1, high=1)
    heard = replace(heard, motion=replace(heard.motion, shaft_hz=speed), sensor=replace(heard.sensor, level=level))
    noise = seeds.generator(SEED, "noise", counter=number, device=device)
    frames = min(spec.frames, spectra.spec.max_frames)
    span = Span.holding(spectra.samples(frames, rate_hz), rate_hz=rate_hz, noise=noise)
    bands, centres = spectra.bands(log_spectrograms(heard, span, spectra)[:, :frames], rate_hz)
    return HeldOut(bands.cpu(), centres.cpu(), m, w)


def judge(embed: Embed, sets: Sequence[HeldOut], device: torch.device) -> dict[str, float]:
    """`diagnosis` (chance is 1 in 8) and `anomaly` (chance is 0.5), means over machines and rates."""
    diagnosis, anomaly = [], []
    for held in sets:
        vectors = _signals(embed, held, device).view(held.machines, len(CONDITIONS), held.windows, -1)
        bank, asked = vectors[:, :, : held.windows // 2], vectors[:, :, held.windows // 2 :]
        for known, new in zip(bank, asked, strict=True):
            diagnosis.append(_diagnosed(known, new))
            anomaly.append(_separated(known[0], new))
    return {"diagnosis": sum(diagnosis) / len(diagnosis), "anomaly": sum(anomaly) / len(anomaly)}


def auc(normal: Tensor, strange: Tensor) -> float:
    """The chance that a strange score is above a normal one; ties count half."""
    above = (strange[:, None] > normal).double() + 0.5 * (strange[:, None] == normal).double()
    return float(above.mean())


def _signals(embed: Embed, held: HeldOut, device: torch.device) -> Tensor:
    """(windows, b x d) of length 1: the bands of a window side by side."""
    n, b = held.bands.shape[:2]
    flat, centres = held.bands.flatten(0, 1), held.centres.repeat(n)
    parts = [
        embed(flat[i : i + _AT_ONCE].to(device), centres[i : i + _AT_ONCE].to(device)).float().cpu()
        for i in range(0, n * b, _AT_ONCE)
    ]
    return torch.nn.functional.normalize(torch.cat(parts).view(n, -1), dim=1)


def _diagnosed(known: Tensor, new: Tensor) -> float:
    """(conditions, w, d) twice -> share of new windows whose neighbours' summed similarity picks their condition."""
    c, w, _ = known.shape
    similar = new.flatten(0, 1) @ known.flatten(0, 1).T  # (c x new, c x w)
    near = similar.topk(min(_NEIGHBOURS, c * w), dim=1)
    votes = torch.zeros(len(similar), c).scatter_add_(1, near.indices // w, near.values + 1)
    truth = torch.arange(c).repeat_interleave(new.shape[1])
    return float((votes.argmax(1) == truth).double().mean())


def _separated(healthy: Tensor, new: Tensor) -> float:
    """(w, d), (conditions, w, d) with the healthy first -> AUC of the distance to the nearest healthy window."""
    distance = 1 - (new @ healthy.T).amax(2)  # (conditions, new)
    return auc(distance[0], distance[1:].flatten())


def _healthy(drawn: machine.Machines) -> machine.Machines:
    """Without any fault, and brought to RMS 1 without it."""
    none = torch.zeros_like(drawn.scale)
    shaft = torch.where(drawn.rotor.level > 0, drawn.rotor.level, none + 0.3)
    levels = (shaft, drawn.gears.level, drawn.transients.cycle, drawn.noise.level, drawn.surroundings.hum)
    return replace(
        drawn,
        scale=1 / torch.stack(levels).square().sum(0).sqrt(),
        rotor=replace(drawn.rotor, level=shaft, loose=none),
        gears=replace(drawn.gears, tooth=none),
        bearings=replace(drawn.bearings, level=none),
        bursts=replace(drawn.bursts, rub=none, cavitation=none),
        transients=replace(drawn.transients, knock=none),
        noise=replace(drawn.noise, leak=none),
    )


def _with_fault(sound: machine.Machines, condition: str, size: Tensor) -> machine.Machines:
    """The same machines with one fault, of RMS `size` (n,)."""
    match condition:
        case "outer race" | "inner race":
            race = bearings.OUTER if condition == "outer race" else bearings.INNER
            where = torch.full_like(sound.bearings.where, race)
            return replace(sound, bearings=replace(sound.bearings, level=size, where=where))
        case "tooth":
            return replace(sound, gears=replace(sound.gears, tooth=size))
        case "looseness":
            return replace(sound, rotor=replace(sound.rotor, loose=size))
        case "rub":
            return replace(sound, bursts=replace(sound.bursts, rub=size))
        case "cavitation":
            return replace(sound, bursts=replace(sound.bursts, cavitation=size))
        case "leak":
            return replace(sound, noise=replace(sound.noise, leak=size))
        case _:
            return sound


def _joined(variants: Sequence[machine.Machines]) -> machine.Machines:
    """The rows of all, one set after the other."""

    def cat(parts: Sequence[object]) -> object:
        first = parts[0]
        if isinstance(first, Tensor):
            return torch.cat(list(parts))
        values = {f.name: cat([getattr(part, f.name) for part in parts]) for f in fields(first)}  # type: ignore[arg-type]
        return replace(first, **values)  # type: ignore[type-var]

    joined = cat(variants)
    assert isinstance(joined, machine.Machines)
    return joined
