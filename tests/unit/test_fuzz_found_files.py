"""What fuzzing found in banks, recordings and bundles, each with the smallest input that did it."""

import io
import json
import math
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import soundfile

from fakes import PRESS, WINDOW, channel, machine, running
from fisher_agent.bank import Bank
from fisher_agent.bankfiles import BankFiles
from fisher_agent.bankset import BankSet
from fisher_agent.errors import BadFile
from fisher_agent.files import read_many
from fisher_agent.keptrecordings import pack, unpack
from fisher_agent.keptwaves import KeptWaves
from fisher_agent.rawfiles import arrays_of
from fisher_agent.rawfiles import unpack as unpack_samples
from fisher_agent.recordings import load_manifest
from fisher_agent.tables import read_series
from fisher_models import bundle as bundles
from fisher_models.errors import BundleError, RecordingError
from fisher_models.frontend import FrontendSpec
from fisher_models.npz import archive
from fisher_models.recordings import from_files, from_manifest

DEEP_BEYOND = "[" * 60_000 + "]" * 60_000
T_NS = 1_795_000_000_000_000_000


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
