"""Anomaly scores and year scores of DCASE Task 2 clips by the rules of RMIS and of SIREN, which differ.

Both: k = 1, cosine distance, a bank of normal training clips per machine and section. Where the RMIS paper and its code
differ, and where SIREN departs from the challenge's rule, a switch chooses; the defaults are the released codes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fisher_models.errors import ModelError
from fisher_models.evaluate.dcase import SUBSETS, DcaseClip
from fisher_models.evaluate.metrics import Bools, Roc, harmonic_mean
from fisher_models.evaluate.neighbours import Doubles, strangeness
from fisher_models.frontend import Floats

_EPS = float(np.finfo(np.float64).eps)


@dataclass(frozen=True, slots=True)
class RmisRules:
    """Where paper and released code of RMIS differ; the defaults are the code's."""

    two_banks_2021: bool = False  # paper: source and target banks in 2021 too
    standardise_banks: bool = True  # code: each bank's scores become z-scores over the section's test clips
    harmonic_2020: bool = False  # paper: the harmonic mean of dev and eval in 2020 too
    normalise_all: bool = False  # code: DCASE, compressed air and UMGED get log magnitudes without normalisation
    engine_k: int = 5  # paper: 10 neighbours for the electric engine
    trapezoid: bool = False  # paper: area over the splits by trapezoids; code: by Simpson's rule

    @classmethod
    def paper(cls) -> "RmisRules":
        """As the paper describes it."""
        return cls(
            two_banks_2021=True, standardise_banks=False, harmonic_2020=True, normalise_all=True, engine_k=10,
            trapezoid=True,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class SirenRules:
    """Where SIREN's released code departs from the challenge or from what one would expect; defaults are the code's."""

    official_auc: bool = False  # challenge: a domain's normal clips against all anomalies of the section
    skip_one_class: bool = False  # code: a group of one class counts as 0
    fold_channels: bool = True  # code: an embedding whose length divides by 8 is taken for 8 channels
    engine_leave_one_out: bool = False  # paper: leave one out over the training clips of the electric engine

    @classmethod
    def expected(cls) -> "SirenRules":
        """The challenge's AUC, the paper's protocol, and none of the quirks."""
        return cls(official_auc=True, skip_one_class=True, fold_channels=False, engine_leave_one_out=True)


@dataclass(frozen=True, slots=True, eq=False)
class Section:
    """The test clips of one machine and section with their scores."""

    subset: str
    machine: str
    section: int
    score: Doubles  # (n,)
    anomalous: Bools
    target: Bools

    def auc(self, kept: Bools | None = None) -> float:
        """Over some of the clips."""
        kept = np.ones(len(self.score), bool) if kept is None else kept
        return Roc(self.score[kept], self.anomalous[kept]).auc()

    def partial(self, kept: Bools | None = None) -> float:
        """The same up to a false positive rate of 0.1."""
        kept = np.ones(len(self.score), bool) if kept is None else kept
        return Roc(self.score[kept], self.anomalous[kept]).partial()


def score_sections(clips: Sequence[DcaseClip], vectors: Floats, *, two_banks: bool, standardise: bool) -> list[Section]:
    """Score every test clip: with one bank, or with one per domain, of whose scores the smaller one counts.

    A section without training clips of its own is judged by all of its machine's. ModelError where there are none.
    """
    units = vectors.astype(np.float64)
    units /= np.maximum(np.linalg.norm(units, axis=1, keepdims=True), 1e-12)
    keys = sorted({(SUBSETS.index(c.subset), c.machine, c.section) for c in clips if not c.train})
    return [
        _section(clips, units, SUBSETS[subset], machine, section, two_banks=two_banks, standardise=standardise)
        for subset, machine, section in keys
    ]


def _section(
    clips: Sequence[DcaseClip], units: Doubles, subset: str, machine: str, section: int,
    *, two_banks: bool, standardise: bool,
) -> Section:  # fmt: skip
    same = [i for i, c in enumerate(clips) if (c.subset, c.machine) == (subset, machine)]
    test = [i for i in same if clips[i].section == section and not clips[i].train]
    train = [i for i in same if clips[i].section == section and clips[i].train]
    train = train or [i for i in same if clips[i].train]
    if not train:
        raise ModelError(f"{subset}, {machine}: no training clips")
    banks = [[i for i in train if clips[i].target == target] for target in (False, True)] if two_banks else [train]
    scores = [_bank_scores(units[test], units[bank], standardise=standardise) for bank in banks if bank]
    return Section(
        subset, machine, section, np.min(scores, axis=0),
        np.array([clips[i].anomalous for i in test]), np.array([clips[i].target for i in test]),
    )  # fmt: skip


def _bank_scores(test: Doubles, bank: Doubles, *, standardise: bool) -> Doubles:
    score = strangeness(np.maximum(1 - test @ bank.T, 0), k=1)
    spread = float(score.std())
    return (score - score.mean()) / spread if standardise and spread > 0 else score


def rmis_year(sections: Sequence[Section], *, year: int, rules: RmisRules) -> dict[str, float]:
    """In percent: `dev` and `eval`, where they are, and `total`; machines rounded to 2 decimals, as by the code."""
    out = {}
    for subset in SUBSETS:
        machines = sorted({s.machine for s in sections if s.subset == subset})
        per_machine = [
            round(_rmis_machine([s for s in sections if (s.subset, s.machine) == (subset, one)], year), 2)
            for one in machines
        ]
        if per_machine:
            out[subset] = float(np.mean(per_machine)) if year == 2020 else harmonic_mean(per_machine)
    both = list(out.values())
    plain = year == 2020 and not rules.harmonic_2020
    return {**out, "total": float(np.mean(both)) if plain else harmonic_mean(both)}


def _rmis_machine(sections: Sequence[Section], year: int) -> float:
    if year == 2020:
        return float(np.mean([50 * (s.auc() + s.partial()) for s in sections]))
    return harmonic_mean([100 * harmonic_mean(_rmis_columns(s, year)) for s in sections])


def _rmis_columns(s: Section, year: int) -> list[float]:
    if year == 2021:  # each domain with its own anomalies
        return [metric(domain) for domain in (~s.target, s.target) for metric in (s.auc, s.partial)]
    return [s.auc(~s.target | s.anomalous), s.auc(s.target | s.anomalous), s.partial()]


def siren_year(sections: Sequence[Section], *, year: int, rules: SirenRules) -> float:
    """In percent: one mean over every AUC and partial AUC of development and evaluation together."""
    values: list[float] = []
    for s in sections:
        everything = np.ones(len(s.score), bool)
        domains = [everything] if year == 2020 else [~s.target, s.target]
        groups = domains
        if year >= 2022:
            groups = [everything]
        if rules.official_auc and year >= 2022:
            domains = [domain | s.anomalous for domain in domains]
        values += [v for kept in domains if (v := _siren_value(s, kept, "auc", rules)) is not None]
        values += [v for kept in groups if (v := _siren_value(s, kept, "partial", rules)) is not None]
    if not values:
        raise ModelError(f"DCASE {year}: no group of clips has both classes")
    return 100 * (float(np.mean(values)) if year == 2020 else harmonic_mean(values))


def _siren_value(s: Section, kept: Bools, metric: str, rules: SirenRules) -> float | None:
    there = s.anomalous[kept]
    if not kept.any() or there.all() or not there.any():
        return None if rules.skip_one_class else _EPS  # clamped, which wrecks a harmonic mean
    return s.auc(kept) if metric == "auc" else s.partial(kept)
