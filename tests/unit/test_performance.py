"""The measures of the alarm system: what is counted, when a flood begins and ends, what chatters and what is stale."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fisher_agent.codes import State
from fisher_agent.lifecycle import Alarm, Reason
from fisher_agent.performance import DAY_MS, TEN_MINUTES_MS, Performance

NOW = 1_795_000_000_000


def alarm(ms_ago: int, name: str = "anomaly", **facts: object) -> Alarm:
    return replace(Alarm(machine="m", alarm=name, base=State.UNACK, ts_raised=NOW - ms_ago), **facts)


def seen(*ms_ago: int, name: str = "anomaly") -> Performance:
    return Performance([alarm(t, name) for t in sorted(ms_ago, reverse=True)])


def test_the_rate_counts_the_last_ten_minutes_and_the_last_day() -> None:
    kpi = seen(0, TEN_MINUTES_MS, TEN_MINUTES_MS + 1, DAY_MS, DAY_MS + 1).kpi([], NOW)
    assert (kpi["rate_10min"], kpi["rate_day"], kpi["peak_10min"]) == (2, 4, 2)


def test_a_flood_begins_above_ten_and_ends_below_five() -> None:
    performance = Performance()
    shown = []
    for _ in range(11):
        performance.raised(alarm(0), NOW)
        shown.append(performance.flood(NOW))
    assert shown == [False] * 10 + [True]
    assert performance.flood(NOW + TEN_MINUTES_MS)
    assert not performance.flood(NOW + TEN_MINUTES_MS + 1)
    for _ in range(10):
        performance.raised(alarm(-TEN_MINUTES_MS - 1), NOW + TEN_MINUTES_MS + 1)
    assert not performance.flood(NOW + TEN_MINUTES_MS + 1)


def test_an_alarm_that_comes_three_times_in_a_minute_chatters_for_an_hour() -> None:
    performance = seen(60_000, 30_000, 0, name="stale-a")
    performance.raised(alarm(0, "anomaly"), NOW)
    kpi = performance.kpi([], NOW)
    assert (kpi["chattering"], kpi["chattering_count"]) == ("m/stale-a", 1)
    assert performance.kpi([], NOW + 3_600_001)["chattering_count"] == 0
    assert seen(60_001, 30_000, 0).kpi([], NOW)["chattering_count"] == 0


def test_an_alarm_that_holds_for_more_than_a_day_is_stale_unless_somebody_put_it_aside() -> None:
    old = alarm(DAY_MS + 1)
    alarms = [
        old,
        replace(old, alarm="b", base=State.RTNUN),
        replace(old, alarm="c", suppressed_by=(Reason.OPERATOR,)),
        alarm(DAY_MS - 1, "d"),
    ]
    kpi = Performance().kpi(alarms, NOW)
    assert (kpi["stale"], kpi["stale_count"], kpi["active"], kpi["suppressed"]) == ("m/anomaly", 1, 3, 1)
    assert kpi["unacknowledged"] == 3  # the one that an operator suppressed does not call


def test_the_mix_of_priorities_forgets_after_thirty_days() -> None:
    performance = Performance([alarm(31 * DAY_MS, priority=1), alarm(0, priority=1), alarm(0, priority=3)])
    kpi = performance.kpi([], NOW)
    assert [kpi[f"priority_{p}"] for p in (1, 2, 3, 4)] == [1, 0, 1, 0]


@given(st.lists(st.integers(0, 3 * DAY_MS), max_size=60))
def test_no_ten_minutes_hold_more_than_the_peak(ms_ago: list[int]) -> None:
    kpi = seen(*ms_ago).kpi([], NOW)
    recent = [t for t in ms_ago if t <= DAY_MS]
    worst = max((sum(t <= other <= t + TEN_MINUTES_MS for other in recent) for t in recent), default=0)
    assert kpi["peak_10min"] == worst


@pytest.mark.parametrize("back_ms", [0, DAY_MS])
def test_a_clock_that_goes_back_breaks_nothing(back_ms: int) -> None:
    assert seen(0, 10, 20).kpi([alarm(0)], NOW - back_ms)["rate_10min"] == 3


def test_a_clock_ahead_of_this_one_makes_no_flood_that_lasts() -> None:
    performance = Performance()
    for day in range(11):
        performance.raised(alarm(-365 * DAY_MS), NOW + day * DAY_MS)
        assert not performance.flood(NOW + day * DAY_MS)
    assert not performance.flood(NOW + 200 * DAY_MS)


@pytest.mark.parametrize("shown", [True, False])
def test_a_flood_goes_on_over_a_restart_until_it_ends_by_its_own_measure(shown: bool) -> None:
    later = seen(*range(7))
    later.resume([alarm(0, "flood")] if shown else [])
    assert later.flood(NOW) is shown
    assert not later.flood(NOW + TEN_MINUTES_MS + 1)
