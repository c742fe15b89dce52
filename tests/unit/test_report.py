"""What leaves the agent: flat objects of constant keys and types, points without NaN, topics in the promised order."""

import json
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes import T0_NS
from fisher_agent.alarmobject import alarm_object
from fisher_agent.codes import Level, Quality, State, Status
from fisher_agent.config import Config
from fisher_agent.lifecycle import Alarm
from fisher_agent.report import (
    Names,
    alarm_messages,
    alarm_point,
    as_json,
    fault_table,
    state_object,
    verdict_points,
)
from fisher_agent.stages import ChannelReading, Peak, Point, Verdict

NAMES = Names("plant1", "edge-1")
INPUTS = {"vib": {"rate_hz": 8000.0, "gaps": 1, "late": 2, "clock_offset_ms": -3.5}}
READING = ChannelReading(
    channel="vib", distance=0.2, ratio=1.6, contribution=1.0, rms=0.5, peak=2.0, crest=4.0, kurtosis=3.3,
    velocity_rms_mm_s=1.25, flat=False, clipped=True, bands=(0.75, 0.25),
    band_edges_hz=((0.0, 4000.0), (4000.0, 8000.0)), peak_band=Peak(2818.0, 3550.0, 12.5),
)  # fmt: skip
GOOD = Verdict(
    machine="press-07", t_ns=T0_NS, score=1.6, p_value=0.01, mode="default", running=True, enrolled=True,
    fault="outer race", fault_confidence=0.8, quality=Quality.GOOD, readings=(READING,),
    faults={"outer race": 0.8, "unknown": 0.2}, bank="v1",
)  # fmt: skip
BLANK = Verdict(
    machine="press-07", t_ns=T0_NS, score=0.0, p_value=1.0, mode=None, running=False, enrolled=False, fault=None,
    fault_confidence=0.0, quality=Quality.BAD,
)  # fmt: skip


def points(verdict: Verdict, *, fault_code: int = 2) -> dict[str, list[Point]]:
    made = verdict_points(
        NAMES, verdict, level=Level.ALARM, fault_code=fault_code, latency_ms=12.5, statuses={"vib": Status.CLIPPED},
        inputs=INPUTS,
    )  # fmt: skip
    by_name: dict[str, list[Point]] = {}
    for point in made:
        by_name.setdefault(point.measurement, []).append(point)
    return by_name


def state(verdict: Verdict) -> dict[str, object]:
    return dict(state_object(verdict, level=Level.ALARM, fault_code=2, model="b1"))


def test_topics_lie_under_prefix_site_and_edge() -> None:
    config = Config.model_validate({"site": "a", "edge": "b", "mqtt": {"prefix": "uns/x"}})
    assert Names.of(config).machine("m", "alarm", "anomaly") == "uns/x/a/b/m/alarm/anomaly"
    assert Names.of(config.model_copy(update={"mqtt": None})).base == "fisher/v1/a/b"
    assert NAMES.client_id("publisher") == "fisher-plant1-edge-1-publisher"


def test_a_state_has_the_same_keys_and_types_whatever_was_found() -> None:
    full, blank = state(GOOD), state(BLANK)
    assert {k: type(v) for k, v in full.items()} == {k: type(v) for k, v in blank.items()}
    assert None not in blank.values()


