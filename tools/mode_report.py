"""What a bank per operating mode gains, on recorded machines: `python tools/mode_report.py [DATA]`.

Printed per machine, in % of windows that are over the limit: with all speeds in one bank, with a bank per mode of which
the nearest counts, and with the mode known from a tag. `level x 1.5` are normal windows made louder. `speed left out`
is normal running at a speed that was not enrolled: with a tag it is no anomaly but an unknown mode. Last, the score of
such windows beside that of real faults: what no tag tells apart.

The embedder is a stand-in: scores are by indicators (model.judge_by), and most of these channels no model sees.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from fisher_agent.bankset import BankSet
from fisher_agent.config import MachineConfig, WindowConfig
from fisher_agent.machinejudge import MachineJudge
from fisher_agent.modelearning import learn_modes
from fisher_agent.pipeline import Pipeline
from fisher_agent.split import Split, split
from fisher_agent.stages import Floats, Frame, Verdict
from fisher_agent.survey import moments
from fisher_agent.waveforms import Recording
from fisher_models.bundle import Bundle, SelfTest
from fisher_models.evaluate.takes import Take, read_takes, rules
from fisher_models.frontend import Frontend, FrontendSpec

T0_NS = 1_700_000_000_000_000_000
SECOND = 1_000_000_000
SPEC = FrontendSpec(mean=-3.017344307886898, divisor=4.306327031075961, band_bins=100)
FRONTEND = Frontend(SPEC)
NOTHING = SelfTest(np.zeros((1, 16, 100), np.float32), np.zeros(1, np.float32), np.zeros((1, 100), np.float32))
BUNDLE = Bundle(
    name="none", path=Path(), digest="b0", model={}, weights="untrained", origin="", frontend=SPEC,
    tolerance={}, selftest=NOTHING, lower={},
)  # fmt: skip


class Spectra:
    """Each band's mean spectrum, in the place of a model."""

    name, precision, device = "none", "f32", "CPU"

    def embed(self, bands: Floats, _centres: Floats) -> Floats:
        """(n, t, f), (n,) -> (n, f)."""
        return bands.mean(axis=1) + np.float32(10)

    def close(self) -> None:
        """Nothing is held."""


@dataclass(frozen=True)
class Rig:
    """A recorded machine: which takes are normal at which speed, and which are faults."""

    title: str
    machine: MachineConfig
    window: WindowConfig
    block_s: float  # a take is cut into blocks of this, each a stretch of its own
    train: Mapping[str, Sequence[Take]]  # speed -> normal
    test: Mapping[str, Sequence[Take]]
    faults: Mapping[str, Sequence[Take]]

    def recording(self, takes: Sequence[Take], *, level: float = 1.0, clock: Iterator[int]) -> Recording:
        """The takes one after another, with gaps."""
        out = Recording()
        rate = self.machine.channels[0].rate_hz
        n = round(self.block_s * rate)
        for take in takes:
            columns = [take.samples(i) for i in range(len(self.machine.channels))]
            for first in range(0, len(columns[0]) - n + 1, n):
                t_ns = T0_NS + next(clock) * 4 * SECOND
                for channel, samples in zip(self.machine.channels, columns, strict=True):
                    block = (level * samples[first : first + n]).astype(np.float32)
                    out.add(Frame(self.machine.id, channel.id, t_ns, rate, block, gap=True))
        return out

    def learn(self, parts: Mapping[str, Sequence[Take]]) -> BankSet:
        """A bank for each part."""
        clock = count()
        recordings = {mode: self.recording(takes, clock=clock) for mode, takes in parts.items()}
        return self.learn_split(Split(recordings, configured=tuple(parts)))

    def learn_split(self, parts: Split) -> BankSet:
        """A bank for each part of a split."""
        common: dict[str, Any] = {
            "machine": self.machine, "window": self.window, "bundle": BUNDLE, "frontend": FRONTEND,
            "embedder": Spectra(), "version": "v1", "created_ns": 0,
        }  # fmt: skip
        return learn_modes(parts, previous=None, keep_others=False, **common)[0]

    def judge(self, bank: BankSet, takes: Sequence[Take], *, mode: str = "", level: float = 1.0) -> list[Verdict]:
        """Every window of the takes, each take with a judge of its own."""
        clock = count(10_000)
        judge = MachineJudge(self.machine, self.window, bank, frontend=FRONTEND)
        pipeline = Pipeline(frontend=FRONTEND, embedder=Spectra(), judges={self.machine.id: judge})
        heard = self.recording(takes, level=level, clock=clock)
        return pipeline.process([replace(m, mode=mode) for m in moments(heard, self.machine, self.window)])


def over(verdicts: Sequence[Verdict]) -> float:
    """Share, in %, of windows at or over the limit."""
    return 100 * float(np.mean([v.scored and v.score >= 1 for v in verdicts]))


def unknown(verdicts: Sequence[Verdict]) -> float:
    """Share, in %, of windows in an unknown mode."""
    return 100 * float(np.mean([v.unknown_mode for v in verdicts]))


