"""The README's table and plot of the embedding bench, from the JSON that it prints.

make -s bench ARGS=--json > bench.json          (or: python tests/bench/bench_embed.py --json > bench.json)
python tools/plot_bench.py bench.json        prints the table, writes models/figures/bench_embed.svg
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("svg")
from matplotlib import pyplot as plt

FIGURE = Path(__file__).resolve().parent.parent / "models" / "figures" / "bench_embed.svg"
OURS, THEIRS = "#1f6f8b", "#b0b7bc"
COLUMNS = {
    "windows_per_s": ("windows/s", "{:.1f}"),
    "speedup_vs_torch_eager": ("x eager torch", "{:.2f}"),
    "speedup_vs_torch_products": ("x its bare products", "{:.2f}"),
    "speedup_vs_onnxruntime": ("x ONNX Runtime", "{:.2f}"),
    "share_of_matmul_rate": ("of the matmul rate", "{:.0%}"),
    "front_end_share": ("front-end", "{:.1%}"),
    "rss_mb": ("MB", "{:.0f}"),
}
Row = Mapping[str, Any]


def main() -> None:
    """Print the table, write the plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("json", type=Path, help="what the bench printed")
    parser.add_argument("--out", type=Path, default=FIGURE, help="the plot (svg)")
    options = parser.parse_args()
    report = _report(options.json)
    print(markdown(report))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    plot(report, options.out)


def markdown(report: Mapping[str, Any]) -> str:
    """A table for each workload, and the targets."""
    lines = [f"`{report['bundle']}`, {report['box']['cores']} cores of an {report['box']['cpu']}:"]
    for workload, rows in _by_workload(report["comparisons"]):
        titles = [title for title, _ in COLUMNS.values()]
        lines += ["", f"| {workload} | {' | '.join(titles)} |", f"|---|{'---:|' * len(titles)}"]
        for row in rows:
            cells = [form.format(row[key]) if row.get(key) is not None else "" for key, (_, form) in COLUMNS.items()]
            name = f"**{row['contender']}**" if row["ours"] else row["contender"]
            lines.append(f"| {name} | {' | '.join(cells)} |")
    absent = {row["contender"]: row["absent"] for row in report["comparisons"] if "absent" in row}
    lines += ["", *(f"Not measured here: {name} ({why})." for name, why in absent.items())]
    return "\n".join(lines)


def plot(report: Mapping[str, Any], out: Path) -> None:
    """Bars of windows per second, a panel for each workload."""
    panels = _by_workload(report["comparisons"])
    mpl.rcParams.update({"svg.hashsalt": "bench_embed", "font.size": 9})
    rows_in_all = max(len(rows) for _, rows in panels)
    figure, axes = plt.subplots(1, len(panels), figsize=(9, 0.9 + 0.35 * rows_in_all), squeeze=False)
    for axis, (workload, rows) in zip(axes[0], panels, strict=True):
        names = [row["contender"] for row in rows]
        values = [row["windows_per_s"] for row in rows]
        bars = axis.barh(names, values, color=[OURS if row["ours"] else THEIRS for row in rows])
        axis.bar_label(bars, [_label(row) for row in rows], padding=3)
        axis.invert_yaxis()
        axis.set_xlim(0, max(values) * 1.35)
        axis.set_title(workload, fontsize=9)
        axis.set_xlabel("windows per second")
        axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"{report['bundle']}, {report['box']['cores']} cores of an {report['box']['cpu']}", fontsize=10)
    figure.tight_layout()
    figure.savefig(out, metadata={"Date": None})  # the same figures give the same file


def _report(path: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SystemExit(f"{path} is not what the bench printed with --json: {error}") from error
    report = found.get("bench_embed", found) if isinstance(found, dict) else {}
    if not report.get("comparisons"):
        raise SystemExit(f"{path} holds no comparisons; make it with: make bench ARGS=--json > bench.json")
    if report["quick"]:
        raise SystemExit(f"{path} is of a --quick run, whose figures are worth nothing; run the bench without it")
    if report["disturbed"]:
        raise SystemExit(f"{path} was measured while other processes took the box; run the bench on an idle one")
    return dict(report)


def _by_workload(rows: Sequence[Row]) -> list[tuple[str, list[Row]]]:
    present = [row for row in rows if "absent" not in row]
    names = dict.fromkeys(row["workload"] for row in present)
    return [(name, [row for row in present if row["workload"] == name]) for name in names]


def _label(row: Row) -> str:
    if "speedup_vs_torch_eager" not in row:
        return f"{row['windows_per_s']:.1f}"
    return f"{row['windows_per_s']:.1f}  ({row['speedup_vs_torch_eager']:.2f}x)"


if __name__ == "__main__":
    main()
