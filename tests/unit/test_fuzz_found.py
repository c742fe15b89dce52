"""What fuzzing found, each with the smallest input that did it: every one is a clear error now, or is taken."""

# Over 400 lines: one list of defects, short and alike; by module it would be a dozen files.

import asyncio
import io
import json
import math
import sqlite3
import struct
import zipfile
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import soundfile

from alarming import raised
from fakes import PRESS, WINDOW, channel, machine, running
from fisher_agent import control
from fisher_agent.bank import Bank
from fisher_agent.bankfiles import BankFiles
from fisher_agent.bankset import BankSet
from fisher_agent.captures import CaptureFiles
from fisher_agent.commands import RefusedCommand
from fisher_agent.commands import parse as parse_command
from fisher_agent.configfile import parse
from fisher_agent.errors import BadFile, BadPayload, ConfigError
from fisher_agent.files import read_many
from fisher_agent.history import History
from fisher_agent.jsontext import MAX_DEPTH, loads, shown
from fisher_agent.keptrecordings import pack, unpack
from fisher_agent.keptwaves import KeptWaves
from fisher_agent.lifecycle import Alarm
from fisher_agent.maintenance import Window
from fisher_agent.page.charts import charts
from fisher_agent.page.evidence import Evidence
from fisher_agent.page.guard import _same
from fisher_agent.probation import Probation
from fisher_agent.rawfiles import arrays_of, npz
from fisher_agent.rawfiles import unpack as unpack_samples
from fisher_agent.recordings import load_manifest
from fisher_agent.shares import Share
from fisher_agent.statedb import DATABASE
from fisher_agent.store import Store
from fisher_agent.storerows import Score
from fisher_agent.tables import read_series
from fisher_agent.wire import Decoder, decoder_for
from fisher_models import bundle as bundles
from fisher_models.errors import BundleError, RecordingError
from fisher_models.frontend import FrontendSpec
from fisher_models.npz import archive
from fisher_models.recordings import from_files, from_manifest
from fuzz.targets.state import PROBATION
from pageplant import ask, running_plant, write_capture

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


# -- banks and what lies beside them ----------------------------------------------------------------------------------


def safetensors_of(metadata: dict[str, str]) -> bytes:
    header = json.dumps({"__metadata__": metadata}).encode()
    return len(header).to_bytes(8, "little") + header


def test_a_bank_whose_manifest_is_nested_without_end_is_no_bank() -> None:
    for key in ("bank", "banks"):
        for kind in (Bank, BankSet):
            with pytest.raises(BadFile, match="no bank of fisher-agent"):
                kind.from_bytes(safetensors_of({key: "[" * 60_000}))


@pytest.mark.parametrize("where", ["machine", "fault_labels"])
def test_a_bank_whose_text_could_not_be_written_again_is_no_bank(where: str) -> None:
    manifest = json.dumps({"format": "fisher.bank/1", where: "\ud800"})
    with pytest.raises(BadFile, match="no bank of fisher-agent"):
        Bank.from_bytes(safetensors_of({"bank": manifest}))


def test_a_bank_file_that_names_a_mode_twice_is_refused() -> None:
    part = np.frombuffer(b"x", np.uint8)
    named = json.dumps({"format": "fisher.banks/1", "modes": ["idle", "idle"]})
    with pytest.raises(BadFile):
        BankSet.from_bytes(safetensors.numpy.save({"mode.idle": part}, metadata={"banks": named}))


@pytest.mark.parametrize("refined", [{"from": "v1"}, {"": 0}, {"from": ["v1"]}, 7, "v1"])
def test_a_manifest_that_leads_in_a_circle_ends(tmp_path: Path, refined: Any) -> None:
    files = BankFiles(tmp_path)
    files.save("m", "v1", data=b"x", manifest={"refined": refined})
    files.activate("m", "v1")
    assert files.waiting("m") is None


def test_the_name_of_the_active_version_ends_where_it_ends(tmp_path: Path) -> None:
    files = BankFiles(tmp_path)
    files.save("m", "v1", data=b"x", manifest={})
    (tmp_path / "m" / "active").write_text("v1\n")
    with pytest.raises(BadFile, match="names no version"):
        files.active("m")


