"""The soak's figures and plot, from the JSON that it writes.

make soak ARGS="--minutes 60 --report soak.json"
python tools/plot_soak.py soak.json          prints the table, writes agent/figures/soak.svg
"""

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

mpl.use("svg")
from matplotlib import pyplot as plt

FIGURE = Path(__file__).resolve().parent.parent / "agent" / "figures" / "soak.svg"
OURS, OTHER, GREY = "#1f6f8b", "#c8553d", "#b0b7bc"
BIN_S = 60.0


def main() -> None:
    """Print the table, write the plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("json", type=Path, help="what the soak wrote")
    parser.add_argument("--out", type=Path, default=FIGURE, help="the plot (svg)")
    options = parser.parse_args()
    report = json.loads(options.json.read_text(encoding="utf-8"))
    print(table(report))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    draw(report, options.out)


def table(report: dict[str, Any]) -> str:
    """Markdown."""
    state, alarm = report["window_to_state_ms"], report["window_to_alarm_ms"]
    rows = {
        "load": f"{report['machines']} machines, {report['channels']} channels; {report['busy']:.0%} of "
        f"{report['cores']} cores, {report['agent_cores']:.2f} cores of it the agent",
        "time": f"{report['seconds'] / 60:.0f} minutes after the warm-up",
        "RSS": f"{report['rss_mb'][0]:.0f} MB at first, {report['rss_mb'][1]:.0f} MB at the end: "
        f"{report['rss_mb_per_h']:+.2f} MB per hour (Theil-Sen)",
        "open files, tasks, threads": ", ".join(
            f"{report[k][0]:.0f} → {report[k][1]:.0f}" for k in ("files", "tasks", "threads")
        ),
        "windows": f"{report['windows']} embedded, {report['dropped']} dropped, {report['late']} late",
        "window to verdict at the HMI": f"median {state['median']:.0f} ms, p95 {state['p95']:.0f}, "
        f"p99 {state['p99']:.0f}, highest {state['highest']:.0f}",
        "window to alarm at the HMI": f"median {alarm['median']:.0f} ms, p99 {alarm['p99']:.0f}, "
        f"highest {alarm['highest']:.0f} ({sum(report['raised'].values())} alarms)",
    }
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {text} |" for name, text in rows.items())])


def draw(report: dict[str, Any], path: Path) -> None:
    """Memory above, latency of every minute below."""
    figure, (above, below) = plt.subplots(2, 1, figsize=(8, 5), sharex=True, layout="constrained")
    t_s, rss = np.array(report["series"]["rss_mb"]).T
    above.plot(t_s / 60, rss, color=OURS)
    above.set_ylim(0, 1.2 * rss.max())
    above.set_ylabel("RSS (MB)")
    above.set_title(f"{report['machines']} machines, {report['channels']} channels, {report['busy']:.0%} of the box")
    t_s, late = np.array(report["series"]["late_ms"]).T
    minutes = np.floor(t_s / BIN_S)
    for q, style in ((0.5, OURS), (0.99, OTHER)):
        per = [(m, np.quantile(late[minutes == m], q)) for m in np.unique(minutes)]
        below.plot(*np.array(per).T, color=style, label=f"p{100 * q:.0f} of a minute")
    if alarms := report["series"]["alarm_ms"]:
        t_s, late = np.array(alarms).T
        below.plot(t_s / 60, late, "o", color=GREY, markersize=4, label="alarms")
    below.set_ylim(0)
    below.set_ylabel("last sample to HMI (ms)")
    below.set_xlabel("minutes")
    below.legend(loc="lower right", fontsize=8, ncols=3)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


if __name__ == "__main__":
    main()
