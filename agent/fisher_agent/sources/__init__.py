"""Where samples come from; `open_source` builds the one that the configuration names."""

from collections.abc import Callable
from typing import Any

from fisher_agent.config import Config, SourceConfig
from fisher_agent.errors import ConfigError
from fisher_agent.sources.mqtt import MqttFrames
from fisher_agent.sources.zmq import ZmqFrames
from fisher_agent.stats import Stats
from fisher_agent.wire import decoder_for

Tap = Callable[[str, bytes], Any]


def rebind(source: MqttFrames | ZmqFrames, config: Config) -> None:
    """Let a connected source serve another configuration of the machines, with no gap in what stays."""
    source.rebind(decoder_for(config, source.name))


def check_topics(config: Config) -> None:
    """ConfigError where channels of one topic contradict each other; holds every such mistake."""
    problems: list[str] = []
    for source in config.sources:
        try:
            decoder_for(config, source.name)
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(problems)


def open_source(
    source: SourceConfig, config: Config, *, client_id: str, stats: Stats, tap: Tap | None = None
) -> MqttFrames | ZmqFrames:
    """The source for one `[[sources]]` entry, not yet connected; `tap` sees every topic and payload before decoding."""
    decoder = decoder_for(config, source.name)
    if source.type == "mqtt":
        return MqttFrames(source, decoder, client_id=client_id, stats=stats, tap=tap)
    return ZmqFrames(source, decoder, stats=stats, tap=tap)
