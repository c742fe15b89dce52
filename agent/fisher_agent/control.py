"""Operators' requests to the running daemon: over MQTT commands and over the control socket, one handler for both.

The socket speaks one JSON object per line: a request `{"verb": ..., ...}`; answers `{"progress": [done, total]}`,
and last `{"ok": true, "result": ...}` or `{"ok": false, "error": ..., "exit": code}`.
"""

import asyncio
import contextlib
import json
import os
import stat
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import structlog

from fisher_agent import refining
from fisher_agent.banks import list_banks
from fisher_agent.commands import Command, RefusedCommand, parse
from fisher_agent.config import Config, MachineConfig
from fisher_agent.errors import BadFile, ConfigError, FisherError, Unavailable
from fisher_agent.files import read_many
from fisher_agent.live import channel_words
from fisher_agent.report import as_json
from fisher_agent.runtime import Agent
from fisher_agent.sinks.mqtt import PlantLink
from fisher_agent.stages import Floats, Message, Scalar
from fisher_agent.waveforms import Recording

MAX_REQUEST = 1_000_000
RUN_DIR = Path("/run/fisher-agent")
SOCKET = "ctl.sock"
DONE_COMMANDS = 1000  # ids whose repetition is a no-op
Say = Callable[[int, int], None]
Request = Mapping[str, Any]
log = structlog.get_logger()


def socket_path(config: Config) -> Path:
    """Where the control socket is: as configured; /run/fisher-agent for the service; else in state_dir.

    Only the agent on the default state_dir is the service: a second agent on the box must not take its socket.
    """
    if config.control_socket is not None:
        return config.control_socket
    service = config.state_dir == Config.model_fields["state_dir"].default
    writable = service and RUN_DIR.is_dir() and os.access(RUN_DIR, os.W_OK)
    return (RUN_DIR if writable else config.state_dir) / SOCKET


# -- MQTT -------------------------------------------------------------------------------------------------------------


async def obey(agent: Agent, link: PlantLink) -> None:
    """Handle commands from the broker until the link is lost."""
    base = agent.names.base
    verbs = agent.config.mqtt.commands if agent.config.mqtt else ()
    done: dict[str, dict[str, Scalar]] = {}
    await link.subscribe(f"{base}/+/cmd/+")
    async for message in link.messages():
        machine, _, verb = str(message.topic).removeprefix(f"{base}/").split("/")
        payload = message.payload if isinstance(message.payload, bytes) else b""
        if not payload:
            continue  # the deletion of a retained command, ours or an HMI's
        if message.retain and not link.version5:
            log.info("retained_command_ignored", machine=machine, verb=verb)
        else:
            now_ms = time.time_ns() // 1_000_000
            result = await _command(agent, machine, verb, payload, verbs=verbs, done=done, now_ms=now_ms)
            await link.publish(Message(f"{base}/{machine}/cmd/{verb}/result", as_json(result), qos=1))
        # HMIs publish retained; without this the command would come again at every reconnect.
        await link.publish(Message(str(message.topic), b"", qos=1, retain=True))


async def _command(
    agent: Agent,
    machine: str,
    verb: str,
    payload: bytes,
    *,
    verbs: tuple[str, ...],
    done: dict[str, dict[str, Scalar]],
    now_ms: int,
) -> dict[str, Scalar]:
    command = Command(verb, machine)
    try:
        command = parse(machine, verb, payload, now_ms=now_ms) or command
        if machine not in agent.machines:
            raise RefusedCommand(f"{machine!r} is not a machine of this agent", command)
        if verb not in verbs:
            raise RefusedCommand(f"{verb!r} is not allowed; mqtt.commands has: {', '.join(verbs) or 'none'}", command)
        if verb not in OPERATOR_VERBS:
            raise RefusedCommand(f"{verb!r} is not supported by this version", command)
        if command.id and (repeated := done.get(f"{machine}/{verb}/{command.id}")):
            return repeated
        error = await OPERATOR_VERBS[verb](agent, command)
    except RefusedCommand as refused:
        command, error = refused.command or command, str(refused)
    result = command.result(error, now_ms=now_ms)
    log.info("command", **{"machine": machine, "verb": verb, **result})
    if command.id:
        done[f"{machine}/{verb}/{command.id}"] = result
        while len(done) > DONE_COMMANDS:
            done.pop(next(iter(done)))
    return result


