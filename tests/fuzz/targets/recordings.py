"""Files of recordings, as `enroll --from`, `score`, `replay` and `fisher-models` read them, and their manifests."""

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from random import Random

import numpy as np
import soundfile

from fakes import WINDOW, channel, machine
from fisher_agent.errors import FisherError
from fisher_agent.files import read_many
from fisher_agent.recordings import load_manifest
from fisher_agent.tables import read_series
from fisher_models.errors import ModelError
from fisher_models.recordings import _read, from_files, from_manifest
from fuzz.harness import Opened, Target
from fuzz.mutate import Make, damaged, mixed
from fuzz.targets.archives import an_npy, an_npz

PRESS = machine(channel("vib", 8000), channel("amp", 8000), channel("temp", 2))
CELLS = (
    "nan", "inf", "-inf", "1e400", "1e300", "1e39", "-1e39", "", " ", "x", "1_0", "0x10", "1,5", '"', '"a', "\x00",
    "\ud7ff", "9" * 5000, "1e-400", "-", "١", "1 2", "#", "\r", "True", "1j", "0", "-1", "5",
    "1e-320", "../x", "a" * 140_000,
)  # fmt: skip


def _sound() -> list[bytes]:
    rng = np.random.default_rng(4)
    one = (rng.normal(size=400) * 2000).astype(np.int16)
    many = [
        (one, "WAV", "PCM_16"), (np.stack([one, one], 1), "WAV", "PCM_24"), (one / 40000, "WAV", "FLOAT"),
        (one, "WAV", "PCM_U8"), (one, "FLAC", "PCM_16"), (np.stack([one, one], 1), "FLAC", "PCM_24"),
        (one / 40000, "WAV", "DOUBLE"), (one, "AIFF", "PCM_16"), (np.zeros(9000, np.int16), "FLAC", "PCM_16"),
    ]  # fmt: skip
    found = []
    for data, form, subtype in many:
        buffer = io.BytesIO()
        soundfile.write(buffer, data, 8000, format=form, subtype=subtype)
        found.append(buffer.getvalue())
    return found


@contextmanager
def _files(suffix: str, samples: Callable[[], Sequence[bytes]], make: Make | None, work: Path) -> Iterator[Opened]:
    """One file, read as an enrolment does, once with names and rates of its own and once with those that are given."""
    whole = samples()
    path = work / f"x{suffix}"
    options = [[("vib", str(path), "0")], [("amp", str(path), "1"), ("vib", str(path), "vib")]]

    def run(data: bytes) -> None:
        path.write_bytes(data)
        for s in read_series(path):
            assert len(s.values)
        refused: FisherError | None = None
        taken = 0
        for rate_hz, channel_map in ((None, None), (8000.0, None), (8000.0, options[0]), (8000.0, options[1])):
            try:
                for frame in read_many([path], machine=PRESS, window=WINDOW, rate_hz=rate_hz, channel_map=channel_map):
                    assert frame.samples.dtype == np.float32
                    assert np.isfinite(frame.samples).all(), "a sample is not finite"
                    assert abs(frame.t_ns) < 2**63, "a time does not fit 64 bits"
                taken += 1
            except FisherError as error:
                refused = error
        if refused is not None and not taken:
            raise refused

    damage = partial(damaged, samples=whole)
    yield Opened(whole, mixed((0.5, damage), (0.5, make)) if make else damage, run)


@contextmanager
def _models(work: Path) -> Iterator[Opened]:
    """The same formats, as `fisher-models embed` reads them; the first byte chooses."""
    suffixes = (".wav", ".flac", ".npz", ".npy")
    sound = _sound()
    whole = [b"\x00" + sound[0], b"\x01" + sound[4], b"\x02" + _npz_samples()[0]]

    def run(data: bytes) -> None:
        path = work / f"x{suffixes[(data[0] if data else 0) % 4]}"
        path.write_bytes(data[1:])
        _read.cache_clear()
        for recording in from_files([path]):
            recording.samples()

    def make(rng: Random) -> bytes:
        return b"\x02" + an_npz(rng) if rng.random() < 0.6 else b"\x03" + an_npy(rng)

    yield Opened(whole, mixed((0.5, lambda rng: damaged(rng, whole)), (0.5, make)), run)


def _npz_samples() -> list[bytes]:
    found = []
    for arrays in ({"vib": np.ones(9, np.float32), "rate_hz": 8000.0}, {"vib": np.arange(9), "vib.rate_hz": 8000}):
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)
        found.append(buffer.getvalue())
    buffer = io.BytesIO()
    np.savez_compressed(buffer, vib=np.ones(9), amp=np.ones(9), rate_hz=8000, t_ns=1_795_000_000_000_000_000)
    return [*found, buffer.getvalue()]


def _npy_samples() -> list[bytes]:
    found = []
    for array in (np.ones((9, 2), np.float32), np.asfortranarray(np.arange(20).reshape(10, 2))):
        buffer = io.BytesIO()
        np.save(buffer, array)
        found.append(buffer.getvalue())
    return found


def _csv_samples() -> list[bytes]:
    return [b"vib,amp\n" + b"1.5,2\n" * 9, b"1;2\n3;4\n", b"\xef\xbb\xbfvib\tamp\r\n1\t2\r\n3\t4\r\n"]


