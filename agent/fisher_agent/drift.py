"""Whether a machine's normal state has moved since it was enrolled: the age of its bank, the quantiles of its scores.

Pure. The scores of the last day that were under the limit are held against those that the enrolment gave itself, mode
by mode. A slow rise stays under the limit for weeks, and then floods: that is what this is to say beforehand.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fisher_agent.bankset import BankSet
from fisher_agent.stages import Scalar

Doubles = NDArray[np.float64]
DAY_NS = 86_400 * 10**9
LEAST_SCORES = 200  # of a mode: fewer say nothing of a day
RISEN = 1.25  # times the enrolled quantile, and over what chance makes of the enrolment's own median


@dataclass(frozen=True, slots=True)
class ModeDrift:
    """One mode: score quantiles of the last day and of the enrolment."""

    mode: str
    age_days: float
    scores: int  # of the last day, under the limit; fewer than LEAST_SCORES: the quantiles are -1
    median: float
    p90: float
    enrolled_median: float
    enrolled_p90: float

    @property
    def shift(self) -> float:
        """How far the median has moved, in units of the enrolled distance from median to 90 %; 0 where unknown."""
        if self.median < 0:
            return 0.0
        return (self.median - self.enrolled_median) / max(self.enrolled_p90 - self.enrolled_median, 0.02)

    @property
    def drifted(self) -> bool:
        """Whether half of a day lies where a tenth of the enrolment did, and a quarter over its median."""
        return self.median > max(self.enrolled_p90, RISEN * self.enrolled_median)

    @property
    def text(self) -> str:
        """One sentence; "" where nothing is to be said."""
        if self.drifted:
            return (
                f"normal running in mode {self.mode} has moved: median score {self.median:.2f} in the last day, "
                f"{self.enrolled_median:.2f} when it was enrolled {self.age_days:.0f} days ago; "
                "find out why, and enrol again if it is as it should be"
            )
        return ""


def of_modes(bank: BankSet, scores: Mapping[str, Sequence[float]], *, now_ns: int) -> tuple[ModeDrift, ...]:
    """Each mode of a version, given the scores of the last day by mode."""
    found = []
    for one in bank:
        normal = np.asarray([s for s in scores.get(one.mode, ()) if s < 1.0], np.float64)
        enough = len(normal) >= LEAST_SCORES
        found.append(
            ModeDrift(
                mode=one.mode,
                age_days=max(0.0, (now_ns - one.created_ns) / DAY_NS),
                scores=len(normal),
                median=_quantile(normal, 0.5) if enough else -1.0,
                p90=_quantile(normal, 0.9) if enough else -1.0,
                enrolled_median=_quantile(one.calibration, 0.5),
                enrolled_p90=_quantile(one.calibration, 0.9),
            )
        )
    return tuple(found)


def facts(drifts: Sequence[ModeDrift]) -> dict[str, Scalar]:
    """Flat facts of a machine, for `status`: the mode that has moved most stands for it."""
    if not drifts:
        return {"bank_age_days": -1.0, "drift": 0.0, "drift_mode": "", "drift_text": ""}
    worst = max(drifts, key=lambda d: d.shift)
    return {
        "bank_age_days": round(max(d.age_days for d in drifts), 3),
        "drift": round(worst.shift, 3),
        "drift_mode": worst.mode,
        "drift_text": " ".join(d.text for d in drifts if d.text),
    }


def _quantile(values: Doubles, q: float) -> float:
    return float(np.quantile(values, q)) if len(values) else -1.0
