"""Payloads to frames: every format, every way to be wrong, and nothing a sender can do raises anything else."""

import json
import struct

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fisher_agent.configfile import parse
from fisher_agent.errors import BadPayload, ConfigError
from fisher_agent.wire import MAX_PAYLOAD_BYTES, Reason, decoder_for, encode

RATE_HZ = 12_000.0
T_NS = 1_795_210_782_324_000_000
MONO_NS = 5_000_000_000
BARE = ["f32le", "f64le", "i16le", "i24le", "i32le"]
ALL = [*BARE, "json", "fisher-frame/1"]


def decoder(*channels, source="plant"):
    """A decoder for channels given as keys that differ from a mono f32le channel `a` of topic `t`."""
    defaults = {"id": "a", "rate_hz": RATE_HZ, "source": "plant", "topic": "t"}
    text = 'site = "s"\nedge = "e"\n[[sources]]\nname = "plant"\ntype = "zmq"\nurl = "tcp://127.0.0.1:1"\n'
    text += '[[sources]]\nname = "other"\ntype = "zmq"\nurl = "tcp://127.0.0.1:1"\n[[machines]]\nid = "m"\n'
    for channel in channels:
        text += "[[machines.channels]]\n"
        text += "".join(f"{k} = {json.dumps(v)}\n" for k, v in (defaults | channel).items())
    return decoder_for(parse(text), source)


def decode(subject, payload, *, topic="t", mono_ns=MONO_NS, utc_ns=T_NS + MONO_NS):
    return subject.decode(topic, payload, mono_ns=mono_ns, utc_ns=utc_ns)


def refused(subject, payload, **kwargs):
    with pytest.raises(BadPayload) as caught:
        decode(subject, payload, **kwargs)
    return caught.value.reason


@pytest.mark.parametrize("payload_format", ALL)
def test_what_is_encoded_is_decoded_mono_and_scaled(payload_format):
    samples = np.array([0, 1, -2, 32767, -32768], dtype=np.float32)
    subject = decoder({"format": payload_format, "scale": 0.5})
    (frame,) = decode(subject, encode(payload_format, samples, t_ns=T_NS, rate_hz=RATE_HZ, seq=7))
    assert (frame.machine, frame.channel, frame.rate_hz) == ("m", "a", RATE_HZ)
    assert frame.samples.dtype == np.float32
    assert not frame.samples.flags.writeable
    np.testing.assert_array_equal(frame.samples, samples / 2)
    assert frame.seq == (None if payload_format in BARE else 7)
    if payload_format not in BARE:
        assert frame.t_ns == T_NS
        assert not frame.gap


@pytest.mark.parametrize("payload_format", ALL)
def test_interleaved_channels_come_apart_and_share_one_time(payload_format):
    table = np.arange(12, dtype=np.float32).reshape(3, 4)  # (c, n)
    channels = [{"id": c, "index": i, "format": payload_format, "interleaved": 3} for i, c in ((2, "z"), (0, "x"))]
    payload = encode(payload_format, table, t_ns=T_NS, rate_hz=RATE_HZ, seq=0, channels=["x", "y", "z"])
    frames = decode(decoder(*channels), payload)
    assert [f.channel for f in frames] == ["z", "x"]
    np.testing.assert_array_equal(frames[0].samples, table[2])
    np.testing.assert_array_equal(frames[1].samples, table[0])
    assert len({f.t_ns for f in frames}) == 1
    assert all(f.samples.flags.c_contiguous for f in frames)


@pytest.mark.parametrize("code", [1, 2, 3, 4])
def test_every_dtype_of_a_fisher_frame_is_read(code):
    samples = np.array([5, -6, 700], dtype=np.float32)
    payload = encode("fisher-frame/1", samples, t_ns=T_NS, rate_hz=RATE_HZ, seq=2**32 - 1, frame_dtype=code)
    (frame,) = decode(decoder({"format": "fisher-frame/1"}), payload)
    np.testing.assert_array_equal(frame.samples, samples)
    assert frame.seq == 2**32 - 1


