"""The demo is the product on embedded defaults: it must find its fault, raise nothing before, and end by itself."""

import json
import subprocess
import sys

import pytest

from integration.harness import environment


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_the_demo_finds_its_fault_and_raises_nothing_before() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "fisher_agent.cli", "demo", "--once", "--json"],
        capture_output=True,
        text=True,
        timeout=380,
        env=environment(),
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(done.stdout)
    assert list(result) == [
        "windows", "points", "alarms_raised", "false_alarms", "detection_delay_s", "backend", "weights",
    ]  # fmt: skip
    assert result["false_alarms"] == 0
    assert result["alarms_raised"] >= 1, "one of the fault; what the real motor's misaligned recordings raise is right"
    assert 0 < result["detection_delay_s"] < 30
    assert result["weights"] == "trained"
    assert result["windows"] > 300
    assert "AUC" in done.stderr, "the real recordings were not judged"
