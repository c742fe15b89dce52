"""Channels that the model cannot see, on real recordings, through enrolment and judge: a pump and a fan.

The AUCs are printed as measured (`-s`), beside a bound that tells a working judge from a broken one. The recordings are
looked for as in `test_recordings`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fakes import SPEC, FakeEmbedder, bundle
from fisher_agent.config import MachineConfig, WindowConfig
from fisher_agent.detect import Judge
from fisher_agent.enrolment import learn
from fisher_agent.gather import Gatherer
from fisher_agent.pipeline import Pipeline
from fisher_agent.stages import Frame, Verdict
from fisher_agent.waveforms import Recording
from fisher_models.evaluate.takes import Take, read_takes
from fisher_models.frontend import Frontend
from integration.recorded import DATA, T0_NS, auc

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not DATA.is_dir(), reason=f"the recordings are not in {DATA}; set FISHER_SHARED"),
]
FRONTEND = Frontend(SPEC)
SECOND = 1_000_000_000


def rig(channels: Sequence[str], **keys: Any) -> MachineConfig:
    return MachineConfig.model_validate(
        {"id": "rig", "running_ratio": 0.0, "channels": [{"id": c, **keys} for c in channels]}
    )


def blocks_of(take: Take, machine: MachineConfig, *, begin_ns: int, block_s: float) -> Iterator[Frame]:
    """All channels of a recording side by side, in blocks, as sensors would send them."""
    columns = [take.samples(i) for i in range(len(machine.channels))]
    rate = machine.channels[0].rate_hz
    n = round(block_s * rate)
    for first in range(0, len(columns[0]) - n + 1, n):
        for channel, samples in zip(machine.channels, columns, strict=True):
            t_ns = begin_ns + round(first / rate * SECOND)
            yield Frame("rig", channel.id, t_ns, rate, samples[first : first + n])


def verdicts(
    machine: MachineConfig, window: WindowConfig, normal: Sequence[Frame], judged: Sequence[Frame]
) -> list[Verdict]:
    """Enrol some frames, judge others; nothing is embedded, for there is nothing that the model sees."""
    recording = Recording()
    for frame in normal:
        recording.add(frame)
    bank, report = learn(
        recording, machine=machine, window=window, bundle=bundle(), frontend=FRONTEND, embedder=FakeEmbedder(),
        version="v1", created_ns=0,
    )  # fmt: skip
    assert all(not c.seen and c.windows for c in report.channels)
    judge = Judge(machine, window, bank, frontend=FRONTEND)
    pipeline = Pipeline(frontend=FRONTEND, embedder=FakeEmbedder(), judges={"rig": judge})
    gatherer = Gatherer(machine, window)
    moments = [m for frame in judged for m in gatherer.push(frame)] + gatherer.flush()
    assert gatherer.made_windows == gatherer.gathered_windows + gatherer.late_windows
    found = pipeline.process(moments)
    assert all(v.running for v in found)
    return found


def test_a_pump_of_which_only_slow_values_are_known_is_judged_every_second() -> None:
    manifest = DATA / "skab_water_pump" / "manifest.csv"
    takes = [t for t in read_takes(manifest) if t.fields["label"] != "normal"]
    window = WindowConfig(length_s=5.0, hop_s=1.0)
    found, early = [], 0.0
    for take in takes:
        machine = rig([r.channel.replace(" ", "_") for r in take.channels], rate_hz=1.0, kind="process")
        frames = list(blocks_of(take, machine, begin_ns=T0_NS, block_s=1.0))
        until = T0_NS + 400 * SECOND
        rows = verdicts(machine, window, [f for f in frames if f.t_ns < until], [f for f in frames if f.t_ns >= until])
        marks = take.anomalous()
        labelled = [(v.score, marks[min((v.t_ns - T0_NS) // SECOND, len(marks) - 1)]) for v in rows if v.scored]
        quiet, strange = ([s for s, mark in labelled if bool(mark) is wanted] for wanted in (False, True))
        if not quiet or not strange:
            continue
        found.append(auc(quiet, strange))
        early += sum(s >= 1 for s in quiet) / len(quiet)
    early /= len(found)
    print(f"\nskab: {len(found)} runs, AUC mean {np.mean(found):.3f}; {early:.1%} of the normal rest over the limit")
    assert np.mean(found) > 0.75


def fan(names: Sequence[str], where: Path = DATA / "ceiling_fan") -> list[Take]:
    takes = {t.fields["file"]: t for t in read_takes(where / "manifest.csv")}
    return [takes[name] for name in names]


SPEEDS = ("low", "med", "high")


def captures(take: Take, machine: MachineConfig, *, begin_ns: int) -> list[Frame]:
    """Captures of 1 s, one every 5 s."""
    frames = list(blocks_of(take, machine, begin_ns=0, block_s=1.0))
    return [Frame(f.machine, f.channel, begin_ns + 5 * f.t_ns, f.rate_hz, f.samples) for f in frames]


def test_a_fan_seen_at_200_hz_is_judged_by_indicators_at_known_and_unknown_speeds() -> None:
    machine = rig("xyz", rate_hz=200.0, kind="vibration", unit="g", capture="snapshot", period_s=5.0)
    window = WindowConfig(length_s=5.0, hop_s=5.0)
    gap_ns = 10_000 * SECOND

    def laid(files: Sequence[str], first: int) -> list[list[Frame]]:
        return [captures(t, machine, begin_ns=T0_NS + (first + i) * gap_ns) for i, t in enumerate(fan(files))]

    every = [f"fan_0_{speed}_0_weight_{{}}.flac" for speed in SPEEDS]
    faulty = [f"fan_0_{speed}_1_weight_b.flac" for speed in SPEEDS]
    for left_out in ("", *SPEEDS):
        learnt = [name.format("a") for name, speed in zip(every, SPEEDS, strict=True) if speed != left_out]
        asked = [s for s in SPEEDS if left_out in ("", s)]
        normal = [f for block in laid(learnt, 0) for f in block]
        quiet_files = [name.format("b") for name, speed in zip(every, SPEEDS, strict=True) if speed in asked]
        strange_files = [name for name, speed in zip(faulty, SPEEDS, strict=True) if speed in asked]
        quiet, strange = laid(quiet_files, 10), laid(strange_files, 20)
        rows = verdicts(machine, window, normal, [f for block in (*quiet, *strange) for f in block])
        border = strange[0][0].t_ns
        scores = [[v.score for v in rows if v.scored and (v.t_ns >= border) is wanted] for wanted in (False, True)]
        over = [sum(s >= 1 for s in some) / len(some) for some in scores]
        what = f"{left_out} left out of the enrolment" if left_out else "all speeds enrolled"
        print(f"\nfan, {what}: AUC {auc(*scores):.3f}; over the limit: normal {over[0]:.0%}, imbalance {over[1]:.0%}")
        if left_out:
            continue
        assert auc(*scores) > 0.8


def test_a_fan_that_turns_louder_at_one_speed_is_seen_and_among_three_speeds_it_is_reported() -> None:
    machine = rig("xyz", rate_hz=200.0, kind="vibration", unit="g", capture="snapshot", period_s=5.0)
    window = WindowConfig(length_s=5.0, hop_s=5.0)
    for enrolled in (("med",), SPEEDS):
        names = [f"fan_0_{speed}_0_weight_a.flac" for speed in enrolled]
        normal = [f for i, t in enumerate(fan(names)) for f in captures(t, machine, begin_ns=T0_NS + i * 10**13)]
        later = captures(fan(["fan_0_med_0_weight_b.flac"])[0], machine, begin_ns=T0_NS + 10**15)
        some = [[replace(f, samples=f.samples * np.float32(k)) for f in later] for k in (1, 1.5, 2)]
        over = [np.mean([v.score >= 1 for v in verdicts(machine, window, normal, one)]) for one in some]
        said = f"over the limit {over[0]:.0%}, level x 1.5 {over[1]:.0%}, x 2 {over[2]:.0%}"
        print(f"\nfan, {len(enrolled)} speeds enrolled: {said}")
        assert over[0] < 0.1
        # Four minutes enrolled for one false alarm per 30 days: the limit lies a quarter higher than without a budget.
        assert len(enrolled) > 1 or (over[1] > 0.2 and over[2] > 0.95)
