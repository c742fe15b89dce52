"""Signed commands: whoever has the key may command, and what was overheard cannot be said again. Pure.

With `mqtt.command_key_file` a command is an object that also carries `ts` (ms UTC), `nonce` (16 to 64 of A-Z a-z 0-9
_ -, never used before) and `hmac`: HMAC-SHA256 (RFC 2104) in hex, under the text in the key file, over the UTF-8 of

    <the topic that the command is published to>
    <key>=<value>           a line for each other key of the object, sorted; keys with null are left out

joined by single line feeds, values as they are written: text without its quotes, whole numbers in decimal. What is
signed is thus every key, and the site, edge, machine and verb, which the topic names. deploy/docs/security.md has an
example.
"""

import hashlib
import hmac
import json
import re
from typing import Any

from fisher_agent.commands import MAX_AGE_MS, Command, RefusedCommand

MAX_AHEAD_MS = 5_000
MAX_NONCES = 4096
SIGNATURE = re.compile(r"[0-9a-fA-F]{64}")
NONCE = re.compile(r"[A-Za-z0-9_-]{16,64}")
KEY = re.compile(r"[A-Za-z0-9_-]{1,48}")


def canonical(topic: str, document: dict[str, Any]) -> bytes:
    """What is signed; ValueError names a key or value that has no one way to be written."""
    lines = [topic]
    for key, value in sorted(document.items()):
        if key == "hmac" or value is None:
            continue
        if not KEY.fullmatch(key):
            raise ValueError("a key must be 1 to 48 of A-Z a-z 0-9 _ -")
        if isinstance(value, bool) or not isinstance(value, str | int) or not str(value).isprintable():
            raise ValueError(f"{key} must be printable text or a whole number")
        lines.append(f"{key}={value}")
    return "\n".join(lines).encode()


class Signatures:
    """Checks signatures, and remembers the nonces of what was obeyed for as long as it could be said again.

    Memory is bounded: when a nonce is forgotten, nothing that was signed up to its `ts` is obeyed any more. So no
    command can be repeated however the clock is set; nor after a restart, for what was signed before it is refused.
    """

    def __init__(self, key: bytes, *, started_s: float) -> None:
        self._key = key
        self._started_s = started_s  # of the monotonic clock: a box may learn the time of day only later
        self._seen: dict[str, int] = {}  # nonce -> ts
        self._forgotten_ms = 0  # the latest ts of a forgotten nonce

    def check(self, topic: str, payload: bytes, command: Command, *, now_ms: int, now_s: float) -> None:
        """RefusedCommand says why a payload, which was read as `command`, is not obeyed."""
        document: Any = json.loads(payload)
        if not isinstance(document, dict):
            raise RefusedCommand("only signed commands are obeyed; send an object with ts, nonce and hmac", command)
        given, nonce, ts_ms = document.get("hmac"), document.get("nonce"), document.get("ts")
        if not isinstance(given, str) or not SIGNATURE.fullmatch(given):
            raise RefusedCommand("only signed commands are obeyed; hmac must be 64 hexadecimal digits", command)
        try:
            signed = canonical(topic, document)
        except ValueError as error:
            raise RefusedCommand(f"it cannot have been signed: {error}", command) from error
        if not hmac.compare_digest(hmac.new(self._key, signed, hashlib.sha256).hexdigest(), given.lower()):
            raise RefusedCommand("its hmac is wrong: another key, or something else than the topic and keys", command)
        if not isinstance(nonce, str) or not NONCE.fullmatch(nonce):
            raise RefusedCommand("nonce must be 16 to 64 of A-Z a-z 0-9 _ -, another one each time", command)
        if isinstance(ts_ms, bool) or not isinstance(ts_ms, int):
            raise RefusedCommand("ts must be the time of signing in whole milliseconds UTC", command)
        self._check_time(ts_ms, command, now_ms=now_ms, now_s=now_s)
        if nonce in self._seen:
            raise RefusedCommand("its nonce was used before; sign each command anew", command)
        self._remember(nonce, ts_ms, now_ms)

    def _check_time(self, ts_ms: int, command: Command, *, now_ms: int, now_s: float) -> None:
        if now_ms - ts_ms > MAX_AGE_MS:
            raise RefusedCommand(f"it was signed {(now_ms - ts_ms) // 1000} s ago; at most 60 s is obeyed", command)
        if ts_ms - now_ms > MAX_AHEAD_MS:
            raise RefusedCommand(
                f"it was signed {(ts_ms - now_ms) // 1000} s ahead of this box's clock; at most 5 s", command
            )
        # Before a restart a command may have been obeyed that was signed so far ahead.
        started_ms = now_ms - round((now_s - self._started_s) * 1000)
        if ts_ms <= max(started_ms + MAX_AHEAD_MS, self._forgotten_ms):
            raise RefusedCommand("it was signed before this agent can tell repetitions; sign it again", command)

    def _remember(self, nonce: str, ts_ms: int, now_ms: int) -> None:
        forgotten = [n for n, t in self._seen.items() if t < now_ms - MAX_AGE_MS]
        if len(self._seen) - len(forgotten) >= MAX_NONCES:
            forgotten.append(min(self._seen, key=self._seen.__getitem__))
        for old in forgotten:
            self._forgotten_ms = max(self._forgotten_ms, self._seen.pop(old))
        self._seen[nonce] = ts_ms
