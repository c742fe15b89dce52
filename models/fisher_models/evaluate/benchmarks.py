"""RMIS and SIREN as wholes: every set that is there, for every encoder, and the scores that the tables have."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fisher_models.errors import ModelError
from fisher_models.evaluate import rmis_diagnosis as rmis
from fisher_models.evaluate import siren_diagnosis as siren
from fisher_models.evaluate.clip_vectors import Rule, clip_vectors, rmis_rule, siren_rule
from fisher_models.evaluate.dcase import YEARS, read_dcase
from fisher_models.evaluate.dcase_scores import RmisRules, SirenRules, rmis_year, score_sections, siren_year
from fisher_models.evaluate.encoders import Encoder
from fisher_models.evaluate.features import Store
from fisher_models.evaluate.metrics import Bools
from fisher_models.evaluate.progress import Progress
from fisher_models.frontend import Floats

Scores = dict[str, dict[str, float]]  # row -> encoder -> percent

DCASE_WINDOW_S = 10.0
RMIS_SETS = (*(f"dcase{year - 2000}" for year in YEARS), *rmis.SETS)
SIREN_SETS = (*(f"dcase{year}_t2" for year in YEARS), "iiee", "iica", "cwru", "mafaulda")
_FIRST_STEP = 1e-9  # of a deviation, below which a dimension of the indicators is left as it is

# In percent, for orientation: what the published models reach by the same rules on the whole sets.
PUBLISHED: Mapping[str, Mapping[str, tuple[float, ...]]] = {
    "rmis": {
        "FISHER tiny": (70.86, 58.76, 56.40, 58.62, 53.64, 56.37, 85.31, 98.72, 83.84, 75.79, 92.58, 71.81, 99.20,
                        11.90, 23.58, 21.10, 28.24, 72.36, 56.21),
        "FISHER small": (71.04, 59.48, 59.64, 62.63, 55.62, 58.46, 90.23, 98.96, 86.77, 72.61, 95.86, 76.35, 99.08,
                         12.72, 18.35, 17.42, 25.52, 74.90, 54.29),
    },
    "siren": {
        "FISHER tiny": (70.64, 58.51, 57.11, 58.46, 55.34, 57.69, 99.80, 95.43, 75.24, 100.0, 88.52),
        "ECHO small": (72.23, 60.20, 59.96, 63.71, 57.86, 58.70, 99.85, 93.67, 90.48, 99.54, 82.42),
    },
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Run:
    """What is compared, on which folders, by whose rules."""

    encoders: Sequence[Encoder]
    roots: Mapping[str, Path]  # set -> its folder; sets that are not named are left out
    store: Store
    progress: Progress
    lists: Path | None = None  # of DCASE evaluation clips


def run_rmis(run: Run, rules: RmisRules, *, multi_split: bool = False) -> Scores:
    """The score of each set, the mean of each task, and RMIS itself where both tasks have a set; in percent."""
    _known(run, RMIS_SETS)
    scores: Scores = {}
    for key in (key for key in RMIS_SETS if key in run.roots):
        run.progress(key, lasting=True)
        if key.startswith("dcase"):
            _dcase(run, scores, key, 2000 + int(key[5:]), "rmis", rules)
        else:
            _rmis_set(run, scores, key, rules, multi_split=multi_split)
        run.store.forget()
    _mean_row(run, scores, "anomaly detection", [key for key in RMIS_SETS[: len(YEARS)] if key in scores])
    _mean_row(run, scores, "fault diagnosis", [key for key in rmis.SETS if key in scores])
    if multi_split:
        _mean_row(run, scores, "area over splits", [f"{key} area" for key in rmis.SETS if f"{key} area" in scores])
    if {"anomaly detection", "fault diagnosis"} <= scores.keys():
        _mean_row(run, scores, "RMIS", ["anomaly detection", "fault diagnosis"])
    return scores


def run_siren(run: Run, rules: SirenRules) -> Scores:
    """The score of each set, and the means of the table: of years, of the five fault numbers, of both; in percent."""
    _known(run, SIREN_SETS)
    scores: Scores = {}
    for key in (key for key in SIREN_SETS if key in run.roots):
        run.progress(key, lasting=True)
        if key.startswith("dcase"):
            _dcase(run, scores, key, int(key[5:9]), "siren", rules)
        else:
            _siren_set(run, scores, key, rules)
        run.store.forget()
    _mean_row(run, scores, "DCASE", [key for key in SIREN_SETS[: len(YEARS)] if key in scores])
    faults = ("iiee", "iica", "cwru", "mafaulda vibration", "mafaulda sound")
    _mean_row(run, scores, "fault classification", [key for key in faults if key in scores])
    if {"DCASE", "fault classification"} <= scores.keys():
        _mean_row(run, scores, "SIREN", ["DCASE", "fault classification"])
    return scores


def _known(run: Run, sets: Sequence[str]) -> None:
    if unknown := sorted(set(run.roots) - set(sets)):
        raise ModelError(f"{unknown[0]!r} is no set of this benchmark; known are {', '.join(sets)}")
    if not run.roots:
        raise ModelError(f"no set was given; known are {', '.join(sets)}")


def _dcase(run: Run, scores: Scores, key: str, year: int, benchmark: str, rules: RmisRules | SirenRules) -> None:
    clips = read_dcase(run.roots[key], year=year, layout=benchmark, lists=run.lists)
    paths, train = [clip.path for clip in clips], np.array([clip.train for clip in clips])
    for encoder in run.encoders:
        if isinstance(rules, RmisRules):
            rule = rmis_rule(DCASE_WINDOW_S, normalised=rules.normalise_all)
            vectors = _scaled(encoder, _vectors(run, encoder, rule, paths, key)[:, 0], train)
            banks = year >= 2022 or (year == 2021 and rules.two_banks_2021)
            sections = score_sections(clips, vectors, two_banks=banks, standardise=rules.standardise_banks)
            for name, value in rmis_year(sections, year=year, rules=rules).items():
                scores.setdefault(key if name == "total" else f"{key} {name}", {})[encoder.name] = value
        else:
            vectors = _scaled(encoder, _vectors(run, encoder, siren_rule(each_channel=False), paths, key)[:, 0], train)
            sections = score_sections(clips, vectors, two_banks=year >= 2021, standardise=False)
            scores.setdefault(key, {})[encoder.name] = siren_year(sections, year=year, rules=rules)


def _rmis_set(run: Run, scores: Scores, key: str, rules: RmisRules, *, multi_split: bool) -> None:
    about, clips = rmis.SETS[key], rmis.read_rmis(run.roots[key], key)
    rule = rmis_rule(about.window_s, normalised=about.normalised or rules.normalise_all)
    for encoder in run.encoders:
        vectors = _scaled(encoder, _vectors(run, encoder, rule, [clip.path for clip in clips], key)[:, 0])
        row = scores.setdefault(key, {})
        if about.test_share is None:
            row[encoder.name] = rmis.given_split(clips, vectors, k=rules.engine_k)
            continue
        row[encoder.name] = rmis.random_splits(clips, vectors, key=key, test_share=about.test_share)
        if multi_split:
            area = rmis.area_over_splits(clips, vectors, key=key, trapezoid=rules.trapezoid)
            scores.setdefault(f"{key} area", {})[encoder.name] = area


def _siren_set(run: Run, scores: Scores, key: str, rules: SirenRules) -> None:
    clips = siren.read_siren(run.roots[key], key)
    rule = siren_rule(each_channel=key == "mafaulda")
    labels, fold = np.array([clip.label for clip in clips]), rules.fold_channels
    for encoder in run.encoders:
        vectors = _vectors(run, encoder, rule, [clip.path for clip in clips], key)
        flat = _scaled(encoder, vectors.reshape(len(vectors), -1))
        vectors = flat.reshape(vectors.shape)
        if key == "mafaulda":
            found = {
                "mafaulda vibration": siren.leave_one_out(vectors, labels, fold=fold),
                "mafaulda sound": siren.leave_one_out_channel(vectors, labels, siren.CHANNELS - 1),
            }
        elif key == "iica":
            found = {key: siren.in_folds(vectors, labels, fold=fold)}
        elif key == "iiee" and not rules.engine_leave_one_out:
            found = {key: siren.given_split(vectors, clips, fold=fold)}
        else:
            kept = np.array([clip.train is not False for clip in clips])
            found = {key: siren.leave_one_out(vectors[kept], labels[kept], fold=fold)}
        for name, value in found.items():
            scores.setdefault(name, {})[encoder.name] = value


def _vectors(run: Run, encoder: Encoder, rule: Rule, paths: Sequence[Path], key: str) -> Floats:
    """(files, channels, d)."""
    made = []
    for number, path in enumerate(paths, start=1):
        run.progress(f"{key}: {encoder.name}, file {number} of {len(paths)}")
        made.append(clip_vectors(encoder, rule, path, run.store))
    if shapes := sorted({one.shape for one in made[1:] if one.shape != made[0].shape}):
        raise ModelError(
            f"{key}: files give vectors of {made[0].shape} and {shapes[0]}; they differ in rate or channels"
        )
    return np.stack(made)


def _scaled(encoder: Encoder, vectors: Floats, train: Bools | None = None) -> Floats:
    """Embeddings as they are; indicators, whose units differ, in deviations over the training files (or all)."""
    if encoder.space != "standard":
        return vectors
    known = vectors if train is None else vectors[train]
    deviation = known.std(axis=0)
    return np.asarray((vectors - known.mean(axis=0)) / np.where(deviation > _FIRST_STEP, deviation, 1), np.float32)


def _mean_row(run: Run, scores: Scores, name: str, rows: Sequence[str]) -> None:
    if rows:
        scores[name] = {e.name: float(np.mean([scores[row][e.name] for row in rows])) for e in run.encoders}
