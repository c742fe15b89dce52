"""How many channels a box carries, from what they cost here: the tables of deploy/docs/capacity.md.

python tools/capacity.py soak.json

The stages are measured now, in seconds of all cores; the soak (`make soak ARGS="--report soak.json"`) says what the
whole agent took for known channels: what no stage shows is counted as so much for each window. Boxes that are not here
are reckoned from published figures of their processors: on paper.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # as in the agent: idle threads of NumPy's would count

from fisher_agent import app, bench

RATES_HZ = (1_000, 4_000, 12_800, 25_600, 51_200, 100_000)
SOAKED_HZ = (25_600, 12_800, 4_000, 1_000)  # the channels of a machine of the soak (tests/soak/plant.py)
SHARE = bench.SHARE  # of a box that the agent may take; broker and database are elsewhere
DIM, DEPTH = 192, 12  # FISHER-tiny
PATCH, PATCHES_UP = 16, 6  # a band is 100 bins: 6 patches of 16


@dataclass(frozen=True)
class Box:
    """A class of boxes. `gpu_flops`: of float16, that are reached."""

    name: str
    work: float  # all its cores against all of the reference
    core: float  # one against one
    gpu_flops: float | None = None


# Where the figures are from stands in deploy/docs/capacity.md.
REFERENCE = Box("2 virtual cores of an AMD EPYC 7003, 3.4 GHz", work=1.0, core=1.0)
REFERENCE_CORES = 2
REFERENCE_BAND_US = 29_000.0  # of all cores' time for a sub-band, measured there as `band_us` is here
BOXES = (
    REFERENCE,
    Box("Intel N100: 4 cores, 3.4 GHz, 6 W", work=1.0, core=8.7 / 17.7),
    Box("Jetson Orin Nano 8 GB, the model on its CPU", work=4.5 / 6.8, core=0.75 / 3.4),
    Box("Jetson Orin Nano 8 GB, the model on its GPU", work=4.5 / 6.8, core=0.75 / 3.4, gpu_flops=0.15 * 10e12),
)


def main() -> None:
    """Measure the stages, print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("soak", type=Path, help="what `make soak` wrote")
    soak = json.loads(parser.parse_args().soak.read_text(encoding="utf-8"))
    config = bench.configured(bench.RATE_HZ)
    as_soaked = config.model.model_copy(update={"precision": "f32", "threads": soak["cores"]})
    engine = app.open_engine(config.model_copy(update={"model": as_soaked}))
    hop_s = config.window.hop_s
    costs = {}
    for rate_hz in RATES_HZ:
        print(f"measuring {rate_hz} Hz", file=sys.stderr)
        costs[rate_hz] = bench.costs(engine, rate_hz, clock=time.process_time)
    flops = band_flops(config.window.length_s)
    stages = sum(costs[rate].window_us(hop_s) for rate in SOAKED_HZ) / len(SOAKED_HZ)
    around_us = soak["agent_cores"] * hop_s * 1e6 / soak["channels"] - stages
    print(f"model: {engine.model.backend}, {engine.model.precision}; {flops / 1e9:.2f} GFLOP a sub-band")
    print(
        f"the soak's agent took {around_us / 1e3:.0f} ms a window beyond its stages, {around_us / stages:.0%} of them\n"
    )
    times = REFERENCE_BAND_US / costs[1_000].band_us
    here = Box(
        f"this one: {soak['cores']} cores, {engine.model.device}",
        work=times * soak["cores"] / REFERENCE_CORES,
        core=times,
    )
    print(f"this box is {here.work:.2f} times the reference\n")
    paper = on_paper((here, *BOXES), costs, hop_s, around_us, flops, budget_cores=soak["cores"] / here.work)
    print(measured(costs, hop_s, around_us), paper, sep="\n\n")

    chosen = app.open_engine(config)  # the precision that the agent takes where none is configured
    band_us = bench.costs(chosen, RATES_HZ[0], clock=time.process_time).band_us
    faster = {rate: replace(cost, band_us=band_us) for rate, cost in costs.items()}
    row = on_paper((here,), faster, hop_s, around_us, flops, budget_cores=soak["cores"] / here.work).splitlines()[-1]
    print(f"\nthe same box in {chosen.model.precision}, {band_us / 1e3:.1f} ms a sub-band:\n{row}")


def band_flops(window_s: float) -> float:
    """Multiplications and additions of FISHER-tiny for one sub-band of a window, counted twice as is usual."""
    tokens = (round(window_s * 100) - 2) // PATCH * PATCHES_UP + 1  # frames of 25 ms every 10 ms
    dense = 12 * DIM**2  # of a block: qkv 3, projection 1, MLP 8
    return 2 * DEPTH * (dense * tokens + 2 * tokens**2 * DIM)


def measured(costs: dict[int, bench.Costs], hop_s: float, around_us: float) -> str:
    """What a channel of each rate takes of this box."""
    rows = ["| channel | sub-bands | model, ms a window | other stages | around | of one core |"]
    rows.append("|---|---|---|---|---|---|")
    for rate_hz, cost in costs.items():
        model_us = cost.band_us * cost.bands
        stages_us = cost.window_us(hop_s)
        rows.append(
            f"| {rate_hz / 1e3:g} kHz | {cost.bands} | {model_us / 1e3:.0f} | {(stages_us - model_us) / 1e3:.0f} | "
            f"{around_us / 1e3:.0f} | {(stages_us + around_us) / hop_s / 1e6:.1%} |"
        )
    return "\n".join(rows)


def on_paper(
    boxes: Sequence[Box],
    costs: dict[int, bench.Costs],
    hop_s: float,
    around_us: float,
    flops: float,
    *,
    budget_cores: float,  # what the reference is worth in cores of this box
) -> str:
    """Channels that each class of box carries; all reckoned from what was measured here."""
    rows = [
        f"| box | {' | '.join(f'{r / 1e3:g} kHz' for r in costs)} |",
        "|---|" + "---|" * len(costs),
    ]
    for box in boxes:
        counts = [channels(box, c, hop_s, around_us, flops, budget_cores) for c in costs.values()]
        rows.append(f"| {box.name} | {' | '.join(str(n) for n in counts)} |")
    return "\n".join(rows)


def channels(box: Box, cost: bench.Costs, hop_s: float, around_us: float, flops: float, cores: float) -> int:
    """How many channels fit into the share, on whatever is used up first: all cores, or the one thread that computes.

    That thread waits for the model, which takes every core or the GPU, and does the other stages by itself.
    """
    budget_us = SHARE * hop_s * 1e6
    stages_us, model_us = cost.window_us(hop_s), cost.band_us * cost.bands
    all_cores = cores * box.work
    if box.gpu_flops is None:
        waited_us, computed_us = model_us / all_cores, stages_us + around_us
    else:
        waited_us, computed_us = cost.bands * flops / box.gpu_flops * 1e6, stages_us - model_us + around_us
    alone_us = (stages_us - model_us) * REFERENCE_CORES / cores / box.core
    return int(min(budget_us * all_cores / computed_us, budget_us / (waited_us + alone_us)))


if __name__ == "__main__":
    main()