def test_a_manifest_whose_number_is_infinite_stands_last(tmp_path: Path) -> None:
    files = BankFiles(tmp_path)
    for version in ("v1", "v2"):
        files.save("m", version, data=b"x", manifest={})
    (tmp_path / "m" / "v1" / "manifest.json").write_text('{"files": {}, "number": 1e400}')
    assert files.versions("m") == ["v2", "v1"]


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("rate_hz", 0.0), ("rate_hz", math.nan), ("rate_hz", -1.0), ("t_ns", -1), ("t_ns", 2**63 - 1), ("length", 0),
        ("length", 2**62), ("samples", math.inf),
    ],
)  # fmt: skip
def test_kept_waveforms_with_impossible_blocks_are_damaged(part: str, value: float) -> None:
    arrays = safetensors.numpy.load(pack({"": running(seconds=1)}))
    changed = arrays[f"/vib/{part}"].copy()
    changed[0] = value
    with pytest.raises(BadFile, match="damaged"):
        unpack(safetensors.numpy.save({**arrays, f"/vib/{part}": changed}))


@pytest.mark.parametrize("shape", [(), (1, 2)])
def test_kept_waveforms_of_another_shape_are_damaged(shape: tuple[int, ...]) -> None:
    arrays = safetensors.numpy.load(pack({"": running(seconds=1)}))
    with pytest.raises(BadFile, match="damaged"):
        unpack(safetensors.numpy.save({**arrays, "/vib/t_ns": np.zeros(shape, np.int64)}))


def test_kept_waveforms_beyond_single_precision_are_damaged(tmp_path: Path) -> None:
    arrays = safetensors.numpy.load(pack({"": running(seconds=10)}))
    path = tmp_path / "waveforms.safetensors"
    path.write_bytes(safetensors.numpy.save({**arrays, "/vib/samples": np.full(arrays["/vib/samples"].shape, 1e300)}))
    with pytest.raises(BadFile, match="cannot be read: overflow"):
        KeptWaves(path, machine=PRESS, window=WINDOW).moments([int(arrays["/vib/t_ns"][-1])])


@pytest.mark.parametrize("dtype", ["BF16", "F8_E4M3", "F8_E5M2"])
def test_kept_waveforms_of_a_type_that_numpy_has_not_are_damaged(tmp_path: Path, dtype: str) -> None:
    size = 1 if dtype.startswith("F8") else 2
    names = [f"/vib/{part}" for part in ("samples", "t_ns", "rate_hz", "length", "gap")]
    header = {
        name: {"dtype": dtype, "shape": [1], "data_offsets": [n * size, (n + 1) * size]} for n, name in enumerate(names)
    }
    text = json.dumps(header).encode()
    path = tmp_path / "waveforms.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(5 * size))
    with pytest.raises(BadFile, match="cannot be read"):
        KeptWaves(path, machine=PRESS, window=WINDOW).moments([T_NS])
    with pytest.raises(BadFile):
        unpack(path.read_bytes())


# -- recordings -------------------------------------------------------------------------------------------------------


def npy(descr: str = "'<f4'", shape: str = "(2,)", *, header: str | None = None, body: bytes = bytes(8)) -> bytes:
    text = header or f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode() + body


DAMAGED_NPY = {
    "a body that is not there": npy(shape="(100000000000,)"),  # MemoryError
    "elements of 2 GB": npy("'|V2000000000'", "(1,)"),
    "a shape beyond 64 bits": npy("'|S0'", "(18446744073709551616,)"),  # OverflowError
    "a negative shape": npy(shape="(-1,)"),
    "a shape of a flag": npy(shape="(True,)"),  # TypeError
    "an open bracket": npy(header="{'"),  # tokenize.TokenError
    "an indentation": npy(header="  x\n y\n"),  # IndentationError
    "objects": npy("'|O'"),
    "brackets without end": npy(shape="(" * 900 + ")" * 900),
}


