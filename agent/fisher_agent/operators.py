"""What operators ask for, over MQTT, the control socket or the page: one handler, one record of who did what.

A command is done once: one that carries an id which was answered before gets the same answer again, also after a
restart, for the record is in the state store, in the transaction of what it changed.
"""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace

import structlog

from fisher_agent.commands import MAX_MS, Command, RefusedCommand, parse
from fisher_agent.enrolling import enrolments
from fisher_agent.errors import FisherError, Unavailable
from fisher_agent.maintenance import maintenance
from fisher_agent.recorder import capture_now
from fisher_agent.report import as_json
from fisher_agent.runtime import Agent
from fisher_agent.signing import Signatures
from fisher_agent.sinks.mqtt import PlantLink
from fisher_agent.stages import Message, Scalar
from fisher_agent.storerows import Audit
from fisher_agent.tags import mode_key

MAX_VERB = 48
_capturing: set[asyncio.Task[str]] = set()
log = structlog.get_logger()


async def obey(agent: Agent, link: PlantLink, *, signatures: Signatures | None) -> None:
    """Handle commands from the broker until the link is lost; with `signatures` only signed ones are obeyed."""
    base = agent.names.base
    await link.subscribe(f"{base}/+/cmd/+")
    async for message in link.messages():
        machine, _, verb = str(message.topic).removeprefix(f"{base}/").split("/")
        payload = message.payload if isinstance(message.payload, bytes) else b""
        if not payload:
            continue  # the deletion of a retained command, ours or an HMI's
        if message.retain and not link.version5:
            log.info("retained_command_ignored", machine=machine, verb=verb)
        else:
            try:
                result = await _from_broker(agent, machine, verb, payload, signatures)
            except Exception as error:  # a defect in one command must not end the daemon; its sender is told
                log.exception("command_failed", machine=machine, verb=verb)
                now_ms = time.time_ns() // 1_000_000
                result = Command(verb, machine).result(f"it failed: {type(error).__name__}", now_ms=now_ms)
            await link.publish(Message(f"{base}/{machine}/cmd/{verb}/result", as_json(result), qos=1))
        # HMIs publish retained; without this the command would come again at every reconnect.
        await link.publish(Message(str(message.topic), b"", qos=1, retain=True))


async def _from_broker(
    agent: Agent, machine: str, verb: str, payload: bytes, signatures: Signatures | None
) -> dict[str, Scalar]:
    now_ms = time.time_ns() // 1_000_000
    command = Command(verb, machine)
    allowed = agent.config.mqtt.commands if agent.config.mqtt else ()
    wrong: RefusedCommand | None = None
    proven = signatures is None
    try:
        command = parse(machine, verb, payload, now_ms=now_ms) or command
    except RefusedCommand as refused:
        command, wrong = refused.command or command, refused
    try:
        # Whether anybody may ask for it at all comes before what is wrong with it.
        if machine not in agent.machines:
            raise RefusedCommand(f"{machine!r} is not a machine of this agent", command)
        if verb not in allowed:
            raise RefusedCommand(f"{verb!r} is not allowed; mqtt.commands has: {', '.join(allowed) or 'none'}", command)
        if wrong is not None:
            raise wrong
        if signatures is not None:
            topic = f"{agent.names.base}/{machine}/cmd/{verb}"
            signatures.check(topic, payload, command, now_ms=now_ms, now_s=time.monotonic())
            proven = True
        error = await perform(agent, command, via="mqtt")
    except RefusedCommand as refused:
        command, error = refused.command or command, str(refused)
        log.info("command_refused", machine=machine, verb=verb, error=error)
        if machine in agent.machines:
            # The answer to an id is given again: a forger must not answer for who has the key.
            kept = command if proven else replace(command, id="")
            await record(agent, audit(kept, via="mqtt", error=error))
    return command.result(error, now_ms=now_ms)


