"""The stories of the recordings judged as shipped, and by the embedding alone of the shipped and of untrained weights.

python tools/compare_recordings.py     prints tables (some minutes each; needs torch, and the recordings beside the
                                       repository or in $FISHER_SHARED)
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any
from xml.etree import ElementTree as ET

REPOSITORY = Path(__file__).parents[1]
STORIES = "tests/integration/test_recordings.py"
JUDGES = {
    "indicators": "indicators, as shipped",
    "embedding": "embedding, shipped weights",
    "untrained": "embedding, untrained",
}
ALARM, HEALTHY = "alarm at share of life", 0.6
LIFE = "femto_bearing"  # what the names of runs to failure begin with

Measured = dict[str, dict[str, Any]]


def main() -> None:
    """Run all three, one after another."""
    found = {said: _told(judge) for judge, said in JUDGES.items()}
    names = list(next(iter(found.values())))
    print("| AUC; windows over the limit: normal, others |", *(f" {said} |" for said in found), sep="")
    print("|---|", *("---|" for _ in found), sep="")
    for name in names:
        print(f"| {name} |", *(f" {_cell(measured[name])} |" for measured in found.values()), sep="")

    print("\n| runs to failure | AUC, mean (worst) | first alarm, share of life: each | median | false alarms |")
    print("|---|---|---|---|---|")
    for said, measured in found.items():
        lives = [row for name, row in measured.items() if name.startswith(LIFE)]
        aucs, alarms = [row["auc"] for row in lives], [row[ALARM] for row in lives]
        late = [1.0 if a is None else a for a in alarms if a is None or a >= HEALTHY]
        print(
            f"| {said} | {sum(aucs) / len(aucs):.3f} ({min(aucs):.3f}) |",
            ", ".join("never" if a is None else f"{a:.2f}" for a in alarms),
            f"| {median(late):.2f} | {len(alarms) - len(late)} of {len(alarms)} |",
        )
    print(f"\nAn alarm takes three windows in a row; before {HEALTHY:g} of life it is called false, and in no median.")


def _cell(row: dict[str, Any]) -> str:
    if "auc" not in row:
        return ", ".join(f"{what} {share:.0%}" for what, share in row.items())
    return f"{row['auc']:.3f}; {row['over'][0]:.0%}, {row['over'][1]:.0%}"


def _told(judge: str) -> Measured:
    """What the stories report of a judge; ends the program where one of them fails or is skipped."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-rs", STORIES, f"--junitxml={report}", "-o", "junit_family=xunit1"],
            cwd=REPOSITORY,
            env=os.environ | {"FISHER_JUDGE": judge},
            capture_output=True,
            text=True,
            check=False,
        )
        cases = ET.parse(report).findall(".//testcase") if report.exists() else []
        if done.returncode or not cases or any(case.find("skipped") is not None for case in cases):
            sys.exit(f"{STORIES} with FISHER_JUDGE={judge} did not run to its end:\n{done.stdout[-3000:]}{done.stderr}")
        return {p.attrib["name"]: json.loads(p.attrib["value"]) for case in cases for p in case.iter("property")}


if __name__ == "__main__":
    main()
