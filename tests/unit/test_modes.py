"""Which mode a machine is in: what a tag said, and what a rule makes of a channel."""

import json
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes import T0_NS, WINDOW, channel, machine
from fisher_agent.configfile import parse
from fisher_agent.errors import BadPayload, ConfigError
from fisher_agent.modes import NOBODY_SAYS, Now, Rule, Told
from fisher_agent.stages import Moment, Tag, Window
from fisher_agent.wire import decoder_for

VIB = channel("vib", 8000, kind="vibration", unit="g")
SPEED = channel("rpm", 100, kind="process", unit="rpm")
BANDS = {"idle": [0, 450], "full": [400, 1600]}
SECOND = 10**9


def speed_moment(end_s: float, values: float | Sequence[float]) -> Moment:
    samples = np.broadcast_to(np.float32(values), 100).astype(np.float32)
    end_ns = T0_NS + round(end_s * 1e9)
    return Moment("press-07", end_ns, (Window("press-07", "rpm", end_ns - SECOND, 100.0, samples, end_ns=end_ns),))


def rule(**keys: object) -> Rule:
    found = Rule.of(machine(VIB, SPEED, mode={"channel": "rpm", "bands": BANDS}, **keys), WINDOW)
    assert found is not None
    return found


# The rule


def test_a_band_is_a_mode_and_what_lies_in_none_is_unknown() -> None:
    assert rule().take(speed_moment(1, 300)) == Now("idle", settled=True)
    assert rule().take(speed_moment(1, 1000)) == Now("full", settled=True)
    assert rule().take(speed_moment(1, 1600)) == Now("unknown", settled=True)  # the upper edge is not in it


def test_in_the_overlap_of_two_bands_the_machine_stays_in_its_mode() -> None:
    up, down = rule(), rule()
    up.take(speed_moment(0, 300))
    down.take(speed_moment(0, 900))
    assert up.take(speed_moment(5, 425)).mode == "idle"
    assert down.take(speed_moment(5, 425)).mode == "full"


def test_a_moment_that_overlaps_or_adjoins_another_mode_is_not_settled() -> None:
    subject = rule()
    states = [subject.take(speed_moment(n / 2, 300 if n < 4 else 1000)) for n in range(10)]
    assert [s.mode for s in states] == ["idle"] * 4 + ["full"] * 6
    assert [s.settled for s in states] == [True] * 4 + [False, False] + [True] * 4  # windows of 1 s every 0.5 s


def test_settling_takes_as_long_as_the_configuration_says() -> None:
    subject = rule(settle_s=2.0)
    states = [subject.take(speed_moment(n / 2, 300 if n < 4 else 1000)) for n in range(14)]
    assert [s.settled for s in states[4:]] == [False] * 6 + [True] * 4


def test_a_value_that_leaves_its_band_within_the_window_is_not_settled() -> None:
    falling = np.where(np.arange(100) < 80, 1000, 200).astype(np.float32)
    assert rule().take(speed_moment(1, falling.tolist())) == Now("full", settled=False)


def test_without_a_value_nobody_says_the_mode() -> None:
    subject = rule()
    subject.take(speed_moment(1, 300))
    assert subject.take(Moment("press-07", T0_NS + 2 * SECOND, ())) == NOBODY_SAYS
    assert subject.possible(Moment("press-07", T0_NS, ())) is None


def test_a_value_of_a_slow_channel_holds_until_it_is_stale() -> None:
    slow = channel("rpm", 1, kind="process", unit="rpm")
    subject = Rule.of(machine(VIB, slow, mode={"channel": "rpm", "bands": BANDS}), WINDOW)
    assert subject is not None
    end_ns = T0_NS
    samples = np.asarray([900.0] * 19 + [300.0], np.float32)  # twenty seconds of which the last counts
    subject.take(
        Moment("press-07", end_ns, (Window("press-07", "rpm", 0, 1.0, samples, end_ns=end_ns, snapshot=True),))
    )
    assert subject.take(Moment("press-07", end_ns + 3 * SECOND, ())) == Now("idle", settled=True)
    assert subject.take(Moment("press-07", end_ns + 4 * SECOND, ())) == NOBODY_SAYS


