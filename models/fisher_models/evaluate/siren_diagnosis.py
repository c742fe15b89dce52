"""SIREN fault classification: the layouts of its four sets, and k = 5 nearest neighbours over one or more channels."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.io import loadmat
from scipy.io.matlab import MatReadError

from fisher_models.errors import ModelError, RecordingError
from fisher_models.evaluate.neighbours import Doubles
from fisher_models.evaluate.neighbours import vote as majority_vote
from fisher_models.frontend import Floats

Texts = NDArray[np.str_]

K, FOLDS, FOLD_SEED = 5, 5, 1
CHANNELS = 8  # that the extractors declare, and into which the code folds single vectors
_COUNTED = 7  # channels that leave-one-out and folds count; the eighth of MAFAULDA is the microphone
# What numpy and scipy raise for files that are no table and no MATLAB file, as those that are cut short.
_UNREADABLE = (OSError, ValueError, TypeError, LookupError, NotImplementedError, MatReadError, zlib.error)
MAFAULDA_RATE_HZ, CWRU_RATE_HZ = 50_000.0, 12_000.0
_ENGINE = ("engine1_good", "engine2_broken", "engine3_heavyload")


@dataclass(frozen=True, slots=True)
class SirenClip:
    """One file."""

    path: Path
    label: str
    train: bool | None = None  # where the split is given


def read_siren(root: Path, key: str) -> list[SirenClip]:
    """The files of MAFAULDA, CWRU, IIEE or IICA in their published layout. RecordingError where there are none."""
    readers = {"mafaulda": _mafaulda, "cwru": _cwru, "iiee": _engine, "iica": _air}
    clips = readers[key](root)
    if not clips:
        raise RecordingError(f"{root} holds no files as {key} lays them out")
    return clips


def _mafaulda(root: Path) -> list[SirenClip]:
    plain = ("normal", "horizontal-misalignment", "imbalance", "vertical-misalignment")
    clips = []
    for path in sorted(root.rglob("*.csv")):
        parts = path.relative_to(root).parts
        if parts[0] in ("overhang", "underhang") and len(parts) > 2:
            clips.append(SirenClip(path, f"{parts[0]}-{parts[1]}"))
        elif parts[0] in plain:
            clips.append(SirenClip(path, parts[0]))
    return clips


def _cwru(root: Path) -> list[SirenClip]:
    """Ten classes of the two folders at 12 kHz, without the healthy recordings."""
    clips = []
    for folder, end in (("12k_Drive_End_Bearing_Fault_Data", "DE"), ("12k_Fan_End_Bearing_Fault_Data", "FE")):
        for path in sorted((root / folder).rglob("*.mat")):
            parts = path.relative_to(root).parts
            if parts[1] == "OR":  # where no position is given it is the one at 6 o'clock
                place = next((at for at in ("@12", "@3", "@6") if at in str(path.relative_to(root))), "@6")
                clips.append(SirenClip(path, f"{end}_OC{place}"))
            elif parts[1] in ("B", "IR"):
                clips.append(SirenClip(path, f"{end}_{parts[1]}"))
    return clips


def _engine(root: Path) -> list[SirenClip]:
    test = root / "test_cut" if (root / "test_cut").is_dir() else root / "test"
    return [
        SirenClip(path, name, train)
        for folder, train in ((root / "train_cut", True), (test, False))
        for name in _ENGINE
        for path in sorted((folder / name).glob("*.wav"))
    ]


def _air(root: Path) -> list[SirenClip]:
    clips = []
    for kind in ("tubeleak", "ventleak"):
        for path in sorted((root / "raw" / kind).rglob("*.wav")):
            if "_nio_" in path.name.lower():
                clips.append(SirenClip(path, kind))
            elif "_io_" in path.name.lower():
                clips.append(SirenClip(path, "no_leak"))
    return clips


def read_signal(path: Path) -> tuple[Floats, float]:
    """(channels, n) and the rate, of a MAFAULDA csv (8 channels) or a CWRU .mat (its first signal)."""
    try:
        if path.suffix == ".csv":
            data = np.loadtxt(path, delimiter=",", dtype=np.float32, ndmin=2)
            if data.shape[1] != CHANNELS:
                raise RecordingError(f"{path} has {data.shape[1]} columns instead of {CHANNELS}")
            return np.ascontiguousarray(data.T), MAFAULDA_RATE_HZ
        arrays = loadmat(path, variable_names=None)
    except _UNREADABLE as error:
        raise RecordingError(f"{path} cannot be read: {error}") from error
    for name, array in arrays.items():
        if name.endswith("_time") and any(f"_{place}_" in name for place in ("DE", "FE", "BA")):
            return np.asarray(array, np.float32).reshape(1, -1), CWRU_RATE_HZ
    raise RecordingError(f"{path} holds no signal named ..._DE_time, ..._FE_time or ..._BA_time")


def as_channels(vectors: Floats, *, fold: bool) -> Floats:
    """(n, c, d); of single vectors (n, 1, d) the 8 pseudo-channels that the released code makes of them."""
    n, c, d = vectors.shape
    return vectors.reshape(n, CHANNELS, d // CHANNELS) if fold and c == 1 and d % CHANNELS == 0 else vectors


def channel_distances(asked: Floats, bank: Floats) -> Doubles:
    """(q, c, d), (n, c, d) -> Euclidean distances (q, n, c)."""
    a, b = asked.astype(np.float64), bank.astype(np.float64)
    square = (a**2).sum(2)[:, None] + (b**2).sum(2)[None] - 2 * np.einsum("qcd,ncd->qnc", a, b)
    return np.asarray(np.sqrt(np.maximum(square, 0)))


def fused(apart: Doubles) -> Doubles:
    """(q, n, c) -> (q, n): of several channels the mean of their z-scores over the bank."""
    if apart.shape[2] == 1:
        return np.asarray(apart[:, :, 0])
    spread = apart.std(axis=1, keepdims=True) + 1e-10
    return np.asarray(((apart - apart.mean(axis=1, keepdims=True)) / spread).mean(axis=2))


def leave_one_out(vectors: Floats, labels: Texts, *, fold: bool) -> float:
    """Accuracy in percent, each file judged by all others; the first 7 channels count.

    The distance of a file to itself is in the z-scores' mean and spread, as in the released code, and is masked after.
    """
    apart = fused(channel_distances(folded := as_channels(vectors, fold=fold), folded)[:, :, :_COUNTED])
    np.fill_diagonal(apart, np.inf)
    return _percent(majority_vote(apart, labels, k=K), labels)


def leave_one_out_channel(vectors: Floats, labels: Texts, channel: int) -> float:
    """The same by one channel alone, as the microphone of MAFAULDA."""
    one = vectors[:, channel : channel + 1]
    apart = channel_distances(one, one)[:, :, 0]
    np.fill_diagonal(apart, np.inf)
    return _percent(majority_vote(apart, labels, k=K), labels)


def in_folds(vectors: Floats, labels: Texts, *, fold: bool) -> float:
    """The mean accuracy in percent over 5 stratified folds; the first 7 channels count."""
    folded, scores = as_channels(vectors, fold=fold), []
    of = stratified_folds(labels, n=FOLDS, seed=FOLD_SEED)
    for one in range(FOLDS):
        out = of == one
        apart = fused(channel_distances(folded[out], folded[~out])[:, :, :_COUNTED])
        scores.append(_percent(majority_vote(apart, labels[~out], k=K), labels[out]))
    return float(np.mean(scores))


def given_split(vectors: Floats, clips: Sequence[SirenClip], *, fold: bool) -> float:
    """Accuracy in percent of the split that the folders give; all channels count."""
    train, labels = np.array([bool(c.train) for c in clips]), np.array([c.label for c in clips])
    if train.all() or not train.any():
        raise ModelError("the electric engine needs train_cut, and test_cut or test")
    folded = as_channels(vectors, fold=fold)
    apart = fused(channel_distances(folded[~train], folded[train]))
    return _percent(majority_vote(apart, labels[train], k=K), labels[~train])


def stratified_folds(labels: Texts, *, n: int, seed: int) -> NDArray[np.int64]:
    """The fold of each row, drawn as scikit-learn's shuffled `StratifiedKFold` draws them."""
    names, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    encoded = np.argsort(np.argsort(first))[inverse]  # classes in the order of appearance
    if np.bincount(encoded).min() < n:
        raise ModelError(f"a class has fewer than {n} files; {n} folds need {n} of each")
    ordered = np.sort(encoded)
    counts = np.array([np.bincount(ordered[i::n], minlength=len(names)) for i in range(n)])
    rng = np.random.RandomState(seed)  # the published folds are this generator's
    of = np.empty(len(labels), np.int64)
    for one in range(len(names)):
        folds = np.arange(n).repeat(counts[:, one])
        rng.shuffle(folds)
        of[encoded == one] = folds
    return of


def _percent(found: Texts, labels: Texts) -> float:
    return 100 * float((found == labels).mean())
