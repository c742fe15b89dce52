"""The alarm lifecycle: the table, the delays, acks, staleness; and the object that the outside sees."""

import pytest

from alarming import S, ack, feed, machine, raised, reading, verdict
from fisher_agent.alarmconfig import AlarmConfig
from fisher_agent.alarmobject import alarm_object, sentence
from fisher_agent.alarms import MachineAlarms
from fisher_agent.codes import Level, Quality, State
from fisher_agent.errors import BadFile
from fisher_agent.lifecycle import ACTIVE, CLEARS, INHIBITS, MOVES, RAISES, WAITING, Alarm, Event, step


def test_the_table_moves_between_base_states_only_and_reaches_them_all():
    base = {State.NORM, State.UNACK, State.ACKED, State.RTNUN, State.LATCHED}
    assert set(MOVES.values()) == base == {state for state, _ in MOVES}
    assert all(MOVES[s, e] is State.UNACK for s, e in MOVES if e in RAISES)
    assert not any(s in ACTIVE for s, e in MOVES if e is Event.RAISE)
    assert not any(MOVES[s, e] in ACTIVE for s, e in MOVES if e in CLEARS)
    assert not any(MOVES[s, Event.ACK] in WAITING for s, e in MOVES if e is Event.ACK)
    assert {e for _, e in MOVES} | set(INHIBITS) == set(Event)


def test_an_illegal_move_raises():
    with pytest.raises(KeyError):
        step(Alarm(machine="m", alarm="anomaly"), Event.ACK, t_ms=1)


def test_the_alarm_comes_after_the_on_delay_and_not_before():
    alarms = machine()
    assert feed(alarms, 1.0, 1.0, 0.99, 1.0, 1.0) == []
    assert feed(alarms, 1.0) == [(Event.RAISE, State.UNACK)]


def test_the_alarm_clears_after_the_off_delay_and_waits_for_an_ack():
    alarms = raised()
    assert feed(alarms, 0.5, 1.2, 0.5) == []
    assert feed(alarms, 0.5) == [(Event.CLEAR, State.RTNUN)]
    assert ack(alarms, 1).ok
    assert alarms.anomaly.state is State.NORM


def test_an_acked_alarm_goes_straight_to_normal():
    alarms = raised()
    (moved,) = ack(alarms, 1).transitions
    assert (moved.alarm.state, moved.alarm.by, moved.alarm.comment) == (State.ACKED, "kim", "seen")
    assert feed(alarms, 0.5, 0.5) == [(Event.CLEAR, State.NORM)]
    assert alarms.anomaly.acked


def test_onset_is_the_first_strange_window_and_raised_the_last_of_the_delay():
    alarms = machine()
    for t_s, score in ((1, 2.0), (2, 0.1), (3, 1.5), (4, 1.5), (5, 1.5), (6, 1.5)):
        alarms.verdict(verdict(score, t_s), fault_code=0)
    assert (alarms.anomaly.ts_onset, alarms.anomaly.ts_raised) == (3000, 5000)


def test_a_new_raise_is_a_new_occurrence_that_an_old_ack_cannot_reach():
    alarms = raised()
    feed(alarms, 0.5, 0.5)
    assert feed(alarms, 1.5, 1.5, 1.5) == [(Event.RAISE, State.UNACK)]
    refused = ack(alarms, 1)
    assert not refused.ok
    assert "not the latest, 2" in refused.error
    assert alarms.anomaly.state is State.UNACK
    assert not alarms.anomaly.acked
    assert ack(alarms, 2).ok


@pytest.mark.parametrize(("alarm_id", "occurrence"), [("anomaly", 0), ("anomaly", 7), ("nonsense", 1), ("stale-a", 0)])
def test_an_ack_of_what_never_was_is_refused_with_a_reason(alarm_id, occurrence):
    for alarms in (machine(), raised()):
        before = alarms.alarms
        result = ack(alarms, occurrence, alarm_id)
        assert not result.ok
        assert result.error
        assert alarms.alarms == before


