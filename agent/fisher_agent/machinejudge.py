"""One machine over its operating modes: which bank judges a moment, and which moments are not of steady running.

A moment whose mode is known is judged by that mode's bank; else by all, and the nearest one counts. A mode that is
known and was not enrolled is no anomaly: it is an unknown mode.
"""

from collections.abc import Mapping
from dataclasses import replace

from fisher_agent.bankset import BankSet
from fisher_agent.config import MachineConfig, WindowConfig
from fisher_agent.detect import Judge
from fisher_agent.modeconfig import UNKNOWN_MODE
from fisher_agent.modes import NEVER_NS, Now, Rule
from fisher_agent.stages import Embedding, Moment, Verdict, Window
from fisher_models.frontend import Frontend


class MachineJudge:
    """Judges one machine by a bank per mode (None: not enrolled).

    Pure in event time, as `Judge`: the same moments in the same order give the same verdicts.
    """

    def __init__(
        self, machine: MachineConfig, window: WindowConfig, bank: BankSet | None, *, frontend: Frontend
    ) -> None:
        self.machine = machine
        self.window = window
        self.bank = bank
        self._judges = {b.mode: Judge(machine, window, b, frontend=frontend) for b in bank or ()}
        self._nobody = Judge(machine, window, None, frontend=frontend)
        self._rule = Rule.of(machine, window)
        self._stopped_ns = NEVER_NS  # the latest moment that did not run
        self._since_ns = NEVER_NS  # the latest moment that did not run, or was of another mode
        self._last = ("", NEVER_NS)  # mode and time of the latest moment
        self._start_ns = round((window.length_s + machine.settle_s) * 1e9)

    def gain(self, channel: str) -> float:
        """What samples of an enrolled channel are multiplied by before the model sees them, in every mode."""
        return next(iter(self._judges.values())).gain(channel)

    def wants(self, moment: Moment) -> list[Window]:
        """The windows that must be embedded to judge this moment, once for all modes that it can be of."""
        wanted = {w.channel: w for judge in self._possible(moment).values() for w in judge.wants(moment)}
        return [wanted[w.channel] for w in moment.windows if w.channel in wanted]

    def judge(self, moment: Moment, embeddings: Mapping[str, Embedding]) -> Verdict:
        """Judge a moment, given the embeddings by channel of what `wants` named. BankMismatch where they do not fit."""
        if not self._judges:
            return self._nobody.judge(moment, embeddings)
        now = self._now(moment)
        if now.mode and self._last[0] not in ("", now.mode):
            self._since_ns = self._last[1]
        self._last = (now.mode or self._last[0], moment.end_ns)
        # Of all words that a tag may say, only enrolled modes become a tag of the database.
        shown = now.mode if now.mode in self._judges else UNKNOWN_MODE if now.mode else None
        candidates = self._judges if now.mode in ("", UNKNOWN_MODE) else {now.mode: self._judges.get(now.mode)}
        asked = {m: j for m, j in candidates.items() if j is not None} or self._judges
        running = {m: j for m, j in asked.items() if j.runs(moment)}
        if not running:
            self._stopped_ns = self._since_ns = moment.end_ns
            verdict = next(iter(asked.values())).judge(moment, {})
            return replace(verdict, mode=shown)
        anyone = next(iter(running.values()))
        starting = 0 <= moment.end_ns - self._stopped_ns <= self._start_ns
        if starting or all(j.stood_at_an_end(moment) for j in running.values()):
            verdict = anyone.unscored(moment, note="the machine was starting or stopping")
            return replace(verdict, mode=shown, transient=True)
        if not now.settled:
            verdict = anyone.unscored(moment, note="the operating mode was changing")
            return replace(verdict, mode=shown, transient=True)
        if now.mode and now.mode not in self._judges:
            known = ", ".join(self._judges)
            what = "none of the configured ones" if now.mode == UNKNOWN_MODE else repr(now.mode)
            verdict = anyone.unscored(moment, note=f"the operating mode is {what}; enrolled are: {known}")
            return replace(verdict, mode=UNKNOWN_MODE, unknown_mode=True)
        return self._nearest(self._of_this_mode(moment), embeddings, running)

    def _of_this_mode(self, moment: Moment) -> Moment:
        """Without values of slow channels that reach back beyond the latest change of mode, or start."""
        windows = tuple(w for w in moment.windows if not (w.snapshot and w.t_ns < self._since_ns <= moment.end_ns))
        return moment if len(windows) == len(moment.windows) else replace(moment, windows=windows)

    def _now(self, moment: Moment) -> Now:
        return self._rule.take(moment) if self._rule is not None else Now(moment.mode, settled=moment.settled)

    def _possible(self, moment: Moment) -> Mapping[str, Judge]:
        """The judges that `judge` may ask of this moment: which one, it may know only from what came before."""
        modes = self._rule.possible(moment) if self._rule is not None else {moment.mode} if moment.mode else None
        return self._judges if modes is None else {m: j for m, j in self._judges.items() if m in modes}

    def _nearest(self, moment: Moment, embeddings: Mapping[str, Embedding], judges: Mapping[str, Judge]) -> Verdict:
        """The verdict of the bank that the moment lies nearest to, in units of each bank's own limit."""
        verdicts = [judge.judge(moment, embeddings) for judge in judges.values()]
        return min(verdicts, key=lambda v: (not v.scored, v.score))
