"""What another version would have made of the past: of stored scores where they follow, else of kept waveforms."""

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes import WINDOW, FakeEmbedder, bundle
from fisher_agent.alarmconfig import AlarmConfig
from fisher_agent.alarms import MachineAlarms
from fisher_agent.backtest import Past, count_raises, factors, recounted
from fisher_agent.bank import Bank
from fisher_agent.bankfiles import BankFiles
from fisher_agent.banks import BankLibrary, Engine
from fisher_agent.bankset import BankSet
from fisher_agent.codes import Quality
from fisher_agent.config import Config, MachineConfig
from fisher_agent.drift import LEAST_SCORES, facts, of_modes
from fisher_agent.errors import ConfigError, NotLearnt
from fisher_agent.ledger import Model
from fisher_agent.stages import Verdict
from fisher_agent.store import Store
from fisher_agent.storerows import Score
from modal import FRONTEND, FULL, IDLE, LATER_NS, PLAIN, RULED, TAGGED, enrol, heard, verdicts

ALARM = AlarmConfig()
DAY_NS = 86_400 * 10**9


# Counting


@given(
    st.lists(st.sampled_from([0.5, 0.97, 1.0, 3.0]), max_size=60),
    st.integers(1, 4),
    st.integers(0, 3),
    st.integers(1, 4),
)
def test_raises_are_counted_as_the_alarm_counts_them(scores: list[float], on: int, more: int, off: int) -> None:
    config = AlarmConfig(on_delay_windows=on, on_delay_of=on + more, off_delay_windows=off)
    alarms = MachineAlarms("press-07", ["vib"], config)
    for n, score in enumerate(scores):
        verdict = Verdict(
            machine="press-07", t_ns=n * 10**9, score=score, p_value=0.5, mode="default", running=True, enrolled=True,
            fault=None, fault_confidence=0.0, quality=Quality.GOOD,
        )  # fmt: skip
        alarms.verdict(verdict, fault_code=0)
    assert count_raises(scores, config) == alarms.occurrence


# What follows from stored scores


@pytest.fixture(scope="module")
def bank() -> BankSet:
    return enrol(PLAIN, heard((FULL, 30)))[0]


def with_limit(bank: Bank, factor: float) -> Bank:
    return replace(bank, limit=factor * bank.limit)


def with_channel_limits(bank: Bank, factor: float) -> Bank:
    return replace(bank, channels=tuple(replace(c, feature_limit=factor * c.feature_limit) for c in bank.channels))


@pytest.mark.parametrize("change", [with_limit, with_channel_limits])
def test_scores_by_other_limits_follow_exactly_from_those_that_are_stored(bank: BankSet, change: Any) -> None:
    new = BankSet((change(bank.banks[0], 1.3),))
    recording = heard((FULL, 10), seed=4, t_ns=LATER_NS, tone_hz=2710.37, tone=0.3)
    told = factors(bank, new, stated=False)
    assert told is not None
    was, now = ([v.score for v in verdicts(PLAIN, b, recording)] for b in (bank, new))
    assert [s * told["default"] for s in was] == pytest.approx(now, rel=1e-9)


def test_of_other_windows_stored_scores_say_nothing(bank: BankSet) -> None:
    other = enrol(PLAIN, heard((FULL, 30), seed=2))[0]
    assert factors(bank, other, stated=False) is None
    assert factors(bank, enrol(PLAIN, heard((IDLE, 20)), mode="idle", previous=bank)[0], stated=False) is None


def test_channels_whose_limits_moved_apart_cannot_be_told_from_one_score(bank: BankSet) -> None:
    one = bank.banks[0]
    moved = replace(one.channels[0], feature_limit=2 * one.channels[0].feature_limit)
    assert factors(bank, BankSet((replace(one, channels=(moved, one.channels[1])),)), stated=False) is None


def test_modes_that_moved_apart_can_be_told_only_where_a_tag_says_the_mode() -> None:
    two = enrol(RULED, heard((IDLE, 20), (FULL, 20)))[0]
    new = BankSet((with_limit(two.banks[0], 2.0), two.banks[1]))
    assert factors(two, new, stated=True) == {"idle": 0.5, "full": 1.0}
    assert factors(two, new, stated=False) is None


def test_only_scores_of_the_versions_that_are_compared_take_part() -> None:
    past = [Past(n, 0.9, "default", "v1") for n in range(10)] + [
        Past(10, 5.0, "default", "v0"),
        Past(11, 5.0, "x", "v1"),
    ]
    was, would, others = recounted(past, by={"v1": {"default": 1.2}}, alarm=ALARM)
    assert (was.count, would.count, would.scores, others) == (0, 1, 10, 2)


# The library


