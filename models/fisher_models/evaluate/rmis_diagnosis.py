"""RMIS fault diagnosis: its data sets, their random splits by recording, and the nearest-neighbour vote."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.integrate import simpson

from fisher_models.errors import ModelError, RecordingError
from fisher_models.evaluate.metrics import macro_recall
from fisher_models.frontend import Floats

Texts = NDArray[np.str_]

SEED, RUNS, RETRY = 111, 10, 100
_MOST_RETRIES = 1000
_SHARES = tuple(round(0.05 * i, 2) for i in range(1, 20))  # test shares of the area over all splits
_MAFAULDA = (
    "horizontal-misalignment", "imbalance", "normal", "overhang_ball_fault", "overhang_cage_fault",
    "overhang_outer_race", "underhang_ball_fault", "underhang_cage_fault", "underhang_outer_race",
    "vertical-misalignment",
)  # fmt: skip
_BEARING = ("IF0.2", "IF0.4", "IF0.6", "NC", "OF0.2", "OF0.4", "OF0.6", "RF0.2", "RF0.4", "RF0.6")
_GEAR = (
    "normal", "planetrayfracture", "planetraypitting", "planetraywear", "sunfracture", "sunpitting", "sunwear",
)  # fmt: skip
_UMGED = tuple(f"E{i:02}" for i in range(0, 21, 2))


@dataclass(frozen=True, slots=True)
class RmisSet:
    """One of the thirteen."""

    window_s: float
    classes: tuple[str, ...]  # in the order of their index, which decides ties
    test_share: float | None = 0.5  # None: the split is given
    named: str = "prefix"  # how a file's class is found: prefix | anywhere | leak | folder
    normalised: bool = True  # by the released code
    grouped: bool = True  # by the file's name without its last two parts; otherwise every file is by itself
    suffix: str = ".wav"


SETS: Mapping[str, RmisSet] = {
    "idmt_air": RmisSet(
        10, tuple(f"{where}_{what}" for where in ("tubeleak", "ventleak", "ventlow") for what in ("noleak", "leak")),
        named="leak", normalised=False,
    ),
    "idmt_engine": RmisSet(3, (), None, named="folder"),
    "wt_plane_gearbox": RmisSet(10, ("broken", "healthy", "missing_tooth", "root_crack", "wear"), suffix=".flac"),
    "mafaulda_sound": RmisSet(5, _MAFAULDA, grouped=False),
    "mafaulda_vib": RmisSet(5, _MAFAULDA, grouped=False),
    "sdust_bearing": RmisSet(10, _BEARING),
    "sdust_gear": RmisSet(10, _GEAR, named="anywhere"),
    **{f"umged_{kind}": RmisSet(10, _UMGED, 0.2, named="anywhere", normalised=False)
       for kind in ("sound", "vib", "vol", "cur")},
    "pu_vib": RmisSet(4, ("healthy", "IR", "OR")),
    "pu_cur": RmisSet(4, ("healthy", "IR", "OR")),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class LabelledClip:
    """One file of a fault diagnosis set."""

    path: Path
    label: str
    group: str  # what must not be on both sides of a split
    train: bool | None = None  # where the split is given


def read_rmis(root: Path, key: str) -> list[LabelledClip]:
    """The files of a set in their prepared layout, by path. RecordingError names what does not fit."""
    about = SETS[key]
    if about.named == "folder":
        clips = _engine(root)
    elif about.named == "leak":
        paths = sorted(p for place in ("tubeleak", "ventleak", "ventlow") for p in (root / place).glob("*/*/*.wav"))
        clips = [_leak(path, root) for path in paths]
    else:
        paths = [p for p in sorted(root.rglob(f"*{about.suffix}")) if "keyphase" not in p.name]
        clips = [LabelledClip(p, _class_of(p, about), _group_of(p, about)) for p in paths]
    if not clips:
        raise RecordingError(f"{root} holds no {about.suffix} files as {key} lays them out")
    return clips


def _class_of(path: Path, about: RmisSet) -> str:
    fits = str.startswith if about.named == "prefix" else str.__contains__
    for name in about.classes:
        if fits(path.name, name):
            return name
    raise RecordingError(f"{path}: its name holds none of the classes {', '.join(about.classes)}")


def _group_of(path: Path, about: RmisSet) -> str:
    return "_".join(path.name.split("_")[:-2]) if about.grouped else path.name


def _leak(path: Path, root: Path) -> LabelledClip:
    parts = path.name.split("_")
    if len(parts) < 3:
        raise RecordingError(f"{path}: named otherwise than SESSION_(iO|niO)_KNOB_MIC_PART.wav")
    where = path.relative_to(root)
    leaks = "leak" if parts[1] == "niO" else "noleak"
    return LabelledClip(path, f"{where.parts[0]}_{leaks}", f"{where.parent}/{'_'.join(parts[:-1])}")


def _engine(root: Path) -> list[LabelledClip]:
    clips = []
    for folder in sorted(p for p in root.glob("*cut*/*") if p.is_dir()):
        fields = folder.name.split("_")
        if len(fields) < 2:
            raise RecordingError(f"{folder}: named otherwise than ENGINE_CLASS")
        train = folder.parent.name.startswith("train")
        clips += [LabelledClip(p, fields[1], p.name, train) for p in sorted(folder.glob("*.wav"))]
    return clips


def split_groups(groups: Sequence[str], *, test_share: float, seed: int) -> set[str]:
    """The groups that test, drawn as scikit-learn's `train_test_split` draws them with this seed."""
    unique = list(dict.fromkeys(groups))
    n_test = math.ceil(test_share * len(unique))
    if not 0 < n_test < len(unique):
        raise ModelError(f"{len(unique)} recordings cannot be split with a test share of {test_share:g}")
    order = np.random.RandomState(seed).permutation(len(unique))  # the published splits are this generator's
    return {unique[i] for i in order[:n_test]}


