"""The long run: `make soak ARGS="--minutes 60 --report soak.json"`.

Without --machines it first measures, for a minute each, what nothing and three machines cost the box, and takes as many
as make the load that is asked for: agent, broker, database and sensors together, of all cores.
"""

import argparse
import contextlib
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from integration.harness import Daemon, MqttOutlet, cli_json, write_config
from servers.mosquitto import Mosquitto
from servers.process import free_port
from servers.victoria import VictoriaMetrics
from soak.plant import Load, configured, names, recorded
from soak.watch import Listener, busy_s, cpu_s, metrics, quantiles, slope_per_h, wrong

EVERY_S = 10.0
TRIAL = 3  # machines
TRIAL_S, SETTLE_S = 60.0, 20.0


def soak(folder: Path, machines: int, *, seconds: float, warm_s: float) -> dict[str, Any]:
    """Run so many machines for so long after the warm-up; returns the report."""
    folder.mkdir(parents=True)
    port = free_port()
    with contextlib.ExitStack() as stack:
        broker = stack.enter_context(Mosquitto(folder / "broker"))
        db = stack.enter_context(VictoriaMetrics(folder / "db"))
        config = write_config(
            folder,
            broker_port=broker.port,
            influx=f'url = "{db.url}"',
            machines=configured(names(machines)),
            window_s=None,
            extra=f"[page]\nport = {port}",
        )
        normal = recorded(folder / "normal.npz")
        for name in names(machines):
            cli_json(config, "enroll", "--machine", name, "--from", normal, timeout_s=300)
        daemon = stack.enter_context(Daemon(config))
        heard = stack.enter_context(Listener(broker.port))
        outlet = MqttOutlet(broker.port)
        stack.callback(outlet.close)
        load = stack.enter_context(Load(outlet, names(machines)))
        time.sleep(warm_s)
        heard.forget()
        began_s, used_s, (busy, total) = time.time(), cpu_s(daemon.pid), busy_s()
        warm = cli_json(config, "status")["windows"]
        seen = []
        while time.time() - began_s < seconds:
            # On a grid that illnesses lie on too: each frees memory, and a drifting sample would see a trend in that.
            time.sleep(EVERY_S - (time.time() - began_s) % EVERY_S)
            seen.append({"t_s": time.time() - began_s, **metrics(port)})
        now_busy, now_total = busy_s()
        health = cli_json(config, "status")
        rss = [(s["t_s"], s["process_resident_memory_bytes"] / 1e6) for s in seen]
        edge = max(1, len(seen) // 10)
        return {
            "machines": machines,
            "channels": 4 * machines,
            "seconds": round(seconds),
            "cores": os.cpu_count(),
            "busy": (now_busy - busy) / (now_total - total),
            "agent_cores": (cpu_s(daemon.pid) - used_s) / (time.time() - began_s),
            "rss_mb_per_h": slope_per_h(rss),
            "rss_mb": [rss[0][1], rss[-1][1]],
            "files": _ends(seen, "process_open_fds", edge),
            "tasks": _ends(seen, "fisher_tasks", edge),
            "threads": _ends(seen, "process_threads", edge),
            "windows": health["windows"] - warm,
            "dropped": health["dropped"],
            "late": health["late"],
            "sender_late_s": load.late_s,
            "window_to_state_ms": quantiles(heard.to_state),
            "window_to_alarm_ms": quantiles(heard.to_alarm),
            "raised": dict(heard.raised),
            "series": {
                "rss_mb": rss,
                "late_ms": [(round(t - began_s, 1), round(ms)) for t, ms in heard.to_state],
                "alarm_ms": [(round(t - began_s, 1), round(ms)) for t, ms in heard.to_alarm],
            },
        }


def _ends(seen: list[dict[str, float]], gauge: str, edge: int) -> list[float]:
    """A gauge at the beginning and at the end: the lowest of a few, for requests come and go."""
    return [min(s[gauge] for s in part) for part in (seen[:edge], seen[-edge:])]


def main() -> int:
    """Run it; the exit code is 0 where nothing grew, nothing was lost and nothing false was said."""
    parser = argparse.ArgumentParser(prog="soak", description="an agent under a load it can bear, for long")
    parser.add_argument("--minutes", type=float, default=60.0, help="after the warm-up")
    parser.add_argument("--warm-minutes", type=float, default=20.0, help="before anything counts")
    parser.add_argument("--machines", type=int, help="of four channels each (default: as many as make the load)")
    parser.add_argument("--load", type=float, default=0.7, help="share of all cores, agent and servers together")
    parser.add_argument("--report", type=Path, help="a file for the report, in JSON, for tools/plot_soak.py")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="fisher-soak-"))
    machines = arguments.machines
    if machines is None:
        busy, total = busy_s()
        time.sleep(SETTLE_S)
        now_busy, now_total = busy_s()
        idle = (now_busy - busy) / (now_total - total)
        trial = soak(folder / "trial", TRIAL, seconds=TRIAL_S, warm_s=SETTLE_S)
        each = (trial["busy"] - idle) / TRIAL
        machines = max(1, round((arguments.load - idle) / each))
        print(f"idle {idle:.1%}, a machine {each:.1%}: {machines} machines make {arguments.load:.0%}", flush=True)
    report = soak(folder / "long", machines, seconds=60 * arguments.minutes, warm_s=60 * arguments.warm_minutes)
    print(json.dumps({k: v for k, v in report.items() if k != "series"}, indent=1))
    if arguments.report:
        arguments.report.write_text(json.dumps(report) + "\n", encoding="utf-8")
    faults = wrong(report)
    print("\n".join(faults) or "nothing grew, nothing was lost, nothing false was said")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
