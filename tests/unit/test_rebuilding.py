"""After an upgrade of the model the daemon makes its banks again by itself; what it cannot mend stands as it was."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from fakes import SPEC, FakeEmbedder, bundle, running
from fisher_agent import banks as library_module
from fisher_agent import rebuilding
from fisher_agent.app import build, open_store
from fisher_agent.bankfiles import BankFiles
from fisher_agent.banks import BankLibrary, Engine
from fisher_agent.config import Config
from fisher_agent.configfile import parse
from fisher_agent.errors import Unavailable
from fisher_agent.ledger import Model
from fisher_agent.runtime import Agent
from fisher_agent.stages import Floats
from fisher_models.frontend import Frontend

PRESS = "press-07"
OLD, NEW = bundle(digest="a" + "1" * 63), bundle(digest="c" + "2" * 63)


def config(folder: Path, *, keep_mb: float = 256, model: str = "") -> Config:
    channels = "".join(
        f'[[machines.channels]]\nid = "{c}"\nkind = "{kind}"\nunit = "{unit}"\nrate_hz = {rate}\nsource = "daq"\n'
        f'topic = "{c}"\n'
        for c, kind, unit, rate in (("vib", "vibration", "g", 8000), ("amp", "current", "A", 4000))
    )
    return parse(
        f'site = "s"\nedge = "e"\nstate_dir = "{folder}"\n[page]\nenabled = false\n[enroll]\nkeep_mb = {keep_mb}\n'
        f'[window]\nlength_s = 1.0\nhop_s = 0.5\n{model}\n[[sources]]\nname = "daq"\ntype = "zmq"\n'
        f'url = "ipc:///nowhere/daq.sock"\n[[machines]]\nid = "{PRESS}"\n{channels}'
    )


def engine(of: object = OLD, embedder: FakeEmbedder | None = None) -> Engine:
    made = bundle(digest=getattr(of, "digest", ""))
    model = Model("fake", made.digest, "trained", "fake", "f32", "CPU")
    return Engine(made, Frontend(SPEC), embedder or FakeEmbedder(), model)


def files(folder: Path) -> BankFiles:
    found = BankFiles(folder / "banks")
    found.sweep()
    return found


def enrol(now: Config, *, of: object = OLD, seed: int = 1) -> str:
    library = BankLibrary(now, files(now.state_dir), engine(of))
    bank, _ = library.learn(now.machine(PRESS), running(seconds=30, seed=seed))
    return bank.version


@asynccontextmanager
async def started(now: Config, embedder: FakeEmbedder | None = None) -> AsyncIterator[Agent]:
    """The daemon after the upgrade, with this service alone."""
    store = open_store(now)
    agent = build(now, store)
    agent.parts.open_engine = lambda: (engine(NEW, embedder), None)
    agent.parts.services = (rebuilding.serve,)
    task = asyncio.create_task(agent.run(), name="agent")
    try:
        await asyncio.wait([task, ready := asyncio.create_task(agent.ready.wait())], return_when="FIRST_COMPLETED")
        ready.cancel()
        yield agent
    finally:
        agent.stop()
        await task
        store.close()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rebuilding, "CHECK_S", 0.02)
    monkeypatch.setattr(rebuilding, "RETRY_S", 0.1)


class Gated(FakeEmbedder):
    """Waits before the first batch until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.reached, self.go = threading.Event(), threading.Event()

    def embed(self, bands: Floats, centres: Floats) -> Floats:
        self.reached.set()
        assert self.go.wait(30)
        return super().embed(bands, centres)


def judges_by(agent: Agent) -> str:
    bank = agent.pipeline.judges[PRESS].bank
    return "" if bank is None else bank.version


async def test_a_bank_of_the_model_before_is_made_again_from_its_waveforms(tmp_path: Path) -> None:
    now = config(tmp_path)
    before = enrol(now)
    gate = Gated()
    async with started(now, gate) as agent:
        await until(gate.reached.is_set)
        assert judges_by(agent) == ""
        said = agent.degradations()[f"bank {PRESS}"]
        assert said.startswith("rebuilding: it was made for bundle fake a1111") and "judged again" in said
        gate.go.set()
        await until(lambda: not agent.bank_problems)
        assert agent.degradations().keys() == {"link source daq"} or not agent.degradations()
        after = judges_by(agent)
    kept = files(tmp_path)
    assert after not in ("", before)
    assert (kept.active(PRESS), kept.versions(PRESS)) == (after, [before, after])
    assert kept.manifest(PRESS, after)["bundle_digest"] == NEW.digest
    waves = [tmp_path / "banks" / PRESS / v / "waveforms.safetensors" for v in (before, after)]
    assert waves[0].samefile(waves[1]), "the disk holds the waveforms once"
    assert kept.waveforms(PRESS, after) == kept.waveforms(PRESS, before)


