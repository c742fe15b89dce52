"""DCASE Task 2: reading both layouts, banks, and the year scores by each benchmark's rules."""

from pathlib import Path

import numpy as np
import pytest
from evaluate_trees import write_dcase_2020, write_dcase_later, write_wav

from fisher_models.errors import ModelError, RecordingError
from fisher_models.evaluate.dcase import DcaseClip, read_dcase
from fisher_models.evaluate.dcase_scores import (
    RmisRules,
    Section,
    SirenRules,
    rmis_year,
    score_sections,
    siren_year,
)
from fisher_models.evaluate.metrics import Roc, harmonic_mean

FOLDERS = {"rmis": ("dev_data", "eval_data"), "siren": ("development", "evaluation")}


@pytest.mark.parametrize("layout", FOLDERS)
def test_clips_of_2020_are_read_from_their_names_and_the_list(tmp_path: Path, layout: str) -> None:
    write_dcase_2020(tmp_path, FOLDERS[layout])
    clips = read_dcase(tmp_path, year=2020, layout=layout)
    assert len(clips) == 2 * 2 * (6 + 8)
    assert {(c.subset, c.section) for c in clips} == {("dev", 0), ("eval", 1)}
    assert {c.machine for c in clips} == {"fan", "pump"}
    hidden = [c for c in clips if c.subset == "eval" and not c.train]
    assert [c.anomalous for c in hidden if c.machine == "fan"] == [False, True] * 4
    assert not any(c.target or (c.train and c.anomalous) for c in clips)


@pytest.mark.parametrize("layout", FOLDERS)
@pytest.mark.parametrize("year", [2021, 2022, 2023, 2025])
def test_clips_of_later_years_have_domains(tmp_path: Path, layout: str, year: int) -> None:
    write_dcase_later(tmp_path, year, FOLDERS[layout])
    clips = read_dcase(tmp_path, year=year, layout=layout)
    for subset in ("dev", "eval"):
        of = [c for c in clips if c.subset == subset]
        assert sum(c.train for c in of) == 9
        assert sum(c.train and c.target for c in of) == 3
        assert sum(c.anomalous and c.target for c in of) == 4
        assert {c.section for c in of} == ({0} if subset == "dev" or year >= 2023 else {3})


def test_a_list_may_lie_beside_the_clips_or_elsewhere(tmp_path: Path) -> None:
    root, lists = tmp_path / "dcase22", tmp_path / "lists"
    write_dcase_later(root, 2022, FOLDERS["siren"])
    lists.mkdir()
    name = "eval_data_list_2022.csv"
    (root / name).rename(root / "evaluation" / "eval_data_list_2022_converted.csv")
    assert len(read_dcase(root, year=2022, layout="siren")) == 50
    (root / "evaluation" / "eval_data_list_2022_converted.csv").rename(lists / name)
    with pytest.raises(RecordingError, match="need their list"):
        read_dcase(root, year=2022, layout="siren")
    assert len(read_dcase(root, year=2022, layout="siren", lists=lists)) == 50


def test_a_tree_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="neither dev_data nor eval_data"):
        read_dcase(tmp_path, year=2022, layout="rmis")
    with pytest.raises(RecordingError, match="of 2019 is not known"):
        read_dcase(tmp_path, year=2019, layout="rmis")
    write_dcase_later(tmp_path, 2022, FOLDERS["rmis"])
    listed = tmp_path / "eval_data_list_2022.csv"
    whole = listed.read_text()
    listed.write_text(whole.replace("gearbox\n", "a,b,c,d\ngearbox\n"))
    with pytest.raises(RecordingError, match="line 1: neither a machine nor"):
        read_dcase(tmp_path, year=2022, layout="rmis")
    listed.write_text("\n".join(whole.splitlines()[:-1]))
    with pytest.raises(RecordingError, match="not in the list"):
        read_dcase(tmp_path, year=2022, layout="rmis")
    listed.write_text(whole)
    odd = tmp_path / "dev_data" / "gearbox" / "test" / "section_00.wav"
    write_wav(odd, 400)
    with pytest.raises(RecordingError, match="not named as clips of 2022"):
        read_dcase(tmp_path, year=2022, layout="rmis")
    odd.rename(odd.with_name("section_00_source_test_strange_0000.wav"))
    with pytest.raises(RecordingError, match="neither normal nor anomaly"):
        read_dcase(tmp_path, year=2022, layout="rmis")


def _clips() -> tuple[list[DcaseClip], np.ndarray]:
    """Directions by angle in degrees: source bank at 0, target bank at 60; test clips at the angles given."""
    angles = [(0, False, False, True), (2, False, False, True), (60, True, False, True)]
    angles += [(3, False, False, False), (20, False, True, False), (61, True, False, False), (85, True, True, False)]
    clips = [DcaseClip(Path(str(i)), "dev", "fan", 0, t, a, tr) for i, (_, t, a, tr) in enumerate(angles)]
    radians = np.deg2rad([angle for angle, *_ in angles])
    return clips, np.stack([np.cos(radians), np.sin(radians)], 1).astype(np.float32)


def test_the_smaller_distance_to_either_bank_counts() -> None:
    clips, vectors = _clips()
    apart = 1 - np.cos(np.deg2rad([1, 18, 1, 25]))
    for two in (False, True):
        (section,) = score_sections(clips, vectors, two_banks=two, standardise=False)
        assert section.score == pytest.approx(apart, abs=1e-6)
        assert section.anomalous.tolist() == [False, True, False, True]


