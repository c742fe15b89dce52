"""What operators' systems send: commands over MQTT, until their answer and its record could be written."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import astuple
from pathlib import Path
from random import Random
from typing import get_args

from fisher_agent.commands import RefusedCommand, parse
from fisher_agent.config import Verb, expand
from fisher_agent.errors import BadPayload
from fisher_agent.operators import audit
from fisher_agent.report import as_json
from fisher_agent.wire import Decoder
from fuzz.harness import Opened, Target
from fuzz.mutate import damaged, json_of, mixed

NOW_MS = 1_795_210_782_324
VERBS = (*get_args(Verb), "nonsense", "\x00", "ü")
DOCUMENTS = (
    {"id": "c1", "alarm": "anomaly", "occurrence": 42, "by": "ann", "comment": "seen", "ts": NOW_MS},
    {"until": NOW_MS + 3_600_000, "by": 7}, {"until": "2026-11-21T12:00:00+01:00", "occurrence": "42"},
    {"mode": "winding"}, {"occurrence": None, "alarm": ""}, 42, "42",
)  # fmt: skip


@contextmanager
def _commands(_work: Path) -> Iterator[Opened]:
    """The first byte chooses the verb."""
    db = sqlite3.connect(":memory:")

    def run(data: bytes) -> None:
        verb = VERBS[(data[0] if data else 0) % len(VERBS)]
        try:
            command = parse("m", verb, data[1:], now_ms=NOW_MS)
        except RefusedCommand as refused:
            assert refused.command is not None
            refused_as = refused.command.result(str(refused), now_ms=NOW_MS)
            as_json(refused_as)
            _kept(db, astuple(audit(refused.command, via="mqtt", error=str(refused))))
            raise
        if command is not None:
            json.loads(as_json(command.result(now_ms=NOW_MS)))
            _kept(db, astuple(audit(command, via="mqtt")))

    def make(rng: Random) -> bytes:
        return rng.randbytes(1) + json_of(rng, DOCUMENTS)

    whole = [
        b"\x00" + json.dumps(DOCUMENTS[0]).encode(),
        b"\x01" + json.dumps(DOCUMENTS[1]).encode(),
        b"\x00",
        b"\x0042",
    ]
    yield Opened(whole, mixed((0.8, make), (0.2, lambda rng: damaged(rng, whole))), run)
    db.close()


def _kept(db: sqlite3.Connection, row: tuple[object, ...]) -> None:
    """What a record of the store must be able to hold."""
    assert db.execute(f"SELECT {', '.join('?' for _ in row)}", row).fetchone() == row


@contextmanager
def _topics(_work: Path) -> Iterator[Opened]:
    """Patterns with machines and channels put in, and topics that nobody asked for."""
    decoder = Decoder("plant", {})

    def run(data: bytes) -> None:
        pattern, _, rest = data.decode(errors="replace").partition("\n")
        machine, _, channel = rest.partition("\n")
        if "{" not in machine:
            found = expand(pattern, machine, channel)
            assert found == channel.join(machine.join(pattern.split("{machine}")).split("{channel}"))
        with suppress(BadPayload):
            decoder.decode(pattern, data, mono_ns=0, utc_ns=0)
        assert decoder.label(pattern) == "plant", "what is counted must be bounded, whatever topics arrive"

    whole = [b"plant/{machine}/{channel}\npress-07\nvib-de", b"{machine}{channel}{x}\na\nb", b"{{machine}}\n\n"]
    yield Opened(whole, lambda rng: damaged(rng, whole), run)


TARGETS = (Target("command", _commands), Target("topic-pattern", _topics))
