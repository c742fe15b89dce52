"""Cut the frames of one channel into windows on the event-time grid; a window never spans a gap.

What a stamp may do: within `STAMP_TOLERANCE_NS` of its prediction a frame follows on; beyond it samples are missing
or a clock stepped, which ends the window. Frames shorter than the tolerance and without `seq` can therefore hide a
lost, repeated or swapped neighbour: send `seq`, or longer blocks.
"""

from bisect import insort
from collections import deque
from dataclasses import dataclass

from fisher_agent.codes import Status
from fisher_agent.grid import Grid, Rate, Run
from fisher_agent.stages import Frame, Window

NEVER_NS = -(1 << 62)
"""Before any event time: nothing has been seen."""
CLOCK_STEP_NS = 10_000_000_000
"""After a clock has stepped back, grid times already passed are skipped if that takes no longer than this."""
LATE_RUN_NS = 1_000_000_000
"""Blocks from the past that follow on one another for longer than this are a clock that stepped back."""
STASH_FRAMES = 64
SNAPSHOT_NS = (50_000_000, 10_000_000_000)
"""Shortest and longest block of a snapshot channel."""


@dataclass(slots=True)
class ChannelCounters:
    """What became of a channel's frames; `windows` counts every window made, also those that were `late`."""

    frames: int = 0
    windows: int = 0
    gaps: int = 0
    duplicates: int = 0  # blocks seen before
    out_of_order: int = 0  # blocks that came after a later one: put in order, or dropped where that was too late
    rate_mismatch: int = 0
    late: int = 0  # windows of a grid time that was already decided, or replaced by a newer one
    unusable: int = 0  # snapshots that are too short or too long


