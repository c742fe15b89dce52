"""Enrolling several modes: what is split off, what is learnt, what is said, and how the banks are kept."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes import T0_NS, WINDOW, FakeEmbedder, bundle, channel
from fisher_agent.bankcheck import Setting
from fisher_agent.bankset import BankSet
from fisher_agent.cluster import groups
from fisher_agent.errors import BadFile, BankMismatch, ConfigError, NotLearnt
from fisher_agent.modelearning import learn_fault, rebuild
from fisher_agent.split import split
from fisher_agent.stages import Frame, Tag
from fisher_agent.survey import moments
from fisher_agent.waveforms import Recording
from modal import CLUSTERED, FULL, IDLE, LATER_NS, OFF, PLAIN, RULED, TAGGED, TURBO, enrol, heard, model, verdicts

SECOND = 10**9
NOTHING = np.zeros(0, np.float32)


def tag(word: str, at_s: float) -> Tag:
    return Tag("press-07", "", T0_NS + round(at_s * SECOND), 1.0, NOTHING, word=word)


# What is split off


def test_a_rule_splits_a_recording_at_its_changes_and_stops() -> None:
    parts = split(heard((IDLE, 20), (FULL, 20), (OFF, 5), (FULL, 10)), RULED, WINDOW)
    assert set(parts.parts) == {"idle", "full"}
    idle, full = parts.parts["idle"], parts.parts["full"]
    assert 18 <= idle.duration_s <= 20
    assert 26 <= full.duration_s <= 30
    ends = [m.end_ns for m in moments(idle, RULED, WINDOW)]
    assert min(ends) >= T0_NS
    assert max(ends) <= T0_NS + 20 * SECOND


def test_no_window_of_a_part_touches_another_mode_or_a_stop() -> None:
    recording = heard((IDLE, 10.3), (FULL, 10.4), (IDLE, 10.2), (OFF, 3.3), (IDLE, 8))
    idle_s = [(0, 10.3), (20.7, 30.9), (34.2, 42.2)]
    for m in moments(split(recording, RULED, WINDOW).parts["idle"], RULED, WINDOW):
        begin, end = (m.end_ns - T0_NS) / SECOND - 1, (m.end_ns - T0_NS) / SECOND
        assert any(a <= begin and end <= b for a, b in idle_s), (begin, end)


def test_a_tag_splits_a_recording_by_its_words() -> None:
    recording = heard((IDLE, 20), (FULL, 20))
    for word, at_s in (("idle", -1), ("full", 20), ("full", 30)):
        recording.add(tag(word, at_s))
    parts = split(recording, TAGGED, WINDOW)
    assert {m: round(r.duration_s) for m, r in parts.parts.items()} == {"idle": 19, "full": 19}


def test_without_a_word_of_the_tag_the_mode_must_be_named() -> None:
    with pytest.raises(NotLearnt, match="nothing was said of the mode of press-07 on its tag 'plc/mode'"):
        split(heard((IDLE, 20)), TAGGED, WINDOW)
    assert set(split(heard((IDLE, 20)), TAGGED, WINDOW, mode="idle").parts) == {"idle"}


def test_a_named_mode_is_the_only_one_that_is_taken() -> None:
    parts = split(heard((IDLE, 20), (FULL, 20)), RULED, WINDOW, mode="full")
    assert set(parts.parts) == {"full"}
    assert parts.elsewhere_s == pytest.approx(19, abs=1)


def test_a_mode_that_is_not_configured_or_is_called_unknown_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"no mode 'turbo'; machines.mode names: idle, full"):
        split(heard((IDLE, 5)), RULED, WINDOW, mode="turbo")
    with pytest.raises(ConfigError, match="may be called 'unknown'"):
        split(heard((IDLE, 5)), PLAIN, WINDOW, mode="unknown")


def test_a_machine_whose_modes_nothing_tells_has_one() -> None:
    recording = heard((IDLE, 5))
    assert split(recording, PLAIN, WINDOW).parts == {"default": recording}


@pytest.mark.parametrize("hop_s", [0.5, 0.3])
def test_the_windows_of_a_part_are_those_of_the_recording(hop_s: float) -> None:
    window = WINDOW.model_copy(update={"hop_s": hop_s})
    recording = heard((IDLE, 10), (FULL, 10))
    whole = {m.end_ns: m for m in moments(recording, RULED, window)}
    part = list(moments(split(recording, RULED, window).parts["full"], RULED, window))
    assert len(part) >= 7.5 / hop_s
    for m in part:
        for mine, theirs in zip(m.windows, whole[m.end_ns].windows, strict=True):
            assert mine.t_ns == theirs.t_ns
            assert np.array_equal(mine.samples, theirs.samples)


@given(st.lists(st.integers(1, 4000), min_size=1, max_size=8), st.integers(20, 500), st.integers(0, 3000))
def test_within_keeps_exactly_the_samples_of_its_times(lengths: list[int], width: int, offset: int) -> None:
    config = channel("c", 1000, kind="vibration")
    recording, at = Recording(), 0
    values = np.arange(sum(lengths), dtype=np.float32)
    for n in lengths:
        recording.add(Frame("m", config.id, at * 1_000_000, 1000.0, values[at : at + n]))
        at += n
    spans_ms = [(offset, offset + width), (offset + 2 * width, offset + 3 * width)]
    kept = recording.within(np.asarray(spans_ms, np.int64) * 1_000_000)
    got = np.concatenate([f.samples for f in kept.frames()] or [NOTHING])
    assert got.tolist() == [v for v in values.tolist() if any(a <= v < b for a, b in spans_ms)]


# Groups


def test_modes_that_differ_are_found_and_steady_running_is_one() -> None:
    two = split(heard((IDLE, 20), (FULL, 20), (IDLE, 10)), CLUSTERED, WINDOW)
    assert {m: round(r.duration_s) for m, r in two.parts.items()}.keys() == {"m1", "m2"}
    assert two.parts["m1"].duration_s == pytest.approx(29, abs=2)
    assert set(split(heard((FULL, 40)), CLUSTERED, WINDOW).parts) == {"m1"}


def test_a_slow_drift_stays_one_group_and_a_few_strange_moments_belong_to_none() -> None:
    rng = np.random.default_rng(0)
    drift = np.linspace(0, 3, 200)[:, None] + 0.1 * rng.normal(size=(200, 8))
    assert set(groups([{"c": r.astype(np.float32)} for r in drift])) == {0}
    steady = 0.1 * rng.normal(size=(60, 8))
    steady[30:34] += 3
    assert set(groups([{"c": r.astype(np.float32)} for r in steady])) == {0, -1}


def test_groups_of_a_long_enrolment_are_those_of_a_short_one() -> None:
    rng = np.random.default_rng(0)
    rows = 0.1 * rng.normal(size=(9000, 4)) + 2.0 * ((np.arange(9000) // 1000) % 2)[:, None]
    found = groups([{"c": r.astype(np.float32)} for r in rows])
    assert set(found.tolist()) <= {0, 1, -1}
    assert (found == (np.arange(9000) // 1000) % 2).mean() > 0.99


# What is learnt and said


def test_each_mode_has_its_own_windows_limits_and_level_and_gains_are_shared() -> None:
    bank, report = enrol(RULED, heard((IDLE, 30), (FULL, 40)))
    assert bank.modes == ("idle", "full")
    idle, full = (bank.mode(m) for m in ("idle", "full"))
    assert idle is not None
    assert full is not None
    assert {c.channel: c.gain for c in idle.channels} == {c.channel: c.gain for c in full.channels} == bank.gains
    assert full.channel("vib").gain * full.channel("vib").median_rms == pytest.approx(0.1)  # most was heard of it
    assert idle.channel("vib").median_rms == pytest.approx(0.5 * full.channel("vib").median_rms, rel=0.1)
    assert [(c.mode, c.enrolled) for c in report.coverage] == [("idle", True), ("full", True)]
    assert [round(c.learnt_s) for c in report.coverage] == [29, 38]
    assert "\n".join(report.lines()).count("windows without overlap") == 2


def test_a_mode_that_is_enrolled_again_leaves_the_others_as_they_are() -> None:
    first, _ = enrol(RULED, heard((IDLE, 30), (FULL, 30)))
    again, report = enrol(RULED, heard((IDLE, 20), seed=2), mode="idle", previous=first, version="v2", created_ns=9)
    assert again.modes == ("idle", "full")
    assert {b.version for b in again} == {"v2"}
    assert [b.created_ns for b in again] == [9, 7]
    was, now = first.mode("full"), again.mode("full")
    assert was is not None
    assert now is not None
    assert replace(now, version="v1").to_bytes() == was.to_bytes()
    assert again.gains == first.gains
    assert [c.learnt_s > 0 for c in report.coverage] == [True, False]


def test_enrolling_the_only_mode_again_gives_gains_of_its_own() -> None:
    first, _ = enrol(PLAIN, heard((IDLE, 20)))
    louder, _ = enrol(PLAIN, heard(((300.0, 1.0), 20)), previous=first)
    assert louder.modes == ("default",)
    assert louder.gains["vib"] == pytest.approx(0.5 * first.gains["vib"], rel=0.05)


def test_of_a_mode_with_too_little_the_report_says_so_and_the_others_are_learnt() -> None:
    bank, report = enrol(RULED, heard((IDLE, 30), (FULL, 4)))
    assert bank.modes == ("idle",)
    assert any(s.startswith("not enough data for mode full: press-07/vib gave") for s in report.too_little)
    assert "not enough data for mode full" in "\n".join(report.lines())


def test_a_mode_with_too_little_keeps_its_old_bank() -> None:
    first, _ = enrol(RULED, heard((IDLE, 30), (FULL, 30)))
    again, report = enrol(RULED, heard((IDLE, 30), (FULL, 4), seed=2), previous=first, version="v2")
    assert again.modes == ("idle", "full")
    assert any("not enough data for mode full, its old bank stays" in s for s in report.too_little)


def test_where_nothing_can_be_learnt_every_mode_is_named() -> None:
    with pytest.raises(NotLearnt, match=r"not enough data for mode idle: .*; not enough data for mode full: "):
        enrol(RULED, heard((TURBO, 20)))


def test_running_in_no_mode_is_reported() -> None:
    _, report = enrol(RULED, heard((IDLE, 30), (TURBO, 20)))
    assert any("s of running were in no mode that is learnt here" in s for s in report.notes)


def test_a_quiet_new_mode_is_learnt_and_the_operator_is_told() -> None:
    first, _ = enrol(PLAIN, heard((FULL, 20)), mode="full")
    quiet = heard(((1000.0, 0.1), 20), seed=2)
    bank, report = enrol(PLAIN, quiet, mode="crawl", previous=first, version="v2")
    assert bank.modes == ("full", "crawl")
    assert any("mode crawl has" in s and "fisher-agent rollback" in s for s in report.notes)


def test_a_fault_joins_the_banks_of_all_modes_in_which_it_ran() -> None:
    bank, _ = enrol(RULED, heard((IDLE, 30), (FULL, 30)))
    fault = {"tone_hz": 2710.37, "tone": 1.0}
    labelled, report = learn_fault(
        heard((FULL, 10), seed=4, **fault), banks=bank, fault="belt", **model(RULED, version="v2")
    )
    assert labelled.faults == ("belt",)
    assert report.reports[0].fault == "belt"
    found = verdicts(RULED, labelled, heard((FULL, 10), seed=5, t_ns=LATER_NS, **fault))
    assert {v.fault for v in found} == {"belt"}


def test_a_rebuilt_set_has_the_same_modes_and_ages() -> None:
    recording = heard((IDLE, 30), (FULL, 30))
    old, _ = enrol(RULED, recording)
    parts = split(recording, RULED, WINDOW).parts
    keys = model(RULED, version="v2", created_ns=99, embedder=FakeEmbedder(precision="int8"))
    new, _ = rebuild(parts, old, faults={}, **keys)
    assert (new.modes, new.gains, new.version) == (old.modes, old.gains, "v2")
    assert [b.created_ns for b in new] == [7, 7]
    assert {b.precision for b in new} == {"int8"}
    with pytest.raises(NotLearnt, match="kept no waveforms of full"):
        rebuild({"idle": parts["idle"]}, old, faults={}, **keys)


# The file


@pytest.fixture(scope="module")
def two() -> BankSet:
    return enrol(RULED, heard((IDLE, 20), (FULL, 20)))[0]


def test_a_set_comes_back_as_it_was_written(two: BankSet) -> None:
    again = BankSet.from_bytes(two.to_bytes())
    assert again.modes == two.modes
    assert [b.to_bytes() for b in again] == [b.to_bytes() for b in two]


def test_a_set_of_one_mode_is_the_file_that_it_always_was(two: BankSet) -> None:
    bank = two.banks[0]
    assert BankSet((bank,)).to_bytes() == bank.to_bytes()
    assert BankSet.from_bytes(bank.to_bytes()).modes == ("idle",)


@pytest.mark.parametrize("cut", [0, 4, 100, 5000, -1])
def test_a_truncated_set_is_refused(two: BankSet, cut: int) -> None:
    with pytest.raises(BadFile):
        BankSet.from_bytes(two.to_bytes()[:cut])


def test_a_changed_byte_of_any_mode_is_found(two: BankSet) -> None:
    data = bytearray(two.to_bytes())
    for at in (len(data) // 3, len(data) - 50):
        broken = bytearray(data)
        broken[at] ^= 0xFF
        with pytest.raises(BadFile):
            BankSet.from_bytes(bytes(broken))


def test_a_set_that_does_not_fit_is_refused_as_a_bank_is(two: BankSet) -> None:
    now = Setting(bundle().digest, "f32", WINDOW, RULED, judged_by="indicators")
    two.check(now)
    with pytest.raises(BankMismatch, match="banks rebuild"):
        two.check(replace(now, bundle_digest="b1"))
    other = replace(two.banks[1], channels=tuple(replace(c, gain=2 * c.gain) for c in two.banks[1].channels))
    with pytest.raises(BankMismatch, match="unlike gains"):
        BankSet((two.banks[0], other)).check(now)


def test_two_banks_of_one_mode_are_no_set(two: BankSet) -> None:
    with pytest.raises(ValueError, match="one per mode"):
        BankSet((two.banks[0], two.banks[0]))
