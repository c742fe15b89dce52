"""`fisher-models pretrain`: its arguments, and what it prints. Loads torch only when it runs."""

import argparse
import json
from pathlib import Path
from typing import Any

from fisher_models.errors import TrainingError

INTERRUPTED = 130


def add(verbs: Any) -> None:
    """Add the verb to `fisher-models`' subparsers."""
    text = "train a model on generated signals; goes on where it was left, and writes a bundle at the end"
    sub: argparse.ArgumentParser = verbs.add_parser("pretrain", help=text, description=text)
    sub.add_argument(
        "--config", required=True, metavar="FILE", help="a TOML file, or an installed name such as cpu-small"
    )
    sub.add_argument("--out", type=Path, metavar="DIR", help="the run's folder, instead of run.out")
    sub.add_argument("--seed", type=int, metavar="N", help="instead of run.seed")
    sub.add_argument(
        "--minutes", type=float, metavar="M", help="end this sitting after so long; the same command goes on"
    )
    sub.add_argument("--json", action="store_true", help="print one JSON document at the end")
    sub.set_defaults(act=act)


def act(arguments: argparse.Namespace) -> int:
    """Exit codes: 0 all steps done, or the time that was given is over; 130 interrupted, with a checkpoint."""
    from fisher_models.pretrain import config, train  # need torch

    if arguments.minutes is not None and not arguments.minutes > 0:
        raise TrainingError(f"--minutes {arguments.minutes:g} must be above 0")
    settings = config.load(arguments.config)
    changed: dict[str, Any] = {}
    if arguments.out is not None:
        changed["out"] = arguments.out
    if arguments.seed is not None:
        if not 0 <= arguments.seed <= 2**31:
            raise TrainingError(f"--seed {arguments.seed} must lie between 0 and {2**31}")
        changed["seed"] = arguments.seed
    settings = settings.model_copy(update={"run": settings.run.model_copy(update=changed)})
    done = train.run(settings, minutes=arguments.minutes)
    bundle = done.bundle
    if arguments.json:
        said = {
            "step": done.step,
            "steps": done.steps,
            "interrupted": done.interrupted,
            "bundle": str(bundle.path) if bundle else "",
            "digest": bundle.digest if bundle else "",
        }
        print(json.dumps(said))
    elif bundle:
        print(f"{bundle.name} {bundle.digest} ({bundle.weights}) -> {bundle.path}")
    else:
        print(f"step {done.step} of {done.steps} in {settings.run.out}; the same command goes on from there")
    return INTERRUPTED if done.interrupted and not bundle else 0
