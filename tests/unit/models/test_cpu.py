"""A graph freed in another thread than the one that loaded it leaves signals working."""

import subprocess
import sys

import pytest

LIFE = """
import faulthandler, gc, signal, threading
from fisher_models.bundle import load as bundle
{load}

faulthandler.enable()  # as pytest and every daemon that wants a traceback does
held = [load(bundle("fisher-tiny"))]
freeing = threading.Thread(target=lambda: (held.clear(), gc.collect()))
freeing.start()
freeing.join()
came = []
signal.signal(signal.SIGTERM, lambda *_: came.append(1))
signal.raise_signal(signal.SIGTERM)
print("handled", len(came))
"""


@pytest.mark.parametrize(
    "load",
    [
        "from fisher_models.execute import openvino_runner as load",
        "from fisher_agent.backends.openvino import OpenVinoEmbedder as load",
    ],
)
def test_a_signal_after_the_last_graph_was_freed_elsewhere_is_handled(load: str) -> None:
    child = [sys.executable, "-c", LIFE.format(load=load)]
    done = subprocess.run(child, capture_output=True, text=True, timeout=100, check=False)
    assert (done.returncode, done.stdout) == (0, "handled 1\n"), done.stderr