async def _ack(agent: Agent, command: Command) -> str:
    """Acknowledge one occurrence; returns the error, or "" when it is done (or was done already)."""
    machine = agent.machines[command.machine]
    result = machine.alarms.ack(
        command.alarm, command.occurrence, by=command.by, comment=command.comment, t_ns=time.time_ns()
    )
    if result.transitions:
        await agent.ledger.transitions(machine, result.transitions)
        agent.announce()
    return result.error


OPERATOR_VERBS: dict[str, Callable[[Agent, Command], Awaitable[str]]] = {"ack": _ack}


# -- the socket -----------------------------------------------------------------------------------------------------


async def serve(agent: Agent) -> None:
    """Listen on the control socket until cancelled."""
    path = socket_path(agent.config)
    try:
        path.unlink(missing_ok=True)  # left by a killed daemon; the lock on state_dir says that it is gone
        server = await asyncio.start_unix_server(partial(_session, agent), path=path, limit=MAX_REQUEST)
    except OSError as error:
        log.error("control_socket_unusable", path=str(path), error=str(error))
        return
    path.chmod(stat.S_IRUSR | stat.S_IWUSR | stat.S_IRGRP | stat.S_IWGRP)
    try:
        async with server:
            await server.serve_forever()
    finally:
        path.unlink(missing_ok=True)