async def perform(agent: Agent, command: Command, *, via: str) -> str:
    """Do it; returns the error, or "" where it is done (or was done already). Every attempt is on record."""
    act = VERBS.get(command.verb)
    if act is None:
        return f"{command.verb!r} is not supported by this version; it has: {', '.join(VERBS)}"
    if command.machine not in agent.machines:
        return f"{command.machine!r} is not a machine of this agent"
    if command.id:
        try:
            answered = await agent.in_store(agent.store.answered, command.machine, command.verb, command.id)
        except Unavailable:  # a disk that cannot be read must not keep anybody from acknowledging
            answered = None
        if answered is not None:
            return str(answered)
    try:
        error = await act(agent, command, via)
    except FisherError as refused:
        error = str(refused)
    if error:
        await record(agent, audit(command, via=via, error=error))
    log.info("command", machine=command.machine, verb=command.verb, alarm=command.alarm, by=command.by, error=error)
    return error


def audit(command: Command, *, via: str, error: str = "") -> Audit:
    """The record of an attempt, as of now."""
    return Audit(
        t_ms=time.time_ns() // 1_000_000,
        machine=command.machine,
        verb=command.verb[:MAX_VERB],  # of a topic, which may be long
        alarm=command.alarm,
        occurrence=command.occurrence,
        command_id=command.id,
        by=command.by,
        comment=command.comment,
        until_ms=max(0, min(command.until_ms, MAX_MS)),
        via=via,
        error=error,
    )


async def record(agent: Agent, row: Audit) -> None:
    """Keep a record that belongs to no transition."""
    try:
        await agent.in_store(agent.store.add_audit, row)
    except Unavailable as error:
        log.error("audit_not_written", error=str(error), machine=row.machine, verb=row.verb, by=row.by)


async def _alarm_verb(agent: Agent, command: Command, via: str) -> str:
    machine = agent.machines[command.machine]
    result = machine.alarms.command(command, time.time_ns())
    if result.transitions:
        await agent.ledger.transitions(machine, result.transitions, audit=audit(command, via=via))
        agent.announce()
    elif result.ok:
        await record(agent, audit(command, via=via))
    return result.error


async def _capture(agent: Agent, command: Command, via: str) -> str:
    """Begin it; who acknowledges must not wait until it is written."""
    task = asyncio.create_task(capture_now(agent, command.machine, command.by or via))
    await asyncio.sleep(0)  # what is refused is refused at once
    if task.done():
        task.result()
    _capturing.add(task)
    task.add_done_callback(_captured)
    await record(agent, audit(command, via=via))
    return ""


def _captured(task: asyncio.Task[str]) -> None:
    _capturing.discard(task)
    if not task.cancelled() and (error := task.exception()):
        log.error("capture_not_written", error=str(error))


async def _maintenance(agent: Agent, command: Command, via: str) -> str:
    """Open a maintenance, move its end, or end it: a time that is past does."""
    await maintenance(agent, command.machine, command.until_ms, command.by or via)
    await record(agent, audit(command, via=via))
    return ""


async def _mode(agent: Agent, command: Command, via: str) -> str:
    """Say in which operating mode a machine is from now on, where no rule says it."""
    machine = agent.machines[command.machine]
    if machine.config.mode is not None and machine.config.mode.channel is not None:
        return f"the mode of {command.machine} follows from its channel {machine.config.mode.channel}"
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,48}", command.mode):
        return f"mode {command.mode!r} must be 1 to 48 of A-Z a-z 0-9 _ -"
    await agent.in_store(agent.store.set_meta, mode_key(command.machine), command.mode)
    machine.told.say(command.mode, time.time_ns())
    await record(agent, audit(command, via=via))
    return ""


async def _enroll_start(agent: Agent, command: Command, via: str) -> str:
    """Listen for `enroll.duration_s`, or until `enroll-stop`, and learn what was heard as normal running."""
    duration_s = agent.config.enroll.duration_s
    enrolments(agent).start(command.machine, duration_s=duration_s, mode=command.mode, fault="")
    await record(agent, audit(command, via=via))
    return ""


async def _enroll_stop(agent: Agent, command: Command, via: str) -> str:
    enrolments(agent).enough(command.machine)
    await record(agent, audit(command, via=via))
    return ""


ALARM_VERBS = ("ack", "shelve", "unshelve", "suppress", "unsuppress", "out-of-service", "in-service")
VERBS: dict[str, Callable[[Agent, Command, str], Awaitable[str]]] = {
    **dict.fromkeys(ALARM_VERBS, _alarm_verb),
    "capture": _capture,
    "maintenance": _maintenance,
    "mode": _mode,
    "enroll-start": _enroll_start,
    "enroll-stop": _enroll_stop,
}
