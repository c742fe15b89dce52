"""The daemon's look at drift, and what a maintenance stores."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fakes import WINDOW
from fisher_agent.alarms import MachineAlarms
from fisher_agent.config import Config
from fisher_agent.errors import BadFile, ConfigError
from fisher_agent.live import LiveMachine
from fisher_agent.machinejudge import MachineJudge
from fisher_agent.maintenance import LONGEST_MS, Window, maintenance
from fisher_agent.store import Store
from fisher_agent.storerows import Score
from fisher_agent.watching import look
from modal import FRONTEND, FULL, PLAIN, enrol, heard


@dataclass
class Plant:
    """What of an Agent is asked here, over a real store."""

    store: Store
    machines: dict[str, LiveMachine]
    pipeline: SimpleNamespace
    recordings: dict[str, list[Any]] = field(default_factory=dict)

    async def in_store(self, function: Callable[..., Any], *args: Any) -> Any:
        return function(*args)


@pytest.fixture
def plant(tmp_path: Path) -> Any:
    bank, _ = enrol(PLAIN, heard((FULL, 20)))
    config = Config.model_validate({"site": "s", "edge": "e", "window": WINDOW.model_dump()})
    live = LiveMachine(PLAIN, config, MachineAlarms("press-07", ["vib", "rpm"], PLAIN.alarm), mono_s=0.0)
    judge = MachineJudge(PLAIN, WINDOW, bank, frontend=FRONTEND)
    with Store.open(tmp_path, max_outbox_bytes=10**6) as store:
        yield Plant(store, {"press-07": live}, SimpleNamespace(judges={"press-07": judge}))


async def test_only_the_last_days_scores_by_the_present_version_say_whether_it_drifts(plant: Any) -> None:
    now_ns, live = time.time_ns(), plant.machines["press-07"]
    day_ns = 86_400 * 10**9

    def add(count: int, score: float, *, bank: str, ago_ns: int = 0) -> None:
        rows = [
            Score("press-07", now_ns - ago_ns - n * 10**9, score, 0.5, 0, 0, 0, "default", bank) for n in range(count)
        ]
        plant.store.add_scores(rows)

    add(300, 0.97, bank="v0")
    add(300, 0.97, bank="v1", ago_ns=2 * day_ns)
    await look(plant, "press-07")
    assert [d.scores for d in live.drift] == [0]
    add(300, 0.97, bank="v1")
    await look(plant, "press-07")
    assert [(d.scores, d.drifted) for d in live.drift] == [(300, True)]


async def test_a_maintenance_is_stored_before_it_is_open_and_its_end_can_be_moved(plant: Any) -> None:
    live, now_ms = plant.machines["press-07"], time.time_ns() // 1_000_000
    await maintenance(plant, "press-07", now_ms - 1, "anna")  # none is open: nothing ends
    assert (live.maintenance_until_ms, plant.store.meta("maintenance/press-07")) == (0, None)
    await maintenance(plant, "press-07", now_ms + 60_000, "anna")
    stored = Window.from_json(plant.store.meta("maintenance/press-07"))
    assert (live.maintenance_until_ms, stored.until_ms, stored.by) == (now_ms + 60_000, now_ms + 60_000, "anna")
    recording = live.maintenance
    assert plant.recordings == {"press-07": [recording]}
    await maintenance(plant, "press-07", now_ms + 90_000, "ben")
    assert live.maintenance is recording
    assert live.maintenance_until_ms == now_ms + 90_000
    await maintenance(plant, "press-07", 0, "ben")
    assert 0 < live.maintenance_until_ms < now_ms  # over at the next look


async def test_a_maintenance_of_nobody_or_for_ever_is_refused(plant: Any) -> None:
    with pytest.raises(ConfigError, match="not a machine"):
        await maintenance(plant, "other", 10**15, "anna")
    with pytest.raises(ConfigError, match="at most 7 days"):
        await maintenance(plant, "press-07", time.time_ns() // 1_000_000 + 2 * LONGEST_MS, "anna")


@pytest.mark.parametrize("text", ["", "x", "[]", '{"since_ms": 1}', '{"since_ms": "a", "until_ms": 1, "by": ""}'])
def test_a_stored_maintenance_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(BadFile, match="no maintenance"):
        Window.from_json(text)
