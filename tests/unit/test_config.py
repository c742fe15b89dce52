"""Mistakes in the configuration: all of them at once, each with its key, and no secret in any sentence."""

from pathlib import Path

import pytest

from fisher_agent.config import Config
from fisher_agent.configfile import default_path, load, parse
from fisher_agent.credentials import unused
from fisher_agent.errors import ConfigError

HEAD = 'site = "plant1"\nedge = "edge-1"\n'
SOURCE = '[[sources]]\nname = "plant"\ntype = "mqtt"\n'
MACHINE = '[[machines]]\nid = "press-07"\n'
CHANNEL = '[[machines.channels]]\nid = "vib"\nrate_hz = 8000\nsource = "plant"\ntopic = "raw/vib"\n'


def mistakes(text: str) -> dict[str, str]:
    """Key -> what is wrong with it."""
    with pytest.raises(ConfigError) as wrong:
        parse(text)
    found = dict(p.split(": ", 1) for p in wrong.value.problems)
    assert len(found) == len(wrong.value.problems), f"a key is named twice: {wrong.value.problems}"
    return found


def whole(channel: str = "", *, machine: str = "", source: str = "", head: str = "") -> str:
    return "\n".join([HEAD + head, SOURCE + source, MACHINE + machine, CHANNEL + channel])


def test_a_small_configuration_is_enough() -> None:
    config = parse(whole())
    assert config.machine("press-07").channel("vib").rate_hz == 8000
    assert config.mqtt is None and config.influx is None


def test_every_mistake_is_named_at_once_with_its_key() -> None:
    text = """
        site = "plant 1"
        colour = "red"
        [window]
        length_s = 20
        [mqtt]
        keepalive_s = 60
        commands = ["ack", "explode"]
        [[sources]]
        name = "plant"
        type = "kafka"
        [[sources]]
        name = "daq"
        type = "zmq"
        url = "tcp://127.0.0.1"
        [[machines]]
        id = "press/07"
        [[machines.channels]]
        id = "vib"
        rate_hz = "fast"
        unit = 3
        scale = 0
        format = "f32be"
        [[machines.channels]]
        id = "cur"
    """
    assert set(mistakes(text)) == {
        "site", "edge", "colour", "window.length_s", "mqtt.keepalive_s", "mqtt.commands[1]", "sources[0].type",
        "sources[1].url", "machines[0].id", "machines[0].channels[0].rate_hz", "machines[0].channels[0].unit",
        "machines[0].channels[0].scale", "machines[0].channels[0].format", "machines[0].channels[1].rate_hz",
    }  # fmt: skip


def test_mistakes_between_keys_are_named_beside_those_of_single_keys() -> None:
    text = whole("colour = 1\n", head="[window]\nlength_s = 1.0\nhop_s = 2.0\n").replace("8000", "0.0001")
    assert set(mistakes(text)) == {
        "machines[0].channels[0].colour", "window.hop_s", "machines[0].channels[0].rate_hz",
    }  # fmt: skip


def test_a_key_that_is_wrong_by_itself_is_not_named_again_for_its_consequences() -> None:
    assert set(mistakes(whole("index = -1\n").replace('topic = "raw/vib"', "topic = 3"))) == {
        "machines[0].channels[0].index",
        "machines[0].channels[0].topic",
    }


def test_a_wrong_channel_does_not_make_the_list_of_channels_too_short() -> None:
    assert set(mistakes(whole("scale = 0\n"))) == {"machines[0].channels[0].scale"}


def test_no_sentence_repeats_a_password() -> None:
    text = whole(
        head='[mqtt]\nurl = "http://anna:hunter2@h"\npassword = "hunter2"\n', source='url = "mqtt://a:hunter2@h"'
    )
    found = mistakes(text)
    assert set(found) == {"mqtt.url", "mqtt.password", "sources[0].url"}
    assert not any("hunter2" in sentence for sentence in found.values())


@pytest.mark.parametrize(
    ("head", "says"),
    [
        ('[mqtt]\npassword_file = "p"\n', "mqtt.password_file needs username"),
        ('[mqtt]\nurl = "mqtts://h"\nkey_file = "p"\n', "mqtt.key_file needs cert_file"),
        ('[mqtt]\nca_file = "p"\n', "mqtt.ca_file does nothing for mqtt://127.0.0.1:1883, which is not encrypted"),
        ('[mqtt]\ncert_file = "p"\n', "mqtt.cert_file does nothing"),
        ('[influx]\npassword_file = "p"\n', "influx.password_file needs username"),
        ('[influx]\nusername = "u"\ntoken_file = "p"\n', "influx.token_file does nothing beside username"),
        ('[influx]\nca_file = "p"\n', "influx.ca_file does nothing for http://127.0.0.1:8086"),
    ],
)  # fmt: skip
def test_a_secret_that_protects_nothing_is_named_and_ends_nothing(head: str, says: str) -> None:
    (found,) = unused(parse(whole(head=head)))
    assert found.startswith(says)


