"""CPU of the local page with fifty machines, as a share of one core.

    python tests/bench/bench_page.py [--machines 50] [--seconds 20] [--json]

A real agent without model and broker is fed a verdict per machine and hop (2.5 s), on an hour of history, and written
down as the daemon does. Its process is measured while nobody looks, while one browser shows all machines, and while two
more show one machine each; what the first costs is no page's cost and is subtracted. The browsers are another process
that asks what the page's scripts ask, as often (the real scripts are driven in tests/integration/test_page.py).
"""

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from fisher_agent.logs import configure
from fisher_agent.shares import SPAN_NS, Share
from fisher_agent.storerows import Score
from pageplant import CHANNELS, HOP_S, Plant, ask, running_plant

HISTORY_S = 3600
LIMIT_PERCENT = 3.0
SETTLE_S = 3.0
OVERVIEW, MACHINE = "overview", "machine"


async def browse(port: int, views: list[str]) -> None:
    """What browsers ask for: each its stream, the trends every minute or the charts every five seconds."""

    async def stream() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"GET /api/live HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
        while line := await reader.readline():
            if line.startswith(b"event: "):
                print(line.decode().strip(), flush=True)

    async def again(paths: list[str], every_s: float) -> None:
        while True:
            for path in paths:
                answer = await ask(port, path)
                assert answer.status == 200, answer.body
            await asyncio.sleep(every_s)

    async with asyncio.TaskGroup() as group:
        for n, view in enumerate(views):
            group.create_task(stream())
            here = f"/api/machines/mill-{n + 1:02}"
            paths = (
                ["/api/trends"] if view == OVERVIEW else [f"{here}/charts?span_s=3600&points=600", f"{here}/journal"]
            )
            group.create_task(again(paths, 60.0 if view == OVERVIEW else 5.0))
        print("looking", flush=True)


@asynccontextmanager
async def browsers(port: int, views: list[str], seconds: float) -> AsyncIterator[None]:
    """They look from another process, so that they cost this one nothing but what they ask for."""
    if not views:
        yield
        return
    process = await asyncio.create_subprocess_exec(
        sys.executable, __file__, "--browse", str(port), *views, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert (await process.stdout.readline()).strip() == b"looking"
    try:
        yield
    finally:
        process.terminate()
        said, _ = await process.communicate()
    events = said.count(b"event: ")
    assert events >= 0.7 * seconds * len(views), f"{len(views)} browsers saw {events} events only"


async def fill(plant: Plant) -> None:
    """An hour of scores and shares of every machine, up to now."""
    agent, steps = plant.agent, round(HISTORY_S / HOP_S)
    for machine in plant.machines:
        t0_ns = plant.now_ns - HISTORY_S * 10**9
        scores = [Score(machine, t0_ns + round(n * HOP_S * 1e9), 0.5, 0.5, 0, 0, 0) for n in range(steps)]
        shares = [
            Share(machine, t_ns, {c: 1 / 3 for c, *_ in CHANNELS}, {c: {"0-4000": 1.0} for c, *_ in CHANNELS})
            for t_ns in range(t0_ns, plant.now_ns, SPAN_NS)
        ]
        await agent.in_store(agent.store.add_scores, scores)
        await agent.in_store(agent.store.add_shares, shares)


class Feeder:
    """Verdicts as they come: one machine after the other, each once a hop; every tenth is in alarm."""

    def __init__(self, plant: Plant) -> None:
        self._plant = plant
        self.turns = 0

    async def run(self) -> None:
        """On a schedule that is caught up with, so that every phase does the same work."""
        machines = self._plant.machines
        due_s = time.monotonic()
        while True:
            n = self.turns % len(machines)
            score = 1.5 if n % 10 == 0 else 0.4 + 0.001 * (self.turns % 100)
            await self._plant.judge(machines[n], score)
            await self._plant.agent.ledger.flush()
            self.turns += 1
            if n == len(machines) - 1:
                self._plant.now_ns += round(HOP_S * 1e9)
            due_s += HOP_S / len(machines)
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))


async def measured(plant: Plant, feeder: Feeder, views: list[str], seconds: float) -> float:
    """CPU of this process, all threads, in % of a core; process_time is finer than what psutil reads."""
    async with browsers(plant.port, views, seconds):
        await asyncio.sleep(SETTLE_S)
        before_s, began_s, turns = time.process_time(), time.monotonic(), feeder.turns
        await asyncio.sleep(seconds)
        spent_s, took_s = time.process_time() - before_s, time.monotonic() - began_s
    pace = (feeder.turns - turns) / took_s * HOP_S / len(plant.machines)
    assert 0.9 < pace < 1.1, f"this box is too busy: verdicts came at {pace:.0%} of their pace"
    return 100 * spent_s / took_s


async def bench(machines: int, seconds: float) -> dict[str, Any]:
    """All three, in turn."""
    with tempfile.TemporaryDirectory(prefix="fisher-page-") as folder:
        async with running_plant(Path(folder), machines=machines) as plant:
            await fill(plant)
            feeder = Feeder(plant)
            feeding = asyncio.create_task(feeder.run())
            alone = await measured(plant, feeder, [], seconds)
            one = await measured(plant, feeder, [OVERVIEW], seconds)
            three = await measured(plant, feeder, [OVERVIEW, MACHINE, MACHINE], seconds)
            again = await measured(plant, feeder, [], seconds)
            feeding.cancel()
    base = (alone + again) / 2
    return {
        "machines": machines,
        "nobody_percent": round(base, 2),
        "nobody_scatter_percent": round(abs(alone - again), 2),
        "overview_percent": round(one - base, 2),
        "overview_and_two_machines_percent": round(three - base, 2),
        "limit_percent": LIMIT_PERCENT,
    }


def main() -> int:
    """0 where it is under the limit, 1 where not."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--machines", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--browse", nargs="+", metavar=("PORT", "VIEW"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.browse:
        asyncio.run(browse(int(arguments.browse[0]), arguments.browse[1:]))
        return 0
    configure("error")
    found = asyncio.run(bench(arguments.machines, arguments.seconds))
    if arguments.json:
        print(json.dumps(found))
    else:
        print(f"{found['machines']} machines, a verdict of each every {HOP_S} s; CPU in % of one core")
        scatter = found["nobody_scatter_percent"]
        print(f"  nobody looks (the daemon's own)     {found['nobody_percent']:5.2f}  +- {scatter}")
        print(f"  one browser, all machines          +{found['overview_percent']:5.2f}  (at most {LIMIT_PERCENT})")
        print(f"  and two more, one machine each     +{found['overview_and_two_machines_percent']:5.2f}")
    return int(found["overview_percent"] > LIMIT_PERCENT)


if __name__ == "__main__":
    sys.exit(main())
