"""The bytes of a recording -> named columns of stored samples, unscaled; one small reader per file format."""

import csv
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from fisher_agent.errors import BadFile, ConfigError
from fisher_agent.wire import MAX_T_NS
from fisher_models.npz import archive, mapped
from fisher_models.sound import decoded

MAX_SAMPLES = 2**28  # 1 GiB as float32: 2.9 hours of one channel at 25.6 kHz
MAX_CSV_BYTES = 2**30


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """One column of a file."""

    name: str  # "" where the format has no names
    values: NDArray[Any]  # (n,) as stored: integers or floats
    rate_hz: float | None = None  # where the file states it
    t_ns: int | None = None  # event time of values[0], where the file states it


def read_series(path: Path) -> list[Series]:
    """Every column of a file, each not empty and finite; BadFile says what is wrong and where."""
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise BadFile(f"{path}: {path.suffix or 'no suffix'} is no known format; known are {', '.join(READERS)}")
    try:
        series = list(reader(path))
    except FileNotFoundError as error:
        raise BadFile(f"{path} does not exist") from error
    except OSError as error:
        raise BadFile(f"{path} cannot be read: {error}") from error
    if not series or any(not len(s.values) for s in series):
        raise BadFile(f"{path} holds no samples")
    for i, s in enumerate(series):
        bad = np.flatnonzero(~np.isfinite(s.values))
        if bad.size:
            value = s.values[bad[0]]
            raise BadFile(
                f"{path}: sample {bad[0]} (from 0) of column {s.name or i} is {value}; {bad.size} are not finite"
            )
    return series


# libsndfile reads 8 and 24 bit into wider integers, shifted up; the shift is taken back to get the stored integer.
_SUBTYPES = {
    "PCM_S8": ("int16", 8),
    "PCM_U8": ("int16", 8),
    "PCM_16": ("int16", 0),
    "PCM_24": ("int32", 8),
    "PCM_32": ("int32", 0),
    "FLOAT": ("float32", 0),
    "DOUBLE": ("float64", 0),
}


def _sound(path: Path) -> Iterator[Series]:
    if path.stat().st_size == 0:
        return
    try:
        with soundfile.SoundFile(path) as file:
            if file.subtype not in _SUBTYPES:
                raise BadFile(f"{path} is {file.subtype}, which is not lossless; convert it to PCM or float samples")
            dtype, shift = _SUBTYPES[file.subtype]
            _check_size(path, file.frames * file.channels)
            data = decoded(file, dtype, size=path.stat().st_size)  # (n, channels)
            rate_hz, expected = float(file.samplerate), max(file.frames, _wav_frames(path, file.channels, file.subtype))
    except soundfile.LibsndfileError as error:
        raise BadFile(
            f"{path} is not a readable {path.suffix[1:]} file, or is cut short: {error.error_string}"
        ) from error
    if len(data) < expected:
        raise BadFile(f"{path} is cut short: it holds {len(data)} of {expected} samples per channel")
    for column in data.T:
        yield Series("", column >> shift if shift else column, rate_hz)


def _wav_frames(path: Path, channels: int, subtype: str) -> int:
    """Samples per channel that a WAV header promises; libsndfile silently reads what is there instead. 0: unknown."""
    size = {"PCM_S8": 1, "PCM_U8": 1, "PCM_16": 2, "PCM_24": 3, "PCM_32": 4, "FLOAT": 4, "DOUBLE": 8}[subtype]
    with path.open("rb") as file:
        if file.read(4) != b"RIFF":
            return 0
        file.seek(12)
        while len(header := file.read(8)) == 8:
            length = int.from_bytes(header[4:], "little")
            if header[:4] == b"data":
                return 0 if length >= 0xFFFFFFF0 else length // (channels * size)  # a stream states no length
            file.seek(length + length % 2, 1)
    return 0


def _npz(path: Path) -> Iterator[Series]:
    """Arrays named by channel; `rate_hz` and `t_ns` hold for all, `ID.rate_hz` and `ID.t_ns` for one."""
    try:
        arrays = archive(path, max_bytes=8 * MAX_SAMPLES)
    except ValueError as error:
        raise BadFile(f"{path} is not a readable npz file, or is cut short: {error}") from error
    about = {name: a for name, a in arrays.items() if name.rpartition(".")[2] in ("rate_hz", "t_ns")}
    for name, array in arrays.items():
        if name in about:
            continue
        rate = about.get(f"{name}.rate_hz", about.get("rate_hz"))
        start = about.get(f"{name}.t_ns", about.get("t_ns"))
        try:
            rate_hz = None if rate is None else float(rate.item())
            t_ns = None if start is None else int(start.item())
        except (ValueError, TypeError, OverflowError) as error:
            raise BadFile(f"{path}: rate_hz and t_ns of {name!r} must each be one number: {error}") from error
        if rate_hz is not None and not (math.isfinite(rate_hz) and rate_hz > 0):
            raise BadFile(f"{path}: rate_hz of {name!r} is {rate_hz}")
        if t_ns is not None and not 0 <= t_ns <= MAX_T_NS:
            raise BadFile(f"{path}: t_ns of {name!r} is {t_ns}, which is not between 1970 and 2255")
        if array.ndim != 1:
            raise BadFile(f"{path}: array {name!r} has shape {array.shape}; a channel has one dimension")
        yield Series(name, _numbers(path, array), rate_hz, t_ns)