def spread(verdicts: Sequence[Verdict]) -> str:
    """The scores' 5, 50 and 95 % quantiles."""
    return " ".join(f"{q:6.2f}" for q in np.quantile([v.score for v in verdicts if v.scored], (0.05, 0.5, 0.95)))


def report(rig: Rig) -> None:
    """The table of one machine."""
    together = rig.learn({"default": [t for takes in rig.train.values() for t in takes]})
    apart = rig.learn(rig.train)
    print(f"\n{rig.title}\n{'% of windows over the limit':34}  one bank   nearest     known   unknown mode")
    rows: list[tuple[str, Mapping[str, Sequence[Take]], float]] = [
        ("normal", rig.test, 1.0), ("normal, level x 1.5", rig.test, 1.5), ("normal, level x 0.67", rig.test, 1 / 1.5),
        ("faults", rig.faults, 1.0),
    ]  # fmt: skip
    for what, parts, level in rows:
        for speed, takes in parts.items():
            if takes:
                one = rig.judge(together, takes, level=level)
                nearest = rig.judge(apart, takes, level=level)
                known = rig.judge(apart, takes, level=level, mode=speed)
                cells = [over(one), over(nearest), over(known), unknown(known)]
                print(f"{f'{what}, {speed}':34}" + "".join(f"{c:10.0f}" for c in cells))
    for speed in rig.train:
        rest = {s: takes for s, takes in rig.train.items() if s != speed}
        single, several = rig.learn({"default": [t for ts in rest.values() for t in ts]}), rig.learn(rest)
        one, nearest = rig.judge(single, rig.test[speed]), rig.judge(several, rig.test[speed])
        known = rig.judge(several, rig.test[speed], mode=speed)
        cells = [over(one), over(nearest), over(known), unknown(known)]
        print(f"{f'speed left out, {speed}':34}" + "".join(f"{c:10.0f}" for c in cells))
        print(f"{'  its score (5, 50, 95 %)':34}{spread(nearest)}")
    for speed, takes in rig.faults.items():
        if takes:
            print(f"{f'score of faults, {speed}':34}{spread(rig.judge(apart, takes))}")
    _clusters(rig)


def _clusters(rig: Rig) -> None:
    clustered = MachineConfig.model_validate({**rig.machine.model_dump(exclude_none=True), "mode": {"cluster": True}})
    for what, parts in (("all speeds", rig.train), *((s, {s: t}) for s, t in rig.train.items())):
        clock = count()
        heard = Recording()
        for takes in parts.values():
            for frame in rig.recording(takes, clock=clock).frames():
                heard.add(frame)
        found = split(heard, clustered, rig.window)
        seconds = ", ".join(f"{m} {r.duration_s:.0f} s" for m, r in found.parts.items())
        print(f"{f'groups found in {what}':34}{seconds}; {found.elsewhere_s:.0f} s in none")


def rigs(data: Path) -> Iterator[Rig]:
    """The machines of which normal running at several speeds was recorded."""
    current = [{"id": c, "rate_hz": 12800, "kind": "current"} for c in ("current_low_res", "current_high_res")]
    takes = read_takes(data / "mcsa_misalignment" / "manifest.csv")
    yield Rig(
        "motor current, two speeds (mcsa_misalignment)",
        MachineConfig.model_validate({"id": "rig", "running_ratio": 0.0, "channels": current}),
        WindowConfig(length_s=0.5, hop_s=0.25), 1.0,
        *_parts(takes, ("425rpm", "750rpm"), normal="aligned"),
    )  # fmt: skip
    axes = [{"id": c, "rate_hz": 200, "kind": "vibration", "unit": "g"} for c in "xyz"]
    takes = read_takes(data / "ceiling_fan" / "manifest.csv", where=rules("label!=off"))
    takes = [t for t in takes if "moving" not in t.fields["specimen"] and "deploy" not in t.fields["specimen"]]
    yield Rig(
        "ceiling fan, three speeds",
        MachineConfig.model_validate({"id": "rig", "running_ratio": 0.0, "channels": axes}),
        WindowConfig(length_s=1.0, hop_s=1.0), 1.0,
        *_parts(takes, ("low", "med", "high"), normal="normal"),
    )  # fmt: skip


def _parts(takes: Sequence[Take], speeds: Sequence[str], *, normal: str) -> tuple[dict[str, list[Take]], ...]:
    def of(speed: str, *, healthy: bool, hint: str = "") -> list[Take]:
        at = [t for t in takes if t.fields["load_or_speed"] == speed and (t.fields["label"] == normal) is healthy]
        return [t for t in at if hint in ("", t.fields["split_hint"])]

    return (
        {s: of(s, healthy=True, hint="train") for s in speeds},
        {s: of(s, healthy=True, hint="test") for s in speeds},
        {s: of(s, healthy=False) for s in speeds},
    )


def main() -> None:
    """Print every table."""
    data = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[2] / "shared" / "data"
    for rig in rigs(data):
        report(rig)


if __name__ == "__main__":
    main()
