"""Whatever verdicts, commands and clocks do, in any order: no illegal state, nothing lost over a restart."""

from typing import Any

import hypothesis.strategies as st
from hypothesis import given, settings

from alarming import S, reading, tell, verdict
from fisher_agent.alarmconfig import AlarmConfig
from fisher_agent.alarms import MachineAlarms
from fisher_agent.codes import Quality, State
from fisher_agent.lifecycle import RAISES, Alarm, Event

IDS = ["anomaly", "unknown-mode", "flood", "stale-a", "stale-b", "sensor-a", "fault-x", "nix"]
VERBS = ["ack", "shelve", "unshelve", "suppress", "unsuppress", "out-of-service", "in-service"]
ACTS = st.one_of(
    st.tuples(
        st.just("verdict"),
        st.sampled_from([0.0, 0.5, 0.97, 1.0, 1.5, 2.0, 5.0, float("nan")]),
        st.sampled_from(list(Quality)),
        st.booleans(),
        st.booleans(),
        st.booleans(),
        st.sampled_from([None, "x", "unknown"]),
    ),
    st.tuples(
        st.just("verdict"),
        st.sampled_from([0.5, 1.5, 3.0]),
        *(st.just(fact) for fact in (Quality.GOOD, True, True, False, "x")),
    ),
    st.tuples(st.sampled_from(["stale", "fresh"]), st.sampled_from(["a", "b"])),
    st.tuples(st.just("sensor"), st.sampled_from(["a", "b"]), st.sampled_from(["", "flat"])),
    st.tuples(st.just("flood"), st.booleans()),
    st.tuples(st.just("maintenance"), st.booleans()),
    st.tuples(st.just("tick")),
    st.tuples(st.sampled_from(VERBS), st.sampled_from(IDS), st.integers(-1, 12), st.integers(-100, 7200)),
    st.tuples(st.sampled_from(VERBS), st.sampled_from(IDS), st.just("the latest"), st.integers(1, 7200)),
)
CONFIGS = st.builds(
    AlarmConfig,
    on_delay_windows=st.integers(1, 3),
    on_delay_of=st.sampled_from([None, 5]),
    off_delay_windows=st.integers(1, 3),
    deadband=st.sampled_from([0.0, 0.05]),
    latching=st.booleans(),
    realarm_h=st.sampled_from([0.0, 0.01]),
    max_shelve_h=st.just(1.0),
    suppress_when_stopped=st.booleans(),
)


def act(alarms: MachineAlarms, what: tuple[Any, ...], t_ns: int):
    match what:
        case ("verdict", score, quality, running, enrolled, unknown_mode, fault):
            facts = {"fault": fault, "fault_confidence": 0.9, "unknown_mode": unknown_mode}
            seen = verdict(
                score, t_ns / S, quality=quality, running=running, enrolled=enrolled, readings=(reading(),), **facts
            )
            return alarms.verdict(seen, fault_code=0)
        case ("stale", channel):
            return alarms.stale(channel, t_ns)
        case ("fresh", channel):
            return alarms.fresh(channel, t_ns)
        case ("sensor", channel, problem):
            return alarms.sensor(channel, problem, t_ns)
        case ("flood", on):
            return alarms.flood(on, t_ns)
        case ("maintenance", on):
            return alarms.maintenance(on, t_ns, by="x")
        case ("tick",):
            return alarms.tick(t_ns)
        case (verb, alarm_id, occurrence, seconds):
            if occurrence == "the latest":
                found = alarms.alarm(alarm_id)
                occurrence = found.occurrence if found else 0
            said = {"occurrence": occurrence, "until_ms": t_ns // 10**6 + seconds * 1000, "by": "x"}
            return list(tell(alarms, verb, alarm_id, t_ns, **said).transitions)


@settings(max_examples=300)
@given(CONFIGS, st.lists(st.tuples(ACTS, st.integers(-5, 100)), max_size=80))
def test_no_sequence_of_verdicts_commands_and_clocks_breaks_the_rules(config, script):
    def made(kept: tuple[Alarm, ...] = (), occurrence: int = 0) -> MachineAlarms:
        return MachineAlarms("press-07", ("a", "b"), config, kept, occurrence)

    alarms, t_ns = made(), 1000 * S
    seqs: dict[str, int] = {}
    raises = 0
    for what, seconds in script:
        t_ns += seconds * S  # a clock may go back
        # A process that ended here and was restored goes on in exactly the same way.
        restored = made(tuple(Alarm.from_json(a.to_json()) for a in alarms.alarms), alarms.occurrence)
        before = {a.alarm: a for a in alarms.alarms}
        moves = act(alarms, what, t_ns)
        assert act(restored, what, t_ns) == moves
        assert restored.alarms == alarms.alarms
        assert (restored.occurrence, restored.level) == (alarms.occurrence, alarms.level)
        for move in moves:
            alarm = move.alarm
            assert alarm.seq == seqs.get(alarm.alarm, 0) + 1
            seqs[alarm.alarm] = alarm.seq
            assert alarm.event == move.event
            if move.event in RAISES:
                raises += 1
                assert alarm.occurrence == raises
                assert not alarm.acked
            if move.event is Event.ACK:
                assert alarm.occurrence > 0
        assert alarms.occurrence == raises
        for alarm in alarms.alarms:
            assert alarm.base in (State.NORM, State.UNACK, State.ACKED, State.RTNUN, State.LATCHED)
            assert config.latching or alarm.base is not State.LATCHED
            shown = (alarm.out_of_service, alarm.suppressed_by, alarm.shelved_until, alarm.unknown)
            assert (alarm.state is alarm.base) == (not any(shown))
            assert alarm.state is alarm.base or alarm.state in (
                State.OOS,
                State.SUPPRESSED,
                State.SHELVED,
                State.UNKNOWN,
            )
            assert not alarm.acked or alarm.occurrence > 0
            assert alarm.acked or alarm.base is not State.ACKED
            assert (alarm.base is State.NORM) <= (alarm.occurrence == 0 or alarm.acked)
            assert alarm.seq == seqs.get(alarm.alarm, 0)
            old = before.get(alarm.alarm, alarm)
            changed = (alarm.base, alarm.state) != (old.base, old.state)
            assert changed <= (alarm.seq > old.seq)
            if any(move.alarm.alarm == alarm.alarm and move.event is Event.SHELVE for move in moves):
                assert t_ns // 10**6 < alarm.shelved_until <= t_ns // 10**6 + 3_600_000
