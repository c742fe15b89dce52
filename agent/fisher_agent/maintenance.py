"""A maintenance of a machine: its anomaly is suppressed meanwhile, and at the end what ran steadily is learnt.

What was learnt waits to be accepted (`fisher-agent enroll --accept`): a repair may have gone wrong, so nobody but an
operator can say that this is normal now. The window is kept in the store, and so survives a restart; what was recorded
before one does not.
"""

import asyncio
import json
import time
from dataclasses import dataclass
from functools import partial

import structlog

from fisher_agent.commands import MAX_MS
from fisher_agent.errors import BadFile, ConfigError, FisherError, Unavailable
from fisher_agent.jsontext import loads
from fisher_agent.live import LiveMachine
from fisher_agent.runtime import Agent
from fisher_agent.turns import in_turns
from fisher_agent.waveforms import Recording

LONGEST_MS = 7 * 86_400_000
LOOK_S = 2.0
MB = 1_000_000
ROOM = 1.25  # times the waveforms that are kept, before the oldest give way
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Window:
    """A maintenance that is open."""

    since_ms: int
    until_ms: int
    by: str

    def to_json(self) -> str:
        """As it is stored."""
        return json.dumps({"since_ms": self.since_ms, "until_ms": self.until_ms, "by": self.by})

    @classmethod
    def from_json(cls, text: str) -> "Window":
        """The reverse; BadFile for anything else."""
        try:
            found = loads(text)
            since_ms, until_ms = found["since_ms"], found["until_ms"]
            if not (isinstance(since_ms, int) and isinstance(until_ms, int) and max(since_ms, until_ms) < MAX_MS):
                raise ValueError("its times are none")
            return cls(since_ms, until_ms, str(found["by"]))
        except (ValueError, KeyError, TypeError) as error:
            raise BadFile(f"no maintenance: {text[:80]!r} ({error})") from error


async def maintenance(agent: Agent, machine: str, until_ms: int, by: str) -> None:
    """Open a maintenance until a time, or move its end; one that is not in the future ends it at the next look.

    ConfigError for a machine that is not there, or a time more than 7 days ahead.
    """
    live = agent.machines.get(machine)
    now_ms = time.time_ns() // 1_000_000
    if live is None:
        raise ConfigError(f"{machine!r} is not a machine of this agent")
    if until_ms > now_ms + LONGEST_MS:
        raise ConfigError(f"a maintenance of {machine} lasts at most {LONGEST_MS // 86_400_000} days")
    if until_ms <= now_ms and not live.maintenance_until_ms:
        return
    window = Window(now_ms, max(until_ms, 1), by)
    await agent.in_store(agent.store.set_meta, _key(machine), window.to_json())
    _open(agent, live, window)
    log.info("maintenance", machine=machine, until_ms=until_ms, by=by)


async def watch_maintenance(agent: Agent) -> None:
    """Take up what was open before a restart, and end what has lasted until its time; runs until it is cancelled."""
    known: dict[str, LiveMachine] = {}
    async with asyncio.TaskGroup() as group:
        while True:
            for machine, live in list(agent.machines.items()):
                if known.get(machine) is not live:
                    known[machine] = live
                    await _restore(agent, live)
                if not live.maintenance_until_ms:
                    continue
                if live.maintenance_until_ms <= time.time_ns() // 1_000_000:
                    recording = await _close(agent, live)
                    group.create_task(_offer(agent, machine, recording), name=f"learn {machine}")
                else:
                    _bound(agent, live)
            await asyncio.sleep(LOOK_S)


def _key(machine: str) -> str:
    return f"maintenance/{machine}"


def _open(agent: Agent, live: LiveMachine, window: Window) -> None:
    live.maintenance_until_ms = window.until_ms
    if live.maintenance is None:
        live.maintenance = Recording()
        live.maintenance.said(live.config.id, live.told.latest)
        agent.recordings.setdefault(live.config.id, []).append(live.maintenance)


async def _restore(agent: Agent, live: LiveMachine) -> None:
    try:
        text = await agent.in_store(agent.store.meta, _key(live.config.id))
        if text:
            _open(agent, live, Window.from_json(text))
    except (BadFile, Unavailable) as error:
        log.error("maintenance_not_restored", machine=live.config.id, error=str(error))
    live.maintenance_known = True


async def _close(agent: Agent, live: LiveMachine) -> Recording:
    recording = live.maintenance or Recording()
    live.maintenance_until_ms, live.maintenance = 0, None
    heard = agent.recordings.get(live.config.id, [])
    heard[:] = [r for r in heard if r is not recording]
    try:
        await agent.in_store(agent.store.set_meta, _key(live.config.id), "")
    except Unavailable as error:  # after a restart it ends once more, and at once
        log.error("maintenance_end_not_stored", machine=live.config.id, error=str(error))
    return recording


def _bound(agent: Agent, live: LiveMachine) -> None:
    """Keep the most recent waveforms, as many as a bank keeps."""
    keep = agent.config.enroll.keep_mb * MB
    if live.maintenance is None or live.maintenance.nbytes <= ROOM * keep:
        return
    shorter = live.maintenance.thinned(round(keep))
    shorter.tags = live.maintenance.tags
    heard = agent.recordings[live.config.id]
    heard[heard.index(live.maintenance)] = shorter
    live.maintenance = shorter


async def _offer(agent: Agent, machine: str, recording: Recording) -> None:
    """Learn what was heard as a version that waits, and say so."""
    config = next((m for m in agent.config.machines if m.id == machine), None)
    if config is None:
        return  # it left the configuration meanwhile
    learn = partial(agent.library.learn, config, recording, activate="later")
    try:
        bank, report = await in_turns(agent, lambda *_: None, learn)
    except FisherError as error:  # a backend that is lost meanwhile, too: the watching goes on
        said = f"nothing was learnt from the maintenance: {error}"
        log.warning("maintenance_ended", machine=machine, learnt=False, reason=str(error))
    else:
        said = (
            f"bank {bank.version} was learnt in the maintenance and waits; look at it with "
            f"`fisher-agent enroll --machine {machine} --accept --dry-run`, judge by it without --dry-run"
        )
        log.info("maintenance_ended", machine=machine, learnt=True, bank=bank.version, report=report.lines())
    if live := agent.machines.get(machine):
        live.offer = said
