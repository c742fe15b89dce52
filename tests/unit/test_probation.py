from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes import WINDOW, FakeEmbedder, bundle, running
from fisher_agent import bank as bank_module
from fisher_agent.alarmconfig import AlarmConfig
from fisher_agent.alarms import MachineAlarms
from fisher_agent.bank import Bank
from fisher_agent.bankfiles import BankFiles
from fisher_agent.banks import BankLibrary, Engine
from fisher_agent.codes import Quality
from fisher_agent.commands import Command
from fisher_agent.config import Config
from fisher_agent.enrolment import learn
from fisher_agent.errors import BadFile, ConfigError
from fisher_agent.ledger import Model
from fisher_agent.probation import DAY_NS, DELAYED, OVER, REPLACED, SUPPORTED, Probation, follow, words
from fisher_agent.stages import Verdict
from fisher_agent.store import Store
from unit.test_enrolment import FRONTEND, PRESS

ALARM = AlarmConfig(on_delay_windows=2, off_delay_windows=2)
MACHINE = PRESS.model_copy(update={"alarm": ALARM})
BORN_NS = 1_795_000_000_000_000_000


@pytest.fixture(scope="module")
def bank() -> Bank:
    return learn(
        running(seconds=60), machine=MACHINE, window=WINDOW, bundle=bundle(), frontend=FRONTEND,
        embedder=FakeEmbedder(), version="v1", created_ns=BORN_NS,
    )[0]  # fmt: skip


@pytest.fixture(scope="module")
def begun(bank: Bank) -> Probation:
    found = Probation.begin(bank, ALARM)
    assert found is not None
    return found


def verdict(score: float, k: int, *, version: str = "v1", **keys: Any) -> Verdict:
    plain = Verdict("press-07", k, score, 0.5, "default", True, True, None, 0.0, Quality.GOOD, bank=version)
    return replace(plain, **keys)


class Life:
    """A probation beside the alarms that it looks at."""

    def __init__(self, probation: Probation) -> None:
        self.probation = probation
        self.alarms = MachineAlarms("press-07", ["vib"], ALARM)
        self.k = 0

    def see(self, *scores: float, **keys: Any) -> "Life":
        for score in scores:
            self.k += 1
            one = verdict(score, self.k, **keys)
            self.alarms.verdict(one, fault_code=0)
            self.probation = self.probation.take(one, self.alarms.anomaly)
        return self

    def blocks(self, n: int, score: float = 0.5) -> "Life":
        """So many whole blocks, the first of which needs a run more to begin."""
        return self.see(*[score] * (n * self.probation.calibrated.blocks.windows))


def same(a: Probation, b: Probation) -> bool:
    return (a.body, a.top) == (b.body, b.top)


# What it begins with


def test_an_enrolment_too_short_for_its_budget_begins_a_probation_that_knows_its_blocks(
    bank: Bank, begun: Probation
) -> None:
    assert bank.calibrated is not None
    assert begun.calibrated.blocks.count == bank.calibrated.blocks.count > 10
    assert begun.limit == bank.limit == bank.calibrated.enrolled_limit
    facts = begun.facts(BORN_NS + round(3.8 * DAY_NS))
    assert facts["asked"] == "one per 30 days"
    assert "extrapolated; confirm after probation" in facts["false_alarms"]
    assert words(facts) == "probation, 3.2 days left"


def test_there_is_none_where_the_budget_is_supported_turned_off_or_unknown(bank: Bank) -> None:
    assert bank.calibrated is not None
    loose = replace(bank, calibrated=replace(bank.calibrated, budget=AlarmConfig(false_alarms="1 per min").budget))
    assert Probation.begin(loose, ALARM) is None
    assert Probation.begin(bank, AlarmConfig(probation_days=0)) is None
    assert Probation.begin(replace(bank, calibrated=None), ALARM) is None
    assert words({}) == ""


# What it learns


def test_blocks_of_normal_running_are_learnt_as_ratios_to_the_channel_limits(begun: Probation) -> None:
    life = Life(begun).see(0.9).blocks(3, 0.7)
    assert life.probation.learnt == 3
    assert life.probation.calibrated.blocks.count == begun.calibrated.blocks.count + 3
    assert np.isclose(life.probation.calibrated.blocks.top, 0.7 * begun.limit).sum() == 3