async def _session(agent: Agent, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    def say(done: int, total: int) -> None:
        if reader.at_eof():
            raise Unavailable("the client has left")
        writer.write(json.dumps({"progress": [done, total]}).encode() + b"\n")

    with contextlib.suppress(ConnectionError):
        try:
            request = json.loads(await reader.readline())
            verb = SOCKET_VERBS.get(request.get("verb", ""))
            if verb is None:
                raise ConfigError(f"{request.get('verb')!r} is not a verb of the control socket")
            answer = {"ok": True, "result": await verb(agent, request, say)}
        except (ValueError, AttributeError, KeyError, TypeError) as error:
            answer = {"ok": False, "error": f"the request is not one JSON object as expected: {error!r}", "exit": 2}
        except FisherError as error:
            answer = {"ok": False, "error": str(error), "exit": exit_code(error)}
        writer.write(json.dumps(answer).encode() + b"\n")
        await writer.drain()
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


def exit_code(error: FisherError) -> int:
    """The exit code that an error stands for (contract 5)."""
    if isinstance(error, ConfigError | BadFile):
        return 2
    return 3 if isinstance(error, Unavailable) else 1


class TakingTurns:
    """An embedder that runs each batch in the daemon's compute thread, so that enrolling never starves live windows."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._embedder = agent.engine.embedder
        self.name, self.precision, self.device = self._embedder.name, self._embedder.precision, self._embedder.device

    def embed(self, bands: Floats, centres: Floats) -> Floats:
        """(n, t, f), (n,) -> (n, d)."""
        return self._agent.compute.submit(self._embedder.embed, bands, centres).result()

    def close(self) -> None:
        """The daemon's embedder stays open."""


async def _status(agent: Agent, _request: Request, _say: Say) -> dict[str, Any]:
    return {
        "status": "degraded" if agent.degradations() else "online",
        "degraded": agent.degradations(),
        "pid": os.getpid(),
        **agent.health(),
        "machines": {
            m.config.id: {
                "enrolled": (judge := agent.pipeline.judges.get(m.config.id)) is not None and judge.bank is not None,
                "running": bool(m.verdict and m.verdict.running),
                "score": m.verdict.score if m.verdict and m.verdict.scored else None,
                "level": m.level(mono_s=time.monotonic()).name.lower(),
                "channels": channel_words([m])[m.config.id],
                "probation": refining.facts(agent, m, now_ns=time.time_ns()),
            }
            for m in agent.machines.values()
        },
    }


async def _alarms(agent: Agent, _request: Request, _say: Say) -> list[dict[str, Any]]:
    return [
        {"machine": a.machine, "alarm": a.alarm, "state": a.state.name, "occurrence": a.occurrence, "text": a.text}
        for m in agent.machines.values()
        for a in m.alarms.alarms
        if a.occurrence
    ]


async def _socket_ack(agent: Agent, request: Request, _say: Say) -> str:
    machine = agent.config.machine(str(request["machine"]))
    command = Command(
        "ack",
        machine.id,
        alarm=str(request.get("alarm", "anomaly")),
        occurrence=int(request["occurrence"]),
        by=str(request.get("by", "")),
        comment=str(request.get("comment", "")),
    )
    if error := await _ack(agent, command):
        raise ConfigError(error)
    return f"{machine.id}/{command.alarm} occurrence {command.occurrence} is acknowledged"


async def _enroll(agent: Agent, request: Request, say: Say) -> dict[str, Any]:
    machine = agent.config.machine(str(request["machine"]))
    if request.get("files"):
        recording = await asyncio.to_thread(record_files, request, machine, agent.config)
    else:
        recording = await listen(agent, machine, float(request["duration_s"]), say)
    return await enroll_recording(
        agent, machine, recording, say, fault=request.get("fault"), mode=request.get("mode", "default")
    )


async def enroll_recording(
    agent: Agent,
    machine: MachineConfig,
    recording: Recording,
    say: Say,
    *,
    fault: str | None = None,
    mode: str = "default",
) -> dict[str, Any]:
    """Learn a recording and judge by it from the next window on."""
    bank, report = await _in_turns(agent, say, partial(agent.library.learn, machine, recording, fault=fault, mode=mode))
    await agent.use_bank(machine.id)
    return {"bank": bank.version, "lines": report.lines(), "report": report.as_dict()}


async def listen(agent: Agent, machine: MachineConfig, duration_s: float, say: Say) -> Recording:
    """Record a machine while it is watched; Unavailable where nothing is heard of it any more."""
    recording = Recording()
    heard = agent.recordings.setdefault(machine.id, [])
    heard.append(recording)
    try:
        while recording.duration_s < duration_s:
            before = recording.duration_s
            await asyncio.sleep(1.0)
            say(int(recording.duration_s), int(duration_s))
            if recording.duration_s == before and agent.machines[machine.id].all_stale:
                raise Unavailable(
                    f"nothing is heard of {machine.id}; is its source connected? See `fisher-agent status`"
                )
    finally:
        heard.remove(recording)
    return recording


async def _in_turns(agent: Agent, say: Say, work: Callable[..., Any]) -> Any:
    """Run a long computation in a thread of its own, whose model batches take turns with live windows."""
    loop = asyncio.get_running_loop()

    def tell(done: int, total: int) -> None:
        with contextlib.suppress(Unavailable):  # what was heard is learnt, whether anybody still waits for it or not
            say(done, total)

    def progress(done: int, total: int) -> None:
        loop.call_soon_threadsafe(tell, done, total)

    return await asyncio.to_thread(work, embedder=TakingTurns(agent), progress=progress)


def record_files(request: Request, machine: MachineConfig, _config: Config) -> Recording:
    """Read recordings as one enrolment; each file is a block of its own. Blocking."""
    recording = Recording()
    for frame in read_many(
        [Path(f) for f in request["files"]],
        machine=machine,
        rate_hz=request.get("rate"),
        channel_map=request.get("channels"),
        window=_config.window,
    ):
        recording.add(frame)
    return recording


async def _banks(agent: Agent, _request: Request, _say: Say) -> list[dict[str, Any]]:
    return await agent.in_store(list_banks, agent.config, agent.parts.banks)


async def _rebuild(agent: Agent, request: Request, say: Say) -> dict[str, Any]:
    machine = agent.config.machine(str(request["machine"]))
    bank, report = await _in_turns(agent, say, partial(agent.library.rebuild, machine))
    await agent.use_bank(machine.id)
    return {"bank": bank.version, "lines": report.lines(), "report": report.as_dict()}


async def _rollback(agent: Agent, request: Request, _say: Say) -> str:
    machine = agent.config.machine(str(request["machine"]))
    version = await agent.in_store(agent.parts.banks.rollback, machine.id)
    await agent.use_bank(machine.id)
    return f"{machine.id} is judged by bank {version} from the next window on"


async def _confirm(agent: Agent, request: Request, _say: Say) -> str:
    return await refining.confirm(agent, request)


async def _forget(agent: Agent, request: Request, _say: Say) -> str:
    machine = agent.config.machine(str(request["machine"]))
    await agent.in_store(agent.parts.banks.forget, machine.id)
    await agent.use_bank(machine.id)
    return f"every bank of {machine.id} is deleted; it is not judged until it is enrolled again"


SOCKET_VERBS: dict[str, Callable[[Agent, Request, Say], Awaitable[Any]]] = {
    "status": _status,
    "alarms": _alarms,
    "ack": _socket_ack,
    "enroll": _enroll,
    "banks": _banks,
    "rebuild": _rebuild,
    "rollback": _rollback,
    "confirm": _confirm,
    "forget": _forget,
}
