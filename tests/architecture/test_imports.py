"""What importing the agent costs, and that its commands are documented."""

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fisher_agent.cli import parser

README = Path(__file__).parents[2] / "README.md"
HEAVY = ("torch", "onnx", "openvino", "amqtt")


def loaded_by(module: str) -> set[str]:
    """The packages that a fresh interpreter has loaded after importing one module."""
    code = f"import json, sys, {module}; print(json.dumps(sorted({{m.partition('.')[0] for m in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


def verbs() -> list[str]:
    found = next(a for a in parser()._actions if isinstance(a, argparse._SubParsersAction))
    return list(found.choices)


def test_the_agent_loads_no_model_runtime_before_one_is_configured() -> None:
    loaded = loaded_by("fisher_agent.app")
    assert "numpy" in loaded
    assert not loaded & set(HEAVY)


@pytest.mark.parametrize("module", ["fisher_agent.operate", "fisher_agent.check", "fisher_agent.demo"])
def test_no_command_loads_torch(module: str) -> None:
    assert "torch" not in loaded_by(module)


def test_help_needs_neither_numpy_nor_a_connection_library() -> None:
    assert not loaded_by("fisher_agent.cli") & {"numpy", "scipy", "zmq", "aiomqtt", "influxdb_client", *HEAVY}


@pytest.mark.parametrize("verb", verbs())
def test_every_command_stands_in_the_readme(verb: str) -> None:
    assert re.search(rf"(fisher-agent |`){verb}\b", README.read_text())
