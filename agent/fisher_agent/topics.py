"""`fisher-agent topics`: every topic that is published, with its keys and their types, for generating HMI tags."""

from collections.abc import Mapping, Sequence
from typing import Any

from fisher_agent.alarmobject import alarm_object
from fisher_agent.alarms import MachineAlarms
from fisher_agent.codes import Level, Quality
from fisher_agent.config import Config
from fisher_agent.lifecycle import FAULT, Alarm
from fisher_agent.performance import Performance
from fisher_agent.report import Names, state_object
from fisher_agent.stages import Scalar, Verdict

HEALTH_KEYS: dict[str, str] = {
    "ts": "integer", "uptime_s": "integer", "backend": "string", "precision": "string", "model": "string",
    "weights": "string", "windows": "integer", "windows_per_s": "number", "p95_ms": "number", "queue": "integer",
    "outbox_bytes": "integer", "dropped": "integer", "late": "integer", "rejected": "integer", "fallback": "integer",
    "rss_bytes": "integer",
}  # fmt: skip


def every_topic(config: Config, faults: Mapping[str, Sequence[str]]) -> list[dict[str, Any]]:
    """A row per topic: topic, qos, retain, type, and for objects their keys. `faults` are the enrolled ones."""
    names = Names.of(config)
    rows = [
        _row(f"{names.base}/status", 1, "string"),
        _row(f"{names.base}/alive", 1, "integer"),
        _row(f"{names.base}/health", 0, "object", HEALTH_KEYS),
        _row(f"{names.base}/alarms/kpi", 0, "object", _types(Performance().kpi([], 0))),
    ]
    for machine in config.machines:
        channels = [c.id for c in machine.channels]
        state = state_object(_blank(machine.id), level=Level.UNKNOWN, fault_code=0, model="")
        rows += [
            _row(names.machine(machine.id, "state"), 1, "object", _types(state)),
            _row(names.machine(machine.id, "score"), 0, "number", retain=False),
            _row(names.machine(machine.id, "level"), 1, "integer"),
            _row(names.machine(machine.id, "faults"), 1, "object"),
        ]
        rows += [_row(names.machine(machine.id, "channel", c, "status"), 1, "string") for c in channels]
        lifecycle = MachineAlarms(machine.id, channels, machine.alarm, [], 0)
        named = [Alarm(machine=machine.id, alarm=FAULT + fault) for fault in faults.get(machine.id, ())]
        for alarm in (*lifecycle.alarms, *named):
            keys = _types(alarm_object(alarm, site=config.site, edge=config.edge, backend="", bank="", model=""))
            rows.append(_row(names.machine(machine.id, "alarm", alarm.alarm), 1, "object", keys))
            rows.append(_row(names.machine(machine.id, "alarm", alarm.alarm, "state"), 1, "integer"))
        blank = Alarm(machine=machine.id, alarm="")
        keys = _types(alarm_object(blank, site=config.site, edge=config.edge, backend="", bank="", model=""))
        rows.append(_row(names.machine(machine.id, "event"), 1, "object", keys, retain=False))
        for verb in config.mqtt.commands if config.mqtt else ():
            result = dict.fromkeys(("id", "error", "alarm", "by"), "string") | dict.fromkeys(
                ("ok", "occurrence", "ts"), "integer"
            )
            rows.append(_row(names.machine(machine.id, "cmd", verb), 1, "object", retain=True, direction="in"))
            rows.append(_row(names.machine(machine.id, "cmd", verb, "result"), 1, "object", result, retain=False))
    return rows


def lines(rows: Sequence[dict[str, Any]]) -> list[str]:
    """One line per topic."""
    return [
        f"{r['direction']:3}  {r['topic']}  {r['type']}  qos {r['qos']}{', retained' if r['retain'] else ''}"
        for r in rows
    ]


def _row(
    topic: str,
    qos: int,
    kind: str,
    keys: dict[str, str] | None = None,
    *,
    retain: bool = True,
    direction: str = "out",
) -> dict[str, Any]:
    return {"topic": topic, "direction": direction, "qos": qos, "retain": retain, "type": kind, "keys": keys or {}}


def _types(document: dict[str, Scalar]) -> dict[str, str]:
    kinds = {bool: "boolean", int: "integer", float: "number", str: "string"}
    return {key: kinds[type(value)] for key, value in document.items()}


def _blank(machine: str) -> Verdict:
    return Verdict(
        machine=machine, t_ns=0, score=0.0, p_value=1.0, mode=None, running=False, enrolled=False, fault=None,
        fault_confidence=0.0, quality=Quality.BAD,
    )  # fmt: skip
