"""Enrolments beside the watching: recording, learning, and those that nobody waits for, with their progress.

One at a time per machine; the page and commands over MQTT start and end them.
"""

import asyncio
import time
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal
from weakref import WeakKeyDictionary

import structlog

from fisher_agent.banks import Activate
from fisher_agent.config import MachineConfig
from fisher_agent.errors import ConfigError, FisherError, Unavailable
from fisher_agent.runtime import Agent
from fisher_agent.turns import Say, in_turns
from fisher_agent.waveforms import Recording

MAX_AT_ONCE = 4  # each records and computes
log = structlog.get_logger()


async def enroll_recording(
    agent: Agent,
    machine: MachineConfig,
    recording: Recording,
    say: Say,
    *,
    fault: str | None = None,
    mode: str | None = None,
    activate: Activate = "now",
) -> dict[str, Any]:
    """Learn a recording and judge by it from the next window on, unless it is only to be looked at, or waits."""
    learn = partial(agent.library.learn, machine, recording, fault=fault, mode=mode, activate=activate)
    bank, report = await in_turns(agent, say, learn)
    if activate == "now":
        await agent.use_bank(machine.id)
    return {"bank": bank.version, "lines": report.lines(), "report": report.as_dict()}


async def listen(
    agent: Agent, machine: MachineConfig, duration_s: float, say: Say, *, enough: asyncio.Event | None = None
) -> Recording:
    """Record a machine while it is watched, for so long or until that is enough; Unavailable where nothing is heard."""
    recording = Recording()
    recording.said(machine.id, agent.machines[machine.id].told.latest)
    heard = agent.recordings.setdefault(machine.id, [])
    heard.append(recording)
    try:
        whole = [c.id for c in machine.channels if c.snapshot]
        while (before := recording.heard_s(whole=whole)) < duration_s and not (enough and enough.is_set()):
            await asyncio.sleep(1.0)
            heard_s = recording.heard_s(whole=whole)
            say(int(min(heard_s, duration_s)), int(duration_s))
            if heard_s == before and agent.machines[machine.id].all_stale:
                raise Unavailable(
                    f"nothing is heard of {machine.id}; is its source connected? See `fisher-agent status`"
                )
    finally:
        heard.remove(recording)
    return recording


@dataclass(slots=True)
class _Enrolment:
    enough: asyncio.Event
    task: asyncio.Task[None] | None = None
    phase: Literal["listening", "learning", "done", "failed", "stopped"] = "listening"
    done: int = 0
    total: int = 0
    mode: str = ""  # "": the default one, or those that the machine's rule, tag or clustering finds
    fault: str = ""
    text: str = ""  # the report, or why it failed
    began_ms: int = 0

    @property
    def busy(self) -> bool:
        return self.phase in ("listening", "learning")


class Enrolments:
    """Owns the tasks; `close` ends those that still listen."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._enrolments: dict[str, _Enrolment] = {}

    def start(self, machine: str, *, duration_s: float, mode: str, fault: str) -> None:
        """Begin; ConfigError where one runs already."""
        known = self._enrolments.get(machine)
        if known is not None and known.busy:
            raise ConfigError(f"{machine} is being enrolled already")
        if sum(e.busy for e in self._enrolments.values()) >= MAX_AT_ONCE:
            raise ConfigError(f"{MAX_AT_ONCE} machines are being enrolled; wait until one is done")
        self._agent.config.machine(machine)
        now = _Enrolment(
            asyncio.Event(), total=int(duration_s), mode=mode, fault=fault, began_ms=time.time_ns() // 1_000_000
        )
        self._enrolments[machine] = now
        now.task = asyncio.create_task(self._enroll(machine, now, duration_s), name=f"enroll {machine}")

    def stop(self, machine: str) -> None:
        """Give up one that listens; what is being learnt is learnt to its end. ConfigError where none listens."""
        known = self._enrolments.get(machine)
        if known is None or known.phase != "listening" or known.task is None:
            raise ConfigError(f"no enrolment of {machine} is listening")
        known.task.cancel()

    def enough(self, machine: str) -> None:
        """Learn what one that listens has heard so far. ConfigError where none listens."""
        known = self._enrolments.get(machine)
        if known is None or known.phase != "listening":
            raise ConfigError(f"no enrolment of {machine} is listening")
        known.enough.set()

    def shown(self) -> dict[str, dict[str, Any]]:
        """Machine -> how far it is."""
        return {
            machine: {"phase": e.phase, "done": e.done, "total": e.total, "mode": e.mode, "fault": e.fault,
                      "text": e.text, "began": e.began_ms}
            for machine, e in self._enrolments.items()
        }  # fmt: skip

    async def close(self) -> None:
        """Cancel and wait; a thread that is learning cannot be cancelled, and nobody waits for it."""
        tasks = [e.task for e in self._enrolments.values() if e.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _enroll(self, machine_id: str, now: _Enrolment, duration_s: float) -> None:
        def say(done: int, total: int) -> None:
            now.done, now.total = done, total

        try:
            machine = self._agent.config.machine(machine_id)
            recording = await listen(self._agent, machine, duration_s, say, enough=now.enough)
            now.phase, now.done, now.total = "learning", 0, 0
            learnt = await enroll_recording(
                self._agent, machine, recording, say, fault=now.fault or None, mode=now.mode or None
            )
        except FisherError as error:
            now.phase, now.text = "failed", str(error)
            log.warning("enrolment_failed", machine=machine_id, error=str(error))
        except KeyError:  # a reload took the machine out while it was recorded
            now.phase, now.text = "failed", f"{machine_id} left the configuration"
        except asyncio.CancelledError:
            now.phase, now.text = "stopped", "stopped before it was learnt; the bank is as it was"
            raise
        else:
            now.phase, now.text = "done", "\n".join(learnt["lines"])
            log.info("enrolled", machine=machine_id, bank=learnt["bank"])


_ENROLMENTS: WeakKeyDictionary[Agent, Enrolments] = WeakKeyDictionary()


def enrolments(agent: Agent) -> Enrolments:
    """Those of an agent, the same for the page and for commands."""
    return _ENROLMENTS.setdefault(agent, Enrolments(agent))