def test_sources_are_looked_at_too_and_what_is_right_is_not_named() -> None:
    assert unused(parse(whole(source='ca_file = "p"\n')))[0].startswith("sources[0].ca_file does nothing")
    assert unused(parse(whole())) == []


@pytest.mark.parametrize(
    ("channel", "key", "says"),
    [
        ('clock = "sensor"\n', "machines[0].channels[0]", "needs a stamped format"),
        ('capture = "snapshot"\n', "machines[0].channels[0]", "needs period_s"),
        ("period_s = 600\n", "machines[0].channels[0]", "belongs to capture"),
        ("index = 2\ninterleaved = 2\n", "machines[0].channels[0]", "does not fit"),
        ("scale = inf\n", "machines[0].channels[0].scale", "finite"),
        ("rate_hz = nan\n", "machines[0].channels[0].rate_hz", "finite"),
        ("rate_hz = 0.0001\n", "machines[0].channels[0].rate_hz", "greater than or equal"),
        ("rate_hz = 300000\n", "machines[0].channels[0].rate_hz", "200000"),
        ('source = "daq"\n', "machines[0].channels[0].source", "plant"),
        ('topic = "raw/#"\n', "machines[0].channels[0].topic", "wildcard"),
        ('topic = "raw/{chanel}"\n', "machines[0].channels[0].topic", "{chanel} is not known"),
        ('topic = ""\n', "machines[0].channels[0].topic", "is required"),
        ('capture = "snapshot"\nperiod_s = 600\nstale_s = 60\n', "machines[0].channels[0].stale_s", "shorter"),
    ],
)  # fmt: skip
def test_a_channel_that_cannot_work_is_refused(channel: str, key: str, says: str) -> None:
    given = {line.split(" = ")[0] for line in channel.splitlines()}
    lines = [line for line in CHANNEL.splitlines(keepends=True) if line.split(" = ")[0] not in given]
    found = mistakes(HEAD + SOURCE + MACHINE + "".join(lines) + channel)
    assert set(found) == {key}
    assert says in found[key]


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://h", "mqtt://"),
        ("h:1883", "mqtt://"),
        ("mqtt://", "no host"),
        ("mqtt://h:99999", "range"),
        ("mqtt://[::1", "IPv6"),
    ],
)
def test_a_url_that_leads_nowhere_is_refused(url: str, says: str) -> None:
    found = mistakes(HEAD + f'[mqtt]\nurl = "{url}"\n')
    assert says in found["mqtt.url"]


def test_persistent_sessions_need_stamps() -> None:
    found = mistakes(whole(source="qos = 1\n"))
    assert "qos = 0" in found["machines[0].channels[0].format"]


def test_two_channels_of_one_topic_need_an_index_each() -> None:
    twin = CHANNEL.replace('"vib"', '"amp"', 1)
    assert "already bound" in mistakes(whole() + twin)["machines[0].channels[1].topic"]
    assert len(parse(whole() + twin + "index = 1\n").machines[0].channels) == 2
    assert len(parse(whole('format = "json"\n') + twin + 'format = "json"\n').machines[0].channels) == 2


def test_names_are_unique_and_not_reserved() -> None:
    text = whole() + CHANNEL.replace("raw/vib", "raw/2") + MACHINE + CHANNEL.replace("raw/vib", "raw/3")
    assert set(mistakes(text + SOURCE)) == {"sources", "machines[0].channels[1].id", "machines[1].id"}
    assert set(mistakes(whole().replace("press-07", "status"))) == {"machines[0].id"}


def test_defaults_of_a_machine_are_those_of_its_channels_unless_they_say_otherwise() -> None:
    config = parse(
        HEAD + SOURCE + MACHINE
        + '[machines.defaults]\nsource = "plant"\nrate_hz = 8000\ntopic = "raw/{machine}/{channel}"\nunit = "g"\n'
        + '[[machines.channels]]\nid = "a"\n[[machines.channels]]\nid = "b"\nunit = "A"\n'
    )  # fmt: skip
    assert [(c.rate_hz, c.unit, c.source) for c in config.machines[0].channels] == [
        (8000, "g", "plant"), (8000, "A", "plant"),
    ]  # fmt: skip


def test_a_mistake_in_the_defaults_is_found() -> None:
    text = HEAD + SOURCE + MACHINE + "[machines.defaults]\nscal = 1\n" + CHANNEL
    assert set(mistakes(text)) == {"machines[0].channels[0].scal"}


def test_an_unknown_machine_is_answered_with_those_there_are() -> None:
    with pytest.raises(ConfigError, match=r"'mill' is not in the configuration; it has: press-07"):
        parse(whole()).machine("mill")


