"""What an alarm shows for itself: numbers now beside what the enrolment had, and what is not known is said."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fakes import CURRENT, PRESS, SPEC, T0_NS, VIBRATION, WINDOW, FakeEmbedder, bundle, channel, machine, running
from fisher_agent.alarmconfig import BearingConfig
from fisher_agent.bank import UNMEASURED, Bank
from fisher_agent.bankfiles import BankFiles
from fisher_agent.banks import BankLibrary, Engine
from fisher_agent.config import Config, MachineConfig
from fisher_agent.detect import Judge
from fisher_agent.enrolment import learn
from fisher_agent.errors import BadFile
from fisher_agent.evidence import Scene, enrolled_indicators, explain, look_at
from fisher_agent.indicators import measure
from fisher_agent.keptwaves import KeptWaves, windows_at
from fisher_agent.ledger import Model
from fisher_agent.pipeline import Pipeline
from fisher_agent.stages import Frame, Verdict, Window
from fisher_agent.survey import moments
from fisher_agent.waveforms import Recording
from fisher_models.frontend import Frontend

FRONTEND = Frontend(SPEC)
NORMAL = running(seconds=30)
FAULTY = running(seconds=6, seed=2, t_ns=T0_NS + 10**12, tone_hz=1230.37, tone=2.0)


def bank_of(config: MachineConfig, recording: Recording = NORMAL) -> Bank:
    made, _ = learn(
        recording, machine=config, window=WINDOW, bundle=bundle(), frontend=FRONTEND, embedder=FakeEmbedder(),
        version="v1", created_ns=5,
    )  # fmt: skip
    return made


@pytest.fixture(scope="module")
def bank() -> Bank:
    return bank_of(PRESS)


def judged(
    bank: Bank, config: MachineConfig = PRESS, recording: Recording = FAULTY
) -> tuple[Verdict, dict[str, Window]]:
    """The third verdict about a recording, and its windows."""
    judge = Judge(config, WINDOW, bank, frontend=FRONTEND)
    pipeline = Pipeline(frontend=FRONTEND, embedder=FakeEmbedder(), judges={config.id: judge})
    third = list(moments(recording, config, WINDOW))[2]
    (verdict,) = pipeline.process([third])
    return verdict, {w.channel: w for w in third.windows}


def scene(of: Bank, config: MachineConfig = PRESS, **changes: object) -> Scene:
    verdict, windows = judged(of, config)
    return replace(Scene(machine=config, verdict=verdict, windows=windows, bank=of), **changes)  # type: ignore[arg-type]


def test_what_carries_the_distance_is_named_with_the_nearest_window_and_its_time(bank: Bank) -> None:
    verdict, _ = judged(bank)
    found = explain(scene(bank), files={"vib": "nearest-vib.npz"})
    assert verdict.score > 1
    assert found["top_channel"] == "vib"
    low, high = found["top_band_hz"]
    assert low < 1230.37 < high
    assert found["top_change_db"] > 6
    assert found["fault"] == "unknown"
    near = {n["channel"]: n for n in found["nearest"]}
    assert near.keys() == {"vib", "amp"}
    assert near["vib"]["t_ns"] in bank.channel("vib").end_ns
    assert (near["vib"]["file"], near["amp"]["file"]) == ("nearest-vib.npz", "")
    assert near["vib"]["distance"] > near["vib"]["limit"] == bank.channel("vib").feature_limit
    assert near["amp"]["distance"] < near["amp"]["limit"]
    assert near["vib"]["view"] == "indicators"


def test_the_nearest_window_is_that_of_the_view_that_decided(bank: Bank) -> None:
    by_embedding = replace(bank, judged_by="embedding")
    found = {n["channel"]: n for n in explain(scene(by_embedding), files={})["nearest"]}
    known = bank.channel("vib")
    assert (found["vib"]["view"], found["vib"]["limit"]) == ("embedding", known.limit)
    verdict, windows = judged(by_embedding)
    reading = next(r for r in verdict.readings if r.channel == "vib")
    assert found["vib"]["distance"] == reading.distance
    vector = Pipeline(frontend=FRONTEND, embedder=FakeEmbedder()).embed([windows["vib"]], gains=[known.gain])[0].bands
    units = known.vectors / np.linalg.norm(known.vectors, axis=1, keepdims=True)
    mine = vector.reshape(-1) / np.linalg.norm(vector)
    assert known.end_ns[(units @ mine).argmax()] == found["vib"]["t_ns"]


def test_indicators_stand_beside_what_the_enrolment_had(bank: Bank) -> None:
    """What the bank's features give is what measuring the enrolled windows again gives."""
    again: dict[str, list[dict[str, float | None]]] = {"vib": [], "amp": []}
    for moment in moments(NORMAL, PRESS, WINDOW):
        for w in moment.windows:
            config = PRESS.channel(w.channel)
            seen = measure(w.samples, w.rate_hz, kind=config.kind, unit=config.unit)
            again[w.channel].append(
                {
                    "rms": seen.rms,
                    "crest": seen.crest,
                    "kurtosis": seen.kurtosis,
                    "velocity_rms": seen.velocity_rms_mm_s,
                }
            )
    found = explain(scene(bank), files={})["indicators"]
    for name, rows in again.items():
        known = enrolled_indicators(bank, name)
        assert known.keys() == (
            {"rms", "crest", "kurtosis", "velocity_rms"} if name == "vib" else {"rms", "crest", "kurtosis"}
        )
        for key, values in known.items():
            wanted = np.asarray([row[key] for row in rows], dtype=np.float64)
            assert values == pytest.approx(wanted, rel=1e-4)
            entry = found[name][key]
            assert [entry["enrolled_low"], entry["enrolled"], entry["enrolled_high"]] == pytest.approx(
                np.quantile(wanted, [0.05, 0.5, 0.95]).tolist(), rel=1e-4
            )
    assert found["vib"]["rms"]["unit"] == "g"
    assert found["vib"]["velocity_rms"]["unit"] == "mm/s"
    assert found["vib"]["rms"]["now"] > found["vib"]["rms"]["enrolled_high"]
    assert "velocity_rms" not in found["amp"]


