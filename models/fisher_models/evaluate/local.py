"""The protocols on the recorded sets, and what the indicators are known to reach in each.

The figures are published with the sets; reproducing them within 0.03 is what makes this harness worth trusting. Those
of the stator shorts and of the sounds were made without the envelope part of the indicators, and those of the pump
with the mean and the deviation of the last 20 s, each second; nothing else reproduces them.
"""

from collections.abc import Mapping

from fisher_models.evaluate.encoders import NO_ENVELOPE
from fisher_models.evaluate.protocol import Protocol, Sides
from fisher_models.evaluate.takes import Cut, rules

_SECOND = Cut(1.0)
_CWRU = Cut(0.5, rate_hz=12_000)
_FAULTS = "ball|inner_race|outer_race"
_SMALL = "+0.2 mm|-0.2 mm|+0.4 mm|-0.4 mm"
_PUMP = (
    "Accelerometer1RMS", "Accelerometer2RMS", "Current", "Pressure", "Temperature", "Thermocouple", "Voltage",
    "Volume Flow RateRMS",
)  # fmt: skip
_HINT = Sides(rules("split_hint=train"), rules("split_hint=test"))
_FAN_SETTLED = "specimen!=fan_0_low-deploy|fan_0_low_0_weight-moving"  # neither moved by hand nor set up later


def _cwru(name: str, severity: str, accuracy: float, f1: float) -> Protocol:
    return Protocol(
        name=name, task="diagnosis", folders=("cwru_bearing",), channels=("drive_end",), cut=_CWRU,
        where=rules(f"label={_FAULTS}", "sample_rate_hz=12000"),
        sides=Sides(rules(f"severity!={severity}"), rules(f"severity={severity}")),
        reached={"accuracy": accuracy, "macro_f1": f1},
    )  # fmt: skip


def _mcsa(sensor: str, accuracies: tuple[float, float, float], auc: float, pauc: float) -> list[Protocol]:
    channel, short = f"current_{sensor}_res", f"mcsa-{sensor}"
    splits = {
        "repetition": _HINT,
        "speed": Sides(rules("load_or_speed=425rpm"), rules("load_or_speed=750rpm")),
        "severity": Sides(rules(f"severity!={_SMALL}"), rules(f"severity={_SMALL}")),
    }
    made = [
        Protocol(
            name=f"{short}-{split}", task="diagnosis", folders=("mcsa_misalignment",), channels=(channel,),
            cut=_SECOND, reached={"accuracy": accuracy}, sides=sides,
        )
        for (split, sides), accuracy in zip(splits.items(), accuracies, strict=True)
    ]  # fmt: skip
    anomaly = Protocol(
        name=f"{short}-anomaly", task="anomaly", folders=("mcsa_misalignment",), channels=(channel,), cut=_SECOND,
        reached={"auc": auc, "pauc": pauc}, sides=_HINT,
    )  # fmt: skip
    return [*made, anomaly]


def _itsc(name: str, target: str, accuracy: float) -> Protocol:
    return Protocol(
        name=name, task="diagnosis", folders=("itsc_stator_short",), channels=("phase_A", "phase_B", "phase_C"),
        cut=_SECOND, target=target, reached={"accuracy": accuracy}, reached_by=NO_ENVELOPE, sides=_HINT,
    )  # fmt: skip


def _fan(name: str, held_out: str, auc: float) -> Protocol:
    return Protocol(
        name=name, task="anomaly", folders=("ceiling_fan",), channels=("x", "y", "z"), cut=_SECOND,
        where=rules(_FAN_SETTLED, "label!=off"),
        sides=Sides(
            rules("split_hint=train", f"load_or_speed!={held_out}"),
            rules("split_hint=test", f"load_or_speed={held_out}"),
        ),
        unit_windows=10, reached={"auc": auc},
    )  # fmt: skip


_ALL = (
    Protocol(
        name="cwru-load", task="diagnosis", folders=("cwru_bearing",), channels=("drive_end",), cut=_CWRU,
        where=rules("file!=DE_*_48k.flac"), reached={"accuracy": 0.997}, sides=_HINT,
    ),
    _cwru("cwru-specimen-014", "0.014 in", 0.311, 0.207),
    _cwru("cwru-specimen-007", "0.007 in", 0.377, 0.379),
    *_mcsa("high", (0.591, 0.292, 0.732), 0.852, 0.770),
    *_mcsa("low", (0.489, 0.253, 0.580), 0.784, 0.796),
    _itsc("itsc-phase", "label", 0.769),
    _itsc("itsc-turns", "specimen", 0.615),
    Protocol(
        name="esc", task="diagnosis", folders=("esc_machine_sounds", "esc_machine_sounds_nc"), channels=("mic",),
        cut=_SECOND, reached={"accuracy": 0.307, "recording_accuracy": 0.364}, reached_by=NO_ENVELOPE, sides=_HINT,
    ),
    Protocol(
        name="fan", task="diagnosis", folders=("ceiling_fan",), channels=("x", "y", "z"), cut=_SECOND,
        where=rules(_FAN_SETTLED), unit_windows=10, reached={"accuracy": 0.966}, sides=_HINT,
    ),
    Protocol(
        name="fan-anomaly", task="anomaly", folders=("ceiling_fan",), channels=("x", "y", "z"), cut=_SECOND,
        where=rules(_FAN_SETTLED, "label!=off"), unit_windows=10, reached={"auc": 0.932, "pauc": 0.847}, sides=_HINT,
    ),
    _fan("fan-unseen-low", "low", 0.996),
    _fan("fan-unseen-medium", "med", 0.833),
    _fan("fan-unseen-high", "high", 0.232),
    Protocol(
        name="femto", task="run-to-failure", folders=("femto_bearing",), channels=("horizontal", "vertical"),
        cut=Cut(0.1), reached={"auc": 0.967, "worst_auc": 0.845},
    ),
    Protocol(
        name="skab", task="onset", folders=("skab_water_pump",), channels=_PUMP, cut=Cut(20.0, 1.0), normal_s=400.0,
        where=rules("label!=normal"), reached={"auc": 0.855, "pauc": 0.732},
    ),
)  # fmt: skip
LOCAL: Mapping[str, Protocol] = {protocol.name: protocol for protocol in _ALL}