def test_a_channel_is_stale_after_three_periods_or_two_windows_and_at_least_ten_seconds() -> None:
    def stale_s(channel: str = "", window: str = "") -> float:
        config = parse(whole(channel, head=window))
        return config.stale_after_s(config.machines[0].channels[0])

    assert stale_s() == 10.0
    assert stale_s(window="[window]\nlength_s = 8.0\n") == 16.0
    assert stale_s('capture = "snapshot"\nperiod_s = 600\n') == 1800
    assert stale_s("stale_s = 3\n") == 3


def test_a_file_that_cannot_be_read_is_a_clear_mistake(tmp_path: Path) -> None:
    missing, folder, binary, broken = tmp_path / "none.toml", tmp_path, tmp_path / "b.toml", tmp_path / "c.toml"
    binary.write_bytes(b"\xff\xfe\x00")
    broken.write_text("site = ")
    for path, says in (
        (missing, "fisher-agent init"), (folder, "cannot be read"), (binary, "cannot be read"), (broken, "is not TOML"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=says) as wrong:
            load(path)
        assert str(path) in str(wrong.value)


def test_the_environment_names_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FISHER_CONFIG", "/srv/agent.toml")
    assert default_path() == Path("/srv/agent.toml")
    monkeypatch.setenv("FISHER_CONFIG", "")
    assert default_path() == Path("/etc/fisher-agent/config.toml")


def test_a_configuration_cannot_change() -> None:
    config = parse(whole())
    with pytest.raises(ValueError, match="frozen"):
        config.site = "other"
    assert isinstance(config, Config)


BEARING = '[[machines.bearings]]\nid = "de"\nballs = 9\nball_mm = 7.94\npitch_mm = 39.04\n'
SPEED = '[[machines.channels]]\nid = "speed"\nrate_hz = 1\nsource = "plant"\ntopic = "raw/speed"\nunit = "rpm"\n'


def test_a_bearing_is_configured_by_geometry_and_speed() -> None:
    text = whole('kind = "vibration"\n', machine="shaft_hz = 29.95\n") + BEARING
    (bearing,) = parse(text).machine("press-07").bearings
    assert (bearing.balls, bearing.ball_mm, bearing.pitch_mm, bearing.contact_deg) == (9, 7.94, 39.04, 0.0)
    text = whole('kind = "vibration"\n', machine='speed_channel = "speed"\n') + SPEED + BEARING
    assert parse(text).machine("press-07").speed_channel == "speed"


@pytest.mark.parametrize(
    ("text", "key", "says"),
    [
        (whole('kind = "vibration"\n') + BEARING, "machines[0].bearings", "give shaft_hz or speed_channel"),
        (whole(machine="shaft_hz = 25") + BEARING, "machines[0].bearings[0].channels", "no vibration channel"),
        (
            whole(machine="shaft_hz = 25") + BEARING + 'channels = ["vib", "viv"]',
            "machines[0].bearings[0].channels",
            "'viv' is not a channel of this machine (vib)",
        ),
        (
            whole('kind = "vibration"\n', machine="shaft_hz = 25") + BEARING + BEARING,
            "machines[0].bearings[1].id",
            "used twice",
        ),
        (
            whole('kind = "vibration"\n', machine="shaft_hz = 25") + BEARING.replace("7.94", "40"),
            "machines[0].bearings[0].ball_mm",
            "40 does not fit pitch_mm 39.04",
        ),
        (whole(machine="shaft_hz = 25") + BEARING.replace("9\n", "2\n", 1), "machines[0].bearings[0].balls", "3"),
        (whole(machine="shaft_hz = 25") + BEARING + "contact_deg = 90", "machines[0].bearings[0].contact_deg", "90"),
        (whole(machine="shaft_hz = 0"), "machines[0].shaft_hz", "greater than 0"),
        (whole(machine="speed_tolerance = 0.5"), "machines[0].speed_tolerance", "0.1"),
        (whole(machine='speed_channel = "spd"') + SPEED, "machines[0].speed_channel", "(vib, speed)"),
        (whole(machine='speed_channel = "vib"'), "machines[0].speed_channel", "must be Hz, rpm, 1/min"),
        (
            whole(machine='shaft_hz = 25\nspeed_channel = "speed"') + SPEED,
            "machines[0].speed_channel",
            "name one of the two",
        ),
        (whole(head="[capture]\nbefore_s = -1\n"), "capture.before_s", "-1"),
        (whole(head="[capture]\nafter_s = 4000\n"), "capture.after_s", "3600"),
        (whole(head="[capture]\nmax_mb = 0\n"), "capture.max_mb", "1"),
        (whole(head="[capture]\nring_mb = 'much'\n"), "capture.ring_mb", "number"),
        (whole(head="[capture]\nenabled = 'perhaps'\n"), "capture.enabled", "boolean"),
        (whole(head="[capture]\nseconds = 3\n"), "capture.seconds", "unknown key"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_captures_speeds_and_bearings_is_named_by_its_key(text: str, key: str, says: str) -> None:
    found = mistakes(text)
    assert says in found[key], found
