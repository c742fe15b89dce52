"""The long run: `make chaos ARGS="--kills 1000 --rounds 4 --seed 1 --report chaos.json"`."""

import argparse
import json
import random
import shlex
import sys
import tempfile
from pathlib import Path

from chaos.faults import FAULTS
from chaos.story import live


def main() -> int:
    """Run it; the exit code is 0, or a traceback says what broke and after which fault."""
    parser = argparse.ArgumentParser(prog="chaos", description="break what is around an agent and see what it costs")
    parser.add_argument("--seed", type=int, default=1, help="of the order of faults and of everything in them")
    parser.add_argument("--rounds", type=int, default=1, help="how often each fault is brought about, in another order")
    parser.add_argument("--kills", type=int, default=20, help="SIGKILLs at random moments, after the rounds")
    parser.add_argument("--only", nargs="*", choices=sorted(FAULTS), help="these faults only")
    parser.add_argument("--folder", type=Path, help="where everything is kept (default: a temporary folder)")
    parser.add_argument("--report", type=Path, help="a file for the report, in JSON")
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    faults: list[str] = []
    for _ in range(arguments.rounds):
        names = list(arguments.only or FAULTS)
        rng.shuffle(names)
        faults += names
    faults += ["killed"] * arguments.kills
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="fisher-chaos-"))
    report = live(folder, seed=arguments.seed, faults=faults, say=lambda line: print(line, flush=True))
    report.command = "make chaos ARGS=" + shlex.quote(shlex.join(sys.argv[1:]))
    text = json.dumps(report.as_dict(), indent=1)
    print(text)
    if arguments.report:
        arguments.report.write_text(text + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
