"""How many channels a box carries, from what they cost here: the tables of deploy/docs/capacity.md.

python tools/capacity.py soak.json

The stages are measured now, in seconds of all cores; the soak (`make soak ARGS="--report soak.json"`) says what the
whole agent took for known channels, so that whatever no stage shows is counted too. Boxes that are not here are
reckoned from published figures of their processors: on paper.
"""

import argparse
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from fisher_agent import app, bench
from fisher_agent.configfile import parse

RATES_HZ = (1_000, 4_000, 12_800, 25_600, 51_200, 100_000)
SOAKED_HZ = (25_600, 12_800, 4_000, 1_000)  # the channels of a machine of the soak (tests/soak/plant.py)
SHARE = bench.SHARE  # of a box that the agent may take; broker and database are elsewhere
DIM, DEPTH = 192, 12  # FISHER-tiny
PATCH, PATCHES_UP = 16, 6  # a band is 100 bins: 6 patches of 16


@dataclass(frozen=True)
class Box:
    """A class of boxes. `work`: all its cores against all of this one's. `gpu_flops`: of float16, that are reached."""

    name: str
    work: float
    gpu_flops: float | None = None


# Where the figures are from stands in deploy/docs/capacity.md.
BOXES = (
    Box("this one: 2 virtual cores of an AMD EPYC 7003, 3.4 GHz", work=1.0),
    Box("Intel N100: 4 cores, 3.4 GHz, 6 W", work=1.0),
    Box("Jetson Orin Nano 8 GB, the model on its CPU", work=0.7),
    Box("Jetson Orin Nano 8 GB, the model on its GPU", work=0.7, gpu_flops=0.15 * 10e12),
)


def main() -> None:
    """Measure the stages, print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("soak", type=Path, help="what `make soak` wrote")
    soak = json.loads(parser.parse_args().soak.read_text(encoding="utf-8"))
    config = parse(bench.CONFIG)
    engine = app.open_engine(config)
    hop_s = config.window.hop_s
    costs = {}
    for rate_hz in RATES_HZ:
        print(f"measuring {rate_hz} Hz", file=sys.stderr)
        costs[rate_hz] = bench.costs(engine, config, rate_hz, clock=time.process_time)
    flops = band_flops(config.window.length_s)
    stages = sum(costs[rate].window_us(hop_s) for rate in SOAKED_HZ) / hop_s / 1e6
    overhead = soak["agent_cores"] / soak["machines"] / stages
    print(f"model: {engine.model.backend}, {engine.model.precision}; {flops / 1e9:.2f} GFLOP a sub-band")
    print(f"the whole agent takes {overhead:.2f} times what its stages take\n")
    print(measured(costs, hop_s, overhead), on_paper(costs, hop_s, overhead, flops, soak["cores"]), sep="\n\n")


def band_flops(window_s: float) -> float:
    """Multiplications and additions of FISHER-tiny for one sub-band of a window, counted twice as is usual."""
    tokens = (round(window_s * 100) - 2) // PATCH * PATCHES_UP + 1  # frames of 25 ms every 10 ms
    dense = 12 * DIM**2  # of a block: qkv 3, projection 1, MLP 8
    return 2 * DEPTH * (dense * tokens + 2 * tokens**2 * DIM)


def measured(costs: dict[int, bench.Costs], hop_s: float, overhead: float) -> str:
    """What a channel of each rate takes of this box."""
    rows = ["| channel | sub-bands | model, ms a window | everything else | of one core |", "|---|---|---|---|---|"]
    for rate_hz, cost in costs.items():
        model_us = cost.band_us * cost.bands
        rest_us = overhead * cost.window_us(hop_s) - model_us
        core = overhead * cost.window_us(hop_s) / hop_s / 1e6
        rows.append(
            f"| {rate_hz / 1e3:g} kHz | {cost.bands} | {model_us / 1e3:.0f} | {rest_us / 1e3:.0f} ms | {core:.1%} |"
        )
    return "\n".join(rows)


def on_paper(costs: dict[int, bench.Costs], hop_s: float, overhead: float, flops: float, cores: int) -> str:
    """Channels that each class of box carries."""
    rows = [
        f"| box | {' | '.join(f'{r / 1e3:g} kHz' for r in costs)} |",
        "|---|" + "---|" * len(costs),
    ]
    for box in BOXES:
        counts = [channels(box, c, hop_s, overhead, flops, cores) for c in costs.values()]
        rows.append(f"| {box.name} | {' | '.join(str(n) for n in counts)} |")
    return "\n".join(rows)


def channels(box: Box, cost: bench.Costs, hop_s: float, overhead: float, flops: float, cores: int) -> int:
    """How many channels fit into the share, on whatever is used up first."""
    budget_us = SHARE * hop_s * 1e6
    whole_us, model_us = overhead * cost.window_us(hop_s), cost.band_us * cost.bands
    if box.gpu_flops is None:
        return int(budget_us * cores * box.work / whole_us)
    gpu_us = cost.bands * flops / box.gpu_flops * 1e6
    return int(min(budget_us * cores * box.work / (whole_us - model_us), budget_us / gpu_us))


if __name__ == "__main__":
    main()
