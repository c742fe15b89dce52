"""The daemon's tasks: sources in, one compute thread, the store, sinks out; the retry loop, liveness, the shutdown.

The event loop never computes and never touches a disk: the model runs in one niced thread, SQLite in another.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import structlog

from fisher_agent.account import POINT_KEYS, Account
from fisher_agent.alarms import MachineAlarms
from fisher_agent.backends.standby import Standby
from fisher_agent.bankfiles import BankFiles
from fisher_agent.banks import BankLibrary, Engine
from fisher_agent.board import Board
from fisher_agent.captures import CAPTURES, CaptureFiles
from fisher_agent.codes import Level
from fisher_agent.config import Config, MachineConfig, SourceConfig
from fisher_agent.delivery import Delivery, clock_unset
from fisher_agent.errors import Unavailable
from fisher_agent.ledger import Ledger
from fisher_agent.links import Links
from fisher_agent.live import LiveMachine
from fisher_agent.pace import Pace
from fisher_agent.recorder import Recorder
from fisher_agent.report import MS, Names, as_json
from fisher_agent.service import Progress, Systemd
from fisher_agent.serving import Serving, say
from fisher_agent.sinks.influx import InfluxSink
from fisher_agent.sinks.mqtt import PlantLink
from fisher_agent.stages import Frame, Message, Moment, Point, Scalar, Source, Tag
from fisher_agent.stats import Stats
from fisher_agent.store import Store
from fisher_agent.tags import mode_key
from fisher_agent.tasks import OneThread, finish, first, set_within, surely
from fisher_agent.waiting import Waiting
from fisher_agent.waveforms import Recording

T = TypeVar("T")
DRAIN_S = 8.0  # of the 10 s that a stop may take; the rest is for closing
BATCH_WINDOWS = 64
TICK_S = 1.0
REPUBLISH_S = 60.0
REPORT_S = 10.0
FIRST_TRY_S = 12.0  # READY waits this long for the first connections to have been attempted
COMPUTE_NICE = 5
log = structlog.get_logger()


@dataclass(slots=True)
class Parts:
    """What the composition root hands over; nothing here has connected yet."""

    config: Config
    store: Store
    stats: Stats
    banks: BankFiles
    open_engine: Callable[[], tuple[Engine, Standby | None]]  # in the compute thread: loads the model and proves it
    open_source: Callable[[SourceConfig, Config], Source]
    open_influx: Callable[[], InfluxSink] | None
    open_plant: Callable[[str, Message], PlantLink] | None  # (role, will)
    rebind: Callable[[Any, Config], None]  # lets a connected source serve another configuration of the machines
    obey: Callable[["Agent", PlantLink], Awaitable[None]]  # reads commands from the broker until the link is lost
    services: Sequence[Callable[["Agent"], Coroutine[Any, Any, None]]] = ()  # run beside it: the control socket


class Agent:
    """Everything that runs. `run` returns when `stop` was called and all that could be saved is saved."""

    def __init__(self, parts: Parts, *, systemd: Systemd | None = None) -> None:
        self.parts = parts
        self.config = parts.config
        self.stats = parts.stats
        self.store = parts.store
        self.names = Names.of(parts.config)
        self.board = Board()
        self.waiting = Waiting(round(parts.config.backlog.max_mb * 1e6), self.stats)
        self._pace = Pace()
        self.machines: dict[str, LiveMachine] = {}
        self.recordings: dict[str, list[Recording]] = {}
        self.sources: dict[str, Source] = {}
        self.bank_problems: dict[str, str] = {}
        self.account = Account(self.stats, self.waiting.backlog)
        self.ready = asyncio.Event()
        self._systemd = systemd or Systemd()
        self.in_compute = OneThread("compute", niceness=COMPUTE_NICE)
        self.in_store = OneThread("store")
        self.links = Links()
        self._stop = asyncio.Event()
        self._drained = asyncio.Event()  # no more verdicts will come
        self._work = asyncio.Event()
        self._delivery = Delivery(self.store, self.in_store, board=self.board, stats=self.stats)
        self.announce = self._delivery.announce  # wakes the sinks
        self._source_tasks: dict[str, asyncio.Task[None]] = {}
        self._progress = Progress(self._systemd)
        self._shown_to: PlantLink | None = None

    # -- used by the control socket and by commands -------------------------------------------------------------

    def stop(self) -> None:
        """Ask for a clean end; returns at once."""
        self._stop.set()

    async def use_bank(self, machine: str) -> None:
        """Load the machine's active bank and judge by it from the next window on."""
        bank, problem = await self.in_store(self.library.load, self.config.machine(machine))
        judge = self.library.judge(self.config.machine(machine), bank)
        await self.in_compute(self.pipeline.judges.__setitem__, machine, judge)
        await self.ledger.judged_with(self.machines.get(machine), bank)
        self.bank_problems.pop(machine, None)
        if problem:
            self.bank_problems[machine] = problem
            log.error("bank_unusable", machine=machine, problem=problem)

    def degradations(self) -> dict[str, str]:
        """Everything that is not as it should be, in words; empty means `online`."""
        found = {f"link {name}": problem for name, problem in self.links.problems.items()}
        found |= {f"bank {m}": p for m, p in self.bank_problems.items()}
        if self._shown_to is not None and (refused := self._shown_to.refused):
            topic, why = next(iter(refused.items()))
            found["broker"] = f"it refuses {len(refused)} topics, such as {topic} ({why}); allow them in its ACL"
        if self.ledger.problem:
            found["state"] = self.ledger.problem
        if self.recorder.problem:
            found["captures"] = self.recorder.problem
        if self.engine.model.note:
            found["backend"] = self.engine.model.note
        if clock_unset():
            found["clock-unset"] = "the box's clock is before this release was built; points are held"
        found |= {f"store {n}": note for n, note in enumerate(self.store.notes)}
        return found

    # -- life -----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Open, work, drain, close."""
        try:
            await self._open()
            async with contextlib.aclosing(self._serving), asyncio.TaskGroup() as group:
                await self._work_until_stopped(group)
        finally:
            self.in_compute.give_up()
            self.in_store.finish()

    async def _open(self) -> None:
        self.engine, standby = await self.in_compute(self.parts.open_engine)
        self._serving = Serving(self.engine, standby, in_compute=self.in_compute, adopt=self._adopt)
        self.library = BankLibrary(self.config, self.parts.banks, self.engine, past=self.store.past)
        model, self.pipeline = self.engine.model, self.engine.pipeline(self.stats)
        self.ledger = Ledger(self.names, self.store, self.in_store, board=self.board, model=model, stats=self.stats)
        files = CaptureFiles(self.config.state_dir / CAPTURES)
        self.recorder = Recorder(
            self.config, files=files, banks=self.parts.banks, ledger=self.ledger, model=lambda: self.engine.model
        )
        await self.in_store(files.sweep)
        say(model)
        await self.ledger.remember()
        for machine in self.config.machines:
            await self.add_machine(machine)
        self.ledger.performance.resume(a for m in self.machines.values() for a in m.alarms.alarms)
        self.ledger.show_performance(self.machines.values(), time.time_ns() // MS)
        self._serving.start(partial(asyncio.get_running_loop().call_soon_threadsafe, self._work.set))

    async def _adopt(self, engine: Engine) -> None:
        """Go on with another embedder; no window is judged before every bank is checked against its precision."""
        self.engine, self.pipeline.embedder = engine, engine.embedder
        self.library.serve(engine)
        self.ledger.judged_by(engine.model)
        for machine in list(self.machines):
            if machine in self.machines:  # a reload may take one out meanwhile
                await self.use_bank(machine)

    async def add_machine(self, machine: MachineConfig) -> None:
        """Begin to watch a machine: its alarms as they were left, its active bank."""
        alarms, occurrence = await self.in_store(self.store.load_alarms, machine.id)
        # Counts of verdicts before a stop say nothing of those after it: they are stored with transitions alone.
        alarms = [replace(a, recent=0, on_count=0, off_count=0, stopped_count=0) for a in alarms]
        lifecycle = MachineAlarms(machine.id, [c.id for c in machine.channels], machine.alarm, alarms, occurrence)
        live = self.machines[machine.id] = LiveMachine(machine, self.config, lifecycle, mono_s=time.monotonic())
        if word := await self.in_store(self.store.meta, mode_key(machine.id)):
            live.told.say(word, 0)
        await self.use_bank(machine.id)
        await self.ledger.load(machine.id)
        if transitions := lifecycle.retire(time.time_ns()):
            await self.ledger.transitions(live, transitions)
        self.ledger.show_alarms(live)
        self.ledger.show_level(live, Level.UNKNOWN)

    def remove_machine(self, machine_id: str) -> None:
        """Stop watching a machine; its bank and its alarms stay in the store."""
        gone = self.machines.pop(machine_id)
        self.account.left(gone)
        heard = self.recordings.get(machine_id, [])
        heard[:] = [r for r in heard if r is not gone.maintenance]
        self.pipeline.judges.pop(machine_id, None)
        self.bank_problems.pop(machine_id, None)
        self.board.remove(self.names.machine(machine_id) + "/")

    async def _work_until_stopped(self, group: asyncio.TaskGroup) -> None:
        self._group = group
        for source in self.config.sources:
            self.add_source(source)
        compute = group.create_task(self._compute_loop(), name="compute")
        ticker = group.create_task(self._tick_loop(), name="ticker")
        beside = [group.create_task(service(self)) for service in self.parts.services]
        sinks = []
        if self.parts.open_influx is not None:
            sinks.append(self._keep("influx", self.parts.open_influx, self._delivery.write_points, has_id=False))
        if self.parts.open_plant is not None:
            sinks.append(self._keep("plant", partial(self._plant, "publisher", "status", b"offline"), self._publish))
            beside.append(self._keep("commands", partial(self._plant, "commands", "alive", b"0"), self._obey))
        await first(self.links.tried(FIRST_TRY_S), self._stop.wait())
        self.ready.set()
        self._systemd.tell("READY=1", f"STATUS=watching {len(self.machines)} machines")
        log.info("ready", machines=len(self.machines), degraded=self.degradations() or None)
        await self._stop.wait()

        self._systemd.tell("STOPPING=1")
        deadline = time.monotonic() + DRAIN_S
        self.links.end()
        for task in self._source_tasks.values():
            task.cancel()
        for machine in self.machines.values():
            self._queue(machine.flush())
        self._drained.set()
        self._work.set()
        await finish([compute, ticker], deadline=deadline)
        await self.recorder.finish(self.machines)
        await self._say_goodbye()
        self._delivery.finish()
        await finish(sinks, deadline=deadline)
        for task in beside:
            task.cancel()
        balanced, account = self.account.balance(self.machines.values())
        (log.info if balanced else log.error)("windows_account", balanced=balanced, **account)

    def _keep(
        self,
        name: str,
        opener: Callable[[], AbstractAsyncContextManager[T]],
        use: Callable[[T], Awaitable[None]],
        *,
        has_id: bool = True,
    ) -> asyncio.Task[None]:
        return self._group.create_task(surely(self.links.keep(name, opener, use, has_id=has_id)), name=name)

    def add_source(self, source: SourceConfig) -> None:
        """Begin to listen to a source, by whatever the configuration binds to it at each connect."""
        self._source_tasks[source.name] = self._keep(
            f"source {source.name}", lambda: self.parts.open_source(source, self.config), self._read
        )

    async def _say_goodbye(self) -> None:
        for machine in self.machines:
            self.board.show(self.names.machine(machine, "level"), int(Level.UNKNOWN))
        self.board.show(f"{self.names.base}/alive", 0)
        self.board.show(f"{self.names.base}/status", "stopped")
        await self.ledger.flush()
        await self.ledger.retry()

    # -- in ---------------------------------------------------------------------------------------------------------

    async def _read(self, source: Source) -> None:
        self.sources[source.name] = source
        self.parts.rebind(source, self.config)  # a reload may have come while it connected
        try:
            async for frames in source.frames():
                self.take(frames)
        finally:
            self.sources.pop(source.name, None)

    def take(self, frames: Sequence[Frame]) -> None:
        """Cut frames into windows and queue what is complete."""
        mono_s, utc_ns = time.monotonic(), time.time_ns()
        for frame in frames:
            machine = self.machines.get(frame.machine)
            if machine is None or not (isinstance(frame, Tag) or machine.hears(frame.channel)):
                continue  # it left the configuration a moment ago, or a reload has not told the source of it yet
            for recording in self.recordings.get(frame.machine, ()):
                recording.add(frame)
            self.recorder.heard(machine, frame)
            self._queue(machine.frame(frame, mono_s=mono_s, utc_ns=utc_ns))

    def _queue(self, moments: Sequence[Moment]) -> None:
        if moments:
            self.waiting.put(moments, mono_s=time.monotonic())
            self._work.set()

    async def _compute_loop(self) -> None:
        while True:
            await self._serving.settle()
            moments = self.waiting.take(BATCH_WINDOWS, max_bytes=self._pace.max_bytes)
            if not moments:
                self._progress.made()
                if self._drained.is_set():
                    return
                await self._work.wait()
                self._work.clear()
                continue
            self.account.in_hand = sum(len(m.windows) for m in moments)
            began_s = time.monotonic()
            verdicts = await self._serving.process(self.pipeline, moments)
            self.account.in_hand = 0
            now_s = self._progress.made()
            self._pace.learn(sum(m.nbytes for m in moments), taken_s=now_s - began_s)
            for verdict in verdicts:
                machine = self.machines.get(verdict.machine)
                if machine is None:
                    continue
                latency_ms = self.waiting.waited_s(verdict.machine, verdict.t_ns, mono_s=now_s) * 1e3
                self.account.judged(latency_ms)
                await self.ledger.verdict(machine, verdict, latency_ms=latency_ms, mono_s=now_s)
                self.recorder.judged(machine, verdict)
            await self.ledger.flush()
            self.announce()

    # -- out --------------------------------------------------------------------------------------------------------

    def _plant(self, role: str, topic: str, will: bytes) -> PlantLink:
        assert self.parts.open_plant is not None
        return self.parts.open_plant(role, Message(f"{self.names.base}/{topic}", will, qos=1, retain=True))

    async def _publish(self, link: PlantLink) -> None:
        self.board.show(f"{self.names.base}/status", self._status_word())
        self._shown_to = link
        await self._delivery.publish(link)

    async def _obey(self, link: PlantLink) -> None:
        self.board.show(f"{self.names.base}/alive", 1)
        self.announce()
        try:
            await self.parts.obey(self, link)
        finally:
            self.board.show(f"{self.names.base}/alive", 0)

    # -- liveness -----------------------------------------------------------------------------------------------------

    async def _tick_loop(self) -> None:
        republished_s = reported_s = time.monotonic()
        last_s = time.monotonic()
        while not await set_within(self._drained, TICK_S):  # after it, what was shown as a goodbye stands
            now_s, utc_ns = time.monotonic(), time.time_ns()
            if now_s - last_s > 5 * TICK_S:  # the box was suspended: silence in between proves nothing
                for machine in self.machines.values():
                    machine.resume(mono_s=now_s)
            last_s = now_s
            flood = self.ledger.performance.flood(utc_ns // MS)
            for machine in list(self.machines.values()):
                if not self._watched(machine):
                    continue  # a reload took it out of the configuration meanwhile
                if transitions := machine.tick(mono_s=now_s, utc_ns=utc_ns, flood=flood):
                    await self.ledger.transitions(machine, transitions)
                if not self._watched(machine):
                    continue
                self._queue(machine.flush_if_silent())
                self.ledger.show_level(machine, machine.level(mono_s=now_s))
            self.recorder.tick(self.machines)
            if self.ledger.problem:
                await self.ledger.retry()
            self.board.show(f"{self.names.base}/status", self._status_word())
            if now_s - reported_s >= REPORT_S:
                reported_s = now_s
                await self._report(utc_ns)
            if now_s - republished_s >= REPUBLISH_S:
                republished_s = now_s
                self.board.renew()
            self.announce()
            self._progress.tell(
                *self._serving.for_systemd, waiting=self.waiting.backlog.waiting + self.account.in_hand > 0
            )

    def _watched(self, machine: LiveMachine) -> bool:
        return self.machines.get(machine.config.id) is machine

    def _status_word(self) -> str:
        if self._drained.is_set():
            return "stopped"
        return "degraded" if self.degradations() else "online"

    async def _report(self, utc_ns: int) -> None:
        with contextlib.suppress(Unavailable):  # writing meets the same disk, and says so
            await self.in_store(self.store.settle, utc_ns // MS)
            self.account.outbox_bytes = await self.in_store(lambda: self.store.outbox_bytes)
        self.ledger.show_performance(self.machines.values(), utc_ns // MS)
        health = self.health()
        self.board.show(f"{self.names.base}/health", as_json(health), qos=0)
        fields = tuple((key, health[key]) for key in POINT_KEYS)
        where = (("site", self.names.site), ("edge", self.names.edge))
        await self.ledger.points([Point("fisher_agent", where, fields, utc_ns)])

    def health(self) -> dict[str, Scalar]:
        """The payload of `B/health`."""
        return self.account.health(self.machines.values(), self.engine.model)