@pytest.mark.parametrize("body", DAMAGED_NPY.values(), ids=DAMAGED_NPY.keys())
def test_an_npy_file_that_cannot_be_is_refused_wherever_it_is_read(tmp_path: Path, body: bytes) -> None:
    (tmp_path / "x.npy").write_bytes(body)
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as file:
        file.writestr("vib.npy", body)
    for name in ("x.npy", "x.npz"):
        with pytest.raises(BadFile):
            read_series(tmp_path / name)
        with pytest.raises(RecordingError):
            list(from_files([tmp_path / name]))
    with pytest.raises(BadFile):
        arrays_of((tmp_path / "x.npz").read_bytes())


def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    np.savez_compressed(path, vib=np.zeros(30_000_000, np.float32))
    assert path.stat().st_size < 1_000_000
    with pytest.raises(BadFile, match="save it without compression"):
        read_series(path)
    with pytest.raises(RecordingError, match="save it without compression"):
        list(from_files([path]))


def test_an_npz_file_that_is_packed_as_numpy_does_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    samples = np.random.default_rng(1).normal(size=(5, 3))
    np.savez_compressed(path, a=samples, b=np.asfortranarray(samples), c=np.float64(3), d=np.zeros((0, 2), np.int16))
    found = archive(path, max_bytes=10_000)
    assert np.array_equal(found["a"], samples)
    assert np.array_equal(found["b"], samples)
    assert (found["c"].shape, found["d"].shape, found["d"].dtype) == ((), (0, 2), np.int16)


def test_an_entry_without_a_name_or_with_another_packing_is_refused() -> None:
    for name, packing in (("", zipfile.ZIP_STORED), ("a.npy", zipfile.ZIP_BZIP2), ("a.npy", zipfile.ZIP_LZMA)):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as file:
            file.writestr(zipfile.ZipInfo(name), b"" if not name else npy(), packing)
        with pytest.raises(ValueError, match=r"npy file|npz files are not"):
            archive(buffer.getvalue(), max_bytes=10**6)


def test_a_flac_header_that_promises_gigabytes_is_not_believed(tmp_path: Path) -> None:
    """36 bits of STREAMINFO count the samples (RFC 9639, 8.2); np.empty of them was 4 to 128 GB."""
    buffer = io.BytesIO()
    soundfile.write(buffer, (np.arange(400) % 50).astype(np.int16), 8000, format="FLAC", subtype="PCM_16")
    for promised in (2**27, 2**35):
        body = bytearray(buffer.getvalue())
        body[21] = body[21] & 0xF0 | promised >> 32
        body[22:26] = (promised & 0xFFFFFFFF).to_bytes(4, "big")
        with pytest.raises(BadFile, match="FLAC file"):
            unpack_samples(bytes(body), form="i16", scale=1.0)
        (tmp_path / "x.flac").write_bytes(body)
        with pytest.raises(BadFile, match=r"cut short|more than"):
            read_series(tmp_path / "x.flac")
        with pytest.raises(RecordingError):
            [r.samples() for r in from_files([tmp_path / "x.flac"])]


TWO = machine(channel("vib", 8000), channel("amp", 8000))


@pytest.mark.parametrize("value", [math.inf, -1.0, 2.0**63])
def test_an_npz_file_with_an_impossible_time_is_refused(tmp_path: Path, value: float) -> None:
    np.savez(tmp_path / "x.npz", vib=np.ones(9), rate_hz=8000.0, t_ns=value)
    with pytest.raises(BadFile, match="t_ns"):
        read_series(tmp_path / "x.npz")


