"""A plot per data set: each protocol's contestants with their intervals. Needs matplotlib, which only this imports."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fisher_models.errors import ModelError
from fisher_models.evaluate.bootstrap import interval
from fisher_models.evaluate.judge import Judged

_CHANCE = {"auc": 0.5}


def plots(judged: Sequence[Judged], folder: Path) -> list[Path]:
    """One PNG per set, named after it; returns their paths. ModelError where matplotlib is missing."""
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise ModelError("plots need matplotlib: pip install matplotlib, or leave them out with --no-plots") from error
    sets: dict[str, list[Judged]] = {}
    for one in judged:
        sets.setdefault(one.protocol.folders[0], []).append(one)
    written = []
    for name, members in sets.items():
        rows = sum(len(one.results) for one in members)
        figure = Figure(figsize=(7.5, 1.0 + 0.22 * rows + 0.45 * len(members)), layout="constrained")
        axes = figure.subplots(len(members), 1, squeeze=False, sharex=True, height_ratios=_heights(members))
        for axis, one in zip(axes[:, 0], members, strict=True):
            _draw(axis, one)
        axes[-1, 0].set_xlabel("bars: middle 95 % over recordings; dashed: published; dotted: chance", fontsize=7)
        path = folder / f"{name}.png"
        figure.savefig(path, dpi=120)
        written.append(path)
    return written


def _heights(members: Sequence[Judged]) -> list[int]:
    return [len(one.results) + 1 for one in members]


def _draw(axis: Any, one: Judged) -> None:
    names = list(one.results)
    for at, name in enumerate(names):
        if (result := one.results[name]) is None:
            axis.text(0.5, at, "not seen", va="center", ha="center", fontsize=7, color="grey")
            continue
        value = result.metrics[one.headline]
        low, high = interval(result.replicates)
        axis.plot([low, high], [at, at], color="grey", linewidth=1)
        axis.plot(value, at, "o", markersize=4, color="black" if at == 0 else "tab:blue")
    axis.set_yticks(range(len(names)), names, fontsize=7)
    axis.set_ylim(len(names) - 0.5, -0.5)
    axis.set_xlim(0, 1.02)
    axis.set_title(f"{one.protocol.name} ({one.headline}, {one.units} drawn)", fontsize=8, loc="left")
    if (published := one.protocol.reached.get(one.headline)) is not None:
        axis.axvline(published, linestyle="--", linewidth=0.8, color="tab:orange")
    if (chance := _CHANCE.get(one.headline)) is not None:
        axis.axvline(chance, linestyle=":", linewidth=0.8, color="grey")
    axis.grid(visible=True, axis="x", linewidth=0.3)
