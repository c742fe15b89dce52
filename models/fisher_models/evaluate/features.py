"""Vectors of a protocol's windows, made once and kept: in memory for a run, and in a folder for the next one."""

import hashlib
import math
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fisher_models.errors import RecordingError
from fisher_models.evaluate.encoders import TARGET_RMS, Encoder
from fisher_models.evaluate.protocol import Bools, Indices, Layout
from fisher_models.evaluate.takes import Cut, Take
from fisher_models.frontend import Floats

_RMS = "rms-1"  # the identity under which the windows' levels are kept


@dataclass(slots=True)
class Store:
    """Arrays by what they were made from: a file's path, size and time, the cut, the gain, and the encoder.

    Without a folder they are kept in memory only. A file is written whole or not at all, so that a run can be ended
    and resumed.
    """

    folder: Path | None = None
    _held: dict[tuple[str, str], Floats] = field(default_factory=dict)

    def get(self, identity: str, parts: Sequence[object], make: Callable[[], Floats]) -> Floats:
        """The array made from `parts`, which `make` is asked for when it is not there yet."""
        key = hashlib.sha256(repr(tuple(parts)).encode()).hexdigest()[:40]
        if (identity, key) not in self._held:
            self._held[identity, key] = self._read_or_make(identity, key, make)
        return self._held[identity, key]

    def forget(self) -> None:
        """Free the memory; the folder stays."""
        self._held.clear()

    def _read_or_make(self, identity: str, key: str, make: Callable[[], Floats]) -> Floats:
        if self.folder is None:
            return make()
        path = self.folder / identity / f"{key}.npy"
        try:
            return np.asarray(np.load(path, allow_pickle=False), np.float32)
        except FileNotFoundError:
            pass
        except (ValueError, EOFError):  # an older, damaged copy: made again below
            path.unlink()
        made = make()
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                np.save(file, made, allow_pickle=False)
            Path(name).replace(path)
        finally:
            Path(name).unlink(missing_ok=True)
        return made


@dataclass(slots=True, eq=False)
class Features:
    """The windows of one protocol's takes, and their vectors by any encoder."""

    takes: Sequence[Take]
    cut: Cut
    store: Store
    levels: list[Floats] = field(init=False)  # of each take (windows, channels): RMS, mean removed

    def __post_init__(self) -> None:
        for channel, recording in enumerate(self.takes[0].channels):
            rates = sorted({self.cut.rate_of(take.channels[channel]) for take in self.takes})
            if len(rates) > 1:
                shown = ", ".join(f"{rate:g}" for rate in rates)
                raise RecordingError(
                    f"channel {recording.channel!r} has windows of {shown} Hz, whose vectors cannot be compared; "
                    "choose one rate by a condition, or resample"
                )
        self.levels = [
            np.stack([self._kept(_RMS, take, c, 1.0, _level) for c in range(len(take.channels))], axis=1)
            for take in self.takes
        ]

    def layout(self, *, marks: bool) -> Layout:
        """A row per window; with `marks` a window is anomalous as its last sample is."""
        take: list[int] = []
        at: list[int] = []
        end_s: list[float] = []
        anomalous: list[bool] = []
        for index, one in enumerate(self.takes):
            recording, rate = one.channels[0], self.cut.rate_of(one.channels[0])
            n, starts = self.cut.starts(len(one.samples(0, self.cut.rate_hz)), recording)
            take += [index] * len(starts)
            at += range(len(starts))
            if recording.segment_len and recording.segment_period_s:
                s, within = np.divmod(np.array(starts), recording.segment_len)
                end_s += (s * recording.segment_period_s + (within + n) / rate).tolist()
            else:
                end_s += [(start + n) / rate for start in starts]
            if marks:
                each = one.anomalous()
                anomalous += [bool(each[start + n - 1]) for start in starts]
        found: Bools | None = np.array(anomalous, bool) if marks else None
        return Layout(np.array(take, np.int64), np.array(at, np.int64), np.array(end_s), found)

    def sees(self, encoder: Encoder) -> bool:
        """Whether an encoder sees every window of every channel."""
        for take in self.takes:
            for recording in take.channels:
                rate = self.cut.rate_of(recording)
                n = min(round(self.cut.window_s * rate), recording.segment_len or round(self.cut.window_s * rate))
                if not encoder.sees(rate, n):
                    return False
        return True

    def gains(self, encoder: Encoder, rows: Indices) -> tuple[float, ...]:
        """Of each channel: what brings the RMS of these rows to 0.1, to the nearest power of 2 (3 dB).

        Rounded so that the splits of one set share their embeddings.
        """
        n_channels = len(self.takes[0].channels)
        if not encoder.levelled:
            return (1.0,) * n_channels
        levels = np.concatenate(self.levels)[rows].astype(np.float64)
        mean = np.sqrt((levels**2).mean(axis=0))
        known: list[float] = mean.tolist()
        return tuple(math.ldexp(1, round(math.log2(TARGET_RMS / rms))) if rms > 0 else 1.0 for rms in known)

    def rows(self, encoder: Encoder, layout: Layout, rows: Indices, gains: Sequence[float]) -> list[Floats]:
        """Of each channel (rows, d)."""
        out = []
        for channel, gain in enumerate(gains):
            pieces = {
                index: self.vectors(encoder, self.takes[index], channel, gain)
                for index in np.unique(layout.take[rows]).tolist()
            }
            out.append(np.stack([pieces[t][a] for t, a in zip(layout.take[rows], layout.at[rows], strict=True)]))
        return out

    def vectors(self, encoder: Encoder, take: Take, channel: int, gain: float) -> Floats:
        """(windows, d) of one channel of one take."""
        return self._kept(
            encoder.identity, take, channel, gain,
            lambda windows, rate: encoder.embed(windows * np.float32(gain), rate),
        )  # fmt: skip

    def _kept(
        self, identity: str, take: Take, channel: int, gain: float, make: Callable[[Floats, float], Floats]
    ) -> Floats:
        recording = take.channels[channel]
        about = recording.path.stat()
        parts = (
            str(recording.path.resolve()), about.st_size, about.st_mtime_ns, recording.index, recording.rate_hz,
            recording.scale, recording.segment_len, self.cut.window_s, self.cut.hop_s, self.cut.rate_hz, gain,
        )  # fmt: skip
        rate = self.cut.rate_of(recording)
        return self.store.get(identity, parts, lambda: make(self.cut.windows(take, channel), rate))


def _level(windows: Floats, _rate_hz: float) -> Floats:
    return np.asarray(windows.std(axis=1, dtype=np.float64), np.float32)
