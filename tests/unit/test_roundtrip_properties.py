"""What is written is read back the same, whatever it holds: payloads, commands, configurations, npz files."""

import json
import math
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from fisher_agent.commands import MAX_TEXT, Command, parse
from fisher_agent.configfile import parse as parse_config
from fisher_agent.rawfiles import arrays_of, npz
from fisher_agent.wire import FRAME_DTYPES, MAX_SEQ, MAX_T_NS, STATED_RATES_HZ, Decoder, decoder_for, encode

NOW_MS = 1_795_000_000_000
RATES_HZ = st.floats(*STATED_RATES_HZ)
SEQS = st.none() | st.integers(0, MAX_SEQ)
SINGLES = st.floats(width=32, allow_nan=False, allow_infinity=False)
IDS = st.from_regex(r"[A-Za-z0-9_-]{1,48}", fullmatch=True)
quick = settings(max_examples=150)

INTEGERS = {2: 16, 3: 32}


def decoder(form: str, channels: int) -> Decoder:
    text = (
        'site = "s"\nedge = "e"\nsources = [{ name = "p", type = "zmq", url = "tcp://h:1" }]\n[[machines]]\nid = "m"\n'
    )
    for n in range(channels):
        text += f'[[machines.channels]]\nid = "c{n}"\nindex = {n}\nsource = "p"\nrate_hz = 1000\nformat = "{form}"\n'
    return decoder_for(parse_config(text), "p")


@st.composite
def tables(draw: st.DrawFn, code: int) -> np.ndarray[Any, Any]:
    """(c, n) of what a dtype of fisher-frame/1 can hold."""
    shape = draw(st.tuples(st.integers(1, 4), st.integers(1, 20)))
    if code not in INTEGERS:
        return draw(arrays.arrays(np.float32, shape, elements=SINGLES))
    half = 2 ** (INTEGERS[code] - 1)
    return draw(arrays.arrays(np.int64, shape, elements=st.integers(-half, half - 1)))


@quick
@given(data=st.data(), code=st.sampled_from(sorted(FRAME_DTYPES)), t_ns=st.integers(0, MAX_T_NS), rate_hz=RATES_HZ)
def test_a_fisher_frame_is_read_as_it_was_written(data: st.DataObject, code: int, t_ns: int, rate_hz: float) -> None:
    table, seq = data.draw(tables(code)), data.draw(st.integers(0, MAX_SEQ))
    payload = encode("fisher-frame/1", table, t_ns=t_ns, rate_hz=rate_hz, seq=seq, frame_dtype=code)
    frames = decoder("fisher-frame/1", len(table)).decode("", payload, mono_ns=0, utc_ns=0)
    assert [(f.t_ns, f.rate_hz, f.seq, f.gap) for f in frames] == [(t_ns, rate_hz, seq, False)] * len(table)
    for row, frame in zip(table, frames, strict=True):
        assert frame.samples.tobytes() == row.astype(np.float32).tobytes()


@quick
@given(
    rows=st.lists(st.lists(SINGLES, min_size=3, max_size=3), min_size=1, max_size=4),
    t_ns=st.none() | st.integers(10**17, MAX_T_NS),  # below, a number counts microseconds or more
    rate_hz=st.none() | RATES_HZ,
    seq=SEQS,
)
def test_a_json_payload_is_read_as_it_was_written(
    rows: list[list[float]], t_ns: int | None, rate_hz: float | None, seq: int | None
) -> None:
    names = [f"c{n}" for n in range(len(rows))]
    payload = encode("json", np.array(rows), t_ns=t_ns, rate_hz=rate_hz, seq=seq, channels=names)
    frames = decoder("json", len(rows)).decode("", payload, mono_ns=10**9, utc_ns=NOW_MS * 10**6)
    for row, frame in zip(rows, frames, strict=True):
        assert frame.samples.tolist() == row
        assert (frame.rate_hz, frame.seq) == (rate_hz or 1000.0, seq)
        assert t_ns is None or frame.t_ns == t_ns


@quick
@given(st.lists(st.integers(-(2**23), 2**23 - 1), min_size=1, max_size=30), st.integers(1, 3))
def test_bare_integers_are_read_as_they_were_written(values: list[int], channels: int) -> None:
    table = np.tile(np.array(values), (channels, 1))
    for form in ("i24le", "i32le"):
        frames = decoder(form, channels).decode("", encode(form, table), mono_ns=10**9, utc_ns=NOW_MS * 10**6)
        assert [f.samples.tolist() for f in frames] == [values] * channels