@pytest.mark.parametrize(
    ("name", "body", "said"),
    [
        ("x.csv", b"vib\n1e300\n", "beyond single precision"),  # it became infinite, and reached the windows
        ("x.csv", b"vib" + b"a" * 140_000 + b"\n1\n", "line 1 is no line of a table"),  # csv.Error
    ],
)
def test_a_table_that_cannot_be_samples_is_refused(tmp_path: Path, name: str, body: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(body)
    with pytest.raises(BadFile, match=said):
        list(read_many([tmp_path / name], machine=TWO, window=WINDOW, rate_hz=8000.0))


HEAD = "file,channel,sample_rate_hz,scale,channel_index,label,segment_len,segment_period_s\n"


@pytest.mark.parametrize(
    "row",
    [
        "a.wav,vib,8000,1,0,,0,1.0",  # ZeroDivisionError
        "a.wav,vib,8000,1,0,,-5,1.0",
        "a.wav,vib,8000,1,0,,2,nan",
        "a.wav,vib,8000,1,0,,2,1e300",  # OverflowError
        "a.wav,vib,nan,1,0,,,",
        "a.wav,vib,8000,inf,0,,,",
        "a\x00.wav,vib,8000,1,0,,,",  # ValueError
        "a" * 300 + ",vib,8000,1,0,,,",  # OSError
    ],
)
def test_a_manifest_with_a_value_that_none_can_have_is_refused(tmp_path: Path, row: str) -> None:
    soundfile.write(tmp_path / "a.wav", np.ones(400, np.int16), 8000)
    (tmp_path / "m.csv").write_text(HEAD + row + "\n")
    with pytest.raises(BadFile):
        list(read_many(load_manifest(tmp_path / "m.csv"), machine=TWO, window=WINDOW))
    if "1e300" not in row:  # of how far snapshots lie apart only the agent makes times
        with pytest.raises(RecordingError):
            [r.samples() for r in from_manifest(tmp_path / "m.csv")]


def test_a_line_of_a_manifest_that_ends_early_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("file,sample_rate_hz,scale,channel_index,channel\na.wav,8000,1,0\n")
    with pytest.raises(BadFile, match=r"m\.csv line 2: the line ends before channel"):
        load_manifest(tmp_path / "m.csv")
    with pytest.raises(RecordingError):
        from_manifest(tmp_path / "m.csv")


def test_a_scale_that_no_sample_survives_gives_no_warning(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.ones(400, np.int16), 8000)
    (tmp_path / "m.csv").write_text(HEAD + "a.wav,vib,8000,1e39,0,,,\n")
    (recording,) = from_manifest(tmp_path / "m.csv")
    assert not np.isfinite(recording.samples()).any(), "the front-end refuses it by name"


# -- bundles ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [DEEP_BEYOND, '{"schema":' + DEEP_BEYOND])
def test_a_bundle_whose_manifest_is_nested_without_end_is_damaged(tmp_path: Path, bad: str) -> None:
    (tmp_path / "manifest.json").write_text(bad)
    with pytest.raises(BundleError, match="damaged"):
        bundles.load(tmp_path)


@pytest.mark.parametrize(
    "bands",
    [
        np.zeros((), np.float32), np.full((1, 16, 100), 1e300), np.full((1, 16, 100), np.nan, np.float32),
        np.ones((1, 16, 100), np.complex64), np.ones((1, 16, 100), np.int64),
    ],
)  # fmt: skip
def test_a_self_test_that_is_none_is_refused(tmp_path: Path, bands: np.ndarray[Any, Any]) -> None:
    rest = {"centres": np.zeros(1, np.float32), "embedding": np.zeros((1, 8), np.float32)}
    safetensors.numpy.save_file({"bands": bands, **rest}, tmp_path / "selftest.safetensors")
    with pytest.raises(BundleError, match=r"shapes|not finite|instead of floats"):
        bundles._selftest(tmp_path / "selftest.safetensors", FrontendSpec(mean=0.0, divisor=1.0, band_bins=100))


def test_a_self_test_of_a_type_that_numpy_has_not_is_refused(tmp_path: Path) -> None:
    text = json.dumps({"bands": {"dtype": "F8_E4M3", "shape": [1], "data_offsets": [0, 1]}}).encode()
    path = tmp_path / "selftest.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"\0")
    with pytest.raises(BundleError, match="holds no self-test"):
        bundles._selftest(path, FrontendSpec(mean=0.0, divisor=1.0, band_bins=100))


@pytest.mark.parametrize("value", [math.nan, math.inf, 10**400])
def test_a_front_end_of_no_number_is_refused(value: float) -> None:
    good = FrontendSpec(mean=0.0, divisor=1.0, band_bins=100).to_dict()
    with pytest.raises(BundleError, match="mean is beyond"):
        FrontendSpec.from_dict({**good, "mean": value})


# -- captures and the page --------------------------------------------------------------------------------------------


def captured(folder: Path, change: Any) -> None:
    write_capture(folder, "mill-01", 7)
    path = folder / "captures" / "mill-01" / "7" / "capture.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def set_first(key: str, value: Any) -> Any:
    return lambda document: document["channels"][0].update({key: value})


@pytest.mark.parametrize(
    "change",
    [
        set_first("scale", 10**400), set_first("scale", math.nan), set_first("rate_hz", 10**400),
        set_first("rate_hz", 5e-324), set_first("t_ns", 2**63), set_first("blocks", [[2**63, 307200, False]]),
        lambda d: d["verdict"].update({"t_ns": "x"}), lambda d: d["verdict"].update({"window_s": math.nan}),
        lambda d: d["verdict"].update({"t_ns": None}), lambda d: d["verdict"].update({"window_s": 1e300}),
    ],
)  # fmt: skip
def test_a_capture_with_an_impossible_number_is_damaged(tmp_path: Path, change: Any) -> None:
    captured(tmp_path, change)
    with pytest.raises(BadFile):
        Evidence(tmp_path).alarmed("mill-01", 7, "vib")
    assert len(CaptureFiles(tmp_path / "captures").rows()) == 1


@pytest.mark.parametrize("nearest", [7, [7], [{"channel": "vib"}], [], None])
def test_what_is_said_of_the_nearest_window_may_be_anything(tmp_path: Path, nearest: Any) -> None:
    captured(tmp_path, lambda d: d["explanation"].update({"nearest": nearest}))
    assert Evidence(tmp_path).nearest("mill-01", 7, "vib").t_ns == 0


def test_the_nearest_window_of_a_channel_that_is_not_there_is_no_defect(tmp_path: Path) -> None:
    captured(tmp_path, lambda d: d["channels"].pop(0))
    with pytest.raises(BadFile, match="no channel"):
        Evidence(tmp_path).nearest("mill-01", 7, "vib")


def test_the_rate_of_a_nearest_window_is_a_rate(tmp_path: Path) -> None:
    files = {"nearest-vib.npz": npz(samples=np.ones(5, np.float32), rate_hz=0.0)}
    document = {
        "schema": "fisher.capture/1", "machine": "m", "alarm": "a", "occurrence": 7, "onset_ns": 0, "raised_ns": 0,
        "text": "", "bank": "", "model": "", "channels": [], "verdict": {}, "explanation": {},
    }  # fmt: skip
    kept = CaptureFiles(tmp_path)
    kept.save("m", "7", document=document, files=files, max_bytes=10**6)
    with pytest.raises(BadFile, match="rate_hz"):
        kept.nearest("m", 7, "vib")


def test_an_origin_that_is_no_address_is_another_one() -> None:
    assert not _same(["http://[::1"], "127.0.0.1")


async def test_what_a_browser_asks_of_occurrences_is_never_a_defect(tmp_path: Path) -> None:
    async with running_plant(tmp_path, machines=1) as plant:
        captured(plant.agent.config.state_dir, lambda d: d["verdict"].update({"score": math.inf}))
        for number in ("9" * 70, "9" * 5000, "%20", "-1", "1e9", "٣"):
            for rest in ("", "/waveform/vib", "/spectrograms/vib"):
                path = f"/api/machines/mill-01/captures/{number}{rest}".replace("٣", "%D9%A3")
                assert (await ask(plant.port, path)).status == 404
        answer = await ask(plant.port, "/api/machines/mill-01/captures/7")
        assert answer.json["verdict"]["score"] is None
        headers = {"Content-Type": "application/json", "X-Fisher": "1", "Origin": "http://[::1"}
        assert (await ask(plant.port, "/api/logout", method="POST", headers=headers)).status == 403


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


# -- the state database -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("score", "x"), ("score", []), ("occurrence", 2**70), ("occurrence", 1.5), ("acked", "yes"), ("alarm", 9),
        ("top_share", {}), ("shelved_until", "1"), ("score", 10**400), ("base", 7.5), ("by", None),
    ],
)  # fmt: skip
def test_a_stored_alarm_with_a_value_of_another_type_is_no_alarm(key: str, value: Any) -> None:
    document = json.loads(raised().anomaly.to_json())
    assert Alarm.from_json(json.dumps(document)) == raised().anomaly
    with pytest.raises(BadFile, match="not an alarm"):
        Alarm.from_json(json.dumps({**document, key: value}))
    with pytest.raises(BadFile, match="not an alarm"):
        Alarm.from_json(DEEP_BEYOND)


