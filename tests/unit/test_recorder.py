"""An alarm becomes a capture: when, of what, what is shown of it, and what happens where it cannot be written."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fakes import CURRENT, PRESS, SPEC, T0_NS, VIBRATION, FakeEmbedder, bundle, channel, machine, running
from fisher_agent import recorder
from fisher_agent.alarms import MachineAlarms
from fisher_agent.bankfiles import BankFiles
from fisher_agent.banks import BankLibrary, Engine
from fisher_agent.board import Board
from fisher_agent.captures import Capture, CaptureFiles
from fisher_agent.config import Config, MachineConfig, WindowConfig
from fisher_agent.errors import BadFile, ConfigError, Unavailable
from fisher_agent.evidence import unexplained
from fisher_agent.files import read_many
from fisher_agent.gather import Gatherer
from fisher_agent.ledger import Ledger, Model
from fisher_agent.lifecycle import Alarm
from fisher_agent.live import LiveMachine
from fisher_agent.rawfiles import same_bits
from fisher_agent.recorder import Recorder, capture_now, open_alarms
from fisher_agent.report import Names
from fisher_agent.sources.replay import blocks
from fisher_agent.stages import Frame, Verdict
from fisher_agent.stats import Stats
from fisher_agent.store import Store
from fisher_agent.waveforms import Recording
from fisher_models.frontend import Frontend

S = 10**9
WINDOW = {"length_s": 1.0, "hop_s": 0.5, "lateness_s": 1.0}
CAPTURE = {"before_s": 3.0, "after_s": 2.0}
ENGINE = Engine(
    bundle(), Frontend(SPEC), FakeEmbedder(), Model("fake", bundle().digest, "untrained", "fake", "f32", "")
)
ALARM = "fisher/v1/s/e/press-07/alarm/anomaly"


def configuration(folder: Path, config: MachineConfig, capture: dict[str, Any]) -> Config:
    return Config.model_validate(
        {"site": "s", "edge": "e", "state_dir": str(folder), "window": WINDOW, "capture": CAPTURE | capture,
         "machines": [config.model_dump()]}
    )  # fmt: skip


class Bench:
    """All of an agent that turns frames into captures, with its store and its banks, and no sockets."""

    def __init__(self, folder: Path, store: Store, config: MachineConfig, **capture: Any) -> None:
        self.config = configuration(folder, config, capture)
        self.machine = config
        self.store = store
        self.board = Board()
        self.banks = BankFiles(folder / "banks")
        self.library = BankLibrary(self.config, self.banks, ENGINE)
        self.files = CaptureFiles(folder / "captures")
        self.pipeline = ENGINE.pipeline(Stats())
        names = Names.of(self.config)
        self.ledger = Ledger(names, store, asyncio.to_thread, board=self.board, model=ENGINE.model, stats=Stats())
        self.recorder = Recorder(
            self.config, files=self.files, banks=self.banks, ledger=self.ledger, model=lambda: ENGINE.model
        )
        lifecycle = MachineAlarms(config.id, [c.id for c in config.channels], config.alarm)
        self.live = LiveMachine(config, self.config, lifecycle, mono_s=0.0)
        self.machines = {config.id: self.live}
        self.verdicts: list[Verdict] = []
        self.heard: list[Frame] = []

    def enrol(self, recording: Recording | None = None) -> None:
        bank, _ = self.library.learn(self.machine, recording or running(self.machine, seconds=30))
        self.pipeline.judges[self.machine.id] = self.library.judge(self.machine, bank)

    async def hear(self, recording: Recording) -> None:
        """As the runtime does, with a tick after each block."""
        whole = [c.id for c in self.machine.channels if c.snapshot]
        for frame in recording.frames(whole=whole):
            self.heard.append(frame)
            self.recorder.heard(self.live, frame)
            await self.judge(self.live.frame(frame, mono_s=0.0, utc_ns=frame.t_ns))
            self.recorder.tick(self.machines)

    async def judge(self, moments: Sequence[Any]) -> None:
        for verdict in self.pipeline.process(moments):
            await self.ledger.verdict(self.live, verdict, latency_ms=1.0, mono_s=0.0)
            self.recorder.judged(self.live, verdict)
            self.verdicts.append(verdict)

    async def written(self) -> None:
        """Whatever is being written is done."""
        async with asyncio.timeout(20):
            while self.recorder._tasks:
                await asyncio.sleep(0.01)

    def shown(self) -> dict[str, Any]:
        """The alarm object that an HMI would see now."""
        waiting = [m.payload for _, m in self.store.peek("mqtt", 1000) if m.topic == ALARM]
        found: dict[str, Any] = json.loads(waiting[-1])
        return found


@asynccontextmanager
async def bench(folder: Path, config: MachineConfig = PRESS, **capture: Any) -> AsyncIterator[Bench]:
    with Store.open(folder, max_outbox_bytes=10**8) as store:
        made = Bench(folder, store, config, **capture)
        yield made
        await made.recorder.finish(made.machines)


def faulty(seconds: float, *, since_s: float = 0.0, config: MachineConfig = PRESS) -> Recording:
    return running(config, seconds, seed=2, t_ns=T0_NS + round(since_s * S), tone_hz=1230.37, tone=2.0)


def joined(*recordings: Recording) -> Recording:
    out = Recording()
    for recording in recordings:
        for frame in recording.frames():
            out.add(frame)
    return out


def story(config: MachineConfig = PRESS, *, fault_s: float = 8.0) -> Recording:
    """Ten seconds of normal running, then the fault."""
    return joined(running(config, 10, seed=3), faulty(fault_s, since_s=10, config=config))


def sent(heard: Sequence[Frame], name: str) -> dict[int, np.ndarray]:
    return {f.t_ns: f.samples for f in heard if f.channel == name}


@pytest.mark.parametrize("after_s", [2, 14])  # the longer one is over what is remembered without a reason
async def test_a_raise_becomes_a_capture_after_its_time_and_the_alarm_names_it(after_s: int, tmp_path: Path) -> None:
    async with bench(tmp_path, after_s=after_s) as b:
        b.enrol()
        await b.hear(story(fault_s=after_s + 6))
        await b.written()
        alarm = b.live.alarms.anomaly
        assert alarm.active and alarm.capture == "press-07/1"
        (row,) = b.files.rows()
        capture = b.files.open("press-07", 1)
        raised = next(v for v in b.verdicts if v.t_ns == capture.document["raised_ns"])
        assert capture.document["verdict"]["score"] == raised.score >= 1
        assert (row["alarm"], row["occurrence"], row["problem"]) == ("anomaly", 1, "")
        # It holds the seconds before the onset's window and after the raise, as they came.
        for name in ("vib", "amp"):
            frames = list(capture.frames(name))
            assert frames[0].t_ns <= capture.document["onset_ns"] - (3 + 1) * S < frames[0].t_ns + S // 2
            end_ns = frames[-1].t_ns + round(len(frames[-1].samples) * 1e9 / frames[-1].rate_hz)
            assert raised.t_ns + after_s * S <= end_ns <= raised.t_ns + (after_s + 0.5) * S
            whole = np.concatenate([s for t, s in sent(b.heard, name).items() if frames[0].t_ns <= t < end_ns])
            assert same_bits(capture.samples(name), whole)
        assert b.recorder._ring._machines["press-07"].holds == {}  # the memory is free to go on
        # Shown again: the same transition, and no row more in the journal.
        shown = b.shown()
        assert (shown["capture"], shown["seq"]) == ("press-07/1", alarm.seq)
        assert shown["capture_sha256"] == alarm.capture_sha256 != ""
        assert shown["capture_sha256"].startswith("s")
        kept, _ = b.store.load_alarms("press-07")
        assert next(a for a in kept if a.alarm == "anomaly") == alarm


async def test_nothing_is_written_before_the_time_is_over(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        b.enrol()
        await b.hear(story(fault_s=3))
        assert b.live.alarms.anomaly.active
        assert b.files.rows() == []
    assert [r["name"] for r in b.files.rows()] == ["1"]  # the stop wrote it
    assert b.live.alarms.anomaly.capture == "press-07/1"


async def test_a_machine_that_falls_silent_is_not_waited_for(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        b.enrol()
        await b.hear(story(fault_s=3))
        b.live.tick(mono_s=1e6, utc_ns=T0_NS)
        b.recorder.tick(b.machines)
        await b.written()
        assert b.live.alarms.anomaly.capture == "press-07/1"


async def test_a_clock_that_steps_back_is_not_waited_for(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        b.enrol()
        await b.hear(story(fault_s=3))
        assert b.files.rows() == []
        await b.hear(running(seconds=1, t_ns=T0_NS - 3600 * S))
        await b.written()
        capture = b.files.open("press-07", 1)
        (whole,) = capture.frames("vib")
        assert whole.t_ns + len(whole.samples) * S // 8000 >= capture.document["raised_ns"] > T0_NS


async def test_a_capture_scores_as_it_was_judged(tmp_path: Path) -> None:
    """A snapshot that still held, a slow value and a stream: every verdict that the capture holds whole is the same."""
    snap = channel("snap", 8000, kind="vibration", unit="g", capture="snapshot", period_s=6.0)
    config = machine(VIBRATION, CURRENT, snap)

    def with_snapshots(recording: Recording, seconds: int, t_ns: int) -> Recording:
        out = joined(recording)
        for k in range(0, seconds, 6):
            part = running(machine(VIBRATION), 0.5, seed=50 + k, t_ns=t_ns + k * S)
            samples = np.concatenate([f.samples for f in part.frames()])
            out.add(Frame("press-07", "snap", t_ns + k * S, 8000.0, samples))
        return out

    async with bench(tmp_path, config, before_s=1.0) as b:
        two = machine(VIBRATION, CURRENT)
        b.enrol(with_snapshots(running(two, 90), 90, T0_NS))
        later = T0_NS + 1000 * S
        normal = running(two, 10, seed=3, t_ns=later)
        fault = running(two, 8, seed=2, t_ns=later + 10 * S, tone_hz=1230.37, tone=2.0)
        await b.hear(with_snapshots(joined(normal, fault), 18, later))
        await b.written()
        capture = b.files.open("press-07", 1)
        assert set(capture.channels) == {"vib", "amp", "snap"}
        window = WindowConfig.model_validate(WINDOW)
        frames = read_many([capture.folder], machine=config, window=window)
        gatherer = Gatherer(config, window)
        again = []
        bank = b.library.load(config)[0]
        b.pipeline.judges[config.id] = b.library.judge(config, bank)
        for frame in blocks(frames, uncut={(config.id, "snap")}):
            again += b.pipeline.process(gatherer.push(frame))
        again += b.pipeline.process(gatherer.flush())
        raised_ns = capture.document["raised_ns"]
        live = {v.t_ns: v for v in b.verdicts}
        (same,) = [v for v in again if v.t_ns == raised_ns]
        assert same.score == pytest.approx(live[raised_ns].score, rel=1e-6)
        assert {r.channel: r.rms for r in same.readings} == {r.channel: r.rms for r in live[raised_ns].readings}
        assert {r.channel for r in same.readings} == {"vib", "amp", "snap"}


async def test_a_disk_that_refuses_is_told_and_the_alarm_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder, "RETRY_S", 0.01)
    async with bench(tmp_path) as b:
        b.enrol()
        (tmp_path / "captures").write_text("a file where the folder should be")
        await b.hear(story())
        await b.written()
        assert b.live.alarms.anomaly.active
        assert b.live.alarms.anomaly.capture == ""
        assert "press-07/1" in b.recorder.problem
        (tmp_path / "captures").unlink()
        assert await capture_now(b, "press-07", "jane") == b.files.rows()[0]["capture"]
        assert b.recorder.problem == ""


async def test_a_capture_that_the_disk_refused_is_written_when_it_takes_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder, "RETRY_S", 0.05)
    trims: list[bool] = []
    monkeypatch.setattr(recorder, "give_back_heap", lambda: trims.append(bool(b.files.rows())))
    async with bench(tmp_path) as b:
        b.enrol()
        (tmp_path / "captures").write_text("a file where the folder should be")
        await b.hear(story())
        while not b.recorder.problem:
            await asyncio.sleep(0.01)
        (tmp_path / "captures").unlink()
        await b.written()
        assert b.live.alarms.anomaly.capture == "press-07/1"
        assert b.files.document("press-07", 1)["occurrence"] == 1
        assert b.recorder.problem == ""
        assert trims[0] is False and trims[-1] is True  # memory goes back after a refusal, and after what was written


async def test_a_defect_in_the_thread_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with bench(tmp_path) as b:
        b.enrol()

        def defect(*_: object, **__: object) -> str:
            raise ZeroDivisionError

        monkeypatch.setattr(b.files, "save", defect)
        await b.hear(story())
        await b.written()
        assert "ZeroDivisionError" in b.recorder.problem


async def test_an_alarm_that_was_raised_again_meanwhile_keeps_its_own_capture(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        b.enrol()
        await b.hear(story(fault_s=3))
        b.live.alarms._set("anomaly", occurrence=2, ts_raised=1)  # what another raise would leave
        await b.recorder.finish(b.machines)
        assert [r["name"] for r in b.files.rows()] == ["1"]
        assert b.live.alarms.anomaly.capture == ""


async def test_a_machine_that_left_the_configuration_still_leaves_its_capture_but_shows_nothing(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        b.enrol()
        await b.hear(story(fault_s=3))
        b.machines.clear()
        b.recorder.tick(b.machines)
        await b.written()
        assert [r["name"] for r in b.files.rows()] == ["1"]
        assert b.live.alarms.anomaly.capture == ""
        assert b.recorder._ring.machines == ()


async def test_what_did_not_fit_into_memory_is_said(tmp_path: Path) -> None:
    async with bench(tmp_path, before_s=9.0, ring_mb=0.4 + 1) as b:
        b.recorder._ring._max_bytes = 250_000  # five seconds of both channels
        b.enrol()
        await b.hear(story())
        await b.written()
        notes = b.files.document("press-07", 1)["explanation"]["notes"]
        assert any("did not fit into capture.ring_mb" in note for note in notes)


async def test_an_operator_may_ask_for_a_capture_at_any_time(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        with pytest.raises(ConfigError, match="'mill' is not a machine of this agent; it has: press-07"):
            await capture_now(b, "mill", "jane")
        with pytest.raises(Unavailable, match="nothing was heard of press-07 yet"):
            await capture_now(b, "press-07", "jane")
        b.pipeline.judges["press-07"] = b.library.judge(PRESS, None)
        await b.hear(running(seconds=0.5))
        first = await capture_now(b, "press-07", "")
        empty = b.files.document("press-07", first.removeprefix("press-07/"))
        assert empty["explanation"] == unexplained("nothing was judged yet")
        await b.hear(running(seconds=8, t_ns=T0_NS + S // 2))
        path = await capture_now(b, "press-07", "jane")
        name = path.removeprefix("press-07/")
        assert name.startswith("now-")
        document = b.files.document("press-07", name)
        assert (document["alarm"], document["occurrence"], document["by"]) == ("", 0, "jane")
        assert document["text"] == "press-07: captured on request of jane"
        assert document["verdict"]["score"] == -1
        assert "not enrolled" in document["explanation"]["notes"][0]
        assert document["explanation"]["indicators"]["vib"]["rms"]["now"] > 0
        assert document["explanation"].keys() == unexplained().keys()
        assert len(b.files.samples("press-07", name, "vib")) == pytest.approx(8 * 8000, abs=4 * 8000)


async def test_captures_may_be_switched_off(tmp_path: Path) -> None:
    async with bench(tmp_path, enabled=False) as b:
        b.enrol()
        await b.hear(story())
        assert b.live.alarms.anomaly.active
        with pytest.raises(ConfigError, match=r"capture\.enabled"):
            await capture_now(b, "press-07", "")
    assert b.files.rows() == []


@pytest.mark.parametrize(
    ("state", "is_open"),
    [
        ({"base": 1, "acked": False}, True),
        ({"base": 4, "acked": True}, True),
        ({"base": 2, "acked": False}, True),
        ({"base": 0, "acked": True}, False),
    ],
)
def test_an_alarm_is_open_while_it_is_active_or_nobody_has_seen_it(state: dict[str, Any], is_open: bool) -> None:
    document = {"machine": "press-07", "alarm": "anomaly", "occurrence": 4} | state
    alarm = Alarm.from_json(json.dumps(document))
    lifecycle = MachineAlarms("press-07", ["vib"], PRESS.alarm, [alarm])
    config = Config.model_validate({"site": "s", "edge": "e", "window": WINDOW})
    live = LiveMachine(machine(VIBRATION), config, lifecycle, mono_s=0.0)
    assert open_alarms({"press-07": live}) == ({("press-07", "4")} if is_open else set())


async def test_a_capture_of_another_machine_or_rate_is_refused(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        b.enrol()
        await b.hear(story())
        await b.written()
        folder = tmp_path / "captures" / "press-07" / "1"
        assert Capture.open(folder).machine == "press-07"
        window = WindowConfig.model_validate(WINDOW)
        for other, says in (
            (PRESS.model_copy(update={"id": "mill"}), "is a capture of 'press-07', not of machine 'mill'"),
            (machine(channel("vib", 9000)), "has 8000 Hz, channel 'vib' is configured with 9000 Hz"),
            (machine(channel("x", 9000)), "holds vib, amp, none of which is asked for"),
        ):
            with pytest.raises(BadFile, match=says):
                list(read_many([folder], machine=other, window=window))
        with pytest.raises(BadFile, match="is no capture"):
            list(read_many([tmp_path], machine=PRESS, window=window))
        found = list(read_many([folder], machine=replace_channels(PRESS, "vib"), window=window))
        assert {f.channel for f in found} == {"vib"}


def replace_channels(config: MachineConfig, *names: str) -> MachineConfig:
    return config.model_copy(update={"channels": tuple(config.channel(n) for n in names)})
