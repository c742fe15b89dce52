"""The queue between a socket and its frames: bounds, counts, and a log that repeats itself rarely."""

import numpy as np
import pytest
import structlog

from fisher_agent.configfile import parse
from fisher_agent.errors import Unavailable
from fisher_agent.sources.intake import Intake
from fisher_agent.stats import Stats
from fisher_agent.wire import decoder_for, encode

CONFIG = """
site = "s"
edge = "e"
[[sources]]
name = "plant"
type = "mqtt"
[[machines]]
id = "m"
[[machines.channels]]
id = "a"
rate_hz = 12000
source = "plant"
topic = "raw/a"
format = "{format}"
"""


def intake(stats, *, payload_format="json", queue_bytes=1000):
    decoder = decoder_for(parse(CONFIG.format(format=payload_format)), "plant")
    return Intake("plant", decoder, stats=stats, queue_bytes=queue_bytes)


async def all_frames(subject):
    """Everything queued, then the end of the link."""
    subject.lose(Unavailable("gone"))
    frames = []
    with pytest.raises(Unavailable, match="gone"):
        async for batch in subject.frames():
            frames += batch
    subject.end()
    return frames


async def test_beyond_its_bytes_the_oldest_messages_are_dropped_and_counted():
    stats = Stats()
    subject = intake(stats, queue_bytes=1000)
    for seq in range(10):
        subject.put("raw/a", encode("json", np.zeros(40), t_ns=10**18 + seq, seq=seq).ljust(250))
    frames = await all_frames(subject)
    assert [f.seq for f in frames] == [6, 7, 8, 9]
    assert stats.by_key("source_dropped") == {"plant": 6}


async def test_unstamped_samples_after_a_drop_begin_with_a_gap():
    subject = intake(Stats(), payload_format="f32le", queue_bytes=1000)
    generator = subject.frames()
    subject.put("raw/a", bytes(240))
    assert [f.gap for f in await anext(generator)] == [True]
    subject.put("raw/a", bytes(240))
    assert [f.gap for f in await anext(generator)] == [False]
    for _ in range(5):
        subject.put("raw/a", bytes(240))
    assert [f.gap for f in await anext(generator)] == [True, False, False, False]
    await generator.aclose()
    subject.end()


async def test_every_bad_payload_is_counted_and_few_are_logged():
    stats = Stats()
    subject = intake(stats)
    for _ in range(50):
        subject.put("raw/a", b"{")
    subject.put("raw/other", b"{}")
    with structlog.testing.capture_logs() as logged:
        assert await all_frames(subject) == []
    assert stats.by_key("rejected") == {"m/a:not-json": 50, "plant:unknown-topic": 1}
    assert [(entry["event"], entry["channel"]) for entry in logged] == [
        ("payload_rejected", "m/a"),
        ("payload_rejected", "plant"),
    ]


async def test_after_begin_a_lost_link_is_forgotten():
    subject = intake(Stats())
    subject.lose(Unavailable("gone"))
    subject.begin()
    subject.put("raw/a", encode("json", np.ones(2), t_ns=10**18))
    generator = subject.frames()
    assert len(await anext(generator)) == 1
    await generator.aclose()
    subject.end()
