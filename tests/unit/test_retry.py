"""How long the agent waits before it tries a connection again."""

import pytest

from fisher_agent.retry import CAP_S, FIRST_S, STEADY_S, Backoff

SEEDS = range(50)


def waits(n: int, *, seed: int = 0) -> list[float]:
    backoff = Backoff(seed)
    return [backoff.after(0.0) for _ in range(n)]


@pytest.mark.parametrize("seed", SEEDS)
def test_a_wait_is_never_longer_than_the_cap_and_never_nothing(seed: int) -> None:
    assert all(FIRST_S / 2 <= wait <= CAP_S for wait in waits(2000, seed=seed))


@pytest.mark.parametrize("seed", SEEDS)
def test_waits_double_until_the_cap(seed: int) -> None:
    for n, wait in enumerate(waits(12, seed=seed)):
        ceiling = min(CAP_S, FIRST_S * 2 ** (n + 1))
        assert ceiling / 2 <= wait <= ceiling


def test_agents_that_lost_the_same_broker_come_back_at_different_times() -> None:
    firsts = sorted(Backoff(seed).after(0.0) for seed in SEEDS)
    assert firsts[-1] - firsts[0] > 0.8 * FIRST_S
    assert len(set(firsts)) == len(firsts)


def test_after_a_steady_connection_the_waits_start_over() -> None:
    backoff = Backoff(0)
    for _ in range(10):
        backoff.after(STEADY_S - 0.1)
    assert backoff.after(STEADY_S - 0.1) >= CAP_S / 2
    assert backoff.after(STEADY_S) <= 2 * FIRST_S
    assert backoff.after(0.0) <= 4 * FIRST_S


def test_a_time_that_the_server_named_is_never_undercut() -> None:
    backoff = Backoff(0)
    assert backoff.after(0.0, told_s=120.0) == 120.0
    assert all(backoff.after(0.0, told_s=0.01) >= FIRST_S / 2 for _ in range(10))
