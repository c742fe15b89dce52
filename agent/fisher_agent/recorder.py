"""The transient recorder: what was heard around an alarm becomes a capture on disk, with why its verdict was so.

The raise is noted at once; the capture is written when `after_s` have passed in event time, the machine has fallen
silent, or the agent stops, in a thread of its own. A restart between the two loses that one capture and nothing else.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import structlog

from fisher_agent.alarmobject import sentence
from fisher_agent.bank import Bank
from fisher_agent.bankfiles import BankFiles
from fisher_agent.bankset import BankSet
from fisher_agent.captures import SCHEMA, CaptureFiles, blocks_of
from fisher_agent.config import Config, MachineConfig
from fisher_agent.errors import BadFile, ConfigError, FisherError, Unavailable
from fisher_agent.evidence import Scene, explain, look_at, unexplained, verdict_object
from fisher_agent.keptrecordings import NORMAL, label_of
from fisher_agent.keptwaves import KeptWaves, windows_at
from fisher_agent.ledger import Ledger, Model
from fisher_agent.lifecycle import ANOMALY
from fisher_agent.live import LiveMachine
from fisher_agent.rawfiles import npz, pack
from fisher_agent.ring import Ring
from fisher_agent.service import give_back_heap
from fisher_agent.stages import Frame, Verdict, Window
from fisher_agent.tasks import OneThread, finish, set_within
from fisher_agent.waveforms import Recording

MB = 1_000_000
MS = 1_000_000
SECOND_NS = 1_000_000_000
SLACK_S = 5.0  # between the last sample of a window and its verdict
FINISH_S = 4.0  # of the 8 s that draining may take
RETRY_S, TRIES = 30.0, 20  # a disk that refuses a capture now may take it in ten minutes
MAX_RETRYING = 4  # each keeps its samples in memory
NICE = 10
log = structlog.get_logger()


@dataclass(slots=True)
class _Wanted:
    """A capture that is to be written, and everything of its moment that will not be there later."""

    live: LiveMachine
    name: str
    alarm: str
    occurrence: int
    verdict: Verdict | None
    text: str
    model: Model
    onset_ns: int
    raised_ns: int
    until_ns: int
    since_ns: dict[str, int]
    by: str = ""

    @property
    def machine(self) -> str:
        return self.live.config.id

    @property
    def path(self) -> str:
        return f"{self.machine}/{self.name}"


@dataclass(frozen=True, slots=True)
class _Heard:
    """What the ring gave for it."""

    frames: Mapping[str, list[Frame]]
    notes: tuple[str, ...] = field(default=())


class Recorder:
    """Owned by the agent, used on its event loop. `problem` says why the last capture could not be written."""

    def __init__(
        self, config: Config, *, files: CaptureFiles, banks: BankFiles, ledger: Ledger, model: Callable[[], Model]
    ) -> None:
        self.problem = ""
        self.files = files
        self._config = config
        self._settings = config.capture
        self._banks = banks
        self._ledger = ledger
        self._model = model
        self._ring = Ring(round(self._settings.ring_mb * MB))
        self._watched: dict[str, MachineConfig] = {}
        self._wanted: dict[str, _Wanted] = {}  # by path
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = asyncio.Event()
        self._thread = OneThread("capture", niceness=NICE)

    def heard(self, live: LiveMachine, frame: Frame) -> None:
        """A frame of a machine that is watched came in."""
        if not self._settings.enabled:
            return
        if self._watched.get(frame.machine) is not live.config:
            self._watched[frame.machine] = live.config
            self._ring.watch(frame.machine, self._kept_ns(live.config))
        self._ring.add(frame)

    def judged(self, live: LiveMachine, verdict: Verdict) -> None:
        """A verdict was taken: where it raised the anomaly, remember all that belongs to this moment."""
        alarm = live.alarms.anomaly
        raised = alarm.active and alarm.occurrence > 0 and alarm.ts_raised == verdict.t_ns // MS
        if not (self._settings.enabled and raised) or alarm.capture:
            return
        if f"{live.config.id}/{alarm.occurrence}" in self._wanted:
            return
        onset_ns = min(alarm.ts_onset * MS, verdict.t_ns)
        self._want(
            _Wanted(
                live=live,
                name=str(alarm.occurrence),
                alarm=ANOMALY,
                occurrence=alarm.occurrence,
                verdict=verdict,
                text=sentence(alarm),
                model=self._model(),
                onset_ns=onset_ns,
                raised_ns=verdict.t_ns,
                until_ns=verdict.t_ns + round(self._settings.after_s * SECOND_NS),
                since_ns=self._since(live.config, onset_ns),
            )
        )

    def tick(self, machines: Mapping[str, LiveMachine]) -> None:
        """Begin to write what is complete; forget machines that are no longer watched."""
        for wanted in list(self._wanted.values()):
            if self._complete(wanted) or machines.get(wanted.machine) is not wanted.live:
                self._begin(wanted, machines)
        for machine in self._watched.keys() - machines.keys():
            del self._watched[machine]
            self._ring.forget(machine)

    async def finish(self, machines: Mapping[str, LiveMachine]) -> None:
        """The agent stops: write what is wanted with what was heard so far, if that is quick."""
        for wanted in list(self._wanted.values()):
            self._begin(wanted, machines)
        self._stopping.set()
        await finish(list(self._tasks), deadline=time.monotonic() + FINISH_S)
        self._thread.give_up()

    async def capture(self, live: LiveMachine, *, by: str, machines: Mapping[str, LiveMachine]) -> str:
        """What was heard of a machine up to now; returns where it is, under state_dir/captures."""
        if not self._settings.enabled:
            raise ConfigError("captures are switched off; set capture.enabled = true")
        heads_ns = self._ring.heads_ns(live.config.id)
        if not heads_ns:
            raise Unavailable(f"nothing was heard of {live.config.id} yet, so there is nothing to capture")
        now_ns = max(heads_ns.values())
        wanted = _Wanted(
            live=live,
            name=f"now-{time.time_ns() // MS}",
            alarm="",
            occurrence=0,
            verdict=live.verdict,
            text=f"{live.config.id}: captured on request" + (f" of {by}" if by else ""),
            model=self._model(),
            onset_ns=now_ns,
            raised_ns=now_ns,
            until_ns=now_ns + 1,
            since_ns=self._since(live.config, now_ns),
            by=by,
        )
        await self._write(wanted, self._hear(wanted), open_alarms(machines))
        return wanted.path

    def _kept_ns(self, machine: MachineConfig) -> dict[str, int]:
        """How much of each channel is remembered: a raise looks back over its on-delay, and a held value over more."""
        window, alarm = self._config.window, machine.alarm
        back_s = self._settings.before_s + alarm.delay[1] * window.hop_s + 2 * window.length_s
        back_ns = round((back_s + window.lateness_s + SLACK_S) * SECOND_NS)
        return {c.id: back_ns + window.hold_ns(c) for c in machine.channels}

    def _since(self, machine: MachineConfig, onset_ns: int) -> dict[str, int]:
        window = self._config.window
        before_ns = round((self._settings.before_s + window.length_s) * SECOND_NS)
        return {c.id: onset_ns - before_ns - window.hold_ns(c) for c in machine.channels}

    def _want(self, wanted: _Wanted) -> None:
        self._wanted[wanted.path] = wanted
        self._ring.hold(wanted.path, wanted.machine, wanted.since_ns)

    def _complete(self, wanted: _Wanted) -> bool:
        heads_ns = self._ring.heads_ns(wanted.machine)
        late_ns = round(self._config.window.lateness_s * SECOND_NS)
        least_ns, most_ns = (f(heads_ns.values(), default=0) for f in (min, max))
        stepped_back = most_ns < wanted.raised_ns  # its clock did; that time will not come again soon
        passed = least_ns >= wanted.until_ns or most_ns >= wanted.until_ns + late_ns
        return passed or stepped_back or wanted.live.all_stale

    def _begin(self, wanted: _Wanted, machines: Mapping[str, LiveMachine]) -> None:
        self._wanted.pop(wanted.path, None)
        task = asyncio.create_task(
            self._write_raised(wanted, self._hear(wanted), machines), name=f"capture {wanted.path}"
        )
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """A defect in what only explains must not end the watching, and not be silent."""
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            log.error("capture_not_written", capture=task.get_name(), error=repr(error))
            self.problem = f"{task.get_name()}: {error!r}"

    def _hear(self, wanted: _Wanted) -> _Heard:
        """Take the frames out of the ring; from here on they are the capture's own."""
        machine = wanted.live.config
        rates_hz = {c.id: c.rate_hz for c in machine.channels}
        frames = self._ring.frames(
            machine.id, since_ns=wanted.since_ns, until_ns=wanted.until_ns, rates_hz=rates_hz
        )  # fmt: skip
        short_ns = {c: self._ring.short_ns(machine.id, c, wanted.since_ns[c]) for c in frames}
        self._ring.release(wanted.path)
        notes = tuple(
            f"the first {ns / 1e9:.1f} s of {c} did not fit into capture.ring_mb = {self._settings.ring_mb:g}"
            for c, ns in short_ns.items()
            if ns
        )
        return _Heard(frames, notes)

    async def _write_raised(self, wanted: _Wanted, heard: _Heard, machines: Mapping[str, LiveMachine]) -> None:
        sha256 = await self._tried(wanted, heard, machines)
        if sha256 is None:
            return
        if machines.get(wanted.machine) is not wanted.live:
            return  # it left the configuration meanwhile, and its alarms with it
        alarms = wanted.live.alarms
        if alarm := alarms.captured(wanted.alarm, wanted.occurrence, capture=wanted.path, sha256=sha256):
            await self._ledger.evidence(wanted.live, alarm)

    async def _tried(self, wanted: _Wanted, heard: _Heard, machines: Mapping[str, LiveMachine]) -> str | None:
        """Write it, again and again where the disk refuses; None where that was given up, or makes no sense."""
        for attempt in range(TRIES):
            try:
                return await self._write(wanted, heard, open_alarms(machines) | {(wanted.machine, wanted.name)})
            except FisherError as error:
                if not attempt:
                    log.error("capture_not_written", capture=wanted.path, error=str(error))
                if not heard.frames:
                    return None  # nothing that anybody could mend
                self.problem = str(error)
                if len(self._tasks) > MAX_RETRYING or await set_within(self._stopping, RETRY_S):
                    return None
        return None

    async def _write(self, wanted: _Wanted, heard: _Heard, keep: set[tuple[str, str]]) -> str:
        sha256 = await self._thread(self._saved, wanted, heard, keep)
        self.problem = ""
        log.info("captured", capture=wanted.path, alarm=wanted.alarm, by=wanted.by or None)
        return f"s{sha256}"  # with a letter first, or an HMI may take it for a number

    def _saved(self, wanted: _Wanted, heard: _Heard, keep: set[tuple[str, str]]) -> str:
        try:
            return self._save(wanted, heard, keep)
        finally:
            give_back_heap()

    def _save(self, wanted: _Wanted, heard: _Heard, keep: set[tuple[str, str]]) -> str:
        """In the thread: encode, explain, write."""
        if not heard.frames:
            raise Unavailable(f"nothing that was heard of {wanted.machine} is left in memory for {wanted.path}")
        machine = wanted.live.config
        files: dict[str, bytes] = {}
        channels = []
        for channel, frames in heard.frames.items():
            config = machine.channel(channel)
            samples = np.concatenate([f.samples for f in frames])
            raw = pack(samples, scale=config.scale, rate_hz=config.rate_hz)
            name = channel + raw.suffix
            files[name] = raw.body
            blocks = blocks_of(frames, whole=config.snapshot)
            channels.append(
                {
                    "id": channel,
                    "file": name,
                    "rate_hz": config.rate_hz,
                    "unit": config.unit,
                    "scale": config.scale,
                    "kind": config.kind,
                    "t_ns": frames[0].t_ns,
                    "n": len(samples),
                    "format": raw.format,
                    "blocks": blocks,
                }
            )
        explanation, nearest = self._explained(wanted, heard)
        document = {
            "schema": SCHEMA,
            "machine": wanted.machine,
            "alarm": wanted.alarm,
            "occurrence": wanted.occurrence,
            "onset_ns": wanted.onset_ns,
            "raised_ns": wanted.raised_ns,
            "text": wanted.text,
            "by": wanted.by,
            "bank": wanted.verdict.bank if wanted.verdict else "",
            "model": wanted.model.digest,
            "backend": wanted.model.backend,
            "precision": wanted.model.precision,
            "channels": channels,
            "verdict": verdict_object(wanted.verdict, window_s=self._config.window.length_s),
            "explanation": explanation,
        }
        max_bytes = round(self._settings.max_mb * MB)
        return self.files.save(
            wanted.machine, wanted.name, document=document, files={**files, **nearest}, max_bytes=max_bytes, keep=keep
        )

    def _explained(self, wanted: _Wanted, heard: _Heard) -> tuple[dict[str, Any], dict[str, bytes]]:
        """The explanation, and the files of the nearest enrolled windows."""
        machine, verdict, notes = wanted.live.config, wanted.verdict, list(heard.notes)
        if verdict is None:
            return unexplained(*notes, "nothing was judged yet"), {}
        recording = Recording()
        for frames in heard.frames.values():
            for frame in frames:
                recording.add(frame)
        windows = windows_at(verdict.t_ns, recording, machine=machine, window=self._config.window)
        if not verdict.enrolled:
            notes.append("the machine is not enrolled; there is nothing to compare with")
            scene = Scene(machine=machine, verdict=verdict, windows=windows, notes=tuple(notes))
            return explain(scene, files={}), {}
        bank: Bank | None = None
        then: dict[int, dict[str, Window]] = {}
        usual: list[dict[str, Window]] = []
        try:
            modes = BankSet.from_bytes(self._banks.read(machine.id, verdict.bank))
            bank = modes.mode(verdict.mode or "") or modes.banks[0]
            labels = [label_of(bank.mode), *([NORMAL] if len(modes.banks) == 1 else [])]
            waves = self._banks.waveforms_file(machine.id, verdict.bank)
            if waves is None:
                notes.append("the bank kept no waveforms (enroll.keep_mb), so no enrolled one can be shown")
            else:
                kept = KeptWaves(waves, machine=machine, window=self._config.window, labels=labels)
                near = {r.nearest_ns for r in verdict.readings if r.nearest_ns}
                some = look_at(bank)
                then = kept.moments(sorted({*some, *near}))
                usual = [then[end_ns] for end_ns in some if end_ns in then]
        except (BadFile, ValueError) as error:
            notes.append(f"what the machine was judged by cannot be read any more: {error}")
        lost = [
            r.channel for r in verdict.readings if then and r.nearest_ns and r.channel not in then.get(r.nearest_ns, {})
        ]
        if lost:
            notes.append(f"the nearest enrolled waveform of {', '.join(lost)} was not kept (enroll.keep_mb)")
        nearest = {
            r.channel: then[r.nearest_ns][r.channel]
            for r in verdict.readings
            if r.channel in then.get(r.nearest_ns, {})
        }
        files = {
            f"nearest-{c}.npz": npz(samples=w.samples, rate_hz=np.float64(w.rate_hz), t_ns=np.int64(w.t_ns))
            for c, w in nearest.items()
        }
        scene = Scene(machine=machine, verdict=verdict, windows=windows, bank=bank, enrolled=usual, notes=tuple(notes))
        return explain(scene, files={c: f"nearest-{c}.npz" for c in nearest}), files


class HasRecorder(Protocol):
    """What `capture_now` needs of an agent."""

    recorder: Recorder
    machines: dict[str, LiveMachine]


async def capture_now(agent: HasRecorder, machine: str, by: str) -> str:
    """An operator asks for a capture: what was heard up to now, as `machine/now-<ms>` under state_dir/captures.

    ConfigError for a machine that there is not, or where captures are switched off; Unavailable where nothing was heard
    or the disk refuses.
    """
    live = agent.machines.get(machine)
    if live is None:
        raise ConfigError(f"{machine!r} is not a machine of this agent; it has: {', '.join(agent.machines)}")
    return await agent.recorder.capture(live, by=by, machines=agent.machines)


def open_alarms(machines: Mapping[str, LiveMachine]) -> set[tuple[str, str]]:
    """(machine, name) of alarms that are active or that nobody has acknowledged: their captures stay.

    One that called again is another occurrence with the capture of the first.
    """
    return {
        (machine, alarm.capture.rpartition("/")[2] or str(alarm.occurrence))
        for machine, live in machines.items()
        for alarm in live.alarms.alarms
        if alarm.occurrence and (alarm.active or not alarm.acked)
    }