def test_one_damaged_row_of_the_journal_does_not_keep_the_agent_from_starting(tmp_path: Path) -> None:
    with Store.open(tmp_path, max_outbox_bytes=10**6) as store:
        store.commit_alarms("m", [raised().anomaly], 3)
        change(tmp_path, "UPDATE journal SET body = '{}'")
        assert store.raised_since(0) == []
        assert store.journal("m") == []
        assert ["cannot be read and is left out" in note for note in store.notes] == [True]


def change(folder: Path, statement: str, *values: Any) -> None:
    with closing(sqlite3.connect(folder / DATABASE)) as db, db:
        db.execute(statement, values)


@pytest.mark.parametrize("value", ["CAST(x'fffe' AS TEXT)", "x'ff'", "'x'", "1e300"])
def test_a_time_that_is_no_number_does_not_make_the_history_endless(tmp_path: Path, value: str) -> None:
    with Store.open(tmp_path, max_outbox_bytes=10**6) as store:
        store.add_scores([Score("m", T_NS + n, 0.5, 0.5, 0, 0, 0) for n in range(3)])
        change(tmp_path, f"UPDATE score SET t_ns = {value} WHERE id = 2")
        assert [past.t_ns for past in store.past("m", 0)] == [T_NS, T_NS + 2]


