"""What is written when a machine was judged or an alarm changed: rows in the state store, topics on the board.

The order is the promise: a transition and its outbox rows are one transaction, and `level` is shown after it. While
the disk takes nothing (full, read-only), entries wait in memory, bounded and counted, and alarms are shown anyway.
"""

import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import structlog

from fisher_agent.alarmobject import alarm_object
from fisher_agent.bankset import BankSet
from fisher_agent.board import Board
from fisher_agent.codes import UNKNOWN_FAULT, UNKNOWN_FAULT_CODE, Level
from fisher_agent.errors import BadFile, Unavailable
from fisher_agent.lifecycle import RAISES, Alarm, Transition
from fisher_agent.live import LiveMachine
from fisher_agent.performance import DAY_MS, Performance
from fisher_agent.probation import Probation
from fisher_agent.probations import Probations, followed
from fisher_agent.report import (
    MS,
    Names,
    alarm_messages,
    alarm_point,
    as_json,
    fault_table,
    state_object,
    verdict_points,
)
from fisher_agent.shares import ShareLog
from fisher_agent.stages import Message, Point, Verdict
from fisher_agent.stats import Stats
from fisher_agent.store import Store
from fisher_agent.storerows import Audit, Score

MAX_UNSAVED = 20_000  # entries that wait for a disk; beyond it the oldest are dropped, and their points counted
MAX_UNSAVED_POINTS = 50_000  # in those entries together, about 30 MB
InStore = Callable[..., Awaitable[Any]]
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Model:
    """What judged: stands in every state and alarm object."""

    bundle: str
    digest: str
    weights: str
    backend: str
    precision: str
    device: str
    note: str = ""  # a declared degradation, such as a GPU that cannot be used


