"""RMIS and SIREN from files to scores: cutting, normalisation, the rules that are switched, and the command line."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from evaluate_trees import RATE, tone, write_cwru, write_dcase_2020, write_dcase_later, write_flat, write_mafaulda

from fisher_models.cli import main
from fisher_models.errors import ModelError, SignalError
from fisher_models.evaluate.benchmarks import PUBLISHED, RMIS_SETS, SIREN_SETS, Run, run_rmis, run_siren
from fisher_models.evaluate.clip_vectors import RMIS_FRAMES, clip_vectors, rmis_rule, rmis_windows, siren_rule
from fisher_models.evaluate.dcase_scores import RmisRules, SirenRules
from fisher_models.evaluate.encoders import Encoder, IndicatorEncoder, ModelEncoder
from fisher_models.evaluate.features import Store
from fisher_models.evaluate.progress import Progress
from fisher_models.frontend import Floats, Frontend, FrontendSpec

SPEC = FrontendSpec(mean=-3.0, divisor=4.3, band_bins=25)


@dataclass(slots=True)
class Seen:
    """A model that remembers what it was given, and answers with the mean over time."""

    bands: list[Floats]

    def __call__(self, bands: Floats, _centres: Floats) -> Floats:
        self.bands.append(bands)
        return bands.mean(axis=1)


def _model(seen: Seen | None = None) -> ModelEncoder:
    return ModelEncoder("m", "m-1", SPEC, seen or Seen([]))


def test_windows_of_rmis_tile_a_clip_and_end_with_it() -> None:
    samples = np.arange(25, dtype=np.float32)
    assert rmis_windows(samples, 10)[:, 0].tolist() == [-4.5] * 3
    assert len(rmis_windows(samples[:20], 10)) == 2
    assert len(rmis_windows(np.zeros(209, np.float32), 100)) == 3  # a remainder of 9 % counts,
    assert len(rmis_windows(np.zeros(204, np.float32), 100)) == 2  # one of 4 % does not
    steps = np.diff(rmis_windows(np.cumsum(np.arange(25, dtype=np.float32)), 10), axis=1)
    assert steps[:, 0].tolist() == [1, 11, 16]  # the last one is aligned to the end
    short = rmis_windows(samples[:4], 10)
    assert short.tolist() == [[-1.5, -0.5, 0.5, 1.5, 0, 0, 0, 0, 0, 0]]


@pytest.mark.parametrize("normalised", [True, False])
def test_rmis_pads_to_1024_frames_and_normalises_where_the_code_does(normalised: bool) -> None:
    seen = Seen([])
    samples = tone(440, "a", seconds=2.5)
    found = rmis_rule(2.0, normalised=normalised).embed(_model(seen), samples, RATE)
    (given,) = seen.bands
    assert given.shape[1] == RMIS_FRAMES
    expected = Frontend(SPEC).log_spectrogram(samples[: 2 * RATE], RATE)
    if not normalised:
        expected = expected * np.float32(SPEC.divisor) + np.float32(SPEC.mean)
    assert np.allclose(given[0, : len(expected)], expected[:, :25], atol=1e-4)
    assert not given[0, len(expected) :].any()
    assert found.shape == (given.shape[0] // 2 * 25,)  # the mean over two windows


def test_siren_embeds_a_whole_file_in_segments_and_pads_nothing() -> None:
    seen = Seen([])
    siren_rule(each_channel=False).embed(_model(seen), tone(440, "a", seconds=1.0), RATE)
    siren_rule(each_channel=False).embed(_model(seen), tone(440, "a", seconds=25.0), RATE)
    assert seen.bands[0].shape[1] == 96  # 98 frames in whole patches
    n_bands = len(seen.bands[0])
    assert seen.bands[1].shape[:2] == (3 * n_bands, 1024)


def test_a_file_too_short_for_a_model_is_named(tmp_path: Path) -> None:
    write_flat(tmp_path, {"a": 400.0}, seconds=0.002)
    with pytest.raises(SignalError, match=r"a\.wav: 8 samples"):
        clip_vectors(_model(), siren_rule(each_channel=False), tmp_path / "a.wav", Store())


def _run(roots: dict[str, Path], *encoders: Encoder) -> Run:
    return Run(encoders or (IndicatorEncoder(), _model()), roots, Store(), Progress())


@pytest.fixture(scope="module")
def rmis_tree(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("rmis")
    write_dcase_2020(root / "dcase20", ("dev_data", "eval_data"))
    for year in (2021, 2022):
        write_dcase_later(root / f"dcase{year - 2000}", year, ("dev_data", "eval_data"))
    labels = ("healthy", "IR", "OR")
    parts = [(i, r, c, part) for i in range(3) for r in range(3) for c in range(2) for part in "01"]
    names = {f"{labels[i]}_K{r}_N{c}_{part}_1": 300.0 + 400 * i for i, r, c, part in parts}
    write_flat(root / "pu_vib", names)
    for folder, n in (("train_cut", 6), ("test_cut", 2)):
        for i, engine in enumerate(("engine1_good", "engine2_broken")):
            write_flat(root / "idmt_engine" / folder / engine, {f"pure_{j}": 300.0 + 400 * i for j in range(n)})
    return {path.name: path for path in root.iterdir()}


def test_rmis_runs_from_files_to_one_number(rmis_tree: dict[str, Path]) -> None:
    scores = run_rmis(_run(rmis_tree), RmisRules())
    assert list(scores) == [
        "dcase20 dev", "dcase20 eval", "dcase20", "dcase21 dev", "dcase21 eval", "dcase21",
        "dcase22 dev", "dcase22 eval", "dcase22", "idmt_engine", "pu_vib",
        "anomaly detection", "fault diagnosis", "RMIS",
    ]  # fmt: skip
    for name in ("indicators", "m"):
        assert scores["dcase20"][name] > 75
        assert scores["pu_vib"][name] > 85
        assert scores["idmt_engine"][name] == 100
        years = [scores[f"dcase{year}"][name] for year in (20, 21, 22)]
        assert scores["anomaly detection"][name] == pytest.approx(np.mean(years))
        assert scores["RMIS"][name] == pytest.approx(np.mean([np.mean(years), scores["fault diagnosis"][name]]))


def test_paper_and_code_of_rmis_differ_where_they_should(rmis_tree: dict[str, Path]) -> None:
    seen = Seen([])
    roots = {key: rmis_tree[key] for key in ("dcase21", "pu_vib")}
    run_rmis(_run(roots, _model(seen)), RmisRules())
    raw = [bands.min() for bands in seen.bands]
    seen.bands.clear()
    run_rmis(_run(roots, _model(seen)), RmisRules.paper())
    normalised = [bands.min() for bands in seen.bands]
    dcase = len(raw) - 36
    assert raw[dcase:] == normalised[dcase:]  # this set is normalised either way
    assert all(a < b for a, b in zip(raw[:dcase], normalised[:dcase], strict=True))


def test_the_area_over_splits_is_an_option(rmis_tree: dict[str, Path]) -> None:
    run = _run({"pu_vib": rmis_tree["pu_vib"]}, IndicatorEncoder())
    with pytest.raises(ModelError, match="no split"):  # 3 recordings of each class do not survive a share of 0.05
        run_rmis(run, RmisRules(), multi_split=True)


@pytest.fixture(scope="module")
def siren_tree(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("siren")
    write_dcase_2020(root / "dcase2020_t2", ("development", "evaluation"))
    write_dcase_later(root / "dcase2023_t2", 2023, ("development", "evaluation"))
    write_cwru(root / "cwru")
    write_mafaulda(root / "mafaulda")
    for kind in ("tubeleak", "ventleak"):
        for i, token in enumerate(("iO", "niO")):
            names = {f"1_{token}_{j}_5_": 300.0 + 900 * i * (1 + (kind == "ventleak")) for j in range(6)}
            write_flat(root / "iica" / "raw" / kind / "lab" / "1", names)
    for folder, n in (("train_cut", 6), ("test_cut", 2)):
        for i, engine in enumerate(("engine1_good", "engine2_broken", "engine3_heavyload")):
            write_flat(root / "iiee" / folder / engine, {f"pure_{j}": 300.0 + 400 * i for j in range(n)})
    return {path.name: path for path in root.iterdir()}


@pytest.mark.parametrize("rules", [SirenRules(), SirenRules.expected()])
def test_siren_runs_from_files_to_one_number(siren_tree: dict[str, Path], rules: SirenRules) -> None:
    scores = run_siren(_run(siren_tree), rules)
    assert list(scores) == [
        "dcase2020_t2", "dcase2023_t2", "iiee", "iica", "cwru", "mafaulda vibration", "mafaulda sound",
        "DCASE", "fault classification", "SIREN",
    ]  # fmt: skip
    assert all(scores[key]["m"] > 95 for key in list(scores)[:7])
    for name in ("indicators", "m"):
        both = [scores[key][name] for key in ("DCASE", "fault classification")]
        assert scores["SIREN"][name] == pytest.approx(np.mean(both))


def test_what_is_published_has_a_number_for_each_set() -> None:
    assert {len(values) for values in PUBLISHED["rmis"].values()} == {len(RMIS_SETS)}
    assert {len(values) for values in PUBLISHED["siren"].values()} == {len(SIREN_SETS) + 1}  # MAFAULDA has two
    tiny = PUBLISHED["rmis"]["FISHER tiny"]
    assert np.mean([np.mean(tiny[:6]), np.mean(tiny[6:])]) == pytest.approx(61.12, abs=0.01)


def test_the_command_prints_a_table_beside_the_published_numbers(
    siren_tree: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = ["--root", f"cwru={siren_tree['cwru']}", "--encoder", "indicators", "--cache", str(tmp_path / "kept")]
    assert main(["evaluate", "siren", *data]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split("  ")[0] == "set"
    (row,) = (line.split() for line in lines if line.startswith("cwru"))
    assert row[2:] == ["75.24", "90.48"]
    assert 50 < float(row[1]) <= 100
    assert list((tmp_path / "kept").glob("indicators-*/*.npy"))
    assert main(["evaluate", "siren", *data, "--rules", "paper", "--set", "fold_channels=true", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found["scores"]) == ["cwru", "fault classification"]
    assert found["rules"]["fold_channels"] is True
    assert found["rules"]["official_auc"] is True


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("rmis",), "no set was found"),
        (("rmis", "--root", "nothing=."), "'nothing' is no set"),
        (("rmis", "--root", "pu_vib=/nowhere"), "is not a folder"),
        (("siren", "--root", "cwru={}"), "no files as cwru lays them out"),
        (("rmis", "--root", "pu_vib={}", "--set", "banks=2"), "no such rule"),
        (("rmis", "--root", "pu_vib={}", "--set", "trapezoid=1"), "true or false"),
        (("rmis", "--root", "pu_vib={}", "--set", "engine_k=none"), "positive whole number"),
        (("siren", "--root", "cwru={}", "--encoder", "indicators", "--encoder", "indicators"), "given twice"),
    ],
)
def test_what_cannot_be_run_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], says: str
) -> None:
    encoder = () if "--encoder" in arguments else ("--encoder", "indicators")
    assert main(["evaluate", *(text.format(tmp_path) for text in arguments), *encoder]) == 2
    assert says in capsys.readouterr().err