def test_a_state_says_what_was_found_and_where() -> None:
    found = state(GOOD)
    assert (found["top_channel"], found["top_band_hz_low"], found["top_band_hz_high"]) == ("vib", 2818.0, 3550.0)
    assert (found["level"], found["level_name"], found["ts"]) == (2, "alarm", T0_NS // 1_000_000)
    assert (found["running"], found["enrolled"], found["fault"]) == (1, 1, "outer race")


def test_a_state_that_was_not_scored_names_no_channel() -> None:
    found = state(replace(GOOD, running=False))
    assert (found["top_channel"], found["top_share"], found["top_band_hz_low"]) == ("", 0.0, -1.0)


@given(st.floats())
def test_no_number_can_break_a_document(value: float) -> None:
    document = json.loads(as_json({"a": value, "b": "ok"}), parse_constant=pytest.fail)
    assert document["b"] == "ok"
    assert document["a"] == (round(value, 6) if math.isfinite(value) else -1)


def test_text_is_utf_8_and_not_escaped() -> None:
    assert as_json({"by": 'Zoë "x"'}) == '{"by":"Zoë \\"x\\""}'.encode()


def test_the_table_of_faults_begins_with_the_two_fixed_codes() -> None:
    assert json.loads(fault_table({"outer race": 2})) == {"": 0, "unknown": 1, "outer race": 2}


def test_a_verdict_makes_a_point_of_every_measurement_that_has_a_source() -> None:
    made = points(GOOD)
    assert set(made) == {"fisher_score", "fisher_fault", "fisher_channel", "fisher_band"}
    assert all(p.t_ns == T0_NS for ps in made.values() for p in ps)
    (score,) = made["fisher_score"]
    assert dict(score.tags) == {"site": "plant1", "edge": "edge-1", "machine": "press-07", "mode": "default"}
    assert dict(score.fields) == {
        "score": 1.6, "p_value": 0.01, "level": 2, "fault_code": 2, "fault_confidence": 0.8, "running": 1,
        "quality_code": 0, "latency_ms": 12.5,
    }  # fmt: skip
    (channel,) = made["fisher_channel"]
    assert dict(channel.fields) == {
        "distance": 0.2, "contribution": 1.0, "rms": 0.5, "peak": 2.0, "crest": 4.0, "kurtosis": 3.3,
        "velocity_rms_mm_s": 1.25, "status_code": 3, "rate_hz": 8000.0, "gaps": 1, "late": 2, "clock_offset_ms": -3.5,
    }  # fmt: skip
    assert {dict(p.tags)["fault"]: dict(p.fields)["confidence"] for p in made["fisher_fault"]} == GOOD.faults


def test_a_band_is_tagged_in_hertz() -> None:
    made = {dict(p.tags)["band"]: dict(p.fields)["contribution"] for p in points(GOOD)["fisher_band"]}
    assert made == {"0-4000": 0.75, "4000-8000": 0.25}


def test_what_was_not_scored_writes_no_score_but_says_so() -> None:
    unscored = replace(GOOD, running=False, mode=None, faults={}, readings=(replace(READING, ratio=-1.0, bands=()),))
    made = points(unscored, fault_code=0)
    fields = dict(made["fisher_score"][0].fields)
    assert "score" not in fields and "p_value" not in fields
    assert fields["running"] == 0
    assert dict(made["fisher_score"][0].tags)["mode"] == "default"
    channel = dict(made["fisher_channel"][0].fields)
    assert "distance" not in channel and "contribution" not in channel and channel["rms"] == 0.5
    assert "fisher_band" not in made


def test_a_velocity_that_a_channel_does_not_have_is_left_out() -> None:
    made = points(replace(GOOD, readings=(replace(READING, velocity_rms_mm_s=None),)))
    assert "velocity_rms_mm_s" not in dict(made["fisher_channel"][0].fields)


def test_a_field_has_one_type_in_every_verdict() -> None:
    kinds: dict[tuple[str, str], set[type]] = {}
    for verdict in (GOOD, BLANK, replace(GOOD, running=False), replace(GOOD, quality=Quality.PARTIAL)):
        for name, made in points(verdict).items():
            for point in made:
                for key, value in point.fields:
                    kinds.setdefault((name, key), set()).add(type(value))
    assert all(len(found) == 1 for found in kinds.values()), kinds


def test_an_alarm_is_announced_before_its_state_and_the_journal() -> None:
    alarm = Alarm(machine="press-07", alarm="anomaly", base=State.UNACK, occurrence=3, seq=5, ts=1_795_000_000_123)
    document = alarm_object(alarm, site="plant1", edge="edge-1", backend="openvino", bank="v1", model="b1")
    body, state_code, event = alarm_messages(NAMES, document)
    assert (body.topic, body.qos, body.retain) == ("fisher/v1/plant1/edge-1/press-07/alarm/anomaly", 1, True)
    assert (state_code.topic, state_code.payload) == (f"{body.topic}/state", b"1")
    assert (event.topic, event.qos, event.retain) == ("fisher/v1/plant1/edge-1/press-07/event", 1, False)
    assert event.payload == body.payload
    point = alarm_point(NAMES, document)
    assert point.t_ns == 1_795_000_000_123_000_000
    assert dict(point.fields) == {"state_code": 1, "occurrence": 3, "priority": 2, "severity": 600}
    assert dict(point.tags)["alarm"] == "anomaly"
