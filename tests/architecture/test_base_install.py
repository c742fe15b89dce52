"""The base install: what a box gets without extras is small and holds no torch."""

import importlib.metadata
import subprocess
import sys
from pathlib import Path

from packaging.requirements import Requirement

import fisher_agent
import fisher_models

MAX_BYTES = 500_000_000
PIP_AND_CACHE = 1.2  # pip itself, and byte code that is compiled later


def closure(name: str) -> set[str]:
    """Distributions that `pip install <name>`, without extras, brings along."""
    found: set[str] = set()
    waiting = [name]
    while waiting:
        current = waiting.pop()
        if current in found:
            continue
        found.add(current)
        for line in importlib.metadata.requires(current) or ():
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                waiting.append(requirement.name.lower().replace("_", "-"))
    return found


def test_the_base_install_holds_no_torch_and_stays_under_500_mb() -> None:
    names = closure("fisher-agent")
    assert not {"torch", "onnx", "pyarrow"} & names
    paths = {str(file.locate()) for name in names - {"fisher-agent"} for file in importlib.metadata.files(name) or ()}
    total = sum(Path(path).stat().st_size for path in paths if Path(path).is_file() and not path.endswith(".pyc"))
    for package in (fisher_agent, fisher_models):
        total += sum(f.stat().st_size for f in Path(str(package.__file__)).parent.rglob("*") if f.is_file())
    assert 200_000_000 < total * PIP_AND_CACHE < MAX_BYTES, f"{total / 1e6:.0f} MB before byte code and pip"


def test_importing_the_agent_loads_no_torch() -> None:
    code = "import sys, fisher_agent.app; sys.exit(bool({'torch', 'onnx'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
