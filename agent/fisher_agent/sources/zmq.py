"""Raw samples over ZeroMQ: a SUB or PULL socket on the event loop, without a thread.

ZeroMQ reconnects by itself (100 ms to 30 s, with jitter), so a peer that is away is no error here; heartbeats find
half-open links. What is certain to have been missed meanwhile is told to the decoder.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import structlog
import zmq
from zmq.utils.monitor import recv_monitor_message

from fisher_agent.config import ZmqSource
from fisher_agent.credentials import located, private
from fisher_agent.errors import ConfigError, Unavailable
from fisher_agent.sources.intake import QUEUE_BYTES, Intake, Tap
from fisher_agent.sources.zap import Doorkeeper
from fisher_agent.stages import Frame
from fisher_agent.stats import Stats
from fisher_agent.wire import MAX_PAYLOAD_BYTES, Decoder

HIGH_WATER_MARK = 1000  # messages that libzmq holds
MESSAGES_A_TURN = 64  # then other tasks of the loop have their turn
HEARTBEAT_MS = 5_000
RECONNECT_MS, RECONNECT_MAX_MS = 100, 30_000
Z85_KEY = re.compile(r"[0-9a-zA-Z.\-:+=^!/*?&<>()\[\]{}@%$#]{40}")
log = structlog.get_logger()


class ZmqFrames:
    """A `Source`: one socket. A message is `[topic, payload]`, or `[payload]` where the socket carries one channel."""

    def __init__(
        self,
        config: ZmqSource,
        decoder: Decoder,
        *,
        stats: Stats,
        queue_bytes: int = QUEUE_BYTES,
        tap: Tap | None = None,
    ) -> None:
        self.name = config.name
        self._config = config
        self._topics = decoder.topics
        self._decoder = decoder
        self._intake = Intake(config.name, decoder, stats=stats, queue_bytes=queue_bytes, tap=tap)
        self._curve = _curve(config)
        self._clients = _clients(config)
        self._door: Doorkeeper | None = None
        if config.url.startswith("tcp://") and urlsplit(config.url).port is None:
            raise ConfigError(f"source {config.name!r}: {config.url!r} names no port")
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None
        self._socket: zmq.Socket[bytes] | None = None
        self._monitor: zmq.Socket[bytes] | None = None

    async def __aenter__(self) -> Self:
        self._intake.begin()
        self._context = zmq.Context()
        if self._clients is not None:
            self._door = Doorkeeper(self._context, keys=self._clients, source=self.name)
        self._socket = self._context.socket(zmq.SUB if self._config.socket == "sub" else zmq.PULL)
        try:
            self._open(self._socket)
        except zmq.ZMQError as error:
            await self.__aexit__()
            verb = "bound" if self._config.bind else "connected to"
            raise Unavailable(f"{self._config.url} cannot be {verb}: {error}") from error
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._intake.end()
        loop = asyncio.get_running_loop()
        if self._monitor is not None:
            loop.remove_reader(self._monitor.FD)
        if self._socket is not None:
            loop.remove_reader(self._socket.FD)
            if self._monitor is not None:
                self._socket.disable_monitor()
                self._monitor.close(linger=0)
            self._socket.close(linger=0)
        if self._door is not None:
            self._door.close()
        if self._context is not None:
            self._context.term()
        self._context = self._socket = self._monitor = self._door = None

    def frames(self) -> AsyncIterator[Sequence[Frame]]:
        """Yield what has arrived since the last turn."""
        return self._intake.frames()

    def rebind(self, decoder: Decoder) -> None:
        """Take another decoder without a gap in the topics that stay."""
        before, self._topics, self._decoder = set(self._topics), decoder.topics, decoder
        self._intake.rebind(decoder)
        if self._socket is not None and self._config.socket == "sub":
            for topic in set(decoder.topics) - before:
                self._socket.setsockopt(zmq.SUBSCRIBE, topic.encode())
            for topic in before - set(decoder.topics):
                self._socket.setsockopt(zmq.UNSUBSCRIBE, topic.encode())

    def _open(self, sock: zmq.Socket[bytes]) -> None:
        for option, value in {
            zmq.RCVHWM: HIGH_WATER_MARK,
            zmq.MAXMSGSIZE: 2 * MAX_PAYLOAD_BYTES,  # what is a little too big is counted; beyond, the peer is cut off
            zmq.HEARTBEAT_IVL: HEARTBEAT_MS,
            zmq.HEARTBEAT_TIMEOUT: HEARTBEAT_MS,
            zmq.RECONNECT_IVL: RECONNECT_MS,
            zmq.RECONNECT_IVL_MAX: RECONNECT_MAX_MS,
            zmq.LINGER: 0,
            **self._curve,
        }.items():
            sock.setsockopt(option, value)
        if self._config.socket == "sub":
            for topic in self._topics:
                sock.setsockopt(zmq.SUBSCRIBE, topic.encode())
        self._monitor = sock.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED)
        loop = asyncio.get_running_loop()
        loop.add_reader(self._monitor.FD, self._peers_changed)
        loop.add_reader(sock.FD, self._readable)
        if self._config.bind:
            sock.bind(self._config.url)
        else:
            sock.connect(self._config.url)
        for look in (self._peers_changed, self._readable):
            loop.call_soon(look)  # an FD of ZeroMQ is edge-triggered, and armed by the first look

    def _readable(self) -> None:
        if self._socket is None:
            return
        for _ in range(MESSAGES_A_TURN):
            try:
                parts = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            self._take(parts)
        asyncio.get_running_loop().call_soon(self._readable)

    def _take(self, parts: list[bytes]) -> None:
        topic = parts[0].decode(errors="replace") if len(parts) > 1 else ""
        # A subscription is a prefix: "vib" brings "vib2" along, which is no mistake of its sender.
        if self._config.socket == "sub" and topic and topic not in self._topics and "" not in self._topics:
            return
        self._intake.put(topic, parts[-1])

    def _peers_changed(self) -> None:
        while self._monitor is not None and self._monitor.poll(0):
            event = recv_monitor_message(self._monitor, zmq.NOBLOCK)["event"]
            if event == zmq.EVENT_DISCONNECTED:
                self._decoder.restart()
                log.info("peer_lost", source=self.name, url=self._config.url)
            else:
                log.info("peer_connected", source=self.name, url=self._config.url)


def _curve(config: ZmqSource) -> dict[int, Any]:
    """The CURVE options: a client where the other side's key is given, a server where only our own is."""
    server = _key(config, "server_key_file", config.server_key_file)
    public = _key(config, "public_key_file", config.public_key_file)
    secret = _key(config, "secret_key_file", config.secret_key_file)
    if public and not secret:
        raise ConfigError(f"source {config.name!r}: public_key_file needs its secret_key_file")
    if server is None and secret is None:
        return {}
    if not zmq.has("curve"):
        raise ConfigError(f"source {config.name!r}: this libzmq was built without CURVE")
    if secret is None:
        public, secret = zmq.curve_keypair()  # a client whose server lets anybody in who knows its key
    own: dict[int, Any] = {zmq.CURVE_SECRETKEY: secret, zmq.CURVE_PUBLICKEY: public or zmq.curve_public(secret)}
    own[zmq.CURVE_SERVERKEY if server else zmq.CURVE_SERVER] = server or 1
    return own


