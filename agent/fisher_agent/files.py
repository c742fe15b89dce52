"""Recordings on disk -> Frames: each file its own stamped block, never spliced to another and never looped.

One rule for every format: samples = scale x stored sample, where an integer file stores integers (a 16-bit WAV holds
-32768..32767, as the same sensor's `i16le` stream does), so that a recording and its live stream agree.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fisher_agent.captures import DOCUMENT, Capture
from fisher_agent.config import ChannelConfig, MachineConfig, WindowConfig
from fisher_agent.errors import BadFile, ConfigError
from fisher_agent.recordings import Column, RecordedFile, Snapshots
from fisher_agent.stages import Floats, Frame
from fisher_agent.tables import Series, read_series
from fisher_agent.wire import MAX_T_NS

ChannelOption = tuple[str, str, str]
"""Channel id, absolute path, column: `--channel` as it travels to the daemon (JSON turns it into a list)."""
RATE_TOLERANCE = 1e-4  # a WAV header holds whole Hz, so 97656.25 is stored as 97656


def read(
    path: Path,
    *,
    machine: MachineConfig,
    rate_hz: float | None = None,
    channel_map: Mapping[str, str | int] | None = None,
    t0_ns: int | None = None,
    scales: Mapping[str, float] | None = None,
    snapshots: Snapshots | None = None,
) -> list[Frame]:
    """Read a file into one frame per channel, or one per snapshot, sorted by time.

    `rate_hz` is required where the file states none (npy, csv, parquet) and must agree where it does. `channel_map` is
    channel id -> column name or number from 0. Without it, columns that bear channel ids are those channels; else the
    columns in order are the machine's channels of the file's rate, and there must be as many. `scales` replaces the
    configured scale per channel id. The first sample is at `t0_ns`; without it at the time in the file (npz); else the
    file's modification time is taken for the recording's end.

    Raises BadFile (unreadable, truncated, not finite, wrong rate, wrong columns), ConfigError (unknown channel id, or
    a reader that is not installed).
    """
    channels = {i: Column(c, (scales or {}).get(i)) for i, c in (channel_map or {}).items()}
    if scales and not channel_map:
        machine = _rescaled(machine, scales)
    file = RecordedFile(path, channels, rate_hz=rate_hz, snapshots=snapshots)
    frames, _ = _load(file, machine)
    return frames if t0_ns is None else _moved(frames, t0_ns - frames[0].t_ns)


def read_many(
    files: Iterable[RecordedFile | Path],
    *,
    machine: MachineConfig,
    window: WindowConfig,
    rate_hz: float | None = None,
    channel_map: Sequence[ChannelOption] | None = None,
    t0_ns: int | None = None,
    gap_s: float | None = None,
) -> Iterator[Frame]:
    """Lay recordings one after another in event time, each at a grid time, with a gap before each.

    Each begins at the first multiple of the window's hop that is at least `gap_s` (default one hop) after the end of
    the one before; the first one not before `t0_ns`, or without it not before its own time as `read` takes it. Without
    `t0_ns` a file that states its time keeps that, exactly, unless it overlaps the one before. Consecutive files of one
    `recording_id` begin together; their channels that the machine does not have are left out. `channel_map` is what
    `parse_channels` made of `--channel`; its files come first and not again from `files`. One recording is in memory at
    a time. Errors as in `read`.
    """
    hop_ns = round(window.hop_s * 1e9)
    gap_ns = hop_ns if gap_s is None else round(gap_s * 1e9)
    if gap_ns <= 0:
        raise ValueError(f"gap_s is {gap_s}; it must be positive")
    next_ns = t0_ns
    items = _with_options(files, channel_map or (), machine=machine, rate_hz=rate_hz)
    for _, group in groupby(enumerate(items), key=lambda pair: pair[1].recording_id or pair[0]):
        loaded = [_load(file, machine) for _, file in group]
        own_ns = min(frames[0].t_ns for frames, _ in loaded)
        stated = all(stated for _, stated in loaded)
        if stated and t0_ns is None and (next_ns is None or own_ns >= next_ns):
            begin_ns = own_ns
        else:
            begin_ns = -(-(own_ns if next_ns is None else next_ns) // hop_ns) * hop_ns
        recording = [
            f for frames, _ in loaded for f in _moved(frames, begin_ns - (own_ns if stated else frames[0].t_ns))
        ]
        begun: set[str] = set()
        for frame in sorted(recording, key=lambda f: f.t_ns):
            yield frame if frame.channel in begun else replace(frame, gap=True)
            begun.add(frame.channel)
        next_ns = max(end_ns(f) for f in recording) + gap_ns


def parse_channels(options: Sequence[str]) -> list[ChannelOption]:
    """`--channel ID=FILE[:COLUMN]` options -> (id, absolute path, column); ConfigError holds every bad one."""
    parsed: list[ChannelOption] = []
    problems: list[str] = []
    for option in options:
        match = re.fullmatch(r"([A-Za-z0-9_-]{1,48})=(.+)", option)
        if match is None:
            problems.append(f"--channel {option!r}: write ID=FILE or ID=FILE:COLUMN")
            continue
        channel, name = match.groups()
        stem, colon, column = name.rpartition(":")
        if not colon or Path(name).exists():
            stem, column = name, "0"
        parsed.append((channel, str(Path(stem).resolve()), column))
    if problems:
        raise ConfigError(problems)
    return parsed


def end_ns(frame: Frame) -> int:
    """Event time just after the frame's last sample."""
    return frame.t_ns + round(len(frame.samples) * 1e9 / frame.rate_hz)


