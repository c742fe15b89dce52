"""From times to what the embedding bench claims: ratios in pairs, shares, targets, and a table. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

EAGER, PRODUCTS, ORT = "torch eager", "torch products", "onnxruntime"
COLUMNS = {
    "windows_per_s": "9.2f",
    "speedup_vs_torch_eager": "8.2f",
    "speedup_vs_torch_products": "11.2f",
    "speedup_vs_onnxruntime": "6.2f",
    "share_of_matmul_rate": "10.0%",
    "front_end_share": "10.1%",
    "max_abs_difference": "11.1e",
}
SAME = 1e-3  # float32 embeddings of different runtimes may differ by this much, absolutely; their deviation is 1


@dataclass(frozen=True, slots=True)
class Timed:
    """Seconds of every round; round i of everything that is compared ran at the same time as round i of the rest."""

    seconds: tuple[float, ...]
    front_end_s: tuple[float, ...] = ()


def speedup(ours: Timed, other: Timed) -> float:
    """How many times as fast as the other: the median over the pairs."""
    return median(b / a for a, b in zip(ours.seconds, other.seconds, strict=True))


def comparison(
    name: str, timed: Timed, others: Mapping[str, Timed], *, windows: int, flops: int, rates: Sequence[float]
) -> dict[str, Any]:
    """One object of the report.

    `flops` are those of all windows, `rates` the operations per second that this box reached in this precision in
    each round (none where that is not known).
    """
    taken_s = median(timed.seconds)
    found: dict[str, Any] = {
        "name": name,
        "windows_per_s": windows / taken_s,
        "pairs": len(timed.seconds),
        "spread": (max(timed.seconds) - min(timed.seconds)) / taken_s,
    }
    if rates:
        found["share_of_matmul_rate"] = median(
            flops / seconds / rate for seconds, rate in zip(timed.seconds, rates, strict=True)
        )
    for other, theirs in others.items():
        found[f"speedup_vs_{other.replace(' ', '_')}"] = speedup(timed, theirs)
    if timed.front_end_s:
        found["front_end_share"] = median(
            front / whole for front, whole in zip(timed.front_end_s, timed.seconds, strict=True)
        )
    return found


def targets(comparisons: Sequence[Mapping[str, Any]], *, disturbed: bool) -> list[dict[str, Any]]:
    """Each stated target beside what was measured; `met` is None where this box, or a disturbed run, cannot tell."""
    found = []
    for workload in dict.fromkeys(row["workload"] for row in comparisons):
        rows = {row["contender"]: row for row in comparisons if row["workload"] == workload}
        ours = [row for row in rows.values() if row["ours"] and "absent" not in row]
        serving = [row for row in ours if row["quality_passes"]]
        fastest = max(serving, key=lambda row: row["windows_per_s"])
        bf16 = next((row for row in ours if row["precision"] == "bf16"), None)
        eager = 1 / rows[EAGER]["speedup_vs_torch_products"]
        found += [
            _target(workload, "torch eager takes at most 1.1 times its products and STFT", eager, most=1.1),
            _target(workload, "bf16 against torch eager", bf16 and bf16["speedup_vs_torch_eager"], least=3.5),
            _target(workload, f"fastest ({fastest['contender']}) against torch eager",
                    fastest["speedup_vs_torch_eager"], least=6),
            _target(workload, f"fastest ({fastest['contender']}) against ONNX Runtime",
                    fastest["speedup_vs_onnxruntime"], least=2),
        ]  # fmt: skip
        for row in serving:
            found.append(
                _target(workload, f"share of the front-end ({row['contender']})", row["front_end_share"], most=0.1)
            )
    shown = {row["contender"]: row for row in comparisons if row["ours"] and "absent" not in row}
    for contender, row in shown.items():
        found += [
            _target("", f"64 channels against 8 x 8 channels ({contender})", row["batch_64_over_8x8"], most=1),
            _target("", f"resident memory with the model, MB ({contender})", row["rss_mb"], most=250),
        ]
    for target in found:
        if disturbed and "memory" not in target["what"]:
            target["met"] = None
    return found


def _target(
    workload: str, what: str, measured: float | None, *, least: float | None = None, most: float | None = None
) -> dict[str, Any]:
    limit = least if least is not None else most
    met = None if measured is None else (measured >= least if least is not None else measured <= (most or 0))
    sign = "at least" if least is not None else "at most"
    return {"workload": workload, "what": what, "limit": f"{sign} {limit:g}", "measured": measured, "met": met}


def table(comparisons: Sequence[Mapping[str, Any]]) -> str:
    """The comparisons, a block of lines for each workload."""
    lines = []
    for workload in dict.fromkeys(row["workload"] for row in comparisons):
        lines += ["", f"{workload:42} windows/s  x eager  x products  x ORT  of matmul  front-end  difference"]
        for row in (row for row in comparisons if row["workload"] == workload):
            if "absent" in row:
                lines.append(f"  {row['contender']:40} absent: {row['absent']}")
                continue
            cells = [
                _cell(row.get(key), form)
                for key, form in COLUMNS.items()
            ]  # fmt: skip
            lines.append(f"  {row['contender']:40}" + " ".join(cells) + f"  {row.get('setting', '')}".rstrip())
    return "\n".join(lines[1:])


def _cell(value: float | None, form: str) -> str:
    width = int(form.partition(".")[0])
    return " " * (width - 1) + "-" if value is None else format(value, form)


def verdicts(found: Sequence[Mapping[str, Any]]) -> str:
    """The targets, a line each."""
    lines = []
    for target in found:
        met = {True: "met", False: "MISSED", None: "undecided"}[target["met"]]
        value = "-" if target["measured"] is None else f"{target['measured']:.3g}"
        lines.append(f"{met:15} {target['what']}: {value} ({target['limit']})  {target['workload']}".rstrip())
    return "\n".join(lines)