class StreamWindows:
    """Frames of one stream channel -> its windows, in strictly increasing `end_ns`.

    Blocks that overtake a missing one wait for it, up to `lateness_ns` of event time. A channel whose clock steps
    back starts a new run at once (`seq` goes on, or the block overlaps what is known, or the step is over 10 s) or
    after 1 s of blocks from the past. Grid times that it had passed are then made again but dropped as `late`; if
    that took more than 10 s the channel's grid restarts, and only then does a grid time come out twice.
    """

    def __init__(
        self, *, machine: str, channel: str, rate_hz: float, length_ns: int, hop_ns: int, lateness_ns: int
    ) -> None:
        self.counters = ChannelCounters()
        self.last_fault: Status | None = None  # of the latest frame
        self.passed_ns = NEVER_NS  # windows of grid times up to here have been emitted or can never come
        self.head_ns = NEVER_NS  # when the next sample is due
        self._machine = machine
        self._channel = channel
        self._rate = Rate(rate_hz)
        self._grid = Grid(length_ns=length_ns, hop_ns=hop_ns)
        self._lateness_ns = lateness_ns
        self._run: Run | None = None
        self._next_seq: int | None = None
        self._recent: deque[tuple[object, ...]] = deque(maxlen=STASH_FRAMES)  # fingerprints of accepted frames
        self._stash: list[Frame] = []  # by time; all ahead of the head
        self._late_next_ns = NEVER_NS  # where the latest unknown block from the past ended
        self._late_ns = 0  # how much such blocks, each following on the last, covered
        self._done: list[Window] = []

    def push(self, frame: Frame) -> list[Window]:
        """The windows that this frame completes, oldest first; their samples are read-only and stay valid."""
        self.counters.frames += 1
        self.last_fault = None
        if not self._rate.matches(frame.rate_hz):
            self._refuse_rate()
        elif len(frame.samples):
            self._sort(frame)
        return self._emit()

    def flush(self) -> list[Window]:
        """End of input: what still waited for a missing block is cut without it."""
        self._drain(all_of_it=True)
        return self._emit()

    def _sort(self, frame: Frame) -> None:
        """Decide whether a frame follows on, waits, is dropped or begins a new run."""
        tolerance_ns = self._rate.stamp_tolerance_ns
        deviation_ns = frame.t_ns - self.head_ns
        skipped = self._skipped(frame)
        interrupted = self._run is None and deviation_ns >= -tolerance_ns  # by a block of another rate, or not begun
        if frame.gap or interrupted:
            self._jump(frame)
        elif self._follows(frame):
            # Without seq, a block that follows on blocks dropped as past comes from a clock that stepped back.
            if skipped is None and abs(frame.t_ns - self._late_next_ns) <= tolerance_ns:
                self._jump(frame)
                return
            self.counters.out_of_order += bool(self._stash)
            self._accept(frame)
            self._drain()
        elif (skipped is None or skipped > 0) and deviation_ns >= -tolerance_ns:
            if any(_fingerprint(frame) == _fingerprint(other) for other in self._stash):
                self.counters.duplicates += 1
                return
            self.counters.out_of_order += bool(self._stash) and frame.t_ns < self._stash[-1].t_ns
            insort(self._stash, frame, key=lambda f: f.t_ns)
            self._drain()
        elif skipped is not None and skipped >= 0:
            self._jump(frame)  # the sender's count goes on and its clock does not
        elif _fingerprint(frame) in self._recent:
            self.counters.duplicates += 1
        elif deviation_ns >= -tolerance_ns or self._end_ns(frame) > self.head_ns + tolerance_ns:
            self._jump(frame)  # the sender restarted, or its clock stepped back by less than a block
        elif self._is_step_back(frame):
            self._jump(frame)
        else:
            self.counters.out_of_order += 1

    def _skipped(self, frame: Frame) -> int | None:
        """Blocks missing before this one by its u32 `seq`; negative for an older one, None where it is not known."""
        if frame.seq is None or self._next_seq is None:
            return None
        return ((frame.seq - self._next_seq + (1 << 31)) & 0xFFFFFFFF) - (1 << 31)

    def _follows(self, frame: Frame) -> bool:
        near = abs(frame.t_ns - self.head_ns) <= self._rate.stamp_tolerance_ns
        return near and self._skipped(frame) in (None, 0)

    def _end_ns(self, frame: Frame) -> int:
        return frame.t_ns + self._rate.span_ns(len(frame.samples))

    def _is_step_back(self, frame: Frame) -> bool:
        follows = abs(frame.t_ns - self._late_next_ns) <= self._rate.stamp_tolerance_ns
        span_ns = self._rate.span_ns(len(frame.samples))
        self._late_ns = self._late_ns + span_ns if follows else span_ns
        self._late_next_ns = frame.t_ns + span_ns
        # An old seq may be a block that was sent again, so distance alone is no step.
        far = self._skipped(frame) is None and self.head_ns - frame.t_ns > CLOCK_STEP_NS
        return far or (follows and self._late_ns > LATE_RUN_NS)

    def _jump(self, frame: Frame) -> None:
        self._drain(all_of_it=True)
        self._begin(frame)

    def _begin(self, frame: Frame) -> None:
        """Start a new run; all windows begun are void."""
        if self.head_ns != NEVER_NS:
            self.last_fault = Status.GAP
        self._end_run()
        self._run = Run(frame.t_ns, grid=self._grid, rate=self._rate)
        before_ns = self._run.first_end_ns - self._grid.hop_ns
        if self.passed_ns - before_ns > CLOCK_STEP_NS:
            self.passed_ns = before_ns
        self.passed_ns = max(self.passed_ns, before_ns)
        self._accept(frame)

    def _accept(self, frame: Frame) -> None:
        if self._run is None:
            self._begin(frame)
            return
        for end_ns, t_ns, samples in self._run.extend(frame.t_ns, frame.samples):
            self.counters.windows += 1
            if end_ns <= self.passed_ns:
                self.counters.late += 1
                continue
            self.passed_ns = end_ns
            self._done.append(
                Window(
                    self._machine, self._channel, t_ns=t_ns, rate_hz=self._rate.hz, samples=samples, end_ns=end_ns
                )
            )  # fmt: skip
        self.head_ns = self._run.head_ns
        self._next_seq = None if frame.seq is None else frame.seq + 1
        self._late_next_ns = NEVER_NS
        self._recent.append(_fingerprint(frame))

    def _drain(self, *, all_of_it: bool = False) -> None:
        """Take from the stash what follows on by now, and what has waited long enough."""
        while self._stash:
            frame = self._stash[0]
            waited_ns = max(map(self._end_ns, self._stash)) - self.head_ns
            enough = all_of_it or waited_ns > self._lateness_ns or len(self._stash) > STASH_FRAMES
            if self._follows(frame):
                self._accept(frame)
            elif frame.t_ns < self.head_ns - self._rate.stamp_tolerance_ns:
                self.counters.out_of_order += 1
            elif enough:
                self._begin(frame)
            else:
                return
            del self._stash[0]

    def _refuse_rate(self) -> None:
        self._drain(all_of_it=True)
        self._end_run()
        self.counters.rate_mismatch += 1
        self.last_fault = Status.RATE_MISMATCH

    def _end_run(self) -> None:
        if self._run is not None:
            self.counters.gaps += 1
            self._run = None

    def _emit(self) -> list[Window]:
        done, self._done = self._done, []
        return done


