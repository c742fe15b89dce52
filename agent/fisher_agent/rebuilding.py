"""After an upgrade: banks that the present model or window cannot use are made again, in the background, unasked.

Until then the machine is not judged and the agent is degraded, in words. Live windows of other machines go on, for
model batches take turns (`turns`). A bank that kept no waveforms stays unusable, and says that it must be enrolled.
"""

import asyncio
import threading
from typing import Any
from weakref import WeakKeyDictionary

import structlog

from fisher_agent.bankset import BankSet
from fisher_agent.config import MachineConfig
from fisher_agent.coverage import EnrolReport
from fisher_agent.errors import ConfigError, FisherError, Unavailable
from fisher_agent.runtime import Agent
from fisher_agent.turns import Say, in_turns

CHECK_S = 5.0
RETRY_S = 60.0  # after a disk refused to take the new bank
log = structlog.get_logger()


async def serve(agent: Agent) -> None:
    """Make again what can be, one machine after another, until cancelled; what fails is tried once per problem."""
    looked_at: dict[str, str] = {}  # machine -> the problem as it was left
    while True:
        delay_s = CHECK_S
        for machine in list(agent.machines):
            problem = agent.bank_problems.get(machine, "")
            if problem and looked_at.get(machine) != problem:
                try:
                    await mend(agent, machine)
                except Unavailable as error:
                    _put(agent, machine, problem)
                    log.error("bank_not_rebuilt", machine=machine, error=str(error))
                    delay_s = RETRY_S
                else:
                    looked_at[machine] = agent.bank_problems.get(machine, "")
        await asyncio.sleep(delay_s)


async def mend(agent: Agent, machine_id: str) -> None:
    """Make one machine's bank again where that mends it; what is wrong then stands in `bank_problems`.

    Unavailable where the disk refuses: to be tried again.
    """
    try:
        machine = agent.config.machine(machine_id)
        differs = await agent.in_store(agent.library.outdated, machine)
        if not differs:
            return
        words = f"rebuilding: it was made for {differs}; the machine is judged again when it is done"

        def say(done: int, total: int) -> None:
            _put(agent, machine_id, f"{words} ({done} of {total} windows)")

        _put(agent, machine_id, words)
        log.info("bank_rebuilding", machine=machine_id, differs=differs)
        bank, _ = await rebuild(agent, machine, say)
    except Unavailable:
        raise
    except FisherError as error:
        log.error("bank_not_rebuilt", machine=machine_id, error=str(error))
        if machine_id in agent.machines:
            await agent.use_bank(machine_id)  # or an enrolment given it another bank
            if now := agent.bank_problems.get(machine_id):
                _put(agent, machine_id, f"{now} (tried already: {error})")
    else:
        log.info("bank_rebuilt", machine=machine_id, bank=bank.version)


def _put(agent: Agent, machine_id: str, problem: str) -> None:
    """Say what is wrong with a machine's bank, unless a reload took the machine out meanwhile."""
    if machine_id in agent.machines:
        agent.bank_problems[machine_id] = problem


async def rebuild(agent: Agent, machine: MachineConfig, say: Say) -> tuple[BankSet, EnrolReport]:
    """Make the active bank again and judge by it; one at a time. Ends with the task, and then leaves all as it was."""
    ended = threading.Event()

    def work(*, embedder: Any, progress: Say) -> tuple[BankSet, EnrolReport]:
        def told(done: int, total: int) -> None:
            if ended.is_set():
                raise Unavailable("the agent ends")
            progress(done, total)

        return agent.library.rebuild(machine, embedder=embedder, progress=told)

    async with _TURNS.setdefault(agent, asyncio.Lock()):
        try:
            bank, report = await in_turns(agent, say, work)
        finally:
            ended.set()
        if machine.id not in agent.machines:
            raise ConfigError(f"{machine.id} left the configuration while its bank was made again")
        await agent.use_bank(machine.id)
    return bank, report


_TURNS: WeakKeyDictionary[Agent, asyncio.Lock] = WeakKeyDictionary()