def test_rows_of_other_types_stop_neither_the_outbox_nor_an_alarm(tmp_path: Path) -> None:
    with Store.open(tmp_path, max_outbox_bytes=10**6) as store:
        store.commit_alarms("m", [raised().anomaly], 3)
        for table, column in (("machine", "occurrence"), ("alarm", "body")):
            change(tmp_path, f"UPDATE {table} SET {column} = CAST(x'fffe' AS TEXT)")
        assert store.load_alarms("m") == ([], 0)
        change(tmp_path, "INSERT INTO outbox VALUES (1, 'influx', 0, '', 0, 0, CAST(x'fffe' AS TEXT), 2)")
        change(tmp_path, "INSERT INTO outbox VALUES (2, 'mqtt', 0, x'ff', 2147483648, 0, 'x', 2)")
        assert store.peek("influx", 9) == [(1, "\ufffd\ufffd")]
        ((_, message),) = store.peek("mqtt", 9)
        assert (message.topic, message.qos, message.payload) == ("\ufffd", 0, b"x")


@pytest.mark.parametrize("value", ["-9e999", "9e999", "'x'", "x'ff'"])
def test_the_ends_of_a_history_are_times(tmp_path: Path, value: str) -> None:
    with Store.open(tmp_path, max_outbox_bytes=10**6) as store:
        store.add_scores([Score("m", T_NS, 0.5, 0.5, 0, 0, 0)])
        change(tmp_path, f"UPDATE score SET t_ns = {value}")
        assert (History(tmp_path).latest_ns("m"), History(tmp_path).earliest_ns("m")) == (0, 0)


