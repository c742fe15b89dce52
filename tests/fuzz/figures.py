"""The table of a campaign."""

from typing import Any


def as_markdown(report: dict[str, Any]) -> str:
    """What was fed to what, and what came of it."""
    total = sum(row["inputs"] for row in report["targets"])
    found = sum(len(row["findings"]) for row in report["targets"])
    lines = [
        "# The longest fuzzing campaign so far",
        "",
        f"Written by the tool itself, begun {report['began']}, {report['hours']:g} h, Python {report['python']}:",
        "",
        f"    {report['command']}",
        "",
        f"{total} inputs, {found} findings. Taken is the share that a target accepted, worst the longest that one",
        "input took, with whatever else ran on the machine, and peak what the process grew by.",
        "",
        "| target | inputs | taken | inputs/s | worst, ms | peak, MB | findings |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for row in report["targets"]:
        taken = row["accepted"] / max(1, row["inputs"])
        lines.append(
            f"| {row['name']} | {row['inputs']} | {taken:.0%} | {row['per_s']:.0f} | {row['worst_s'] * 1000:.1f} | "
            f"{row['peak_mb']:.1f} | {len(row['findings'])} |"
        )
    lines += [""] * bool(found)
    lines += [
        f"- {row['name']}: {finding['kind']} {finding['detail']} at {finding['where']}"
        for row in report["targets"]
        for finding in row["findings"]
    ]
    return "\n".join([*lines, ""])
