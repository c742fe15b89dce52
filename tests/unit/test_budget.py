import pytest
from hypothesis import given
from hypothesis import strategies as st

from fisher_agent.alarmconfig import AlarmConfig
from fisher_agent.budget import DEFAULT, Budget, duration_words, parse, rate_words


@pytest.mark.parametrize(
    ("words", "hours"),
    [
        ("at most one false alarm per machine per 30 days", 720),
        ("at most one per 30 days", 720),
        ("one per machine per 30 days", 720),
        ("one per 30 days per machine", 720),
        ("One  false alarm per machine per week.", 168),
        ("1 per hour", 1),
        ("1/h", 1),
        ("2 per week", 84),
        ("no more than two alarms per day", 12),
        ("once a month", 720),
        ("twice a week", 84),
        ("one every 10 minutes", 1 / 6),
        ("an alarm per shift", 8),
        ("max 3 false alarms in 1.5 days", 12),
        ("one per year", 8760),
    ],
)
def test_words_mean_a_rate(words: str, hours: float) -> None:
    assert parse(words).per_h == pytest.approx(1 / hours)


@pytest.mark.parametrize(
    "words",
    [
        "", "none", "never", "as few as possible", "0 per day", "one", "per day", "one per", "one per 0 days",
        "-1 per day", "one per 30", "1e3 per day", "one per fortnight", "one or two per week", "some per day",
        "one per 30 days or so",
    ],
)  # fmt: skip
def test_other_words_are_refused_with_examples(words: str) -> None:
    with pytest.raises(ValueError, match=r"is no budget|must lie between") as error:
        parse(words)
    assert '"1 per hour"' in str(error.value)


@pytest.mark.parametrize("words", ["10 per second", "100 per minute", "one per 20 years"])
def test_a_rate_that_nobody_means_is_refused(words: str) -> None:
    with pytest.raises(ValueError, match="one per"):
        parse(words)


def test_the_configuration_speaks_the_same_words_and_names_what_is_wrong() -> None:
    assert AlarmConfig().budget == parse(DEFAULT) == Budget(1 / 720)
    assert AlarmConfig(false_alarms="2 per week").budget.per_h == pytest.approx(1 / 84)
    with pytest.raises(ValueError, match="'often' is no budget of false alarms; write"):
        AlarmConfig(false_alarms="often")


@given(st.floats(1 / 80_000, 59))
def test_a_rate_said_in_words_is_read_as_itself(per_h: float) -> None:
    assert parse(rate_words(per_h)).per_h == pytest.approx(per_h, rel=0.051)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (20, "20 s"),
        (99.65, "100 s"),
        (600, "10 min"),
        (7560, "2.1 h"),
        (86_400, "24 h"),
        (30 * 86_400, "30 days"),
        (1e9, "32 years"),
    ],
)
def test_durations_are_said_in_a_unit_that_people_use(seconds: float, words: str) -> None:
    assert duration_words(seconds) == words


def test_a_block_that_can_hold_two_raises_may_have_each_half_as_often() -> None:
    one = Budget(1.0)
    assert one.per_block(36, windows=8, least_apart=8) == pytest.approx(0.01)
    assert one.per_block(36, windows=9, least_apart=8) == pytest.approx(0.005)
