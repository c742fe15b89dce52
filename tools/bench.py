"""`make bench`: every speed claim as a ratio against a named alternative, measured in one run, then this box.

Runs each tests/bench/bench_*.py and the agent's own bench. With --json it prints one document, which
tools/plot_bench.py turns into the README's table and plot.
"""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    """Run each comparison and the agent's own bench; --json prints one document."""
    as_json = "--json" in sys.argv[1:]
    results = {}
    for script in sorted(ROOT.glob("tests/bench/bench_*.py")):
        results[script.stem] = _run(as_json, sys.executable, str(script))
    results["fisher-agent bench"] = _run(as_json, sys.executable, "-m", "fisher_agent.cli", "bench")
    if as_json:
        print(json.dumps(results))


def _run(as_json: bool, *command: str) -> object:
    if not as_json:
        print(f"\n$ {' '.join(Path(c).name if c.startswith('/') else c for c in command)}", flush=True)
        subprocess.run(command, check=True)
        return None
    done = subprocess.run([*command, "--json"], check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout)


if __name__ == "__main__":
    main()
