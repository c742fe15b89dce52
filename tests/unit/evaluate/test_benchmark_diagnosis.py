"""RMIS fault diagnosis and SIREN fault classification: layouts, splits and votes, against values worked out by hand."""

from pathlib import Path

import numpy as np
import pytest
from evaluate_trees import write_cwru, write_flat, write_mafaulda, write_wav
from scipy.io import savemat

from fisher_models.errors import ModelError, RecordingError
from fisher_models.evaluate import rmis_diagnosis as rmis
from fisher_models.evaluate import siren_diagnosis as siren

LAYOUTS = {
    "wt_plane_gearbox": ("missing_tooth_N1_20_ch1_0", "missing_tooth", "missing_tooth_N1_20", ".flac"),
    "mafaulda_vib": (
        "overhang_ball_fault_6g_2",
        "overhang_ball_fault",
        "overhang_ball_fault_6g_2.wav",
        ".wav",
    ),
    "sdust_bearing": ("RF0.4_1000_20_3_1", "RF0.4", "RF0.4_1000_20", ".wav"),
    "sdust_gear": ("1000_10_sunwear_x_1_3", "sunwear", "1000_10_sunwear_x", ".wav"),
    "umged_cur": ("S_G2_E14_0500_1_7", "E14", "S_G2_E14_0500", ".wav"),
    "pu_vib": ("OR_KA04_N09_M07_F10_20_1", "OR", "OR_KA04_N09_M07_F10", ".wav"),
}


@pytest.mark.parametrize("key", LAYOUTS)
def test_class_and_group_are_read_from_the_name(tmp_path: Path, key: str) -> None:
    name, label, group, suffix = LAYOUTS[key]
    write_flat(tmp_path, {name: 400.0}, suffix=suffix, seconds=0.01)
    (clip,) = rmis.read_rmis(tmp_path, key)
    assert (clip.label, clip.group) == (label, group)


def test_the_leak_set_and_the_engine_set_are_read_from_their_folders(tmp_path: Path) -> None:
    for name in ("1_niO_2.0_5_0.wav", "1_niO_2.0_5_1.wav", "1_iO_0_5_0.wav"):
        write_wav(tmp_path / "air" / "ventlow" / "lab" / "1" / name, 400, seconds=0.01)
    clips = rmis.read_rmis(tmp_path / "air", "idmt_air")
    assert [c.label for c in clips] == ["ventlow_noleak", "ventlow_leak", "ventlow_leak"]
    assert clips[1].group == clips[2].group == "ventlow/lab/1/1_niO_2.0_5"
    for folder in ("train_cut", "test_cut", "train"):
        for engine in ("engine1_good", "engine2_broken"):
            write_wav(tmp_path / "engine" / folder / engine / "pure_0.wav", 400, seconds=0.01)
    clips = rmis.read_rmis(tmp_path / "engine", "idmt_engine")
    assert [(c.label, c.train) for c in clips] == [
        ("good", False), ("broken", False), ("good", True), ("broken", True),
    ]  # fmt: skip


def test_files_that_do_not_fit_are_named(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match=r"no \.wav files as pu_vib lays them out"):
        rmis.read_rmis(tmp_path, "pu_vib")
    write_flat(tmp_path, {"XX_1_2": 400.0}, seconds=0.01)
    with pytest.raises(RecordingError, match=r"XX_1_2\.wav: its name holds none of the classes healthy, IR, OR"):
        rmis.read_rmis(tmp_path, "pu_vib")
    write_wav(tmp_path / "tubeleak" / "lab" / "1" / "short.wav", 400, seconds=0.01)
    with pytest.raises(RecordingError, match="named otherwise"):
        rmis.read_rmis(tmp_path, "idmt_air")


# train_test_split of scikit-learn 1.9.1: what tests
@pytest.mark.parametrize(
    ("n", "share", "seed", "test"),
    [(7, 0.5, 111, [0, 1, 2, 3]), (20, 0.2, 111, [3, 5, 11, 13]), (20, 0.15, 112, [2, 6, 16])],
)
def test_splits_are_those_of_scikit_learn(n: int, share: float, seed: int, test: list[int]) -> None:
    groups = [str(i) for i in range(n) for _ in range(3)]
    assert rmis.split_groups(groups, test_share=share, seed=seed) == {str(i) for i in test}


def test_folds_are_those_of_scikit_learn() -> None:
    labels = np.array(list("bbbbbbbaaaaaccccccccc"))
    found = siren.stratified_folds(labels, n=5, seed=1)
    assert found.tolist() == [4, 1, 0, 0, 2, 1, 3, 2, 3, 1, 4, 0, 2, 4, 3, 0, 1, 0, 2, 3, 4]
    with pytest.raises(ModelError, match="fewer than 5 files"):
        siren.stratified_folds(labels[:9], n=5, seed=1)