WORDS = st.text(st.characters(categories=("L", "N", "P", "S")), max_size=MAX_TEXT)


@quick
@given(
    command=st.builds(
        Command, st.just("shelve"), st.just("m"), id=WORDS, alarm=WORDS.filter(bool), by=WORDS, comment=WORDS,
        mode=WORDS, occurrence=st.integers(0, 2**63 - 1),
        ts_ms=st.just(0) | st.integers(NOW_MS - 60_000, NOW_MS + 60_000),
        until_ms=st.integers(1, 2**53 - 1),
    ),
    as_text=st.booleans(),
)  # fmt: skip
def test_a_command_is_read_as_it_was_written(command: Command, as_text: bool) -> None:
    document: dict[str, Any] = {k: getattr(command, k) for k in ("id", "alarm", "by", "comment", "mode")}
    occurrence = str(command.occurrence) if as_text and command.occurrence < 10**18 else command.occurrence
    document |= {"occurrence": occurrence, "ts": command.ts_ms, "until": command.until_ms}
    payload = json.dumps(document, ensure_ascii=False).encode()
    if len(payload) <= 4096:
        assert parse("m", "shelve", payload, now_ms=NOW_MS) == command


# -- configurations ---------------------------------------------------------------------------------------------------


def toml(value: Any) -> str:
    """One value as TOML, tables inline; strings of JSON without surrogate pairs are TOML's."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(k)} = {toml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else str(value)
    return json.dumps(value)


def document(config: dict[str, Any]) -> str:
    return "\n".join(f"{key} = {toml(value)}" for key, value in config.items())


UNITS = st.text(st.characters(max_codepoint=0xFFFF, categories=("L", "N", "P", "S")), max_size=8)


@st.composite
def configs(draw: st.DrawFn) -> dict[str, Any]:
    """Whatever a plant may write down that is right."""
    machines = []
    for machine in draw(st.lists(IDS, unique=True, max_size=3)):
        names = draw(st.lists(IDS, unique=True, min_size=1, max_size=3))
        channels = [
            {
                "id": name, "source": "plant", "topic": f"{{machine}}/{n}/{{channel}}", "unit": draw(UNITS),
                "rate_hz": draw(st.floats(0.01, 200_000)), "scale": draw(st.floats(1e-9, 1e9)),
                "format": draw(st.sampled_from(("f32le", "i24le", "json", "fisher-frame/1"))),
                "kind": draw(st.sampled_from(("vibration", "current", "process"))),
            }
            for n, name in enumerate(names)
        ]  # fmt: skip
        machines.append({"id": machine, "running_ratio": draw(st.floats(0, 0.99)), "channels": channels})
    return {
        "site": draw(IDS), "edge": draw(IDS), "window": {"length_s": draw(st.floats(1, 10)), "hop_s": 0.5},
        "mqtt": {"prefix": draw(st.from_regex(r"[a-z]{2,9}(/[a-z]{2,9}){0,3}", fullmatch=True))},
        "sources": [{"name": "plant", "type": "mqtt", "url": "mqtt://h"}], "machines": machines,
    }  # fmt: skip


@quick
@given(configs())
def test_a_configuration_is_read_as_it_was_written(written: dict[str, Any]) -> None:
    reserved = {"status", "alive", "health", "alarms"}
    for machine in written["machines"]:
        machine["id"] = f"{machine['id'][:40]}-x" if machine["id"] in reserved else machine["id"]
    config = parse_config(document(written))
    again = config.model_dump(mode="json", exclude_unset=True)
    assert again == written
    assert parse_config(document(again)) == config
    assert parse_config(document(dict(reversed(written.items())))) == config, "the order of keys has no meaning"


@quick
@given(
    st.dictionaries(
        IDS,
        arrays.arrays(
            st.sampled_from([np.float32, np.float64, np.int16, np.int64, np.bool_]),
            arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5),
        ),
        max_size=4,
    )
)
def test_arrays_are_read_as_numpy_wrote_them(kept: dict[str, np.ndarray[Any, Any]]) -> None:
    found = arrays_of(npz(**{f"a{k}": v for k, v in kept.items()}))
    assert found.keys() == {f"a{k}" for k in kept}
    for name, array in kept.items():
        same = found[f"a{name}"]
        assert (same.dtype, same.shape, same.tobytes()) == (array.dtype, array.shape, array.tobytes())
