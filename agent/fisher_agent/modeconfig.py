"""`[machines.mode]`: what tells in which operating mode a machine runs."""

from collections.abc import Collection, Mapping
from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator

from fisher_agent.configtypes import Id, Strict

DEFAULT_MODE = "default"  # of a machine whose modes nothing tells apart
MAX_TOPIC = 1024
UNKNOWN_MODE = "unknown"  # a mode that is known not to be an enrolled one; no mode bears this name
FOUND_MODE = "m"  # modes that were found in an enrolment are m1, m2, ... until they are named
Edge = Annotated[float, Field(allow_inf_nan=False)]


class ModeConfig(Strict):
    """Exactly one of a tag (`topic`), a rule (`channel` with `bands`), or groups found in the enrolment (`cluster`).

    Bands may overlap: within the overlap the machine stays in the mode that it was in.
    """

    topic: str | None = None  # of an MQTT source; {machine} is filled in
    source: Id | None = None  # default: the source of the machine's first channel
    values: Mapping[str, Id] = {}  # payload -> mode; without it the payload is the mode's name
    channel: Id | None = None  # its mean where its value counts, else its RMS
    bands: Mapping[Id, tuple[Edge, Edge]] = {}  # mode -> from (included) and to (not included)
    cluster: bool = False

    @field_validator("bands")
    @classmethod
    def _bands(cls, bands: Mapping[str, tuple[float, float]]) -> Mapping[str, tuple[float, float]]:
        for mode, (low, high) in bands.items():
            if not low < high:
                raise ValueError(f"the band of {mode} runs from {low:g} to {high:g}; its first edge must be lower")
        return bands

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        given = [name for name in ("topic", "channel", "cluster") if getattr(self, name)]
        if len(given) != 1:
            has = " and ".join(given) or "none of them"
            raise ValueError(f"give exactly one of topic, channel (with bands) and cluster = true; it has {has}")
        if self.topic is None and (self.source is not None or self.values):
            raise ValueError("source and values belong to topic")
        if bool(self.bands) != (self.channel is not None):
            raise ValueError("channel and bands belong together: a rule is a channel and a band of its values per mode")
        if UNKNOWN_MODE in self.names:
            raise ValueError(f"no mode may be called {UNKNOWN_MODE!r}: that is what an unseen one is called")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """The modes that the configuration names, in its order; none where any may come."""
        return tuple(self.bands) or tuple(dict.fromkeys(self.values.values()))


def mode_problems(
    at: str, mode: ModeConfig, *, channels: Collection[str], sources: Mapping[str, str], source: str, bound: bool
) -> list[str]:
    """What is wrong with references; `sources` maps name to type, `bound` is whether a channel has the same topic."""
    problems: list[str] = []
    if mode.channel is not None and mode.channel not in channels:
        problems.append(f"{at}.channel: {mode.channel!r} is not a channel of this machine ({', '.join(channels)})")
    if mode.topic is None:
        return problems
    if "#" in mode.topic or "+" in mode.topic or not 0 < len(mode.topic) <= MAX_TOPIC:
        exact = f"must be an exact topic, without wildcards, of at most {MAX_TOPIC} characters"
        problems.append(f"{at}.topic: {mode.topic[:80]!r} {exact}")
    if "{" in mode.topic.replace("{machine}", ""):
        problems.append(f"{at}.topic: {mode.topic!r} may hold {{machine}} and no other braces")
    if source not in sources:
        known = ", ".join(sources) or "none are configured"
        problems.append(f"{at}.source: {source!r} is not the name of a source ({known})")
    elif sources[source] != "mqtt":
        problems.append(f"{at}.source: {source!r} is no MQTT source; a tag is a topic of one")
    if bound:
        problems.append(f"{at}.topic: {mode.topic!r} carries samples of a channel; a tag has a topic of its own")
    return problems