def vote(train: Floats, labels: Texts, test: Floats, *, classes: Sequence[str], k: int) -> Texts:
    """Cosine similarities of the k nearest, summed by class; of equal sums the class of the lowest index."""
    bank, asked = (_units(vectors) for vectors in (train, test))
    near = asked @ bank.T  # (test, train) cosine
    order = np.argsort(-near, axis=1, kind="stable")[:, :k]
    index = {name: i for i, name in enumerate(classes)}
    of = np.array([index[name] for name in labels.tolist()])
    sums = np.zeros((len(asked), len(classes)))
    for rank in range(order.shape[1]):
        sums[np.arange(len(asked)), of[order[:, rank]]] += near[np.arange(len(asked)), order[:, rank]]
    return np.array([classes[i] for i in sums.argmax(axis=1)])


def _units(vectors: Floats) -> NDArray[np.float64]:
    wide = vectors.astype(np.float64)
    return np.asarray(wide / np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-12))


def random_splits(clips: Sequence[LabelledClip], vectors: Floats, *, key: str, test_share: float, k: int = 5) -> float:
    """The mean over ten splits of the macro accuracy in percent, each rounded to 2 decimals."""
    about = SETS[key]
    labels, groups = np.array([c.label for c in clips]), np.array([c.group for c in clips])
    scores = []
    for run in range(RUNS):
        out = _split_with_every_class(labels, groups, test_share, SEED + run)
        found = vote(vectors[~out], labels[~out], vectors[out], classes=about.classes, k=k)
        scores.append(round(100 * macro_recall(labels[out], found), 2))
    return float(np.mean(scores))


def _split_with_every_class(labels: Texts, groups: Texts, test_share: float, seed: int) -> NDArray[np.bool_]:
    wanted = set(labels.tolist())
    for again in range(_MOST_RETRIES):
        chosen = split_groups(groups.tolist(), test_share=test_share, seed=seed + RETRY * again)
        out = np.isin(groups, list(chosen))
        if set(labels[out].tolist()) == wanted == set(labels[~out].tolist()):
            return out
    raise ModelError(f"no split with a test share of {test_share:g} has every class on both sides")


def given_split(clips: Sequence[LabelledClip], vectors: Floats, *, k: int) -> float:
    """Macro accuracy in percent of the split that the folders give."""
    labels, train = np.array([c.label for c in clips]), np.array([bool(c.train) for c in clips])
    if train.all() or not train.any():
        raise ModelError("the electric engine needs train_cut and test_cut")
    classes = list(dict.fromkeys(labels[train].tolist()))  # in the order of first appearance
    found = vote(vectors[train], labels[train], vectors[~train], classes=classes, k=k)
    return round(100 * macro_recall(labels[~train], found), 2)


def area_over_splits(clips: Sequence[LabelledClip], vectors: Floats, *, key: str, trapezoid: bool) -> float:
    """In percent: the area under the accuracy over the training share, from chance at 0 to perfect at 1."""
    scores = {share: random_splits(clips, vectors, key=key, test_share=share) for share in _SHARES}
    x = np.array([0.0, *(1 - share for share in reversed(_SHARES)), 1.0])
    y = np.array([100 / len(SETS[key].classes), *(scores[share] for share in reversed(_SHARES)), 100.0])
    return float(np.trapezoid(y, x) if trapezoid else simpson(y=y, x=x))
