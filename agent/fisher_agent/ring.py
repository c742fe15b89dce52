"""The latest frames of every machine in memory, so that an alarm can show what was heard before it. Pure.

Bounded twice: in seconds per channel, and in bytes over all machines. Where the bytes do not suffice, the machine that
takes most of them loses its oldest frames, and `short_ns` says so to whoever wanted them.
"""

import math
from collections import deque
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from fisher_agent.grid import RATE_TOLERANCE
from fisher_agent.stages import Frame
from fisher_agent.waveforms import without_seq

EVICTED_AT_ONCE = 64  # this part of the bytes is freed at a time: looking for who holds most takes longer
FRAME_BYTES = 256  # of the objects around the samples: blocks of a few samples must not cost nothing


@dataclass(slots=True)
class _Channel:
    kept_ns: int
    frames: deque[Frame] = field(default_factory=deque)  # as they came
    head_ns: int = 0  # where the latest frame ends
    lost_ns: int = 0  # where the newest frame ended that the bytes did not suffice for


@dataclass(slots=True)
class _Machine:
    channels: dict[str, _Channel]
    holds: dict[Hashable, Mapping[str, int]] = field(default_factory=dict)  # who -> channel -> since
    nbytes: int = 0


class Ring:
    """Frames are shared, not copied. Every frame that `add` takes is still there, was too old, or did not fit."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._machines: dict[str, _Machine] = {}
        self.nbytes = 0

    @property
    def machines(self) -> tuple[str, ...]:
        """Those that are watched."""
        return tuple(self._machines)

    def watch(self, machine: str, kept_ns: Mapping[str, int]) -> None:
        """Remember so much of each channel of a machine from now on; what is there of other channels goes."""
        before = self._machines.get(machine)
        now = self._machines[machine] = _Machine({c: _Channel(ns) for c, ns in kept_ns.items()})
        if before is None:
            return
        now.holds, now.nbytes = before.holds, before.nbytes
        for channel, old in before.channels.items():
            if channel in now.channels:
                now.channels[channel] = replace(old, kept_ns=kept_ns[channel])
            else:
                self._drop(now, old, len(old.frames))

    def forget(self, machine: str) -> None:
        """Remember nothing of a machine any more."""
        if gone := self._machines.pop(machine, None):
            self.nbytes -= gone.nbytes

    def add(self, frame: Frame) -> None:
        """Remember a frame of a machine and a channel that are watched; others are passed over."""
        machine = self._machines.get(frame.machine)
        channel = machine.channels.get(frame.channel) if machine else None
        if machine is None or channel is None or not len(frame.samples):
            return
        end_ns = _end_ns(frame)
        channel.frames.append(frame)
        channel.head_ns = end_ns
        size = _size(frame)
        machine.nbytes += size
        self.nbytes += size
        until_ns = min([end_ns - channel.kept_ns, *(h.get(frame.channel, end_ns) for h in machine.holds.values())])
        # What lies far ahead is of before the clock stepped back.
        ahead_ns = end_ns + channel.kept_ns if not machine.holds else math.inf
        while len(channel.frames) > 1 and not until_ns <= _end_ns(channel.frames[0]) <= ahead_ns:
            self._drop(machine, channel, 1)
        while self.nbytes > self._max_bytes:
            self._evict(self._max_bytes - self._max_bytes // EVICTED_AT_ONCE)

    def hold(self, who: Hashable, machine: str, since_ns: Mapping[str, int]) -> None:
        """Keep what ends after these times until `release`, as far as the bytes suffice."""
        if machine in self._machines:
            self._machines[machine].holds[who] = since_ns

    def release(self, who: Hashable) -> None:
        """The frames that were held may go."""
        for machine in self._machines.values():
            machine.holds.pop(who, None)

    def heads_ns(self, machine: str) -> dict[str, int]:
        """Channel -> where its latest frame ends; channels without any are left out."""
        known = self._machines.get(machine)
        return {c: one.head_ns for c, one in known.channels.items() if one.frames} if known else {}

    def short_ns(self, machine: str, channel: str, since_ns: int) -> int:
        """How much of what came after `since_ns` did not fit into the memory."""
        known = self._machines.get(machine)
        return max(0, known.channels[channel].lost_ns - since_ns) if known and channel in known.channels else 0

    def frames(
        self, machine: str, *, since_ns: Mapping[str, int], until_ns: int, rates_hz: Mapping[str, float]
    ) -> dict[str, list[Frame]]:
        """Channel -> its frames in these times, as they came; channels without any are left out.

        Counters become gaps, and a frame of another rate than the channel's (`rates_hz`) becomes a gap before the next.
        """
        known = self._machines.get(machine)
        found: dict[str, list[Frame]] = {}
        for channel, one in known.channels.items() if known else ():
            if channel not in rates_hz:
                continue  # a reload has changed the machine's channels meanwhile
            if kept := list(_within(one.frames, since_ns.get(channel, 0), until_ns, rates_hz[channel])):
                found[channel] = kept
        return found

    def _evict(self, until_bytes: int) -> None:
        """Take the oldest frames of the machine that holds most; the last of a channel only where there is no other."""
        machine = max(self._machines.values(), key=lambda m: m.nbytes)
        while machine.nbytes and self.nbytes > until_bytes:
            filled = [c for c in machine.channels.values() if c.frames]
            channel = min([c for c in filled if len(c.frames) > 1] or filled, key=lambda c: _end_ns(c.frames[0]))
            if len(channel.frames) == 1 and self.nbytes <= self._max_bytes:
                return
            channel.lost_ns = _end_ns(channel.frames[0])
            self._drop(machine, channel, 1)

    def _drop(self, machine: _Machine, channel: _Channel, count: int) -> None:
        for _ in range(count):
            size = _size(channel.frames.popleft())
            machine.nbytes -= size
            self.nbytes -= size


def _within(frames: deque[Frame], since_ns: int, until_ns: int, rate_hz: float) -> Iterator[Frame]:
    before: Frame | None = None
    interrupted = False
    for frame in frames:
        if _end_ns(frame) <= since_ns or frame.t_ns >= until_ns:
            continue
        if abs(frame.rate_hz - rate_hz) > RATE_TOLERANCE * rate_hz:
            interrupted = True
            continue
        taken = without_seq(frame, before)
        yield replace(taken, rate_hz=rate_hz, gap=taken.gap or interrupted)
        before, interrupted = frame, False


def _size(frame: Frame) -> int:
    return frame.samples.nbytes + FRAME_BYTES


def _end_ns(frame: Frame) -> int:
    return frame.t_ns + round(len(frame.samples) * 1e9 / frame.rate_hz)
