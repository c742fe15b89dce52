"""The table of all long campaigns: what was fed to what so far, and what came of it."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Report = Mapping[str, Any]
HEAD = """# Fuzzing so far

Written by the tool itself (`make fuzz ARGS="... --figures agent/figures/fuzz.md"`), from every campaign that was given
that option. Other seeds give other inputs; a seed gives the same inputs again. What was found is a regression case of
`tests/unit/test_fuzz_found*.py`.
"""
NOTE = """
Taken is the share that a target accepted, worst the longest that one input took, with whatever else ran on the machine
(the limit is 1 s of processor time), and peak what the process grew by.
"""


def add(report: Report, path: Path) -> None:
    """Add a campaign to the figures: `path` is the table in Markdown, beside it lies the same as JSON."""
    known = path.with_suffix(".json")
    campaigns = json.loads(known.read_text(encoding="utf-8")) if known.exists() else []
    campaigns.append(_short(report))
    known.write_text(json.dumps(campaigns, indent=1) + "\n", encoding="utf-8")
    path.write_text(as_markdown(campaigns), encoding="utf-8")


def as_markdown(campaigns: Sequence[Report]) -> str:
    """The campaigns, and the targets over all of them."""
    lines = [HEAD, "| begun | hours | Python | inputs | findings | command |", "|---|---:|---|---:|---:|---|"]
    for one in campaigns:
        total = sum(row["inputs"] for row in one["targets"])
        found = sum(len(row["findings"]) for row in one["targets"])
        lines.append(
            f"| {one['began']} | {one['hours']:.2f} | {one['python']} | {total:,} | {found} | `{one['command']}` |"
        )
    total = sum(row["inputs"] for one in campaigns for row in one["targets"])
    lines += [
        "",
        f"**{total:,} inputs in all.**",
        NOTE,
        "| target | inputs | taken | worst, ms | peak, MB | findings |",
    ]
    lines.append("|---|---:|---:|---:|---:|---:|")
    names = dict.fromkeys(row["name"] for one in campaigns for row in one["targets"])
    for name in names:
        rows = [row for one in campaigns for row in one["targets"] if row["name"] == name]
        inputs = sum(row["inputs"] for row in rows)
        taken = sum(row["accepted"] for row in rows) / max(1, inputs)
        worst, peak = max(row["worst_s"] for row in rows), max(row["peak_mb"] for row in rows)
        found = sum(len(row["findings"]) for row in rows)
        lines.append(f"| {name} | {inputs:,} | {taken:.0%} | {1000 * worst:.1f} | {peak:.1f} | {found} |")
    findings = [
        f"- {one['began'][:10]}, {row['name']}: {finding['kind']} {finding['detail']} at {finding['where']}"
        for one in campaigns
        for row in one["targets"]
        for finding in row["findings"]
    ]
    return "\n".join([*lines, *([""] if findings else []), *findings, ""])


def _short(report: Report) -> dict[str, Any]:
    """Without the inputs that failed, which the report holds."""
    kept = ("kind", "detail", "where", "number")
    targets = [
        {**row, "findings": [{key: finding[key] for key in kept} for finding in row["findings"]]}
        for row in report["targets"]
    ]
    return {**report, "targets": targets}
