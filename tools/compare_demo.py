"""The demo's story judged as shipped, and by the embedding alone of the shipped and of untrained weights.

python tools/compare_demo.py     prints a table: detection delay and false alarms (a minute each; needs torch)
"""

import asyncio
import io
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console

from fisher_agent.config import Config
from fisher_agent.demo import scenario, story
from fisher_agent.logs import configure
from fisher_models.export import export
from fisher_models.families import PRESETS, seeded_state


def main() -> None:
    """Run all three, one after another."""
    configure("error")
    print("| judged by | weights | fault found after, s | false alarms |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        preset = PRESETS["fisher-tiny"]
        untrained = Path(folder) / "fisher-tiny"
        export(preset, seeded_state(preset, seed=0), out=untrained, weights="untrained", origin="a comparison")
        for judge_by, bundle in (("indicators", None), ("embedding", None), ("embedding", untrained)):
            told = _told({"judge_by": judge_by, "bundle": str(bundle or "fisher-tiny")})
            found = (judge_by, told["weights"], str(told["detection_delay_s"]), str(told["false_alarms"]))
            print(f"| {' | '.join(found)} |", flush=True)


def _told(model: dict[str, str]) -> dict[str, Any]:
    def configuration(*given: Any, **more: Any) -> Config:
        config = scenario.configuration(*given, **more)
        return config.model_copy(update={"model": config.model.model_copy(update=model)})

    story.configuration = configuration  # type: ignore[attr-defined]  # what the story begins with
    out = Console(file=io.StringIO())
    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(story._demo(Path(folder), out, once=True))


if __name__ == "__main__":
    main()
