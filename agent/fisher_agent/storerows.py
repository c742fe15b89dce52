"""Rows of the store that others make and read."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Score:
    """One row of the score history."""

    machine: str
    t_ns: int
    score: float
    p_value: float
    level: int
    fault_code: int
    quality_code: int
    mode: str = ""
    bank: str = ""  # the version; "" where it is not known


@dataclass(frozen=True, slots=True)
class Audit:
    """One row of the record of commands: who asked for what, when, why, by which way; `error` "" where it was done."""

    t_ms: int
    machine: str
    verb: str
    alarm: str
    occurrence: int  # -1: none was named
    command_id: str
    by: str
    comment: str
    until_ms: int
    via: str  # mqtt | socket | page | offline
    error: str = ""