def test_repeating_an_ack_is_a_no_op():
    alarms = raised()
    assert ack(alarms, 1).transitions
    before = alarms.alarms
    again = ack(alarms, 1)
    assert (again.ok, again.transitions) == (True, ())
    assert alarms.alarms == before
    feed(alarms, 0.5, 0.5)
    assert ack(alarms, 1).transitions == ()
    feed(alarms, 1.5, 1.5, 1.5)
    assert (alarms.anomaly.acked, alarms.anomaly.ts_acked, alarms.anomaly.by) == (False, 0, "")


@pytest.mark.parametrize("how", [{"running": False}, {"enrolled": False}])
def test_what_is_not_scored_neither_raises_nor_clears(how):
    alarms = machine()
    feed(alarms, 1.5, 1.5)
    assert Event.RAISE not in [e for e, _ in feed(alarms, 9.0, 9.0, 9.0, **how)]
    assert (Event.RAISE, State.UNACK) in feed(alarms, 1.5)
    assert Event.CLEAR not in [e for e, _ in feed(alarms, 0.0, 0.0, 0.0, **how)]
    assert alarms.anomaly.state is State.UNACK
    assert alarms.anomaly.score == 1.5


def test_a_score_that_is_no_number_counts_as_nothing():
    alarms = raised()
    assert feed(alarms, float("nan"), float("inf"), float("nan")) == []
    assert alarms.anomaly.score == 1.5


def test_bad_quality_hides_the_state_and_does_not_clear_it():
    alarms = raised()
    assert feed(alarms, 0.0, 0.0, 0.0, quality=Quality.BAD) == [(Event.LOST, State.UNKNOWN)]
    assert alarms.anomaly.quality == "bad"
    assert alarms.anomaly.active
    assert ack(alarms, 1).ok
    assert alarms.anomaly.state is State.UNKNOWN
    assert feed(alarms, 1.5, quality=Quality.PARTIAL) == [(Event.REGAINED, State.ACKED)]
    assert alarms.anomaly.quality == "partial"


def test_a_silent_channel_alarms_and_is_heard_again():
    alarms = machine()
    (moved,) = alarms.stale("a", 5 * S)
    assert (moved.alarm.alarm, moved.alarm.state, moved.alarm.occurrence) == ("stale-a", State.UNACK, 1)
    assert alarms.stale("a", 6 * S) == []
    assert alarms.is_stale("a")
    assert not alarms.anomaly.unknown
    (moved,) = alarms.fresh("a", 7 * S)
    assert moved.alarm.state is State.RTNUN
    assert (moved.alarm.ts_onset, moved.alarm.ts_raised, moved.alarm.ts_cleared) == (5000, 5000, 7000)
    assert alarms.fresh("a", 8 * S) == []


def test_the_anomaly_is_unknown_when_every_channel_is_silent():
    alarms = raised()
    alarms.stale("a", 5 * S)
    moves = alarms.stale("b", 5 * S)
    assert [(t.alarm.alarm, t.alarm.state) for t in moves] == [("stale-b", State.UNACK), ("anomaly", State.UNKNOWN)]
    assert alarms.level is Level.UNKNOWN
    assert feed(alarms, 0.1, 0.1, 0.1) == []  # a window from before the silence proves nothing
    alarms.fresh("b", 6 * S)
    assert feed(alarms, 1.5) == [(Event.REGAINED, State.UNACK)]


def test_level_follows_the_score():
    alarms = machine()
    assert alarms.level is Level.UNKNOWN
    seen = []
    for score in (0.5, 1.2, 1.2, 1.2, 2.0, 1.85, 1.75, 1.85, 2.1, 0.1, 0.1):
        feed(alarms, score)
        seen.append(int(alarms.level))
    assert seen == [0, 1, 1, 2, 3, 3, 2, 2, 3, 2, 0]


@pytest.mark.parametrize("how", [{"quality": Quality.BAD}, {"enrolled": False}])
def test_level_of_what_cannot_be_judged_is_unknown(how):
    alarms = raised()
    feed(alarms, 0.1, **how)
    assert alarms.level is Level.UNKNOWN