def test_the_vote_sums_similarities_and_a_tie_goes_to_the_lower_class() -> None:
    bank = np.array([[1, 0], [0.8, 0.6], [0.8, 0.6], [0, 1], [0, 1]], np.float32)
    labels = np.array(["z", "y", "y", "x", "x"])
    asked = np.array([[5, 0], [0, 3]], np.float32)
    # (1, 0): z 1.0; y 0.8 + 0.8 = 1.6; x 0   ->  y. (0, 1): x 2.0, y 1.2
    assert rmis.vote(bank, labels, asked, classes=("x", "y", "z"), k=5).tolist() == ["y", "x"]
    assert rmis.vote(bank, labels, asked, classes=("x", "y", "z"), k=1).tolist() == ["z", "x"]
    same = np.array([[1, 0], [1, 0]], np.float32)
    assert rmis.vote(same, np.array(["b", "a"]), asked[:1], classes=("a", "b"), k=2).tolist() == ["a"]


def _clips(classes: tuple[str, ...], *, recordings: int, files: int) -> tuple[list[rmis.LabelledClip], np.ndarray]:
    rng = np.random.default_rng(0)
    clips, vectors = [], []
    for c, label in enumerate(classes):
        for r in range(recordings):
            for f in range(files):
                clips.append(rmis.LabelledClip(Path(f"{label}{r}{f}"), label, f"{label}{r}"))
                vectors.append(np.eye(len(classes))[c] + 0.1 * rng.standard_normal(len(classes)))
    return clips, np.array(vectors, np.float32)


def test_random_splits_of_separable_classes_are_perfect_and_of_shuffled_ones_are_not() -> None:
    clips, vectors = _clips(rmis.SETS["pu_vib"].classes, recordings=6, files=3)
    assert rmis.random_splits(clips, vectors, key="pu_vib", test_share=0.5) == 100
    shuffled = vectors[np.random.default_rng(1).permutation(len(vectors))]
    assert 15 < rmis.random_splits(clips, shuffled, key="pu_vib", test_share=0.5) < 55
    with pytest.raises(ModelError, match=r"no split .* has every class on both sides"):
        rmis.random_splits(*_clips(("healthy", "IR", "OR"), recordings=1, files=3), key="pu_vib", test_share=0.5)


def test_the_area_over_splits_runs_from_chance_to_perfect() -> None:
    clips, vectors = _clips(rmis.SETS["pu_vib"].classes, recordings=60, files=1)
    for trapezoid, expected in ((True, 100 - (100 - 100 / 3) * 0.05 / 2), (False, 100 - (100 - 100 / 3) * 0.05 / 3)):
        found = rmis.area_over_splits(clips, vectors, key="pu_vib", trapezoid=trapezoid)
        assert found == pytest.approx(expected, abs=0.1)


def test_the_engine_is_judged_by_its_given_split() -> None:
    clips, vectors = _clips(("good", "broken"), recordings=4, files=2)
    marked = [rmis.LabelledClip(c.path, c.label, c.group, c.group[-1] in "01") for c in clips]
    assert rmis.given_split(marked, vectors, k=5) == 100
    with pytest.raises(ModelError, match="needs train_cut and test_cut"):
        rmis.given_split(clips, vectors, k=5)


def test_siren_reads_its_layouts(tmp_path: Path) -> None:
    write_cwru(tmp_path / "cwru")
    clips = siren.read_siren(tmp_path / "cwru", "cwru")
    assert len(clips) == 60
    assert len({c.label for c in clips}) == 10
    assert "FE_OC@12" in {c.label for c in clips}
    signal, rate = siren.read_signal(clips[0].path)
    assert (signal.shape, rate) == ((1, 6000), 12_000)
    write_mafaulda(tmp_path / "mafaulda")
    clips = siren.read_siren(tmp_path / "mafaulda", "mafaulda")
    assert {c.label for c in clips} == {"normal", "overhang-ball_fault", "imbalance"}
    signal, rate = siren.read_signal(clips[0].path)
    assert (signal.shape, rate) == ((8, 2500), 50_000)
    for kind, name in (("tubeleak", "1_niO_2_5_.wav"), ("tubeleak", "1_iO_0_5_.wav"), ("ventlow", "1_niO_2_5_.wav")):
        write_wav(tmp_path / "iica" / "raw" / kind / "lab" / "1" / name, 400, seconds=0.01)
    assert sorted(c.label for c in siren.read_siren(tmp_path / "iica", "iica")) == ["no_leak", "tubeleak"]
    write_wav(tmp_path / "iiee" / "train_cut" / "engine1_good" / "pure_0.wav", 400, seconds=0.01)
    write_wav(tmp_path / "iiee" / "test" / "engine1_good" / "atmo_low.wav", 400, seconds=0.01)
    assert [c.train for c in siren.read_siren(tmp_path / "iiee", "iiee")] == [True, False]
    write_wav(tmp_path / "iiee" / "test_cut" / "engine3_heavyload" / "atmo_low_0.wav", 400, seconds=0.01)
    assert siren.read_siren(tmp_path / "iiee", "iiee")[1].label == "engine3_heavyload"
    with pytest.raises(RecordingError, match="no files as iica lays them out"):
        siren.read_siren(tmp_path / "cwru", "iica")