def _clients(config: ZmqSource) -> frozenset[bytes] | None:
    """The public keys that are let in; None: whoever knows ours. A line is a key, and after a space whose it is."""
    path, key = config.client_keys_file, f"source {config.name!r}: client_keys_file"
    if path is None:
        return None
    if config.server_key_file is not None or config.secret_key_file is None:
        raise ConfigError(f"{key} belongs to a CURVE server: give secret_key_file, and no server_key_file")
    file = located(key, path)
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{key}: {file} cannot be read: {error}") from error
    found = {n: line.split()[0] for n, line in enumerate(lines, 1) if line.strip() and not line.startswith("# ")}
    if wrong := [n for n, text in found.items() if not Z85_KEY.fullmatch(text)]:
        raise ConfigError(f"{key}: line {wrong[0]} of {file} must begin with one public key, 40 characters of Z85")
    if not found:
        raise ConfigError(f"{key}: {file} holds no key, so nobody could send; put the senders' public keys there")
    return frozenset(text.encode() for text in found.values())


def _key(config: ZmqSource, option: str, path: Path | None) -> bytes | None:
    if path is None:
        return None
    key = f"source {config.name!r}: {option}"
    file = private(key, path) if option == "secret_key_file" else located(key, path)
    try:
        text = file.read_text(encoding="ascii").strip()
    except OSError as error:
        raise ConfigError(f"{key}: {file} cannot be read: {error}") from error
    except UnicodeDecodeError:
        text = ""
    if not Z85_KEY.fullmatch(text):
        raise ConfigError(f"{key}: {file} must hold one key, 40 characters of Z85, as `fisher-agent keys` writes it")
    return text.encode()
