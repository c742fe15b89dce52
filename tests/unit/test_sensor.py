"""A bad sensor is told from a failing machine: real recordings degraded, real faults left alone, any input survived."""

import warnings
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fakes import channel, signal
from fisher_agent.codes import Status
from fisher_agent.config import ChannelConfig
from fisher_agent.gate import level_of
from fisher_agent.recordings import demo_recordings
from fisher_agent.sensor import CLIPPED_MASSIVE, FINE, Finding, Reference, because, check
from fisher_agent.sources.synthetic import RotatingMachine
from fisher_agent.stages import Floats
from fisher_agent.traits import Traits, measure, traits_of

RATE_HZ = 12_800.0
SENSOR = "current_high_res"
AMP = channel("amp", RATE_HZ, kind="current", unit="A")
AS_VIBRATION = channel("vib", RATE_HZ, kind="vibration", unit="g")  # the same samples, where hum is not the signal
TEMP = channel("temp", 1.0, kind="process")
T = np.arange(round(RATE_HZ)) / RATE_HZ
Spoil = Callable[[Floats, np.random.Generator], Floats]


@cache
def recordings(*, healthy: bool) -> tuple[Floats, ...]:
    """Seconds of a real motor's current, as they travel with the package."""
    out = []
    for file in demo_recordings():
        if (file.label == "aligned") == healthy:
            column = file.channels[SENSOR]
            stored, _ = soundfile.read(file.path, dtype="int16", always_2d=True)
            out.append((stored[:, int(column.column)] * (column.scale or 1.0)).astype(np.float32))
    return tuple(out)


def reference_of(windows: tuple[Floats, ...], config: ChannelConfig) -> Reference:
    levels = [level_of(config, w) for w in windows]
    seen = [measure(w, config.rate_hz, level=n, config=config) for w, n in zip(windows, levels, strict=True)]
    return Reference(float(np.median([n.rms for n in levels])), traits_of(seen))


def looked_at(
    samples: Floats, config: ChannelConfig, reference: Reference | None = None, *, still_s: float = 0.0
) -> Finding:
    level = level_of(config, samples)
    return check(samples, config.rate_hz, level=level, config=config, reference=reference, still_s=still_s)


def rms(samples: Floats) -> float:
    return float(np.std(samples, dtype=np.float64))


def hum(x: Floats, rng: np.random.Generator) -> Floats:
    lines = sum(a * np.sin(2 * np.pi * 50.07 * k * T + k) for k, a in ((1, 0.3), (2, 0.02), (3, 0.1), (5, 0.04)))
    return (rms(x) * (lines + 0.002 * rng.normal(size=len(x)))).astype(np.float32)


def hum_60(x: Floats, rng: np.random.Generator) -> Floats:
    return (rms(x) * (2 * np.sin(2 * np.pi * 59.93 * T) + 0.01 * rng.normal(size=len(x)))).astype(np.float32)


def floor_only(x: Floats, rng: np.random.Generator) -> Floats:
    return (0.005 * rms(x) * rng.normal(size=len(x))).astype(np.float32)


def stuck(x: Floats, rng: np.random.Generator) -> Floats:
    out = x.copy()
    out[int(0.7 * len(x)) :] = out[int(0.7 * len(x))]
    return out


def stairs(x: Floats, rng: np.random.Generator) -> Floats:
    return np.repeat(x[::8], 8)[: len(x)]


def loud_noise(x: Floats, rng: np.random.Generator) -> Floats:
    return (x + 6 * rms(x) * rng.normal(size=len(x))).astype(np.float32)


def contact(x: Floats, rng: np.random.Generator) -> Floats:
    out = x.copy()
    for at in rng.choice(len(x) - 400, 12, replace=False):
        out[at : at + 300] += np.float32(4 * rms(x))
    return out


def spikes(x: Floats, rng: np.random.Generator) -> Floats:
    out = x.copy()
    out[rng.choice(len(x), 30, replace=False)] += np.float32(8 * rms(x))
    return out