def test_an_alarm_is_not_learnt_from_until_an_operator_calls_it_false(begun: Probation) -> None:
    life = Life(begun).see(0.5).blocks(2).blocks(1, 1.2).blocks(2)
    now = life.probation
    assert (now.learnt, len(now.pending)) == (3, 2)  # it takes the next block to clear
    assert max(now.calibrated.blocks.top) < now.limit
    with pytest.raises(ConfigError, match="no block of occurrence 7 waits to be called normal; those that do: 1"):
        now.called_false(7)
    false = now.called_false(1)
    assert (false.learnt, false.pending) == (5, ())
    assert max(false.calibrated.blocks.top) == pytest.approx(1.2 * now.limit)


def test_an_acknowledged_alarm_is_still_not_normal(begun: Probation) -> None:
    life = Life(begun).see(0.5).blocks(1).blocks(1, 1.2)
    assert life.alarms.command(Command("ack", "press-07", occurrence=1), 1).ok
    assert life.blocks(2, 1.2).probation.learnt == 1


def test_a_severe_verdict_is_never_normal_even_in_an_alarm_that_is_called_false(begun: Probation) -> None:
    life = Life(begun).see(0.5).blocks(1, 1.2).see(2.5).blocks(2, 1.2)
    assert life.probation.left_out == 1
    assert life.probation.called_false(1).left_out == 1
    assert max(life.probation.called_false(1).calibrated.blocks.top) < 1.3 * begun.limit


def test_what_was_not_scored_or_judged_by_another_bank_says_nothing(begun: Probation) -> None:
    life = Life(begun).see(0.5)
    before = life.probation
    life.see(0.0, running=False).see(0.3, version="v0").see(float("nan")).see(0.4, quality=Quality.BAD)
    assert same(life.probation, before)


@given(st.lists(st.sampled_from([0.3, 0.8, 0.99, 1.0, 1.3, 2.0, 5.0]), max_size=60), st.booleans())
def test_no_block_over_the_limit_is_learnt_by_itself_and_every_block_is_accounted_for(
    begun: Probation, scores: list[float], switched: bool
) -> None:
    life = Life(begun).see(*scores)
    if switched:  # to a lower limit, while the alarm may be counting up
        life.probation = replace(life.probation, bank="v2", limit=0.75 * begun.limit)
        life.see(*scores, version="v2")
    now = life.probation
    count = now.learnt + now.left_out + len(now.pending)
    runs = max(0, len(scores) * (1 + switched) - 1)
    assert (count, now.filled) == divmod(runs, now.calibrated.blocks.windows)
    fresh = [x for x in now.calibrated.blocks.top if x not in begun.calibrated.blocks.top]
    assert all(x < begun.limit for x in fresh)


# Restarts


@given(st.lists(st.floats(0, 3), max_size=40), st.integers(0, 40))
def test_a_restart_at_any_moment_changes_nothing(begun: Probation, scores: list[float], at: int) -> None:
    whole = Life(begun).see(*scores)
    cut = Life(begun).see(*scores[:at])
    cut.probation = Probation.restore(cut.probation.body, cut.probation.top)
    cut.see(*scores[at:])
    assert same(cut.probation, whole.probation)
    assert cut.probation.refined() == whole.probation.refined()


def test_what_is_no_probation_is_refused(begun: Probation) -> None:
    for body, top in (("", b""), ("{}", b""), (begun.body, begun.top[:-8]), (begun.body, b"1"), ("[1]", begun.top)):
        with pytest.raises(BadFile, match="not a probation"):
            Probation.restore(body, top)


def test_it_is_kept_in_the_state_store_and_the_maxima_are_written_only_where_they_changed(
    tmp_path: Path, begun: Probation
) -> None:
    with Store.open(tmp_path, max_outbox_bytes=10**6) as store:
        assert store.probation("press-07") is None
        store.save_probation("press-07", begun.body, begun.top)
        later = Life(begun).see(0.5).probation
        store.save_probation("press-07", later.body, None)
    with Store.open(tmp_path, max_outbox_bytes=10**6) as store:
        kept = store.probation("press-07")
        assert kept is not None
        assert same(Probation.restore(*kept), later)
        store.save_probation("press-07", None, None)
        assert store.probation("press-07") is None