def test_a_bank_of_before_shows_what_it_holds(bank: Bank) -> None:
    old = replace(bank, channels=tuple(replace(c, velocity_mm_s=UNMEASURED) for c in bank.channels))
    found = explain(scene(bank, bank=Bank.from_bytes(old.to_bytes())), files={})["indicators"]["vib"]
    assert found["velocity_rms"]["now"] > 0
    assert found["velocity_rms"]["enrolled"] is None
    assert found["rms"]["enrolled"] is not None


def test_a_value_shows_its_mean() -> None:
    slow = channel("temp", 1, kind="process", unit="degC")
    config = machine(slow)
    recording = Recording()
    rng = np.random.default_rng(1)
    for first in range(0, 600, 10):
        values = (60 + rng.normal(size=10)).astype(np.float32)
        recording.add(Frame("press-07", "temp", T0_NS + first * 10**9, 1.0, values))
    made = bank_of(config, recording)
    known = enrolled_indicators(made, "temp")
    assert known["mean"].mean() == pytest.approx(60, abs=0.5)
    assert known["rms"].mean() == pytest.approx(1, abs=0.3)


def test_third_octaves_stand_beside_the_usual_and_the_nearest(bank: Bank) -> None:
    found = explain(scene(bank), files={})["octaves"]["vib"]
    at = int(np.abs(np.asarray(found["hz"]) - 1230.37).argmin())
    assert found["now_db"][at] > found["enrolled_db"][at] + 6
    assert len({len(values) for values in found.values()}) == 1


def test_without_a_bank_or_a_comparison_nothing_is_made_up(bank: Bank) -> None:
    found = explain(scene(bank, bank=None, notes=("the bank is gone",)), files={})
    assert found["notes"] == ["the bank is gone"]
    assert found["octaves"] == {}
    assert found["indicators"]["vib"]["rms"]["enrolled"] is None
    verdict, windows = judged(bank)
    stopped = replace(verdict, running=False, readings=())
    found = explain(Scene(machine=PRESS, verdict=stopped, windows=windows, bank=bank), files={})
    assert (found["top_channel"], found["top_band_hz"], found["nearest"], found["peaks"]) == ("", [], [], [])


# -- envelope peaks, and the waveforms that a bank kept ----------------------------------------------------------------

BEARING = BearingConfig(id="de", balls=9, ball_mm=7.94, pitch_mm=39.04)
TURNING = machine(VIBRATION, CURRENT, shaft_hz=25.0, bearings=[BEARING])


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Bank, BankFiles]:
    """An enrolment as the agent keeps it, with its waveforms."""
    folder = tmp_path_factory.mktemp("kept")
    config = Config.model_validate(
        {
            "site": "s",
            "edge": "e",
            "state_dir": str(folder),
            "window": WINDOW.model_dump(),
            "machines": [PRESS.model_dump()],
        }
    )
    files = BankFiles(folder / "banks")
    files.sweep()
    engine = Engine(bundle(), FRONTEND, FakeEmbedder(), Model("fake", bundle().digest, "untrained", "", "f32", ""))
    made, _ = BankLibrary(config, files, engine).learn(PRESS, NORMAL)
    return made.banks[0], files


