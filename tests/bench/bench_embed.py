"""Waveform to embedding: ours in every precision of this machine, against eager torch and ONNX Runtime, in one run.

    python tests/bench/bench_embed.py [--bundle fisher-tiny] [--pairs 5] [--quick] [--profile] [--json]

Everything embeds the same windows, each runtime in a process of its own and at its fastest setting, taking turns: a
round runs every one once, and ratios are taken within a round, so that what disturbs the box disturbs all of them. The
results of all float32 runtimes are checked to be equal. --quick is for development: its figures are worth nothing.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import psutil

from bench import contenders, embed_report, workloads
from bench.embed_report import EAGER, ORT, PRODUCTS, SAME, Timed
from bench.worker import Absent, Worker
from bench.workloads import Workload
from fisher_agent.backends.probe import ENOUGH
from fisher_models import proof
from fisher_models.bundle import load
from fisher_models.errors import BundleError

ALTERNATIVES = {EAGER: "torch", PRODUCTS: "products", ORT: "onnxruntime"}
RAN_IN = {"f32": {"f32"}, "bf16": {"bf16"}, "int8": {"i8", "u8"}}
QUIET = 0.05  # share of the box that other processes may take before the figures are worth little
SETTLE_S = 0.1  # worker threads of OpenMP and ONNX Runtime spin for a while after their last task
TESTS = str(Path(__file__).parents[1])


def main() -> None:
    """Measure, print; ends with 1 where float32 runtimes disagree."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", default="fisher-tiny", help="an installed bundle, or a folder")
    parser.add_argument("--pairs", type=int, default=5, help="rounds; medians are over them")
    parser.add_argument("--quick", action="store_true", help="few and short windows")
    parser.add_argument("--profile", action="store_true", help="also where the time goes, per operator")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    try:
        load(options.bundle)
    except BundleError as error:
        parser.error(str(error))
    if options.pairs < 1:
        parser.error("--pairs: at least 1")
    report = measure(options.bundle, pairs=options.pairs, quick=options.quick, profile=options.profile)
    if options.json:
        print(json.dumps(report))
    else:
        show(report)
    f32 = [row for row in report["comparisons"] if row.get("precision") == "f32"]
    if wrong := [row["name"] for row in f32 if not row.get("max_abs_difference", 0) <= SAME]:
        sys.exit(f"not the embeddings of the published recipe: {', '.join(wrong)}")


def measure(bundle: str, *, pairs: int, quick: bool, profile: bool) -> dict[str, Any]:
    """The whole report."""
    window_s = 2.0 if quick else 10.0
    loads = [workloads.same_rate(count=4 if quick else 16, window_s=window_s), workloads.mixed(window_s=window_s)]
    with ExitStack() as stack:
        cache = stack.enter_context(tempfile.TemporaryDirectory())
        running = {name: stack.enter_context(Worker(kind, bundle)) for name, kind in ALTERNATIVES.items()}
        ours, absent = _ours(bundle, cache, stack)
        running |= ours
        for worker in running.values():
            worker.ask("take", *loads, *(workload.part() for workload in loads))
        facts = {name: _facts(name, running, bundle, cache, quick=quick) for name in ours}
        comparisons = []
        for workload in loads:
            comparisons += _compare(workload, running, pairs=pairs)
        for row in comparisons:
            row.update(facts.get(row["contender"], {}))
        comparisons += [
            {"name": f"{w.name}: {contender}", "workload": w.name, "contender": contender, "ours": True, "absent": why}
            for contender, why in absent.items() for w in loads
        ]  # fmt: skip
        operators = _operators(running, loads[0], comparisons) if profile else {}
    disturbed = max(row.get("cpu_taken_by_others", 0.0) for row in comparisons) > QUIET
    return {
        "bundle": load(bundle).name,
        "quick": quick,
        "disturbed": disturbed,
        "box": {"cpu": _cpu(), "cores": len(psutil.Process().cpu_affinity() or [0])},
        "comparisons": comparisons,
        "targets": embed_report.targets(comparisons, disturbed=disturbed),
        "operators": operators,
    }