@given(st.lists(st.sampled_from([300.0, 425.0, 1000.0, 2000.0]), max_size=30))
def test_what_must_be_embedded_includes_every_mode_that_the_rule_can_find(values: list[float]) -> None:
    subject = rule()
    for n, value in enumerate(values):
        moment = speed_moment(n / 2, value)
        possible, now = subject.possible(moment), subject.take(moment)
        assert possible is not None
        assert now.mode in possible | {"unknown"}
        assert (now.mode == "unknown") is (value == 2000.0)


# What a tag said


def at(told: Told, end_s: float) -> tuple[str, bool]:
    moment = told.stamp(Moment("press-07", T0_NS + round(end_s * 1e9), ()), window=WINDOW)
    return moment.mode, moment.settled


def test_a_word_holds_from_its_time_on_and_the_first_one_is_no_change() -> None:
    told = Told()
    assert at(told, 5) == ("", True)
    told.say("idle", T0_NS + 2 * SECOND)
    told.say("full", T0_NS + 10 * SECOND)
    told.say("full", T0_NS + 12 * SECOND)
    assert at(told, 1) == ("", True)
    assert at(told, 2) == ("idle", True)
    assert at(told, 9.9) == ("idle", True)
    assert [at(told, t) for t in (10, 10.5, 11, 11.5)] == [("full", False)] * 3 + [("full", True)]


@given(st.lists(st.tuples(st.sampled_from(["a", "b", "c"]), st.integers(0, 59)), max_size=40), st.randoms())
def test_words_may_come_late(words: list[tuple[str, int]], random: object) -> None:
    unique = list({t: (word, t) for word, t in words}.values())
    ordered, shuffled = Told(), Told()
    for word, t in sorted(unique, key=lambda w: w[1]):
        ordered.say(word, T0_NS + t * SECOND)
    random.shuffle(unique)  # type: ignore[attr-defined]
    for word, t in unique:
        shuffled.say(word, T0_NS + t * SECOND)
    assert [at(ordered, t) for t in range(70)] == [at(shuffled, t) for t in range(70)]


def test_a_tag_that_is_repeated_for_hours_takes_no_room_and_remembers_its_change() -> None:
    told = Told()
    told.say("idle", T0_NS)
    for t in range(1, 20_000):
        told.say("full", T0_NS + t * SECOND)
    assert at(told, 0.5) == ("idle", True)
    assert at(told, 2) == ("full", False)
    assert at(told, 19_999) == ("full", True)


# The tag on the wire

CONFIG = """
site = "s"
edge = "e"
[[sources]]
name = "plant"
type = "mqtt"
[[sources]]
name = "daq"
type = "zmq"
url = "tcp://127.0.0.1:5556"
[[machines]]
id = "press-07"
[machines.mode]
{mode}
[[machines.channels]]
id = "vib"
rate_hz = 8000
source = "plant"
topic = "raw/vib"
"""
TAG = 'topic = "plc/{machine}/recipe"'


def tags(payload: bytes, mode: str = TAG) -> list[tuple[str, int]]:
    decoder = decoder_for(parse(CONFIG.replace("{mode}", mode)), "plant")
    assert decoder.topics == ("raw/vib", "plc/press-07/recipe")
    found = decoder.decode("plc/press-07/recipe", payload, mono_ns=0, utc_ns=T0_NS)
    assert all(isinstance(f, Tag) and f.machine == "press-07" for f in found)
    return [(f.word, f.t_ns) for f in found if isinstance(f, Tag)]


