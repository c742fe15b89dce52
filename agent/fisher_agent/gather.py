"""Gather the windows of a machine's channels into one Moment per grid time, closing each time once.

A grid time closes when every live stream channel has passed it. A channel that is more than the lateness behind the
furthest one is not live, so a grid time is held up by at most that much event time; a channel not heard of yet counts
as standing where the machine began. Windows of a closed grid time are dropped and counted `late`.

Snapshots never hold up a machine that has streams: they join the first grid time that is still open, one per channel,
and wait for it at most `SILENT_NS`. So do the last samples of sparse channels. Where there are no others, a grid time
closes when each has delivered for it or for a later one, or when the furthest is the lateness past it.

When the clock of the whole machine steps back, the grid times that were closed are skipped if that takes at most
`CLOCK_STEP_NS`; otherwise the grid restarts, and only then do Moments go back in time, over times that had verdicts.
The furthest channel holds off a restart while it stands after the closed time, until it has been silent for
`SILENT_NS` of another channel's time.
"""

from collections.abc import Mapping
from dataclasses import replace

from fisher_agent.codes import Status
from fisher_agent.config import ChannelConfig, MachineConfig, WindowConfig
from fisher_agent.grid import Grid
from fisher_agent.sparse import SparseWindows
from fisher_agent.stages import Frame, Moment, Window
from fisher_agent.windows import CLOCK_STEP_NS, NEVER_NS, ChannelCounters, SnapshotWindows, StreamWindows

SILENT_NS = 600_000_000_000
"""Longer than a store-and-forward gateway needs between two frames of its other channels while it catches up."""


