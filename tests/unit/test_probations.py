"""A machine with operating modes: each mode's limit learns on by itself, and one version carries all of them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fakes import WINDOW, FakeEmbedder, bundle
from fisher_agent import probations, refining
from fisher_agent.bankfiles import BankFiles
from fisher_agent.banks import BankLibrary, Engine
from fisher_agent.codes import Quality
from fisher_agent.config import Config
from fisher_agent.errors import ConfigError
from fisher_agent.ledger import Model
from fisher_agent.probation import DAY_NS
from fisher_agent.stages import Verdict
from fisher_agent.store import Store
from learningplant import LearningPlant
from modal import FRONTEND, FULL, IDLE, RULED, heard
from unit.test_probation import ALARM

MACHINE = RULED.model_copy(update={"alarm": ALARM})
MODEL = Model("fake", "b", "trained", "fake", "f32", "CPU")


class Plant(LearningPlant):
    """A machine with two modes."""

    def __init__(self, folder: Path, store: Store) -> None:
        config = Config(site="s", edge="e", state_dir=folder, window=WINDOW, machines=(MACHINE,))
        files = BankFiles(folder / "banks")
        library = BankLibrary(config, files, Engine(bundle(), FRONTEND, FakeEmbedder(), MODEL))
        super().__init__(config, MACHINE, library=library, files=files, store=store)

    def limits(self) -> dict[str, float]:
        bank, _ = self.library.load(MACHINE)
        assert bank is not None
        return {b.mode: b.limit for b in bank}

    def see(self, mode: str, score: float, n: int = 1, **changes: Any) -> None:
        bank = self.live.probations[mode].bank
        for _ in range(n):
            one = Verdict("press-07", 0, score, 0.5, mode, True, True, None, 0.0, Quality.GOOD, bank=bank)
            self.live.judged(replace(one, **changes), fault_code=0, mono_s=0.0)


@pytest.fixture
async def plant(tmp_path: Path) -> Any:
    with Store.open(tmp_path / "state", max_outbox_bytes=10**6) as store:
        plant = Plant(tmp_path, store)
        plant.library.learn(MACHINE, heard((IDLE, 40.0), (FULL, 40.0)))
        await plant.use_bank("press-07")
        yield plant


def block(plant: Plant, mode: str) -> int:
    return plant.live.probations[mode].calibrated.blocks.windows


async def test_each_mode_is_on_probation_and_learns_its_own_verdicts(plant: Plant) -> None:
    assert set(plant.live.probations) == {"idle", "full"}
    plant.see("idle", 0.5, block(plant, "idle") + ALARM.delay[1] - 1)
    assert (plant.live.probations["idle"].learnt, plant.live.probations["full"].learnt) == (1, 0)
    before = plant.live.probations
    bank = before["idle"].bank
    other = Verdict("press-07", 0, 0.5, 0.5, "turbo", True, True, None, 0.0, Quality.GOOD, bank=bank)
    plant.live.judged(other, fault_code=0, mono_s=0.0)
    assert plant.live.probations is before


async def test_a_run_of_verdicts_does_not_reach_over_a_change_of_mode(plant: Plant) -> None:
    plant.see("idle", 0.9)
    assert plant.live.probations["idle"].recent
    plant.see("full", 0.5)
    assert not plant.live.probations["idle"].recent
    assert plant.live.probations["full"].recent
    plant.see("idle", 0.0, running=False)
    assert plant.live.probations["full"].recent, "what is not scored says nothing"


async def test_the_limits_of_both_modes_are_set_anew_in_one_version_and_a_restart_goes_on(plant: Plant) -> None:
    began, versions = plant.limits(), len(plant.files.versions("press-07"))
    strange = {m: p._learning([1.2 * began[m]] * 3) for m, p in plant.live.probations.items()}
    plant.live.probations = strange
    now_ns = max(p.refined_ns for p in strange.values()) + DAY_NS
    await refining.refine(plant, plant.live, now_ns=now_ns)  # type: ignore[arg-type]
    assert len(plant.files.versions("press-07")) == versions + 1
    assert all(limit > 1.01 * began[mode] for mode, limit in plant.limits().items())
    assert {m: p.limit for m, p in plant.live.probations.items()} == plant.limits()
    assert {p.bank for p in plant.live.probations.values()} == {plant.files.active("press-07")}
    facts = refining.facts(plant, plant.live, now_ns=now_ns)  # type: ignore[arg-type]
    assert facts["words"] == "probation, 6.0 days left"
    assert facts["learnt_blocks"] == 6
    assert "idle: " in facts["false_alarms"] and "full: " in facts["false_alarms"]
    assert {m: f["limit"] for m, f in facts["modes"].items()} == plant.limits()
    told = {mode: p.body for mode, p in plant.live.probations.items()}
    plant.restart()
    await plant.use_bank("press-07")
    assert {mode: p.body for mode, p in plant.live.probations.items()} == told


async def test_one_mode_alone_may_move(plant: Plant) -> None:
    began = plant.limits()
    now = plant.live.probations
    plant.live.probations = {**now, "full": now["full"]._learning([1.2 * began["full"]] * 3)}
    await refining.refine(plant, plant.live, now_ns=now["full"].refined_ns + DAY_NS)  # type: ignore[arg-type]
    assert plant.limits()["idle"] == began["idle"]
    assert plant.limits()["full"] > began["full"]
    assert plant.live.probations["idle"].bank == plant.files.active("press-07"), "it goes on with the new version"


async def test_a_mode_that_is_enrolled_again_begins_again_and_the_other_goes_on(plant: Plant) -> None:
    plant.see("idle", 0.5, block(plant, "idle") + ALARM.delay[1] - 1)
    plant.see("full", 0.5, block(plant, "full") + ALARM.delay[1] - 1)
    plant.library.learn(MACHINE, heard((FULL, 40.0), seed=3))
    await plant.use_bank("press-07")
    assert (plant.live.probations["idle"].learnt, plant.live.probations["full"].learnt) == (1, 0)


async def test_an_operator_ends_it_for_every_mode_or_calls_an_alarm_false_in_the_mode_it_stood_in(plant: Plant) -> None:
    plant.see("full", 1.2, 2 * block(plant, "full"))
    assert plant.live.alarms.anomaly.active
    occurrence = plant.live.alarms.anomaly.occurrence
    assert plant.live.probations["full"].pending
    with pytest.raises(ConfigError, match=f"no block of occurrence 99 waits .*those that do: {occurrence}"):
        await refining.confirm(plant, {"machine": "press-07", "false_alarm": 99})  # type: ignore[arg-type]
    request = {"machine": "press-07", "false_alarm": occurrence}
    assert "was false" in await refining.confirm(plant, request)  # type: ignore[arg-type]
    assert not plant.live.probations["full"].pending
    assert plant.live.probations["full"].learnt
    said = await refining.confirm(plant, {"machine": "press-07", "by": "ada"})  # type: ignore[arg-type]
    assert said.startswith("probation of press-07 is over; its limit is ")
    assert " in idle" in said and " in full" in said
    assert all(p.ended == "confirmed by ada" for p in plant.live.probations.values())
    with pytest.raises(ConfigError, match="press-07 is not on probation: confirmed by ada"):
        await refining.confirm(plant, {"machine": "press-07"})  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="is not on probation"):
        probations.confirmed({}, "press-07", "")
    with pytest.raises(ConfigError, match="is not on probation"):
        probations.called_false({}, "press-07", 1)


async def test_modes_that_were_taught_apart_are_refined_together(plant: Plant) -> None:
    began = plant.limits()
    now = {m: p._learning([1.2 * began[m]] * 3) for m, p in plant.live.probations.items()}
    later = replace(now["full"], refined_ns=now["full"].refined_ns + DAY_NS // 2)
    plant.live.probations = {**now, "full": later}
    versions = len(plant.files.versions("press-07"))
    for half in range(2, 6):  # two days
        now_ns = now["idle"].refined_ns + half * DAY_NS // 2
        await refining.refine(plant, plant.live, now_ns=now_ns)  # type: ignore[arg-type]
    assert all(limit > began[mode] for mode, limit in plant.limits().items())
    assert len(plant.files.versions("press-07")) == versions + 1
    assert len({p.refined_ns for p in plant.live.probations.values()}) == 1


async def test_a_rollback_ends_it_in_every_mode(plant: Plant) -> None:
    now, began = plant.live.probations, plant.limits()
    plant.live.probations = {**now, "full": now["full"]._learning([1.2 * began["full"]] * 3)}
    await refining.refine(plant, plant.live, now_ns=now["full"].refined_ns + DAY_NS)  # type: ignore[arg-type]
    plant.files.rollback("press-07")
    await plant.use_bank("press-07")
    assert {p.ended for p in plant.live.probations.values()} == {"an older bank judges"}


async def test_a_mode_with_another_name_takes_its_probation_along(plant: Plant) -> None:
    plant.see("idle", 0.5, block(plant, "idle") + ALARM.delay[1] - 1)
    plant.live.probations = probations.confirmed(plant.live.probations, "press-07", "ada")
    bank, _ = plant.library.load(MACHINE)
    assert bank is not None
    renamed = bank.renamed({"idle": "slow"}, version="v9")
    after = probations.followed(plant.live.probations, renamed, ALARM)
    assert {m: (p.learnt, p.ended) for m, p in after.items()} == {
        "slow": (1, "confirmed by ada"), "full": (0, "confirmed by ada"),
    }  # fmt: skip