def test_a_signal_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.mat").write_bytes(b"not a mat file at all")
    (tmp_path / "a.csv").write_text("1,2,x\n")
    (tmp_path / "b.csv").write_text("1,2,3\n")
    savemat(tmp_path / "b.mat", {"X_DE_speed": [[1.0]]})
    for name, says in (("a.mat", "cannot be read"), ("a.csv", "cannot be read"), ("b.csv", "3 columns instead of 8"),
                       ("b.mat", "no signal named")):  # fmt: skip
        with pytest.raises(RecordingError, match=says):
            siren.read_signal(tmp_path / name)


def test_single_vectors_become_eight_channels_by_the_code_only() -> None:
    vectors = np.arange(32, dtype=np.float32).reshape(2, 1, 16)
    assert siren.as_channels(vectors, fold=True).shape == (2, 8, 2)
    assert siren.as_channels(vectors, fold=False).shape == (2, 1, 16)
    assert siren.as_channels(vectors[:, :, :15], fold=True).shape == (2, 1, 15)
    assert siren.as_channels(vectors.reshape(2, 4, 4), fold=True).shape == (2, 4, 4)


def test_channels_are_fused_by_their_z_scores_over_the_bank() -> None:
    rng = np.random.default_rng(0)
    asked, bank = rng.standard_normal((3, 2, 4)), rng.standard_normal((6, 2, 4)) * [[[1], [100]]]
    apart = siren.channel_distances(asked.astype(np.float32), bank.astype(np.float32))
    assert apart[1, 4, 1] == pytest.approx(np.linalg.norm(asked[1, 1] - bank[4, 1]), rel=1e-5)
    scores = (apart - apart.mean(1, keepdims=True)) / apart.std(1, keepdims=True)
    assert np.allclose(siren.fused(apart), scores.mean(2))
    assert (siren.fused(apart[:, :, :1]) == apart[:, :, 0]).all()


def test_leaving_one_out_never_asks_a_file_about_itself() -> None:
    # every file's own class is far away but for itself
    vectors = np.eye(12, dtype=np.float32)[:, None]
    vectors[6:] += 10
    labels = np.array(["a", "b"] * 6)
    assert siren.leave_one_out(vectors, labels, fold=False) < 60
    apart = np.repeat([[[0.0]], [[9.0]]], 6, axis=0).astype(np.float32)
    assert siren.leave_one_out(apart, np.repeat(["a", "b"], 6), fold=False) == 100
    assert siren.leave_one_out_channel(apart, np.repeat(["a", "b"], 6), 0) == 100
    assert siren.in_folds(apart, np.repeat(["a", "b"], 6), fold=False) == 100


def test_the_eighth_channel_is_not_counted_but_alone() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat(["a", "b"], 8)
    vectors = rng.standard_normal((16, 8, 4)).astype(np.float32)
    vectors[8:, 7] += 50
    assert siren.leave_one_out_channel(vectors, labels, 7) == 100
    assert siren.leave_one_out(vectors, labels, fold=False) < 90


def test_a_given_split_counts_all_channels() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((16, 8, 4)).astype(np.float32)
    labels = ["a"] * 8 + ["b"] * 8
    vectors[8:, 7] += 1e4
    clips = [siren.SirenClip(Path(str(i)), label, i % 2 == 0) for i, label in enumerate(labels)]
    assert siren.given_split(vectors[:, 7:], clips, fold=False) == 100
    assert siren.given_split(vectors, clips, fold=False) > siren.given_split(vectors[:, :7], clips, fold=False)
    with pytest.raises(ModelError, match="needs train_cut"):
        siren.given_split(vectors, [siren.SirenClip(Path("a"), "a", True)] * 16, fold=False)
