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


def look(progress: Progress, clock: list[float], seconds: float, *, waiting: bool = True) -> None:
    """Once a second, as the daemon does."""
    for _ in range(round(seconds)):
        clock[0] += 1.0
        progress.tell(waiting=waiting)


def test_the_watchdog_is_fed_while_batches_are_done(clock: list[float], ends: list[int]) -> None:
    progress = Progress(manager := Manager())
    look(progress, clock, STALLED_S - 1)
    assert len(manager.heard) == STALLED_S - 1
    look(progress, clock, 10)
    assert len(manager.heard) == STALLED_S - 1, "it stalls"
    assert progress.made() == clock[0]
    progress.tell("STATUS=well", waiting=True)
    assert manager.heard[-2:] == ["WATCHDOG=1", "STATUS=well"]
    assert ends == []


def test_where_nothing_waits_nothing_stalls_and_a_window_after_hours_is_no_stall(
    clock: list[float], ends: list[int]
) -> None:
    progress = Progress(manager := Manager())
    look(progress, clock, 10 * GIVE_UP_S, waiting=False)
    progress.tell(waiting=True)  # a window that came between the look at the backlog and this
    look(progress, clock, 5)
    assert len(manager.heard) == 10 * GIVE_UP_S + 6
    assert ends == []


@pytest.mark.parametrize("away_s", [GIVE_UP_S + 1, 10_000.0])
def test_a_pause_in_which_nobody_looked_is_no_stall(clock: list[float], ends: list[int], away_s: float) -> None:
    progress = Progress(manager := Manager())
    look(progress, clock, 3)
    clock[0] += away_s  # the box slept, or the disk did not answer
    look(progress, clock, STALLED_S - 7)
    assert len(manager.heard) == 3 + STALLED_S - 7
    assert ends == []


def test_without_a_watchdog_it_ends_by_itself(clock: list[float], ends: list[int]) -> None:
    progress = Progress(manager := Manager())
    look(progress, clock, GIVE_UP_S)
    assert ends == []
    look(progress, clock, 1)
    assert ends == [GAVE_UP]
    assert len(manager.heard) == STALLED_S - 1
