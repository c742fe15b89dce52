"""The code tables of the contract: level, state, status, quality. They stand here and in the docs, nowhere else."""

from enum import IntEnum, StrEnum


class Level(IntEnum):
    """What an HMI colours by; `level_name` is the lower-case name."""

    UNKNOWN = -1
    NORMAL = 0
    ADVISORY = 1
    ALARM = 2
    SEVERE = 3


class State(IntEnum):
    """Alarm states, the display summary of ISA-18.2 / IEC 62682; 1 to 3 need an operator."""

    UNKNOWN = -1
    NORM = 0
    UNACK = 1
    RTNUN = 2
    LATCHED = 3
    ACKED = 4
    SHELVED = 5
    SUPPRESSED = 6
    OOS = 7


class Status(StrEnum):
    """What is known of one channel's input."""

    OK = "ok"
    STALE = "stale"
    FLAT = "flat"
    CLIPPED = "clipped"
    GAP = "gap"
    RATE_MISMATCH = "rate-mismatch"
    NOISY = "noisy"
    STUCK = "stuck"
    UNPLUGGED = "unplugged"
    CLOCK_DRIFT = "clock-drift"

    @property
    def code(self) -> int:
        """The integer written to `status_code`."""
        return STATUS_CODES[self]


STATUS_CODES = {
    Status.OK: 0,
    Status.STALE: 1,
    Status.FLAT: 2,
    Status.CLIPPED: 3,
    Status.GAP: 4,
    Status.RATE_MISMATCH: 5,
    Status.NOISY: 6,
    Status.STUCK: 7,
    Status.UNPLUGGED: 8,
    Status.CLOCK_DRIFT: 9,
}


class Quality(StrEnum):
    """How much of a machine a verdict rests on."""

    GOOD = "good"
    PARTIAL = "partial"
    BAD = "bad"

    @property
    def code(self) -> int:
        """The integer written to `quality_code`."""
        return QUALITY_CODES[self]


QUALITY_CODES = {Quality.GOOD: 0, Quality.PARTIAL: 1, Quality.BAD: 2}

UNKNOWN_FAULT = "unknown"
UNKNOWN_FAULT_CODE = 1
"""Fault code 0 is "no fault", 1 is "unknown"; classes of a machine follow from 2 in the order of their first use."""
FIRST_FAULT_CODE = 2
