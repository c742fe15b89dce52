"""Watches in the running daemon whether the normal state of each machine drifts, from the stored scores."""

import asyncio
import time

import structlog

from fisher_agent.bankset import BankSet
from fisher_agent.drift import DAY_NS, ModeDrift, of_modes
from fisher_agent.errors import Unavailable
from fisher_agent.runtime import Agent

FIRST_S = 60.0
EVERY_S = 3600.0  # a day's scores of fifty machines are a second's reading
log = structlog.get_logger()


async def watch_drift(agent: Agent) -> None:
    """Look at one machine after another, all within an hour; runs until it is cancelled."""
    await asyncio.sleep(FIRST_S)
    while True:
        machines = list(agent.machines)
        for machine in machines:
            await look(agent, machine)
            await asyncio.sleep(EVERY_S / max(len(machines), 1) if len(machines) > 1 else 0)
        await asyncio.sleep(EVERY_S if len(machines) < 2 else 0)


async def look(agent: Agent, machine: str) -> None:
    """Compare the last day of one machine with its enrolment; what was found stands in `LiveMachine.drift`."""
    live, judge = agent.machines.get(machine), agent.pipeline.judges.get(machine)
    bank = judge.bank if judge is not None else None
    if live is None or not isinstance(bank, BankSet):
        return
    try:
        found = await agent.in_store(_drift, agent, machine, bank)
    except Unavailable as error:
        log.warning("drift_not_known", machine=machine, error=str(error))
        return
    before = {d.mode for d in live.drift if d.drifted}
    live.drift = found
    for drift in found:
        if drift.drifted and drift.mode not in before:
            log.warning("drift", machine=machine, mode=drift.mode, text=drift.text)


def _drift(agent: Agent, machine: str, bank: BankSet) -> tuple[ModeDrift, ...]:
    now_ns = time.time_ns()
    scores: dict[str, list[float]] = {}
    for past in agent.store.past(machine, now_ns - DAY_NS):
        if past.bank == bank.version:
            scores.setdefault(past.mode, []).append(past.score)
    return of_modes(bank, scores, now_ns=now_ns)
