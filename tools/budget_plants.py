"""Machines whose normal running is known, recorded and generated: what is enrolled, and what is judged afterwards.

The real pipeline cuts, learns and judges; only the model is left out, because indicators decide the score.
"""

import csv
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from fisher_agent.config import MachineConfig, WindowConfig
from fisher_agent.sources.synthetic import RotatingMachine
from fisher_agent.stages import Floats, Frame

T0_NS = 1_795_000_000_000_000_000
FEMTO_GROUP = "FEMTO bearings, healthy part"
FEMTO = ("1_1", "1_2", "1_5", "2_1", "2_2", "2_6", "3_1", "3_2")
FEMTO_ENROLLED, FEMTO_HEALTHY = 0.25, 0.6  # of the life
PUMP_CHANNELS = (
    ("acc1", "vibration", "g"), ("acc2", "vibration", "g"), ("current", "current", "A"), ("pressure", "process", "bar"),
    ("temperature", "process", "degC"), ("thermocouple", "process", "degC"), ("voltage", "voltage", "V"),
    ("flow", "process", "l/min"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Plant:
    """One enrolment, and the normal running that follows it, in the order of time."""

    name: str
    group: str
    machine: MachineConfig
    window: WindowConfig
    enrolled: Callable[[], Iterable[Frame]]
    judged: Callable[[], Iterable[Frame]]
    normal_share: float = 1.0  # of what is judged, the first part that counts as healthy


def femto(root: Path) -> Iterator[Plant]:
    """Bearings run to failure, 0.1 s every 40 s: the first quarter is enrolled, and up to 60 % counts as healthy."""
    with (root / "femto_bearing" / "manifest.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for name in FEMTO:
        mine = [r for r in rows if r["file"] == f"Bearing{name}_acc.flac"]
        period_s = float(mine[0]["segment_period_s"])
        shared = {"kind": "vibration", "unit": "g", "rate_hz": 25600, "capture": "snapshot", "period_s": period_s}
        machine = _machine(f"femto-{name}", [{"id": r["channel"], **shared} for r in mine])
        stored, rate_hz = soundfile.read(root / "femto_bearing" / mine[0]["file"], dtype="int16")
        snapshots = [
            Frame(machine.id, channel.id, T0_NS + round(k * period_s * 1e9), rate_hz, samples)
            for k, part in enumerate(np.split(stored, int(mine[0]["n_segments"])))
            for channel, column, row in zip(machine.channels, part.T, mine, strict=True)
            if len(samples := (column * np.float32(row["scale"])).astype(np.float32))
        ]
        first = len(machine.channels) * round(FEMTO_ENROLLED * int(mine[0]["n_segments"]))
        yield Plant(
            f"FEMTO {name}", FEMTO_GROUP, machine, WindowConfig(), partial(iter, snapshots[:first]),
            partial(iter, snapshots[first:]),
            normal_share=(FEMTO_HEALTHY - FEMTO_ENROLLED) / (1 - FEMTO_ENROLLED),
        )  # fmt: skip


def rig(root: Path) -> Iterator[Plant]:
    """The IMS rig's first day, eight channels, one second every ten minutes: each half enrolled once."""
    files = sorted((root / "ims_bearing_healthy").glob("*.flac"))
    channels = [f"b{b}{axis}" for b in range(1, 5) for axis in "xy"]
    machine = _machine(
        "ims",
        [{"id": c, "kind": "vibration", "rate_hz": 20480, "capture": "snapshot", "period_s": 600} for c in channels],
    )

    def frames(some: Sequence[Path], offset_ns: int = 0) -> Iterator[Frame]:
        for path in some:
            stored, rate_hz = soundfile.read(path, dtype="int16")
            at = datetime.strptime(path.stem, "%Y.%m.%d.%H.%M.%S").replace(tzinfo=UTC)
            for column, channel in enumerate(channels):
                samples = (stored[:, column] * np.float32(0.001)).astype(np.float32)
                yield Frame("ims", channel, round(at.timestamp()) * 10**9 + offset_ns, rate_hz, samples)

    half = len(files) // 2
    yield Plant(
        "IMS rig", "IMS rig", machine, WindowConfig(), lambda: frames(files[:half]), lambda: frames(files[half:])
    )
    yield Plant(
        "IMS rig, reversed", "IMS rig", machine, WindowConfig(), lambda: frames(files[half:]),
        lambda: frames(files[:half], 10**15),
    )  # fmt: skip


def fan(root: Path) -> Iterator[Plant]:
    """The ceiling fan, one second after another: each block enrolled once; and the one that was mounted anew later."""
    folder = root / "ceiling_fan"
    machine = _machine("fan", [{"id": c, "kind": "vibration", "unit": "g", "rate_hz": 200} for c in "xyz"])
    window = WindowConfig(length_s=1.0, hop_s=1.0)
    pairs = [
        (f"fan_0_{speed}_0_weight_{a}", f"fan_0_{speed}_0_weight_{b}", f"{speed}, {a} then {b}")
        for speed in ("low", "med", "high")
        for a, b in ("ab", "ba")
    ]
    for first, then, what in pairs:
        yield Plant(
            f"fan {what}", "ceiling fan", machine, window,
            lambda f=first: _stream(folder / f"{f}.flac", machine, T0_NS),
            lambda f=then: _stream(folder / f"{f}.flac", machine, T0_NS + 10**15),
        )  # fmt: skip
    yield Plant(
        "fan low, mounted anew", "ceiling fan, mounted anew", machine, window,
        lambda: _stream(folder / "fan_0_low_0_weight_a.flac", machine, T0_NS),
        lambda: (
            f
            for k, part in enumerate("ab")
            for f in _stream(folder / f"fan_0_low-deploy_{part}.flac", machine, T0_NS + 10**15 + k * 10**13)
        ),
    )  # fmt: skip


def pump(root: Path) -> Iterator[Plant]:
    """The SKAB pump, eight slow channels: the start of its normal run enrolled, and the normal starts of other days."""
    folder = root / "skab_water_pump"
    machine = _machine("pump", [{"id": c, "kind": kind, "unit": unit, "rate_hz": 1} for c, kind, unit in PUMP_CHANNELS])
    whole = np.load(folder / "anomaly-free.npy")[:, : len(PUMP_CHANNELS)]
    for minutes in (10, 60):
        n = minutes * 60
        yield Plant(
            f"pump, {minutes} min enrolled", f"pump, {minutes} min enrolled", machine, WindowConfig(),
            lambda n=n: _rows(whole[:n], machine, T0_NS), lambda n=n: _rows(whole[n:], machine, T0_NS + n * 10**9),
        )  # fmt: skip
    yield Plant(
        "pump, other experiments", "pump, 60 min enrolled, other days", machine, WindowConfig(),
        lambda: _rows(whole[:3600], machine, T0_NS), lambda: _starts(folder, machine),
    )  # fmt: skip


def _starts(folder: Path, machine: MachineConfig) -> Iterator[Frame]:
    for k, path in enumerate(sorted(folder.glob("*.labels.npy"))):
        labels = np.load(path)
        n = int(np.argmax(labels > 0)) if (labels > 0).any() else len(labels)
        values = np.load(path.with_name(path.name.replace(".labels", "")))[:n, : len(PUMP_CHANNELS)]
        yield from _rows(values, machine, T0_NS + (k + 1) * 10**15)


def generated(seed: int, *, enrolled_s: float, judged_s: float) -> Plant:
    """A generated motor with one vibration channel: its level wanders with the load."""
    made = RotatingMachine("mill", seed=seed, channels=(("vib", "vibration", 2000.0),))
    machine = _machine("mill", [{"id": "vib", "kind": "vibration", "unit": "g", "rate_hz": 2000}])
    middle = T0_NS + round(enrolled_s * 1e9)
    return Plant(
        f"generated {seed}", "generated", machine, WindowConfig(length_s=1.0, hop_s=0.5),
        lambda: made.frames(T0_NS, middle, block_s=1.0),
        lambda: made.frames(middle, middle + round(judged_s * 1e9), block_s=1.0),
    )  # fmt: skip


def _machine(name: str, channels: Sequence[Mapping[str, Any]]) -> MachineConfig:
    return MachineConfig.model_validate({"id": name, "channels": list(channels)})


def _stream(path: Path, machine: MachineConfig, t_ns: int) -> Iterator[Frame]:
    stored, rate_hz = soundfile.read(path, dtype="int16")
    yield from _rows((stored * np.float32(1.220703125e-4)).astype(np.float32), machine, t_ns, rate_hz=rate_hz)


def _rows(values: NDArray[Any], machine: MachineConfig, t_ns: int, *, rate_hz: float = 1.0) -> Iterator[Frame]:
    """Rows of simultaneous samples as blocks of a second."""
    step = round(rate_hz)
    for k in range(0, len(values) - step + 1, step):
        for column, channel in enumerate(machine.channels):
            samples: Floats = np.ascontiguousarray(values[k : k + step, column], dtype=np.float32)
            yield Frame(machine.id, channel.id, t_ns + round(k * 1e9 / rate_hz), rate_hz, samples)
