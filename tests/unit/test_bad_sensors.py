"""Bad sensors on the way through a machine: not enrolled, not compared, named, and believed after a while."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest

from fakes import (
    CURRENT,
    PRESS,
    SPEC,
    T0_NS,
    VIBRATION,
    WINDOW,
    FakeEmbedder,
    bundle,
    channel,
    machine,
    recording,
    signal,
)
from fisher_agent.alarms import MachineAlarms
from fisher_agent.bank import Bank
from fisher_agent.codes import Quality, Status
from fisher_agent.config import ChannelConfig, Config, MachineConfig
from fisher_agent.detect import Judge
from fisher_agent.enrolment import learn, learn_fault, rebuild
from fisher_agent.errors import NotLearnt
from fisher_agent.learnt import Report
from fisher_agent.live import LiveMachine
from fisher_agent.pipeline import Pipeline
from fisher_agent.stages import Floats, Moment, Verdict
from fisher_agent.survey import moments
from fisher_models.frontend import Frontend

FRONTEND = Frontend(SPEC)
RNG = np.random.default_rng(0)
WELL: Mapping[ChannelConfig, Floats] = {c: signal(c, 30.0, seed=1) for c in PRESS.channels}
VIB2 = channel("vib2", 8000, kind="vibration", unit="g")
TEMP = channel("temp", 2, kind="process", unit="degC")
Spoil = Callable[[Floats], Floats]


def enrolled(parts: Mapping[ChannelConfig, Floats], config: MachineConfig = PRESS) -> tuple[Bank, Report]:
    return learn(
        recording(parts), machine=config, window=WINDOW, bundle=bundle(), frontend=FRONTEND, embedder=FakeEmbedder(),
        version="v1", created_ns=0,
    )  # fmt: skip


@pytest.fixture(scope="module")
def bank() -> Bank:
    return enrolled(WELL)[0]


def verdicts(
    bank: Bank | None, parts: Mapping[ChannelConfig, Floats], config: MachineConfig = PRESS
) -> tuple[list[Verdict], list[Moment]]:
    made = list(moments(recording(parts, t_ns=T0_NS + 10**12), config, WINDOW))
    judges = {config.id: Judge(config, WINDOW, bank, frontend=FRONTEND)}
    return Pipeline(frontend=FRONTEND, judges=judges, embedder=FakeEmbedder()).process(made), made


def hum(x: Floats) -> Floats:
    t = np.arange(len(x)) / 8000
    return (0.5 * np.sin(2 * np.pi * 50.02 * t) + 0.002 * RNG.normal(size=len(x))).astype(np.float32)


def dead(x: Floats) -> Floats:
    return np.zeros_like(x)


def stuttering(x: Floats) -> Floats:
    return np.repeat(x[::4], 4)


def noise(x: Floats) -> Floats:
    return (10 * RNG.normal(size=len(x))).astype(np.float32)


def overdriven(x: Floats) -> Floats:
    return np.clip(4 * x, -1, 1).astype(np.float32)


def broken(x: Floats) -> Floats:
    return np.where(np.arange(len(x)) % 1000, x, np.nan).astype(np.float32)


SPOILT: Sequence[tuple[Spoil, Status]] = [
    (dead, Status.FLAT), (hum, Status.UNPLUGGED), (stuttering, Status.STUCK), (noise, Status.NOISY),
    (overdriven, Status.CLIPPED), (broken, Status.GAP),
]  # fmt: skip


@pytest.mark.parametrize(("spoil", "word"), SPOILT)
def test_a_bad_channel_is_named_and_the_machine_is_judged_by_the_others(bank: Bank, spoil: Spoil, word: Status) -> None:
    said, made = verdicts(
        bank, {VIBRATION: spoil(signal(VIBRATION, 6.0, seed=9)), CURRENT: signal(CURRENT, 6.0, seed=9)}
    )
    assert made
    for verdict in said:
        vib, amp = verdict.readings
        assert (vib.status, vib.ratio, amp.status) == (word, -1.0, Status.OK)
        assert vib.status_text
        assert (verdict.quality, verdict.scored, verdict.running) == (Quality.PARTIAL, True, True)
        assert f"vib is {word} ({vib.status_text})" in verdict.note
        assert verdict.score < 1.5, "a dead sensor is no failing machine"
        assert amp.ratio >= 0


@pytest.mark.parametrize(("spoil", "word"), [s for s in SPOILT if s[1] is not Status.UNPLUGGED])
def test_where_every_channel_is_bad_nothing_is_known(bank: Bank, spoil: Spoil, word: Status) -> None:
    said, _ = verdicts(bank, {c: spoil(signal(c, 6.0, seed=9)) for c in PRESS.channels})
    for verdict in said:
        if word is Status.NOISY:  # the clamp's own level counts as running
            assert all(r.status is word for r in verdict.readings)
        assert (verdict.quality, verdict.scored) == (Quality.BAD, False)


def test_where_nothing_is_enrolled_the_word_is_said_all_the_same() -> None:
    said, _ = verdicts(None, {VIBRATION: stuttering(WELL[VIBRATION][:40_000]), CURRENT: WELL[CURRENT][:20_000]})
    assert all([r.status for r in v.readings] == [Status.STUCK, Status.OK] for v in said)


def test_lightly_clipped_windows_are_scored(bank: Bank) -> None:
    x = signal(VIBRATION, 6.0, seed=9)
    said, _ = verdicts(bank, {VIBRATION: np.clip(x, -2.2, 2.2), CURRENT: signal(CURRENT, 6.0, seed=9)})
    assert all((v.readings[0].clipped, v.readings[0].status) == (True, Status.OK) for v in said)
    assert all(v.quality is Quality.GOOD for v in said)


def test_a_noisy_channel_does_not_make_a_standing_machine_run() -> None:
    config = machine(VIBRATION, VIB2)
    both, _ = enrolled({c: signal(c, 30.0, seed=1) for c in config.channels}, config)
    rest = (0.005 * RNG.normal(size=48_000)).astype(np.float32)
    said, _ = verdicts(both, {VIBRATION: noise(rest), VIB2: rest}, config)
    assert not any(v.running for v in said)
    assert all([r.status for r in v.readings] == [Status.NOISY, Status.OK] for v in said), (
        "standing still, not unplugged"
    )


def test_an_unplugged_channel_does_not_stop_a_machine_that_its_neighbours_hear(bank: Bank) -> None:
    config = machine(VIBRATION, VIB2)
    both, _ = enrolled({c: signal(c, 30.0, seed=1) for c in config.channels}, config)
    quiet = (0.05 * hum(np.zeros(48_000, np.float32))).astype(np.float32)
    said, _ = verdicts(both, {VIBRATION: quiet, VIB2: signal(VIB2, 6.0, seed=9)}, config)
    assert all(v.running and v.scored for v in said)
    assert all(v.readings[0].status is Status.UNPLUGGED for v in said)
    said, _ = verdicts(both, {VIBRATION: quiet, VIB2: quiet}, config)
    assert not any(v.running for v in said)
    assert all(r.status is Status.OK for v in said for r in v.readings), "it may simply stand still"


def test_a_value_that_stands_bit_by_bit_is_stuck_and_one_that_may_is_not() -> None:
    config = machine(CURRENT, TEMP)
    jitter = np.round(60 + 0.2 * np.random.default_rng(1).normal(size=130 * 2), 1).astype(np.float32)
    learnt, _ = enrolled({CURRENT: signal(CURRENT, 130.0, seed=1), TEMP: jitter}, config)
    usual_s = learnt.channel("temp").sensor.longest_hold_s  # type: ignore[union-attr]
    assert usual_s is not None and usual_s < 5
    values = np.concatenate([jitter, np.full(100 * 2, jitter[-1])])
    parts = {CURRENT: signal(CURRENT, 230.0, seed=9), TEMP: values}
    said, _ = verdicts(learnt, parts, config)
    words = [next(r.status for r in v.readings if r.channel == "temp") for v in said if len(v.readings) == 2]
    assert words[0] is Status.OK and words[-1] is Status.STUCK
    assert 130 + 60 <= (words.index(Status.STUCK) + 1) * 0.5 + 20 < 130 + 60 + 22
    climbing, _ = enrolled({CURRENT: signal(CURRENT, 130.0, seed=1), TEMP: np.sort(jitter)}, config)
    assert climbing.channel("temp").sensor.longest_hold_s is None  # type: ignore[union-attr]
    said, _ = verdicts(climbing, parts, config)
    assert all(r.status is Status.OK for v in said for r in v.readings)


# Enrolment -----------------------------------------------------------------------------------------------------------


def test_windows_of_a_bad_sensor_are_left_out_of_an_enrolment_and_named() -> None:
    vib = WELL[VIBRATION].copy()
    vib[16_000:40_000] = stuttering(vib[16_000:40_000])
    vib[80_000] = 1e20
    bank, report = enrolled({VIBRATION: vib, CURRENT: WELL[CURRENT]})
    (seen, _) = report.channels
    assert seen.bad.keys() == {"stuck", "noisy"}
    assert seen.flat == sum(seen.bad.values())
    assert any("of a bad sensor" in note and "stuck" in note and "vib" in note for note in report.too_little)
    assert len(bank.channel("vib").end_ns) == len(bank.channel("amp").end_ns) - seen.flat
    assert 0.5 < bank.channel("vib").median_rms < 2
    kept = bank.channel("vib").sensor
    assert kept is not None and kept.jumps == 0 and kept.colour > 0.3 and kept.hum_share < 0.5
    assert Bank.from_bytes(bank.to_bytes()).channel("vib").sensor == kept


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (stuttering, "is mostly stuck.*every value comes 4 times"),
        (overdriven, "is mostly clipped"),
        (broken, "no numbers"),
    ],
)
def test_an_enrolment_of_a_channel_that_is_mostly_bad_is_refused(spoil: Spoil, said: str) -> None:
    with pytest.raises(NotLearnt, match=f"press-07/vib.*{said}"):
        enrolled({VIBRATION: spoil(WELL[VIBRATION]), CURRENT: WELL[CURRENT]})


def test_what_a_channel_always_does_is_enrolled_as_its_way() -> None:
    """A press that stands between its strokes, heard by a coarse sensor: the same zero for half of every window."""
    strokes = WELL[VIBRATION].copy().reshape(-1, 4000)
    strokes[:, 2000:] = 0
    config = machine(VIBRATION)
    bank, report = enrolled({VIBRATION: strokes.ravel()}, config)
    assert report.channels[0].bad == {}
    kept = bank.channel("vib").sensor
    assert kept is not None and kept.longest_hold_s == pytest.approx(0.25, abs=0.01)
    later = signal(VIBRATION, 6.0, seed=9).reshape(-1, 4000)
    later[:, 2000:] = 0
    said, _ = verdicts(bank, {VIBRATION: later.ravel()}, config)
    assert all(r.status is Status.OK for v in said for r in v.readings)
    later = later.ravel()
    later[20_000:] = later[19_999]
    said, _ = verdicts(bank, {VIBRATION: later}, config)
    assert {r.status for r in said[-1].readings} == {Status.FLAT}


def test_a_fault_and_a_rebuilt_bank_leave_the_bad_windows_out_too(bank: Bank) -> None:
    vib = signal(VIBRATION, 20.0, seed=4, tone_hz=1500)
    vib[:40_000] = hum(vib[:40_000])
    keys = {"machine": PRESS, "window": WINDOW, "bundle": bundle(), "frontend": FRONTEND, "embedder": FakeEmbedder()}
    heard = recording({VIBRATION: vib, CURRENT: signal(CURRENT, 20.0, seed=4)})
    _, report = learn_fault(heard, bank=bank, fault="outer", version="v2", created_ns=0, **keys)  # type: ignore[arg-type]
    assert report.channels[0].bad.get("unplugged", 0) > 5
    vib = WELL[VIBRATION].copy()
    vib[:16_000] = stuttering(vib[:16_000])
    again, report = rebuild(
        recording({VIBRATION: vib, CURRENT: WELL[CURRENT]}),
        bank,
        version="v3",
        created_ns=0,
        **keys,  # type: ignore[arg-type]
    )
    assert report.channels[0].bad.keys() == {"stuck"}
    assert again.channel("vib").sensor is not None


def test_a_bank_from_before_judges_by_what_needs_no_enrolment(bank: Bank) -> None:
    old = replace(bank, channels=tuple(replace(c, sensor=None) for c in bank.channels))
    assert Bank.from_bytes(old.to_bytes()).channel("vib").sensor is None
    parts = {CURRENT: signal(CURRENT, 6.0, seed=9)}
    said, _ = verdicts(old, {VIBRATION: stuttering(signal(VIBRATION, 6.0, seed=9)), **parts})
    assert {v.readings[0].status for v in said} == {Status.STUCK}
    said, _ = verdicts(old, {VIBRATION: signal(VIBRATION, 6.0, seed=9), **parts})
    assert {v.quality for v in said} == {Quality.GOOD}


# From second to second -----------------------------------------------------------------------------------------------

CONFIG = Config.model_validate({"site": "s", "edge": "e", "window": {"length_s": 1.0, "hop_s": 0.5}})
LATER_NS = T0_NS + 10**12


def live(config: MachineConfig = PRESS) -> LiveMachine:
    return LiveMachine(
        config, CONFIG, MachineAlarms(config.id, [c.id for c in config.channels], config.alarm), mono_s=0.0
    )


def watched(
    bank: Bank, parts: Mapping[ChannelConfig, Floats], config: MachineConfig = PRESS
) -> tuple[LiveMachine, list[int]]:
    """The machine after all of it, and after which verdicts a sensor counted as bad."""
    seen, bad = live(config), []
    for n, verdict in enumerate(verdicts(bank, parts, config)[0]):
        seen.judged(verdict, fault_code=0, mono_s=0.0)
        if seen.sensor_states():
            bad.append(n)
    return seen, bad


@pytest.mark.parametrize(("spoil", "word"), SPOILT)
def test_a_sensor_that_stays_bad_is_believed_within_two_lengths_and_says_why(
    bank: Bank, spoil: Spoil, word: Status
) -> None:
    vib = signal(VIBRATION, 20.0, seed=9)
    vib[40_000:120_000] = spoil(vib[40_000:120_000])  # from 5 s to 15 s
    seen, bad = watched(bank, {VIBRATION: vib, CURRENT: signal(CURRENT, 20.0, seed=9)})
    assert bad
    assert 6.0 <= bad[0] * 0.5 + 1.0 <= 9.0
    assert bad == list(range(bad[0], bad[-1] + 1))
    assert 15.0 <= bad[-1] * 0.5 + 1.0 <= 19.0
    assert seen.sensor_states() == {} and seen.status("vib") is Status.OK
    seen, _ = watched(bank, {VIBRATION: vib[:112_000], CURRENT: signal(CURRENT, 14.0, seed=9)})
    ((where, (status, text)),) = seen.sensor_states().items()
    assert (where, status, bool(text)) == ("vib", word, True)
    assert seen.status("vib") is word


def test_one_knock_raises_nothing(bank: Bank) -> None:
    vib = signal(VIBRATION, 10.0, seed=9)
    vib[40_000] = 1e10
    _, bad = watched(bank, {VIBRATION: vib, CURRENT: signal(CURRENT, 10.0, seed=9)})
    assert bad == []


def test_a_machine_that_is_switched_off_has_no_bad_sensor(bank: Bank) -> None:
    parts = {}
    for config in PRESS.channels:
        x = signal(config, 30.0, seed=9)
        x[len(x) // 3 :] = 0
        parts[config] = x
    seen, bad = watched(bank, parts)
    assert bad == []
    assert seen.statuses == {"vib": Status.FLAT, "amp": Status.FLAT}
    assert seen.verdict is not None and seen.verdict.quality is Quality.BAD


def test_what_died_while_the_machine_ran_stays_bad_when_it_stops(bank: Bank) -> None:
    vib, amp = signal(VIBRATION, 30.0, seed=9), signal(CURRENT, 30.0, seed=9)
    vib[40_000:] = 0
    amp[len(amp) // 2 :] *= 0.001
    seen, _ = watched(bank, {VIBRATION: vib, CURRENT: amp})
    assert seen.verdict is not None and not seen.verdict.running
    assert seen.sensor_states() == {"vib": (Status.FLAT, "all samples are equal")}


def test_a_stale_channel_is_no_bad_sensor(bank: Bank) -> None:
    vib = signal(VIBRATION, 10.0, seed=9)
    vib[8000:] = 0
    seen, bad = watched(bank, {VIBRATION: vib, CURRENT: signal(CURRENT, 10.0, seed=9)})
    assert bad and seen.sensor_states()
    seen.tick(mono_s=30.0, utc_ns=LATER_NS)
    assert seen.status("vib") is Status.STALE
    assert seen.sensor_states() == {}
