"""Metrics against values that scikit-learn gave, and against values worked out by hand."""

import numpy as np
import pytest

from fisher_models.errors import ModelError
from fisher_models.evaluate.metrics import Roc, accuracy, harmonic_mean, macro_f1, macro_recall, majority, per_group


def _example(seed: int, *, ties: bool) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = rng.random(150) < 0.4
    scores = rng.standard_normal(150) + truth
    return (np.round(scores) if ties else scores), truth


def test_auc_is_the_share_of_pairs_in_the_right_order() -> None:
    scores, truth = _example(0, ties=True)
    apart = scores[truth][:, None] - scores[~truth][None, :]
    assert Roc(scores, truth).auc() == pytest.approx(((apart > 0) + 0.5 * (apart == 0)).mean())


def test_partial_auc_of_a_perfect_and_of_a_blind_score() -> None:
    truth = np.arange(100) >= 50
    assert Roc(np.arange(100.0), truth).partial() == pytest.approx(1)
    assert Roc(np.zeros(100), truth).partial() == pytest.approx(0.5)
    # one of ten normal windows outranks all faults: nothing is found below a false positive rate of 0.1
    scores = np.array([9.0, *range(9), *[8.5] * 5])
    assert Roc(scores, np.arange(15) >= 10).partial() == pytest.approx(0.5 * (1 - 0.005 / 0.095))


# roc_auc_score of scikit-learn 1.9.1: the whole area, then up to false positive rates of 0.05, 0.1 and 0.5
SCIKIT_LEARN = {
    (0, False): (0.7377698554, 0.5209003052, 0.5494678467, 0.6742589292),
    (0, True): (0.7274707863, 0.5178595914, 0.5546525061, 0.6695220176),
    (1, False): (0.7587247689, 0.5089460624, 0.5420923560, 0.7170345218),
    (1, True): (0.7215619694, 0.5148907560, 0.5415980972, 0.6751630775),
}


@pytest.mark.parametrize(("seed", "ties"), SCIKIT_LEARN)
def test_areas_agree_with_scikit_learn(seed: int, ties: bool) -> None:
    roc = Roc(*_example(seed, ties=ties))
    found = (roc.auc(), *(roc.partial(max_fpr=max_fpr) for max_fpr in (0.05, 0.1, 0.5)))
    assert found == pytest.approx(SCIKIT_LEARN[seed, ties], abs=1e-9)


# f1_score(average="macro") and balanced_accuracy_score of scikit-learn 1.9.1
@pytest.mark.parametrize(("seed", "f1", "recall"), [(0, 0.1176271645, 0.1226817043), (1, 0.1856051419, 0.1803467001)])
def test_macro_metrics_agree_with_scikit_learn(seed: int, f1: float, recall: float) -> None:
    names = np.array(list("abcd"))
    truth, found = (names[np.random.default_rng(seed + i).integers(0, 4, 60)] for i in (0, 9))
    assert macro_f1(truth, found) == pytest.approx(f1, abs=1e-9)
    assert macro_recall(truth, found) == pytest.approx(recall, abs=1e-9)


def test_a_weight_counts_like_that_many_copies() -> None:
    scores, truth = _example(3, ties=True)
    weights = np.random.default_rng(0).integers(0, 3, len(truth))
    copies = np.repeat(np.arange(len(truth)), weights)
    weighted, copied = Roc(scores, truth), Roc(scores[copies], truth[copies])
    assert weighted.auc(weights.astype(float)) == pytest.approx(copied.auc())
    assert weighted.partial(weights.astype(float)) == pytest.approx(copied.partial())
    right, found = np.where(truth, "a", "b"), np.where(scores > 0, "a", "b")
    assert accuracy(right, found, weights.astype(float)) == pytest.approx(accuracy(right[copies], found[copies]))
    assert macro_recall(right, found, weights.astype(float)) == pytest.approx(
        macro_recall(right[copies], found[copies])
    )


def test_votes_go_to_what_was_met_first_when_they_are_equal() -> None:
    assert majority(["b", "a", "a", "b"]) == "b"
    assert majority(["b", "a", "a"]) == "a"
    groups = np.array(["r2", "r1", "r2", "r2"])
    assert per_group(np.array(["x", "y", "z", "z"]), groups) == {"r2": "z", "r1": "y"}


def test_a_harmonic_mean_is_zero_with_a_zero() -> None:
    assert harmonic_mean([0.5, 1.0]) == pytest.approx(2 / 3)
    assert harmonic_mean([0.5, 0.0]) == 0


def test_what_cannot_be_measured_is_refused() -> None:
    with pytest.raises(ModelError, match="one of them is missing"):
        Roc(np.arange(3.0), np.ones(3, bool)).auc()
    with pytest.raises(ModelError, match="NaN"):
        Roc(np.array([1.0, np.nan]), np.array([True, False]))
    with pytest.raises(ModelError, match="equally long"):
        Roc(np.arange(3.0), np.ones(2, bool))
    with pytest.raises(ModelError, match="max_fpr"):
        Roc(np.arange(2.0), np.array([True, False])).partial(max_fpr=0)
    with pytest.raises(ModelError, match="harmonic"):
        harmonic_mean([])
