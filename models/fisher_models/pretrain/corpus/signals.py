"""Machines to waveforms: every element that is present, summed, through structure, room, sensor and converter."""

from collections.abc import Callable

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
from fisher_models.pretrain.corpus.machine import KINDS, Machines
from fisher_models.pretrain.corpus.rows import active, moved
from fisher_models.pretrain.corpus.span import Span


def render(machines: Machines, span: Span) -> Tensor:
    """(n, samples): a window of each machine, as its converter stores it.

    `machines` are on the CPU, where it is known without waiting which elements are silent; all else is done on the
    span's device. The same machines and the same seed of the span's noise give the same windows.
    """
    m, n = moved(machines, span.device), len(machines.scale)
    moving = motion.course(m.motion, span)

    def present(level: Tensor) -> Tensor:
        return active(level).to(span.device)

    forced = span.zeros(n)  # passes the structure as it is
    _add(forced, present(machines.rotor.level + machines.rotor.loose), lambda r: rotor.render(m.rotor, r, moving, span))
    _add(forced, present(machines.gears.level), lambda r: gears.mesh(m.gears, r, moving, span))
    struck = span.zeros(n)  # makes the structure ring
    for level, made in (
        (machines.gears.tooth, lambda r: gears.knocks(m.gears, r, moving, span)),
        (machines.bearings.level, lambda r: bearings.knocks(m.bearings, r, m.motion.shaft_hz, moving, span)),
        (machines.bursts.rub, lambda r: flow.rubbing(m.bursts, r, moving, span)),
        (machines.bursts.cavitation, lambda r: flow.cavitating(m.bursts, r, moving, span)),
        (machines.transients.knock, lambda r: transients.knocks(m.transients, r, span)),
        (machines.transients.cycle, lambda r: transients.bursts(m.transients, r, span)),
    ):
        _add(struck, present(level), made, level=level.to(span.device))
    _work(forced, struck, m, present(machines.transients.gated), moving, span)
    _add(forced, present(machines.electrical.level), lambda r: electrical.render(m.electrical, r, moving, span))

    path = modes.response(m.modes, span)
    path /= torch.addcmul(path.real.square(), path.imag, path.imag).mean(1, keepdim=True).sqrt()
    path[m.kind == KINDS.index("current")] = 1
    spectrum = torch.fft.rfft(struck).mul_(path).add_(torch.fft.rfft(forced)).add_(noise.transform(m.noise, span))
    if len(inside := present(machines.surroundings.tail)):
        spectrum[inside] *= surroundings.room(m.surroundings, inside, span)
    spectrum *= sensor.response(m.sensor, span).mul_(m.scale[:, None])
    heard = torch.fft.irfft(spectrum, n=span.samples)
    humming = present(machines.surroundings.hum)
    _add(heard, humming, lambda r: surroundings.hum(m.surroundings, r, span).mul_(m.scale[r, None]))
    return sensor.converted(m.sensor, surroundings.mixed(m.surroundings, heard), span)


def _add(bus: Tensor, rows: Tensor, made: Callable[[Tensor], Tensor], *, level: Tensor | None = None) -> None:
    """Add an element to its rows; with `level`, brought to that RMS first."""
    if not len(rows):
        return
    signals = made(rows)
    if level is not None:
        signals.mul_(level[rows, None] / signals.square().mean(1, keepdim=True).sqrt_().clamp_(min=1e-6))
    bus.index_add_(0, rows, signals)


def _work(forced: Tensor, struck: Tensor, m: Machines, gated: Tensor, moving: motion.Course, span: Span) -> None:
    """Forces follow load and the square of the speed; duty cycles silence a machine."""
    forced *= span.filled(moving.load * moving.speed.square())
    if len(gated):
        working = span.filled(transients.gate(m.transients, gated, span))
        forced[gated] *= working
        struck[gated] *= working