# What it does to the limit


@given(st.lists(st.tuples(st.integers(1, 4), st.floats(0.1, 3)), max_size=30), st.floats(1.0, 1.6), st.floats(0.5, 3))
def test_the_limit_is_never_under_the_channels_own_nor_far_over_what_was_enrolled(
    begun: Probation, life: list[tuple[int, float]], margin: float, tail: float
) -> None:
    strange = replace(begun.calibrated, margin_limit=margin, enrolled_limit=max(margin, tail))
    now = Life(replace(begun, calibrated=strange, limit=max(margin, tail)))
    for blocks, score in life:
        now.blocks(blocks, score)
    limit = now.probation.refined()
    if limit is not None:
        assert 1.0 <= margin <= limit <= max(margin, 1.25 * strange.enrolled_limit)
        assert abs(limit / now.probation.limit - 1) >= 0.01
        if now.probation.left_out or now.probation.pending:
            assert limit >= now.probation.limit


def test_quiet_weeks_bring_a_limit_down_that_was_extrapolated_from_little(begun: Probation) -> None:
    rough = begun.calibrated.blocks.top[:12] * np.linspace(1.2, 0.6, 12)
    little = replace(begun.calibrated.blocks, count=12, top=np.sort(rough)[::-1])
    wide = replace(begun.calibrated, blocks=little, margin_limit=1.0)
    wide = replace(wide, enrolled_limit=wide.limit())
    life = Life(replace(begun, calibrated=wide, limit=wide.enrolled_limit))
    rng = np.random.default_rng(0)
    life.see(*(rng.normal(0.7, 0.03, 3000) / wide.enrolled_limit))
    limit = life.probation.refined()
    assert limit is not None
    assert limit < 0.95 * wide.enrolled_limit
    # One alarm that nobody called false, and it may not come down: what was left out may be what matters.
    life.blocks(3, 1.5)
    assert life.probation.refined() is None


def test_it_is_looked_at_once_a_day_and_at_the_end(begun: Probation) -> None:
    assert not begun.due(BORN_NS + DAY_NS - 1)
    assert begun.due(BORN_NS + DAY_NS)
    day = begun.set_anew(BORN_NS + DAY_NS)
    assert not day.due(BORN_NS + 2 * DAY_NS - 1)
    assert not day.checked(BORN_NS + 7 * DAY_NS - 1).ended
    over = day.checked(BORN_NS + 7 * DAY_NS)
    assert over.ended == OVER
    assert over.due(BORN_NS + 7 * DAY_NS)
    assert not over.set_anew(BORN_NS + 7 * DAY_NS).due(BORN_NS + 9 * DAY_NS)
    assert same(over, Life(over).blocks(2).probation)


def test_it_ends_when_the_budget_is_supported_or_an_operator_confirms(begun: Probation) -> None:
    loose = begun.configured(ALARM.model_copy(update={"false_alarms": "1 per min"}))
    assert loose.checked(BORN_NS).ended == SUPPORTED
    confirmed = begun.confirmed("ana")
    assert confirmed.ended == "confirmed by ana"
    assert confirmed.due(BORN_NS)
    assert words(confirmed.facts(BORN_NS)) == ""
    with pytest.raises(ConfigError, match="not on probation: confirmed by ana"):
        confirmed.confirmed("ben")


# Versions


def test_a_newer_enrolment_begins_another_one_and_a_rollback_ends_it(bank: Bank, begun: Probation) -> None:
    assert bank.calibrated is not None
    learnt = Life(begun).see(0.5).blocks(3).probation
    again = replace(bank, version="v9", created_ns=BORN_NS + 5, calibrated=replace(bank.calibrated, since_s=9e9))
    other = follow(learnt, again, ALARM)
    assert other is not None
    assert (other.bank, other.learnt) == ("v9", 0)
    older = replace(bank, version="v0", created_ns=BORN_NS - 5)
    back = follow(learnt, older, ALARM)
    assert back is not None
    assert (back.ended, back.due(BORN_NS + 9 * DAY_NS)) == (REPLACED, False)
    assert follow(learnt, None, ALARM) is learnt
    slower = follow(learnt, bank, AlarmConfig(on_delay_windows=5))
    assert slower is not None
    assert slower.ended == DELAYED


