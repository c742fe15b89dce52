"""Judged protocols as a table, as one JSON document, and as a verdict: means, differences, and what is significant."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fisher_models.errors import ModelError
from fisher_models.evaluate.bootstrap import interval
from fisher_models.evaluate.judge import Judged, Result

TOLERANCE = 0.03  # of a published figure
_HEADLINE_NAMES = {"accuracy": "acc", "auc": "AUC"}


@dataclass(frozen=True, slots=True)
class Difference:
    """Of a contestant to the reference, with the middle 95 % of the paired bootstrap."""

    value: float
    low: float
    high: float

    @property
    def mark(self) -> str:
        """+ or - where the interval excludes 0."""
        return "+" if self.low > 0 else "-" if self.high < 0 else ""


@dataclass(frozen=True, slots=True)
class Reproduced:
    """A published figure, and what was reached here."""

    protocol: str
    contestant: str
    metric: str
    published: float
    found: float

    @property
    def holds(self) -> bool:
        """Whether they agree within the tolerance."""
        return abs(self.found - self.published) <= TOLERANCE


def difference(result: Result, reference: Result, headline: str) -> Difference:
    """Paired: both were judged on the same draws."""
    low, high = interval(result.replicates - reference.replicates)
    return Difference(result.metrics[headline] - reference.metrics[headline], low, high)


def means(judged: Sequence[Judged], reference: str) -> dict[str, tuple[float, Difference]]:
    """Of each contestant the mean headline metric over the protocols that all of them see, and its difference.

    The interval takes the protocols as given and draws the recordings of each.
    """
    seen = _seen_by_all(judged)
    if not seen:
        return {}
    out = {}
    for name in judged[0].results:
        ours, theirs = ([_result(one, who) for one in seen] for who in (name, reference))
        value, other = (
            float(np.mean([r.metrics[j.headline] for r, j in zip(rs, seen, strict=True)])) for rs in (ours, theirs)
        )
        apart = np.mean([a.replicates - b.replicates for a, b in zip(ours, theirs, strict=True)], axis=0)
        out[name] = (value, Difference(value - other, *interval(apart)))
    return out


def reproduced(judged: Sequence[Judged]) -> list[Reproduced]:
    """Every published figure that one of the contestants can be held against."""
    return [
        Reproduced(one.protocol.name, one.protocol.reached_by, metric, published, result.metrics[metric])
        for one in judged
        if (result := one.results.get(one.protocol.reached_by)) is not None
        for metric, published in one.protocol.reached.items()
    ]


def table(judged: Sequence[Judged], reference: str) -> str:
    """A row per protocol, a column per contestant: the headline metric, its interval, and + or - where it differs."""
    if not judged:
        raise ModelError("no protocol was judged")
    names = list(judged[0].results)
    heads = ["protocol", "metric", "n", *(f"[{i}]" for i in range(1, len(names) + 1))]
    rows = [
        [
            one.protocol.name,
            _HEADLINE_NAMES[one.headline],
            str(one.units),
            *(_cell(one, name, reference) for name in names),
        ]
        for one in judged
    ]
    rows += _mean_rows(judged, reference, names)
    widths = [max(len(row[i]) for row in [heads, *rows]) for i in range(len(heads))]
    lines = [
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in [heads, *rows]
    ]
    lines.insert(1, "-" * max(map(len, lines)))
    lines += ["", *(f"[{i}] {name}" for i, name in enumerate(names, start=1))]
    lines += [
        f"Intervals: middle 95 % over recordings drawn anew. + and - : better or worse than {reference}, whose paired",
        "difference excludes 0. n: recordings, blocks or runs that are drawn.",
    ]
    if held := reproduced(judged):
        wrong = [one for one in held if not one.holds]
        lines.append(f"Published figures reproduced within {TOLERANCE:g}: {len(held) - len(wrong)} of {len(held)}.")
        lines += [f"  {r.protocol} {r.metric}: {r.found:.3f}, published {r.published:.3f}" for r in wrong]
    return "\n".join(lines)


def document(judged: Sequence[Judged], reference: str) -> dict[str, Any]:
    """Everything, in types that JSON has; NaN and infinity never occur."""
    against = {other: means(judged, other) for other in (judged[0].results if judged else ())}
    return {
        "reference": reference,
        "protocols": [_document_of(one, reference) for one in judged],
        "means": {
            name: {
                "value": value, "protocols": len(_seen_by_all(judged)), "difference": _plain(apart),
                "differences": {other: _plain(of[name][1]) for other, of in against.items() if other != name},
            }
            for name, (value, apart) in means(judged, reference).items()
        },
        "reproduced": [
            {"protocol": r.protocol, "contestant": r.contestant, "metric": r.metric, "published": r.published,
             "found": r.found, "holds": r.holds}
            for r in reproduced(judged)
        ],
    }  # fmt: skip


def _document_of(one: Judged, reference: str) -> dict[str, Any]:
    base = one.results[reference]
    results: dict[str, Any] = {}
    for name, result in one.results.items():
        if result is None:
            results[name] = None
            continue
        low, high = interval(result.replicates)
        results[name] = {**result.metrics, "low": low, "high": high, "episodes": list(result.episodes)}
        if base is not None:
            results[name]["difference"] = _plain(difference(result, base, one.headline))
        results[name]["differences"] = {
            other: _plain(difference(result, against, one.headline))
            for other, against in one.results.items()
            if against is not None and other != name
        }
    return {
        "name": one.protocol.name, "task": one.protocol.task, "sets": list(one.protocol.folders),
        "headline": one.headline, "windows": one.windows, "files": one.recordings, "units": one.units,
        "results": results,
    }  # fmt: skip


def _plain(apart: Difference) -> Mapping[str, float | str]:
    return {"value": apart.value, "low": apart.low, "high": apart.high, "mark": apart.mark}


def _cell(one: Judged, name: str, reference: str) -> str:
    result, base = one.results[name], one.results[reference]
    if result is None:
        return "not seen"
    low, high = interval(result.replicates)
    mark = difference(result, base, one.headline).mark if base is not None else ""
    return f"{result.metrics[one.headline]:.3f} {low:.2f}-{high:.2f}{mark}"


def _mean_rows(judged: Sequence[Judged], reference: str, names: Sequence[str]) -> list[list[str]]:
    seen, found = _seen_by_all(judged), means(judged, reference)
    if not found:
        return []
    cells = [f"{found[name][0]:.3f}{found[name][1].mark}" for name in names]
    apart = [f"{d.value:+.3f} {d.low:+.2f} {d.high:+.2f}" for _, d in (found[name] for name in names)]
    rows = [[f"mean of {len(seen)} seen by all", "", "", *cells], ["difference of the means", "", "", *apart]]
    if len(seen) < len(judged):
        rows.append([f"mean of all {len(judged)}", "", "", *(_mean_of_all(judged, name) for name in names)])
    return rows


def _mean_of_all(judged: Sequence[Judged], name: str) -> str:
    results = [(one.results[name], one.headline) for one in judged]
    values = [result.metrics[headline] for result, headline in results if result is not None]
    return f"{np.mean(values):.3f}" if len(values) == len(results) else ""


def _seen_by_all(judged: Sequence[Judged]) -> list[Judged]:
    return [one for one in judged if all(result is not None for result in one.results.values())]


def _result(one: Judged, name: str) -> Result:
    result = one.results[name]
    if result is None:
        raise ModelError(f"{name} does not see {one.protocol.name}")
    return result