def test_a_stopped_machine_shows_no_advisory_but_keeps_its_alarm():
    alarms = machine()
    feed(alarms, 1.5)
    feed(alarms, 0.0, running=False)
    assert alarms.level is Level.NORMAL
    alarms = raised()
    feed(alarms, 0.0, running=False)
    assert alarms.level is Level.ALARM


def test_a_severe_raise_is_severe_at_once():
    alarms = machine()
    moves = [t for s in (3.0, 3.0, 3.0) for t in alarms.verdict(verdict(s), fault_code=0)]
    assert [(t.alarm.severe, t.alarm.severity, t.alarm.level) for t in moves] == [(True, 800, Level.SEVERE)]


def test_alarms_of_channels_that_left_the_configuration_are_cleared():
    alarms = machine()
    alarms.stale("a", 5 * S)
    later = machine(alarms.alarms, alarms.occurrence, channels=("b",))
    (moved,) = later.retire(6 * S)
    assert (moved.alarm.alarm, moved.alarm.state) == ("stale-a", State.RTNUN)
    assert later.retire(7 * S) == []
    later.stale("b", 8 * S)
    assert later.anomaly.unknown  # the channel that is gone has no say in this


def test_the_text_names_what_an_operator_needs():
    alarms = machine()
    seen = verdict(1.8, readings=(reading("b", 0.4), reading()), fault="misalignment", fault_confidence=0.8)
    for _ in range(3):
        alarms.verdict(seen, fault_code=2)
    expected = "press-07: anomaly, score 1.8 (limit 1.0); mostly vib-de at 2.8-3.5 kHz, +9 dB; fault misalignment (80%)"
    assert sentence(alarms.anomaly) == expected


KEYS = """\
schema id occurrence seq event machine alarm state state_code active acked shelved suppressed suppressed_by
out_of_service latched priority severity level
score p_value fault fault_code fault_confidence mode quality backend bank model ts ts_onset
ts_raised ts_acked ts_cleared by comment shelved_until top_channel top_share top_band_hz_low top_band_hz_high capture
capture_sha256 text""".split()  # noqa: SIM905


def test_the_alarm_object_has_every_key_with_one_type_in_every_state():
    names = {"site": "plant1", "edge": "edge-1", "backend": "openvino", "bank": "v1", "model": "m1"}
    fresh = machine()
    busy = raised()
    busy.verdict(verdict(2, readings=(reading(),), fault="x", fault_confidence=1.0), fault_code=2)
    busy.stale("a", 5 * S)
    lost = raised()
    feed(lost, 0.0, quality=Quality.BAD)
    objects = [alarm_object(a, **names) for m in (fresh, busy, lost) for a in m.alarms]
    assert all(list(o) == KEYS for o in objects)
    types = [{k: type(v) for k, v in o.items()} for o in objects]
    assert all(t == types[0] for t in types)
    assert set(types[0].values()) == {str, int, float}
    assert objects[0]["id"] == "plant1/edge-1/press-07/anomaly"
    assert [o["state"] for o in objects if o["alarm"] == "anomaly"] == ["NORM", "UNACK", "UNKNOWN"]
    assert [o["state_code"] for o in objects if o["alarm"] == "anomaly"] == [0, 1, -1]


@pytest.mark.parametrize("text", ["", "[]", "3", "{}", '{"machine":"m"}', '{"machine":"m","alarm":"a","base":77}'])
def test_what_is_no_alarm_is_refused(text):
    with pytest.raises(BadFile):
        Alarm.from_json(text)


def test_an_alarm_of_another_version_keeps_what_is_known():
    assert Alarm.from_json('{"machine":"m","alarm":"a","base":1,"invented":[1]}').state is State.UNACK


def test_a_priority_that_was_changed_takes_effect_on_a_stored_alarm():
    stored = raised().alarms
    assert MachineAlarms("press-07", ("a", "b"), AlarmConfig(priority=1), stored).anomaly.priority == 1
