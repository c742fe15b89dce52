"""What is a command and what is refused: HMIs send numbers as text, empty templates, and retained messages."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fisher_agent.commands import MAX_AGE_MS, MAX_BYTES, MAX_TEXT, Command, RefusedCommand, parse
from fisher_agent.report import as_json

NOW_MS = 1_795_000_000_000


def ack(payload: bytes | str) -> Command | None:
    return parse("press-07", "ack", payload.encode() if isinstance(payload, str) else payload, now_ms=NOW_MS)


def read(document: Any) -> Command:
    command = ack(json.dumps(document))
    assert command is not None
    return command


@pytest.mark.parametrize("payload", ["42", '"42"', '{"occurrence": "42"}', '{"occurrence": 42}', " 42 "])
def test_an_occurrence_may_come_in_any_form_that_an_hmi_makes_of_it(payload: str) -> None:
    assert ack(payload) == Command("ack", "press-07", occurrence=42)


@pytest.mark.parametrize(
    "payload",
    [
        "true", "false", "0.5", "42.0", '""', '" "', '"4 2"', '"4_2"', '"+42"', '"-1"', "-1", "1e3", "null", "[]",
        '"²"', '"٤٢"', str(2**63), '"' + "9" * 40 + '"', "9" * 400, '{"occurrence": true}', '{"occurrence": [1]}',
        '{"occurrence": {}}', '{"occurrence": ""}', "NaN", "Infinity", "[42]",
    ],
)  # fmt: skip
def test_what_is_no_whole_number_is_refused(payload: str) -> None:
    with pytest.raises(RefusedCommand):
        ack(payload)


@pytest.mark.parametrize("payload", ["{}", '{"occurrence": null}', '{"by": "anna"}', '{"alarm": "anomaly", "by": ""}'])
def test_an_ack_that_names_no_occurrence_is_refused(payload: str) -> None:
    with pytest.raises(RefusedCommand, match="names no occurrence"):
        ack(payload)


def test_an_empty_payload_is_the_deletion_of_a_retained_command_and_no_command() -> None:
    assert ack(b"") is None


@pytest.mark.parametrize("payload", [b"ack", b"{", b"\xff\xfe", b"\x00", b"{'occurrence': 1}", b"[" * 4000])
def test_what_is_not_json_is_refused(payload: bytes) -> None:
    with pytest.raises(RefusedCommand, match="not JSON"):
        ack(payload)


def test_a_long_payload_is_refused_unread() -> None:
    with pytest.raises(RefusedCommand, match="bytes"):
        ack(b" " * MAX_BYTES + b"42")


def test_everything_that_a_command_says_is_read() -> None:
    said = {"id": "k-1", "alarm": "stale-vib", "occurrence": 7, "by": "Anna Öz", "comment": "seen", "ts": NOW_MS}
    assert read(said) == Command(
        "ack", "press-07", id="k-1", alarm="stale-vib", occurrence=7, by="Anna Öz", comment="seen", ts_ms=NOW_MS
    )


def test_empty_fields_of_a_template_are_as_good_as_missing() -> None:
    said = {"id": "", "alarm": "", "occurrence": 7, "by": "", "comment": "", "until": "", "ts": ""}
    assert read(said) == Command("ack", "press-07", occurrence=7)


def test_an_id_may_be_a_number() -> None:
    assert read({"id": 17, "occurrence": 1}).id == "17"


@pytest.mark.parametrize("key", ["id", "alarm", "by", "comment"])
@pytest.mark.parametrize("value", [["a"], {"a": 1}, True, 1.5, "x" * (MAX_TEXT + 1), "a\nb", "a\x00b", "\ud800"])
def test_text_that_could_not_be_repeated_on_a_topic_is_refused(key: str, value: object) -> None:
    with pytest.raises(RefusedCommand, match=key) as refused:
        read({"occurrence": 1, key: value})
    assert refused.value.command is not None
    as_json(refused.value.command.result(str(refused.value), now_ms=NOW_MS))


@pytest.mark.parametrize("ts", [NOW_MS - MAX_AGE_MS - 1, NOW_MS + MAX_AGE_MS + 1, "2020-01-01T00:00:00Z", 1])
def test_a_command_that_is_not_of_this_minute_is_refused(ts: object) -> None:
    with pytest.raises(RefusedCommand, match="ts is") as refused:
        read({"occurrence": 1, "ts": ts, "by": "anna"})
    assert refused.value.command is not None
    assert (refused.value.command.occurrence, refused.value.command.by) == (1, "anna")


@pytest.mark.parametrize(
    "ts",
    [
        *(0, "", None, NOW_MS, str(NOW_MS), NOW_MS - MAX_AGE_MS, float(NOW_MS)),
        *("2026-11-18T11:06:40+00:00", "2026-11-18T11:06:40"),
    ],
)
def test_a_time_is_milliseconds_or_iso_or_nothing(ts: object) -> None:
    assert read({"occurrence": 1, "ts": ts}).occurrence == 1


@pytest.mark.parametrize("ts", ["yesterday", "²", [1], {}, True and "x", "NaN", 1e400])
def test_a_time_that_is_none_is_refused(ts: object) -> None:
    with pytest.raises(RefusedCommand):
        read({"occurrence": 1, "ts": ts})


def test_the_result_repeats_what_the_command_named() -> None:
    command = read({"id": "k", "alarm": "stale-vib", "occurrence": 7, "by": "anna"})
    assert command.result(now_ms=5) == {
        "id": "k", "ok": 1, "error": "", "alarm": "stale-vib", "occurrence": 7, "by": "anna", "ts": 5,
    }  # fmt: skip
    assert command.result("too late", now_ms=5)["ok"] == 0


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
documents = st.dictionaries(
    st.sampled_from(["id", "alarm", "occurrence", "by", "until", "ts", "comment"]), json_values, max_size=6
)


@given(st.binary(max_size=200) | (documents | json_values).map(lambda d: json.dumps(d).encode()))
def test_whatever_arrives_is_obeyed_or_refused_and_can_be_answered(payload: bytes) -> None:
    try:
        command = ack(payload)
    except RefusedCommand as refused:
        assert refused.command is not None
        answer = as_json(refused.command.result(str(refused), now_ms=NOW_MS))
    else:
        if command is None:
            assert payload == b""
            return
        assert 0 <= command.occurrence < 2**63
        answer = as_json(command.result(now_ms=NOW_MS))
    assert json.loads(answer)["ts"] == NOW_MS


@pytest.mark.parametrize("until", [None, "", 0, "0"])
def test_shelving_that_never_ends_is_refused(until: Any) -> None:
    with pytest.raises(RefusedCommand, match="names no until"):
        parse("press-07", "shelve", json.dumps({"alarm": "anomaly", "until": until}).encode(), now_ms=NOW_MS)


@pytest.mark.parametrize(
    "until", [1_795_000_600_000, "1795000600000", "2026-11-18T11:16:40+00:00", "2026-11-18T11:16:40"]
)
def test_the_end_of_shelving_is_ms_or_an_iso_time(until: Any) -> None:
    command = parse("press-07", "shelve", json.dumps({"until": until}).encode(), now_ms=NOW_MS)
    assert command == Command("shelve", "press-07", until_ms=1_795_000_600_000)


@pytest.mark.parametrize("until", ["tomorrow", [1], {}, "1e400", 10**20, -5, "99999999999999999999", 1e300, True])
def test_an_end_that_is_no_time_is_refused_by_its_name(until: Any) -> None:
    with pytest.raises(RefusedCommand, match="until"):
        parse("press-07", "shelve", json.dumps({"until": until}).encode(), now_ms=NOW_MS)


@pytest.mark.parametrize("payload", ["{}", '{"mode": ""}', "7"])
def test_a_mode_that_names_none_is_refused(payload: str) -> None:
    with pytest.raises(RefusedCommand, match="names no mode"):
        parse("press-07", "mode", payload.encode(), now_ms=NOW_MS)
