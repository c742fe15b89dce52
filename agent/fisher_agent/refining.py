"""Probation in the daemon: limits are set anew about once a day, and an operator's word ends it."""

import asyncio
import time
from collections.abc import Mapping
from typing import Any

import structlog

from fisher_agent.errors import BadFile, ConfigError, Unavailable
from fisher_agent.live import LiveMachine
from fisher_agent.probation import words
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
    """End what is due to end, and set the limit anew where that is due."""
    if live.probation is None:
        return
    live.probation = due = live.probation.checked(now_ns)
    if not due.due(now_ns):
        return
    limit = due.refined()
    made = limit is not None and await agent.in_store(agent.library.refine, due, limit)
    live.probation = live.probation.set_anew(now_ns)  # it may have learnt on meanwhile
    if made:
        await agent.use_bank(live.config.id)
    else:
        await agent.ledger.keep_probation(live)
    now = live.probation
    log.info(
        "limit_refined" if made else "limit_stays", machine=live.config.id, limit=round(now.limit, 4), bank=now.bank,
        ended=now.ended or None,
    )  # fmt: skip


async def confirm(agent: Agent, request: Mapping[str, Any]) -> str:
    """An operator's word: the probation ends, or an alarm was false and its blocks are normal running."""
    machine = agent.config.machine(str(request["machine"]))
    live, by = agent.machines[machine.id], str(request.get("by", ""))
    if live.probation is None:
        raise ConfigError(f"{machine.id} is not on probation: its budget of false alarms is supported, or not known")
    if request.get("false_alarm") is not None:
        occurrence = int(request["false_alarm"])
        live.probation = live.probation.called_false(occurrence)
        await agent.ledger.keep_probation(live)
        log.info("alarm_called_false", machine=machine.id, occurrence=occurrence, by=by)
        return f"occurrence {occurrence} of {machine.id} was false: its time counts as normal running"
    live.probation = live.probation.confirmed(by)
    await agent.ledger.keep_probation(live)
    await refine(agent, live, now_ns=time.time_ns())
    return f"probation of {machine.id} is over; its limit is {live.probation.limit:.3g} (bank {live.probation.bank})"


def facts(agent: Agent, live: LiveMachine, *, now_ns: int) -> dict[str, Any]:
    """What `status` tells of a machine's probation: `words`, and `Probation.facts` of the bank that judges now."""
    judge = agent.pipeline.judges.get(live.config.id)
    version = str(getattr(judge.bank, "version", "")) if judge is not None else ""
    if live.probation is None or live.probation.bank != version:
        return {"words": "", "active": False}
    found = live.probation.facts(now_ns)
    return {"words": words(found), **found}