def test_another_version_of_the_same_enrolment_goes_on(bank: Bank, begun: Probation) -> None:
    learnt = Life(begun).see(0.5).blocks(3).probation
    made = learnt.bank_of(bank, 1.1 * bank.limit, version="v2", created_ns=BORN_NS + DAY_NS)
    now = follow(learnt, made, ALARM)
    assert now is not None
    assert (now.bank, now.limit, now.learnt, now.ended) == ("v2", made.limit, 3, "")
    assert now.ends_ns == learnt.ends_ns
    # A crash between the version and the state: the bank itself knows since when.
    anew = follow(None, made, ALARM)
    assert anew is not None
    assert anew.ends_ns == learnt.ends_ns
    assert anew.calibrated.blocks.count == learnt.calibrated.blocks.count


def test_a_refined_bank_gives_the_same_p_values_and_is_read_as_it_was_written(bank: Bank, begun: Probation) -> None:
    made = begun.bank_of(bank, 1.1 * bank.limit, version="v2", created_ns=BORN_NS + 1)
    assert made.calibration == pytest.approx(bank.calibration / 1.1)
    back = Bank.from_bytes(made.to_bytes())
    assert back.calibrated is not None
    assert back.limit == made.limit
    assert back.calibrated.limit() == begun.calibrated.limit()
    assert back.calibrated.blocks.top.tolist() == begun.calibrated.blocks.top.tolist()


def test_agents_from_before_budgets_read_these_banks_and_theirs_are_read(
    bank: Bank, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = bank.to_bytes()
    # What they check: no unknown key of the manifest, and a digest over all tensors.
    manifest = bank_module._read_manifest(data)
    assert set(manifest.model_dump()) == {
        "format", "machine", "version", "created_ns", "mode", "bundle_digest", "bundle_name", "precision", "length_s",
        "hop_s", "limit", "channels", "fault_labels", "fault_reach", "judged_by", "sha256",
    }  # fmt: skip
    old = replace(bank, calibrated=None)
    back = Bank.from_bytes(old.to_bytes())
    assert back.calibrated is None
    assert back.limit == bank.limit


def library(folder: Path) -> tuple[BankLibrary, BankFiles]:
    files = BankFiles(folder / "banks")
    files.sweep()
    model = Model("fake", bundle().digest, "trained", "fake", "f32", "CPU")
    config = Config(site="s", edge="e", state_dir=folder, window=WINDOW, machines=(MACHINE,))
    return BankLibrary(config, files, Engine(bundle(), FRONTEND, FakeEmbedder(), model)), files


def test_a_refined_limit_is_a_version_of_its_own_that_shares_the_waveforms_and_can_be_rolled_back(
    tmp_path: Path,
) -> None:
    banks, files = library(tmp_path)
    first, report = banks.learn(MACHINE, running(seconds=30))
    (mode,) = first.modes
    assert "false alarms: supports at most one per" in "\n".join(report.lines())
    assert report.as_dict()["promise"]["asked_per_h"] == pytest.approx(1 / 720)
    probation = Probation.begin(first.banks[0], ALARM)
    assert probation is not None
    assert banks.refine("press-07", {mode: probation}, {mode: 1.2 * first.banks[0].limit})
    second, problem = banks.load(MACHINE)
    assert problem == ""
    assert second is not None
    assert second.banks[0].limit == 1.2 * first.banks[0].limit
    assert files.manifest("press-07", second.version)["refined"]["from"] == first.version
    paths = [tmp_path / "banks" / "press-07" / b.version / "waveforms.safetensors" for b in (first, second)]
    assert paths[0].samefile(paths[1])
    assert files.waveforms("press-07", second.version) == files.waveforms("press-07", first.version)
    # The same probation again: another bank judges by now.
    assert not banks.refine("press-07", {mode: probation}, {mode: 1.3 * first.banks[0].limit})
    assert files.rollback("press-07") == first.version
    back, _ = banks.load(MACHINE)
    assert back is not None
    assert back.banks[0].limit == first.banks[0].limit
    assert banks.rebuild(MACHINE)[0].banks[0].limit == pytest.approx(first.banks[0].limit)
