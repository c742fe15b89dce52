import pytest

from fakes import channel, machine
from fisher_agent.gate import is_running
from fisher_agent.indicators import Level

AMP = channel("amp", 4000, kind="current")
VIB = channel("vib", 8000, kind="vibration")
MIC = channel("mic", 8000, kind="sound")
REFERENCE = {"amp": 10.0, "vib": 1.0, "mic": 0.1}
PRESS = machine(AMP, VIB, MIC, running_ratio=0.3)


def on(rms: float) -> Level:
    return Level(rms, flat=False, valid=True)


FLAT = Level(0.0, flat=True, valid=True)
BROKEN = Level(0.0, flat=False, valid=False)


@pytest.mark.parametrize(("rms", "runs"), [(3.0, True), (2.99, False), (10.0, True)])
def test_the_ratio_itself_still_runs(rms: float, runs: bool) -> None:
    assert is_running(PRESS, {"amp": on(rms)}, reference_rms=REFERENCE) is runs


def test_current_tells_more_than_vibration_and_vibration_more_than_sound() -> None:
    loud, quiet = {"vib": on(1.0), "mic": on(0.1)}, {"vib": on(0.0), "mic": on(0.0)}
    assert not is_running(PRESS, {"amp": on(0.1), **loud}, reference_rms=REFERENCE)
    assert is_running(PRESS, {"amp": on(10), **quiet}, reference_rms=REFERENCE)
    assert not is_running(PRESS, {"vib": on(0.1), "mic": on(0.1)}, reference_rms=REFERENCE)
    assert is_running(PRESS, {"mic": on(0.1)}, reference_rms=REFERENCE)


@pytest.mark.parametrize("dead", [FLAT, BROKEN])
def test_a_dead_current_sensor_leaves_the_word_to_vibration(dead: Level) -> None:
    assert is_running(PRESS, {"amp": dead, "vib": on(1.0)}, reference_rms=REFERENCE)
    assert not is_running(PRESS, {"amp": dead, "vib": on(0.1)}, reference_rms=REFERENCE)


def test_the_median_of_several_channels_of_a_kind_decides() -> None:
    phases = [channel(f"l{i}", 4000, kind="current") for i in (1, 2, 3)]
    three = machine(*phases)
    reference = {"l1": 10.0, "l2": 10.0, "l3": 10.0}
    assert is_running(three, {"l1": on(10), "l2": on(10), "l3": on(0.1)}, reference_rms=reference)
    assert not is_running(three, {"l1": on(10), "l2": on(0.1), "l3": on(0.1)}, reference_rms=reference)


def test_a_machine_of_which_nothing_is_heard_does_not_run() -> None:
    assert not is_running(PRESS, {}, reference_rms=REFERENCE)
    assert not is_running(PRESS, {"amp": FLAT, "vib": FLAT, "mic": BROKEN}, reference_rms=REFERENCE)


def test_running_rms_of_a_channel_overrules_the_ratio_and_needs_no_reference() -> None:
    strict = machine(channel("amp", 4000, kind="current", running_rms=5.0), VIB)
    assert not is_running(strict, {"amp": on(4.9), "vib": on(1.0)}, reference_rms=REFERENCE)
    assert is_running(strict, {"amp": on(5.0), "vib": on(1.0)}, reference_rms=REFERENCE)
    assert not is_running(strict, {"amp": on(4.9)}, reference_rms={})
    assert is_running(strict, {"amp": on(5.0)}, reference_rms={})
