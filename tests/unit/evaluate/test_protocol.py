"""Plans: what trains, what is judged, and that no split leaks."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from evaluate_plants import write_set

from fisher_models.errors import RecordingError
from fisher_models.evaluate.features import Features, Store
from fisher_models.evaluate.local import LOCAL
from fisher_models.evaluate.protocol import Episode, Protocol, Sides, plan
from fisher_models.evaluate.takes import Cut, Take, read_takes, rules

HINT = Sides(rules("split_hint=train"), rules("split_hint=test"))
DIAGNOSIS = Protocol(name="p", task="diagnosis", folders=("set",), channels=("x",), cut=Cut(0.5), sides=HINT)
ANOMALY = replace(DIAGNOSIS, task="anomaly")


@pytest.fixture
def takes(tmp_path: Path) -> list[Take]:
    return read_takes(write_set(tmp_path / "set"), channels=("x",))


def _plan(protocol: Protocol, takes: list[Take]) -> list[Episode]:
    features = Features(takes, protocol.cut, Store())
    return plan(protocol, takes, features.layout(marks=protocol.task == "onset"))


def test_stated_sides_are_kept_apart_and_every_window_is_a_row(takes: list[Take]) -> None:
    (episode,) = _plan(DIAGNOSIS, takes)
    assert len(episode.train) == len(episode.test) == 6 * 6  # 6 recordings of 3 s on each side
    assert not set(episode.train) & set(episode.test)
    assert sorted(set(episode.truth.tolist())) == ["loose", "normal", "worn"]
    assert len(set(episode.units.tolist())) == 6


def test_an_anomaly_protocol_learns_from_normal_windows_only(takes: list[Take]) -> None:
    (episode,) = _plan(ANOMALY, takes)
    assert len(episode.train) == 2 * 6
    assert set(episode.learnt.tolist()) == {"normal"}
    assert episode.truth.sum() == 4 * 6
    assert (~episode.truth).sum() == 2 * 6


def test_leaving_a_specimen_out_never_shows_it_in_training(takes: list[Take]) -> None:
    episodes = _plan(replace(DIAGNOSIS, sides=None, leave_out="specimen"), takes)
    assert len(episodes) == 6
    judged = [set(episode.files.tolist()) for episode in episodes]
    assert sorted(len(files) for files in judged) == [2] * 6
    assert set.union(*judged) == {take.fields["file"] for take in takes}
    for episode in episodes:
        assert len(episode.train) == 10 * 6


def test_folds_divide_the_values_and_judge_each_once(takes: list[Take]) -> None:
    episodes = _plan(replace(DIAGNOSIS, sides=None, leave_out="recording_id", folds=5), takes)
    rows = np.concatenate([episode.test for episode in episodes])
    assert len(episodes) == 5
    assert sorted(rows.tolist()) == list(range(12 * 6))


def test_leaving_normal_recordings_out_judges_them_against_every_anomaly(takes: list[Take]) -> None:
    episodes = _plan(replace(ANOMALY, sides=None, leave_out="recording_id"), takes)
    assert len(episodes) == 4
    for episode in episodes:
        assert len(episode.train) == 3 * 6
        assert episode.truth.sum() == 8 * 6
        assert (~episode.truth).sum() == 6


def test_an_unseen_load_is_judged_with_its_own_anomalies_only(takes: list[Take]) -> None:
    episodes = _plan(replace(ANOMALY, sides=None, leave_out="load_or_speed"), takes)
    assert len(episodes) == 2
    for load, episode in zip("01", episodes, strict=True):
        assert all(name.endswith(f"{load}.wav") for name in episode.files.tolist())


def test_a_recording_on_both_sides_is_refused(takes: list[Take]) -> None:
    # one recording in two files, as a long one is published
    joined = [Take({**take.fields, "recording_id": take.fields["specimen"]}, take.channels) for take in takes]
    with pytest.raises(RecordingError, match="on both sides of the split"):
        _plan(DIAGNOSIS, joined)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"sides": Sides(rules("label=normal"), rules("label!=normal"))}, "one class only"),
        ({"task": "anomaly", "sides": Sides(rules("label=worn"), rules("label=normal"))}, "no windows to learn from"),
        ({"task": "anomaly", "sides": Sides(rules("label=normal"), rules("label=worn"))}, "no normal"),
        ({"sides": Sides(rules("label=x"), rules("label=normal"))}, "no windows to learn from"),
        ({"sides": None, "leave_out": "colour"}, "no column 'colour'"),
        ({"sides": None, "leave_out": "scale"}, "fewer than two values"),
        ({"task": "onset", "sides": None, "normal_s": 1.0}, "cannot be read"),
    ],
)
def test_a_plan_that_cannot_be_made_says_why(takes: list[Take], change: dict[str, object], says: str) -> None:
    with pytest.raises(RecordingError, match=says):
        _plan(replace(DIAGNOSIS, **change), takes)


@pytest.mark.parametrize("change", [{"leave_out": "specimen"}, {"sides": None}, {"task": "onset", "sides": None}])
def test_a_protocol_that_contradicts_itself_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(RecordingError, match="p: "):
        replace(DIAGNOSIS, **change)


def test_a_run_to_failure_begins_normal_and_ends_failed(takes: list[Take]) -> None:
    episodes = _plan(replace(DIAGNOSIS, task="run-to-failure", sides=None, cut=Cut(0.15)), takes)
    assert len(episodes) == 12  # 20 windows each
    assert episodes[0].train.tolist() == list(range(5))
    assert episodes[0].test.tolist() == [*range(5, 12), 18, 19]
    assert episodes[0].truth.tolist() == [False] * 7 + [True] * 2


def test_an_onset_learns_the_beginning_and_judges_the_rest_by_its_marks(takes: list[Take]) -> None:
    protocol = replace(DIAGNOSIS, task="onset", sides=None, cut=Cut(0.5, 0.25), normal_s=1.5)
    for take in takes:
        marks = np.zeros(6000, np.uint8)
        marks[4000:5000] = 1
        np.save(take.channels[0].path.with_suffix(".labels.npy"), marks)
    episode = _plan(protocol, takes)[3]
    ends = 0.5 + 0.25 * np.arange(11)
    assert len(episode.train) == (ends <= 1.5).sum()
    assert episode.truth.tolist() == [2.0 < end <= 2.5 for end in ends[ends > 1.5]]
    np.save(takes[0].channels[0].path.with_suffix(".labels.npy"), np.ones(6000, np.uint8))
    with pytest.raises(RecordingError, match=r"first 1\.5 s are not all normal"):
        _plan(protocol, takes)


def test_blocks_of_windows_are_drawn_where_recordings_are_few(takes: list[Take]) -> None:
    (episode,) = _plan(replace(DIAGNOSIS, unit_windows=4), takes)
    assert episode.units[:6].tolist() == ["rec_normal_a1/0"] * 4 + ["rec_normal_a1/1"] * 2


def test_mixed_rates_are_refused_instead_of_compared(tmp_path: Path) -> None:
    manifest = write_set(tmp_path)
    lines = manifest.read_text().splitlines()
    manifest.write_text("\n".join([*lines[:-2], *(line.replace(",2000,", ",1000,") for line in lines[-2:])]) + "\n")
    with pytest.raises(RecordingError, match="windows of 1000, 2000 Hz"):
        Features(read_takes(manifest, channels=("x",)), Cut(0.5), Store())


def test_every_local_protocol_states_a_figure_to_be_held_against() -> None:
    assert len(LOCAL) == 21
    for protocol in LOCAL.values():
        assert protocol.reached
        assert all(0 < value < 1 for value in protocol.reached.values())