def test_the_fisher_frame_header_lies_byte_for_byte_as_documented():
    payload = encode("fisher-frame/1", np.zeros((2, 3)), t_ns=T_NS, rate_hz=25_600.0, seq=17, frame_dtype=2)
    assert payload[:4] == b"FSH1"
    assert (payload[4], payload[5]) == (2, 2)
    assert struct.unpack_from("<H", payload, 6) == (0,)
    assert struct.unpack_from("<q", payload, 8) == (T_NS,)
    assert struct.unpack_from("<d", payload, 16) == (25_600.0,)
    assert struct.unpack_from("<II", payload, 24) == (17, 3)
    assert len(payload) == 32 + 2 * 3 * 2


def test_24_bit_samples_keep_their_sign():
    payload = bytes([1, 0, 0, 0xFF, 0xFF, 0xFF, 0, 0, 0x80, 0xFF, 0xFF, 0x7F])
    (frame,) = decode(decoder({"format": "i24le"}), payload)
    np.testing.assert_array_equal(frame.samples, [1, -1, -(2**23), 2**23 - 1])


def test_a_float32_message_is_not_copied():
    payload = np.arange(5000, dtype="<f4").tobytes()
    (frame,) = decode(decoder({}), payload)
    assert np.shares_memory(frame.samples, np.frombuffer(payload, dtype="<f4"))


def test_a_buffer_that_may_change_later_is_copied():
    buffer = bytearray(np.ones(8, dtype="<f4").tobytes())
    (frame,) = decode(decoder({}), memoryview(buffer))
    buffer[:] = bytes(len(buffer))
    np.testing.assert_array_equal(frame.samples, np.ones(8))


def test_large_but_finite_samples_pass():
    (frame,) = decode(decoder({}), np.full(100, 1e30, dtype="<f4").tobytes())
    assert frame.samples[0] == np.float32(1e30)


@pytest.mark.parametrize(
    ("t", "t_ns"),
    [
        (1795210782, 1795210782 * 10**9),
        (1795210782.5, 1795210782_500_000_000),
        (1795210782324, T_NS),
        (1795210782324000, T_NS),
        (T_NS, T_NS),
        (99_999_999_999, 99_999_999_999 * 10**9 if 99_999_999_999 * 10**9 <= 9 * 10**18 else None),
    ],
)
def test_the_size_of_t_tells_its_unit(t, t_ns):
    subject = decoder({"format": "json"})
    payload = json.dumps({"t": t, "samples": [1.0]}).encode()
    if t_ns is None:
        assert refused(subject, payload) == Reason.TIME
    else:
        assert decode(subject, payload)[0].t_ns == t_ns


def test_json_without_a_time_and_bare_samples_use_the_arrival_clock():
    samples = np.zeros(1200, dtype=np.float32)  # 100 ms
    for payload_format in ("json", "f32le"):
        subject = decoder({"format": payload_format})
        first = decode(subject, encode(payload_format, samples))[0]
        assert first.t_ns == T_NS + MONO_NS - 100_000_000
        assert first.gap
        late = decode(subject, encode(payload_format, samples), mono_ns=MONO_NS + 130_000_000)[0]
        assert late.t_ns == T_NS + MONO_NS
        assert not late.gap


def test_clock_arrival_ignores_the_time_of_a_stamped_format():
    subject = decoder({"format": "json", "clock": "arrival"})
    (frame,) = decode(subject, b'{"t": 1.0, "seq": 3, "samples": [1, 2]}')
    assert frame.t_ns > T_NS
    assert frame.seq == 3


def test_after_a_restart_unstamped_samples_begin_with_a_gap():
    subject = decoder({})
    payload = bytes(4800)
    assert decode(subject, payload)[0].gap
    assert not decode(subject, payload, mono_ns=MONO_NS + 100_000_000)[0].gap
    subject.restart()
    assert decode(subject, payload, mono_ns=MONO_NS + 200_000_000)[0].gap


def test_the_senders_rate_is_passed_on_whatever_is_configured():
    payload = encode("fisher-frame/1", np.zeros(4), t_ns=T_NS, rate_hz=48_000.0)
    assert decode(decoder({"format": "fisher-frame/1"}), payload)[0].rate_hz == 48_000.0