def library(
    folder: Path, machine: MachineConfig, *, past: list[Past] | None = None, **enroll: object
) -> tuple[BankLibrary, BankFiles]:
    config = Config.model_validate(
        {
            "site": "s", "edge": "e", "state_dir": str(folder), "window": WINDOW.model_dump(),
            "machines": [machine.model_dump(exclude_none=True)], "enroll": enroll,
        }
    )  # fmt: skip
    files = BankFiles(folder / "banks")
    files.sweep()
    engine = Engine(bundle(), FRONTEND, FakeEmbedder(), Model("fake", bundle().digest, "untrained", "", "f32", ""))

    def stored(_machine: str, since_ns: int) -> Iterator[Past]:
        return iter([p for p in past or [] if p.t_ns >= since_ns])

    return BankLibrary(config, files, engine, past=stored), files


def test_a_new_version_is_tried_on_the_waveforms_of_the_old_one(tmp_path: Path) -> None:
    subject, _ = library(tmp_path, PLAIN)
    _, first = subject.learn(PLAIN, heard((FULL, 30)))
    assert first.backtest == ()
    _, same = subject.learn(PLAIN, heard((FULL, 30), seed=2))
    assert "in the 0.5 minutes of normal running kept with bank" in same.backtest[1]
    assert same.backtest[1].endswith("this alarms 0 times (59 scores)")
    _, other = subject.learn(PLAIN, heard((IDLE, 30), seed=3))
    assert "this alarms once" in other.backtest[1]
    assert "back-test: " in "\n".join(other.lines())
    assert other.as_dict()["backtest"] == list(other.backtest)


def test_without_kept_waveforms_the_back_test_says_so(tmp_path: Path) -> None:
    subject, _ = library(tmp_path, PLAIN, keep_mb=0)
    subject.learn(PLAIN, heard((FULL, 20)))
    assert "none were kept" in subject.learn(PLAIN, heard((FULL, 20), seed=2))[1].backtest[1]


def test_a_dry_run_changes_nothing(tmp_path: Path) -> None:
    subject, files = library(tmp_path, PLAIN)
    first, _ = subject.learn(PLAIN, heard((FULL, 20)))
    _, report = subject.learn(PLAIN, heard((IDLE, 20)), activate="never")
    assert report.backtest
    assert (files.active("press-07"), files.versions("press-07")) == (first.version, [first.version])


def test_a_rollback_is_tried_first_and_a_fault_does_not_change_scores(tmp_path: Path) -> None:
    past: list[Past] = []
    subject, files = library(tmp_path, PLAIN, past=past)
    first, _ = subject.learn(PLAIN, heard((FULL, 20)))
    second, report = subject.learn(PLAIN, heard((FULL, 5), seed=2, tone_hz=2710.37, tone=1.0), fault="belt")
    assert "0 stored scores" in report.backtest[0]
    now_ns = time.time_ns()
    past += [Past(now_ns - n * DAY_NS, 0.2, "default", second.version) for n in range(25, 15, -1)]
    past += [Past(now_ns - 15 * DAY_NS + n, 2.0, "default", second.version) for n in range(10)]
    version, said = subject.rollback(PLAIN, activate=False)
    assert (version, files.active("press-07")) == (first.version, second.version)
    assert said == [
        "this would have alarmed once in the last 10 days (20 stored scores; the limits of their time: once)"
    ]
    assert subject.rollback(PLAIN)[0] == files.active("press-07") == first.version


def test_what_waits_is_no_rollbacks_goal_until_it_is_accepted(tmp_path: Path) -> None:
    subject, files = library(tmp_path, PLAIN)
    first, _ = subject.learn(PLAIN, heard((FULL, 20)))
    waiting, _ = subject.learn(PLAIN, heard((FULL, 20), seed=2), activate="later")
    assert files.active("press-07") == first.version
    third, _ = subject.learn(PLAIN, heard((FULL, 20), seed=3))
    assert subject.rollback(PLAIN)[0] == first.version
    assert subject.accept(PLAIN)[0] == files.active("press-07") == waiting.version
    with pytest.raises(ConfigError, match="waits to be accepted"):
        subject.accept(PLAIN)
    files.activate("press-07", third.version)
    assert subject.rollback(PLAIN)[0] == waiting.version


def test_modes_are_kept_with_their_waveforms_over_enrolments_and_rebuilds(tmp_path: Path) -> None:
    subject, files = library(tmp_path, RULED)
    subject.learn(RULED, heard((IDLE, 20), (FULL, 20)))
    subject.learn(RULED, heard((IDLE, 20), seed=2), mode="idle")
    rebuilt, _ = subject.rebuild(RULED)
    assert rebuilt.modes == ("idle", "full")
    assert files.manifest("press-07", rebuilt.version)["modes"] == ["idle", "full"]
    loaded, problem = subject.load(RULED)
    assert (problem, loaded is not None and loaded.modes) == ("", ("idle", "full"))