class Gatherer:
    """Frames of one machine -> its Moments, in strictly increasing `end_ns` (until the grid restarts).

    Conservation: `made_windows` = `gathered_windows` + `late_windows` + `waiting_windows`, at any time.
    """

    def __init__(self, machine: MachineConfig, window: WindowConfig) -> None:
        self._machine = machine.id
        self._grid = Grid(length_ns=round(window.length_s * 1e9), hop_ns=round(window.hop_s * 1e9))
        self._lateness_ns = round(window.lateness_s * 1e9)
        self._window = window
        self._cutters = {c.id: self._cutter(c) for c in machine.channels}
        streams = tuple(c.id for c in machine.channels if not window.held(c))
        self._only_snapshots = not streams
        self._deciding = streams or tuple(self._cutters)
        self._heads: dict[str, int] = {}  # of the deciding channels heard of, as far as they count
        self._advanced: dict[str, int] = {}  # ns of event time since the furthest channel last spoke
        self._origin_ns = NEVER_NS  # where the machine, or its restarted grid, began
        self._closed_ns = NEVER_NS  # grid times up to here are closed
        self._waiting: dict[int, dict[str, Window]] = {}  # end_ns -> channel -> window
        self.gathered_windows = 0

    @property
    def counters(self) -> Mapping[str, ChannelCounters]:
        """Channel -> its counters, live."""
        return {channel: cutter.counters for channel, cutter in self._cutters.items()}

    @property
    def made_windows(self) -> int:
        """Windows cut so far."""
        return sum(cutter.counters.windows for cutter in self._cutters.values())

    @property
    def late_windows(self) -> int:
        """Windows that no Moment will hold."""
        return sum(cutter.counters.late for cutter in self._cutters.values())

    @property
    def waiting_windows(self) -> int:
        """Windows of grid times that are still open."""
        return sum(map(len, self._waiting.values()))

    def status(self, channel: str) -> Status:
        """`ok`, `gap` or `rate-mismatch`, by the channel's latest frame; KeyError for a channel of another machine."""
        return self._cutters[channel].last_fault or Status.OK

    def push(self, frame: Frame) -> list[Moment]:
        """The Moments that this frame closes, oldest first; KeyError for a channel of another machine.

        Frames are expected in about the order in which their blocks end, as they arrive in life.
        """
        cutter = self._cutters[frame.channel]
        windows = cutter.push(frame)
        for window in windows:
            if window.end_ns > cutter.passed_ns:  # cut before this frame took the channel's grid back
                self._add(window)
        moments: list[Moment] = []
        if frame.channel in self._deciding and cutter.head_ns != NEVER_NS:
            if not self._heads:
                self._origin_ns = frame.t_ns
            self._note_head(frame.channel, cutter.head_ns)
            if self._closed_ns - max(self._heads.values()) > CLOCK_STEP_NS:
                moments = self._restart(frame.t_ns)
        for window in windows:
            if window.end_ns <= cutter.passed_ns:
                self._add(window)
        return moments + self._close(self._closable_ns())

    def flush(self) -> list[Moment]:
        """End of input: every grid time that has a window closes."""
        for cutter in self._cutters.values():
            for window in cutter.flush():
                self._add(window)
        return self._close(max(self._waiting, default=NEVER_NS))

    def _cutter(self, channel: ChannelConfig) -> StreamWindows | SnapshotWindows | SparseWindows:
        if self._window.sparse(channel):
            return SparseWindows(
                machine=self._machine, channel=channel.id, rate_hz=channel.rate_hz,
                kept=self._window.kept_samples(channel), grid=self._grid,
            )  # fmt: skip
        if channel.snapshot:
            return SnapshotWindows(
                machine=self._machine, channel=channel.id, rate_hz=channel.rate_hz,
                length_ns=self._grid.length_ns, hop_ns=self._grid.hop_ns,
            )  # fmt: skip
        # Half of the lateness is for blocks to overtake one another, so that a channel that waited for a lost one
        # still has the other half to be in time for its Moment.
        return StreamWindows(
            machine=self._machine, channel=channel.id, rate_hz=channel.rate_hz,
            length_ns=self._grid.length_ns, hop_ns=self._grid.hop_ns, lateness_ns=self._lateness_ns // 2,
        )  # fmt: skip

    def _add(self, window: Window) -> None:
        """Let a window wait for its grid time to close, or drop it as late."""
        late = self._cutters[window.channel].counters
        if window.end_ns <= self._closed_ns:
            if not window.snapshot:
                late.late += 1
                return
            window = replace(window, end_ns=self._closed_ns + self._grid.hop_ns)
        slot = self._waiting.setdefault(window.end_ns, {})
        late.late += window.channel in slot  # the newer one counts
        slot[window.channel] = window
        if window.snapshot:
            for end_ns in [e for e in self._waiting if e < window.end_ns - SILENT_NS]:
                late.late += self._waiting[end_ns].pop(window.channel, None) is not None
                if not self._waiting[end_ns]:
                    del self._waiting[end_ns]

    def _note_head(self, channel: str, head_ns: int) -> None:
        """Remember how far a channel is, and forget those ahead of it that have long been silent."""
        before_ns = self._heads.get(channel, head_ns)
        self._heads[channel] = head_ns
        if head_ns >= max(self._heads.values()):
            self._advanced.clear()
            return
        self._advanced[channel] = self._advanced.get(channel, 0) + max(head_ns - before_ns, 0)
        if self._advanced[channel] > SILENT_NS:
            self._heads = {c: t for c, t in self._heads.items() if c in self._advanced}
            self._advanced.clear()

    def _restart(self, origin_ns: int) -> list[Moment]:
        moments = self._close(max(self._waiting, default=NEVER_NS))
        self._closed_ns = NEVER_NS
        self._origin_ns = origin_ns
        return moments

    def _closable_ns(self) -> int:
        """The last grid time that nobody waits for."""
        furthest_ns = max(self._heads.values(), default=NEVER_NS)
        oldest_live_ns = furthest_ns - self._lateness_ns
        if self._only_snapshots:
            delivered_ns = min(self._cutters[c].passed_ns for c in self._deciding)
            return max(delivered_ns, self._grid.last_until(oldest_live_ns))
        live = [c for c in self._deciding if self._heads.get(c, self._origin_ns) >= oldest_live_ns]
        return min(self._cutters[c].passed_ns for c in live)

    def _close(self, until_ns: int) -> list[Moment]:
        if until_ns <= self._closed_ns:
            return []
        self._closed_ns = until_ns
        moments = []
        for end_ns in sorted(e for e in self._waiting if e <= until_ns):
            slot = self._waiting.pop(end_ns)
            self.gathered_windows += len(slot)
            windows = tuple(slot[c] for c in self._cutters if c in slot)
            moments.append(Moment(machine=self._machine, end_ns=end_ns, windows=windows))
        return moments