def test_a_schema_whose_damage_sqlite_cannot_name_in_utf_8_is_set_aside(tmp_path: Path) -> None:
    """UnicodeDecodeError from sqlite3 itself, at every start."""
    with Store.open(tmp_path, max_outbox_bytes=10**6) as store:
        store.fault_code("m", "bearing")
    with closing(sqlite3.connect(tmp_path / DATABASE)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    body = (tmp_path / DATABASE).read_bytes()
    name = body.index(b"tablefaultfault") + len(b"table")
    (tmp_path / DATABASE).write_bytes(
        body[:name] + b"fau\xfbt" + body[name + 5 :].replace(b"CREATE TABLE fault", b"CREATE TABL\xff fault")
    )
    with Store.open(tmp_path, max_outbox_bytes=10**6) as store:
        assert "was damaged" in store.notes[0]


def test_a_counter_that_is_endless_and_a_code_that_cannot_be_given_are_no_defects(tmp_path: Path) -> None:
    with Store.open(tmp_path, max_outbox_bytes=10**6) as store:
        change(tmp_path, "UPDATE counter SET value = 9e999 WHERE name = 'bytes'")
        assert store.outbox_bytes > 10**6
        change(
            tmp_path, "CREATE TRIGGER lost AFTER INSERT ON fault BEGIN DELETE FROM fault; END"
        )  # as a broken index does
        with pytest.raises(BadFile, match="start the agent again"):
            store.fault_code("m", "bearing")
    assert (tmp_path / "state.db.suspect").exists()


@pytest.mark.parametrize("lost", ["", " WHERE name = 'held'", " WHERE queue = 'mqtt'"])
def test_counters_that_are_lost_are_damage(tmp_path: Path, lost: str) -> None:
    with Store.open(tmp_path, max_outbox_bytes=10**6) as store:
        change(tmp_path, f"DELETE FROM counter{lost}")
        assert store.outbox_bytes == 0
        with pytest.raises(BadFile, match="counters of mqtt are lost; start the agent again"):
            store.counters("mqtt")
    with Store.open(tmp_path, max_outbox_bytes=10**6) as store:
        assert "was damaged" in store.notes[0]
        assert store.counters("mqtt").held == 0


@pytest.mark.parametrize(("column", "value"), [("score", "'x'"), ("score", "9e999"), ("level", "9e999")])
def test_a_score_that_is_no_number_does_not_hide_the_chart(tmp_path: Path, column: str, value: str) -> None:
    with Store.open(tmp_path, max_outbox_bytes=10**6) as store:
        store.add_scores([Score("m", T_NS + n * 10**9, 0.5, 0.5, 0, 0, 0) for n in range(20)])
        change(tmp_path, f"UPDATE score SET {column} = {value} WHERE id = 3")
        made = charts(History(tmp_path), "m", until_ns=T_NS + 20 * 10**9, span_ns=20 * 10**9, points=20)
        assert 0.5 in json.loads(json.dumps(made, allow_nan=False))["scores"]["high"]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("per_h", 5e-324), ("limit", [1]), ("windows", 0), ("m", "5"), ("recent", ["x"]), ("pending", [[1]]),
        ("step_s", []), ("margin_limit", math.nan), ("since_s", 1e300), ("count", 10**400), ("least_apart", 0),
        ("spoilt", 1), ("bank", 7), ("limit", math.inf),
    ],
)  # fmt: skip
def test_a_stored_probation_that_cannot_be_begins_anew(key: str, value: Any) -> None:
    top = np.array([0.9, 0.5]).astype("<f8").tobytes()
    assert Probation.restore(json.dumps(PROBATION), top).facts(T_NS)
    with pytest.raises(BadFile, match="not a probation"):
        Probation.restore(json.dumps({**PROBATION, key: value}), top)


def test_maxima_that_are_out_of_order_are_no_probation() -> None:
    for maxima in ([0.5, 0.9], [math.inf, 0.5], [0.9, math.nan]):
        with pytest.raises(BadFile, match="not a probation"):
            Probation.restore(json.dumps(PROBATION), np.array(maxima).astype("<f8").tobytes())


@pytest.mark.parametrize("body", ['{"c":{"a":"x"},"b":{}}', '{"c":{"a":1' + "0" * 400 + '},"b":{}}', DEEP_BEYOND, "{}"])
def test_a_row_of_shares_without_numbers_is_none(body: str) -> None:
    with pytest.raises(BadFile, match="not a row of shares"):
        Share.from_row("m", T_NS, body)


@pytest.mark.parametrize("until", ["1e400", '"x"', "1" + "0" * 400, "null", "1.5"])
def test_a_maintenance_without_a_time_is_none(until: str) -> None:
    with pytest.raises(BadFile, match="no maintenance"):
        Window.from_json(f'{{"since_ms":0,"until_ms":{until},"by":""}}')
