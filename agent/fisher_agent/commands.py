"""Operator commands as they arrive over MQTT: which are obeyed, which refused, and the result's payload. Pure.

HMIs publish retained, at QoS 0, numbers as strings and templates with empty fields (measured with FUXA and Node-RED),
so what is not clearly meant is refused and nothing is guessed.
"""

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from fisher_agent.errors import FisherError
from fisher_agent.jsontext import loads, shown
from fisher_agent.lifecycle import WAITING, Alarm, Inhibit, Reason
from fisher_agent.stages import Scalar

MAX_AGE_MS = 60_000
MAX_BYTES = 4096
MAX_TEXT = 200
MAX_MS = 2**53  # what a JSON number holds exactly, and a database integer easily
NEEDS_OCCURRENCE = frozenset({"ack"})
NEEDS_UNTIL = frozenset({"shelve", "maintenance"})
NEEDS_MODE = frozenset({"mode"})


class RefusedCommand(FisherError):
    """A command is not obeyed; `command` holds what could be read of it, so that the result can repeat it."""

    def __init__(self, message: str, command: "Command | None" = None) -> None:
        self.command = command
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class Command:
    """One command. `occurrence` is -1 where none is named."""

    verb: str
    machine: str
    id: str = ""
    alarm: str = "anomaly"
    occurrence: int = -1
    by: str = ""
    comment: str = ""
    ts_ms: int = 0
    until_ms: int = 0  # UTC
    mode: str = ""  # an operating mode

    def result(self, error: str = "", *, now_ms: int) -> dict[str, Scalar]:
        """The payload of `cmd/<verb>/result`."""
        return {
            "id": self.id,
            "ok": int(not error),
            "error": error,
            "alarm": self.alarm,
            "occurrence": self.occurrence,
            "by": self.by,
            "ts": now_ms,
        }


def said(command: Command) -> str:
    """What was done, for whoever asked."""
    done = {
        "ack": f"occurrence {command.occurrence} is acknowledged",
        "shelve": f"is shelved until {datetime.fromtimestamp(command.until_ms / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC",
        "unshelve": "is not shelved",
        "suppress": "is suppressed",
        "unsuppress": "is not suppressed by an operator",
        "out-of-service": "is out of service",
        "in-service": "is in service",
    }
    return f"{command.machine}/{command.alarm} {done[command.verb]}"


def parse(machine: str, verb: str, payload: bytes, *, now_ms: int) -> Command | None:
    """Bytes -> Command; None for an empty payload (a deletion); RefusedCommand says why it is not obeyed."""
    if not payload:
        return None
    bare = Command(verb, machine)
    if len(payload) > MAX_BYTES:
        raise RefusedCommand(f"{len(payload)} bytes; a command has at most {MAX_BYTES}", bare)
    try:
        document: Any = loads(payload)
    except ValueError as error:
        raise RefusedCommand("not JSON; send an object or an occurrence number", bare) from error
    if not isinstance(document, dict):
        document = {"occurrence": document}
    named = Command(  # so that what is refused is refused to somebody
        verb,
        machine,
        id=_text(document.get("id"), "id", bare),
        alarm=_text(document.get("alarm"), "alarm", bare) or "anomaly",
        by=_text(document.get("by"), "by", bare),
        comment=_text(document.get("comment"), "comment", bare),
        mode=_text(document.get("mode"), "mode", bare),
    )
    command = replace(
        named,
        occurrence=_occurrence(document["occurrence"], named) if document.get("occurrence") is not None else -1,
        ts_ms=_time_ms(document.get("ts"), "ts", named),
        until_ms=_time_ms(document.get("until"), "until", named),
    )
    if command.ts_ms and abs(now_ms - command.ts_ms) > MAX_AGE_MS:
        hint = " (seconds? give milliseconds)" if abs(now_ms - command.ts_ms * 1000) <= MAX_AGE_MS else ""
        off_s = abs(now_ms - command.ts_ms) // 1000
        raise RefusedCommand(f"its ts is {off_s} s off{hint}; at most 60 s is obeyed", command)
    if verb in NEEDS_OCCURRENCE and command.occurrence < 0:
        raise RefusedCommand(f"{verb} names no occurrence; take it from the alarm object", command)
    if verb in NEEDS_UNTIL and not command.until_ms:
        raise RefusedCommand(f"{verb} names no until; give ms UTC or an ISO time, for it always ends", command)
    if verb in NEEDS_MODE and not command.mode:
        raise RefusedCommand(f'{verb} names no mode; send {{"mode": "..."}}', command)
    return command


def _text(value: Any, key: str, command: Command) -> str:
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int) or not sayable(str(value)):
        raise RefusedCommand(f"{key} must be printable text of at most {MAX_TEXT} characters", command)
    return str(value)


def sayable(text: str) -> bool:
    """Whether it can be published again: JSON may hold half a surrogate pair, which UTF-8 cannot."""
    return len(text) <= MAX_TEXT and (text.isprintable() or not text)


def _occurrence(value: Any, command: Command) -> int:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 18:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
        raise RefusedCommand(f"occurrence {shown(value)} is not a whole number", command)
    return value


def _time_ms(value: Any, key: str, command: Command) -> int:
    if value in (None, "", 0):
        return 0
    wrong = RefusedCommand(f"{key} {shown(value)} is neither milliseconds nor an ISO time", command)
    try:
        if isinstance(value, str) and not value.isdigit():
            stamp = datetime.fromisoformat(value)
            found = int((stamp if stamp.tzinfo else stamp.replace(tzinfo=UTC)).timestamp() * 1000)
        else:
            found = int(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise wrong from error
    if isinstance(value, bool) or not 0 <= found < MAX_MS:
        raise wrong
    return found


def is_done(alarm: Alarm, command: Command) -> bool:
    """Whether a command has nothing left to do."""
    shelved = alarm.has(Inhibit.SHELVED)
    return {
        "ack": alarm.acked or alarm.base not in WAITING,
        "shelve": shelved and alarm.shelved_until == command.until_ms,
        "unshelve": not shelved,
        "suppress": Reason.OPERATOR in alarm.suppressed_by,
        "unsuppress": Reason.OPERATOR not in alarm.suppressed_by,
        "out-of-service": alarm.out_of_service,
        "in-service": not alarm.out_of_service,
    }[command.verb]