def _ours(bundle: str, cache: str, stack: ExitStack) -> tuple[dict[str, Worker], dict[str, str]]:
    found, absent = {}, {}
    for backend, precision in (*contenders.OURS, *contenders.GPU):
        try:
            found[f"{backend} {precision}"] = stack.enter_context(Worker("ours", bundle, backend, precision, cache))
        except Absent as why:
            absent[f"{backend} {precision}"] = str(why)
    return found, absent


def _facts(name: str, running: dict[str, Worker], bundle: str, cache: str, *, quick: bool) -> dict[str, Any]:
    """What is the same for every workload: quality against float32, memory, and what a larger batch costs."""
    worker, (backend, precision) = running[name], name.split()
    quality = proof.quality(running["openvino f32"].ask("call", "proof"), worker.ask("call", "proof"))
    scaling = worker.ask("call", "scaling", pairs=3 if quick else 5, window_s=1.0 if quick else 5.0)
    return {
        "quality": quality.to_dict(),
        "quality_passes": all(quality.to_dict()[key] >= limit for key, limit in ENOUGH.to_dict().items()),
        "rss_mb": contenders.rss_mb(load(bundle), backend, precision, cache, path=TESTS),
        "batch_64_over_8x8": float(np.median(scaling)),
        **worker.ask("call", "describe"),
    }


def _compare(workload: Workload, running: dict[str, Worker], *, pairs: int) -> list[dict[str, Any]]:
    settings = {name: _best_setting(running[name], workload) for name in ALTERNATIVES}
    chosen = {name: (settings[name],) if name in settings else () for name in running}
    reference = running[EAGER].ask("embeddings", workload.name, *chosen[EAGER])
    flops = running[EAGER].ask("of", "flops", workload.name)
    differences = {
        name: _difference(reference, worker.ask("embeddings", workload.name, *chosen[name]))
        for name, worker in running.items() if name not in (EAGER, PRODUCTS)
    }  # fmt: skip
    rounds: dict[str, list[tuple[float, float]]] = {name: [] for name in running}
    rates: dict[str, list[tuple[float, str]]] = {
        name: [] for name in running if name == EAGER or name.startswith("openvino")
    }  # fmt: skip
    busy = _Elsewhere(running.values())
    for turn in range(pairs):
        names = list(running)
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            time.sleep(SETTLE_S)
            rounds[name].append(running[name].ask("run", workload.name, *chosen[name]))
            if name in rates:
                rates[name].append(running[name].ask("call", "matmul_rate"))
    elsewhere = busy.share()
    timed = {name: Timed(*zip(*taken, strict=True)) for name, taken in rounds.items()}
    fastest = _fastest(rates, flops, timed[PRODUCTS])
    rows = []
    for name in running:
        others = {other: timed[other] for other in ALTERNATIVES if other != name}
        times, precision = (
            (Timed(timed[name].seconds), "f32") if name in ALTERNATIVES else (timed[name], name.split()[1])
        )
        per_s, windows = fastest.get(precision, []), len(workload.windows)
        title = f"{workload.name}: {name}"
        rows.append({
            **embed_report.comparison(title, times, others, windows=windows, flops=flops, rates=per_s),
            "workload": workload.name,
            "contender": name,
            "precision": precision,
            "ours": name not in ALTERNATIVES,
            "setting": str(settings.get(name, "")),
            "matmul_rate_per_s": float(np.median(per_s)) if per_s else None,
            "cpu_taken_by_others": elsewhere,
            **({"max_abs_difference": differences[name]} if name in differences else {}),
        })  # fmt: skip
    return rows


def _fastest(rates: dict[str, list[tuple[float, str]]], flops: int, products: Timed) -> dict[str, list[float]]:
    """Precision -> the operations per second that this box reached in each round.

    Of float32 the fastest of OpenVINO's, torch's and numpy's large products and of the model's own ones in torch. A
    precision that OpenVINO did not really compute in has none.
    """
    found = {}
    for name, taken in rates.items():
        precision = "f32" if name == EAGER else name.split()[1]
        if {ran_in for _, ran_in in taken} <= RAN_IN[precision]:
            found.setdefault(precision, []).append([rate for rate, _ in taken])
    found["f32"].append([flops / seconds for seconds in products.seconds])
    return {precision: [max(now) for now in zip(*every, strict=True)] for precision, every in found.items()}


