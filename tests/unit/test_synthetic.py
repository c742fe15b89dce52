"""The generated machine: the same samples however it is asked, and the ground truth is in them."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.signal import hilbert, welch

from fisher_agent.sources.rotor import SHAFT_HZ
from fisher_agent.sources.synthetic import RESONANCE_HZ, RotatingMachine

S = 1_000_000_000
T0_NS = 1_795_210_782 * S
MACHINE = RotatingMachine("fan", 7)


def run(
    machine: RotatingMachine,
    start_s: float,
    stop_s: float,
    *,
    block_s: float = 0.1,
    fault_s: float | None = None,
    stopped: tuple[tuple[float, float], ...] = (),
) -> dict[str, NDArray[np.float32]]:
    """Channel -> all samples of [start_s, stop_s) after T0; asserts that blocks follow on one another."""

    def at(s: float) -> int:
        return T0_NS + round(s * S)

    parts: dict[str, list[NDArray[np.float32]]] = {}
    next_ns: dict[str, int] = {}
    for frame in machine.frames(
        at(start_s),
        at(stop_s),
        block_s=block_s,
        fault_from_ns=None if fault_s is None else at(fault_s),
        stopped=[(at(a), at(b)) for a, b in stopped],
    ):
        if frame.channel in next_ns:
            assert abs(frame.t_ns - next_ns[frame.channel]) <= 1
        next_ns[frame.channel] = frame.t_ns + round(len(frame.samples) * S / frame.rate_hz)
        parts.setdefault(frame.channel, []).append(frame.samples)
    return {channel: np.concatenate(blocks) for channel, blocks in parts.items()}


def rms(x: NDArray[np.float32]) -> float:
    return float(np.std(x.astype(np.float64)))


@pytest.mark.parametrize("block_s", [0.013, 0.25, 60.0])
def test_any_block_length_gives_the_same_samples(block_s: float) -> None:
    expected = run(MACHINE, 0, 1.7, fault_s=0.5)
    got = run(MACHINE, 0, 1.7, block_s=block_s, fault_s=0.5)
    assert all(np.array_equal(got[c], expected[c]) for c in ("vib", "cur", "mic"))


def test_a_later_start_gives_the_same_samples() -> None:
    whole = run(MACHINE, 0, 2, fault_s=0.3)
    late = run(MACHINE, 1.234, 2, fault_s=0.3)
    assert {c: len(x) for c, x in late.items()} == {"vib": 19609, "cur": 9804, "mic": 12256}
    assert all(np.array_equal(x, whole[c][-len(x) :]) for c, x in late.items())


def test_fractional_rates_neither_lose_nor_repeat_samples() -> None:
    odd = RotatingMachine("fan", 7, channels=(("vib", "vibration", 97656.25), ("mic", "sound", 11025.0)))
    samples = run(odd, 0.05, 1.05, block_s=0.033)
    assert {c: len(x) for c, x in samples.items()} == {"vib": 97656, "mic": 11025}


def test_another_seed_is_another_machine() -> None:
    first, second = run(MACHINE, 0, 1)["vib"], run(RotatingMachine("fan", 8), 0, 1)["vib"]
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.5


def test_normal_running_wanders_but_does_not_change() -> None:
    samples = run(MACHINE, 0, 30)
    for channel, x in samples.items():
        levels = [rms(second) for second in np.split(x, 30)]
        assert 1.01 < max(levels) / min(levels) < 1.6, channel
    assert len(samples["cur"]) > 9000 and 3 < rms(samples["cur"]) < 8


def test_no_hop_edge_is_audible() -> None:
    """Steps between samples at the edges of hops are no larger than elsewhere."""
    for channel, x in run(MACHINE, 0, 10, fault_s=2).items():
        steps = np.abs(np.diff(x))
        hop = {"vib": 2560, "cur": 1280, "mic": 1600}[channel]
        edges = steps[hop - 1 :: hop]
        assert np.mean(edges) < 1.4 * np.mean(steps), channel


def test_nothing_of_the_fault_is_there_before_it_begins() -> None:
    healthy, faulty = run(MACHINE, 0, 4), run(MACHINE, 0, 4, fault_s=2.04)
    assert all(np.array_equal(healthy[c][: len(x) // 2], x[: len(x) // 2]) for c, x in faulty.items())
    assert all(not np.array_equal(healthy[c], x) for c, x in faulty.items())


def test_the_fault_grows_over_its_time() -> None:
    healthy, faulty = run(MACHINE, 0, 7)["vib"], run(MACHINE, 0, 7, fault_s=1.0)["vib"]
    levels = [rms(second) for second in np.split(faulty - healthy, 7)]
    assert levels[0] == 0 < levels[1] < levels[2] < levels[3] < levels[4]
    assert levels[6] == pytest.approx(levels[5], rel=0.15)


def test_the_fault_rings_its_resonance_in_vibration_and_less_in_sound() -> None:
    healthy, faulty = run(MACHINE, 0, 6), run(MACHINE, 0, 6, fault_s=-10)
    for channel, rate_hz in (("vib", 25600), ("mic", 16000)):
        hz, before = welch(healthy[channel], rate_hz, nperseg=1024)
        _, after = welch(faulty[channel], rate_hz, nperseg=1024)
        change_db = 10 * np.log10(after / before)
        assert change_db.max() > 6
        assert abs(hz[change_db.argmax()] - RESONANCE_HZ) < 300
        assert np.median(np.abs(change_db)) < 3

    def grown(c: str) -> float:
        return rms(faulty[c]) / rms(healthy[c])

    assert grown("vib") > 1.2 > 1.1 > grown("mic")


def test_impulses_come_at_the_ball_pass_frequency_of_the_outer_race() -> None:
    x = run(MACHINE, 0, 8, fault_s=-10)["vib"].astype(np.float64)
    spectrum, hz = np.fft.rfft(x), np.fft.rfftfreq(len(x), 1 / 25600)
    spectrum[(hz < 2900) | (hz > 3900)] = 0
    envelope = np.abs(hilbert(np.fft.irfft(spectrum))) ** 2
    lines = np.abs(np.fft.rfft(envelope - envelope.mean()))
    searched = (hz > 40) & (hz < 300)
    strongest = hz[searched][lines[searched].argmax()]
    assert strongest == pytest.approx(MACHINE.bpfo_hz, rel=0.006)


def test_the_fault_is_a_small_sideband_in_the_current() -> None:
    healthy, faulty = run(MACHINE, 0, 6)["cur"], run(MACHINE, 0, 6, fault_s=-10)["cur"]
    assert 0.002 < rms(faulty - healthy) / rms(healthy) < 0.02


def test_supply_shaft_and_gear_are_where_they_belong() -> None:
    samples = run(MACHINE, 0, 10)
    for channel, rate_hz, expected_hz, low, high in (
        ("cur", 12800, 50.0, 10, 400),
        ("vib", 25600, 29 * float(SHAFT_HZ), 600, 800),
        ("vib", 25600, float(SHAFT_HZ), 10, 40),
        ("mic", 16000, 7 * float(SHAFT_HZ), 150, 200),
    ):
        hz, power = welch(samples[channel], rate_hz, nperseg=2 * rate_hz)
        near = (hz > low) & (hz < high)
        assert hz[near][power[near].argmax()] == pytest.approx(expected_hz, rel=0.02)


def test_a_stopped_machine_leaves_only_sensor_noise() -> None:
    samples = run(MACHINE, 0, 14, stopped=((2.0, 9.0),))
    running = run(MACHINE, 0, 14)
    for channel, x in samples.items():
        n = len(x) // 14
        assert np.array_equal(x[: 2 * n], running[channel][: 2 * n])
        assert rms(x[6 * n : 9 * n]) < 0.12 * rms(running[channel])
        assert rms(x[12 * n :]) == pytest.approx(rms(running[channel][12 * n :]), rel=0.15)
    n = len(samples["cur"]) // 14
    assert rms(samples["cur"][3 * n : 4 * n]) < 0.1  # switched off at once, while the rotor coasts
    assert rms(samples["vib"][len(samples["vib"]) // 14 * 3 :][:25600]) > 0.01
    assert rms(samples["cur"][9 * n : 10 * n]) > 2 * rms(running["cur"])  # inrush


@pytest.mark.parametrize("stops", [((1.0, 2.0),), ((1.0, 6.0), (7.0, 12.0))])
def test_a_stop_that_cannot_be_is_refused(stops: tuple[tuple[float, float], ...]) -> None:
    with pytest.raises(ValueError, match="a stop takes at least 3 s"):
        run(MACHINE, 0, 1, stopped=stops)
