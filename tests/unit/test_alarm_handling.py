"""Delays and deadbands, shelving and suppression, sensors, modes, named faults, floods."""

import pytest

from alarming import CONFIG, S, ack, configured, feed, machine, raised, shelve, tell, verdict
from fisher_agent.alarmobject import sentence
from fisher_agent.alarms import MachineAlarms
from fisher_agent.codes import Level, State
from fisher_agent.lifecycle import Event, Reason

# Delays, deadband, latching, re-alarm.


def test_n_of_m_verdicts_raise_it_and_fewer_do_not():
    alarms = configured(on_delay_windows=3, on_delay_of=5)
    assert feed(alarms, 1.5, 0.1, 1.5, 0.1, 0.1, 1.5, 0.1) == []
    assert feed(alarms, 1.5, 1.5) == [(Event.RAISE, State.UNACK)]


def test_between_the_deadband_and_the_limit_an_alarm_neither_clears_nor_counts_on():
    alarms = configured(deadband=0.2)
    feed(alarms, 1.5, 1.5, 1.5)
    assert feed(alarms, 0.9, 0.85, 0.99, 0.81) == []
    assert feed(alarms, 0.79) == []
    assert feed(alarms, 0.9, 0.79) == [(Event.CLEAR, State.RTNUN)]


def test_a_latching_alarm_keeps_its_level_until_somebody_has_seen_it():
    alarms = configured(latching=True)
    feed(alarms, 1.5, 1.5, 1.5)
    assert feed(alarms, 0.1, 0.1) == [(Event.LATCH, State.LATCHED)]
    assert (alarms.level, alarms.anomaly.active) == (Level.ALARM, False)
    assert feed(alarms, 1.5, 1.5, 1.5) == [(Event.RAISE, State.UNACK)]
    feed(alarms, 0.1, 0.1)
    assert not ack(alarms, 1).ok
    assert ack(alarms, 2).ok
    assert (alarms.anomaly.state, alarms.level) == (State.NORM, Level.NORMAL)


def test_an_acknowledged_alarm_that_is_still_there_calls_again_as_a_new_occurrence():
    alarms = configured(realarm_h=1.0)
    feed(alarms, 1.5, 1.5, 1.5, t_s=1000)
    ack(alarms, 1)
    assert alarms.tick((2000 + 3599) * S) == []
    (moved,) = alarms.tick((2000 + 3600) * S)
    assert (moved.event, moved.alarm.state, moved.alarm.occurrence) == (Event.REALARM, State.UNACK, 2)
    assert moved.alarm.ts_onset == 1_000_000  # it began when it began
    assert not ack(alarms, 1).ok
    assert alarms.tick((2000 + 9000) * S) == []  # what waits already need not call again


# Shelving, suppression, out of service.


def test_a_shelved_alarm_goes_on_beneath_and_comes_back_by_itself():
    alarms = machine()
    assert shelve(alarms, 2600).ok
    assert feed(alarms, 1.5, 1.5, 1.5) == [(Event.RAISE, State.SHELVED)]
    assert (alarms.level, alarms.anomaly.occurrence, alarms.anomaly.active) == (Level.ADVISORY, 1, True)
    assert alarms.tick(2599 * S) == []
    (moved,) = alarms.tick(2600 * S)
    assert (moved.event, moved.alarm.state, moved.alarm.by) == (Event.UNSHELVE, State.UNACK, "time")
    assert alarms.level is Level.ALARM


@pytest.mark.parametrize(("until_s", "why"), [(1999, "ago"), (2000, "ago"), (2000 + 24 * 3600 + 1, "max_shelve_h")])
def test_shelving_ends_in_the_future_and_not_too_far(until_s, why):
    alarms = raised()
    before = alarms.alarms
    assert why in shelve(alarms, until_s).error
    assert alarms.alarms == before