def test_json_channels_that_are_not_bound_or_not_there_are_left_out():
    subject = decoder({"id": "a", "format": "json"}, {"id": "b", "format": "json"})
    frames = decode(subject, b'{"channels": {"b": [1], "stranger": ["x"]}}')
    assert [f.channel for f in frames] == ["b"]


def test_a_fisher_frame_says_itself_how_many_channels_it_has():
    payload = encode("fisher-frame/1", np.array([[1, 2], [3, 4], [5, 6]]), t_ns=T_NS, rate_hz=RATE_HZ)
    (frame,) = decode(decoder({"format": "fisher-frame/1", "index": 1}), payload)
    np.testing.assert_array_equal(frame.samples, [3, 4])
    assert refused(decoder({"format": "fisher-frame/1", "index": 3}), payload) == Reason.CHANNELS
    assert refused(decoder({"format": "fisher-frame/1", "interleaved": 2}), payload) == Reason.CHANNELS


HEADER = encode("fisher-frame/1", np.zeros(2), t_ns=T_NS, rate_hz=RATE_HZ)


@pytest.mark.parametrize(
    ("payload_format", "payload", "reason"),
    [
        *((f, b"", Reason.EMPTY) for f in BARE),
        ("f32le", b"123", Reason.LENGTH),
        ("f32le", struct.pack("<2f", 1.0, float("nan")), Reason.NOT_FINITE),
        ("f32le", struct.pack("<2f", 1.0, float("-inf")), Reason.NOT_FINITE),
        ("f64le", struct.pack("<d", 1e300), Reason.NOT_FINITE),
        ("f32le", bytes(MAX_PAYLOAD_BYTES + 4), Reason.TOO_BIG),
        ("json", b'{"samples": [' + b"1," * 5_000_000 + b"1]}", Reason.TOO_BIG),
        ("json", b"\xff\xfe", Reason.NOT_JSON),
        ("json", b'{"samples": [1,', Reason.NOT_JSON),
        ("json", b"[" * 100_000, Reason.NOT_JSON),
        ("json", b"[1, 2]", Reason.TYPE),
        ("json", b'{"samples": "1"}', Reason.TYPE),
        ("json", b'{"samples": [1, "2"]}', Reason.TYPE),
        ("json", b'{"samples": [true]}', Reason.TYPE),
        ("json", b'{"samples": [[1]]}', Reason.TYPE),
        ("json", b'{"samples": []}', Reason.EMPTY),
        ("json", b'{"samples": [NaN]}', Reason.NOT_FINITE),
        ("json", b'{"samples": [1e400]}', Reason.NOT_FINITE),
        ("json", b'{"samples": [1' + b"0" * 400 + b"]}", Reason.NOT_FINITE),
        ("json", b'{"channels": {"b": [1]}}', Reason.MISSING),
        ("json", b'{"channels": 3}', Reason.MISSING),
        ("json", b"{}", Reason.MISSING),
        ("json", b'{"t": "now", "samples": [1]}', Reason.TIME),
        ("json", b'{"t": -1, "samples": [1]}', Reason.TIME),
        ("json", b'{"t": NaN, "samples": [1]}', Reason.TIME),
        ("json", b'{"t": 1' + b"0" * 400 + b', "samples": [1]}', Reason.TIME),
        ("json", b'{"rate": 0, "samples": [1]}', Reason.RATE),
        ("json", b'{"rate": "12000", "samples": [1]}', Reason.RATE),
        ("json", b'{"rate": Infinity, "samples": [1]}', Reason.RATE),
        ("json", b'{"seq": -1, "samples": [1]}', Reason.SEQ),
        ("json", b'{"seq": 4294967296, "samples": [1]}', Reason.SEQ),
        ("json", b'{"seq": 1.5, "samples": [1]}', Reason.SEQ),
        ("fisher-frame/1", b"FSH1", Reason.HEADER),
        ("fisher-frame/1", b"FSH2" + HEADER[4:], Reason.HEADER),
        ("fisher-frame/1", HEADER[:4] + b"\x09" + HEADER[5:], Reason.HEADER),
        ("fisher-frame/1", HEADER[:6] + b"\x01" + HEADER[7:], Reason.HEADER),
        ("fisher-frame/1", HEADER[:5] + b"\x00" + HEADER[6:], Reason.CHANNELS),
        ("fisher-frame/1", HEADER + b"\x00", Reason.LENGTH),
        ("fisher-frame/1", HEADER[:28] + b"\xff\xff\xff\xff" + HEADER[32:], Reason.LENGTH),
        ("fisher-frame/1", encode("fisher-frame/1", np.zeros(0), t_ns=T_NS, rate_hz=RATE_HZ), Reason.EMPTY),
        ("fisher-frame/1", encode("fisher-frame/1", np.zeros(1), t_ns=-1, rate_hz=RATE_HZ), Reason.TIME),
        ("fisher-frame/1", encode("fisher-frame/1", np.zeros(1), t_ns=T_NS, rate_hz=float("nan")), Reason.RATE),
    ],
)
def test_what_does_not_parse_is_refused_with_its_reason(payload_format, payload, reason):
    assert refused(decoder({"format": payload_format}), payload) == reason


