"""Enrolments that were started on the page: one at a time per machine, with their progress and how they ended."""

import asyncio
import time
from dataclasses import dataclass
from typing import Any, Literal

import structlog

from fisher_agent.control import enroll_recording, listen
from fisher_agent.errors import ConfigError, FisherError
from fisher_agent.runtime import Agent

MAX_AT_ONCE = 4  # each records and computes
log = structlog.get_logger()


@dataclass(slots=True)
class _Enrolment:
    task: asyncio.Task[None] | None = None
    phase: Literal["listening", "learning", "done", "failed", "stopped"] = "listening"
    done: int = 0
    total: int = 0
    mode: str = "default"
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
        now = _Enrolment(total=int(duration_s), mode=mode, fault=fault, began_ms=time.time_ns() // 1_000_000)
        self._enrolments[machine] = now
        now.task = asyncio.create_task(self._enroll(machine, now, duration_s), name=f"enroll {machine}")

    def stop(self, machine: str) -> None:
        """Give up one that listens; what is being learnt is learnt to its end. ConfigError where none listens."""
        known = self._enrolments.get(machine)
        if known is None or known.phase != "listening" or known.task is None:
            raise ConfigError(f"no enrolment of {machine} is listening")
        known.task.cancel()

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
            recording = await listen(self._agent, machine, duration_s, say)
            now.phase, now.done, now.total = "learning", 0, 0
            learnt = await enroll_recording(
                self._agent, machine, recording, say, fault=now.fault or None, mode=now.mode
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
