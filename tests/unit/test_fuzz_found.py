"""What fuzzing found, each with the smallest input that did it: every one is a clear error now, or is taken.

Here what arrives and what is configured; beside it the files (`test_fuzz_found_files`) and what is kept
(`test_fuzz_found_state`).
"""

import asyncio
import json
import struct
from pathlib import Path

import pytest

from fisher_agent import control
from fisher_agent.commands import RefusedCommand
from fisher_agent.commands import parse as parse_command
from fisher_agent.configfile import parse
from fisher_agent.errors import BadPayload, ConfigError
from fisher_agent.jsontext import MAX_DEPTH, loads, shown
from fisher_agent.wire import Decoder, decoder_for
from pageplant import running_plant

DEEP = "[" * 990 + "]" * 990  # near to where Python gives up
DEEP_BEYOND = "[" * 60_000 + "]" * 60_000
T_NS = 1_795_000_000_000_000_000
SOURCES = 'site = "s"\nedge = "e"\n[[sources]]\nname = "plant"\ntype = "zmq"\nurl = "tcp://127.0.0.1:1"\n'
CHANNEL = '[[machines]]\nid = "m"\n[[machines.channels]]\nid = "a"\nsource = "plant"\ntopic = "t"\nrate_hz = 8000\n'


# -- payloads and commands --------------------------------------------------------------------------------------------


def decoder(form: str, **keys: str) -> Decoder:
    more = "".join(f'{k} = "{v}"\n' for k, v in keys.items())
    return decoder_for(parse(f'{SOURCES}{CHANNEL}format = "{form}"\n{more}'), "plant")


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        ('{"t":-1.7e308,"samples":[1]}', "time"),  # OverflowError: it became infinite when it was scaled
        ('{"t":-1' + "0" * 4290 + ',"samples":[1]}', "time"),  # ValueError: too many digits to be shown
        ('{"t":' + DEEP[20:-20] + ',"samples":[1]}', "time"),
        ('{"rate":5e-324,"samples":[1]}', "rate"),  # OverflowError: the block never ends
        ('{"rate":"' + "a" * 300 + '","samples":[1]}', "rate"),
    ],
)
def test_a_json_payload_with_numbers_at_the_edge_is_dropped(payload: str, reason: str) -> None:
    for subject in (decoder("json"), decoder("json", clock="arrival")):
        with pytest.raises(BadPayload) as caught:
            subject.decode("t", payload.encode(), mono_ns=1, utc_ns=T_NS)
        assert caught.value.reason in (reason, "not-json")
        assert len(str(caught.value)) < 300


@pytest.mark.parametrize("part", ["[],", "{},", "[" * 900 + "]" * 900 + ",", ':"k",'])
def test_a_json_payload_of_many_parts_is_dropped_before_it_is_parsed(
    part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 2.8 MB of them took the event loop a second and 155 MB.
    body = '{"samples":[1],"more":[' + part * (4100 // part.count(part[0]) + 1) + "1]}"
    monkeypatch.setattr(json, "loads", lambda _: pytest.fail("it was parsed"))
    with pytest.raises(BadPayload, match=r"\d+ lists, objects and keys; a message has a few for each"):
        decoder("json").decode("t", body.encode(), mono_ns=1, utc_ns=T_NS)


def test_a_json_payload_with_a_few_lists_more_is_taken() -> None:
    body = '{"samples":[1,2],"rate":1000,"more":[' + "[]," * 4000 + "1]}"
    (frame,) = decoder("json").decode("t", body.encode(), mono_ns=1, utc_ns=T_NS)
    assert frame.samples.tolist() == [1, 2]


def test_a_frame_whose_rate_is_almost_nothing_is_dropped() -> None:
    head = struct.pack("<4sBBHqdII", b"FSH1", 1, 1, 0, T_NS, 1e-300, 0, 1)
    with pytest.raises(BadPayload) as caught:
        decoder("fisher-frame/1", clock="arrival").decode("t", head + bytes(4), mono_ns=1, utc_ns=T_NS)
    assert caught.value.reason == "rate"


@pytest.mark.parametrize("depth", [60, 900, 950, 960, 970, 975, 980, 985, 990, 1900])
@pytest.mark.parametrize("key", ["until", "occurrence", "by", "ts"])
def test_a_command_that_is_nested_is_refused_at_every_depth(depth: int, key: str) -> None:
    payload = f'{{"{key}":{"[" * depth}{"]" * depth}}}'.encode()
    with pytest.raises(RefusedCommand, match="JSON"):
        parse_command("m", "ack", payload, now_ms=0)


def test_json_is_taken_down_to_the_depth_that_is_said_and_shown_shortly() -> None:
    assert loads("[" * MAX_DEPTH + "]" * MAX_DEPTH)
    with pytest.raises(ValueError, match="nested deeper"):
        loads("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1))
    with pytest.raises(ValueError, match="nested deeper"):
        loads(DEEP_BEYOND)
    assert (shown([1] * 99), shown("a" * 99), shown(1.5)) == ("a list", "'" + "a" * 41, "1.5")


# -- configuration ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a = " + "{a=" * 330 + "1" + "}" * 330, "is not TOML"),  # RecursionError
        ("a = " + "[" * 5000, "is not TOML"),
        ("a = " + "9" * 4301, "is not TOML"),  # ValueError: too many digits
        (SOURCES + CHANNEL.replace('"t"', '"a\\u0000b"'), r"machines\[0\].channels\[0\].topic: holds U\+0000"),
        (SOURCES.replace("\n", '\nstate_dir = "a\\u0000b"\n', 1), r"state_dir: holds U\+0000"),
        (SOURCES + CHANNEL.replace('"t"', '"' + "a" * 70_000 + '"'), "is longer than 4096 bytes"),
    ],
)
def test_a_configuration_that_cannot_be_used_says_where(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse(text)


# -- the control socket -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "request_line",
    [
        "[" * 60_000,  # RecursionError: no answer was sent
        '{"verb":"ack","machine":"mill-01","occurrence":Infinity}',  # OverflowError: no answer
        '{"verb":"ack","machine":"mill-01","occurrence":' + str(2**70) + "}",
        '{"verb":"shelve","machine":"mill-01","until_ms":' + str(10**30) + "}",
        '{"verb":"suppress","machine":"mill-01","by":"\\ud800"}',
        '{"verb":"enroll","machine":"mill-01","duration_s":1e400}',
        '{"verb":"enroll","machine":"mill-01","duration_s":NaN}',
        '{"verb":"confirm","machine":"mill-01","false_alarm":1e400}',
    ],
)
async def test_every_request_to_the_control_socket_is_answered(tmp_path: Path, request_line: str) -> None:
    async with running_plant(tmp_path, machines=1) as plant:
        server = asyncio.create_task(control.serve(plant.agent))
        path = control.socket_path(plant.agent.config)
        async with asyncio.timeout(20):
            while not path.exists():
                await asyncio.sleep(0)
            reader, writer = await asyncio.open_unix_connection(path)
            writer.write(request_line.encode() + b"\n")
            answer = json.loads(await reader.readline())
            writer.close()
            await writer.wait_closed()
        server.cancel()
        await asyncio.gather(server, return_exceptions=True)
    assert answer["ok"] is False
    assert answer["exit"] == 2
    assert len(answer["error"]) < 300
