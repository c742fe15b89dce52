"""What an operator's commands show and do: the agent's state, alarms and their handling.

Through the daemon where one runs, in this process where none does.
"""

import getpass
import os
import time
from collections.abc import Sequence
from dataclasses import fields
from datetime import UTC, datetime
from typing import Any

from fisher_agent import client
from fisher_agent.alarmobject import alarm_object, alarm_row, listed
from fisher_agent.alarms import MachineAlarms
from fisher_agent.commands import MAX_TEXT, Command, said, sayable
from fisher_agent.config import Config
from fisher_agent.errors import ConfigError, Unavailable
from fisher_agent.modeconfig import DEFAULT_MODE
from fisher_agent.operate import open_state
from fisher_agent.report import MS, Names, alarm_messages, alarm_point
from fisher_agent.storerows import Audit


def status(config: Config) -> dict[str, Any]:
    """What the daemon says of itself; Unavailable where none runs."""
    if not client.daemon_answers(config):
        raise Unavailable(f"no daemon runs on {config.state_dir}; start it with `fisher-agent run` or systemctl")
    answer: dict[str, Any] = client.ask(config, "status")
    return answer


def status_lines(document: dict[str, Any]) -> list[str]:
    """The state of the agent, of every machine, and everything that is not as it should be."""
    facts = (
        f"pid {document['pid']}, up {document['uptime_s']} s",
        f"{document['backend']} {document['precision']}",
        f"{document['windows']} windows ({document['windows_per_s']:.2f}/s), p95 {document['p95_ms']:.0f} ms",
        f"dropped {document['dropped']}, late {document['late']}, rejected {document['rejected']}",
        f"outbox {document['outbox_bytes']} bytes, RSS {document['rss_bytes'] / 1e6:.0f} MB",
    )
    lines = [f"{document['status']}  {', '.join(facts)}"]
    if document["weights"] == "untrained":
        lines.append(f"model {document['model']}: weights are UNTRAINED; scores show change, they are not diagnoses")
    for name, m in document["machines"].items():
        score = "-" if m["score"] is None else f"{m['score']:.2f}"
        state = "not enrolled" if not m["enrolled"] else ("running" if m["running"] else "not running")
        channels = ", ".join(f"{c} {s}" for c, s in m["channels"].items())
        mode = f"  mode {m['mode']}" if m.get("mode") not in (None, "", DEFAULT_MODE) else ""
        probation = f"  {m['probation']['words']}" if m["probation"]["words"] else ""
        lines.append(f"{name}  {m['level']}  score {score}  {state}{mode}{probation}  ({channels})")
        if m.get("maintenance_until_ms"):
            lines.append(f"  in maintenance until {_clock(m['maintenance_until_ms'])}")
        lines += [f"  {m[key]}" for key in ("drift_text", "offer") if m.get(key)]
    lines += [f"{name}: {proof}" for name, proof in document.get("proofs", {}).items()]
    return lines + [f"degraded: {name}: {why}" for name, why in document["degraded"].items()]


def alarms(config: Config) -> list[dict[str, Any]]:
    """Every alarm that was ever raised, as it stands."""
    if client.daemon_answers(config):
        answer: list[dict[str, Any]] = client.ask(config, "alarms")
        return answer
    with open_state(config) as store:
        found = [a for m in config.machines for a in store.load_alarms(m.id)[0]]
    return [alarm_row(a) for a in found if listed(a)]


def alarm_lines(rows: Sequence[dict[str, Any]]) -> list[str]:
    """One line per alarm, what needs somebody first."""
    order = {"UNACK": 0, "LATCHED": 1, "RTNUN": 2, "ACKED": 3}
    ranked = sorted(rows, key=lambda r: (order.get(r["state"], 4), r["priority"]))
    return [_alarm_line(r) for r in ranked] or ["no alarm was ever raised"]


def _alarm_line(row: dict[str, Any]) -> str:
    put_aside = f", until {_clock(row['shelved_until'])}" if row["shelved_until"] else ""
    put_aside += f", by {row['suppressed_by']}" if row["suppressed_by"] else ""
    raised = f", raised {_clock(row['ts_raised'])}" if row["ts_raised"] else ""
    named = f"{row['machine']}/{row['alarm']}  {row['state']}{put_aside}"
    return f"{named}  occurrence {row['occurrence']}{raised}, priority {row['priority']}  {row['text']}"


def _clock(t_ms: int) -> str:
    return f"{datetime.fromtimestamp(t_ms / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC"


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user id without a name
        return f"uid {os.getuid()}"


def asked(
    verb: str,
    machine: str,
    alarm: str,
    *,
    occurrence: int | None = None,
    duration_s: float | None = None,
    by: str = "",
    comment: str = "",
) -> Command:
    """A command from the command line; ConfigError for text that could not be published again."""
    until_ms = time.time_ns() // MS + round(duration_s * 1000) if duration_s else 0
    for name, text in (("--by", by), ("--comment", comment)):
        if not sayable(text):
            raise ConfigError(f"{name} must be printable text of at most {MAX_TEXT} characters")
    return Command(
        verb,
        machine,
        alarm=alarm,
        occurrence=-1 if occurrence is None else occurrence,
        by=by or _user(),
        comment=comment,
        until_ms=until_ms,
    )


def command(config: Config, asked: Command) -> str:
    """Acknowledge, shelve, suppress, take out of service: one alarm, through the daemon or in this process."""
    machine = config.machine(asked.machine)
    if client.daemon_answers(config):
        arguments = {f.name: getattr(asked, f.name) for f in fields(asked) if f.name not in ("verb", "id", "ts_ms")}
        answer: str = client.ask(config, asked.verb, **arguments)
        return answer
    names = Names.of(config)
    with open_state(config) as store:
        kept, last = store.load_alarms(machine.id)
        lifecycle = MachineAlarms(machine.id, [c.id for c in machine.channels], machine.alarm, kept, last)
        result = lifecycle.command(asked, time.time_ns())
        record = Audit(
            t_ms=time.time_ns() // MS, machine=machine.id, verb=asked.verb, alarm=asked.alarm,
            occurrence=asked.occurrence, command_id="", by=asked.by, comment=asked.comment, until_ms=asked.until_ms,
            via="offline", error=result.error,
        )  # fmt: skip
        changed = [t.alarm for t in result.transitions]
        objects = [alarm_object(a, site=names.site, edge=names.edge, backend="", bank="", model="") for a in changed]
        store.commit_alarms(
            machine.id,
            changed,
            lifecycle.occurrence,
            points=[alarm_point(names, o) for o in objects],
            messages=[message for o in objects for message in alarm_messages(names, o)],
            audit=record,
        )
    if result.error:
        raise ConfigError(result.error)
    return said(asked)
