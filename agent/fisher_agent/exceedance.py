"""How often normal running would raise an alarm: maxima over blocks of time, their conformal p-values, and their tail.

An alarm is raised where n of m verdicts in a row reach the limit, so what is looked at is the n-th largest ratio of
every m in a row. Windows overlap and those runs do too, so time is cut into blocks that are longer than both, and a
block is what counts as one observation: its maximum over blocks enrolled and new is exchangeable as long as the
machine stays as it was. Then (1 + number of enrolled maxima >= x) / (1 + n) bounds the probability that a new block
reaches x (Vovk et al. 2005, conformal p-values). Under 1 / (1 + n) nothing was seen: there the limit is an
extrapolation, with an exponential tail over the largest maxima (peaks over a threshold, Pickands 1975; the shape is
fixed at 0, which also bounds every lighter tail) and the upper confidence limit of its scale.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaincinv

from fisher_agent.budget import Budget, duration_words, rate_words
from fisher_agent.errors import BadFile

Doubles = NDArray[np.float64]

KEPT = 2048
"""Largest maxima that are kept: enough for 1 per 10 minutes over a week (1008), and for every tail."""
TAIL_SHARE, TAIL_LEAST, TAIL_MOST = 0.2, 10, 100
TAIL_CONFIDENCE = 0.95
HIGHEST = 1.25
"""Over the limit by margin: a tail of few blocks would ask for any limit, and a fault would have to be as large."""
LOOSEST = 1.25  # over the limit that was enrolled: what may creep in, slowly, while learning goes on


@dataclass(frozen=True, slots=True, eq=False)
class Blocks:
    """How many blocks of normal running were seen, and their largest maxima as ratios to channel limits."""

    count: int
    top: Doubles  # (min(count, KEPT),), largest first
    windows: int  # grid times in a block
    step_s: float  # from one to the next

    @property
    def block_s(self) -> float:
        """Seconds of one block."""
        return self.windows * self.step_s

    @property
    def finest_per_h(self) -> float:
        """The tightest rate of alarms that so many blocks support."""
        return 3600 / (self.block_s * (self.count + 1))

    def added(self, maxima: Sequence[float] | Doubles) -> "Blocks":
        """With the maxima of further blocks."""
        top = np.sort(np.concatenate([self.top, np.asarray(maxima, np.float64)]))[::-1][:KEPT]
        return Blocks(self.count + len(maxima), np.ascontiguousarray(top), self.windows, self.step_s)

    def p_value(self, x: float) -> float:
        """(1 + number of maxima >= x) / (1 + count); where x lies under all that are kept, 1."""
        if len(self.top) < self.count and (not len(self.top) or x <= self.top[-1]):
            return 1.0
        return (1 + int((self.top >= x).sum())) / (1 + self.count)

    def quantile(self, p: float) -> float:
        """The least limit whose conformal p-value, for what lies beyond it, is at most `p`; inf where p < 1/(1+n)."""
        rank = math.floor(p * (1 + self.count) * (1 + 1e-12))
        if rank < 1:
            return math.inf
        if rank > self.count:
            return 0.0
        # Beyond, not at it: a new maximum that ties with this one would count `rank` + 1.
        return float(np.nextafter(self.top[min(rank, len(self.top)) - 1], math.inf))

    def tail(self) -> tuple[float, float, float]:
        """Threshold, scale and the share of blocks over the threshold; the scale is inf where none can be told."""
        k = min(self.count - 1, len(self.top) - 1, max(TAIL_LEAST, min(TAIL_MOST, math.ceil(TAIL_SHARE * self.count))))
        if k < 1:
            return float(self.top[0]) if len(self.top) else 0.0, math.inf, 1.0
        threshold = float(self.top[k])
        # The sum of k exponential excesses over the scale is gamma distributed with shape k.
        scale = float((self.top[:k] - threshold).sum()) / float(gammaincinv(k, 1 - TAIL_CONFIDENCE))
        return threshold, scale, k / (1 + self.count)

    def extrapolated(self, p: float) -> float:
        """The limit that a block passes with probability `p`, by the tail; never under the largest maximum."""
        threshold, scale, share = self.tail()
        if not math.isfinite(scale):
            return math.inf
        return max(float(np.nextafter(self.top[0], math.inf)), threshold + scale * math.log(share / p))

    def expected(self, limit: float) -> float:
        """The probability that a block passes a limit: conformal where that was seen, else by the tail."""
        seen = self.p_value(limit)
        threshold, scale, share = self.tail()
        if seen * (1 + self.count) > 1 or not math.isfinite(scale):
            return seen
        if scale == 0:  # a signal that repeats exactly
            return 0.0
        return min(seen, share * math.exp(-(limit - threshold) / scale))


def sustained(ratios: Doubles, *, n: int, m: int) -> Doubles:
    """Ratios (k,) in order -> (k - m + 1,) the n-th largest of every m in a row: n of m reach a limit iff it does."""
    if len(ratios) < m:
        return np.zeros(0)
    runs = np.lib.stride_tricks.sliding_window_view(ratios, m)
    return np.asarray(np.partition(runs, m - n, axis=1)[:, m - n], np.float64)


def block_windows(*, memory_s: float, step_s: float, m: int) -> int:
    """Grid times in a block: the run of m that decides about an alarm, and the time that a window looks back."""
    return math.ceil(memory_s / step_s - 1e-9) + m


def cut(ratios: Doubles, *, n: int, m: int, windows: int, step_s: float) -> Blocks:
    """The blocks of a stretch of normal running; what is left over at its end lengthens the last ones."""
    found = sustained(ratios, n=n, m=m)
    parts = np.array_split(found, max(1, len(found) // windows)) if len(found) else []
    return Blocks(0, np.zeros(0), windows, step_s).added([float(part.max()) for part in parts])


@dataclass(frozen=True, slots=True, eq=False)
class Calibrated:
    """What a machine's limit rests on; stored with the bank, so that it can be set anew when more was seen."""

    budget: Budget
    blocks: Blocks
    margin_limit: float  # what other days ask for, whatever the budget
    enrolled_limit: float  # as it was first set
    least_apart: int  # grid times between two raises
    since_s: float = 0.0  # UTC of the enrolment

    @property
    def allowed(self) -> float:
        """Probability of a raise that a block may have."""
        return self.budget.per_block(self.blocks.block_s, windows=self.blocks.windows, least_apart=self.least_apart)

    @property
    def supported(self) -> bool:
        """Whether the budget follows from what was seen, without a tail."""
        return self.allowed * (1 + self.blocks.count) >= 1

    def limit(self, *, highest: float | None = None) -> float:
        """Of the largest channel ratio: what the budget asks for, never under the margin and never far over it."""
        wanted = self.blocks.quantile(self.allowed) if self.supported else self.blocks.extrapolated(self.allowed)
        return max(self.margin_limit, min(wanted, highest or HIGHEST * self.margin_limit))

    def expected_per_h(self, limit: float) -> float:
        """Raises in an hour of running at this limit, as far as they can be told."""
        return self.blocks.expected(limit) * -(-self.blocks.windows // self.least_apart) * 3600 / self.blocks.block_s

    def promise(self, limit: float) -> "Promise":
        """What an operator is told of it."""
        return Promise(
            asked_per_h=self.budget.per_h,
            supported_per_h=self.blocks.finest_per_h * -(-self.blocks.windows // self.least_apart),
            expected_per_h=self.expected_per_h(limit),
            blocks=self.blocks.count,
            block_s=self.blocks.block_s,
            limit=limit,
            margin_limit=self.margin_limit,
            supported=self.supported,
        )

    def tensors(self) -> dict[str, NDArray[Any]]:
        """As a bank stores it: as tensors, which agents from before there were budgets pass over."""
        facts = [
            self.budget.per_h, self.blocks.count, self.blocks.windows, self.blocks.step_s, self.margin_limit,
            self.enrolled_limit, self.least_apart, self.since_s,
        ]  # fmt: skip
        return {"budget.facts": np.asarray(facts, np.float64), "budget.top": self.blocks.top}

    @classmethod
    def read(cls, take: Callable[..., NDArray[Any]]) -> "Calibrated":
        """The reverse; `take` checks dtype and shape. BadFile for what no calibration can be."""
        per_h, count, windows, step_s, margin, enrolled, apart, since_s = take("budget.facts", np.float64, 8).tolist()
        top = take("budget.top", np.float64, None)
        counted = len(top) == min(count, KEPT) and windows >= 1 and apart >= 1 and step_s > 0
        if not counted or per_h <= 0 or margin <= 0 or (np.diff(top) > 0).any():
            raise BadFile("the bank's false-alarm budget does not fit together; restore it, roll back, or enrol again")
        blocks = Blocks(int(count), top, int(windows), step_s)
        return cls(Budget(per_h), blocks, margin, enrolled, int(apart), since_s)


@dataclass(frozen=True, slots=True)
class Promise:
    """What a limit promises of false alarms, and on what that rests. Rates are per hour of running."""

    asked_per_h: float
    supported_per_h: float
    expected_per_h: float  # at the limit that was set; by the tail where that many blocks were not seen
    blocks: int
    block_s: float
    limit: float
    margin_limit: float
    supported: bool

    @property
    def kept(self) -> bool:
        """Whether the limit that was set is expected to keep the budget."""
        return self.expected_per_h <= self.asked_per_h * (1 + 1e-9)

    @property
    def sentence(self) -> str:
        """As the report of an enrolment says it."""
        asked, supports = rate_words(self.asked_per_h), rate_words(self.supported_per_h)
        needed = duration_words(3600 / self.asked_per_h)
        if not self.kept:
            return (
                f"supports at most {supports}; {asked} is not kept: at the highest limit that may be set on so little "
                f"({self.limit:.2f}) {rate_words(self.expected_per_h)} is expected; enrol longer, or ask for less"
            )
        if self.supported:
            return f"at most {asked} asked; this enrolment supports at most {supports}"
        return (
            f"supports at most {supports}; {asked} is extrapolated; confirm after probation ({needed} of running would "
            "support it)"
        )
