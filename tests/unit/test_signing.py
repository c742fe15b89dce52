"""Signed commands: what is signed, what is refused, and that nothing can be said twice."""

import json
import re
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from fisher_agent.commands import MAX_AGE_MS, RefusedCommand, parse
from fisher_agent.config import MqttConfig
from fisher_agent.credentials import command_key
from fisher_agent.errors import ConfigError
from fisher_agent.signing import MAX_AHEAD_MS, MAX_NONCES, Signatures, canonical
from private import private

DOCUMENT = Path(__file__).parents[2] / "deploy" / "docs" / "security.md"
TOPIC = "fisher/v1/plant1/edge-1/press-07/cmd/ack"
KEY = "0123456789abcdef0123456789abcdef"
NOW_MS = 1_795_000_000_000
UP_S = 3600.0


def documented() -> dict[str, Any]:
    """The example of the document, as whoever copies it has it."""
    (code,) = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)
    return names


def signed(*, topic: str = TOPIC, key: str = KEY, ts: int = NOW_MS, **command: Any) -> dict[str, Any]:
    """By the document's example, at a time of the test's choice."""
    example = documented()
    example["time"] = type("Clock", (), {"time_ns": staticmethod(lambda: ts * 1_000_000)})
    document: dict[str, Any] = json.loads(example["signed"](topic, key, **(command or {"occurrence": 42})))
    return document


def opened() -> Signatures:
    return Signatures(KEY.encode(), started_s=0.0)


def check(
    signatures: Signatures, document: Any, *, now_ms: int = NOW_MS, now_s: float = UP_S, topic: str = TOPIC
) -> None:
    payload = json.dumps(document).encode()
    machine, _, verb = topic.split("/")[-3:]
    command = parse(machine, verb, payload, now_ms=now_ms)
    assert command is not None
    signatures.check(topic, payload, command, now_ms=now_ms, now_s=now_s)


def refused(signatures: Signatures, document: Any, why: str, **at: Any) -> None:
    with pytest.raises(RefusedCommand, match=why):
        check(signatures, document, **at)


def test_what_the_documented_example_signs_is_obeyed() -> None:
    check(opened(), signed(occurrence=42, by="Anna Öz", comment="seen = gone", id="k-1"))


def test_the_canonical_form_is_as_documented() -> None:
    document = {"ts": 5, "occurrence": "42", "by": "Öz", "hmac": "0", "alarm": None, "nonce": "n"}
    assert canonical("a/b", document) == "a/b\nby=Öz\nnonce=n\noccurrence=42\nts=5".encode()


@pytest.mark.parametrize("payload", [42, "42", [42]])
def test_a_bare_number_is_refused(payload: Any) -> None:
    with pytest.raises(RefusedCommand):
        check(opened(), payload)


def test_a_bare_number_is_told_what_is_wanted() -> None:
    refused(opened(), 42, "only signed commands are obeyed; send an object with ts, nonce and hmac")


@pytest.mark.parametrize("wrong", [None, "", 5, "0" * 63, "0" * 65, "g" * 64, True])
def test_what_carries_no_signature_is_refused(wrong: Any) -> None:
    refused(opened(), signed() | {"hmac": wrong}, "hmac must be 64 hexadecimal digits")


@pytest.mark.parametrize(
    "change",
    [
        {"hmac": "0" * 64}, {"occurrence": 43}, {"by": "eve"}, {"alarm": "stale-vib"}, {"ts": NOW_MS + 1},
        {"nonce": "another-nonce-of-16"}, {"id": "k-2"}, {"unknown": "key"}, {"until": NOW_MS + 1000},
    ],
)  # fmt: skip
def test_any_change_breaks_the_signature(change: dict[str, Any]) -> None:
    refused(opened(), signed() | change, "its hmac is wrong")


def test_a_key_left_out_breaks_the_signature() -> None:
    document = signed(occurrence=42, by="anna")
    del document["by"]
    refused(opened(), document, "its hmac is wrong")


@pytest.mark.parametrize(
    "elsewhere",
    [
        "fisher/v1/plant1/edge-1/press-08/cmd/ack", "fisher/v1/plant1/edge-2/press-07/cmd/ack",
        "fisher/v1/plant2/edge-1/press-07/cmd/ack", "fisher/v1/plant1/edge-1/press-07/cmd/unshelve",
    ],
)  # fmt: skip
def test_a_command_counts_on_its_own_topic_alone(elsewhere: str) -> None:
    refused(opened(), signed(), "its hmac is wrong", topic=elsewhere)


def test_another_key_is_refused() -> None:
    refused(opened(), signed(key=KEY[::-1]), "its hmac is wrong")


@pytest.mark.parametrize("value", [0.5, True, [1], {"a": 1}, "two\nlines", "\ud800"])
def test_what_has_no_one_form_cannot_be_signed(value: Any) -> None:
    refused(opened(), signed() | {"extra": value}, "cannot have been signed: extra must be")
    refused(opened(), signed() | {"a=b": 1}, "cannot have been signed: a key must be")