def _csv(rng: Random) -> bytes:
    """A table with one to three strange cells or lines."""
    separator = rng.choice((",", ";", "\t"))
    rows = [["vib", "amp"], *([str(n), "2.5"] for n in range(rng.choice((1, 5, 40))))]
    for _ in range(rng.choice((1, 1, 2, 3))):
        row = rng.choice(rows)
        kind = rng.randrange(4)
        if kind < 2 and row:
            row[rng.randrange(len(row))] = rng.choice(CELLS)
        elif kind == 2:
            row.append(rng.choice(CELLS))
        else:
            row[:] = row[: rng.randrange(3)]
    return rng.choice(("\n", "\r\n", "\r")).join(separator.join(row) for row in rows).encode("utf-8", "surrogatepass")


def _parquet_samples() -> list[bytes]:
    import pyarrow as pa
    from pyarrow import parquet

    tables = [
        pa.table({"vib": np.arange(50, dtype=np.float32), "amp": np.arange(50)}),
        pa.table({"vib": pa.array([1.0, 2.0]), "amp": pa.array([1, 2], pa.int16())}),
    ]
    found = []
    for table, compression in ((tables[0], "snappy"), (tables[1], "none"), (tables[0], "gzip")):
        buffer = io.BytesIO()
        parquet.write_table(table, buffer, compression=compression)
        found.append(buffer.getvalue())
    return found


def _parquet_types(rng: Random) -> bytes:
    """Sound files of columns that are no samples."""
    import pyarrow as pa
    from pyarrow import parquet

    columns = [
        pa.array([1.0, float("nan")]), pa.array([1, None]), pa.array(["a", "b"]), pa.array([[1], [2, 3]]),
        pa.array([{"a": 1}, {"a": 2}]), pa.array([b"x", b"y"]), pa.array([True, False]), pa.array([None, None]),
        pa.array([1e300, -1e300]), pa.array([1, 2], pa.timestamp("ns")), pa.array([1, 2], pa.decimal128(5)),
        pa.array(["a", "a"]).dictionary_encode(), pa.array([2**64 - 1, 0], pa.uint64()), pa.array([1, 2], pa.float16()),
        pa.array([1, 2], pa.date32()), pa.array([1, 2], pa.duration("s")), pa.chunked_array([[1.0], [2.0]]),
    ]  # fmt: skip
    names = rng.choices(("vib", "amp", "", "\x00", "é"), k=rng.choice((1, 2, 3)))
    buffer = io.BytesIO()
    parquet.write_table(pa.table([rng.choice(columns) for _ in names], names=names), buffer)
    return buffer.getvalue()


HEAD = "file,channel,sample_rate_hz,scale,channel_index,recording_id,label,segment_len,segment_period_s"


def _manifest(rng: Random) -> bytes:
    rows = [HEAD.split(","), ["a.wav", "vib", "8000", "0.001", "0", "r1", "ok", "", ""]]
    rows.append(["a.wav", "amp", "8000", "1", "1", "r1", "ok", "200", "1.0"])
    for _ in range(rng.choice((1, 1, 2, 3))):
        row = rng.choice(rows)
        if rng.random() < 0.85:
            row[rng.randrange(len(row))] = rng.choice(CELLS)
        elif rng.random() < 0.5:
            row.append(rng.choice(CELLS))
        else:
            del row[-1]
    return "\n".join(",".join(row) for row in rows).encode("utf-8", "surrogatepass")


@contextmanager
def _manifests(work: Path) -> Iterator[Opened]:
    """Both readers of manifests, and what they name is read."""
    (work / "a.wav").write_bytes(_sound()[1])
    path = work / "manifest.csv"
    whole = [f"{HEAD}\na.wav,vib,8000,0.001,0,r,ok,,\n".encode(), f"{HEAD}\na.wav,vib,8000,1,1,,,200,1.0\n".encode()]

    def run(data: bytes) -> None:
        path.write_bytes(data)
        refused: Exception | None = None
        try:
            for frame in read_many(load_manifest(path), machine=PRESS, window=WINDOW):
                assert np.isfinite(frame.samples).all(), "a sample is not finite"
        except FisherError as error:
            refused = error
        for recording in from_manifest(path):
            recording.samples()
        if refused is not None:
            raise refused

    yield Opened(whole, mixed((0.8, _manifest), (0.2, lambda rng: damaged(rng, whole))), run)


def _target(suffix: str, samples: Callable[[], Sequence[bytes]], make: Make | None, share: float) -> Target:
    return Target(f"recording{suffix}", partial(_files, suffix, samples, make), share=share)


TARGETS = (
    _target(".wav", _sound, None, 0.1),
    _target(".flac", _sound, None, 0.1),
    _target(".npz", _npz_samples, an_npz, 0.1),
    _target(".npy", _npy_samples, an_npy, 0.1),
    _target(".csv", _csv_samples, _csv, 0.1),
    _target(".parquet", _parquet_samples, _parquet_types, 0.05),
    Target("recording-manifest", _manifests, allowed=(FisherError, ModelError), share=0.1),
    Target("models-recording", _models, allowed=(ModelError,), share=0.2),
)
