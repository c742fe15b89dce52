"""Recordings on disk to physical samples: wav, flac, npz, npy, alone or listed in a data set's manifest."""

import csv
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import soundfile

from fisher_models.errors import RecordingError
from fisher_models.frontend import Floats

# libsndfile gives integers as fractions of full scale; times this they are the stored integers again, exactly.
_FULL_SCALE = {"PCM_16": 2**15, "PCM_24": 2**23, "FLOAT": 1, "DOUBLE": 1}
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
        return column if self.scale is None else column * np.float32(self.scale * full_scale)


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
    except (OSError, UnicodeDecodeError) as error:
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
                float(row["sample_rate_hz"]),
                row["label"],
                float(row["scale"]),
                int(row["segment_len"]) if row.get("segment_len") else None,
                float(row["segment_period_s"]) if row.get("segment_period_s") else None,
            )
        except (ValueError, TypeError) as error:
            raise RecordingError(f"{manifest}, line {number}: {error}") from error
        recordings.append(recording)
    return recordings


@lru_cache(maxsize=1)  # a manifest lists the channels of a file one after the other
def _read(path: Path) -> tuple[Floats, float | None, int]:
    """(n, channels) float32, the rate where the file states it, and what full scale is in stored integers."""
    suffix = path.suffix.lower()
    if not path.is_file():
        raise RecordingError(f"{path} does not exist, or is no file")
    try:
        if suffix == ".npz":
            return _read_npz(path)
        if suffix == ".npy":
            return _read_npy(path)
        if suffix not in (".wav", ".flac"):
            known = ".wav, .flac, .npz, .npy"
            raise RecordingError(f"{path}: {suffix or 'no suffix'} is no known format; known are {known}")
        with soundfile.SoundFile(path) as file:
            if file.subtype not in _FULL_SCALE:
                raise RecordingError(f"{path} holds {file.subtype} samples; known are {', '.join(_FULL_SCALE)}")
            data: Floats = file.read(dtype="float32", always_2d=True)
            if len(data) != file.frames:
                raise RecordingError(f"{path} is cut short: it holds {len(data)} of {file.frames} samples")
            return data, float(file.samplerate), _FULL_SCALE[file.subtype]
    except (OSError, soundfile.LibsndfileError, zipfile.BadZipFile, ValueError, EOFError) as error:
        raise RecordingError(f"{path} cannot be read: {error}") from error


def _read_npz(path: Path) -> tuple[Floats, float | None, int]:
    names = _npz_channels(path)
    with np.load(path, allow_pickle=False) as archive:
        columns = [archive[name] for name in names]
        rate_hz = float(archive["rate_hz"].item()) if "rate_hz" in archive.files else None
    if not columns or any(c.ndim != 1 or len(c) != len(columns[0]) for c in columns):
        raise RecordingError(f"{path} must hold one-dimensional arrays of equal length, one per channel")
    return np.stack(columns, axis=1).astype(np.float32), rate_hz, 1


def _read_npy(path: Path) -> tuple[Floats, float | None, int]:
    data = np.load(path, allow_pickle=False)
    if data.ndim not in (1, 2) or data.dtype.kind not in "iuf":
        raise RecordingError(f"{path} must hold numbers, (samples,) or (samples, channels)")
    return data.reshape(len(data), -1).astype(np.float32), None, 1


def _npz_channels(path: Path) -> list[str]:
    with np.load(path, allow_pickle=False) as archive:
        return [name for name in archive.files if name.rpartition(".")[2] not in ("rate_hz", "t_ns")]