def test_standardised_banks_are_compared_in_deviations_over_the_test_clips() -> None:
    clips, vectors = _clips()
    (section,) = score_sections(clips, vectors, two_banks=True, standardise=True)
    source = 1 - np.cos(np.deg2rad([1, 18, 59, 83]))
    target = 1 - np.cos(np.deg2rad([57, 40, 1, 25]))
    expected = np.minimum(*((bank - bank.mean()) / bank.std() for bank in (source, target)))
    assert section.score == pytest.approx(expected, abs=1e-5)


def test_a_section_without_a_bank_is_judged_by_its_machine() -> None:
    clips, vectors = _clips()
    moved = [c if c.train else DcaseClip(c.path, "dev", "fan", 7, c.target, c.anomalous, False) for c in clips]
    (section,) = score_sections(moved, vectors, two_banks=True, standardise=False)
    assert section.section == 7
    assert section.score == pytest.approx(1 - np.cos(np.deg2rad([1, 18, 1, 25])), abs=1e-6)
    with pytest.raises(ModelError, match="no training clips"):
        score_sections([c for c in clips if not c.train], vectors[3:], two_banks=True, standardise=False)


def _section(subset: str, machine: str, number: int, seed: int) -> Section:
    rng = np.random.default_rng(seed)
    anomalous, target = np.arange(40) % 2 == 1, np.arange(40) >= 20
    return Section(subset, machine, number, rng.standard_normal(40) + anomalous, anomalous, target)


SECTIONS = [_section("dev", m, n, 10 * n + len(m)) for m in ("fan", "valve") for n in (0, 1)]
SECTIONS += [_section("eval", "fan", 2, 5)]


def _areas(s: Section, kept: np.ndarray) -> tuple[float, float]:
    roc = Roc(s.score[kept], s.anomalous[kept])
    return roc.auc(), roc.partial()


def test_rmis_2020_is_a_plain_mean_of_means() -> None:
    one = {(s.subset, s.machine, s.section): 50 * sum(_areas(s, np.ones(40, bool))) for s in SECTIONS}
    dev = np.mean([round(np.mean([one["dev", m, n] for n in (0, 1)]), 2) for m in ("fan", "valve")])
    found = rmis_year(SECTIONS, year=2020, rules=RmisRules())
    assert found["dev"] == pytest.approx(dev)
    assert found["eval"] == pytest.approx(round(one["eval", "fan", 2], 2))
    assert found["total"] == pytest.approx((dev + found["eval"]) / 2)
    harmonic = rmis_year(SECTIONS, year=2020, rules=RmisRules(harmonic_2020=True))
    assert harmonic["total"] == pytest.approx(harmonic_mean([found["dev"], found["eval"]]))


def test_rmis_2021_keeps_the_domains_apart_and_2022_shares_the_anomalies() -> None:
    s = SECTIONS[-1]
    source, target = ~s.target, s.target
    own = [100 * v for domain in (source, target) for v in _areas(s, domain)]
    assert rmis_year([s], year=2021, rules=RmisRules())["total"] == pytest.approx(harmonic_mean(own), abs=0.01)
    shared = [_areas(s, domain | s.anomalous)[0] for domain in (source, target)]
    expected = 100 * harmonic_mean([*shared, _areas(s, np.ones(40, bool))[1]])
    for year in (2022, 2025):
        assert rmis_year([s], year=year, rules=RmisRules())["total"] == pytest.approx(expected, abs=0.01)


def test_siren_takes_one_mean_over_every_value() -> None:
    everything = np.ones(40, bool)
    plain = [v for s in SECTIONS for v in _areas(s, everything)]
    assert siren_year(SECTIONS, year=2020, rules=SirenRules()) == pytest.approx(100 * np.mean(plain))
    own = [v for s in SECTIONS for domain in (~s.target, s.target) for v in _areas(s, domain)]
    assert siren_year(SECTIONS, year=2021, rules=SirenRules()) == pytest.approx(100 * harmonic_mean(own))
    later = [v for s in SECTIONS for v in (*(_areas(s, d)[0] for d in (~s.target, s.target)), _areas(s, everything)[1])]
    assert siren_year(SECTIONS, year=2023, rules=SirenRules()) == pytest.approx(100 * harmonic_mean(later))
    official = [
        v
        for s in SECTIONS
        for v in (*(_areas(s, d | s.anomalous)[0] for d in (~s.target, s.target)), _areas(s, everything)[1])
    ]
    found = siren_year(SECTIONS, year=2023, rules=SirenRules(official_auc=True))
    assert found == pytest.approx(100 * harmonic_mean(official))


def test_a_group_of_one_class_wrecks_sirens_mean_unless_it_is_skipped() -> None:
    s = SECTIONS[-1]
    lonely = Section("dev", "fan", 9, s.score, s.anomalous & ~s.target, s.target)  # the target domain has no anomaly
    assert siren_year([lonely], year=2021, rules=SirenRules()) < 1e-6
    assert siren_year([lonely], year=2021, rules=SirenRules(skip_one_class=True)) > 30
    normal = Section("dev", "fan", 9, s.score, np.zeros(40, bool), s.target)
    with pytest.raises(ModelError, match="no group of clips has both classes"):
        siren_year([normal], year=2021, rules=SirenRules(skip_one_class=True))
