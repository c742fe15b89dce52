"""Single windows out of the waveforms that a bank was made from, without reading all of them.

They are cut again by the very gatherer that cut them for the enrolment, from the blocks around them.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors

from fisher_agent.config import MachineConfig, WindowConfig
from fisher_agent.errors import BadFile
from fisher_agent.gather import Gatherer
from fisher_agent.stages import Frame, Window
from fisher_agent.waveforms import BLOCK_PARTS, Recording, block_ends

AROUND_NS = 1_000_000_000  # of slack for stamps
# Of a dtype that numpy does not know safetensors raises AttributeError or TypeError.
DAMAGES = (
    safetensors.SafetensorError, OSError, KeyError, ValueError, AttributeError, TypeError, FloatingPointError,
)  # fmt: skip


class KeptWaves:
    """Reads the file of a bank's waveforms; BadFile where it is damaged. Its checksum is not verified: what is read
    of it is shown and never judged by."""

    def __init__(
        self, path: Path, *, machine: MachineConfig, window: WindowConfig, labels: Sequence[str] = ("",)
    ) -> None:
        """`labels` are those that the wanted recording may have; the first that is there counts."""
        self._labels = labels
        self._path = path
        self._machine = machine
        self._window = window

    def moments(self, ends_ns: Sequence[int]) -> dict[int, dict[str, Window]]:
        """Grid time -> channel -> its window that ends there, or the latest before where a channel is held; what the
        file does not hold is left out."""
        try:
            with safetensors.safe_open(self._path, framework="numpy") as file:
                index = _Index(file, self._machine, self._labels)
                return {end_ns: found for end_ns in ends_ns if (found := self._cut(index, end_ns))}
        except DAMAGES as error:
            raise BadFile(f"the kept waveforms {self._path} cannot be read: {error}") from error

    def _cut(self, index: "_Index", end_ns: int) -> dict[str, Window]:
        recording = Recording()
        length_ns = round(self._window.length_s * 1e9)
        for channel in self._machine.channels:
            held_ns = self._window.hold_ns(channel) + 20 * length_ns if self._window.held(channel) else 0
            for frame in index.frames(channel.id, end_ns - length_ns - held_ns - AROUND_NS, end_ns + AROUND_NS):
                recording.add(frame)
        return windows_at(end_ns, recording, machine=self._machine, window=self._window)


def windows_at(end_ns: int, recording: Recording, *, machine: MachineConfig, window: WindowConfig) -> dict[str, Window]:
    """Channel -> its window at a grid time, or the latest before where a channel is held."""
    gatherer = Gatherer(machine, window)
    found: dict[str, Window] = {}
    whole = [c.id for c in machine.channels if c.snapshot]
    moments = [m for frame in recording.frames(whole=whole) for m in gatherer.push(frame)] + gatherer.flush()
    for moment in moments:
        for w in moment.windows:
            if moment.end_ns == end_ns or (moment.end_ns < end_ns and w.snapshot):
                found[w.channel] = w
    return found


class _Index:
    """Where each channel's blocks lie in an open file."""

    def __init__(self, file: Any, machine: MachineConfig, labels: Sequence[str]) -> None:
        self._file = file
        self._machine = machine.id
        keys = set(file.keys())
        self._label = next((x for x in labels if any(key.startswith(f"{x}/") for key in keys)), "")
        self._blocks: Mapping[str, dict[str, Any]] = {
            c.id: {part: file.get_tensor(f"{self._label}/{c.id}/{part}") for part in BLOCK_PARTS}
            for c in machine.channels
            if f"{self._label}/{c.id}/samples" in keys
        }

    def frames(self, channel: str, since_ns: int, until_ns: int) -> Iterator[Frame]:
        if channel not in self._blocks:
            return
        last = block_ends(channel, self._blocks[channel])
        t_ns, rate_hz, length, gap = self._blocks[channel].values()
        ends_ns = t_ns + np.round(length * 1e9 / rate_hz).astype(np.int64)
        samples = self._file.get_slice(f"{self._label}/{channel}/samples")
        for k in np.flatnonzero((ends_ns > since_ns) & (t_ns < until_ns)).tolist():
            with np.errstate(over="raise"):  # they were written in single precision
                part = np.asarray(samples[int(last[k] - length[k]) : int(last[k])], dtype=np.float32)
            yield Frame(self._machine, channel, int(t_ns[k]), float(rate_hz[k]), part, gap=bool(gap[k]))
