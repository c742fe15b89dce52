from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fakes import running
from fisher_agent import refining
from fisher_agent.modeconfig import DEFAULT_MODE
from fisher_agent.probation import DAY_NS, OVER, Probation
from fisher_agent.store import Store
from learningplant import LearningPlant
from unit.test_probation import MACHINE, library


class Plant(LearningPlant):
    """A machine without modes."""

    def __init__(self, folder: Path, store: Store) -> None:
        banks, files = library(folder)
        super().__init__(banks._config, MACHINE, library=banks, files=files, store=store)

    @property
    def probation(self) -> Probation:
        (one,) = self.live.probations.values()
        return one

    @probation.setter
    def probation(self, now: Probation) -> None:
        self.live.probations = {DEFAULT_MODE: now}


@pytest.fixture
async def plant(tmp_path: Path) -> Any:
    with Store.open(tmp_path / "state", max_outbox_bytes=10**6) as store:
        plant = Plant(tmp_path, store)
        plant.library.learn(MACHINE, running(seconds=30))
        await plant.use_bank("press-07")
        yield plant


async def test_after_a_day_the_limit_that_was_learnt_judges_and_the_probation_goes_on_with_it(plant: Any) -> None:
    before = plant.judge.bank
    began = plant.probation
    strange = began._learning([1.2 * before.banks[0].limit] * 3)  # as if an operator had called an alarm false
    plant.probation = strange
    await refining.refine(plant, plant.live, now_ns=began.refined_ns + DAY_NS - 1)
    assert plant.judge.bank.version == before.version
    await refining.refine(plant, plant.live, now_ns=began.refined_ns + DAY_NS)
    after = plant.judge.bank
    assert after.banks[0].limit == pytest.approx(strange.calibrated.limit(highest=1.25 * before.banks[0].limit))
    assert after.banks[0].limit > 1.01 * before.banks[0].limit
    assert (plant.probation.bank, plant.probation.limit) == (after.version, after.banks[0].limit)
    assert plant.probation.learnt == strange.learnt
    assert refining.facts(plant, plant.live, now_ns=began.refined_ns)["words"] == "probation, 7.0 days left"
    # A second look on the same day makes no version; what was written is what goes on.
    await refining.refine(plant, plant.live, now_ns=began.refined_ns + DAY_NS + 10**9)
    assert plant.judge.bank.version == after.version
    body = plant.probation.body
    plant.live.probations = {}
    await plant.ledger.judged_with(plant.live, after)
    assert plant.probation.body == body


async def test_when_its_days_are_over_it_is_settled_and_says_nothing_more(plant: Any) -> None:
    end_ns = plant.probation.ends_ns
    await refining.refine(plant, plant.live, now_ns=end_ns)
    assert (plant.probation.ended, plant.probation.settled) == (OVER, True)
    assert refining.facts(plant, plant.live, now_ns=end_ns)["words"] == ""
    versions = plant.files.versions("press-07")
    await refining.refine(plant, plant.live, now_ns=end_ns + 9 * DAY_NS)
    assert plant.files.versions("press-07") == versions


async def test_a_rollback_ends_it_and_nothing_is_made_anew(plant: Any) -> None:
    began = plant.probation
    plant.probation = began._learning([1.2 * began.limit] * 3)
    await refining.refine(plant, plant.live, now_ns=began.refined_ns + DAY_NS)
    first = plant.files.rollback("press-07")
    await plant.use_bank("press-07")
    assert (first, plant.probation.ended) == (began.bank, "an older bank judges")
    await refining.refine(plant, plant.live, now_ns=began.refined_ns + 3 * DAY_NS)
    assert plant.judge.bank.version == first


async def test_an_enrolment_that_comes_first_is_not_taken_back(plant: Any) -> None:
    began = plant.probation
    plant.probation = began._learning([1.2 * began.limit] * 3)
    newer, _ = plant.library.learn(MACHINE, running(seconds=30, seed=4))  # and the daemon has not loaded it yet
    await refining.refine(plant, plant.live, now_ns=began.refined_ns + DAY_NS)
    assert plant.files.active("press-07") == newer.version
    await plant.use_bank("press-07")
    assert (plant.probation.bank, plant.probation.learnt) == (newer.version, 0)


async def test_a_forgotten_bank_is_on_no_probation(plant: Any) -> None:
    plant.files.forget("press-07")
    await plant.use_bank("press-07")
    assert refining.facts(plant, plant.live, now_ns=0) == {"words": "", "active": False}


async def test_a_damaged_row_is_declared_and_the_bank_begins_anew(plant: Any, tmp_path: Path) -> None:
    began = plant.probation
    await plant.in_store(plant.store.save_probation, "press-07/default", '{"broken": 1}', b"")
    plant.live.probations = {}
    await plant.ledger.judged_with(plant.live, plant.judge.bank)
    assert replace(plant.probation).body == began.body


async def test_what_was_written_before_modes_had_probations_of_their_own_goes_on(plant: Any) -> None:
    store, began = plant.store, plant.probation
    learnt = began._learning([0.9 * began.limit] * 5)
    store.save_probation("press-07/default", None, None)
    store.save_probation("press-07", learnt.body, learnt.top)
    plant.live.probations = {}
    await plant.ledger.judged_with(plant.live, plant.judge.bank)
    assert plant.probation.learnt == 5
    assert store.probation("press-07") is None
    plant.live.probations = {}
    await plant.ledger.judged_with(plant.live, plant.judge.bank)
    assert plant.probation.learnt == 5