def test_shelving_again_moves_the_end_and_repeating_it_does_nothing():
    alarms = raised()
    assert shelve(alarms, 2600).transitions
    assert (shelve(alarms, 2600).ok, shelve(alarms, 2600).transitions) == (True, ())
    assert shelve(alarms, 2700).transitions
    assert alarms.anomaly.shelved_until == 2_700_000


def test_a_clock_that_goes_back_does_not_shelve_for_years():
    alarms = raised()
    shelve(alarms, 2600)
    assert [t.event for t in alarms.tick(100 * S)] == [Event.UNSHELVE]


@pytest.mark.parametrize(
    ("on", "off", "state"), [("suppress", "unsuppress", State.SUPPRESSED), ("out-of-service", "in-service", State.OOS)]
)
def test_what_an_operator_puts_aside_is_shown_as_such_until_it_is_taken_back(on, off, state):
    alarms = raised()
    (moved,) = tell(alarms, on, by="kim", comment="bearing on order").transitions
    assert (moved.alarm.state, moved.alarm.by, moved.alarm.comment) == (state, "kim", "bearing on order")
    assert alarms.level is Level.ADVISORY
    assert (tell(alarms, on).ok, tell(alarms, on).transitions) == (True, ())
    assert tell(alarms, off).transitions
    assert (alarms.anomaly.state, alarms.level) == (State.UNACK, Level.ALARM)
    assert (tell(alarms, off).ok, tell(alarms, off).transitions) == (True, ())


def test_a_command_for_an_older_occurrence_is_refused_whatever_it_asks():
    alarms = raised()
    feed(alarms, 0.1, 0.1)
    feed(alarms, 1.5, 1.5, 1.5)
    for verb in ("shelve", "suppress", "out-of-service"):
        assert "not the latest, 2" in tell(alarms, verb, occurrence=1, until_ms=2_600_000).error


def test_alarms_of_a_machine_that_stands_are_suppressed_by_design_but_none_that_waits_or_holds():
    alarms = raised()
    alarms.sensor("a", "flat", 1000 * S)
    feed(alarms, 0.0, 0.0, 0.0, running=False)
    states = {a.alarm: a.state for a in alarms.alarms}
    assert (states["anomaly"], states["sensor-a"], states["stale-a"]) == (State.UNACK, State.UNACK, State.NORM)
    assert (states["sensor-b"], states["unknown-mode"]) == (State.SUPPRESSED, State.SUPPRESSED)
    assert alarms.level is Level.ALARM
    feed(alarms, 0.1)
    assert State.SUPPRESSED not in [a.state for a in alarms.alarms]


def test_without_the_setting_a_stop_suppresses_nothing():
    alarms = configured(suppress_when_stopped=False)
    assert feed(alarms, 0.0, 0.0, 0.0, running=False) == []


def test_two_reasons_to_suppress_must_both_end():
    alarms = machine()
    feed(alarms, 0.0, 0.0, running=False)
    tell(alarms, "suppress")
    feed(alarms, 0.1)
    assert (alarms.anomaly.state, alarms.anomaly.suppressed_by) == (State.SUPPRESSED, (Reason.OPERATOR,))


def test_maintenance_suppresses_what_verdicts_raise_and_nothing_else():
    alarms = machine()
    moved = alarms.maintenance(True, 1000 * S, by="kim")
    assert {t.alarm.alarm for t in moved} == {"anomaly", "unknown-mode"}
    assert feed(alarms, 1.5, 1.5, 1.5) == [(Event.RAISE, State.SUPPRESSED)]
    alarms.maintenance(False, 1001 * S, by="kim")
    assert alarms.anomaly.state is State.UNACK


# Sensors, modes, named faults, floods.


def test_a_bad_sensor_has_an_alarm_of_its_own():
    alarms = machine()
    (moved,) = alarms.sensor("a", "flat: all samples are equal", 5 * S)
    assert (moved.alarm.alarm, moved.alarm.state, moved.alarm.priority) == ("sensor-a", State.UNACK, 3)
    assert sentence(moved.alarm) == "press-07: the sensor a cannot be trusted: flat: all samples are equal"
    assert alarms.sensor("a", "noisy", 6 * S) == []
    assert alarms.anomaly.state is State.NORM
    (moved,) = alarms.sensor("a", "", 7 * S)
    assert moved.alarm.state is State.RTNUN