def _best_setting(worker: Worker, workload: Workload) -> Any:
    """The fastest of an alternative's settings on a part of the workload: each twice, the faster run counts."""
    part = workload.part().name
    taken_s: dict[Any, float] = {}
    for _ in range(2):
        for setting in worker.ask("settings"):
            time.sleep(SETTLE_S)
            seconds, _front_end = worker.ask("run", part, setting)
            taken_s[setting] = min(seconds, taken_s.get(setting, seconds))
    return min(taken_s, key=lambda setting: taken_s[setting])


def _difference(reference: list[Any], found: list[Any]) -> float:
    return max(float(np.abs(a - b).max()) for a, b in zip(reference, found, strict=True))


class _Elsewhere:
    """How much of the box went to processes that are no part of the bench: disturbed figures say so."""

    def __init__(self, workers: Iterable[Worker]) -> None:
        self._processes = [psutil.Process(worker.pid) for worker in workers]
        self._began_s, self._busy_s, self._own_s = time.perf_counter(), self._busy(), self._own()

    def share(self) -> float:
        """Of all cores, since it was made."""
        wall_s = time.perf_counter() - self._began_s
        others_s = self._busy() - self._busy_s - (self._own() - self._own_s)
        return max(0.0, others_s / wall_s / (psutil.cpu_count() or 1))

    def _busy(self) -> float:
        times = psutil.cpu_times()
        return float(times.user + times.nice + times.system + getattr(times, "steal", 0.0))

    def _own(self) -> float:
        return float(sum(sum(process.cpu_times()[:2]) for process in (*self._processes, psutil.Process())))


def _operators(running: dict[str, Worker], workload: Workload, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Where the time goes, for ours and for eager torch."""
    frames = int(len(workload.windows[0][0]) / workload.windows[0][1] * 100) // 16 * 16 - 16
    found = {
        name: worker.ask("call", "operators", frames=frames)
        for name, worker in running.items() if name.startswith("openvino")
    }  # fmt: skip
    setting = next(s for s in running[EAGER].ask("settings") if str(s) in {row.get("setting") for row in rows})
    found[EAGER] = running[EAGER].ask("of", "operators", workload.part().name, setting)
    return {name: [(kind, round(share, 4)) for kind, share in spent[:12]] for name, spent in found.items()}


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def show(report: dict[str, Any]) -> None:
    """As text."""
    print(f"{report['bundle']} on {report['box']['cores']} cores of {report['box']['cpu']}", end="")
    print(" (QUICK: for development only)" if report["quick"] else "")
    print(embed_report.table(report["comparisons"]), end="\n\n")
    rates = {
        row["precision"]: row["matmul_rate_per_s"] for row in report["comparisons"] if row.get("matmul_rate_per_s")
    }
    for precision, rate in rates.items():
        print(f"large products in {precision}: {rate / 1e9:.0f} G operations/s")
    disturbed = max(row.get("cpu_taken_by_others", 0) for row in report["comparisons"])
    print(f"other processes took up to {disturbed:.0%} of the box meanwhile", end="")
    print("\n")
    for row in report["comparisons"]:
        if row["ours"] and "quality" in row and row["workload"] == report["comparisons"][0]["workload"]:
            print(f"{row['contender']:16} quality {row['quality']} {'passes' if row['quality_passes'] else 'REFUSED'}")
    print("\nDISTURBED: no figure above holds; run it again on an idle box" if report["disturbed"] else "")
    print(embed_report.verdicts(report["targets"]))
    for name, spent in report["operators"].items():
        print(f"\ntime of {name}")
        print("\n".join(f"  {share:6.1%}  {kind}" for kind, share in spent))


if __name__ == "__main__":
    main()