@pytest.mark.parametrize(
    ("payload", "word", "t_ns"),
    [
        (b"idle", "idle", T0_NS),
        (b" full\n", "full", T0_NS),
        (b'"full"', "full", T0_NS),
        (b"7", "7", T0_NS),
        (b"7.0", "7", T0_NS),
        (b"true", "true", T0_NS),
        (b'{"mode": "full"}', "full", T0_NS),
        (b'{"value": 3, "t": 1795000000}', "3", 1795000000 * SECOND),
        (b'{"mode": "idle", "ts": 1795000000500}', "idle", 1795000000 * SECOND + SECOND // 2),
    ],
)
def test_a_tag_is_read_as_plants_send_it(payload: bytes, word: str, t_ns: int) -> None:
    assert tags(payload) == [(word, t_ns)]


@pytest.mark.parametrize("payload", [b"", b"two words", b"[1]", b"{}", b"\xff\xfe", b"null", b"x" * 5000, b"NaN"])
def test_what_is_no_mode_is_rejected(payload: bytes) -> None:
    with pytest.raises(BadPayload):
        tags(payload)


def test_a_value_that_is_not_listed_is_an_unknown_mode() -> None:
    listed = TAG + '\nvalues = { "0" = "idle", "7" = "full" }'
    assert tags(b"7", listed) == [("full", T0_NS)]
    assert tags(b"8", listed) == [("unknown", T0_NS)]


# The configuration


@pytest.mark.parametrize(
    ("mode", "said"),
    [
        ("", "machines[0].mode: give exactly one of topic, channel (with bands) and cluster = true; it has none"),
        (TAG + "\ncluster = true", "machines[0].mode: give exactly one of topic, channel (with bands) and cluster"),
        ('channel = "vib"', "machines[0].mode: channel and bands belong together"),
        ('channel = "vob"\nbands = { a = [0, 1] }', "machines[0].mode.channel: 'vob' is not a channel of this machine"),
        ('channel = "vib"\nbands = { a = [2, 1] }', "machines[0].mode.bands: the band of a runs from 2 to 1"),
        ('channel = "vib"\nbands = { "a b" = [0, 1] }', "machines[0].mode.bands.a b"),
        ('channel = "vib"\nbands = { unknown = [0, 1] }', "machines[0].mode: no mode may be called 'unknown'"),
        ('channel = "vib"\nbands = { a = [0, inf] }', "machines[0].mode.bands.a[1]"),
        ("cluster = true\nvalues = { a = 'b' }", "machines[0].mode: source and values belong to topic"),
        (TAG + "\nvalues = { a = 'b c' }", "machines[0].mode.values.a"),
        (TAG + '\nsource = "daq"', "machines[0].mode.source: 'daq' is no MQTT source"),
        (TAG + '\nsource = "nope"', "machines[0].mode.source: 'nope' is not the name of a source (plant, daq)"),
        ('topic = "a/#"', "machines[0].mode.topic: 'a/#' must be an exact topic"),
        ('topic = "a/{chan}"', "machines[0].mode.topic: 'a/{chan}' may hold {machine}"),
        ('topic = "raw/vib"', "machines[0].mode.topic: 'raw/vib' carries samples of a channel"),
        (TAG + "\nbogus = 1", "machines[0].mode.bogus: unknown key"),
    ],
)
def test_what_is_wrong_is_said_with_its_key(mode: str, said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse(CONFIG.replace("{mode}", mode))
    assert any(p.startswith(said) for p in refused.value.problems), refused.value.problems


def test_the_three_ways_are_accepted() -> None:
    for mode in (TAG, "cluster = true", 'channel = "vib"\nbands = { a = [0, 1], b = [1, 2] }'):
        assert parse(CONFIG.replace("{mode}", mode)).machines[0].mode is not None


def test_a_json_tag_of_several_machines_speaks_of_each() -> None:
    text = CONFIG.replace("{mode}", 'topic = "line/recipe"')
    second = text[text.index("[[machines]]") :].replace("press-07", "press-08").replace("raw/vib", "raw/vib8")
    decoder = decoder_for(parse(text + second), "plant")
    found = decoder.decode("line/recipe", json.dumps({"mode": "a"}).encode(), mono_ns=0, utc_ns=T0_NS)
    assert [f.machine for f in found] == ["press-07", "press-08"]
