"""One MQTT connection of a source: paho's client on the event loop, with a buffer under it.

paho reads its socket byte by byte and unpacks properties that nobody asks for: five system calls and 70 us for each
message. So packets are cut out of a buffer here, and the one kind that comes in numbers, PUBLISH of QoS 0, is taken
apart here too; everything else of the protocol is paho's (tests/bench/bench_ingest.py measures the difference).
"""

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import Sequence
from typing import Any, Literal

import paho.mqtt.client as paho
from paho.mqtt import MQTTException
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from fisher_agent.config import MqttSource
from fisher_agent.credentials import tls_remedy
from fisher_agent.errors import Unavailable
from fisher_agent.sources.intake import Intake
from fisher_agent.wire import MAX_PAYLOAD_BYTES

READ_BYTES = 256 * 1024
MAX_PACKET = MAX_PAYLOAD_BYTES + 128 * 1024  # a topic and properties beside the payload
MAX_HEADER = 5
PUBLISH_MASK, PUBLISH_QOS_0 = 0xF6, 0x30  # type and QoS of the first byte (MQTT 5, 3.3.1)
SESSION_EXPIRY_S = 3600  # of a persistent session, on MQTT 5
TAKEN_OVER = 0x8E  # MQTT 5, table 2-6
UNSUPPORTED_VERSION = 0x84
TAKEN_OVER_RETRY_S = 300.0
BROKEN_PACKET = (MQTTException, ValueError, LookupError, TypeError, struct.error)  # what paho's parsers let through


class Refused(Exception):
    """The broker ended the connection while it was made."""

    def __init__(self, why: str, *, maybe_version: bool) -> None:
        self.maybe_version = maybe_version
        super().__init__(why)


class Inbox:
    """The receiving side of a socket: whole packets out of a buffer. PUBLISH of QoS 0 is taken apart here.

    Every other packet is paho's: `packet` holds it, and paho's `recv` reads it from there. So paho sees whole packets
    only, one for each call of `loop_read`.
    """

    def __init__(self, sock: socket.socket, *, version5: bool) -> None:
        self._sock = sock
        self._version5 = version5
        self._buffer = memoryview(bytearray(READ_BYTES))
        self._begin = self._end = 0
        self._needed = 0  # bytes of the packet at `_begin`, where its length is known
        self.packet = b""
        self.ended = False
        self.send = sock.send
        self.fileno = sock.fileno
        self.close = sock.close
        self.setblocking = sock.setblocking

    def recv(self, size: int) -> bytes:
        """What paho reads: at most `size` bytes of the present packet; b"" at the end of the stream."""
        if not self.packet and not self.ended:
            raise BlockingIOError
        taken, self.packet = self.packet[:size], self.packet[size:]
        return taken

    def fill(self) -> bool:
        """Read once; whether there may be more. Raises OSError, or ValueError for a packet beyond `MAX_PACKET`."""
        self._make_room()
        room = len(self._buffer) - self._end
        try:
            got = self._sock.recv_into(self._buffer[self._end :])
        except (BlockingIOError, ssl.SSLWantReadError):
            return False
        self.ended = got == 0
        self._end += got
        # TLS hands out one record at a time, and the selector knows nothing of those that are decrypted already.
        return got == room or (isinstance(self._sock, ssl.SSLSocket) and got > 0)

    def next(self) -> tuple[str, bytes] | Literal[True] | None:
        """Topic and payload of the next packet; True where it is one for paho, None where it is not whole yet."""
        held = self._end - self._begin
        if held < max(2, self._needed):
            return None
        head, at = self._header(held)
        if not self._needed or held < self._needed:
            return None
        end = self._begin + self._needed
        if head & PUBLISH_MASK != PUBLISH_QOS_0:
            self.packet = bytes(self._buffer[self._begin : end])
            self._begin, self._needed = end, 0
            return True
        topic_end = at + 2 + int.from_bytes(self._buffer[at : at + 2])
        begin = topic_end
        if self._version5:
            size, begin = _varint(self._buffer[:end], topic_end)
            begin += size
        if begin > end:
            raise ValueError("a PUBLISH is shorter than it says")
        topic = str(self._buffer[at + 2 : topic_end], "utf-8")
        payload = bytes(self._buffer[begin:end])
        self._begin, self._needed = end, 0
        return topic, payload

    def _header(self, held: int) -> tuple[int, int]:
        """The first byte, and where the body begins; sets `_needed` once the length has arrived."""
        buffer, begin = self._buffer, self._begin
        if held < MAX_HEADER and all(byte & 0x80 for byte in buffer[begin + 1 : self._end]):
            return buffer[begin], begin
        size, at = _varint(buffer[: self._end], begin + 1)
        if size > MAX_PACKET:
            raise ValueError(f"a packet of {size} bytes; at most {MAX_PACKET} are taken")
        self._needed = at - begin + size
        return buffer[begin], at

    def _make_room(self) -> None:
        held = self._end - self._begin
        wanted = max(READ_BYTES, self._needed)
        if len(self._buffer) < wanted or (held == 0 and len(self._buffer) > wanted):
            grown = memoryview(bytearray(wanted))
            grown[:held] = self._buffer[self._begin : self._end]
            self._buffer = grown
        elif self._begin:
            self._buffer[:held] = bytes(self._buffer[self._begin : self._end])
        self._begin, self._end = 0, held


