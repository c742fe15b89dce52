"""What learning on touches of the daemon, without the daemon: library, ledger, store and one live machine."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from fisher_agent.alarms import MachineAlarms
from fisher_agent.bankfiles import BankFiles
from fisher_agent.banks import BankLibrary
from fisher_agent.board import Board
from fisher_agent.config import Config, MachineConfig
from fisher_agent.ledger import Ledger, Model
from fisher_agent.live import LiveMachine
from fisher_agent.machinejudge import MachineJudge
from fisher_agent.report import Names
from fisher_agent.stats import Stats
from fisher_agent.store import Store


class LearningPlant:
    """Stands in for `runtime.Agent` where limits are refined."""

    def __init__(
        self, config: Config, machine: MachineConfig, *, library: BankLibrary, files: BankFiles, store: Store
    ) -> None:
        self.config, self.machine = config, machine
        self.library, self.files, self.store = library, files, store
        self.ledger = Ledger(
            Names.of(config), store, self.in_store, board=Board(), stats=Stats(),
            model=Model("fake", "b", "trained", "fake", "f32", "CPU"),
        )  # fmt: skip
        self.pipeline = SimpleNamespace(judges={})
        self.restart()

    def restart(self) -> None:
        """The machine as it is after a start: what was learnt lies in the store alone."""
        alarms = MachineAlarms(self.machine.id, [c.id for c in self.machine.channels], self.machine.alarm)
        self.live = LiveMachine(self.machine, self.config, alarms, mono_s=0.0)
        self.machines = {self.machine.id: self.live}

    async def in_store(self, function: Callable[..., Any], *values: Any, **keys: Any) -> Any:
        """At once, in this thread."""
        return function(*values, **keys)

    async def use_bank(self, machine: str) -> None:
        """As the agent does."""
        bank, problem = self.library.load(self.machine)
        assert problem == ""
        self.pipeline.judges[machine] = self.library.judge(self.machine, bank)
        await self.ledger.judged_with(self.live, bank)

    @property
    def judge(self) -> MachineJudge:
        """What judges the machine now."""
        judge: MachineJudge = self.pipeline.judges[self.machine.id]
        return judge
