"""A model that does not answer any more: the watchdog is not fed, and where there is none the process ends."""

import os
import time

import pytest

from fisher_agent.service import GAVE_UP, GIVE_UP_S, STALLED_S, Progress, Systemd


class Manager(Systemd):
    def __init__(self) -> None:
        self.heard: list[str] = []

    def tell(self, *lines: str) -> None:
        self.heard += lines


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    codes: list[int] = []
    monkeypatch.setattr(os, "_exit", codes.append)
    return codes


def test_the_watchdog_is_fed_while_batches_are_done(clock: list[float], ends: list[int]) -> None:
    progress = Progress(manager := Manager())
    clock[0] += STALLED_S - 0.1
    progress.tell("STATUS=well", waiting=True)
    assert manager.heard == ["WATCHDOG=1", "STATUS=well"]
    clock[0] += 0.2
    progress.tell(waiting=True)
    assert manager.heard == ["WATCHDOG=1", "STATUS=well"], "it stalls"
    assert progress.made() == clock[0]
    progress.tell(waiting=True)
    assert manager.heard[-1] == "WATCHDOG=1" and len(manager.heard) == 3
    assert ends == []


def test_where_nothing_waits_nothing_stalls(clock: list[float], ends: list[int]) -> None:
    progress = Progress(manager := Manager())
    clock[0] += 10 * GIVE_UP_S
    progress.tell(waiting=False)
    assert (manager.heard, ends) == (["WATCHDOG=1"], [])


def test_without_a_watchdog_it_ends_by_itself(clock: list[float], ends: list[int]) -> None:
    progress = Progress(manager := Manager())
    clock[0] += GIVE_UP_S
    progress.tell(waiting=True)
    assert ends == []
    clock[0] += 0.1
    progress.tell(waiting=True)
    assert (manager.heard, ends) == ([], [GAVE_UP])
