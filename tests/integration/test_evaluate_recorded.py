"""The evaluation harness against the figures published with the recordings: each within 0.03, or it is not trusted.

The recordings are not part of the repository: they are looked for in $FISHER_SHARED, or in `shared` beside the
checkout.
"""

import os
from pathlib import Path

import pytest

from fisher_models.evaluate.encoders import load_encoder
from fisher_models.evaluate.features import Store
from fisher_models.evaluate.fusion import contestant
from fisher_models.evaluate.judge import judge
from fisher_models.evaluate.local import LOCAL
from fisher_models.evaluate.report import TOLERANCE

DATA = Path(os.environ.get("FISHER_SHARED") or Path(__file__).parents[3] / "shared") / "data"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not DATA.is_dir(), reason=f"the recordings are not in {DATA}; set FISHER_SHARED"),
]


@pytest.fixture(scope="module")
def store() -> Store:
    return Store()


@pytest.mark.parametrize("name", LOCAL)
def test_the_indicators_reach_what_is_published(name: str, store: Store) -> None:
    protocol = LOCAL[name]
    one = contestant(protocol.reached_by, load_encoder)
    result = judge(protocol, [one], data=DATA, store=store, draws=2).results[one.name]
    assert result is not None
    found = {metric: result.metrics[metric] for metric in protocol.reached}
    assert found == pytest.approx(dict(protocol.reached), abs=TOLERANCE)


def test_an_untrained_model_hears_a_worn_bearing_of_a_known_kind(store: Store) -> None:
    judged = judge(LOCAL["cwru-load"], [contestant("fisher-tiny", load_encoder)], data=DATA, store=store, draws=20)
    result = judged.results["fisher-tiny"]
    assert result is not None
    assert result.metrics["accuracy"] > 0.5  # chance is 0.25
