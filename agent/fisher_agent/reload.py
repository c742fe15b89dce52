"""SIGHUP: read the configuration again and apply what can change while the agent runs; validate first, all or nothing.

Machines, channels, delays and the log level change with no gap on the machines that stay as they are. Everything else
is named and waits for a restart.
"""

import asyncio
import contextlib
from pathlib import Path

import structlog

from fisher_agent import configfile as configuration
from fisher_agent.alarms import MachineAlarms
from fisher_agent.codes import Level
from fisher_agent.config import Config, MachineConfig
from fisher_agent.errors import ConfigError, Unavailable
from fisher_agent.live import LiveMachine
from fisher_agent.logs import configure
from fisher_agent.report import retained
from fisher_agent.runtime import Agent
from fisher_agent.sources import check_topics
from fisher_agent.tags import mode_key

LIVE_KEYS = frozenset({"machines", "log", "enroll"})
log = structlog.get_logger()


async def reload(agent: Agent, path: Path) -> None:
    """Apply the file, or keep everything as it is and say why."""
    try:
        new = await asyncio.to_thread(configuration.load, path)
        check_topics(new)
        after, waiting = _applicable(agent.config, new)
        check_topics(after)
    except ConfigError as error:
        log.error("reload_refused", problems=list(error.problems))
        return
    old, agent.config = agent.config, after
    configure(agent.config.log.level)
    changes = await _machines(agent, old)
    for source in agent.sources.values():
        agent.parts.rebind(source, agent.config)
    agent.announce()
    log.info("reloaded", **changes)
    if waiting:
        log.warning("reload_needs_restart", keys=waiting)


def _applicable(old: Config, new: Config) -> tuple[Config, list[str]]:
    """What of a new configuration can be applied without a restart, and what waits for one."""
    waiting = sorted(k for k in type(old).model_fields if k not in LIVE_KEYS and getattr(old, k) != getattr(new, k))
    known = {source.name for source in old.sources}
    if homeless := [m.id for m in new.machines if any(c.source not in known for c in m.channels)]:
        # Their source waits for the restart, and so must they.
        waiting += [f"machines {', '.join(homeless)}"]
        kept = {m.id: m for m in old.machines}
        machines = [kept.get(m.id) if m.id in homeless else m for m in new.machines]
        new = new.model_copy(update={"machines": tuple(m for m in machines if m is not None)})
    return old.model_copy(update={key: getattr(new, key) for key in LIVE_KEYS}), waiting


async def _machines(agent: Agent, old: Config) -> dict[str, list[str]]:
    before = {m.id: m for m in old.machines}
    after = {m.id: m for m in agent.config.machines}
    agent.library.reconfigure(agent.config)
    removed = [m for m in before if m not in after]
    added = [m for m in after if m not in before]
    changed = [m for m in after if m in before and after[m] != before[m]]
    for machine in removed:
        agent.remove_machine(machine)
        # Its last level must not stand on the broker as if somebody still watched.
        last = retained(agent.names.machine(machine, "level"), int(Level.UNKNOWN))
        with contextlib.suppress(Unavailable):
            await agent.in_store(agent.store.add_messages, [last])
    for machine in added:
        await agent.add_machine(after[machine])
    for machine in changed:
        if before[machine].channels == after[machine].channels:
            if before[machine].mode != after[machine].mode:
                await agent.in_store(agent.store.set_meta, mode_key(machine), "")
            _delays(agent.machines[machine], after[machine])
            await agent.use_bank(machine)
        else:
            agent.remove_machine(machine)
            await agent.add_machine(after[machine])
    return {"added": added, "removed": removed, "changed": changed}


def _delays(live: LiveMachine, machine: MachineConfig) -> None:
    """An alarm goes on where it was; only what counts as long enough is new."""
    now = live.alarms
    lifecycle = MachineAlarms(machine.id, [c.id for c in machine.channels], machine.alarm, now.alarms, now.occurrence)
    live.reconfigure(machine, lifecycle)
