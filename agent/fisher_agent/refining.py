"""Probation in the daemon: limits are set anew about once a day, and an operator's word ends it."""

import asyncio
import time
from collections.abc import Mapping
from typing import Any

import structlog

from fisher_agent import probations
from fisher_agent.errors import BadFile, ConfigError, Unavailable
from fisher_agent.live import LiveMachine
from fisher_agent.runtime import Agent

CHECK_S = 60.0
log = structlog.get_logger()


async def serve(agent: Agent) -> None:
    """Look after every machine on probation until cancelled."""
    while True:
        for live in list(agent.machines.values()):
            try:
                await refine(agent, live, now_ns=time.time_ns())
            except (BadFile, ConfigError, Unavailable) as error:  # said again in a minute, until the disk takes it
                log.error("limit_not_refined", machine=live.config.id, error=str(error))
        await asyncio.sleep(CHECK_S)


async def refine(agent: Agent, live: LiveMachine, *, now_ns: int) -> None:
    """End what is due to end, and set the limits of the modes anew where that is due."""
    live.probations = {mode: p.checked(now_ns) for mode, p in live.probations.items()}
    if not any(p.due(now_ns) for p in live.probations.values()):
        return
    # All that go on, whichever of them is due: a version carries the limits of every mode.
    due = {mode: p for mode, p in live.probations.items() if not p.settled}
    limits = {mode: limit for mode, p in due.items() if (limit := p.refined()) is not None}
    made = bool(limits) and await agent.in_store(agent.library.refine, live.config.id, due, limits)
    # They may have learnt on meanwhile.
    live.probations = {mode: p.set_anew(now_ns) if mode in due else p for mode, p in live.probations.items()}
    if made:
        await agent.use_bank(live.config.id)
    else:
        await agent.ledger.keep_probations(live)
    for mode in due.keys() & live.probations.keys():
        now = live.probations[mode]
        log.info(
            "limit_refined" if made and mode in limits else "limit_stays", machine=live.config.id, mode=mode,
            limit=round(now.limit, 4), bank=now.bank, ended=now.ended or None,
        )  # fmt: skip


async def confirm(agent: Agent, request: Mapping[str, Any]) -> str:
    """An operator's word: the probation ends in every mode, or an alarm was false and its blocks are normal running."""
    machine = agent.config.machine(str(request["machine"])).id
    live, by = agent.machines[machine], str(request.get("by", ""))
    if request.get("false_alarm") is not None:
        occurrence = int(request["false_alarm"])
        live.probations = probations.called_false(live.probations, machine, occurrence)
        await agent.ledger.keep_probations(live)
        log.info("alarm_called_false", machine=machine, occurrence=occurrence, by=by)
        return f"occurrence {occurrence} of {machine} was false: its time counts as normal running"
    live.probations = probations.confirmed(live.probations, machine, by)
    await agent.ledger.keep_probations(live)
    await refine(agent, live, now_ns=time.time_ns())
    limits = {mode: p.limit for mode, p in live.probations.items()}
    several = ", ".join(f"{limit:.3g} in {mode}" for mode, limit in limits.items())
    limit = several if len(limits) > 1 else f"{next(iter(limits.values())):.3g}"
    bank = next(iter(live.probations.values())).bank
    return f"probation of {machine} is over; its limit is {limit} (bank {bank})"


def facts(agent: Agent, live: LiveMachine, *, now_ns: int) -> dict[str, Any]:
    """What `status` tells of a machine's probations: those of the bank that judges now."""
    judge = agent.pipeline.judges.get(live.config.id)
    version = str(getattr(judge.bank, "version", "")) if judge is not None else ""
    return probations.facts({mode: p for mode, p in live.probations.items() if p.bank == version}, now_ns)
