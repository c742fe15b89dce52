"""In which operating mode a machine is: by what a tag said, or by a rule on the value of a channel. Event time only."""

from bisect import bisect_left
from dataclasses import dataclass, replace

import numpy as np

from fisher_agent.config import ChannelConfig, MachineConfig, WindowConfig
from fisher_agent.gate import level_of
from fisher_agent.modeconfig import UNKNOWN_MODE, ModeConfig
from fisher_agent.stages import Floats, Moment

LATE_NS = 60 * 10**9  # how much later than a newer one a word may come
KEPT_WORDS = 256  # changes that are older; more than moments that wait for their channels
MOST_WORDS = 4096  # of a tag that is repeated at any rate
TAIL_SHARE = 4  # a window's last quarter says where a value that moves has got to


@dataclass(frozen=True, slots=True)
class Now:
    """The mode of one moment. `mode` is "" where nothing says it, `UNKNOWN_MODE` where it is none of the configured."""

    mode: str
    settled: bool  # it was in that mode during all of its windows, as far as can be told by their end


NOBODY_SAYS = Now("", settled=True)
NEVER_NS = -(2**62)


class Told:
    """What a tag said of one machine's mode, by event time. Words may come late, but not long before the newest."""

    def __init__(self) -> None:
        self._words: list[tuple[int, str]] = []  # since when, in order; a tag may be repeated every second

    @property
    def latest(self) -> str:
        """The newest word; "" before the first."""
        return self._words[-1][1] if self._words else ""

    def say(self, word: str, t_ns: int) -> None:
        """The machine is in this mode from then on; of words of the same time the last counts."""
        at = bisect_left(self._words, (t_ns, ""))
        same = at < len(self._words) and self._words[at][0] == t_ns
        self._words[at : at + same] = [(t_ns, word)]
        # A repetition says nothing new, unless a late word comes to lie before it.
        settled = bisect_left(self._words, (self._words[-1][0] - LATE_NS, ""))
        kept = [w for i, w in enumerate(self._words[:settled]) if i == 0 or self._words[i - 1][1] != w[1]]
        self._words[:settled] = kept[-KEPT_WORDS:]
        del self._words[:-MOST_WORDS]

    def stamp(self, moment: Moment, *, window: WindowConfig, settle_s: float = 0.0) -> Moment:
        """The moment with the mode that was in force at its end; before the first word, nobody said it."""
        at = bisect_left(self._words, (moment.end_ns + 1, ""))
        if not at:
            return moment
        word = self._words[at - 1][1]
        while at > 1 and self._words[at - 2][1] == word:
            at -= 1
        # As at enrolment, a window that only adjoins a change is not of steady running.
        unsettled_ns = round((window.length_s + settle_s) * 1e9)
        changed = at > 1 and moment.end_ns - self._words[at - 1][0] <= unsettled_ns
        return replace(moment, mode=word, settled=not changed)


class Rule:
    """The value of a channel, as bands of it are modes. Remembers its mode, for bands may overlap.

    The value of a channel that is held between its windows counts until it is stale.
    """

    def __init__(
        self, rule: ModeConfig, channel: ChannelConfig, window: WindowConfig, *, settle_s: float = 0.0
    ) -> None:
        self._bands = dict(rule.bands)
        self._channel = channel
        self._hold_ns = window.hold_ns(channel) if window.held(channel) else 0
        self._length_s = window.length_s
        self._unsettled_ns = round((window.length_s + settle_s) * 1e9)
        self._mode = ""
        self._seen_ns = NEVER_NS  # the latest moment that had a value
        self._other_ns = NEVER_NS  # the latest moment of another mode

    @classmethod
    def of(cls, machine: MachineConfig, window: WindowConfig) -> "Rule | None":
        """The machine's rule; None where it has none."""
        if machine.mode is None or machine.mode.channel is None:
            return None
        return cls(machine.mode, machine.channel(machine.mode.channel), window, settle_s=machine.settle_s)

    def possible(self, moment: Moment) -> set[str] | None:
        """Modes that this moment can be in, whatever came before it; None where all are. For what must be embedded."""
        value = self._value(moment)
        return None if value is None else {m for m, (low, high) in self._bands.items() if low <= value < high}

    def take(self, moment: Moment) -> Now:
        """The mode of the next moment."""
        value = self._value(moment)
        if value is None and not 0 <= moment.end_ns - self._seen_ns <= self._hold_ns:
            self._mode = ""
        if not self._mode and value is None:
            return NOBODY_SAYS
        settled = True
        if value is not None:
            before, self._mode = self._mode, self._band(value, self._mode)
            if before not in ("", self._mode):
                self._other_ns = self._seen_ns
            self._seen_ns = moment.end_ns
            tail = self._value(moment, tail=True)
            settled = tail is None or self._band(tail, self._mode) == self._mode
        # As at enrolment, a window that only adjoins one of another mode is not of steady running.
        recent = 0 <= moment.end_ns - self._other_ns <= self._unsettled_ns
        return Now(self._mode, settled=settled and not recent)

    def _band(self, value: float, present: str) -> str:
        """The present mode for as long as its band holds the value, else the first whose band does."""
        fits = [mode for mode, (low, high) in self._bands.items() if low <= value < high]
        return present if present in fits else (fits or [UNKNOWN_MODE])[0]

    def _value(self, moment: Moment, *, tail: bool = False) -> float | None:
        for window in moment.windows:
            if window.channel == self._channel.id:
                # The samples of a sparse channel reach further back than the windows of the others.
                now = min(len(window.samples), max(1, round(self._length_s * window.rate_hz)))
                return _value_of(self._channel, window.samples[-(max(1, now // TAIL_SHARE) if tail else now) :])
        return None


def _value_of(channel: ChannelConfig, samples: Floats) -> float | None:
    """The mean of samples (n,) where it counts, else their RMS; None where they are no signal."""
    level = level_of(channel, samples)
    if not level.valid or (level.flat and not channel.valued):
        return None
    return float(samples.mean(dtype=np.float64)) if channel.valued else level.rms