def garbage(x: Floats, rng: np.random.Generator) -> Floats:
    out = x.copy()
    out[len(x) // 3] = 1e30
    return out


def holes(x: Floats, rng: np.random.Generator) -> Floats:
    out = x.copy()
    out[1000:1010] = np.nan
    return out


@pytest.mark.parametrize(
    ("spoil", "word"),
    [
        (lambda x, _: np.full_like(x, 0.25), Status.FLAT),
        (floor_only, Status.UNPLUGGED),
        (stuck, Status.STUCK),
        (stairs, Status.STUCK),
        (loud_noise, Status.NOISY),
        (contact, Status.NOISY),
        (spikes, Status.NOISY),
        (garbage, Status.NOISY),
        (holes, Status.GAP),
    ],
)
def test_every_spoilt_window_is_called_by_its_name(spoil: Spoil, word: Status) -> None:
    healthy = recordings(healthy=True)
    reference = reference_of(healthy, AS_VIBRATION)
    for n, x in enumerate(healthy):
        found = looked_at(spoil(x, np.random.default_rng(n)), AS_VIBRATION, reference)
        assert found.status is word, found
        assert found.text


@pytest.mark.parametrize("spoil", [hum, hum_60, floor_only])
@pytest.mark.parametrize("loud", [0.1, 1.0, 5.0])
def test_hum_alone_is_no_vibration_however_loud(spoil: Spoil, loud: float) -> None:
    healthy = tuple(signal(AS_VIBRATION, 1.0, seed=n) for n in range(5))
    reference = reference_of(healthy, AS_VIBRATION)
    for n, x in enumerate(healthy):
        picked_up = (min(loud, 1.0 if spoil is floor_only else loud) * spoil(x, np.random.default_rng(n))).astype(
            np.float32
        )
        assert looked_at(picked_up, AS_VIBRATION, reference).status is Status.UNPLUGGED
        assert looked_at((picked_up + x).astype(np.float32), AS_VIBRATION, reference) == FINE, "hum on top of a signal"


@pytest.mark.parametrize("spoil", [stuck, stairs, garbage, holes])
def test_without_an_enrolment_what_no_signal_does_is_found_all_the_same(spoil: Spoil) -> None:
    for n, x in enumerate(recordings(healthy=True)):
        assert looked_at(spoil(x, np.random.default_rng(n)), AMP).bad


def test_no_recorded_fault_is_called_a_bad_sensor() -> None:
    for config in (AMP, AS_VIBRATION):
        reference = reference_of(recordings(healthy=True), config)
        for x in (*recordings(healthy=True), *recordings(healthy=False)):
            assert looked_at(x, config, reference) == FINE
            assert looked_at((3.5 * x).astype(np.float32), config, reference) == FINE, "louder is the machine's affair"


@pytest.mark.parametrize("kind", ["current", "voltage"])
def test_the_mains_are_an_electrical_channels_signal(kind: str) -> None:
    x = recordings(healthy=True)[0]
    config = channel("amp", RATE_HZ, kind=kind, unit="A")
    assert looked_at(hum(x, np.random.default_rng(0)), config, reference_of(recordings(healthy=True), config)) == FINE


def test_a_machine_that_hums_by_nature_is_not_unplugged() -> None:
    rng = np.random.default_rng(0)
    humming = tuple(hum(np.float32([1, -1] * 6400), rng) for _ in range(10))
    reference = reference_of(humming, AS_VIBRATION)
    assert looked_at(humming[0], AS_VIBRATION, reference) == FINE
    assert looked_at((0.5 * humming[0]).astype(np.float32), AS_VIBRATION, reference) == FINE


def clipped_at(share: float) -> tuple[Floats, Reference]:
    x = signal(AS_VIBRATION, 1.0, seed=1)
    level = np.quantile(np.abs(x), 1 - share)
    return np.clip(x, -level, level).astype(np.float32), reference_of((x,), AS_VIBRATION)


@pytest.mark.parametrize("share", [0.002, 0.02, 0.08])
def test_clipped_peaks_are_compared_for_a_failing_machine_has_them(share: float) -> None:
    samples, reference = clipped_at(share)
    assert looked_at(samples, AS_VIBRATION, reference) == FINE
    seen = measure(samples, RATE_HZ, level=level_of(AS_VIBRATION, samples), config=AS_VIBRATION)
    assert seen.clipped <= 1.01 * share


@pytest.mark.parametrize("share", [0.12, 0.3, 0.7])
def test_massive_clipping_is_not_compared(share: float) -> None:
    assert share > CLIPPED_MASSIVE
    samples, reference = clipped_at(share)
    found = looked_at(samples, AS_VIBRATION, reference)
    assert found.status is Status.CLIPPED
    assert "%" in found.text


@pytest.mark.parametrize("severity", [1.0, 10.0, 40.0])
def test_a_bearing_that_hammers_is_no_noise_and_no_jump(severity: float) -> None:
    rotor = RotatingMachine("m", seed=3, channels=(("vib", "vibration", 25600.0),), severity=severity, growth_s=0.5)
    config = channel("vib", 25600, kind="vibration", unit="g")
    t0_ns = 1_795_000_000_000_000_000
    made = {
        fault: np.concatenate([f.samples for f in rotor.frames(t0_ns, t0_ns + 6 * 10**9, fault_from_ns=fault)])
        for fault in (None, t0_ns)
    }
    windows = {fault: [x[i * 51200 : (i + 1) * 51200] for i in range(3)] for fault, x in made.items()}
    reference = reference_of(tuple(windows[None]), config)
    for x in (*windows[None], *windows[t0_ns]):
        assert looked_at(x, config, reference) == FINE


def test_starting_and_stopping_is_no_bad_sensor() -> None:
    rotor = RotatingMachine("m", seed=3, channels=(("vib", "vibration", 25600.0),))
    config = channel("vib", 25600, kind="vibration", unit="g")
    t0_ns = 1_795_000_000_000_000_000
    off = ((t0_ns + 4 * 10**9, t0_ns + 10 * 10**9),)
    x = np.concatenate([f.samples for f in rotor.frames(t0_ns, t0_ns + 14 * 10**9, stopped=off)])
    reference = reference_of((x[:51200], x[51200:102400]), config)
    words = [looked_at(x[i : i + 51200], config, reference).status for i in range(0, len(x) - 51200, 12800)]
    assert set(words) <= {Status.OK, Status.UNPLUGGED}, "standing still may look unplugged: the judge knows better"
    assert words.count(Status.OK) >= len(words) // 2


def test_loose_parts_that_hit_a_coarse_sensor_are_no_jumps() -> None:
    rng = np.random.default_rng(5)
    x = 0.05 * rng.normal(size=12_800)
    ring = np.exp(-np.arange(60) / 12) * np.sin(2 * np.pi * 0.27 * np.arange(60))
    for at in rng.choice(12_700, 20, replace=False):
        x[at : at + 60] += 3 * ring
    assert looked_at((np.round(x / 0.01) * 0.01).astype(np.float32), AS_VIBRATION) == FINE


def test_a_coarse_slow_wave_is_not_held() -> None:
    coarse = np.round(5 * np.sin(2 * np.pi * 7 * T)).astype(np.float32)
    reference = reference_of((coarse,), AS_VIBRATION)
    assert looked_at(coarse, AS_VIBRATION) == looked_at(coarse, AS_VIBRATION, reference) == FINE
    square = np.sign(np.sin(2 * np.pi * 7 * T)).astype(np.float32)
    assert looked_at(square, AMP).status is not Status.STUCK


@pytest.mark.parametrize("periods", [4, 8, 16, 32])
@pytest.mark.parametrize("phase", [0.0, np.pi / 8, np.pi / 4, 1.0])
def test_a_tone_that_is_sampled_in_step_with_itself_is_not_clipped(periods: int, phase: float) -> None:
    tone = np.sin(2 * np.pi * np.arange(12_800) / periods + phase).astype(np.float32)
    assert looked_at(tone, AS_VIBRATION) == FINE


def test_a_value_may_stand_still_unless_it_never_did() -> None:
    values = np.full(20, 60.0, np.float32)
    moved, unknown = Reference(60.0, Traits(longest_hold_s=3.0)), Reference(60.0, Traits())
    assert looked_at(values, TEMP, moved, still_s=59.0) == FINE
    assert looked_at(values, TEMP, moved, still_s=61.0).status is Status.STUCK
    assert looked_at(values, TEMP, Reference(60.0, Traits(longest_hold_s=30.0)), still_s=299.0) == FINE
    for nothing in (unknown, Reference(60.0), None):
        assert looked_at(values, TEMP, nothing, still_s=1e6) == FINE


def test_what_is_wrong_is_said_of_every_channel() -> None:
    assert because({"a": FINE}) == ""
    assert because({"a": Finding(Status.FLAT, "x"), "b": FINE, "c": Finding(Status.STUCK, "y")}) == (
        "a is flat (x), c is stuck (y)"
    )


ANY_FLOAT = st.floats(width=32, allow_nan=True, allow_infinity=True, allow_subnormal=True)
ANY_CHANNEL = st.builds(
    lambda kind, rate_hz: channel("c", rate_hz, kind=kind),
    st.sampled_from(["vibration", "current", "process", "sound"]),
    st.sampled_from([0.5, 50.0, 1000.0, 12_800.0]),
)
ANY_REFERENCE = st.none() | st.builds(
    Reference,
    st.floats(1e-12, 1e30),
    st.none() | st.builds(Traits, st.none() | st.floats(0, 10), st.floats(0, 50), st.floats(0, 1), st.floats(0, 1)),
)


@given(arrays(np.float32, st.integers(1, 400), elements=ANY_FLOAT), ANY_CHANNEL, ANY_REFERENCE, st.floats(0, 1e6))
@settings(max_examples=300)
def test_no_input_raises_or_warns(
    samples: Floats, config: ChannelConfig, reference: Reference | None, still_s: float
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        level = level_of(config, samples)
        found = check(samples, config.rate_hz, level=level, config=config, reference=reference, still_s=still_s)
    assert found.bad == bool(found.text)
    assert found.status is Status.GAP or np.isfinite(samples).all()


@given(st.integers(0, 2**32 - 1), st.integers(-100, 100), st.integers(0, 9))
@settings(max_examples=60)
def test_the_unit_makes_no_difference(seed: int, exponent: int, which: int) -> None:
    spoil: Spoil = (lambda x, _: x, hum, floor_only, stuck, stairs, loud_noise, contact, spikes, hum_60, holes)[which]
    rng = np.random.default_rng(seed)
    healthy = recordings(healthy=True)
    reference = reference_of(healthy[:2], AS_VIBRATION)
    x = spoil(healthy[seed % len(healthy)], rng)
    scale = 2.0**exponent
    other = Reference(reference.median_rms * scale, reference.traits)
    assert looked_at((x * np.float32(scale)).astype(np.float32), AS_VIBRATION, other) == looked_at(
        x, AS_VIBRATION, reference
    )
