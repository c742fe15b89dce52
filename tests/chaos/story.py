"""A seeded run of faults in one life of a plant, with the invariants checked after each, and a report."""

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from chaos import invariants
from chaos.faults import FAULTS
from chaos.plant import ILL, WELL, Plant

SETTLED_EVERY = 10  # kills: between them the agent may not even have begun


@dataclass(slots=True)
class Report:
    """What was broken and what it took to recover."""

    seed: int
    began: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    command: str = ""
    faults: dict[str, int] = field(default_factory=dict)  # how often each was brought about
    slowest_s: dict[str, float] = field(default_factory=dict)  # until everything worked again
    scores: int = 0
    transitions: int = 0
    rss_mb: list[float] = field(default_factory=list)
    seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return asdict(self)


def live(folder: Path, *, seed: int, faults: Sequence[str], say: Callable[[str], None] = lambda _: None) -> Report:
    """Bring about each fault in turn. AssertionError, or a failed wait, says after which one what did not hold."""
    rng = random.Random(seed)
    report = Report(seed)
    began_s = time.monotonic()
    with Plant(folder, seed=seed) as plant:
        plant.settle()
        new = plant.usage()
        for number, name in enumerate(faults, 1):
            FAULTS[name](plant, rng)
            report.faults[name] = report.faults.get(name, 0) + 1
            if name == "killed" and number % SETTLED_EVERY and number < len(faults) and faults[number] == "killed":
                continue
            took_s = plant.settle()
            invariants.all_of_them(plant, new)
            report.slowest_s[name] = max(report.slowest_s.get(name, 0.0), round(took_s, 1))
            report.rss_mb.append(round(plant.usage()["rss_bytes"] / 1e6))
            say(f"{number:5} {name:28} works again after {took_s:5.1f} s, {report.rss_mb[-1]:.0f} MB")
        plant.ill(False)
        for sensors in plant.sensors.values():
            sensors.stop()
        assert plant.daemon.stop() == 0
        invariants.every_score_is_stored_once(plant)
        invariants.no_transition_is_lost(plant)
        report.scores = len(plant.scores_seen)
        invariants.windows_are_accounted_for(plant)
        invariants.no_window_is_judged_twice(plant)
        report.transitions = len(plant.transitions_seen)
        assert plant.scores(WELL) and plant.scores(ILL)
    report.seconds = round(time.monotonic() - began_s)
    return report
