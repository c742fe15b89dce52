"""What Prometheus scrapes: by its own parser, under its own naming rules, and never more series than are configured."""

import re
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import given
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from fisher_agent.page import access
from fisher_agent.page.exposition import CONTENT_TYPE, counter, gauge, render
from fisher_agent.stages import Message, Point
from pageplant import Plant, ask, running_plant
from private import private

MILL = "mill-01"
TOKEN = "0123456789abcdef-a-token"
BASE_UNITS = ("_seconds", "_bytes", "_total", "_info", "_code")
OTHER_UNITS = ("_ms", "_us", "_ns", "_mb", "_kb", "_percent", "_minutes", "_hours")
Labels = tuple[tuple[str, str], ...]


@pytest.fixture
async def plant(tmp_path: Path) -> AsyncIterator[Plant]:
    async with running_plant(tmp_path) as running:
        yield running


def parsed(body: bytes) -> dict[str, Metric]:
    found = list(text_string_to_metric_families(body.decode()))
    assert len({m.name for m in found}) == len(found), "a family stands once"
    return {m.name: m for m in found}


async def scrape(plant: Plant) -> dict[str, Metric]:
    answer = await ask(plant.port, "/metrics")
    assert (answer.status, answer.headers["content-type"]) == (200, [CONTENT_TYPE])
    return parsed(answer.body)


def values(metrics: dict[str, Metric], name: str) -> dict[Labels, float]:
    """Labels -> value; the parser leaves `_total` out of a counter's name."""
    return {tuple(sorted(s.labels.items())): s.value for s in metrics[name.removesuffix("_total")].samples}


def series(metrics: Iterable[Metric]) -> set[tuple[str, Labels]]:
    return {(s.name, tuple(sorted(s.labels.items()))) for m in metrics for s in m.samples}


async def test_what_the_agent_knows_is_told(plant: Plant) -> None:
    await plant.hop({MILL: 0.42})
    occurrence = await plant.raise_alarm("mill-02")
    assert occurrence
    plant.agent.store.add_points([Point("m", (), (("x", 1),), 5)])
    plant.agent.store.add_messages([Message("t", b"1"), Message("t", b"2")])
    metrics = await scrape(plant)
    assert values(metrics, "fisher_machine_score") == {(("machine", MILL),): 0.42, (("machine", "mill-02"),): 1.5}
    assert values(metrics, "fisher_machine_level") == {(("machine", MILL),): 0, (("machine", "mill-02"),): 2}
    assert values(metrics, "fisher_alarms_active")[(("machine", "mill-02"),)] == 1
    assert values(metrics, "fisher_alarms_unacknowledged")[(("machine", "mill-02"),)] == 1
    assert values(metrics, "fisher_alarms_active")[(("machine", MILL),)] == 0
    held = plant.agent.store.counters("mqtt").held
    assert values(metrics, "fisher_outbox_rows")[(("queue", "mqtt"),)] == held >= 2
    assert values(metrics, "fisher_outbox_bytes")[(("queue", "influx"),)] > 0
    assert values(metrics, "fisher_link_up")[(("link", "page"),)] == 1
    assert values(metrics, "fisher_windows_waiting") == {(): 0}
    assert values(metrics, "fisher_channel_status_code")[(("channel", "vib"), ("machine", MILL))] == 0
    assert values(metrics, "process_resident_memory_bytes")[()] > 10e6
    assert 5 < values(metrics, "process_open_fds")[()] <= values(metrics, "process_max_fds")[()]
    (model,) = (
        metrics["fisher_model_info"].samples if "fisher_model_info" in metrics else metrics["fisher_model"].samples
    )
    assert (model.labels["backend"], model.labels["precision"], model.value) == ("fake", "f32", 1)


async def test_counters_say_which_input_is_bad_and_why(plant: Plant) -> None:
    plant.agent.stats.count("rejected", 3, key=f"{MILL}/vib:length")
    plant.agent.stats.count("rejected", 2, key="shared/topic:json")
    plant.agent.stats.count("rejected", 1, key="plant:json")
    plant.agent.stats.count("rejected", 7, key="influx")
    plant.agent.stats.count("source_dropped", 5, key="plant")
    metrics = await scrape(plant)
    assert values(metrics, "fisher_messages_rejected_total") == {
        (("channel", "vib"), ("machine", MILL), ("reason", "length")): 3,
        (("channel", ""), ("machine", ""), ("reason", "json")): 3,
    }
    assert values(metrics, "fisher_source_dropped_total") == {(("source", "plant"),): 5}


