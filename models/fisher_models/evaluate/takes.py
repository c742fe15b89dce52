"""A labelled data set as its manifest lists it: takes, which are simultaneous channels of one recording, in windows."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from math import gcd
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.signal import resample_poly

from fisher_models.errors import RecordingError
from fisher_models.frontend import Floats
from fisher_models.recordings import Recording, from_manifest

MANIFEST = "manifest.csv"
LABELS = ".labels.npy"  # beside `x.npy` or `x.flac`: a number per sample, not 0 where the sample is anomalous


@dataclass(frozen=True, slots=True)
class Rule:
    """A condition on a manifest's rows: `column=a|b`, or `column!=a|b`; a `*` in a value stands for any text."""

    column: str
    values: frozenset[str]
    negated: bool = False

    @classmethod
    def parse(cls, text: str) -> "Rule":
        """RecordingError for text of another form."""
        column, equals, values = text.partition("=")
        if not (equals and column.removesuffix("!").strip()):
            raise RecordingError(f"{text!r} is no condition; write COLUMN=VALUE, COLUMN=A|B or COLUMN!=VALUE")
        return cls(column.removesuffix("!").strip(), frozenset(values.split("|")), negated=column.endswith("!"))

    def holds(self, fields: Mapping[str, str]) -> bool:
        """Whether a row fulfils it. RecordingError where the manifest has no such column."""
        if self.column not in fields:
            raise RecordingError(f"the manifest has no column {self.column!r}; it has {', '.join(fields)}")
        found = fields[self.column]
        return (found in self.values or any(fnmatchcase(found, v) for v in self.values if "*" in v)) != self.negated


def rules(*texts: str) -> tuple[Rule, ...]:
    """Conditions that must hold together."""
    return tuple(Rule.parse(text) for text in texts)


@dataclass(frozen=True, slots=True)
class Take:
    """What was recorded together: one file's channels, in the order that the protocol names them."""

    fields: Mapping[str, str]  # the manifest's row of the first channel
    channels: tuple[Recording, ...]

    @property
    def recording(self) -> str:
        """What must never lie on both sides of a split."""
        return self.fields["recording_id"]

    def samples(self, channel: int, rate_hz: float | None = None) -> Floats:
        """(n,) in physical units; at `rate_hz`, by a polyphase filter, where that is given."""
        recording = self.channels[channel]
        data = recording.samples()
        if rate_hz is None or rate_hz == recording.rate_hz:
            return data
        if recording.segment_len:
            raise RecordingError(f"{recording.file} holds snapshots laid end to end; it cannot be resampled as a whole")
        up, down = round(rate_hz), round(recording.rate_hz)
        if up != rate_hz or down != recording.rate_hz:
            raise RecordingError(f"{recording.file}: resampling is between whole rates, not {down:g} to {rate_hz:g} Hz")
        common = gcd(up, down)
        return np.asarray(resample_poly(data, up // common, down // common), np.float32)

    def anomalous(self) -> NDArray[np.bool_]:
        """(n,) per sample, from the file beside the recording. RecordingError where there is none."""
        path = self.channels[0].path
        beside = path.with_name(path.stem + LABELS)
        try:
            marks = np.load(beside, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise RecordingError(f"{beside} cannot be read: {error}; it should hold a number per sample") from error
        if marks.ndim != 1:
            raise RecordingError(f"{beside} has {marks.ndim} axes instead of one")
        return np.asarray(marks != 0)


def read_takes(manifest: Path, *, channels: Sequence[str] = (), where: Iterable[Rule] = ()) -> list[Take]:
    """The takes of a manifest that fulfil the conditions, in its order.

    Without `channels` each take has all that its file has. A file that holds none of the named ones is left out; one
    that holds some raises RecordingError, as does a manifest without a take that fits.
    """
    rows = from_manifest(manifest)
    with manifest.open(encoding="utf-8-sig", newline="") as lines:
        fields = list(csv.DictReader(lines))
    found: dict[tuple[str, str], dict[str, tuple[Recording, dict[str, str]]]] = {}
    conditions = tuple(where)
    for recording, row in zip(rows, fields, strict=True):
        row.setdefault("recording_id", row["file"])
        if all(rule.holds(row) for rule in conditions):
            take = found.setdefault((row["recording_id"], row["file"]), {})
            if recording.channel in take:
                raise RecordingError(f"{manifest}: {row['file']} lists the channel {recording.channel!r} twice")
            take[recording.channel] = (recording, row)
    takes = []
    for (_, file), have in found.items():
        wanted = tuple(channels) or tuple(have)
        if lacking := [name for name in wanted if name not in have]:
            if len(lacking) < len(wanted):
                raise RecordingError(f"{manifest}: {file} has no channel {', '.join(lacking)}")
            continue
        takes.append(Take(have[wanted[0]][1], tuple(have[name][0] for name in wanted)))
    if not takes:
        raise RecordingError(f"{manifest} has no row with these channels that fulfils every condition")
    return takes


@dataclass(frozen=True, slots=True)
class Cut:
    """How a take is cut into windows. None spans two snapshots; a snapshot or take shorter than one is one window."""

    window_s: float
    hop_s: float | None = None  # None: windows do not overlap
    rate_hz: float | None = None  # what every channel is resampled to; None: as recorded

    def __post_init__(self) -> None:
        if not (self.window_s > 0 and (self.hop_s is None or self.hop_s > 0)):
            raise RecordingError(f"a window of {self.window_s:g} s and a step of {self.hop_s} s: both must be positive")

    def rate_of(self, recording: Recording) -> float:
        """Of the windows."""
        return recording.rate_hz if self.rate_hz is None else self.rate_hz

    def starts(self, n_samples: int, recording: Recording) -> tuple[int, list[int]]:
        """Samples per window, and the first sample of each, of a take of `n_samples` (after resampling)."""
        rate = self.rate_of(recording)
        segment = recording.segment_len or n_samples
        n = min(round(self.window_s * rate), segment)
        hop = n if self.hop_s is None else max(1, round(self.hop_s * rate))
        if n == 0:
            raise RecordingError(f"{recording.file}: a window of {self.window_s:g} s at {rate:g} Hz holds no sample")
        return n, [s * segment + at for s in range(n_samples // segment) for at in range(0, segment - n + 1, hop)]

    def windows(self, take: Take, channel: int) -> Floats:
        """(windows, n) of one channel."""
        samples = take.samples(channel, self.rate_hz)
        n, starts = self.starts(len(samples), take.channels[channel])
        if not starts:
            raise RecordingError(f"{take.channels[channel].file} holds not one whole snapshot")
        return np.stack([samples[at : at + n] for at in starts])
