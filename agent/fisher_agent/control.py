"""The control socket: what the command line asks of the running daemon.

It speaks one JSON object per line: a request `{"verb": ..., ...}`; answers `{"progress": [done, total]}`,
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

from fisher_agent import rebuilding, refining
from fisher_agent.alarmobject import alarm_row, listed
from fisher_agent.banks import list_banks
from fisher_agent.commands import RefusedCommand, parse, said
from fisher_agent.config import Config, MachineConfig
from fisher_agent.drift import facts as drift_facts
from fisher_agent.enrolling import enroll_recording, listen
from fisher_agent.errors import BadFile, ConfigError, FisherError, Unavailable
from fisher_agent.files import read_many
from fisher_agent.jsontext import loads, shown
from fisher_agent.live import channel_words
from fisher_agent.operators import ALARM_VERBS, perform
from fisher_agent.runtime import Agent
from fisher_agent.turns import TakingTurns
from fisher_agent.waveforms import Recording

MAX_REQUEST = 1_000_000
LONGEST_ENROLMENT_S = 7 * 86_400
RUN_DIR = Path("/run/fisher-agent")
SOCKET = "ctl.sock"
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
            request = loads(await reader.readline())
            verb = SOCKET_VERBS.get(request.get("verb", ""))
            if verb is None:
                raise ConfigError(f"{request.get('verb')!r} is not a verb of the control socket")
            answer = {"ok": True, "result": await verb(agent, request, say)}
        except (ValueError, AttributeError, KeyError, TypeError, OverflowError) as error:
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


async def _status(agent: Agent, _request: Request, _say: Say) -> dict[str, Any]:
    return {
        "status": "degraded" if agent.degradations() else "online",
        "degraded": agent.degradations(),
        "links": agent.links.up,
        "proofs": agent.links.proofs,
        "pid": os.getpid(),
        **agent.health(),
        "machines": {
            m.config.id: {
                "enrolled": (judge := agent.pipeline.judges.get(m.config.id)) is not None and judge.bank is not None,
                "running": bool(m.verdict and m.verdict.running),
                "score": m.verdict.score if m.verdict and m.verdict.scored else None,
                "level": m.level(mono_s=time.monotonic()).name.lower(),
                "channels": channel_words([m])[m.config.id],
                "mode": (m.verdict.mode or "") if m.verdict else "",
                "maintenance_until_ms": m.maintenance_until_ms,
                "offer": m.offer,
                **drift_facts(m.drift),
                "probation": refining.facts(agent, m, now_ns=time.time_ns()),
            }
            for m in agent.machines.values()
        },
    }


async def _alarms(agent: Agent, _request: Request, _say: Say) -> list[dict[str, Any]]:
    return [alarm_row(a) for m in agent.machines.values() for a in m.alarms.alarms if listed(a)]


async def _command(agent: Agent, request: Request, _say: Say) -> str:
    machine = agent.config.machine(str(request["machine"]))
    # By the rules of commands over MQTT: what could not be kept or published again is refused here, too.
    document = {k: request[k] for k in ("alarm", "by", "comment") if k in request}
    document["until"] = request.get("until_ms")
    document["occurrence"] = None if request.get("occurrence") == -1 else request.get("occurrence")
    try:
        command = parse(machine.id, str(request["verb"]), json.dumps(document).encode(), now_ms=0)
    except RefusedCommand as refused:
        raise ConfigError(str(refused)) from refused
    assert command is not None
    if error := await perform(agent, command, via="socket"):
        raise ConfigError(error)
    return said(command)


async def _enroll(agent: Agent, request: Request, say: Say) -> dict[str, Any]:
    machine = agent.config.machine(str(request["machine"]))
    if request.get("files"):
        recording = await asyncio.to_thread(record_files, request, machine, agent.config)
    else:
        duration_s = request["duration_s"]
        if type(duration_s) not in (int, float) or not 0 < duration_s <= LONGEST_ENROLMENT_S:
            raise ConfigError(
                f"duration_s is {shown(duration_s)}; it must be above 0 and at most {LONGEST_ENROLMENT_S}"
            )
        recording = await listen(agent, machine, float(duration_s), say)
    return await enroll_recording(
        agent, machine, recording, say, fault=request.get("fault"), mode=request.get("mode"),
        activate="never" if request.get("dry_run") else "now",
    )  # fmt: skip


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
    bank, report = await rebuilding.rebuild(agent, machine, say)
    return {"bank": bank.version, "lines": report.lines(), "report": report.as_dict()}


async def _rollback(agent: Agent, request: Request, _say: Say) -> str:
    machine = agent.config.machine(str(request["machine"]))
    return await _chosen(agent, machine, partial(agent.library.rollback, machine), request)


async def _accept(agent: Agent, request: Request, _say: Say) -> str:
    machine = agent.config.machine(str(request["machine"]))
    return await _chosen(agent, machine, partial(agent.library.accept, machine), request)


async def _chosen(
    agent: Agent, machine: MachineConfig, choose: Callable[..., tuple[str, list[str]]], request: Request
) -> str:
    dry = bool(request.get("dry_run"))
    version, sentences = await asyncio.to_thread(choose, activate=not dry, embedder=TakingTurns(agent))
    if not dry:
        await agent.use_bank(machine.id)
    said = "would be" if dry else "is"
    return "\n".join(
        [
            f"{machine.id} {said} judged by bank {version} from the next window on",
            *(f"  back-test: {s}" for s in sentences),
        ]
    )


async def _rename(agent: Agent, request: Request, _say: Say) -> str:
    machine = agent.config.machine(str(request["machine"]))
    names = {str(k): str(v) for k, v in request["names"].items()}
    bank = await agent.in_store(agent.library.rename, machine, names)
    await agent.use_bank(machine.id)
    return f"bank {bank.version} of {machine.id} has the modes {', '.join(bank.modes)}"


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
    **dict.fromkeys(ALARM_VERBS, _command),
    "enroll": _enroll,
    "banks": _banks,
    "rebuild": _rebuild,
    "rollback": _rollback,
    "accept": _accept,
    "rename": _rename,
    "confirm": _confirm,
    "forget": _forget,
}