def _with_options(
    files: Iterable[RecordedFile | Path],
    options: Sequence[ChannelOption],
    *,
    machine: MachineConfig,
    rate_hz: float | None,
) -> Iterator[RecordedFile]:
    """The files of the options first: simultaneous until a channel comes a second time; then the other files."""
    number, taken = 0, set[str]()
    columns: dict[tuple[int, str], dict[str, Column]] = {}
    for channel, path, column in options:
        if channel in taken:
            number, taken = number + 1, set()
        taken.add(channel)
        columns.setdefault((number, path), {})[channel] = Column(column)
    for (n, path), channels in columns.items():
        yield RecordedFile(Path(path), channels, rate_hz=rate_hz, recording_id=f"--channel {n}")
    mapped = {path for _, path, _ in options}
    for item in files:
        file = item if isinstance(item, RecordedFile) else RecordedFile(item)
        if str(file.path.resolve()) not in mapped:
            yield replace(_narrowed(file, machine), rate_hz=rate_hz if file.rate_hz is None else file.rate_hz)


def _narrowed(file: RecordedFile, machine: MachineConfig) -> RecordedFile:
    """Without the channels that the machine does not have, for a manifest describes all that was recorded."""
    known = {c.id for c in machine.channels}
    channels = {i: c for i, c in file.channels.items() if i in known}
    if file.channels and not channels:
        held, has = ", ".join(file.channels), ", ".join(sorted(known))
        raise BadFile(f"{file.path} holds {held}; machine {machine.id!r} has {has}")
    return replace(file, channels=channels)


def _load(file: RecordedFile, machine: MachineConfig) -> tuple[list[Frame], bool]:
    """A file's frames, sorted, at its own time, and whether the file states that time."""
    try:
        if file.path.is_dir():
            return _captured(file, machine), True
    except OSError as error:  # such as a name that is too long
        raise BadFile(f"{file.path} cannot be read: {error}") from error
    path, series = file.path, read_series(file.path)
    for s in series:
        if s.rate_hz is not None and file.rate_hz is not None and not _same_rate(s.rate_hz, file.rate_hz):
            raise BadFile(f"{path} says {s.rate_hz:g} Hz, but {file.rate_hz:g} Hz was given; leave the rate out")
    rates = [s.rate_hz or file.rate_hz or 0.0 for s in series]
    if not all(rates):
        raise BadFile(
            f"{path} does not say its sampling rate; give it with --rate, or in an npz as rate_hz or CHANNEL.rate_hz"
        )
    pairs = _assign(path, series, rates, machine=machine, columns=file.channels)

    own_ns = [s.t_ns for _, s in pairs if s.t_ns is not None]
    if own_ns and len(own_ns) != len(pairs):
        raise BadFile(f"{path} gives a time for some of its channels only")
    length_s = max(len(s.values) / c.rate_hz for c, s in pairs)
    written_ns = path.stat().st_mtime_ns - round(length_s * 1e9)
    frames: list[Frame] = []
    for channel, s in pairs:
        scale = column.scale if (column := file.channels.get(channel.id)) else None
        samples = _scaled(path, s.values, channel.scale if scale is None else scale)
        start_ns = written_ns if s.t_ns is None else s.t_ns
        whole = Frame(machine.id, channel.id, start_ns, channel.rate_hz, samples)
        frames += _split(path, whole, file.snapshots) if file.snapshots else [whole]
    return sorted(frames, key=lambda f: f.t_ns), bool(own_ns)


