"""Packets out of a byte stream: however it is cut, the same ones come out."""

import socket
import struct
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fisher_agent.sources.mqttlink import MAX_PACKET, READ_BYTES, Inbox

PINGRESP = b"\xd0\x00"


def length(size):
    out = b""
    while True:
        size, low = divmod(size, 128)
        out += bytes([low | (0x80 if size else 0)])
        if not size:
            return out


def publish(topic, payload, *, properties=None, first=0x30):
    body = struct.pack("!H", len(topic.encode())) + topic.encode()
    body += b"" if properties is None else length(len(properties)) + properties
    return bytes([first]) + length(len(body) + len(payload)) + body + payload


def received(chunks, *, version5=False):
    """What comes out when the stream arrives in these chunks: (topic, payload), or the bytes of a packet for paho."""
    near, far = socket.socketpair()
    found = []
    with near, far:
        near.setblocking(False)
        inbox = Inbox(near, version5=version5)
        for chunk in chunks:
            far.sendall(chunk)
            more = True
            while more:
                more = inbox.fill()
                while (packet := inbox.next()) is not None:
                    found.append(inbox.recv(100) if packet is True else packet)
    return found


@settings(max_examples=50)
@given(
    sizes=st.lists(st.integers(0, 400), min_size=1, max_size=8),
    cuts=st.lists(st.integers(0, 3000), max_size=12),
    version5=st.booleans(),
)
def test_however_the_stream_is_cut_the_same_packets_come_out(sizes, cuts, version5):
    properties = b"\x23\x00\x01" if version5 else None
    messages = [(f"t/{n}/ü", bytes([n]) * size) for n, size in enumerate(sizes)]
    stream = b"".join(publish(t, p, properties=properties, first=0x31) + PINGRESP for t, p in messages)
    edges = sorted({0, len(stream), *(c for c in cuts if c < len(stream))})
    chunks = [stream[a:b] for a, b in pairwise(edges)]
    assert received(chunks, version5=version5) == [item for m in messages for item in (m, PINGRESP)]


def test_a_packet_larger_than_the_buffer_is_put_together():
    payload = bytes(range(256)) * (READ_BYTES // 200)
    stream = publish("t", payload) + publish("t", b"after")
    chunks = [stream[k : k + 50_000] for k in range(0, len(stream), 50_000)]
    assert received(chunks) == [("t", payload), ("t", b"after")]


def test_qos_1_is_left_to_paho():
    packet = publish("t", b"\x00\x07payload", first=0x32)
    assert received([packet]) == [packet]


@pytest.mark.parametrize(
    ("stream", "version5"),
    [
        (b"\x30" + length(MAX_PACKET + 1), False),
        (b"\x30\xff\xff\xff\xff\x01", False),
        (b"\x30\x03\x00\x09t", False),
        (b"\x30\x04\x00\x01t\x05", True),
        (b"\x30\x03\x00\x01\xff", False),
    ],
)
def test_what_is_no_packet_is_a_value_error(stream, version5):
    with pytest.raises((ValueError, IndexError)):
        received([stream], version5=version5)


def test_the_end_of_the_stream_is_told_to_paho():
    near, far = socket.socketpair()
    with near:
        near.setblocking(False)
        inbox = Inbox(near, version5=False)
        with pytest.raises(BlockingIOError):
            inbox.recv(1)
        far.close()
        inbox.fill()
        assert inbox.ended
        assert inbox.recv(1) == b""