@pytest.mark.parametrize("nonce", [5, "short", "x" * 65, "with a space in it"])
def test_a_nonce_is_long_enough_and_bounded(nonce: Any) -> None:
    refused(opened(), resigned({"occurrence": 1, "ts": NOW_MS, "nonce": nonce}), "nonce must be")
    refused(opened(), resigned({"occurrence": 1, "ts": NOW_MS}), "nonce must be")


@pytest.mark.parametrize("ts", [None, 0, str(NOW_MS), "2026-11-18T00:00:00Z"])
def test_the_time_is_in_whole_milliseconds(ts: Any) -> None:
    document = resigned({"occurrence": 1, "nonce": "n" * 16, "ts": ts})
    with pytest.raises(RefusedCommand, match=r"ts must be|its ts is|signed .* s ago"):
        check(opened(), document)


def resigned(document: dict[str, Any]) -> dict[str, Any]:
    """With a right signature over whatever it holds."""
    import hashlib
    import hmac

    return document | {"hmac": hmac.new(KEY.encode(), canonical(TOPIC, document), hashlib.sha256).hexdigest()}


def test_only_a_minute_and_little_of_the_future_is_obeyed() -> None:
    check(opened(), signed(ts=NOW_MS - MAX_AGE_MS))
    check(opened(), signed(ts=NOW_MS + MAX_AHEAD_MS))
    refused(opened(), signed(ts=NOW_MS - MAX_AGE_MS - 1), "at most 60 s is obeyed")
    refused(opened(), signed(ts=NOW_MS + MAX_AHEAD_MS + 1), "ahead of this box's clock")


def test_a_command_is_obeyed_once() -> None:
    signatures, document = opened(), signed()
    check(signatures, document)
    for later_ms in (0, 1, MAX_AGE_MS):
        refused(signatures, document, "nonce was used before", now_ms=NOW_MS + later_ms)
    refused(signatures, document, "60 s", now_ms=NOW_MS + MAX_AGE_MS + 1)
    check(signatures, signed())


def test_what_is_refused_uses_up_no_nonce() -> None:
    signatures, document = opened(), signed()
    refused(signatures, document | {"by": "eve"}, "hmac is wrong")
    check(signatures, document)


def test_nothing_from_before_a_restart_is_obeyed_after_it() -> None:
    first, started_ms = opened(), NOW_MS
    for ts in (NOW_MS - MAX_AGE_MS + 1, NOW_MS, NOW_MS + MAX_AHEAD_MS):
        document = signed(ts=ts)
        check(first, document)
        for up_s in (0.0, 1.0, 59.0):
            again = Signatures(KEY.encode(), started_s=100.0)
            with pytest.raises(RefusedCommand):
                check(again, document, now_ms=started_ms + round(up_s * 1000), now_s=100.0 + up_s)


def test_a_clock_that_is_set_after_the_start_does_not_let_the_past_in() -> None:
    document = signed(ts=NOW_MS - 20_000)
    check(opened(), document)
    again = Signatures(KEY.encode(), started_s=0.0)  # the box began in 1970 and has just heard the time
    refused(again, document, "before this agent can tell", now_ms=NOW_MS, now_s=10.0)


def test_memory_is_bounded_and_forgetting_lets_nothing_in_again() -> None:
    signatures = opened()
    documents = [
        resigned({"occurrence": 1, "ts": NOW_MS - 5000 + n, "nonce": f"nonce-{n:016}"}) for n in range(MAX_NONCES + 10)
    ]
    for document in documents:
        check(signatures, document)
    assert len(signatures._seen) == MAX_NONCES
    for document in (*documents[:20], *documents[-20:]):
        with pytest.raises(RefusedCommand):
            check(signatures, document)


def test_a_clock_that_is_set_back_does_not_let_the_past_in() -> None:
    signatures, document = opened(), signed()
    check(signatures, document)
    check(signatures, signed(ts=NOW_MS + 10**9), now_ms=NOW_MS + 10**9)  # a day and a half later the first is forgotten
    assert len(signatures._seen) == 1
    with pytest.raises(RefusedCommand):
        check(signatures, document)


@given(
    st.dictionaries(st.text(max_size=8), st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8))
)
def test_whatever_arrives_unsigned_is_refused_and_breaks_nothing(document: dict[str, Any]) -> None:
    with pytest.raises(RefusedCommand):
        check(opened(), {"hmac": "0" * 64} | document)


@pytest.mark.parametrize("text", ["", "short", "x" * 31, "ä" * 40, "one line\n" * 5])
def test_a_key_that_could_be_guessed_or_mistyped_is_refused(tmp_path: Path, text: str) -> None:
    file = private(tmp_path / "key", text)
    with pytest.raises(ConfigError, match=r"mqtt\.command_key_file: .*openssl rand") as wrong:
        command_key(MqttConfig(command_key_file=file))
    assert not text.strip() or text.strip() not in str(wrong.value)
    assert command_key(MqttConfig()) is None
    assert command_key(MqttConfig(command_key_file=private(tmp_path / "good", KEY + "\n"))) == KEY.encode()
