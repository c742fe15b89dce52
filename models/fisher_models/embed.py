"""Recordings to a table of embeddings: a row per window and channel, written as npz without pickle."""

import math
import os
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fisher_models.errors import SignalError
from fisher_models.execute import Runner
from fisher_models.frontend import Floats, Frontend, FrontendSpec
from fisher_models.recordings import Recording

WINDOWS_AT_ONCE = 16


@dataclass(slots=True)
class Table:
    """Rows in the order they were made; `embeddings` differ in length, since that depends on the rate."""

    file: list[str] = field(default_factory=list)
    channel: list[str] = field(default_factory=list)
    t_s: list[float] = field(default_factory=list)
    rate_hz: list[float] = field(default_factory=list)
    label: list[str] = field(default_factory=list)
    embeddings: list[Floats] = field(default_factory=list)  # (n_bands * d,) each

    def save(self, out: Path) -> None:
        """Write the columns, `values` (float32, end to end) and `offsets` (rows + 1); whole or not at all."""
        columns: dict[str, NDArray[Any]] = {
            "file": np.array(self.file, np.str_),
            "channel": np.array(self.channel, np.str_),
            "t_s": np.array(self.t_s, np.float64),
            "rate_hz": np.array(self.rate_hz, np.float64),
            "label": np.array(self.label, np.str_),
            "values": np.concatenate(self.embeddings, dtype=np.float32),
            "offsets": np.cumsum([0, *(len(e) for e in self.embeddings)], dtype=np.int64),
        }
        handle, name = tempfile.mkstemp(prefix=f".{out.name}-", dir=out.parent)
        try:
            # numpy's savez cannot hold an array named "file", which is what its own first parameter is called
            with os.fdopen(handle, "wb") as file, zipfile.ZipFile(file, "w") as archive:
                for column, array in columns.items():
                    with archive.open(f"{column}.npy", "w", force_zip64=True) as entry:
                        np.lib.format.write_array(entry, array, allow_pickle=False)
            Path(name).chmod(0o644)
            Path(name).replace(out)
        finally:
            Path(name).unlink(missing_ok=True)


def embed(recordings: Iterable[Recording], spec: FrontendSpec, run: Runner, *, window_s: float) -> Table:
    """Tile every recording with windows that do not overlap and embed them.

    What is left at the end and fills no window is left out; a recording or snapshot shorter than a window is one
    window by itself; a window never spans two snapshots. Raises SignalError naming the recording.
    """
    if not (0 < window_s <= spec.longest_s and window_s < math.inf):
        raise SignalError(f"a window of {window_s:g} s: the model sees more than 0 and at most {spec.longest_s:g} s")
    frontend, table = Frontend(spec), Table()
    for recording in recordings:
        try:
            for t_s, embedding in _rows(recording, frontend, run, window_s):
                table.file.append(recording.file)
                table.channel.append(recording.channel)
                table.t_s.append(t_s)
                table.rate_hz.append(recording.rate_hz)
                table.label.append(recording.label)
                table.embeddings.append(embedding)
        except SignalError as error:
            raise SignalError(f"{recording.file}, channel {recording.channel}: {error}") from error
    if not table.file:
        raise SignalError("nothing to embed: no recording holds one whole snapshot")
    return table


def _rows(recording: Recording, frontend: Frontend, run: Runner, window_s: float) -> Iterator[tuple[float, Floats]]:
    samples = recording.samples()
    n, starts = windows(len(samples), recording, window_s)
    for i in range(0, len(starts), WINDOWS_AT_ONCE):
        some = starts[i : i + WINDOWS_AT_ONCE]
        made = [frontend.segments(samples[start : start + n], recording.rate_hz) for start, _ in some]
        bands, centres = np.stack([b for b, _ in made]), made[0][1]  # all windows of a recording are equally long
        w, s, b, t, f = bands.shape  # windows, segments, bands, frames, bins
        found = run(bands.reshape(w * s * b, t, f), np.tile(centres, w * s))
        yield from zip((t_s for _, t_s in some), found.reshape(w, s, -1).mean(axis=1), strict=True)


def windows(n_samples: int, recording: Recording, window_s: float) -> tuple[int, list[tuple[int, float]]]:
    """Samples per window, and of each window its first sample and its time from the start of the recording."""
    segment = recording.segment_len or n_samples
    period_s = recording.segment_period_s or segment / recording.rate_hz
    n = min(round(window_s * recording.rate_hz), segment)
    if n == 0:
        raise SignalError("holds no samples")
    return n, [
        (s * segment + start, s * period_s + start / recording.rate_hz)
        for s in range(n_samples // segment)
        for start in range(0, segment - n + 1, n)
    ]
