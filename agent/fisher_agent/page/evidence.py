"""What was kept of an alarm, as the page shows it: the whole waveform, the alarmed window, the nearest enrolled one."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fisher_agent.captures import CAPTURES, Capture, CaptureFiles
from fisher_agent.config import MAX_WINDOW_S
from fisher_agent.errors import BadFile
from fisher_agent.jsontext import shown
from fisher_agent.stages import Floats
from fisher_agent.wire import MAX_T_NS

MAX_LISTED = 200


@dataclass(frozen=True, slots=True, eq=False)
class Shown:
    """Samples in their physical unit; `t_ns` is when the first was taken."""

    samples: Floats
    rate_hz: float
    t_ns: int
    unit: str


class Evidence:
    """The captures of one state_dir. BadFile says what is missing or damaged. Blocking."""

    def __init__(self, state_dir: Path) -> None:
        self._files = CaptureFiles(state_dir / CAPTURES)

    def occurrences(self, machine: str) -> list[int]:
        """The occurrences of a machine that something was kept of, newest first."""
        names = self._files.names(machine)
        return sorted((int(n) for n in names if n.isascii() and n.isdigit()), reverse=True)[:MAX_LISTED]

    def document(self, machine: str, occurrence: int) -> Mapping[str, Any]:
        """capture.json."""
        return self._files.document(machine, occurrence)

    def whole(self, machine: str, occurrence: int, channel: str) -> Shown:
        """Everything that was captured of a channel; where snapshots or gaps lie between, without them."""
        capture = self._files.open(machine, occurrence)
        return _shown(capture, channel, capture.samples(channel), _entry(capture, channel)["t_ns"])

    def alarmed(self, machine: str, occurrence: int, channel: str) -> Shown:
        """The window that raised the alarm; of a channel that sends snapshots, the latest one before."""
        capture = self._files.open(machine, occurrence)
        verdict = capture.document["verdict"]
        end_ns = round(_number(verdict, "t_ns", MAX_T_NS))
        length_ns = round(_number(verdict, "window_s", MAX_WINDOW_S) * 1e9)
        found: Shown | None = None
        for frame in capture.frames(channel):
            if frame.t_ns > end_ns:
                break
            last = round((end_ns - frame.t_ns) * frame.rate_hz / 1e9)
            first = max(0, last - round(length_ns * frame.rate_hz / 1e9))
            cut = frame.samples[first:last]
            # What ended before the window began is the latest snapshot, whole.
            samples, t_ns = (cut, frame.t_ns + round(first * 1e9 / frame.rate_hz)) if len(cut) else (frame.samples, 0)
            found = _shown(capture, channel, samples, t_ns or frame.t_ns)
        if found is None:
            raise BadFile(f"the capture holds nothing of {channel} from before the alarm was raised")
        return found

    def nearest(self, machine: str, occurrence: int, channel: str) -> Shown:
        """The enrolled window of a channel that comes nearest."""
        capture = self._files.open(machine, occurrence)
        kept = capture.nearest(channel)
        if kept is None:
            raise BadFile(f"no enrolled window of {channel} was kept with it")
        named = capture.document["explanation"].get("nearest", [])
        mine = (
            [n for n in named if isinstance(n, dict) and n.get("channel") == channel] if isinstance(named, list) else []
        )
        t_ns = round(_number(mine[0], "t_ns", MAX_T_NS)) if mine else 0
        return _shown(capture, channel, kept[0], t_ns, rate_hz=kept[1])


def _entry(capture: Capture, channel: str) -> Mapping[str, Any]:
    found = next((c for c in capture.document["channels"] if c["id"] == channel), None)
    if found is None:
        raise BadFile(f"the capture holds no channel {channel!r}")
    entry: Mapping[str, Any] = found
    return entry


def _number(document: Mapping[str, Any], key: str, largest: float) -> float:
    found = document.get(key, 0)
    if type(found) not in (int, float) or not 0 <= found <= largest:
        raise BadFile(f"the capture is damaged: its {key} is {shown(found)}")
    number: int | float = found
    return number


def _shown(capture: Capture, channel: str, samples: Floats, t_ns: int, *, rate_hz: float | None = None) -> Shown:
    entry = _entry(capture, channel)
    return Shown(np.asarray(samples, np.float32), rate_hz or float(entry["rate_hz"]), t_ns, entry["unit"])
