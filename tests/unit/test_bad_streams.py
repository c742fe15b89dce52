"""Streams that go wrong over minutes, on the way through a machine: missing samples, clocks, other rates."""

from collections.abc import Callable

import numpy as np

from fakes import CURRENT, PRESS, VIBRATION, WINDOW, FakeEmbedder, machine, signal
from fisher_agent.clock import ArrivalClock
from fisher_agent.codes import Quality, Status
from fisher_agent.detect import Judge
from fisher_agent.live import LiveMachine
from fisher_agent.pipeline import Pipeline
from fisher_agent.stages import Frame, Moment
from unit.test_bad_sensors import CONFIG, FRONTEND, LATER_NS, WELL, enrolled, live


def heard(
    seen: LiveMachine,
    seconds: float,
    *,
    offset_s: float = 0.0,
    keeps: Callable[[int], bool] = lambda _: True,
    first: int = 0,
) -> None:
    """Both channels in blocks of a second, in real time, with a tick after each."""
    for k in range(first, first + round(seconds)):
        for config in PRESS.channels:
            if keeps(k) or config is CURRENT:
                t_ns = LATER_NS + k * 10**9 + (round(offset_s * 1e9) if config is VIBRATION else 0)
                samples = np.ones(round(config.rate_hz), np.float32)
                frame = Frame("press-07", config.id, t_ns, config.rate_hz, samples)
                seen.frame(frame, mono_s=k + 1.0, utc_ns=LATER_NS + (k + 1) * 10**9)
        seen.tick(mono_s=k + 1.0, utc_ns=LATER_NS + (k + 1) * 10**9)


def test_samples_that_are_missing_for_minutes_are_a_bad_sensor() -> None:
    seen = live()
    heard(seen, 100, keeps=lambda k: k % 5 != 2)
    assert (seen.status("vib"), seen.sensor_states()) == (Status.GAP, {})
    seen = live()
    heard(seen, 240, keeps=lambda k: k % 5 != 2)
    assert seen.sensor_states()["vib"][0] is Status.GAP
    assert "came" in seen.sensor_states()["vib"][1]
    heard(seen, 90, first=240)
    assert seen.sensor_states()["vib"][0] is Status.GAP, "it must be well for a while"
    heard(seen, 60, first=330)
    assert seen.sensor_states() == {}


def test_a_clock_that_is_off_is_a_bad_sensor_and_its_windows_count_all_the_same() -> None:
    stamped = machine(*(c.model_copy(update={"format": "fisher-frame/1"}) for c in PRESS.channels))
    seen = live(stamped)
    heard(seen, 240, offset_s=60.0)
    assert seen.sensor_states() == {"vib": (Status.CLOCK_DRIFT, "its clock is 60.0 s ahead of this box's")}
    assert seen.statuses == {"vib": Status.CLOCK_DRIFT, "amp": Status.OK}


def test_windows_of_a_channel_whose_rate_is_not_the_configured_one_do_not_score() -> None:
    """Where a format states no rate, it is counted; from then on the spectra are known to lie elsewhere."""
    seen = live()
    judge = Judge(PRESS, WINDOW, enrolled(WELL)[0], frontend=FRONTEND)
    pipeline = Pipeline(frontend=FRONTEND, judges={"press-07": judge}, embedder=FakeEmbedder())
    long = {c: signal(c, 12.0, seed=9) for c in PRESS.channels}
    clocks = {c: ArrivalClock(c.rate_hz) for c in PRESS.channels}
    came: list[Moment] = []
    for k in range(2400):  # blocks of a tenth of a second; a tenth more of vib arrives than is configured
        mono_s, utc_ns = (k + 1) / 10, LATER_NS + (k + 1) * 10**8
        for config, n in ((VIBRATION, 880), (CURRENT, 400)):
            samples = np.take(long[config], k * n + np.arange(n), mode="wrap")
            t_ns, gap = clocks[config].stamp(n, mono_ns=round(mono_s * 1e9), utc_ns=utc_ns)
            frame = Frame("press-07", config.id, t_ns, config.rate_hz, samples, gap=gap)
            came += seen.frame(frame, mono_s=mono_s, utc_ns=utc_ns)
        seen.tick(mono_s=mono_s, utc_ns=utc_ns)
    assert seen.sensor_states()["vib"][0] is Status.RATE_MISMATCH
    assert not came[0].distrusted
    assert came[-1].distrusted == {"vib": seen.sensor_states()["vib"]}
    before, now = pipeline.process(came[:1]) + pipeline.process(came[-1:])
    assert before.readings[0].ratio >= 0
    vib, amp = now.readings
    assert (vib.channel, vib.status, vib.ratio) == ("vib", Status.RATE_MISMATCH, -1.0)
    assert amp.ratio >= 0
    assert (now.running, now.quality) == (True, Quality.PARTIAL)
    assert "vib is rate-mismatch" in now.note
    # What was known stands until the rate was counted again, after a pause and after a restart.
    seen.resume(mono_s=241.0)
    again = LiveMachine(PRESS, CONFIG, seen.alarms, mono_s=0.0)
    for machine_, first_s in ((seen, 241.0), (again, 0.0)):
        for k in range(100):
            mono_s, utc_ns = first_s + k + 1, LATER_NS + (241 + k) * 10**9
            frame = Frame("press-07", "vib", utc_ns, 8000.0, np.ones(8800, np.float32))
            machine_.frame(frame, mono_s=mono_s, utc_ns=utc_ns)
            machine_.tick(mono_s=mono_s, utc_ns=utc_ns)
        assert machine_.sensor_states()["vib"][0] is Status.RATE_MISMATCH


def test_another_stated_rate_is_a_bad_sensor_after_a_while() -> None:
    seen = live()
    for k in range(60):
        for config in PRESS.channels:
            samples = np.ones(round(config.rate_hz), np.float32)
            frame = Frame(
                "press-07", config.id, LATER_NS + k * 10**9, config.rate_hz / (1 + (config is VIBRATION)), samples
            )
            seen.frame(frame, mono_s=k + 1.0, utc_ns=LATER_NS + (k + 1) * 10**9)
        seen.tick(mono_s=k + 1.0, utc_ns=LATER_NS + (k + 1) * 10**9)
        if k < 25:
            assert seen.sensor_states() == {}
    assert seen.sensor_states() == {"vib": (Status.RATE_MISMATCH, "4000 Hz is stated, 8000 configured")}
