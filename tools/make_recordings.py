"""Choose and copy the recordings that travel with the package.

Usage: python tools/make_recordings.py FOLDER

FOLDER is a folder of the UGent misalignment recordings as FLAC with its manifest.csv. Chosen is one speed, 425 rpm:
every aligned repetition (1-5 to learn from, 6 and 7 held out) of both series, and repetitions 6 and 7 of 0.3 and
0.5 mm in each direction. Held-out repetitions are compared with held-out ones only: 1-5 and 6-7 differ by 3 % in level
whatever the alignment, so a misaligned 1-5 against an aligned 6-7 would measure the day and not the fault.
"""

import argparse
import csv
import hashlib
import shutil
import sys
from pathlib import Path

TARGET = Path(__file__).parents[1] / "agent" / "fisher_agent" / "recordings" / "mcsa_misalignment"
SPEED = "425rpm"
SEVERITIES = ("+0.3 mm", "-0.3 mm", "+0.5 mm", "-0.5 mm")
ATTRIBUTION = {
    "authors": "Ghent University, IDLab (predict-idlab)",
    "source": "https://github.com/predict-idlab/mcsa-misalignment @ 30349d846d5893bd060ca9a8a2a86934f7e1da63, data/raw",
}


def chosen(row: dict[str, str]) -> bool:
    """Whether a row of the manifest belongs to the demo."""
    if row["load_or_speed"] != SPEED:
        return False
    return row["label"] == "aligned" or (row["split_hint"] == "test" and row["severity"] in SEVERITIES)


def main() -> int:
    """Copy the files unchanged and write their manifest."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    with (folder / "manifest.csv").open(encoding="utf-8", newline="") as lines:
        rows = [row for row in csv.DictReader(lines) if chosen(row)]
    if not rows:
        print(f"{folder}/manifest.csv has no row of {SPEED}", file=sys.stderr)
        return 2
    TARGET.mkdir(parents=True, exist_ok=True)
    for old in TARGET.glob("*.flac"):
        old.unlink()
    for name in {row["file"] for row in rows}:
        shutil.copyfile(folder / name, TARGET / name)
    with (TARGET / "manifest.csv").open("w", encoding="utf-8", newline="") as lines:
        writer = csv.DictWriter(lines, [*rows[0], *ATTRIBUTION, "sha256"], lineterminator="\n")
        writer.writeheader()
        for row in rows:
            digest = hashlib.sha256((TARGET / row["file"]).read_bytes()).hexdigest()
            writer.writerow({**row, **ATTRIBUTION, "sha256": digest})
    size = sum(path.stat().st_size for path in TARGET.iterdir())
    print(f"{len({row['file'] for row in rows})} recordings, {size / 1e6:.2f} MB in {TARGET}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
