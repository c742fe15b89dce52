"""Sensor health apart from machine health: one window of a channel -> what is wrong with its sensor, if anything. Pure.

A window of a bad sensor is not compared, so nothing here may be what a failing machine does. What is called bad is
impossible for a structure that is struck, shaken or worn: exact repetition, no colour at all, jumps without an echo,
nothing but the mains. Counts on recorded faults: `tools/sensor_check.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from fisher_agent.codes import Status
from fisher_agent.config import ChannelConfig
from fisher_agent.indicators import Level
from fisher_agent.stages import Floats
from fisher_agent.traits import ELECTRICAL, Measured, Traits, is_periodic, measure

CLIPPED_MASSIVE = 0.1
"""Share of samples at the ends of the range beyond which the range shapes the spectrum. Of a Gaussian signal with a
share s clipped the gain is 1 - s (Bussgang, 1952): 0.9 dB at a tenth, with distortion 16 dB down. Below it, clipped
peaks are what a failing machine looks like, and count as such."""
STUCK_SAMPLES = 64
STUCK_TIMES = 3.0  # the longest run of the enrolment
STUCK_STEPS = 10.0  # times what a value of this window usually stands for
STILL_TIMES = 10.0  # the longest standstill of a value during the enrolment
STILL_S, STILL_SAMPLES = 60.0, 50  # and at least so long, and so many samples
NOISE_LEVEL = 3.0  # times the enrolled RMS: 10 dB
WHITE = 0.08  # autocorrelation at short lags; of 282 windows of bearings near their end, as loud, none is under 0.16
COLOURED = 0.3  # the enrolled signal, as against it
FEW_JUMPS = 5  # in a window; recorded faults have at most one
JUMP_TIMES = 5.0  # the most of any enrolled window
HUM_SHARE = 0.8
HUM_ENROLLED = 0.5
FLOOR_LEVEL = 0.1  # of the enrolled level without its hum: 20 dB under it
NOTHING_LEVEL = 0.02  # of the enrolled RMS: nothing is left, hum or no hum

NOT_COMPARED = frozenset(
    {Status.FLAT, Status.CLIPPED, Status.GAP, Status.NOISY, Status.STUCK, Status.UNPLUGGED}
)  # as the status of a window


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong with a sensor, in a word and in a sentence's part."""

    status: Status = Status.OK
    text: str = ""

    @property
    def bad(self) -> bool:
        """Whether it is more than fine."""
        return self.status is not Status.OK


FINE = Finding()


@dataclass(frozen=True, slots=True)
class Reference:
    """What the enrolment knows of a channel; `traits` is None in banks that were made without."""

    median_rms: float
    traits: Traits | None = None

    @property
    def floor_rms(self) -> float:
        """What must be left of the signal beside hum for it to be one; 0 where that is not known."""
        known = self.traits is not None and self.traits.hum_share <= HUM_ENROLLED
        return FLOOR_LEVEL * self.median_rms * (1 - self.traits.hum_share) ** 0.5 if known and self.traits else 0.0


def check(
    samples: Floats,
    rate_hz: float,
    *,
    level: Level,
    config: ChannelConfig,
    reference: Reference | None = None,
    still_s: float = 0.0,
) -> Finding:
    """Look at one window of samples (n,). `still_s`: for how long a value has stood still by now (`Standstill`)."""
    floor_rms = reference.floor_rms if reference else 0.0
    measured = measure(
        samples, rate_hz, level=level, config=config,
        wants_hum=lambda: floor_rms > 0 and is_periodic(samples, rate_hz, rest_rms=floor_rms),
        wants_colour=lambda: reference is not None and level.rms >= NOISE_LEVEL * reference.median_rms,
    )  # fmt: skip
    return judge(measured, config=config, reference=reference, still_s=still_s)


def judge(
    seen: Measured, *, config: ChannelConfig, reference: Reference | None = None, still_s: float = 0.0
) -> Finding:
    """The gravest thing that was measured of a window."""
    if seen.invalid:
        return Finding(Status.GAP, f"{seen.invalid} of {seen.n} samples are no numbers")
    if seen.flat:
        return Finding(Status.FLAT, "all samples are equal")
    if config.valued:
        return _still(seen, reference, still_s)
    for found in (
        _stuck(seen, reference),
        _clipped(seen),
        _noisy(seen, reference),
        _unplugged(seen, config, reference),
    ):
        if found.bad:
            return found
    return FINE


def because(findings: Mapping[str, Finding]) -> str:
    """`vib is stuck (...), amp is flat (...)`; "" where nothing is wrong."""
    return ", ".join(f"{c} is {f.status} ({f.text})" for c, f in findings.items() if f.bad)


def _still(seen: Measured, reference: Reference | None, still_s: float) -> Finding:
    usual_s = reference.traits.longest_hold_s if reference and reference.traits else None
    if usual_s is None or still_s < max(STILL_TIMES * usual_s, STILL_S, STILL_SAMPLES / seen.rate_hz):
        return FINE
    return Finding(
        Status.STUCK, f"its value has stood still for {still_s:.0f} s, {usual_s:.3g} s at most when enrolled"
    )


def _stuck(seen: Measured, reference: Reference | None) -> Finding:
    if seen.repeats:
        return Finding(
            Status.STUCK,
            f"every value comes {seen.repeats} times in a row: its rate looks like {seen.rate_hz / seen.repeats:g} Hz "
            f"and not {seen.rate_hz:g}",
        )
    usual_s = reference.traits.longest_hold_s if reference and reference.traits else None
    least = max(STUCK_SAMPLES, STUCK_STEPS / seen.moving, STUCK_TIMES * (usual_s or 0.0) * seen.rate_hz)
    if seen.hold < least:
        return FINE
    return Finding(Status.STUCK, f"the same value for {seen.hold / seen.rate_hz:.3g} s while the rest moves")


def _clipped(seen: Measured) -> Finding:
    if seen.clipped < CLIPPED_MASSIVE:
        return FINE
    return Finding(Status.CLIPPED, f"{seen.clipped:.0%} of the samples lie at the ends of the range")


def _noisy(seen: Measured, reference: Reference | None) -> Finding:
    if seen.outweighed:
        return Finding(Status.NOISY, "a lone sample outweighs all others")
    usual = reference.traits.jumps if reference and reference.traits else 0.0
    if seen.jumps >= max(FEW_JUMPS, JUMP_TIMES * usual):
        return Finding(Status.NOISY, f"{seen.jumps} lone jumps, as interference or a loose contact makes them")
    if reference is None or reference.traits is None or seen.colour is None:
        return FINE
    times = seen.rms / reference.median_rms
    if times >= NOISE_LEVEL and seen.colour <= WHITE and reference.traits.colour >= COLOURED:
        return Finding(Status.NOISY, f"white noise of {times:.3g} times the enrolled level")
    return FINE


def _unplugged(seen: Measured, config: ChannelConfig, reference: Reference | None) -> Finding:
    if reference is None or config.kind in ELECTRICAL or config.slow:
        return FINE  # the mains are an electrical channel's signal
    if seen.rms <= NOTHING_LEVEL * reference.median_rms:
        return Finding(Status.UNPLUGGED, f"{seen.rms / reference.median_rms:.1%} of the enrolled level is left")
    hum = seen.hum
    if hum is None or hum.share < HUM_SHARE or hum.rest_rms > reference.floor_rms:
        return FINE
    return Finding(Status.UNPLUGGED, f"mains hum of {hum.hz:.0f} Hz and nothing else")
