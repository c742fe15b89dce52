"""Runs protocols for contestants side by side, on the same windows, and draws the same recordings for all of them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fisher_models.errors import RecordingError
from fisher_models.evaluate.bootstrap import Draws, drawn_episodes, drawn_units
from fisher_models.evaluate.features import Features, Store
from fisher_models.evaluate.fusion import Apart, Contestant, Part, fused_distances, fused_strangeness, neighbourhood
from fisher_models.evaluate.metrics import Roc, accuracy, macro_f1, macro_recall, per_group
from fisher_models.evaluate.neighbours import Doubles, distances, vote
from fisher_models.evaluate.protocol import Episode, Layout, Protocol, Texts, plan
from fisher_models.evaluate.takes import MANIFEST, Take, read_takes

HEADLINES = {"diagnosis": "accuracy", "anomaly": "auc", "run-to-failure": "auc", "onset": "auc"}
_ENOUGH_EPISODES = 5  # to draw from them instead of from recordings


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """What one contestant reached in one protocol."""

    metrics: Mapping[str, float]
    replicates: Doubles  # (draws,) of the headline metric, paired over the contestants
    episodes: tuple[float, ...]  # the headline metric of each


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """One protocol and every contestant's result; None for one that cannot see these signals."""

    protocol: Protocol
    headline: str
    windows: int  # judged
    recordings: int  # that they come from
    units: int  # that a bootstrap draws
    results: Mapping[str, Result | None]


def judge(
    protocol: Protocol, contestants: Sequence[Contestant], *, data: Path, store: Store, draws: int = 1000,
    progress: Callable[[str], None] = lambda _: None,
) -> Judged:  # fmt: skip
    """Every contestant by one protocol on the sets below the folder `data`, or on the one whose manifest it is.

    Raises ModelError naming what does not fit.
    """
    manifests = [data / folder / MANIFEST for folder in protocol.folders] if data.is_dir() else [data]
    takes = [
        take
        for manifest in manifests
        for take in read_takes(manifest, channels=protocol.channels, where=protocol.where)
    ]
    features = Features(takes, protocol.cut, store)
    layout = features.layout(marks=protocol.task == "onset")
    episodes = plan(protocol, takes, layout)
    parts = {part: None for one in contestants for part in one.parts if features.sees(part.encoder)}
    answers: dict[str, list[Texts | Doubles]] = {one.name: [] for one in contestants}
    for number, episode in enumerate(episodes, start=1):
        apart = {}
        for part in parts:
            progress(f"{protocol.name}: {part.encoder.name}, episode {number} of {len(episodes)}")
            apart[part] = _apart(part, episode, features=features, layout=layout, takes=takes)
        for one in contestants:
            if seen := [apart[part] for part in one.parts if part in apart]:
                answers[one.name].append(_answer(protocol, episode, seen, one.rule))
    judging = _diagnosis if protocol.task == "diagnosis" else _anomaly
    chances = Draws(draws)
    results = {
        name: judging(protocol, episodes, given, chances) if len(given) == len(episodes) else None
        for name, given in answers.items()
    }
    recordings = {name for episode in episodes for name in episode.files.tolist()}
    units = {name for episode in episodes for name in episode.units.tolist()}
    return Judged(
        protocol, HEADLINES[protocol.task], sum(len(e.test) for e in episodes), len(recordings), len(units), results
    )


def _apart(part: Part, episode: Episode, *, features: Features, layout: Layout, takes: Sequence[Take]) -> Apart:
    gains = features.gains(part.encoder, episode.train)
    train = features.rows(part.encoder, layout, episode.train, gains)
    test = features.rows(part.encoder, layout, episode.test, gains)
    names = np.array([takes[take].recording for take in layout.take[episode.train]])
    left_out = neighbourhood(layout, episode.train, names, window_s=features.cut.window_s)
    return Apart(*distances(part.space, train, test), left_out)


def _answer(protocol: Protocol, episode: Episode, seen: Sequence[Apart], rule: str) -> Texts | Doubles:
    if protocol.task == "diagnosis":
        return vote(fused_distances(seen, rule), episode.learnt)
    return fused_strangeness(seen, rule)


def _diagnosis(_: Protocol, episodes: Sequence[Episode], given: Sequence[Texts | Doubles], chances: Draws) -> Result:
    truth: Texts = np.concatenate([np.asarray(e.truth, np.str_) for e in episodes])
    found: Texts = np.concatenate([np.asarray(answer, np.str_) for answer in given])
    units, files = np.concatenate([e.units for e in episodes]), np.concatenate([e.files for e in episodes])
    of_truth, of_found = per_group(truth, files), per_group(found, files)
    metrics = {
        "accuracy": accuracy(truth, found),
        "macro_f1": macro_f1(truth, found),
        "macro_recall": macro_recall(truth, found),
        "recording_accuracy": float(np.mean([of_truth[name] == of_found[name] for name in of_truth])),
    }
    right = truth == found
    replicates = [
        float(np.average(right, weights=w)) for w in drawn_units(units, np.zeros(len(units), np.str_), chances)
    ]
    each = [accuracy(np.asarray(e.truth), np.asarray(g)) for e, g in zip(episodes, given, strict=True)]
    return Result(metrics, np.array(replicates), tuple(each))


def _anomaly(_: Protocol, episodes: Sequence[Episode], given: Sequence[Texts | Doubles], chances: Draws) -> Result:
    rocs = [Roc(np.asarray(g, np.float64), np.asarray(e.truth, bool)) for e, g in zip(episodes, given, strict=True)]
    each = [roc.auc() for roc in rocs]
    metrics = {
        "auc": float(np.mean(each)), "pauc": float(np.mean([roc.partial() for roc in rocs])), "worst_auc": min(each)
    }  # fmt: skip
    if len(episodes) >= _ENOUGH_EPISODES:
        replicates = drawn_episodes(np.array(each), np.array([e.files[0] for e in episodes]), chances)
    else:
        of_each = [
            [roc.auc(w) for w in drawn_units(e.units, np.asarray(e.truth).astype(str), chances)]
            for e, roc in zip(episodes, rocs, strict=True)
        ]
        replicates = np.mean(of_each, axis=0)
    return Result(metrics, replicates, tuple(each))


def check_names(contestants: Sequence[Contestant]) -> None:
    """RecordingError where two contestants have one name."""
    names = [one.name for one in contestants]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise RecordingError(f"contestant {twice[0]!r} is given twice")