async def test_without_waveforms_it_stays_unusable_and_says_what_to_do_and_is_tried_once(tmp_path: Path) -> None:
    now = config(tmp_path, keep_mb=0)
    before = enrol(now)
    async with started(now) as agent:
        await until(lambda: "tried already" in agent.bank_problems.get(PRESS, ""))
        problem = agent.bank_problems[PRESS]
        assert "kept no waveforms" in problem and "enrol it again" in problem
        await asyncio.sleep(0.2)
        assert agent.bank_problems[PRESS] == problem
        assert judges_by(agent) == ""
    assert files(tmp_path).versions(PRESS) == [before]


async def test_an_enrolment_that_is_done_first_is_the_one_that_judges(tmp_path: Path) -> None:
    now = config(tmp_path)
    enrol(now)
    gate = Gated()
    async with started(now, gate) as agent:
        await until(gate.reached.is_set)
        fresh = await asyncio.to_thread(enrol, now, of=NEW, seed=2)
        gate.go.set()
        await until(lambda: judges_by(agent) == fresh)
        await until(lambda: not agent.bank_problems)
    assert files(tmp_path).active(PRESS) == fresh


async def test_a_machine_that_leaves_meanwhile_leaves_no_problem_behind(tmp_path: Path) -> None:
    now = config(tmp_path)
    enrol(now)
    gate = Gated()
    async with started(now, gate) as agent:
        await until(gate.reached.is_set)
        agent.remove_machine(PRESS)
        agent.config = now.model_copy(update={"machines": ()})
        gate.go.set()
        await until(lambda: len(BankFiles(tmp_path / "banks").versions(PRESS)) == 2)
        await asyncio.sleep(0.2)
        assert not agent.bank_problems


async def test_a_stop_meanwhile_leaves_everything_as_it_was(tmp_path: Path) -> None:
    now = config(tmp_path)
    before = enrol(now)
    gate = Gated()
    async with started(now, gate) as agent:
        await until(gate.reached.is_set)
        agent.stop()
        gate.go.set()
    assert files(tmp_path).versions(PRESS) == [before]
    async with started(now) as agent:
        await until(lambda: bool(judges_by(agent)))


async def test_a_disk_that_refuses_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = config(tmp_path)
    enrol(now)
    in_the_way = tmp_path / "banks" / PRESS / ".v-next.draft"
    monkeypatch.setattr(library_module, "new_version", lambda: "v-next")
    refused = threading.Event()
    rebuild = BankLibrary.rebuild

    def noted(*args: Any, **keys: Any) -> Any:
        try:
            return rebuild(*args, **keys)
        except Unavailable:
            refused.set()
            raise

    monkeypatch.setattr(BankLibrary, "rebuild", noted)
    gate = Gated()
    async with started(now, gate) as agent:
        await until(gate.reached.is_set)
        in_the_way.write_text("a file where a folder must be")
        gate.go.set()
        await until(refused.is_set)
        in_the_way.unlink()
        await until(lambda: judges_by(agent) == "v-next" and not agent.bank_problems)


async def test_a_bank_that_fits_or_is_damaged_is_left_alone(tmp_path: Path) -> None:
    now = config(tmp_path)
    fits = enrol(now, of=NEW)
    async with started(now) as agent:
        await asyncio.sleep(0.1)
        assert (judges_by(agent), agent.bank_problems) == (fits, {})
    (tmp_path / "banks" / PRESS / fits / "bank.safetensors").write_bytes(b"no bank")
    async with started(now) as agent:
        await asyncio.sleep(0.2)
        assert "is damaged" in agent.bank_problems[PRESS] and "tried already" not in agent.bank_problems[PRESS]
    assert files(tmp_path).versions(PRESS) == [fits]


def test_with_a_gpu_another_precision_alone_makes_no_bank_outdated(tmp_path: Path) -> None:
    """It changes whenever the GPU comes or goes; each time a new version would be made."""
    now = config(tmp_path)
    enrol(now)

    half = FakeEmbedder()
    half.precision = "f16"
    for model, mended in (('[model]\nbackend = "tensorrt"', False), ("", True)):
        later = config(tmp_path, model=model)
        library = BankLibrary(later, files(tmp_path), engine(OLD, half))
        assert library.load(later.machine(PRESS))[0] is None
        assert bool(library.outdated(later.machine(PRESS))) == mended
        other = BankLibrary(later, files(tmp_path), engine(NEW, half))
        assert "bundle" in other.outdated(later.machine(PRESS))


def test_a_channel_that_changed_is_no_matter_of_rebuilding(tmp_path: Path) -> None:
    now = config(tmp_path)
    enrol(now)
    library = BankLibrary(now, files(tmp_path), engine(NEW))
    machine = now.machine(PRESS)
    vib, amp = machine.channels
    changed = machine.model_copy(update={"channels": (vib.model_copy(update={"scale": 2.0}), amp)})
    assert library.load(changed)[1].endswith("`fisher-agent enroll --machine press-07`")
    assert library.outdated(changed) == ""