def test_an_unknown_mode_is_an_advisory_and_no_anomaly():
    alarms = machine()
    unknown = {"unknown_mode": True, "mode": "unknown"}
    assert feed(alarms, 9.0, 9.0, **unknown) == []
    moves = alarms.verdict(verdict(9.0, **unknown), fault_code=0)
    assert [(t.alarm.alarm, t.alarm.state, t.alarm.priority) for t in moves] == [("unknown-mode", State.UNACK, 4)]
    assert (alarms.level, alarms.anomaly.state) == (Level.ADVISORY, State.NORM)
    assert feed(alarms, 0.1, 0.1) == [(Event.CLEAR, State.RTNUN)]


def test_a_fault_that_is_named_surely_has_an_alarm_of_its_own():
    alarms = machine()
    named = {"fault": "misalignment", "fault_confidence": 0.8}
    feed(alarms, 1.5, 1.5, 1.5, **named)
    assert alarms.alarm("fault-misalignment").state is State.NORM  # the delay counts from the anomaly on
    assert feed(alarms, 1.5, 1.5, **named) == [(Event.RAISE, State.UNACK)]
    fault = alarms.alarm("fault-misalignment")
    assert (fault.occurrence, fault.fault) == (2, "misalignment")
    assert sentence(fault).startswith("press-07: looks like misalignment, score 1.5")
    assert [e for e, _ in feed(alarms, 0.1, 0.1)] == [Event.CLEAR, Event.CLEAR]


@pytest.mark.parametrize(
    "named", [{"fault": "x", "fault_confidence": 0.5}, {"fault": "unknown", "fault_confidence": 1}]
)
def test_a_fault_that_is_not_sure_or_unknown_has_none(named):
    alarms = machine()
    feed(alarms, *[1.5] * 10, **named)
    assert [a.alarm for a in alarms.alarms if a.alarm.startswith("fault-")] == []


def test_in_a_flood_the_alarms_of_a_machine_are_shown_as_one():
    alarms = MachineAlarms("press-07", tuple("abcd"), CONFIG)
    for channel in "abc":
        alarms.stale(channel, 5 * S)
    events = [(t.alarm.alarm, t.event) for t in alarms.flood(True, 6 * S)]
    assert events == [(f"stale-{c}", Event.SUPPRESS) for c in "abc"] + [("flood", Event.RAISE)]
    assert [a.alarm for a in alarms.alarms if a.waiting] == ["flood"]
    assert "stale-a, stale-b, stale-c" in sentence(alarms.alarm("flood"))
    alarms.stale("d", 7 * S)
    assert {t.alarm.alarm for t in alarms.flood(True, 8 * S)} >= {"stale-d"}
    assert alarms.flood(True, 9 * S) == []
    moves = alarms.flood(False, 10 * S)
    assert [a.alarm for a in alarms.alarms if a.waiting and a.alarm != "flood"] == [f"stale-{c}" for c in "abcd"]
    assert moves[-1].alarm.state is State.RTNUN


def test_a_flood_elsewhere_groups_nothing_of_a_machine_with_one_alarm():
    alarms = raised()
    assert alarms.flood(True, 6 * S) == []


def test_a_capture_belongs_to_its_occurrence():
    alarms = raised()
    before = alarms.anomaly.seq
    assert alarms.captured("anomaly", 1, capture="press-07/1", sha256="ab").capture == "press-07/1"
    assert alarms.anomaly.seq == before
    assert alarms.captured("anomaly", 7, capture="x", sha256="") is None
    feed(alarms, 0.1, 0.1)
    feed(alarms, 1.5, 1.5, 1.5)
    assert alarms.anomaly.capture == ""
