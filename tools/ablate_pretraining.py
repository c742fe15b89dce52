"""What each part of the pre-training recipe is worth: seeds, each loss left out once, and recordings mixed in.

    python tools/ablate_pretraining.py --data DIR --out RUNS [--steps 600]

Trains one short run for each variant from `cpu-small`, one after another, judges all of them beside the untrained
model in one evaluation, and prints a table in Markdown. It goes on where it was left. A variant counts as different
where it leaves the range of the seeds; with so few steps that says what helps early, not what helps in the end.
"""

import argparse
import json
import re
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fisher_models.pretrain.config import INSTALLED

BASE = INSTALLED / "cpu-small.toml"
LOSSES = ("band", "patch", "pixel", "contrast", "statistics")
UNTRAINED = "fisher-tiny-untrained"
RECORDED = "esc_machine_sounds"  # CC BY; its own protocols are left out of the comparison
MONITORS = ("rank", "r2_tonality", "r2_modulation", "diagnosis", "anomaly")


@dataclass(frozen=True, slots=True)
class Variant:
    """A run that differs from the base in one thing."""

    name: str
    seed: int = 0
    without: str = ""
    recorded: Path | None = None

    def config(self, steps: int) -> str:
        """The base's TOML with what this variant changes."""
        text = re.sub(r"(?m)^steps = .*$", f"steps = {steps}", BASE.read_text(encoding="utf-8"))
        text = re.sub(r"(?m)^bundle = .*$", f'bundle = "{self.name}"', text)
        text = re.sub(r"(?m)^(look|knn)_every = .*$", rf"\1_every = {steps}", text)
        if self.without:
            text = re.sub(rf"(?m)^{self.without} = .*\n", "", text)
            text = text.replace("[losses]\n", f"[losses]\n{self.without} = 0.0\n")
        if self.recorded:
            text += f'\n[corpus.recorded]\nshare = 0.25\nmanifests = ["{self.recorded}"]\n'
        return text


def variants(data: Path) -> Sequence[Variant]:
    """Three seeds of the whole recipe first: what follows is read against their spread."""
    seeds = [Variant(f"seed-{seed}", seed=seed) for seed in range(3)]
    losses = [Variant(f"without-{loss}", without=loss) for loss in LOSSES]
    return [*seeds, *losses, Variant("with-recordings", recorded=data / RECORDED / "manifest.csv")]


def train(variant: Variant, out: Path, steps: int) -> Path:
    """The bundle's folder; nothing is done where it is there already."""
    folder = out / variant.name
    bundle = folder / variant.name
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "config.toml"
    config.write_text(variant.config(steps), encoding="utf-8")
    if not bundle.is_dir():
        command = ["fisher-models", "pretrain", "--config", config, "--out", folder, "--seed", str(variant.seed)]
        subprocess.run([str(part) for part in command], check=True)
    return bundle


def monitored(folder: Path) -> Mapping[str, float]:
    """What the run's monitors saw last."""
    seen: dict[str, float] = {}
    for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
        said = json.loads(line)
        seen |= {name: float(said[name]) for name in MONITORS if name in said}
    return seen


def evaluate(bundles: Sequence[Path], data: Path, out: Path) -> Mapping[str, Any]:
    """All of them in one evaluation."""
    command: list[Any] = ["fisher-models", "evaluate", "recorded", "--data", data, "--out", out / "results"]
    command += ["--cache", out / "cache", "--no-plots"]
    for contestant in (UNTRAINED, *bundles):
        command += ["--contestant", contestant]
    subprocess.run([str(part) for part in command], check=True, stdout=subprocess.DEVNULL)
    found: Mapping[str, Any] = json.loads((out / "results" / "results.json").read_text(encoding="utf-8"))
    return found


def table(results: Mapping[str, Any], out: Path, named: Mapping[str, str]) -> str:
    """One line for each variant: its mean over the protocols that every variant saw, and its monitors."""
    reached: dict[str, list[float]] = {name: [] for name in named}
    for protocol in results["protocols"]:
        if protocol["name"].startswith("esc"):
            continue
        found = {name: protocol["results"][contestant] for name, contestant in named.items()}
        if all(one is not None for one in found.values()):
            for name, one in found.items():
                reached[name].append(float(one[protocol["headline"]]))
    lines = ["| | mean | better than untrained | " + " | ".join(MONITORS) + " |", "|---" * (3 + len(MONITORS)) + "|"]
    base = reached[UNTRAINED]
    for name, values in reached.items():
        better = sum(mine > theirs for mine, theirs in zip(values, base, strict=True))
        seen = {} if name == UNTRAINED else monitored(out / name)
        said = [f"{seen[m]:.2f}" if m in seen else "" for m in MONITORS]
        lines.append(f"| {name} | {statistics.mean(values):.3f} | {better} of {len(values)} | {' | '.join(said)} |")
    return "\n".join(lines)


def main() -> int:
    """Train, judge, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="the folder that holds the recorded sets")
    parser.add_argument("--out", type=Path, required=True, help="where runs are kept")
    parser.add_argument("--steps", type=int, default=600)
    arguments = parser.parse_args()
    data, out = arguments.data.resolve(), arguments.out.resolve()
    bundles = {variant.name: train(variant, out, arguments.steps) for variant in variants(data)}
    results = evaluate(list(bundles.values()), data, out)
    named = {UNTRAINED: UNTRAINED} | {name: str(path) for name, path in bundles.items()}
    print(table(results, out, named))
    return 0


if __name__ == "__main__":
    sys.exit(main())