def waves(kept: tuple[Bank, BankFiles]) -> KeptWaves:
    path = kept[1].waveforms_file("press-07", kept[0].version)
    assert path is not None
    return KeptWaves(path, machine=PRESS, window=WINDOW)


def test_a_kept_window_is_the_one_that_was_enrolled(kept: tuple[Bank, BankFiles]) -> None:
    enrolled = {m.end_ns: {w.channel: w for w in m.windows} for m in moments(NORMAL, PRESS, WINDOW)}
    wanted = look_at(kept[0])
    assert len(wanted) == 15
    found = waves(kept).moments(wanted)
    assert found.keys() == set(wanted)
    for end_ns, windows in found.items():
        assert windows.keys() == {"vib", "amp"}
        for name, w in windows.items():
            assert w.t_ns == enrolled[end_ns][name].t_ns
            assert np.array_equal(w.samples, enrolled[end_ns][name].samples)
    assert waves(kept).moments([T0_NS - 10**12]) == {}


def test_the_windows_of_a_verdict_are_found_in_what_was_heard() -> None:
    third = list(moments(FAULTY, PRESS, WINDOW))[2]
    found = windows_at(third.end_ns, FAULTY, machine=PRESS, window=WINDOW)
    assert {w.channel: w.samples.tolist() for w in third.windows} == {c: w.samples.tolist() for c, w in found.items()}


def test_a_snapshot_that_still_holds_belongs_to_the_verdict() -> None:
    snap = channel("snap", 8000, kind="vibration", unit="g", capture="snapshot", period_s=4.0)
    config = machine(CURRENT, snap)
    heard = running(machine(CURRENT), 6)
    block = running(machine(VIBRATION), 1)
    for frame in block.frames(whole=["vib"]):
        heard.add(replace(frame, channel="snap"))
    found = windows_at(T0_NS + 5 * 10**9, heard, machine=config, window=WINDOW)
    assert found.keys() == {"amp", "snap"}
    assert found["snap"].end_ns < found["amp"].end_ns == T0_NS + 5 * 10**9


def test_kept_waveforms_that_are_damaged_are_named(kept: tuple[Bank, BankFiles], tmp_path: Path) -> None:
    path = tmp_path / "waveforms.safetensors"
    path.write_bytes(b"not that")
    with pytest.raises(BadFile, match="cannot be read"):
        KeptWaves(path, machine=PRESS, window=WINDOW).moments([T0_NS])
    with pytest.raises(BadFile, match="cannot be read"):
        KeptWaves(tmp_path / "none", machine=PRESS, window=WINDOW).moments([T0_NS])


def test_peaks_stand_beside_their_enrolled_level(kept: tuple[Bank, BankFiles]) -> None:
    bank = kept[0]
    usual = list(waves(kept).moments(look_at(bank)).values())
    found = explain(scene(bank, TURNING, enrolled=usual), files={})
    peaks = {p["name"]: p for p in found["peaks"]}
    assert {"1x", "2x", "de BPFO", "de 2xBPFO", "de BPFI", "de BSF", "de 3xBPFI"} <= peaks.keys()
    assert {p["channel"] for p in found["peaks"]} == {"vib"}
    assert peaks["de BPFO"]["expected_hz"] == pytest.approx(25 * 3.5848, abs=0.01)
    assert all(isinstance(p["enrolled_db"], float) for p in found["peaks"])
    assert found["notes"] == []


def test_what_keeps_peaks_from_being_shown_is_said(bank: Bank) -> None:
    without = explain(scene(bank, TURNING), files={})
    assert {p["enrolled_db"] for p in without["peaks"]} == {None}
    assert without["notes"] == ["the bank kept no waveforms; the enrolled level of the peaks is not known"]
    speed = channel("speed", 10, unit="rpm")
    measured = machine(VIBRATION, CURRENT, speed, speed_channel="speed", bearings=[BEARING])
    verdict, windows = judged(bank)
    silent = explain(Scene(machine=measured, verdict=verdict, windows=windows, bank=bank), files={})
    assert (silent["peaks"], silent["notes"]) == ([], ["the speed channel speed gave nothing; no peaks are shown"])