class Ledger:
    """Turns verdicts and transitions into rows and topics."""

    def __init__(
        self, names: Names, store: Store, in_store: InStore, *, board: Board, model: Model, stats: Stats
    ) -> None:
        self.names = names
        self.problem = ""  # why the disk takes nothing; "" while it does
        self.performance = Performance()
        self._store = store
        self._in_store = in_store
        self._board = board
        self._model = model
        self._stats = stats
        self._codes: dict[str, dict[str, int]] = {}
        self._points: list[Point] = []
        self._scores: list[Score] = []
        self._shares = ShareLog()
        self._on_probation: dict[str, LiveMachine] = {}  # those that learnt since the last flush
        self._kept: dict[str, Probation] = {}  # machine/mode -> as it was last written
        self._unsaved: deque[tuple[partial[None], int]] = deque()
        self._unsaved_points = 0

    def judged_by(self, model: Model) -> None:
        """From now on another backend or precision stands in what is written."""
        self._model = model

    async def remember(self) -> None:
        """Take up what was annunciated before this start."""
        now_ms = time.time_ns() // MS
        earlier = await self._in_store(self._store.raised_since, now_ms - 30 * DAY_MS)
        self.performance = Performance(earlier, now_ms)

    def show_performance(self, machines: Iterable[LiveMachine], now_ms: int) -> None:
        """Show the measures of the alarm system."""
        alarms = [a for m in machines for a in m.alarms.alarms]
        self._board.show(f"{self.names.base}/alarms/kpi", as_json(self.performance.kpi(alarms, now_ms)), qos=0)

    async def load(self, machine: str) -> None:
        """Read the table of fault codes and show it."""
        self._codes[machine] = dict(await self._in_store(self._store.fault_table, machine))
        self._board.show(self.names.machine(machine, "faults"), fault_table(self._codes[machine]))

    async def verdict(self, live: LiveMachine, verdict: Verdict, *, latency_ms: float, mono_s: float) -> None:
        """One verdict: its points, its state, and whatever transition it caused. Call `flush` after a batch."""
        code = await self._fault_code(verdict.machine, verdict.fault)
        severe, probations = live.alarms.anomaly.severe, live.probations
        transitions = live.judged(verdict, fault_code=code, mono_s=mono_s)
        self._shares.add(verdict)
        if live.probations is not probations:
            self._on_probation[verdict.machine] = live
        level = live.level(mono_s=mono_s)
        self._points += verdict_points(
            self.names,
            verdict,
            level=level,
            fault_code=code,
            latency_ms=latency_ms,
            statuses=live.statuses,
            inputs=live.inputs(),
        )
        if transitions:
            await self.transitions(live, transitions)
        elif severe != live.alarms.anomaly.severe:
            # No transition, but an HMI that reads the alarm object must see how grave it is now.
            alarm = self._object(live, live.alarms.anomaly)
            self._board.show(self.names.machine(verdict.machine, "alarm", str(alarm["alarm"])), as_json(alarm))
        state = state_object(verdict, level=level, fault_code=code, model=self._model.digest)
        self._board.show(self.names.machine(verdict.machine, "state"), as_json(state))
        if verdict.scored:
            self._scores.append(
                Score(
                    verdict.machine,
                    verdict.t_ns,
                    verdict.score,
                    verdict.p_value,
                    int(level),
                    code,
                    verdict.quality.code,
                    verdict.mode or "",
                    verdict.bank,
                )
            )
            score = f"{verdict.score:.6g}".encode()
            self._board.say(Message(self.names.machine(verdict.machine, "score"), score, qos=0))
        self.show_level(live, level)

    async def judged_with(self, live: LiveMachine | None, bank: BankSet | None) -> None:
        """A bank was loaded: the probation of each of its modes begins, goes on or ends."""
        if live is None or bank is None:
            return
        machine = live.config.id
        before = live.probations or await self._restored(machine, bank)
        live.probations = followed(before, bank, live.config.alarm)
        for mode in before.keys() - live.probations.keys():
            await self._forget_probation(f"{machine}/{mode}")
        await self.keep_probations(live)

    async def _restored(self, machine: str, bank: BankSet) -> Probations:
        found: dict[str, Probation] = {}
        for mode in bank.modes:
            kept = await self._in_store(self._store.probation, f"{machine}/{mode}")
            if kept is None and len(bank.modes) == 1:  # as written before modes had theirs
                await self._in_store(self._store.rename_probation, machine, f"{machine}/{mode}")
                kept = await self._in_store(self._store.probation, f"{machine}/{mode}")
            try:
                found |= {mode: Probation.restore(*kept)} if kept else {}
            except BadFile as error:  # it begins anew with the bank, which holds what was learnt until yesterday
                log.error("probation_unreadable", machine=machine, mode=mode, error=str(error))
        return found

    async def _forget_probation(self, key: str) -> None:
        self._kept.pop(key, None)
        await self._save(partial(self._store.save_probation, key, None, None), 0)

    async def keep_probations(self, live: LiveMachine) -> None:
        """Write down how far a machine's probations are."""
        for mode, now in live.probations.items():
            key = f"{live.config.id}/{mode}"
            before = self._kept.get(key)
            if now is before:
                continue
            self._kept[key], top = now, now.top
            changed = top if before is None or top != before.top else None
            await self._save(partial(self._store.save_probation, key, now.body, changed), 0)

    def show_level(self, live: LiveMachine, level: Level) -> None:
        """Show the level and the word of each channel."""
        machine = live.config.id
        self._board.show(self.names.machine(machine, "level"), int(level))
        for channel, status in live.statuses.items():
            self._board.show(self.names.machine(machine, "channel", channel, "status"), str(status))

    async def transitions(
        self, live: LiveMachine, transitions: Sequence[Transition], *, audit: Audit | None = None
    ) -> None:
        """Alarms that changed: state, journal, record and outbox in one transaction, then the board."""
        points, self._points = self._points, []
        messages: list[Message] = []
        said: list[dict[str, Any]] = []
        for transition in transitions:
            alarm = self._object(live, transition.alarm)
            points.append(alarm_point(self.names, alarm))
            messages += alarm_messages(self.names, alarm)
            said.append({key: alarm[key] for key in ("machine", "alarm", "state", "occurrence", "text")})
            if transition.event in RAISES and transition.alarm.waiting:
                self.performance.raised(transition.alarm, time.time_ns() // MS)
        alarms = [t.alarm for t in transitions]
        job = partial(
            self._store.commit_alarms,
            live.config.id,
            alarms,
            live.alarms.occurrence,
            points=points,
            messages=messages,
            audit=audit,
        )
        saved = await self._save(job, len(points))
        for facts in said:
            (log.warning if facts["state"] == "UNACK" else log.info)("alarm", **facts)
        for message in messages:
            if message.retain and saved:
                self._board.adopt(message)
            elif message.retain:
                self._board.show(message.topic, message.payload)

    async def evidence(self, live: LiveMachine, alarm: Alarm) -> None:
        """Keep and show an alarm again that its capture was added to: no transition, so nothing in the journal."""
        shown, *_ = alarm_messages(self.names, self._object(live, alarm))
        job = partial(
            self._store.commit_alarms, live.config.id, [alarm], live.alarms.occurrence, messages=[shown]
        )  # fmt: skip
        if await self._save(job, 0):
            self._board.adopt(shown)
        else:
            self._board.show(shown.topic, shown.payload)

    def show_alarms(self, live: LiveMachine) -> None:
        """Put every alarm of a machine on the board as it stands: after a start, before anything was judged."""
        for alarm in live.alarms.alarms:
            for message in alarm_messages(self.names, self._object(live, alarm)):
                if message.retain:
                    self._board.show(message.topic, message.payload)

    async def points(self, points: Sequence[Point]) -> None:
        """Add points that belong to no verdict."""
        self._points += points
        await self.flush()

    async def flush(self) -> None:
        """Put the points of the batch into the outbox."""
        points, self._points = self._points, []
        scores, self._scores = self._scores, []
        if points:
            await self._save(partial(self._store.add_points, points), len(points))
        if scores:
            await self._save(partial(self._store.add_scores, scores), 0)
        if shares := self._shares.finished():
            await self._save(partial(self._store.add_shares, shares), 0)
        learning, self._on_probation = self._on_probation, {}
        for live in learning.values():
            await self.keep_probations(live)

    async def retry(self) -> None:
        """Try what the disk did not take, oldest first."""
        while self._unsaved:
            entry = self._unsaved[0]
            try:
                await self._in_store(entry[0])
            except Unavailable as error:
                self.problem = str(error)
                return
            if self._unsaved and self._unsaved[0] is entry:  # else it was dropped meanwhile
                self._drop_unsaved()
        self.problem = ""

    async def _save(self, job: partial[None], points: int) -> bool:
        if not self._unsaved:
            try:
                await self._in_store(job)
            except Unavailable as error:
                log.error("state_not_written", error=str(error))
                self.problem = str(error)
            else:
                return True
        self._unsaved.append((job, points))
        self._unsaved_points += points
        while len(self._unsaved) > MAX_UNSAVED or self._unsaved_points > MAX_UNSAVED_POINTS:
            self._stats.count("points_lost_without_disk", self._drop_unsaved())
        return False

    def _drop_unsaved(self) -> int:
        _, points = self._unsaved.popleft()
        self._unsaved_points -= points
        return points

    def _object(self, live: LiveMachine, alarm: Alarm) -> dict[str, Any]:
        verdict = live.verdict
        return alarm_object(
            alarm,
            site=self.names.site,
            edge=self.names.edge,
            backend=self._model.backend,
            bank=verdict.bank if verdict else "",
            model=self._model.digest,
        )

    async def _fault_code(self, machine: str, fault: str | None) -> int:
        if fault is None:
            return 0
        if fault == UNKNOWN_FAULT:
            return UNKNOWN_FAULT_CODE
        codes = self._codes.setdefault(machine, {})
        if fault not in codes:
            try:
                codes[fault] = await self._in_store(self._store.fault_code, machine, fault)
            except Unavailable as error:  # a code that is not on the disk may be given to another class one day
                self.problem = str(error)
                return UNKNOWN_FAULT_CODE
            self._board.show(self.names.machine(machine, "faults"), fault_table(codes))
        return codes[fault]