class SnapshotWindows:
    """Blocks of one snapshot channel -> a window each, with all their samples; `end_ns` is the next grid time.

    A block older than the newest is of no use and dropped, unless `seq` goes on or a second one follows it in time:
    then the clock has stepped back.
    """

    def __init__(self, *, machine: str, channel: str, rate_hz: float, length_ns: int, hop_ns: int) -> None:
        self.counters = ChannelCounters()
        self.last_fault: Status | None = None  # of the latest frame
        self.passed_ns = NEVER_NS  # grid time of the newest block
        self._machine = machine
        self._channel = channel
        self._rate = Rate(rate_hz)
        self._grid = Grid(length_ns=length_ns, hop_ns=hop_ns)
        self._newest: Frame | None = None
        self._older_ns = NEVER_NS  # time of the latest block that was dropped for its age; NEVER_NS after a good one

    @property
    def head_ns(self) -> int:
        """As `StreamWindows.head_ns`: how far this channel is in event time."""
        return self.passed_ns

    def push(self, frame: Frame) -> list[Window]:
        """One window, or none where the block is unusable, a duplicate or out of order."""
        self.counters.frames += 1
        self.last_fault = None
        if not self._rate.matches(frame.rate_hz):
            self.counters.rate_mismatch += 1
            self.last_fault = Status.RATE_MISMATCH
            return []
        span_ns = self._rate.span_ns(len(frame.samples))
        if not SNAPSHOT_NS[0] <= span_ns <= SNAPSHOT_NS[1]:
            self.counters.unusable += 1
            self.last_fault = Status.GAP
            return []
        if self._newest is not None and frame.t_ns <= self._newest.t_ns and self._is_old(frame, self._newest):
            return []
        self._newest = frame
        self._older_ns = NEVER_NS
        self.passed_ns = self._grid.first_from(frame.t_ns + span_ns)
        samples = frame.samples.view()
        samples.flags.writeable = False
        self.counters.windows += 1
        return [
            Window(
                self._machine, self._channel, t_ns=frame.t_ns, rate_hz=self._rate.hz, samples=samples,
                seq=frame.seq, end_ns=self.passed_ns, snapshot=True,
            )
        ]  # fmt: skip

    def flush(self) -> list[Window]:
        """Nothing waits here."""
        return []

    def _is_old(self, frame: Frame, newest: Frame) -> bool:
        if frame.t_ns == newest.t_ns:
            self.counters.duplicates += 1
            return True
        goes_on = frame.seq is not None and newest.seq is not None and (frame.seq - newest.seq) & 0xFFFFFFFF == 1
        if goes_on or NEVER_NS < self._older_ns < frame.t_ns:
            self.counters.gaps += 1
            self.last_fault = Status.GAP
            return False
        self._older_ns = frame.t_ns
        self.counters.out_of_order += 1
        return True


def _fingerprint(frame: Frame) -> tuple[object, ...]:
    return frame.seq, frame.t_ns, len(frame.samples), float(frame.samples[0]), float(frame.samples[-1])
