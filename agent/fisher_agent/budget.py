"""How many false alarms may be: from an operator's words to a rate, and from a rate to words."""

import re
from dataclasses import dataclass

DEFAULT = "at most one per 30 days"
EXAMPLES = '"at most one per 30 days", "one false alarm per machine per week", "2 per week" or "1 per hour"'
HOURS = {
    "second": 1 / 3600, "s": 1 / 3600, "minute": 1 / 60, "min": 1 / 60, "hour": 1.0, "h": 1.0, "shift": 8.0,
    "day": 24.0, "d": 24.0, "week": 168.0, "month": 720.0, "year": 8760.0,
}  # fmt: skip
NUMBERS = {
    word: n
    for n, word in enumerate(
        ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"), start=1
    )
} | {"a": 1, "an": 1}
ALARMS = r"(?:false\s+)?alarms?"
WORDS = re.compile(
    r"(?:(?:at\s+most|no\s+more\s+than|not\s+more\s+than|max(?:imum)?)\s+)?"
    rf"(?:(?P<adverb>once|twice)|(?P<count>\d+|[a-z]+)(?:\s+{ALARMS})?)"
    r"(?:\s+(?:per|for\s+each|on\s+each)\s+machine)?"
    r"\s*(?:/|\b(?:per|in|every|each|a|an)\b)\s*"
    rf"(?:(?P<times>\d+(?:\.\d+)?|{'|'.join(NUMBERS)})\s*)?"
    rf"(?P<unit>{'|'.join(sorted(HOURS, key=len, reverse=True))})s?"
    r"(?:\s+(?:per|and)\s+machine)?\.?"
)
MOST_PER_H = 60.0
LEAST_PER_H = 1 / (10 * 8760.0)


@dataclass(frozen=True, slots=True)
class Budget:
    """At most so many false alarms of one machine in an hour that it runs."""

    per_h: float

    @property
    def words(self) -> str:
        """Such as `one per 30 days`."""
        return rate_words(self.per_h)

    def per_block(self, block_s: float, *, windows: int, least_apart: int) -> float:
        """The allowed probability that an alarm is raised within a block of so many seconds and grid times.

        Two raises are at least `least_apart` grid times apart (on-delay and off-delay), which bounds how many a block
        can hold; it may exceed 1, where the block is longer than the budget's own time.
        """
        return self.per_h * block_s / 3600 / -(-windows // least_apart)


def parse(text: str) -> Budget:
    """The budget that an operator's words mean; ValueError with examples for any others."""
    found = WORDS.fullmatch(" ".join(text.lower().split()))
    count = 0
    if found is not None:
        said = found["adverb"] or found["count"]
        count = {"once": 1, "twice": 2}.get(said) or NUMBERS.get(said) or (int(said) if said.isdigit() else 0)
    if found is None or not count:
        raise ValueError(f"{text!r} is no budget of false alarms; write {EXAMPLES}")
    times = found["times"] or "1"
    hours = (NUMBERS.get(times) or float(times)) * HOURS[found["unit"]]
    if not hours or not LEAST_PER_H <= count / hours <= MOST_PER_H:
        raise ValueError(f"{text!r} must lie between one per minute and one per 10 years; write {EXAMPLES}")
    return Budget(count / hours)


def rate_words(per_h: float) -> str:
    """`one per 2.1 h`; `none` for a rate of 0."""
    return f"one per {duration_words(3600 / per_h)}" if per_h > 0 else "none"


def duration_words(seconds: float) -> str:
    """Seconds in the unit that a person would use: `45 s`, `10 min`, `2.1 h`, `30 days`."""
    for unit_s, unit, up_to_s in ((1, "s", 100), (60, "min", 5400), (3600, "h", 172_800), (86_400, "days", 7e7)):
        if seconds < up_to_s:
            return f"{_number(seconds / unit_s)} {unit}"
    return f"{_number(seconds / (365 * 86_400))} years"


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 99.5 else f"{value:.2g}"