async def test_what_is_wrong_is_counted_by_kind(plant: Plant) -> None:
    plant.agent.bank_problems.update({MILL: "of another bundle", "mill-02": "damaged"})
    plant.agent.store.notes.extend(["it was damaged", "an alarm could not be read"])
    metrics = await scrape(plant)
    found = values(metrics, "fisher_degradations")
    assert (found[(("kind", "bank"),)], found[(("kind", "store"),)]) == (2, 2)
    assert values(metrics, "fisher_degraded") == {(): 1}


async def test_names_and_units_follow_the_conventions(plant: Plant) -> None:
    """https://prometheus.io/docs/practices/naming/: base units, `_total` on counters and on nothing else."""
    await plant.hop({MILL: 0.42})
    plant.agent.stats.count("rejected", 3, key=f"{MILL}/vib:length")
    body = (await ask(plant.port, "/metrics")).body.decode()
    kinds = dict(re.findall(r"^# TYPE (\S+) (\S+)$", body, re.MULTILINE))
    helps = dict(re.findall(r"^# HELP (\S+) (.+)$", body, re.MULTILINE))
    assert kinds.keys() == helps.keys() and len(kinds) > 25
    for name, kind in kinds.items():
        assert re.fullmatch(r"(fisher|process)_[a-z0-9_]+", name)
        assert (kind == "counter") == name.endswith("_total"), name
        assert not name.removesuffix("_total").endswith(OTHER_UNITS), name
        assert helps[name].endswith("."), f"the help of {name} is a sentence"
    for family in parsed(body.encode()).values():
        assert all(re.fullmatch(r"[a-z_]+", label) for sample in family.samples for label in sample.labels)


async def test_nothing_that_arrives_makes_another_series(plant: Plant) -> None:
    """Occurrences, modes, versions, topics and machines that are not configured change values, never the series."""
    for machine in plant.machines:
        await plant.hop({machine: 0.5})
    plant.agent.stats.count("rejected", key="topic/0:json")
    before = series((await scrape(plant)).values())
    for n in range(5):
        await plant.raise_alarm(MILL)
        await plant.hop({MILL: 0.1 * n}, mode=f"mode-{n}", bank=f"v{n}")
        plant.agent.stats.count("rejected", key=f"topic/{n}:json")
        plant.agent.stats.count("rejected", key=f"mill-{n}/unheard:json")
        plant.agent.stats.count("source_dropped", key=f"gone-{n}")
        plant.agent.store.notes.append(f"note {n}")
    after = series((await scrape(plant)).values())
    assert after - before == {("fisher_degradations", (("kind", "store"),))}
    assert before <= after


async def test_a_scraper_needs_the_token_where_there_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "FIRST_DELAY_S", 0.001)
    private(tmp_path / "token", TOKEN + "\n")
    async with running_plant(tmp_path, page=f'token_file = "{tmp_path}/token"') as locked:
        for headers in ({}, {"Authorization": "Bearer wrong-wrong-wrong"}, {"Authorization": f"Basic {TOKEN}"}):
            assert (await ask(locked.port, "/metrics", headers=headers)).status == 401
        answer = await ask(locked.port, "/metrics", headers={"Authorization": f"Bearer {TOKEN}"})
        assert answer.status == 200
        assert "fisher_build" in answer.body.decode() and TOKEN not in answer.body.decode()
        assert (await ask(locked.port, "/metrics", method="POST")).status in (401, 403, 405)


async def test_a_disk_that_refuses_leaves_the_rest_to_be_seen(plant: Plant) -> None:
    act = plant.agent.store._points.execute
    await plant.agent.in_store(act, "ALTER TABLE counter RENAME TO hidden")
    try:
        metrics = await scrape(plant)
    finally:
        await plant.agent.in_store(act, "ALTER TABLE hidden RENAME TO counter")
    assert "fisher_outbox_rows" not in metrics and "fisher_machine_level" in metrics


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\r"), max_size=20)


@given(st.dictionaries(st.sampled_from(["a", "b"]), TEXT), st.floats(allow_nan=False), TEXT)
def test_any_text_survives_the_format(labels: dict[str, str], value: float, text: str) -> None:
    body = render([gauge("fisher_x", "x " + text + ".", (labels, value)), counter("fisher_y_total", "y.")])
    (family,) = text_string_to_metric_families(body.decode())
    (sample,) = family.samples
    assert (sample.labels, sample.value) == (labels, value)
