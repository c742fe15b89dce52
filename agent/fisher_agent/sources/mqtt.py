"""Raw samples over MQTT 3.1.1 or 5."""

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from typing import Self

from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from fisher_agent.config import MqttSource
from fisher_agent.credentials import secret, tls, tls_remedy
from fisher_agent.errors import Unavailable
from fisher_agent.sources.intake import QUEUE_BYTES, Intake, Tap
from fisher_agent.sources.mqttlink import Client, Link, Refused
from fisher_agent.stages import Frame
from fisher_agent.stats import Stats
from fisher_agent.wire import Decoder

CONNECT_TIMEOUT_S = 10.0
V5, V311 = MQTTProtocolVersion.MQTTv5, MQTTProtocolVersion.MQTTv311
VERSIONS = {"auto": (V5, V311), "5": (V5,), "3.1.1": (V311,)}


class MqttFrames:
    """A `Source`: one connection that subscribes to the decoder's topics.

    QoS 0 has a clean session. QoS 1 has a persistent one, at least once up to this process: a message is acknowledged
    when it is in the queue.
    """

    def __init__(
        self,
        config: MqttSource,
        decoder: Decoder,
        *,
        client_id: str,
        stats: Stats,
        queue_bytes: int = QUEUE_BYTES,
        tap: Tap | None = None,
    ) -> None:
        self.name = config.name
        self._config = config
        self._topics = decoder.topics
        self._client_id = client_id
        self._intake = Intake(config.name, decoder, stats=stats, queue_bytes=queue_bytes, tap=tap)
        self._password = secret(f"source {config.name!r}: password_file", config.password_file)
        self._tls = tls(f"source {config.name!r}: ", config)
        self._link: Link | None = None

    async def __aenter__(self) -> Self:
        versions = VERSIONS[self._config.version]
        for version in versions:
            try:
                await self._connect(version)
                break
            except Refused as error:
                if version == versions[-1] or not error.maybe_version:
                    raise Unavailable(f"{self._config.url}: {error}") from error
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._intake.end()
        if self._link is not None:
            self._link.close()
            self._link = None

    def frames(self) -> AsyncIterator[Sequence[Frame]]:
        """Yield what has arrived since the last turn; raises Unavailable when the link is gone."""
        return self._intake.frames()

    def rebind(self, decoder: Decoder) -> None:
        """Take another decoder without a gap in the topics that stay."""
        before, self._topics = set(self._topics), decoder.topics
        self._intake.rebind(decoder)
        if self._link is not None:
            add, remove = set(decoder.topics) - before, before - set(decoder.topics)
            self._link.change(add=sorted(add), remove=sorted(remove), qos=self._config.qos)

    async def _connect(self, version: MQTTProtocolVersion) -> None:
        url = self._config.url
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                self._intake.begin()
                link = Link(await self._open_socket(), self._client(version), self._intake, url, self._client_id)
                self._link = link
                await link.connect(self._config, self._topics)
        except TimeoutError as error:
            # A 3.1.1 broker may take the properties of MQTT 5 for lengths and wait for bytes that never come.
            reached = self._link is not None and self._config.qos == 1
            await self.__aexit__()
            raise Refused(f"no answer within {CONNECT_TIMEOUT_S:g} s", maybe_version=reached) from error
        except OSError as error:
            await self.__aexit__()
            raise Unavailable(f"{url}: {error}{tls_remedy(error)}") from error
        except BaseException:
            await self.__aexit__()
            raise

    def _client(self, version: MQTTProtocolVersion) -> Client:
        clean = self._config.qos == 0
        client = Client(
            CallbackAPIVersion.VERSION2,
            client_id=self._client_id,
            clean_session=None if version is V5 else clean,
            protocol=version,
            reconnect_on_failure=False,
        )
        if self._config.username is not None:
            client.username_pw_set(self._config.username, self._password)
        return client

    async def _open_socket(self) -> socket.socket:
        """TCP and TLS in a thread, for resolving a name and the handshake block; closed there if nobody waits."""
        opening = asyncio.get_running_loop().run_in_executor(None, self._open_blocking)
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            opening.add_done_callback(_close_late)
            raise

    def _open_blocking(self) -> socket.socket:
        sock = socket.create_connection((self._config.host, self._config.port), timeout=CONNECT_TIMEOUT_S)
        if self._tls is None:
            return sock
        try:
            return self._tls.wrap_socket(sock, server_hostname=self._config.host)
        except BaseException:
            sock.close()
            raise


def _close_late(opening: asyncio.Future[socket.socket]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()