def _varint(buffer: memoryview, at: int) -> tuple[int, int]:
    """A variable byte integer (MQTT 5, 1.5.5) and where it ends."""
    value = 0
    for shift in (0, 7, 14, 21):
        byte = buffer[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if not byte & 0x80:
            return value, at
    raise ValueError("a length of more than 4 bytes")


class Client(paho.Client):
    """paho's client on a socket that is connected already."""

    ready: Inbox

    def _create_socket(self) -> Any:
        return self.ready


class Link:
    """One connection, from CONNECT to its end, driven by the event loop's readiness."""

    def __init__(self, sock: socket.socket, client: Client, intake: Intake, url: str, client_id: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._sock = sock
        self._inbox = Inbox(sock, version5=client.protocol == paho.MQTTv5)
        self._fd = sock.fileno()
        self._client = client
        self._intake = intake
        self._url = url
        self._client_id = client_id
        self._connected: asyncio.Future[None] = self._loop.create_future()
        self._subscribed: asyncio.Future[list[ReasonCode]] = self._loop.create_future()
        self._timer: asyncio.TimerHandle | None = None
        self._attached = True
        self._closed = False
        client.ready = self._inbox
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        client.on_disconnect = self._on_disconnect
        client.on_socket_close = self._on_socket_close
        client.on_socket_register_write = self._on_register_write
        client.on_socket_unregister_write = self._on_unregister_write

    async def connect(self, config: MqttSource, topics: Sequence[str]) -> None:
        """CONNECT and SUBSCRIBE; raises Refused, or OSError."""
        # paho pings after one keepalive and gives up after a second; three quarters leave room for the timer's grain.
        keepalive_s = max(1, config.keepalive_s * 3 // 4)
        options: dict[str, Any] = {}
        if self._client.protocol == paho.MQTTv5:
            options = {"clean_start": config.qos == 0}
            if config.qos:
                options["properties"] = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]  # paho's
                options["properties"].SessionExpiryInterval = SESSION_EXPIRY_S
        self._loop.add_reader(self._fd, self._readable)
        self._client.connect(config.host, config.port, keepalive=keepalive_s, **options)
        self._tick(keepalive_s / 8)
        await self._connected
        if topics:
            wanted: list[tuple[str, int]] = [(topic, config.qos) for topic in topics]
            self._client.subscribe(wanted)
            codes = await self._subscribed
            refused = [f"{topic} ({code})" for topic, code in zip(topics, codes, strict=False) if code.is_failure]
            if refused:
                raise Refused(f"the broker refuses to send {', '.join(refused)}", maybe_version=False)

    def change(self, *, add: Sequence[str], remove: Sequence[str], qos: int) -> None:
        """Subscribe and unsubscribe on the living connection."""
        if add:
            self._client.subscribe([(topic, qos) for topic in add])
        if remove:
            self._client.unsubscribe(list(remove))

    def close(self) -> None:
        """Say goodbye and close; safe at any time, never blocks."""
        if self._closed:
            return
        self._closed = True
        self._client.disconnect()
        with contextlib.suppress(OSError):
            self._client.loop_write()
        self._release()

    def _release(self) -> None:
        self._detach()
        if self._timer is not None:
            self._timer.cancel()
        self._sock.close()
        self._connected.cancel()
        self._subscribed.cancel()

    def _detach(self) -> None:
        """Before the socket closes: its number may belong to another one a moment later."""
        if self._attached:
            self._attached = False
            self._loop.remove_reader(self._fd)
            self._loop.remove_writer(self._fd)

    def _lose(self, why: str, *, retry_after_s: float | None = None) -> None:
        self._detach()
        maybe_version = not self._connected.done()  # brokers without MQTT 5 may just hang up
        for future in (self._connected, self._subscribed):
            if not future.done():
                future.set_exception(Refused(why, maybe_version=maybe_version))
                future.exception()  # counts as retrieved: perhaps nobody waits for this one
        self._intake.lose(Unavailable(f"{self._url}: {why}", retry_after_s=retry_after_s))

    # -- the event loop's calls -----------------------------------------------------------------------------------

    def _readable(self) -> None:
        inbox, put = self._inbox, self._intake.put
        try:
            more = inbox.fill()
            while found := inbox.next():
                if found is True:
                    self._client.loop_read()
                    if not self._attached:
                        return
                else:
                    put(*found)
        except OSError as error:
            self._lose(f"the connection was lost: {error}{tls_remedy(error)}")
            return
        except BROKEN_PACKET as error:
            self._lose(f"the broker sent something that is not MQTT: {error!r}")
            return
        if inbox.ended:
            self._client.loop_read()  # paho finds the end and says so
        elif more:
            self._loop.call_soon(self._read_on)

    def _read_on(self) -> None:
        if self._attached:
            self._readable()

    def _writable(self) -> None:
        self._client.loop_write()

    def _tick(self, interval_s: float) -> None:
        self._client.loop_misc()
        self._timer = self._loop.call_later(interval_s, self._tick, interval_s)

    # -- paho's calls, all from within the event loop's ----------------------------------------------------------------

    def _on_connect(
        self, _client: object, _userdata: object, _flags: object, code: ReasonCode, _properties: object
    ) -> None:
        if self._connected.done():
            return
        if code.is_failure:
            maybe_version = code.value == UNSUPPORTED_VERSION
            self._connected.set_exception(Refused(f"connection refused: {code}", maybe_version=maybe_version))
        else:
            self._connected.set_result(None)

    def _on_subscribe(
        self, _client: object, _userdata: object, _mid: int, codes: list[ReasonCode], _properties: object
    ) -> None:
        if not self._subscribed.done():
            self._subscribed.set_result(codes)

    def _on_message(self, _client: object, _userdata: object, message: paho.MQTTMessage) -> None:
        self._intake.put(message.topic, bytes(message.payload))  # bytes already, whatever its type says

    def _on_disconnect(
        self, _client: object, _userdata: object, flags: paho.DisconnectFlags, code: ReasonCode, _properties: object
    ) -> None:
        if code.value == TAKEN_OVER:
            why = f"taken over: another client uses id {self._client_id!r}; give each agent its own `edge`"
            self._lose(why, retry_after_s=TAKEN_OVER_RETRY_S)
        elif flags.is_disconnect_packet_from_server:
            self._lose(f"the broker ended the connection: {code}")
        elif code == "Keep alive timeout":
            self._lose("the broker does not answer any more (half-open link)")
        else:
            self._lose("the connection was lost")

    def _on_register_write(self, _client: object, _userdata: object, _sock: object) -> None:
        if self._attached:
            self._loop.add_writer(self._fd, self._writable)

    def _on_unregister_write(self, _client: object, _userdata: object, _sock: object) -> None:
        if self._attached:
            self._loop.remove_writer(self._fd)

    def _on_socket_close(self, _client: object, _userdata: object, _sock: object) -> None:
        self._detach()
