"""What is known of a recording beside its samples: manifests, and the recordings that travel with the package."""

import csv
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path

from fisher_agent.errors import BadFile

DEMO = "mcsa_misalignment"
REQUIRED = ("file", "channel", "sample_rate_hz", "scale", "channel_index")


@dataclass(frozen=True, slots=True)
class Column:
    """Where a channel lies in a file: a column's name or number (from 0), and its own scale if it has one."""

    column: str | int = 0
    scale: float | None = None  # physical value = scale x stored sample; None: the scale of the channel's configuration


@dataclass(frozen=True, slots=True)
class Snapshots:
    """A file of snapshots laid end to end."""

    length: int  # samples in each
    period_s: float  # between their starts


@dataclass(frozen=True, slots=True)
class RecordedFile:
    """One file, and what its samples mean. Files of one `recording_id` were recorded together."""

    path: Path
    channels: Mapping[str, Column] = field(default_factory=dict)  # by channel id; empty: in the machine's order
    rate_hz: float | None = None  # None: the file says it
    snapshots: Snapshots | None = None
    recording_id: str = ""
    label: str = ""  # condition of the equipment
    split: str = ""  # "train" or "test" in the manifest's own division
    severity: str = ""
    operating_point: str = ""


def load_manifest(path: Path) -> list[RecordedFile]:
    """Read a manifest: CSV, one row per channel of each file, paths relative to it; BadFile names the line.

    Columns: file, channel, sample_rate_hz, scale, channel_index; and where they apply recording_id, label,
    split_hint, severity, load_or_speed, segment_len and segment_period_s. Others are ignored. Order is kept.
    """
    try:
        with path.open(encoding="utf-8", newline="") as lines:
            reader = csv.DictReader(lines)
            missing = [name for name in REQUIRED if name not in (reader.fieldnames or ())]
            if missing:
                raise BadFile(f"{path} is not a manifest: it has no column {', '.join(missing)}")
            rows = [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadFile(f"{path} cannot be read as a manifest: {error}") from error

    found: dict[str, RecordedFile] = {}
    for number, row in rows:
        try:
            if short := [name for name in REQUIRED if row[name] is None]:
                raise ValueError(f"the line ends before {', '.join(short)}")
            older = found.get(row["file"])
            column = Column(int(row["channel_index"]), _number(row, "scale"))
            if "\x00" in row["file"]:
                raise ValueError("the name of a file holds U+0000")
            channels = {**(older.channels if older else {}), row["channel"]: column}
            found[row["file"]] = RecordedFile(
                path=path.parent / row["file"],
                channels=channels,
                rate_hz=_number(row, "sample_rate_hz", above=0.0),
                snapshots=_snapshots(row),
                recording_id=row.get("recording_id") or "",
                label=row.get("label") or "",
                split=row.get("split_hint") or "",
                severity=row.get("severity") or "",
                operating_point=row.get("load_or_speed") or "",
            )
        except (TypeError, ValueError) as error:
            raise BadFile(f"{path} line {number}: {error}") from error
    return list(found.values())


def demo_recordings() -> list[RecordedFile]:
    """The recordings of a real motor that the package carries; see ATTRIBUTION.md beside them.

    Two current sensors, `current_low_res` and `current_high_res`, 12800 Hz, 1 s each, 425 rpm: label "aligned" (split
    "train" to learn from, "test" held out) and misaligned ones of two severities, all held out.
    """
    folder = resources.files(__name__) / DEMO
    if not isinstance(folder, Path):
        raise BadFile("the recordings cannot be read from a zipped package; install fisher-agent unpacked")
    return load_manifest(folder / "manifest.csv")


def _snapshots(row: Mapping[str, str]) -> Snapshots | None:
    length, period = row.get("segment_len"), row.get("segment_period_s")
    if not (length and period):
        return None
    if int(length) < 1:
        raise ValueError(f"segment_len is {length}; a snapshot has at least one sample")
    return Snapshots(int(length), _number(row, "segment_period_s", above=0.0))


def _number(row: Mapping[str, str], name: str, *, above: float = -math.inf) -> float:
    value = float(row[name])
    if not (math.isfinite(value) and above < value):
        raise ValueError(f"{name} is {value}")
    return value
