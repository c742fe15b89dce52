"""The agent's command line on a box whose clock can be set and whose model can be made to fail, by a file.

    python -m chaos.rigged run --config plant.toml        with `rig.json` beside plant.toml

Everything else is the agent as it is. What is rigged sits at the edge: the answer of the model, and UTC.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from fisher_agent.backends.openvino import OpenVinoEmbedder
from fisher_agent.cli import main
from fisher_agent.stages import Floats
from fisher_models.ending import run

FILE = "rig.json"
LOOKED_S = 0.05  # so long what the file said is believed


class Rig:
    """What the file says now; nothing where there is none."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._said: dict[str, Any] = {}
        self._looked_s = -1.0

    def said(self) -> dict[str, Any]:
        """`backend`: nan, wrong or hang; `clock_off_s`: how far UTC is off."""
        now_s = time.monotonic()
        if now_s - self._looked_s > LOOKED_S:
            self._looked_s = now_s
            self._said = json.loads(self._file.read_text()) if self._file.exists() else {}
        return self._said


def rig(file: Path) -> None:
    """Put the rig between the agent and its box."""
    box = Rig(file)
    embed, utc_ns, utc_s = OpenVinoEmbedder.embed, time.time_ns, time.time

    def answer(self: OpenVinoEmbedder, bands: Floats, centres: Floats) -> Floats:
        while box.said().get("backend") == "hang":
            time.sleep(LOOKED_S)
        out = embed(self, bands, centres)
        match box.said().get("backend"):
            case "nan":
                return np.full_like(out, np.nan)
            case "wrong":
                return out + 1
        return out

    def off_s() -> float:
        return float(box.said().get("clock_off_s", 0.0))

    OpenVinoEmbedder.embed = answer  # type: ignore[method-assign]
    time.time_ns = lambda: utc_ns() + round(off_s() * 1e9)
    time.time = lambda: utc_s() + off_s()


if __name__ == "__main__":
    rig(Path(sys.argv[sys.argv.index("--config") + 1]).with_name(FILE))
    run(lambda: main(sys.argv[1:]))
