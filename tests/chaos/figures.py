"""The table of long runs: `python -m chaos.figures REPORT.json... > agent/figures/chaos.md`."""

import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

REPORT = re.compile(r" --report [^ ']+")  # where it was written says nothing
HEAD = """# Chaos: the long runs

Written by `python -m chaos.figures` from the reports of `make chaos`. Every run ended with all invariants held: no
point, no transition and no bank lost that was not counted, no false alarm of the machine that is well, memory and open
files back where they were. *Slowest* is the longest from the end of the fault until both machines were judged again,
the agent said `online` and nothing waited for the database.
"""


def as_markdown(reports: Sequence[Mapping[str, Any]]) -> str:
    """The runs, and the faults over all of them."""
    lines = [HEAD, "| begun | hours | faults | scores found in the database | transitions | RSS, MB | command |"]
    lines.append("|---|---:|---:|---:|---:|---|---|")
    for one in reports:
        rss = f"{one['rss_mb'][0]} to {one['rss_mb'][-1]}, highest {max(one['rss_mb'])}"
        lines.append(
            f"| {one['began']} | {one['seconds'] / 3600:.2f} | {sum(one['faults'].values())} | {one['scores']:,} | "
            f"{one['transitions']:,} | {rss} | `{REPORT.sub('', one['command'])}` |"
        )
    lines += ["", "| fault | times | slowest, s |", "|---|---:|---:|"]
    names = sorted({name for one in reports for name in one["faults"]})
    for name in sorted(names, key=lambda n: (n != "killed", n)):
        times = sum(one["faults"].get(name, 0) for one in reports)
        slowest = max(one["slowest_s"].get(name, 0.0) for one in reports)
        lines.append(f"| {name.replace('_', ' ')} | {times:,} | {slowest:.1f} |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    print(as_markdown([json.loads(Path(name).read_text(encoding="utf-8")) for name in sys.argv[1:]]), end="")
