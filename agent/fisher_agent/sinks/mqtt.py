"""One connection to the plant's broker, for publishing or for commands, over aiomqtt."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any, Self

import aiomqtt
from paho.mqtt import client as paho
from paho.mqtt.client import MQTT_CLEAN_START_FIRST_ONLY
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from fisher_agent.config import MqttConfig
from fisher_agent.credentials import secret, tls, tls_remedy
from fisher_agent.errors import Unavailable
from fisher_agent.stages import Message

CONNECT_TIMEOUT_S = 10.0
PUBLISH_TIMEOUT_S = 10.0
CLOSE_S = 1.0
EXPIRY_S = 300  # of retained state on MQTT 5; state is sent again every minute
MAX_QUEUED = 1000  # commands that wait; a flood beyond it is dropped by aiomqtt, newest first
TAKEN_OVER = 0x8E  # MQTT 5, table 2-6
TAKEN_OVER_RETRY_S = 300.0
REFUSED = 0x80  # reason codes from here on say no, on MQTT 3.1.1 too
UNSUPPORTED_VERSION = {0x84, 1}  # MQTT 5 reason code; MQTT 3.1.1 return code


class _Client(aiomqtt.Client):
    """aiomqtt passes over a PUBACK that says no, as MQTT 5 brokers send where their ACL forbids a topic; and over an
    end before the CONNACK, as of a TLS 1.3 broker that wants a client certificate: it would wait for its timeout."""

    refusal = ""
    _complaint = ""  # what paho says of its socket, which it tells its log alone

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._client.on_log = self._on_log

    def _on_log(self, _client: paho.Client, _userdata: Any, level: int, text: str) -> None:
        if level == paho.MQTT_LOG_ERR:
            self._complaint = f": {text}"

    def _on_disconnect(self, client: paho.Client, userdata: Any, *rest: Any) -> None:
        super()._on_disconnect(client, userdata, *rest)
        if not self._connected.done():
            self._connected.set_exception(
                aiomqtt.MqttError(f"the broker ended the connection while it was made{self._complaint}")
            )

    def _on_publish(
        self, client: paho.Client, userdata: Any, mid: int, reason_code: ReasonCode, properties: Properties
    ) -> None:
        self.refusal = str(reason_code) if reason_code.is_failure else ""
        super()._on_publish(client, userdata, mid, reason_code, properties)


class PlantLink:
    """A connection with its Will. `async with` connects; a lost link raises Unavailable from every method."""

    def __init__(self, config: MqttConfig, *, client_id: str, will: Message) -> None:
        self._config = config
        self._client_id = client_id
        self._will = will
        self._client: _Client | None = None
        self.refused: dict[str, str] = {}  # topics that the broker does not let us write (only MQTT 5 says so) -> why
        self._version5 = config.version != "3.1.1"
        # A half-open link is to be found and closed within two keepalives: paho pings after one, and gives up after a
        # second and the grain of a timer.
        self._keepalive_s = max(2, config.keepalive_s * 3 // 4)
        self._publish_timeout_s = min(PUBLISH_TIMEOUT_S, config.keepalive_s)
        self._tls = tls("mqtt.", config)
        self._password = secret("mqtt.password_file", config.password_file)

    @property
    def version5(self) -> bool:
        """Whether the connection speaks MQTT 5 (else 3.1.1)."""
        return self._version5

    async def __aenter__(self) -> Self:
        versions = {"5": [True], "3.1.1": [False], "auto": [True, False]}[self._config.version]
        for n, version5 in enumerate(versions):
            try:
                await self._connect(version5=version5)
            except aiomqtt.MqttError as error:
                last = n == len(versions) - 1
                if last or not _may_be_the_version(error):
                    raise self._unavailable(error) from error
            else:
                break
        return self

    async def _connect(self, *, version5: bool) -> None:
        config = self._config
        client = _Client(
            config.host,
            config.port,
            username=config.username,
            password=self._password,
            identifier=self._client_id,
            protocol=aiomqtt.ProtocolVersion.V5 if version5 else aiomqtt.ProtocolVersion.V311,
            will=aiomqtt.Will(self._will.topic, self._will.payload, self._will.qos, self._will.retain),
            clean_session=None if version5 else True,
            clean_start=True if version5 else MQTT_CLEAN_START_FIRST_ONLY,  # paho refuses any other value on 3.1.1
            keepalive=self._keepalive_s,
            timeout=CONNECT_TIMEOUT_S,
            max_queued_incoming_messages=MAX_QUEUED,
            max_queued_outgoing_messages=MAX_QUEUED,
            tls_context=self._tls,
        )
        await client.__aenter__()
        self._client, self._version5 = client, version5

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # The link may already be gone; a broker that does not answer must not hold up the shutdown.
        with contextlib.suppress(aiomqtt.MqttError, Unavailable, TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                if kind is not None:
                    await self.publish(self._will)  # a clean disconnect deletes the Will, and this end is not clean
        client, self._client = self._client, None
        if client is not None:
            with contextlib.suppress(aiomqtt.MqttError, TimeoutError):
                async with asyncio.timeout(CLOSE_S):
                    await client.__aexit__(None, None, None)

    async def publish(self, message: Message) -> None:
        """Send one message; with QoS 1 it returns when the broker has it."""
        properties = None
        if self._version5 and message.retain and message.topic != self._will.topic:
            properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]  # paho's is untyped
            properties.MessageExpiryInterval = EXPIRY_S
        try:
            client = self._connected()
            await client.publish(
                message.topic,
                message.payload,
                qos=message.qos,
                retain=message.retain,
                properties=properties,
                timeout=self._publish_timeout_s,
            )
        except aiomqtt.MqttError as error:
            raise self._unavailable(error) from error
        if message.qos and client.refusal:
            self.refused[message.topic] = client.refusal
        else:
            self.refused.pop(message.topic, None)

    async def subscribe(self, topic: str) -> None:
        """Subscribe at QoS 1; on MQTT 5 without the retained past and without our own messages."""
        options = SubscribeOptions(qos=1, noLocal=True, retainAsPublished=False, retainHandling=2)
        try:
            codes = await self._connected().subscribe(topic, **({"options": options} if self._version5 else {"qos": 1}))
        except aiomqtt.MqttError as error:
            raise self._unavailable(error) from error
        if any(getattr(code, "value", code) >= REFUSED for code in codes):
            raise Unavailable(f"{self._config.url} refuses the subscription to {topic} ({codes[0]}); allow it there")

    async def messages(self) -> AsyncIterator[aiomqtt.Message]:
        """Yield what arrives; raises Unavailable when the link is lost."""
        try:
            async for message in self._connected().messages:
                yield message
        except aiomqtt.MqttError as error:
            raise self._unavailable(error) from error

    def _connected(self) -> _Client:
        if self._client is None:
            raise Unavailable(f"{self._config.url} is not connected")
        return self._client

    def _unavailable(self, error: aiomqtt.MqttError) -> Unavailable:
        cause = error.__cause__ or error
        if _reason(error) == TAKEN_OVER or _reason(cause) == TAKEN_OVER:
            return Unavailable(
                f"{self._config.url}: another client uses the id {self._client_id!r} and took this connection over; "
                "give each agent its own `edge`",
                retry_after_s=TAKEN_OVER_RETRY_S,
            )
        return Unavailable(f"{self._config.url}: {cause}{tls_remedy(error)}")


def _reason(error: BaseException) -> int | None:
    code = getattr(error, "rc", None)
    value = getattr(code, "value", code)
    return value if isinstance(value, int) else None


def _may_be_the_version(error: aiomqtt.MqttError) -> bool:
    """A broker without MQTT 5 refuses the version, or just hangs up; one that is not there refuses the socket."""
    return _reason(error) in UNSUPPORTED_VERSION or (_reason(error) is None and "refused" not in str(error))
