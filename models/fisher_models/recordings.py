"""Recordings on disk to physical samples: wav, flac, npz, npy, alone or listed in a data set's manifest."""

import csv
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from fisher_models import npz
from fisher_models.errors import RecordingError
from fisher_models.frontend import Floats
from fisher_models.sound import decoded

# libsndfile gives integers as fractions of full scale; times this they are the stored integers again, exactly.
_FULL_SCALE = {"PCM_16": 2**15, "PCM_24": 2**23, "FLOAT": 1, "DOUBLE": 1}
MAX_BYTES = 2**31  # of an npz file, unpacked
_COLUMNS = {"file", "channel", "channel_index", "sample_rate_hz", "label", "scale"}


@dataclass(frozen=True, slots=True)
class Recording:
    """One channel of one file; `samples` reads it."""

    path: Path
    file: str  # as the manifest or the command line names it
    channel: str
    index: int
    rate_hz: float
    label: str = ""
    scale: float | None = None  # physical value = scale x stored integer; None: as audio, full scale is 1
    segment_len: int | None = None  # samples in each of the snapshots laid end to end
    segment_period_s: float | None = None

    def samples(self) -> Floats:
        """(n,) in physical units. RecordingError where the file does not hold what was promised."""
        data, rate_hz, full_scale = _read(self.path)
        if self.index >= data.shape[1]:
            raise RecordingError(
                f"{self.path} has {data.shape[1]} channels; {self.channel!r} should be number {self.index}"
            )
        if rate_hz and rate_hz != self.rate_hz:
            raise RecordingError(f"{self.path} is sampled at {rate_hz:g} Hz, its manifest says {self.rate_hz:g}")
        column = data[:, self.index]
        if self.scale is None:
            return column
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite then, the front-end refuses
            scaled: Floats = column * np.float32(self.scale * full_scale)
        return scaled


def from_files(paths: Sequence[Path]) -> Iterator[Recording]:
    """Every channel of these files. Rates come from the files; npz holds a channel per array and `rate_hz`."""
    for path in paths:
        data, rate_hz, _ = _read(path)
        if not rate_hz:
            raise RecordingError(f"{path} states no rate; add an array 'rate_hz' of one number")
        names = _npz_channels(path) if path.suffix.lower() == ".npz" else [str(i) for i in range(data.shape[1])]
        for index, name in enumerate(names):
            yield Recording(path, str(path), name, index, rate_hz)


def from_manifest(manifest: Path) -> list[Recording]:
    """The rows of a manifest, in its order; files lie beside it."""
    try:
        with manifest.open(encoding="utf-8-sig", newline="") as lines:
            rows = list(csv.DictReader(lines))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise RecordingError(f"{manifest} cannot be read: {error}") from error
    if not rows:
        raise RecordingError(f"{manifest} lists nothing")
    if missing := sorted(_COLUMNS - rows[0].keys()):
        raise RecordingError(f"{manifest} lacks the columns {', '.join(missing)}")
    recordings = []
    for number, row in enumerate(rows, start=2):
        try:
            recording = Recording(
                manifest.parent / row["file"],
                row["file"],
                row["channel"],
                int(row["channel_index"]),
                _number(row, "sample_rate_hz", above=0.0),
                row["label"],
                _number(row, "scale"),
                int(row["segment_len"]) if row.get("segment_len") else None,
                _number(row, "segment_period_s", above=0.0) if row.get("segment_period_s") else None,
            )
        except (ValueError, TypeError) as error:
            raise RecordingError(f"{manifest}, line {number}: {error}") from error
        if recording.index < 0 or (recording.segment_len is not None and recording.segment_len < 1):
            raise RecordingError(f"{manifest}, line {number}: channel_index counts from 0, segment_len from 1")
        recordings.append(recording)
    return recordings


def _number(row: dict[str, str], name: str, *, above: float = -math.inf) -> float:
    value = float(row[name])
    if not (math.isfinite(value) and above < value):
        raise ValueError(f"{name} is {value}")
    return value


@lru_cache(maxsize=1)  # a manifest lists the channels of a file one after the other
def _read(path: Path) -> tuple[Floats, float | None, int]:
    """(n, channels) float32, the rate where the file states it, and what full scale is in stored integers."""
    suffix = path.suffix.lower()
    try:
        if not path.is_file():
            raise RecordingError(f"{path} does not exist, or is no file")
        if suffix in (".npz", ".npy"):
            return _read_npz(path) if suffix == ".npz" else _read_npy(path)
        if suffix not in (".wav", ".flac"):
            known = ".wav, .flac, .npz, .npy"
            raise RecordingError(f"{path}: {suffix or 'no suffix'} is no known format; known are {known}")
        with soundfile.SoundFile(path) as file:
            if file.subtype not in _FULL_SCALE:
                raise RecordingError(f"{path} holds {file.subtype} samples; known are {', '.join(_FULL_SCALE)}")
            data: Floats = decoded(file, "float32", size=path.stat().st_size)
            if len(data) != file.frames:
                raise RecordingError(f"{path} is cut short: it holds {len(data)} of {file.frames} samples")
            return data, float(file.samplerate), _FULL_SCALE[file.subtype]
    except (OSError, soundfile.LibsndfileError, ValueError) as error:
        raise RecordingError(f"{path} cannot be read: {error}") from error


def _read_npz(path: Path) -> tuple[Floats, float | None, int]:
    arrays = npz.archive(path, max_bytes=MAX_BYTES)
    columns = [arrays[name] for name in _channels_of(arrays)]
    stated = arrays.get("rate_hz")
    if stated is not None and (stated.size != 1 or stated.dtype.kind not in "iuf"):
        raise RecordingError(f"{path}: rate_hz must be one number")
    if not columns or any(c.ndim != 1 or len(c) != len(columns[0]) or c.dtype.kind not in "iuf" for c in columns):
        raise RecordingError(f"{path} must hold one-dimensional arrays of equal length, one per channel, of numbers")
    return _single(np.stack(columns, axis=1)), None if stated is None else float(stated.item()), 1


def _read_npy(path: Path) -> tuple[Floats, float | None, int]:
    data = npz.mapped(path)
    if data.ndim not in (1, 2) or data.dtype.kind not in "iuf":
        raise RecordingError(f"{path} must hold numbers, (samples,) or (samples, channels)")
    return _single(data if data.ndim == 2 else data[:, None]), None, 1


def _single(data: NDArray[Any]) -> Floats:
    """In single precision; what does not fit becomes infinite, and the front-end refuses that."""
    with np.errstate(over="ignore"):
        return data.astype(np.float32)


def _npz_channels(path: Path) -> list[str]:
    return _channels_of(npz.archive(path, max_bytes=MAX_BYTES))


def _channels_of(arrays: Iterable[str]) -> list[str]:
    return [name for name in arrays if name.rpartition(".")[2] not in ("rate_hz", "t_ns")]
