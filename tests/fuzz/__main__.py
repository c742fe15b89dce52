"""`make fuzz ARGS="--inputs 1000000 --seed 1"`: feed every target and report what was found."""

import argparse
import os
import shlex
import sys
import tempfile
from pathlib import Path
from random import Random

from fuzz import campaign, figures
from fuzz.targets import TARGETS


def main() -> int:
    """Exit code 1 where anything was found."""
    options = argparse.ArgumentParser(prog="make fuzz ARGS=...", description=__doc__)
    options.add_argument("--inputs", type=int, default=20_000, help="of each target; slow ones take a share of it")
    options.add_argument("--minutes", type=float, help="end then, each target with an even part")
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--target", action="append", choices=list(TARGETS), help="only this one; may be repeated")
    options.add_argument("--report", type=Path, default=Path("build/fuzz.json"))
    options.add_argument("--figures", type=Path, help="add the campaign to this table (Markdown, JSON beside)")
    options.add_argument("--input", type=int, metavar="N", help="write input N of --target to stdout and end")
    options.add_argument("--guided", action="store_true", help="coverage-guided, by atheris; --target, for --minutes")
    given = options.parse_args()
    targets = [TARGETS[name] for name in given.target or TARGETS]
    if given.input is not None or given.guided:
        if len(targets) != 1:
            options.error("name one --target")
        if given.guided:
            again = [sys.executable, "-m", "fuzz.guided", targets[0].name, str(given.minutes or 1.0), str(given.seed)]
            os.execv(sys.executable, again)
        sys.stdout.buffer.write(_input(targets[0], campaign.seeded(given.seed, given.input)))
        return 0
    print(f"{'target':20}{'inputs':>10}{'taken':>8}{'inputs/s':>10}{'worst ms':>10}{'peak MB':>9}{'findings':>10}")
    report = campaign.campaign(targets, inputs=given.inputs, seed=given.seed, minutes=given.minutes, say=_say)
    report["command"] = "make fuzz ARGS=" + shlex.quote(shlex.join(sys.argv[1:]))
    campaign.save(report, given.report)
    if given.figures:
        figures.add(report, given.figures)
    found = [f for row in report["targets"] for f in row["findings"]]
    total = sum(row["inputs"] for row in report["targets"])
    print(f"{total} inputs, {len(found)} findings; {given.report} holds them")
    return 1 if found else 0


def _say(result: campaign.Result) -> None:
    share = result.accepted / max(1, result.inputs)
    rate = result.inputs / result.seconds if result.seconds else 0.0
    print(
        f"{result.name:20}{result.inputs:10}{share:8.0%}{rate:10.0f}{result.worst_s * 1000:10.1f}"
        f"{result.peak_bytes / 1e6:9.1f}{len(result.findings):10}",
        flush=True,
    )
    for finding in result.findings.values():
        times = result.seen[finding.key]
        print(f"  {finding.kind} {times} x: {finding.detail} at {finding.where} (input {finding.number})")
        print(f"    {finding.data[:120]!r}", flush=True)


def _input(target: campaign.Target, rng: Random) -> bytes:
    with tempfile.TemporaryDirectory() as folder, target.open(Path(folder)) as opened:
        return opened.make(rng)


if __name__ == "__main__":
    sys.exit(main())
