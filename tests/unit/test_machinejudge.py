"""A machine with several operating modes: which bank judges, what is unknown, and what is not judged at all."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes import VIBRATION, WINDOW, FakeEmbedder, machine, running
from fisher_agent.bank import Bank
from fisher_agent.bankset import BankSet
from fisher_agent.codes import Quality
from fisher_agent.gather import Gatherer
from fisher_agent.machinejudge import MachineJudge
from fisher_agent.pipeline import Pipeline
from fisher_agent.stages import Frame
from modal import (
    FRONTEND,
    FULL,
    IDLE,
    LATER_NS,
    OFF,
    PLAIN,
    RULED,
    TAGGED,
    TURBO,
    Recording,
    enrol,
    heard,
    verdicts,
)

FAULT = {"tone_hz": 2710.37, "tone": 1.0}


@pytest.fixture(scope="module")
def ruled() -> BankSet:
    return of_two_modes()


@pytest.fixture(scope="module")
def plain() -> BankSet:
    idle, _ = enrol(PLAIN, heard((IDLE, 30)), mode="idle")
    return enrol(PLAIN, heard((FULL, 30), seed=2), mode="full", previous=idle, version="v2")[0]


# Which bank


def test_a_known_mode_is_judged_by_its_own_bank(ruled: BankSet) -> None:
    found = verdicts(RULED, ruled, heard((IDLE, 10), (FULL, 10), seed=3, t_ns=LATER_NS))
    scored = [v for v in found if v.scored]
    assert {v.mode for v in scored} == {"idle", "full"}
    assert max(v.score for v in scored) < 1
    assert all(v.bank == ruled.version and v.quality is Quality.GOOD for v in scored)


def test_where_nothing_says_the_mode_the_nearest_bank_counts(plain: BankSet) -> None:
    found = verdicts(PLAIN, plain, heard((IDLE, 5), seed=3, t_ns=LATER_NS)) + verdicts(
        PLAIN, plain, heard((FULL, 5), seed=3, t_ns=LATER_NS)
    )
    assert [v.mode for v in found] == ["idle"] * 9 + ["full"] * 9
    assert max(v.score for v in found) < 1


def test_the_nearest_score_is_the_smallest_of_all_banks(plain: BankSet) -> None:
    recording = heard((TURBO, 5), seed=3, t_ns=LATER_NS)
    together = verdicts(PLAIN, plain, recording)
    alone = [verdicts(PLAIN, BankSet((bank,)), recording) for bank in plain]
    assert [v.score for v in together] == pytest.approx([min(a.score, b.score) for a, b in zip(*alone, strict=True)])


@pytest.mark.parametrize("phase", [IDLE, FULL])
def test_a_fault_is_found_in_every_mode(ruled: BankSet, plain: BankSet, phase: tuple[float, float]) -> None:
    recording = heard((phase, 10), seed=4, t_ns=LATER_NS, **FAULT)
    for config, bank in ((RULED, ruled), (PLAIN, plain)):
        found = verdicts(config, bank, recording)
        assert min(v.score for v in found) > 1
        assert all(v.scored and v.fault == "unknown" and not v.unknown_mode for v in found)


def test_a_level_that_one_mode_has_is_still_strange_in_another(ruled: BankSet) -> None:
    """The vibration of full speed, while the speed says idle."""
    recording = heard(((300.0, 1.0), 10), seed=4, t_ns=LATER_NS)
    assert min(v.score for v in verdicts(RULED, ruled, recording)) > 1


def test_a_window_is_embedded_once_for_all_modes(plain: BankSet) -> None:
    embedder = FakeEmbedder()
    judge = MachineJudge(PLAIN, WINDOW, plain, frontend=FRONTEND)
    pipeline = Pipeline(frontend=FRONTEND, embedder=embedder, judges={"press-07": judge})
    gatherer = Gatherer(PLAIN, WINDOW)
    found = [m for f in heard((FULL, 4), seed=3).frames() for m in gatherer.push(f)] + gatherer.flush()
    pipeline.process(found)
    assert sum(shape[0] for shape in embedder.calls) == len(found)  # the speed is slow: no model sees it
    assert len({c.gain for b in plain for c in b.channels if c.channel == "vib"}) == 1


def test_a_machine_without_a_bank_is_not_enrolled() -> None:
    found = verdicts(RULED, None, heard((FULL, 3)))
    assert found
    assert not any(v.enrolled or v.scored or v.unknown_mode for v in found)


# An unknown mode


def test_a_mode_outside_of_every_band_is_unknown_and_no_anomaly(ruled: BankSet) -> None:
    found = verdicts(RULED, ruled, heard((TURBO, 10), seed=3, t_ns=LATER_NS))
    assert all(v.unknown_mode and v.mode == "unknown" for v in found)
    assert all(v.running and v.enrolled and not v.scored and v.score == 0.0 and v.fault is None for v in found)
    assert "enrolled are: idle, full" in found[0].note
    assert found[0].readings[0].rms > 1  # what is physical is still measured


def test_a_band_that_was_not_enrolled_is_unknown() -> None:
    bank, report = enrol(RULED, heard((IDLE, 30)))
    assert any("not enough data for mode full" in s for s in report.too_little)
    found = verdicts(RULED, bank, heard((FULL, 5), seed=3, t_ns=LATER_NS))
    assert all(v.unknown_mode for v in found)


def test_a_tag_that_names_an_unseen_mode_makes_it_unknown_and_silence_of_the_tag_does_not() -> None:
    bank, _ = enrol(TAGGED, heard((IDLE, 30)), mode="idle")
    recording = heard((FULL, 5), seed=3, t_ns=LATER_NS)
    assert all(v.unknown_mode for v in verdicts(TAGGED, bank, recording, told=[("full", 0)]))
    silent = verdicts(TAGGED, bank, recording)
    assert all(v.scored and v.score > 1 for v in silent)


def test_an_unknown_mode_of_a_machine_that_stands_is_standing(ruled: BankSet) -> None:
    found = verdicts(RULED, ruled, heard((OFF, 5), seed=3, t_ns=LATER_NS))
    assert not any(v.running or v.unknown_mode for v in found)


# Starts, stops, changes


def test_a_start_is_not_scored_and_running_afterwards_is(ruled: BankSet) -> None:
    found = verdicts(RULED, ruled, heard((OFF, 5.25), (FULL, 6), seed=3, t_ns=LATER_NS))
    ends_s = [(v.t_ns - LATER_NS) / 1e9 for v in found]
    scored = [t for t, v in zip(ends_s, found, strict=True) if v.scored]
    # The window that ends at 5.5 s runs in its last quarter of a second; what adjoins it is left out too.
    assert min(scored) > 6.5
    assert max(scored) == max(ends_s)
    assert max(v.score for v in found if v.scored) < 1
    between = [v for t, v in zip(ends_s, found, strict=True) if 5.5 < t < min(scored)]
    assert between
    assert all(v.transient and v.running and v.quality is Quality.GOOD for v in between)


def test_a_stop_is_not_scored_and_what_came_before_it_is(ruled: BankSet) -> None:
    found = verdicts(RULED, ruled, heard((FULL, 5.75), (OFF, 4), seed=3, t_ns=LATER_NS))
    ends_s = [(v.t_ns - LATER_NS) / 1e9 for v in found]
    scored = [t for t, v in zip(ends_s, found, strict=True) if v.scored]
    assert scored == [t for t in ends_s if t <= 5.5]
    assert max(v.score for v in found) < 1


def test_a_fault_that_makes_the_machine_trip_is_scored_before_it_does(ruled: BankSet) -> None:
    faulty = heard((FULL, 4), seed=4, t_ns=LATER_NS, **FAULT)
    for frame in heard((OFF, 4), seed=5, t_ns=LATER_NS + 4 * 10**9).frames():
        faulty.add(frame)
    found = verdicts(RULED, ruled, faulty)
    assert sum(v.scored and v.score > 1 for v in found) == sum(v.t_ns <= LATER_NS + 4 * 10**9 for v in found)


def test_a_change_of_mode_is_not_scored(ruled: BankSet) -> None:
    found = verdicts(RULED, ruled, heard((IDLE, 6.25), (FULL, 6), seed=3, t_ns=LATER_NS))
    assert max(v.score for v in found if v.scored) < 1
    changing = [(v.t_ns - LATER_NS) / 1e9 for v in found if v.transient]
    assert 6.5 in changing
    assert all(6.25 < t <= 7.75 for t in changing)
    assert {v.mode for v in found if (v.t_ns - LATER_NS) / 1e9 > 8} == {"full"}


def test_a_press_between_two_strokes_does_not_stand() -> None:
    config = machine(VIBRATION)

    def strokes(recording: Recording) -> Recording:
        out = Recording()
        for frame in recording.frames():
            t = (frame.t_ns + np.arange(len(frame.samples)) * (1e9 / frame.rate_hz)) / 1e9
            beat = np.where((t % 0.7) < 0.3, 1.0, 0.01)
            out.add(Frame("press-07", "vib", frame.t_ns, frame.rate_hz, (frame.samples * beat).astype(np.float32)))
        return out

    bank, _ = enrol(config, strokes(running(config, seconds=40)))
    later = verdicts(config, bank, strokes(running(config, seconds=20, seed=2, t_ns=LATER_NS)))
    assert all(v.scored for v in later)
    assert max(v.score for v in later) < 1


def test_an_old_bank_that_does_not_know_how_quiet_its_windows_are_is_judged_as_before(plain: BankSet) -> None:
    def unknowing(bank: Bank) -> Bank:
        return replace(bank, channels=tuple(replace(c, quietest=None) for c in bank.channels))

    old = BankSet((unknowing(plain.banks[1]),))
    stopping = heard((FULL, 5.75), (OFF, 4), seed=3, t_ns=LATER_NS)
    for bank, late in ((old, True), (BankSet((plain.banks[1],)), False)):
        found = verdicts(PLAIN, bank, stopping)
        assert any(v.scored and v.t_ns > LATER_NS + 5.75e9 for v in found) is late


# Pure in event time


@cache
def of_two_modes() -> BankSet:
    return enrol(RULED, heard((IDLE, 30), (FULL, 30)))[0]


@settings(max_examples=12)
@given(block_s=st.sampled_from([0.031, 0.1, 0.37, 0.7]), batch=st.integers(1, 9))
def test_verdicts_do_not_depend_on_how_samples_came(block_s: float, batch: int) -> None:
    ruled = of_two_modes()
    recording = heard((OFF, 2), (IDLE, 3), (FULL, 3), (TURBO, 3), (FULL, 2), (OFF, 2), seed=6, t_ns=LATER_NS)

    def judged(block: float, size: int) -> list[tuple[object, ...]]:
        gatherer = Gatherer(RULED, WINDOW)
        cut = []
        for frame in recut(recording, block):
            cut += gatherer.push(frame)
        cut += gatherer.flush()
        judge = MachineJudge(RULED, WINDOW, ruled, frontend=FRONTEND)
        pipeline = Pipeline(frontend=FRONTEND, embedder=FakeEmbedder(), judges={"press-07": judge})
        found = [v for n in range(0, len(cut), size) for v in pipeline.process(cut[n : n + size])]
        return [(v.t_ns, v.mode, v.transient, v.unknown_mode, v.running, v.scored, round(v.score, 4)) for v in found]

    assert judged(block_s, batch) == judged(0.5, 64)


def recut(recording: Recording, block_s: float) -> list[Frame]:
    out: list[Frame] = []
    for name in recording.channels:
        frames = [f for f in recording.frames() if f.channel == name]
        samples, rate = np.concatenate([f.samples for f in frames]), frames[0].rate_hz
        step = max(1, round(block_s * rate))
        for first in range(0, len(samples), step):
            t_ns = frames[0].t_ns + round(first * 1e9 / rate)
            out.append(Frame("press-07", name, t_ns, rate, samples[first : first + step]))
    return sorted(out, key=lambda f: f.t_ns + len(f.samples) * 1e9 / f.rate_hz)
