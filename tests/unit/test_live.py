"""One machine from second to second: who is heard, when silence becomes an alarm, and which level is shown."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from fakes import CURRENT, PRESS, T0_NS, VIBRATION, frames, signal
from fisher_agent.alarms import MachineAlarms
from fisher_agent.codes import Level, Quality, State, Status
from fisher_agent.config import Config, MachineConfig
from fisher_agent.live import LEVEL_HOLD_S, LiveMachine
from fisher_agent.stages import ChannelReading, Frame, Verdict

CONFIG = Config.model_validate({"site": "s", "edge": "e", "window": {"length_s": 1.0, "hop_s": 0.5}})
STALE_S = 10.0  # the default: two windows, and at least this
UTC_NS = T0_NS


def machine(config: MachineConfig = PRESS, *, alarms: MachineAlarms | None = None, mono_s: float = 0.0) -> LiveMachine:
    lifecycle = alarms or MachineAlarms(config.id, [c.id for c in config.channels], config.alarm)
    return LiveMachine(config, CONFIG, lifecycle, mono_s=mono_s)


def hear(live: LiveMachine, *, mono_s: float, channel: str = "vib", t_ns: int = T0_NS, seconds: float = 0.5) -> None:
    config = live.config.channel(channel)
    samples = signal(config, seconds, seed=1)
    live.frame(Frame("press-07", channel, t_ns, config.rate_hz, samples), mono_s=mono_s, utc_ns=UTC_NS)


def reading(channel: str, *, flat: bool = False, clipped: bool = False) -> ChannelReading:
    return ChannelReading(
        channel=channel, distance=0.1, ratio=0.5, contribution=0.5, rms=1.0, peak=3.0, crest=3.0, kurtosis=3.0,
        velocity_rms_mm_s=None, flat=flat, clipped=clipped, bands=(1.0,), band_edges_hz=((0, 4000),), peak_band=None,
    )  # fmt: skip


def verdict(score: float = 0.5, *, t_s: float = 0.0, **changes: object) -> Verdict:
    plain = Verdict(
        machine="press-07", t_ns=T0_NS + round(t_s * 1e9), score=score, p_value=0.5, mode="default", running=True,
        enrolled=True, fault=None, fault_confidence=0.0, quality=Quality.GOOD, bank="v1",
    )  # fmt: skip
    return replace(plain, **changes)  # type: ignore[arg-type]


def raised(live: LiveMachine, *, mono_s: float, score: float = 1.5) -> None:
    for n in range(3):
        live.judged(verdict(score, t_s=n), fault_code=0, mono_s=mono_s)
        live.level(mono_s=mono_s)


def test_a_channel_is_stale_only_after_its_time_and_only_once() -> None:
    live = machine()
    assert live.tick(mono_s=STALE_S, utc_ns=UTC_NS) == []
    moves = live.tick(mono_s=STALE_S + 0.1, utc_ns=UTC_NS)
    # Both channels, and the anomaly, which nobody can judge any more.
    assert [(m.alarm.alarm, m.alarm.state) for m in moves] == [
        ("stale-vib", State.UNACK), ("stale-amp", State.UNACK), ("anomaly", State.UNKNOWN),
    ]  # fmt: skip
    assert live.tick(mono_s=STALE_S + 5, utc_ns=UTC_NS) == []
    assert live.all_stale
    assert live.statuses == {"vib": Status.STALE, "amp": Status.STALE}


def test_a_channel_that_speaks_is_not_stale_and_the_other_is() -> None:
    live = machine()
    hear(live, mono_s=9.0)
    moves = live.tick(mono_s=STALE_S + 1, utc_ns=UTC_NS)
    assert [m.alarm.alarm for m in moves] == ["stale-amp"]
    assert not live.all_stale
    assert live.statuses == {"vib": Status.OK, "amp": Status.STALE}


def test_a_channel_that_is_heard_again_clears_its_alarm() -> None:
    live = machine()
    live.tick(mono_s=STALE_S + 1, utc_ns=UTC_NS)
    hear(live, mono_s=20.0)
    moves = live.tick(mono_s=20.5, utc_ns=UTC_NS)
    assert [(m.alarm.alarm, m.alarm.state) for m in moves] == [("stale-vib", State.RTNUN)]
    assert not live.all_stale
    back = live.judged(verdict(), fault_code=0, mono_s=0.0)
    assert [(m.alarm.alarm, m.alarm.state) for m in back] == [("anomaly", State.NORM)]


def test_a_snapshot_channel_is_stale_after_three_periods() -> None:
    slow = VIBRATION.model_copy(update={"capture": "snapshot", "period_s": 600.0})
    live = machine(MachineConfig(id="press-07", channels=(slow,)))
    assert live.tick(mono_s=1800.0, utc_ns=UTC_NS) == []
    assert live.tick(mono_s=1801.0, utc_ns=UTC_NS)


def test_a_stale_alarm_from_before_a_restart_waits_for_the_channel_to_speak() -> None:
    live = machine()
    live.tick(mono_s=STALE_S + 1, utc_ns=UTC_NS)
    kept = MachineAlarms("press-07", ["vib", "amp"], PRESS.alarm, live.alarms.alarms, live.alarms.occurrence)
    again = machine(alarms=kept, mono_s=1000.0)
    assert again.all_stale
    assert again.tick(mono_s=1001.0, utc_ns=UTC_NS) == []  # no second raise, and no clearing by the start alone
    hear(again, mono_s=1002.0)
    moves = again.tick(mono_s=1002.5, utc_ns=UTC_NS)
    assert [(m.alarm.alarm, m.alarm.state, m.alarm.occurrence) for m in moves] == [("stale-vib", State.RTNUN, 1)]


def test_after_the_box_was_suspended_silence_proves_nothing() -> None:
    live = machine()
    hear(live, mono_s=1.0)
    live.resume(mono_s=5000.0)
    assert live.tick(mono_s=5000.0 + STALE_S, utc_ns=UTC_NS) == []
    assert live.tick(mono_s=5000.0 + STALE_S + 1, utc_ns=UTC_NS)


def test_when_all_are_silent_the_last_grid_times_are_judged_as_they_are() -> None:
    live = machine(MachineConfig(id="press-07", channels=(VIBRATION,)))
    made = []
    for frame in frames(VIBRATION, signal(VIBRATION, 3.2, seed=1)):
        made += live.frame(frame, mono_s=0.0, utc_ns=UTC_NS)
    assert live.flush_if_silent() == []
    waiting = live.gatherer.waiting_windows
    live.tick(mono_s=STALE_S + 1, utc_ns=UTC_NS)
    left = live.flush_if_silent()
    assert sum(len(m.windows) for m in left) == waiting
    assert live.flush_if_silent() == []
    assert live.gatherer.waiting_windows == 0


def test_a_level_rises_at_once() -> None:
    live = machine()
    live.judged(verdict(0.5), fault_code=0, mono_s=100.0)
    assert live.level(mono_s=100.0) is Level.NORMAL
    live.judged(verdict(1.5, t_s=1), fault_code=0, mono_s=100.0)
    assert live.level(mono_s=100.1) is Level.ADVISORY
    live.judged(verdict(1.5, t_s=2), fault_code=0, mono_s=100.0)
    live.judged(verdict(1.5, t_s=3), fault_code=0, mono_s=100.0)
    assert live.level(mono_s=100.2) is Level.ALARM
    live.judged(verdict(2.5, t_s=4), fault_code=0, mono_s=100.0)
    assert live.level(mono_s=100.3) is Level.SEVERE


def test_a_level_is_held_before_it_falls_for_hmis_look_every_three_seconds() -> None:
    live = machine()
    live.judged(verdict(1.5), fault_code=0, mono_s=100.0)
    assert live.level(mono_s=100.0) is Level.ADVISORY
    live.judged(verdict(0.5, t_s=1), fault_code=0, mono_s=100.0)
    assert live.level(mono_s=100.0 + LEVEL_HOLD_S - 0.1) is Level.ADVISORY
    assert live.level(mono_s=100.0 + LEVEL_HOLD_S) is Level.NORMAL
    assert LEVEL_HOLD_S >= 5


def test_a_level_that_comes_back_while_it_is_held_does_not_flutter() -> None:
    live = machine()
    shown = []
    for n in range(20):
        live.judged(verdict(1.5 if n % 2 else 0.5, t_s=n), fault_code=0, mono_s=100.0 + n)
        shown.append(live.level(mono_s=100.0 + n))
    assert shown[1:] == [Level.ADVISORY] * 4 + shown[5:]
    changes = [n for n in range(1, 20) if shown[n] is not shown[n - 1]]
    falls = [n for n in changes if shown[n] is Level.NORMAL]
    assert all(b - a >= LEVEL_HOLD_S for a, b in pairwise(falls))


def test_nothing_judged_yet_is_unknown_and_not_normal() -> None:
    live = machine()
    assert live.level(mono_s=0.0) is Level.UNKNOWN
    live.judged(verdict(enrolled=False, quality=Quality.BAD), fault_code=0, mono_s=0.0)
    assert live.level(mono_s=1.0) is Level.UNKNOWN


def test_a_silent_machine_is_unknown_even_if_its_alarm_was_active() -> None:
    live = machine()
    raised(live, mono_s=0.0)
    assert live.level(mono_s=0.5) is Level.ALARM
    live.tick(mono_s=STALE_S + 1, utc_ns=UTC_NS)
    assert live.level(mono_s=STALE_S + 1) is Level.UNKNOWN


def test_a_machine_that_is_heard_and_not_judged_any_more_is_unknown_until_it_is() -> None:
    live = machine()
    live.judged(verdict(), fault_code=0, mono_s=0.0)
    hear(live, mono_s=0.0)
    assert live.level(mono_s=10.0) is Level.NORMAL
    for second in range(1, 16):
        hear(live, mono_s=float(second), t_ns=T0_NS + second * 10**9)
        hear(live, mono_s=float(second), t_ns=T0_NS + second * 10**9, channel="amp")
        live.tick(mono_s=float(second), utc_ns=UTC_NS)
    assert not live.all_stale
    assert live.level(mono_s=13.0) is Level.NORMAL, "silence, a window, three hops, the lateness"
    assert live.level(mono_s=15.0) is Level.UNKNOWN
    live.judged(verdict(t_s=15.0), fault_code=0, mono_s=15.5)
    assert live.level(mono_s=25.0) is Level.NORMAL
    assert live.unjudged(mono_s=40.0)
    live.resume(mono_s=40.0)
    assert not live.unjudged(mono_s=40.0), "the box slept"


def test_how_long_a_machine_may_be_unjudged_follows_from_those_who_speak() -> None:
    slow = machine(PRESS.model_copy(update={"channels": (VIBRATION, CURRENT.model_copy(update={"stale_s": 1800.0}))}))
    slow.judged(verdict(), fault_code=0, mono_s=0.0)
    hear(slow, mono_s=0.0)
    hear(slow, mono_s=0.0, channel="amp")
    assert slow.unjudged(mono_s=20.0), "the fast channel should have given windows"
    slow.tick(mono_s=STALE_S + 1, utc_ns=UTC_NS)
    assert slow.status("vib") is Status.STALE
    assert not slow.unjudged(mono_s=600.0), "the other one speaks in bursts"


def test_a_stopped_machine_keeps_its_level() -> None:
    live = machine()
    raised(live, mono_s=0.0)
    live.judged(verdict(0.0, t_s=9, running=False), fault_code=0, mono_s=60.0)
    assert live.level(mono_s=60.0) is Level.ALARM


def test_the_word_for_a_channel_is_the_gravest_thing_known_of_it() -> None:
    live = machine()
    hear(live, mono_s=0.0)
    hear(live, mono_s=0.0, channel="amp")
    live.judged(
        verdict(readings=(reading("vib", flat=True, clipped=True), reading("amp", clipped=True))),
        fault_code=0,
        mono_s=0.0,
    )
    assert live.statuses == {"vib": Status.FLAT, "amp": Status.CLIPPED}
    hear(live, mono_s=0.0, t_ns=T0_NS + 5_000_000_000)
    assert live.status("vib") is Status.GAP
    live.frame(Frame("press-07", "vib", T0_NS, 4000.0, np.ones(400, np.float32)), mono_s=0.0, utc_ns=UTC_NS)
    assert live.status("vib") is Status.RATE_MISMATCH
    live.tick(mono_s=STALE_S + 1, utc_ns=UTC_NS)
    assert live.status("vib") is Status.STALE


def test_inputs_say_how_far_a_clock_is_off() -> None:
    live = machine()
    hear(live, mono_s=0.0, t_ns=UTC_NS - 3_600_000_000_000, seconds=0.5)
    assert live.inputs()["vib"]["clock_offset_ms"] == pytest.approx(-3_600_000 + 500)
    assert live.inputs()["vib"]["rate_hz"] == VIBRATION.rate_hz
    assert live.inputs()["amp"]["rate_hz"] == CURRENT.rate_hz


def test_a_channel_that_is_heard_but_never_judged_does_not_look_ok() -> None:
    live = machine()
    both, one = (reading("vib"), reading("amp")), (reading("vib"),)
    live.judged(verdict(readings=both), fault_code=0, mono_s=0.0)
    for n in range(2):
        live.judged(verdict(t_s=n + 1, readings=one), fault_code=0, mono_s=0.0)
    assert live.status("amp") is Status.OK, "a lost block or two is no reason"
    live.judged(verdict(t_s=3, readings=one), fault_code=0, mono_s=0.0)
    assert live.statuses == {"vib": Status.OK, "amp": Status.GAP}
    live.judged(verdict(t_s=4, readings=both), fault_code=0, mono_s=0.0)
    assert live.status("amp") is Status.OK


def test_a_verdict_from_before_a_reload_that_took_a_channel_out_is_taken() -> None:
    live = machine()
    live.judged(verdict(readings=(reading("vib"), reading("gone"))), fault_code=0, mono_s=0.0)
    assert live.verdicts == 1