def test_waveforms_that_were_kept_before_there_were_modes_are_those_of_the_banks_mode(tmp_path: Path) -> None:
    subject, _ = library(tmp_path, PLAIN)
    subject.learn(PLAIN, heard((FULL, 20)))  # kept under "", as ever
    named = subject.rename(PLAIN, {"default": "full"})
    assert named.modes == ("full",)
    assert subject.rebuild(PLAIN)[0].modes == ("full",)


def test_modes_that_were_found_can_be_named(tmp_path: Path) -> None:
    clustered = PLAIN.model_copy(update={"mode": RULED.mode and type(RULED.mode)(cluster=True)})
    subject, _ = library(tmp_path, clustered)
    bank, _ = subject.learn(clustered, heard((IDLE, 20), (FULL, 20)))
    assert bank.modes == ("m1", "m2")
    assert subject.rename(clustered, {"m1": "idle", "m2": "full"}).modes == ("idle", "full")
    assert subject.rename(clustered, {"idle": "full", "full": "idle"}).modes == ("full", "idle")
    for names, said in (
        ({"m1": "a"}, "no mode m1"),
        ({"idle": "full"}, "the same name"),
        ({"idle": "a b"}, "cannot name a mode"),
        ({"idle": "unknown"}, "cannot name a mode"),
    ):
        with pytest.raises(ConfigError, match=said):
            subject.rename(clustered, names)
    (tmp_path / "other").mkdir()
    with pytest.raises(NotLearnt, match="not enrolled"):
        library(tmp_path / "other", PLAIN)[0].rename(PLAIN, {"a": "b"})


def test_banks_of_modes_that_left_the_configuration_are_not_carried_on(tmp_path: Path) -> None:
    subject, _ = library(tmp_path, PLAIN)
    subject.learn(PLAIN, heard((FULL, 20)))
    bank, _ = subject.learn(RULED, heard((FULL, 20), (IDLE, 20), seed=2))
    assert bank.modes == ("idle", "full")


def test_a_tagged_machine_is_tried_in_the_mode_that_was_kept(tmp_path: Path) -> None:
    subject, _ = library(tmp_path, TAGGED)
    subject.learn(TAGGED, heard((IDLE, 20)), mode="idle")
    _, report = subject.learn(TAGGED, heard((FULL, 20)), mode="full")
    assert report.backtest[1].endswith("this alarms 0 times (39 scores)")


# Drift


def scored(bank: BankSet, scores: list[float]) -> Any:
    (found,) = of_modes(bank, {"default": scores}, now_ns=7 + 3 * DAY_NS)
    return found


def test_normal_scores_are_no_drift_and_the_age_is_told(bank: BankSet) -> None:
    found = scored(bank, np.resize(bank.banks[0].calibration, 500).tolist())
    assert not found.drifted
    assert found.text == ""
    assert (found.age_days, abs(found.shift) < 0.3) == (3.0, True)
    assert facts([found])["bank_age_days"] == 3.0


def test_a_day_that_lies_where_a_tenth_of_the_enrolment_did_is_a_drift(bank: BankSet) -> None:
    moved = np.linspace(0.75, 0.99, 500).tolist() + [5.0] * 50  # those over the limit are alarms, not normal running
    found = scored(bank, moved)
    assert found.drifted
    assert found.scores == 500
    assert "has moved: median score 0.87 in the last day" in found.text
    assert facts([found])["drift_text"] == found.text


def test_of_few_scores_nothing_is_said(bank: BankSet) -> None:
    found = scored(bank, [0.99] * (LEAST_SCORES - 1))
    assert (found.drifted, found.shift, found.median) == (False, 0.0, -1.0)
    assert facts([]) == {"bank_age_days": -1.0, "drift": 0.0, "drift_mode": "", "drift_text": ""}


def test_the_history_gives_every_score_with_its_mode_and_version_once(tmp_path: Path) -> None:
    rows = [Score("m", n // 2, n / 10, 0.5, 0, 0, 0, "idle", "v1") for n in range(45_001)]
    with Store.open(tmp_path, max_outbox_bytes=10**6) as store:
        store.add_scores([*rows, Score("other", 5, 9.0, 0.5, 0, 0, 0)])
        found = list(store.past("m", 100))
        assert [p.score for p in found] == [r.score for r in rows[200:]]
        assert found[0] == Past(100, 20.0, "idle", "v1")
        assert store.scores("m", limit=1)[0] == rows[-1]
        assert [p.bank for p in store.past("other", 0)] == [""]