def test_a_scale_that_overflows_is_not_finite():
    assert refused(decoder({"scale": 1e30}), struct.pack("<f", 1e30)) == Reason.NOT_FINITE


def test_half_a_row_of_interleaved_samples_is_refused():
    subject = decoder({"id": "a", "index": 0}, {"id": "b", "index": 1})
    assert refused(subject, bytes(12)) == Reason.LENGTH


def test_json_channels_of_different_length_are_refused():
    subject = decoder({"id": "a", "format": "json"}, {"id": "b", "format": "json"})
    assert refused(subject, b'{"channels": {"a": [1, 2], "b": [1]}}') == Reason.LENGTH


def test_an_unknown_topic_is_refused_and_counted_under_the_source():
    subject = decoder({})
    assert refused(subject, bytes(4), topic="somewhere/else") == Reason.UNKNOWN_TOPIC
    assert subject.label("somewhere/else") == "plant"
    assert subject.label("t") == "m/a"


def test_a_topic_pattern_is_filled_in_and_other_sources_are_not_bound():
    subject = decoder({"id": "a", "topic": "x/{machine}/{channel}"}, {"id": "b", "source": "other"})
    assert subject.topics == ("x/m/a",)


@pytest.mark.parametrize(
    "second",
    [{"format": "i16le"}, {"rate_hz": 6000}, {"index": 2}, {"interleaved": 4}],
)
def test_channels_of_one_topic_that_contradict_each_other_are_a_config_error(second):
    with pytest.raises(ConfigError, match="topic 't' of source 'plant'"):
        decoder(
            {"id": "a", "interleaved": 3} if "interleaved" in second else {"id": "a"}, {"id": "b", "index": 1} | second
        )


def test_channels_of_one_topic_with_different_clocks_are_a_config_error():
    with pytest.raises(ConfigError, match="same clock"):
        decoder({"format": "json"}, {"id": "b", "format": "json", "clock": "arrival"})


@given(payload=st.binary(max_size=200), payload_format=st.sampled_from(ALL))
@example(payload=HEADER, payload_format="fisher-frame/1")
def test_no_bytes_raise_anything_but_bad_payload(payload, payload_format):
    try:
        frames = decode(decoder({"format": payload_format}), payload)
    except BadPayload as error:
        assert error.reason in set(Reason)
    else:
        assert all(np.isfinite(f.samples).all() and len(f.samples) for f in frames)


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["", "1", 10**400])
lists = st.lists(scalars, max_size=3)
json_values = scalars | lists | st.dictionaries(st.sampled_from(["a", "b"]), scalars | lists, max_size=2)


@given(
    document=st.dictionaries(st.sampled_from(["t", "rate", "seq", "samples", "channels"]), json_values),
)
def test_no_json_raises_anything_but_bad_payload(document):
    try:
        frames = decode(decoder({"format": "json"}), json.dumps(document).encode())
    except BadPayload as error:
        assert error.reason in set(Reason)
    else:
        assert all(np.isfinite(f.samples).all() and f.t_ns >= 0 for f in frames)