def _captured(file: RecordedFile, machine: MachineConfig) -> list[Frame]:
    """What a capture holds of the machine's channels, block by block as it was heard, at its own times."""
    if not (file.path / DOCUMENT).exists():
        raise BadFile(f"{file.path} cannot be read: it is a folder and is no capture, for it has no {DOCUMENT}")
    capture = Capture.open(file.path)
    if capture.machine != machine.id:
        raise BadFile(f"{file.path} is a capture of {capture.machine!r}, not of machine {machine.id!r}")
    known = {c.id: c for c in machine.channels}
    wanted = [c for c in file.channels or known if c in known and c in capture.channels]
    frames = [frame for channel in wanted for frame in capture.frames(channel)]
    if not frames:
        raise BadFile(f"{file.path} holds {', '.join(capture.channels) or 'nothing'}, none of which is asked for")
    for frame in frames:
        if not _same_rate(known[frame.channel].rate_hz, frame.rate_hz):
            raise BadFile(
                f"{file.path} has {frame.rate_hz:g} Hz, channel {frame.channel!r} is configured with "
                f"{known[frame.channel].rate_hz:g} Hz"
            )
    return sorted(frames, key=lambda f: f.t_ns)


def _scaled(path: Path, values: NDArray[Any], scale: float) -> Floats:
    """In single precision where that holds the stored samples, as for live streams, so that both agree to the bit."""
    precise = np.float32 if values.dtype == np.float32 or values.dtype.itemsize <= 2 else np.float64
    with np.errstate(over="ignore"):
        samples: Floats = np.multiply(values, scale, dtype=precise).astype(np.float32, copy=False)
    if not np.isfinite(samples).all():
        raise BadFile(f"{path} holds samples that are beyond single precision when scaled by {scale:g}")
    samples.flags.writeable = False
    return samples


def _moved(frames: Iterable[Frame], by_ns: int) -> list[Frame]:
    return [replace(f, t_ns=f.t_ns + by_ns) for f in frames]


def _rescaled(machine: MachineConfig, scales: Mapping[str, float]) -> MachineConfig:
    channels = tuple(c.model_copy(update={"scale": scales.get(c.id, c.scale)}) for c in machine.channels)
    return machine.model_copy(update={"channels": channels})


def _split(path: Path, whole: Frame, snapshots: Snapshots) -> Iterator[Frame]:
    n, length = len(whole.samples), snapshots.length
    if whole.t_ns + n // length * snapshots.period_s * 1e9 > MAX_T_NS:
        raise BadFile(f"{path}: snapshots that are {snapshots.period_s:g} s apart end after the year 2255")
    if n % length:
        raise BadFile(f"{path} has {n} samples, which is no whole number of snapshots of {length}")
    for k in range(n // length):
        t_ns = whole.t_ns + round(k * snapshots.period_s * 1e9)
        yield replace(whole, t_ns=t_ns, samples=whole.samples[k * length : (k + 1) * length])


def _same_rate(a: float, b: float) -> bool:
    return abs(a - b) <= RATE_TOLERANCE * max(a, b)


def _assign(
    path: Path,
    series: Sequence[Series],
    rates: Sequence[float],
    *,
    machine: MachineConfig,
    columns: Mapping[str, Column],
) -> list[tuple[ChannelConfig, Series]]:
    """Which series is which channel; BadFile where that is not certain, for a wrong guess would be learnt."""
    named = {c.id: c for c in machine.channels}
    if columns:
        if unknown := [i for i in columns if i not in named]:
            raise ConfigError(f"machine {machine.id!r} has no channel {', '.join(unknown)}; it has: {', '.join(named)}")
        found = [(named[i], _position(path, series, c.column)) for i, c in columns.items()]
    elif any(s.name in named for s in series):
        found = [(named[s.name], i) for i, s in enumerate(series) if s.name in named]
    else:
        same = [c for c in machine.channels if _same_rate(c.rate_hz, rates[0])]
        if not same:
            configured = ", ".join(f"{c.id} {c.rate_hz:g}" for c in machine.channels)
            raise BadFile(f"{path} has {rates[0]:g} Hz; machine {machine.id!r} has no such channel ({configured} Hz)")
        if len(same) != len(series):
            raise BadFile(
                f"{path} has {len(series)} columns, machine {machine.id!r} has {len(same)} channels of {rates[0]:g} "
                "Hz; say which is which with --channel ID=FILE:COLUMN"
            )
        found = list(zip(same, range(len(series)), strict=True))
    for channel, position in found:
        if not _same_rate(channel.rate_hz, rates[position]):
            raise BadFile(
                f"{path} has {rates[position]:g} Hz, channel {channel.id!r} is configured with {channel.rate_hz:g} Hz"
            )
    return [(channel, series[position]) for channel, position in found]


def _position(path: Path, series: Sequence[Series], column: str | int) -> int:
    names = [s.name for s in series]
    if column in names:
        return names.index(str(column))
    if str(column).isdecimal() and int(column) < len(series):
        return int(column)
    shown = ", ".join(n or str(i) for i, n in enumerate(names))
    raise BadFile(f"{path} has no column {column!r}; it has: {shown}")
