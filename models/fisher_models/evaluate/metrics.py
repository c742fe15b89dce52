"""What a protocol reports: accuracy, macro recall, macro F1, AUC and partial AUC; each with optional weights.

Weights are how often a row was drawn by a bootstrap, so that a resample costs a sum instead of a copy.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from fisher_models.errors import ModelError

Doubles = NDArray[np.float64]
Bools = NDArray[np.bool_]
Texts = NDArray[np.str_]

LOW_FPR = 0.1


class Roc:
    """The ROC curve of scores (n,), where higher is stranger; sorted once, measured for any weights."""

    def __init__(self, scores: NDArray[np.floating], truth: Bools) -> None:
        if scores.shape != truth.shape or scores.ndim != 1:
            raise ModelError(f"scores {scores.shape} and truth {truth.shape} must be one-dimensional and equally long")
        if not np.isfinite(scores).all():
            raise ModelError("a score is NaN or infinite; an encoder has failed on a window")
        self._order = np.argsort(-scores, kind="stable")
        ordered = scores[self._order]
        self._last = np.append(np.flatnonzero(np.diff(ordered)), len(ordered) - 1)  # of each group of equal scores
        self._positive = truth[self._order].astype(np.float64)

    def curve(self, weights: Doubles | None = None) -> tuple[Doubles, Doubles]:
        """(false positive rate, true positive rate), from (0, 0) to (1, 1). ModelError where one class is missing."""
        drawn = np.ones(len(self._order)) if weights is None else weights[self._order]
        hits = np.append(0.0, np.cumsum(drawn * self._positive)[self._last])
        alarms = np.append(0.0, np.cumsum(drawn * (1 - self._positive))[self._last])
        if not (hits[-1] > 0 and alarms[-1] > 0):
            raise ModelError("an AUC needs normal and anomalous windows; one of them is missing")
        return alarms / alarms[-1], hits / hits[-1]

    def auc(self, weights: Doubles | None = None) -> float:
        """The area under the curve: 0.5 is chance."""
        fpr, tpr = self.curve(weights)
        return float(np.trapezoid(tpr, fpr))

    def partial(self, weights: Doubles | None = None, *, max_fpr: float = LOW_FPR) -> float:
        """The area up to a false positive rate, standardised so that 0.5 is chance and 1 perfect (McClish, 1989)."""
        if not 0 < max_fpr <= 1:
            raise ModelError(f"max_fpr is {max_fpr:g}; it must lie between 0 and 1")
        fpr, tpr = self.curve(weights)
        inside = fpr <= max_fpr
        x, y = np.append(fpr[inside], max_fpr), np.append(tpr[inside], np.interp(max_fpr, fpr, tpr))
        if len(at := np.flatnonzero(fpr == max_fpr)):
            y[-1] = tpr[at[-1]]
        chance = max_fpr**2 / 2
        return float((1 + (np.trapezoid(y, x) - chance) / (max_fpr - chance)) / 2)


def accuracy(truth: Texts, found: Texts, weights: Doubles | None = None) -> float:
    """The share of rows that are right."""
    return float(np.average(truth == found, weights=weights))


def macro_recall(truth: Texts, found: Texts, weights: Doubles | None = None) -> float:
    """The mean over the classes that occur of the share found, which RMIS calls macro accuracy."""
    w = np.ones(len(truth)) if weights is None else weights
    classes = [c for c in np.unique(truth) if w[truth == c].sum() > 0]
    return float(np.mean([np.average(found[truth == c] == c, weights=w[truth == c]) for c in classes]))


def macro_f1(truth: Texts, found: Texts) -> float:
    """The mean of F1 over all classes that occur in the truth or were found; 0 for a class that was never right."""
    scores = []
    for one in np.union1d(truth, found):
        right = int(((truth == one) & (found == one)).sum())
        scores.append(2 * right / int((truth == one).sum() + (found == one).sum()))
    return float(np.mean(scores))


def majority(votes: Sequence[str]) -> str:
    """What most say; of equally many the one that is met first."""
    counts: dict[str, int] = {}
    for vote in votes:
        counts[vote] = counts.get(vote, 0) + 1
    return max(counts, key=lambda vote: counts[vote])  # dictionaries keep the order of meeting


def per_group(values: Texts, groups: Texts, reduce: Callable[[Sequence[str]], str] = majority) -> dict[str, str]:
    """One value for the rows of each group, such as a recording, in the order of meeting."""
    rows: dict[str, list[str]] = {}
    for group, value in zip(groups.tolist(), values.tolist(), strict=True):
        rows.setdefault(group, []).append(value)
    return {group: reduce(some) for group, some in rows.items()}


def harmonic_mean(values: Sequence[float]) -> float:
    """0 as soon as one value is."""
    if not values or min(values) < 0:
        raise ModelError("a harmonic mean is of one or more values that are not negative")
    return 0.0 if min(values) == 0 else len(values) / sum(1 / value for value in values)
