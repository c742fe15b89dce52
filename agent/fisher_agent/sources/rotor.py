"""What a generated machine does, hop by hop: speed, load, supply, levels and the passes of balls over a defect.

A hop is 0.1 s of absolute event time; its state is a function of (seed, hop) alone, with its random numbers seeded by
the hop, so it does not matter where a run begins.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]

HOP_NS = 100_000_000
HOP_S = 0.1
SHAFT_HZ = Fraction(247, 10)  # at 60 % load; 25 Hz is synchronous
BALL_PASS = Fraction(3585, 1000)  # outer-race passes per turn of a 6205 bearing
RUN_DOWN_HOPS, RUN_UP_HOPS = 30, 20
LEVELS = 14  # independent wandering levels

_SLIP_JITTER = 0.015  # of a ball-pass period
_SLOW = ((0.04, 113), (0.03, 479), (0.02, 1631))  # deviations of the shaft: Hz, period in hops; 0.4 % in all
_SUPPLY = ((0.015, 371),)  # deviation of the supply
_KNOT_HOPS = 20  # levels wander from knot to knot

KNOTS, PHASES, IMPULSES, NOISE = range(4)
"""Streams of random numbers, the first part of the key of `Story.random`."""


@dataclass(frozen=True, slots=True, eq=False)
class Hop:
    """What the machine does during one hop; pairs are values at its two ends, linear between them."""

    turns: tuple[float, float, float]  # deviation from SHAFT_HZ x t in turns: c0 + c1 x + c2 x^2, x = 0..1
    supply: tuple[float, float, float]  # likewise, from 50 Hz
    load: tuple[float, float]
    speed: tuple[float, float]  # 0 standing .. 1
    drive: tuple[float, float]  # current: 0 off, 1 running, up to 5 while running up
    fault: tuple[float, float]
    wander: tuple[Doubles, Doubles]  # standard normal, smooth
    impulses: tuple[tuple[float, float], ...]  # seconds from the hop's start, relative amplitude


class Story:
    """The state of the machine over time, hop by hop."""

    def __init__(
        self,
        seed: int,
        fault_from_ns: int | None,
        growth_s: float,
        severity: float,
        stopped: Sequence[tuple[int, int]],
    ) -> None:
        self.seed = seed
        self._fault_hop = None if fault_from_ns is None else -(-fault_from_ns // HOP_NS)
        self._growth_hops = max(1.0, growth_s / HOP_S)
        self._severity = severity
        self._stops = sorted((a // HOP_NS, b // HOP_NS) for a, b in stopped)
        ready = -1
        for a, b in self._stops:
            if b - a < RUN_DOWN_HOPS or a < ready:
                raise ValueError("a stop takes at least 3 s, and 2 s of running up lie between two stops")
            ready = b + RUN_UP_HOPS
        self._phases = self.random(PHASES).random(len(_SLOW) + len(_SUPPLY))
        self._knots: dict[int, Doubles] = {}
        self._recent: dict[int, Hop] = {}

    def random(self, *key: int) -> np.random.Generator:
        """The random numbers that belong to a key."""
        return np.random.Generator(np.random.SFC64([self.seed, *key]))

    def hop(self, k: int) -> Hop:
        """Hop k; its neighbours are kept, for each channel asks again."""
        if k not in self._recent:
            self._recent = {j: h for j, h in self._recent.items() if abs(j - k) == 1} | {k: self._make(k)}
        return self._recent[k]

    def _make(self, k: int) -> Hop:
        turns = parabola(*(self._deviation(k + x, _SLOW, 0) - self._lost_turns(k + x) for x in (0.0, 0.5, 1.0)))
        supply = parabola(*(self._deviation(k + x, _SUPPLY, len(_SLOW)) for x in (0.0, 0.5, 1.0)))
        fault = (self._fault(k), self._fault(k + 1))
        return Hop(
            turns=turns,
            supply=supply,
            load=(self._load(k), self._load(k + 1)),
            speed=(self._speed(k), self._speed(k + 1)),
            drive=(self._drive(k), self._drive(k + 1)),
            fault=fault,
            wander=(self._wander(k), self._wander(k + 1)),
            impulses=self._impulses(k, turns) if max(fault) > 0 else (),
        )

    def _deviation(self, hops: float, slow: Sequence[tuple[float, int]], first: int) -> float:
        """Turns gained by slow sines of frequency; the period is taken off as an integer, for precision."""
        whole, part = int(hops // 1), hops % 1
        turns = 0.0
        for i, (hz, period) in enumerate(slow):
            angle = 2 * np.pi * ((whole % period + part) / period + self._phases[first + i])
            turns -= hz * period * HOP_S / (2 * np.pi) * float(np.cos(angle))
        return turns

    def _load(self, k: int) -> float:
        """0..1: 25 Hz without load, 24.5 Hz under full load."""
        slower = sum(
            hz * float(np.sin(2 * np.pi * ((k % period) / period + self._phases[i])))
            for i, (hz, period) in enumerate(_SLOW)
        )
        return (25.0 - float(SHAFT_HZ) - slower) / 0.5

    def _speed(self, hops: float) -> float:
        for a, b in self._stops:
            if a <= hops <= b + RUN_UP_HOPS:
                return float(max(1 - (hops - a) / RUN_DOWN_HOPS, min(1.0, (hops - b) / RUN_UP_HOPS), 0.0))
        return 1.0

    def _lost_turns(self, hops: float) -> float:
        """Turns not made because of stops so far: SHAFT_HZ x the integral of (1 - speed)."""
        lost = 0.0
        for a, b in self._stops:
            down = min(max(hops - a, 0.0), RUN_DOWN_HOPS)
            stand = min(max(hops - a - RUN_DOWN_HOPS, 0.0), b - a - RUN_DOWN_HOPS)
            up = min(max(hops - b, 0.0), RUN_UP_HOPS)
            lost += down**2 / (2 * RUN_DOWN_HOPS) + stand + up - up**2 / (2 * RUN_UP_HOPS)
        return lost * HOP_S * float(SHAFT_HZ)

    def _drive(self, k: int) -> float:
        for a, b in self._stops:
            if a < k <= b:
                return 0.0
            if b < k < b + RUN_UP_HOPS:
                return 1 + 4 * (1 - (k - b) / RUN_UP_HOPS)
        return 1.0

    def _fault(self, k: int) -> float:
        if self._fault_hop is None or k <= self._fault_hop:
            return 0.0
        grown = min(1.0, (k - self._fault_hop) / self._growth_hops)
        return self._severity * self._speed(k) ** 2 * grown**2 * (3 - 2 * grown)

    def _wander(self, k: int) -> Doubles:
        knot, step = divmod(k, _KNOT_HOPS)
        for j in (knot, knot + 1):
            if j not in self._knots:
                self._knots = {i: v for i, v in self._knots.items() if i >= knot}
                self._knots[j] = self.random(KNOTS, j).standard_normal(LEVELS)
        x = step / _KNOT_HOPS
        weight = x * x * (3 - 2 * x)
        return (1 - weight) * self._knots[knot] + weight * self._knots[knot + 1]

    def _impulses(self, k: int, turns: tuple[float, float, float]) -> tuple[tuple[float, float], ...]:
        """When balls pass the defect during the hop: wherever the ball-pass phase is a whole number."""
        x = np.linspace(0.0, 1.0, 33)
        span = float(SHAFT_HZ * BALL_PASS) * HOP_S
        phase = base(SHAFT_HZ * BALL_PASS, k) + span * x + float(BALL_PASS) * at(turns, x)
        if phase[-1] - phase[0] < 1e-6:
            return ()  # it stands
        passes = np.arange(np.ceil(phase[0]), np.ceil(phase[-1]))
        random = self.random(IMPULSES, k)
        jitter = random.standard_normal(len(passes)) * _SLIP_JITTER / float(SHAFT_HZ * BALL_PASS)
        times = np.interp(passes, phase, x) * HOP_S + jitter
        strength = np.exp(0.15 * random.standard_normal(len(passes)))
        return tuple(zip(times.tolist(), strength.tolist(), strict=True))


def base(hz: Fraction, k: int) -> float:
    """The phase of a constant frequency at the start of hop k, in turns, modulo 1; exact."""
    return float(hz * k / 10 % 1)


def parabola(y0: float, y1: float, y2: float) -> tuple[float, float, float]:
    """Coefficients of the parabola through x = 0, 1/2, 1."""
    return y0, 4 * y1 - 3 * y0 - y2, 2 * y0 - 4 * y1 + 2 * y2


def at(c: tuple[float, float, float], x: Doubles) -> Doubles:
    """The parabola's values."""
    return (c[2] * x + c[1]) * x + c[0]
