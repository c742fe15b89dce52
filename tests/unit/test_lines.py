"""Line protocol: read back by a parser that follows the specification and shares nothing with the writer."""

import math

import hypothesis.strategies as st
import pytest
from hypothesis import given

from fisher_agent.lines import EMPTY_TAG, MAX_STRING, MAX_TAG, line, lines
from fisher_agent.stages import Point

NAMES = st.from_regex(r"[a-z][a-z_0-9]{0,10}", fullmatch=True)
# Whatever an operator may put into a mode, a fault class or a unit.
TEXTS = st.text(st.characters(exclude_categories=("Cs", "Cc", "Zl", "Zp"), exclude_characters="\\"), max_size=40)
VALUES = st.one_of(
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(exclude_categories=("Cs", "Cc", "Zl", "Zp")), max_size=40),
)


def split(text: str, separator: str) -> list[str]:
    """Split at separators that are neither escaped nor between quotes."""
    parts, quoted, escaped = [""], False, False
    for c in text:
        if escaped:
            escaped = False
        elif c == "\\":
            escaped = True
        elif c == '"':
            quoted = not quoted
        elif c == separator and not quoted:
            parts.append("")
            continue
        parts[-1] += c
    return parts


def unescape(text: str, characters: str) -> str:
    for c in characters:
        text = text.replace("\\" + c, c)
    return text


def parse_value(text: str) -> bool | int | float | str:
    if text in ("true", "false"):
        return text == "true"
    if text.endswith("i"):
        return int(text[:-1])
    if text.startswith('"'):
        assert text.endswith('"')
        return text[1:-1].replace('\\"', '"').replace("\\\\", "\\")
    return float(text)


def parse(text: str) -> tuple[str, dict[str, str], dict[str, object], int]:
    assert "\n" not in text
    # In tag values a quote has no meaning, so it is hidden from `split` while the head is cut off.
    head_and_tags, rest = _cut_head(text)
    name, *tags = head_and_tags
    fields, time = rest
    assert all(len(split(tag.replace('"', ""), "=")) == 2 for tag in tags)
    return (
        unescape(name, ", "),
        {unescape(k, ",= "): unescape(v, ",= ") for k, v in (_at_equals(tag) for tag in tags)},
        {unescape(k, ",= "): parse_value(v) for k, v in (_at_equals(f) for f in split(fields, ","))},
        int(time),
    )


def _cut_head(text: str) -> tuple[list[str], tuple[str, str]]:
    escaped = False
    parts = [""]
    for at, c in enumerate(text):
        if not escaped and c == " ":
            fields, time = split(text[at + 1 :], " ")
            return parts, (fields, time)
        if not escaped and c == ",":
            parts.append("")
        else:
            parts[-1] += c
        escaped = c == "\\" and not escaped
    raise AssertionError(f"no fields in {text!r}")


def _at_equals(text: str) -> tuple[str, str]:
    escaped = False
    for at, c in enumerate(text):
        if c == "=" and not escaped:
            return text[:at], text[at + 1 :]
        escaped = c == "\\" and not escaped
    raise AssertionError(f"no = in {text!r}")


@given(
    NAMES,
    st.dictionaries(NAMES, TEXTS, max_size=4),
    st.dictionaries(NAMES, VALUES, min_size=1, max_size=5),
    st.integers(0, 2**62),
)
def test_a_line_reads_back_as_the_point_it_was_made_of(name, tags, fields, t_ns):
    text = line(Point(name, tuple(tags.items()), tuple(fields.items()), t_ns))
    read_name, read_tags, read_fields, time_ms = parse(text)
    assert read_name == name
    assert read_tags == {k: v or EMPTY_TAG for k, v in tags.items()}
    assert read_fields == fields
    assert {k: type(v) for k, v in read_fields.items()} == {k: type(v) for k, v in fields.items()}
    assert time_ms == t_ns // 1_000_000


@given(st.text(), st.text(), st.text())
def test_no_text_of_any_kind_breaks_out_of_its_place(measurement, tag, string):
    text = line(Point("m" + measurement, (("t", tag),), (("f", string), ("ok", 1)), 1_000_000))
    _, tags, fields, time_ms = parse(text)
    assert list(tags) == ["t"]
    assert fields["ok"] == 1
    assert set(fields) == {"f", "ok"}
    assert time_ms == 1
    assert text.isprintable() or not any(ord(c) < 32 for c in text)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 2**63, -(2**63) - 1])
def test_a_value_without_a_form_is_left_out(value):
    assert line(Point("m", (), (("bad", value), ("good", 1.5)), 0)) == "m good=1.5 0"
    assert line(Point("m", (), (("bad", value),), 0)) is None
    assert lines([Point("m", (), (("bad", value),), 0), Point("n", (), (("x", True),), 0)]) == ["n x=true 0"]


def test_every_type_keeps_its_type():
    point = Point("fisher_score", (("mode", "default"),), (("score", 2.0), ("level", 2), ("ok", False), ("w", "a")), 1)
    assert line(point) == 'fisher_score,mode=default score=2.0,level=2i,ok=false,w="a" 0'


def test_long_texts_are_cut():
    text = line(Point("m", (("t", "a" * 5000),), (("f", "b" * 5000),), 0))
    assert len(text) == len('m,t= f="" 0') + MAX_TAG + MAX_STRING