def _npy(path: Path) -> Iterator[Series]:
    """(n,) or (n, channels): rows are samples."""
    if path.stat().st_size == 0:
        return
    try:
        array = mapped(path)
    except ValueError as error:
        raise BadFile(f"{path} is not a readable npy file, or is cut short: {error}") from error
    if array.ndim not in (1, 2):
        raise BadFile(f"{path} has shape {array.shape}; expected (samples,) or (samples, channels)")
    _check_size(path, array.size)
    for column in _numbers(path, array if array.ndim == 2 else array[:, None]).T:
        yield Series("", np.ascontiguousarray(column))


def _csv(path: Path) -> Iterator[Series]:
    """One row per sample, an optional line of names; separated by comma, semicolon or tab."""
    if path.stat().st_size > MAX_CSV_BYTES:
        raise BadFile(f"{path} is larger than {MAX_CSV_BYTES >> 20} MiB; split it, or convert it to flac")
    try:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            first = lines.readline().strip()
            more = any(line.strip() for line in lines)  # stops at the first
    except UnicodeDecodeError as error:
        raise BadFile(f"{path} is not text: {error}") from error
    if not first:
        return
    separator = max(",;\t", key=first.count)
    try:
        cells = next(csv.reader([first], delimiter=separator))
    except csv.Error as error:
        raise BadFile(f"{path} line 1 is no line of a table: {error}") from error
    named = not all(_is_number(cell) for cell in cells)
    if named and not more:
        return
    names = [c.strip() for c in cells] if named else [""] * len(cells)
    try:
        table = np.loadtxt(
            path, np.float64, delimiter=separator, skiprows=int(named), comments=None, ndmin=2, encoding="utf-8-sig"
        )
        whole = table.shape[0] == 0 or (table.shape[1] == len(names) and bool(np.isfinite(table).all()))
    except ValueError:
        whole = False
    if not whole:  # only now the slow way, which knows lines
        raise BadFile(_csv_fault(path, separator, columns=len(names), named=named))
    for name, column in zip(names, table.T, strict=False):
        yield Series(name, np.ascontiguousarray(column))


def _csv_fault(path: Path, separator: str, *, columns: int, named: bool) -> str:
    try:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            for number, line in enumerate(lines, start=1):
                cells = line.rstrip("\r\n").split(separator)
                if (number == 1 and named) or not line.strip():
                    continue
                if len(cells) != columns:
                    return f"{path} line {number} has {len(cells)} cells, line 1 has {columns}"
                for i, cell in enumerate(cells):
                    if not _is_number(cell) or not math.isfinite(float(cell)):
                        return f"{path} line {number}: column {i} is {cell.strip()!r}, not a finite number"
    except UnicodeDecodeError as error:
        return f"{path} is not text: {error}"
    return f"{path} cannot be read as a table of numbers"


def _parquet(path: Path) -> Iterator[Series]:
    try:
        from pyarrow import ArrowException, parquet  # an extra: only who reads parquet has it
    except ImportError as error:
        raise ConfigError(
            f"{path} needs pyarrow, which is not installed: pip install 'fisher-agent[parquet]'"
        ) from error
    try:
        with parquet.ParquetFile(path) as file:
            _check_size(path, file.metadata.num_rows * file.metadata.num_columns)
            table = file.read()
        for name, column in zip(table.column_names, table.columns, strict=True):
            if column.null_count:
                raise BadFile(f"{path}: column {name!r} has {column.null_count} empty cells")
            yield Series(name, _numbers(path, column.to_numpy()))
    except (ArrowException, UnicodeDecodeError) as error:  # the latter for a column's name
        raise BadFile(f"{path} is not a readable parquet file, or is cut short: {error}") from error


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _numbers(path: Path, array: NDArray[Any]) -> NDArray[Any]:
    if array.dtype.kind not in "iuf":
        raise BadFile(f"{path} holds {array.dtype} values; samples are integers or floats")
    return array


def _check_size(path: Path, samples: int) -> None:
    if samples > MAX_SAMPLES:
        raise BadFile(f"{path} holds {samples} samples, more than {MAX_SAMPLES}; split it into shorter recordings")


READERS: dict[str, Callable[[Path], Iterator[Series]]] = {
    ".wav": _sound,
    ".flac": _sound,
    ".npz": _npz,
    ".npy": _npy,
    ".csv": _csv,
    ".parquet": _parquet,
}
