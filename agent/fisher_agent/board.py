"""The agent's face on the broker: the last value of every retained topic, and what of it is still to be sent. Pure.

A broker may forget retained topics, and a connection that was away has missed them, so everything shown here is sent
again at each connect (`renew`). Live messages (the score) are perishable: they are dropped while nobody listens.
"""

from collections import deque

from fisher_agent.report import retained
from fisher_agent.stages import Message

MAX_LIVE = 4096


class Board:
    """Retained values with a dirty mark, and a bounded queue of live messages."""

    def __init__(self) -> None:
        self._shown: dict[str, Message] = {}
        self._dirty: dict[str, None] = {}  # ordered: topics go out in the order in which they changed
        self._live: deque[Message] = deque(maxlen=MAX_LIVE)

    def show(self, topic: str, payload: bytes | str | float, *, qos: int = 1) -> bool:
        """Set a retained topic; returns whether its value changed."""
        message = retained(topic, payload, qos=qos)
        if self._shown.get(topic) == message:
            return False
        self._shown[topic] = message
        self._dirty.pop(topic, None)
        self._dirty[topic] = None
        return True

    def adopt(self, message: Message) -> None:
        """Remember a retained message that another path delivers (an alarm through the outbox), for `renew`."""
        self._shown[message.topic] = message

    def remove(self, prefix: str) -> None:
        """Stop showing every topic under a prefix (a machine that left the configuration)."""
        for topic in [t for t in self._shown if t.startswith(prefix)]:
            del self._shown[topic]
            self._dirty.pop(topic, None)

    def say(self, message: Message) -> None:
        """Queue a live message."""
        self._live.append(message)

    def forget_live(self) -> None:
        """Drop the live messages that nobody could hear: there was no connection."""
        self._live.clear()

    def renew(self) -> None:
        """Mark everything as still to be sent: after a connect, and every minute for brokers that forget."""
        self._dirty = dict.fromkeys(self._shown)

    def take(self) -> list[Message]:
        """What is to be sent now, retained first."""
        messages = [self._shown[topic] for topic in self._dirty if topic in self._shown] + list(self._live)
        self._dirty.clear()
        self._live.clear()
        return messages

    def put_back(self, messages: list[Message]) -> None:
        """Mark retained messages as unsent again; live ones are gone."""
        for message in messages:
            if self._shown.get(message.topic) == message:
                self._dirty[message.topic] = None
