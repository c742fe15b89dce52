"""The configuration of a machine's alarms, and of the bearings that explain them."""

from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator

from fisher_agent import budget
from fisher_agent.configtypes import Id, Positive, Strict


class AlarmConfig(Strict):
    """When an alarm is raised, held, cleared, and called again; delays are in windows."""

    false_alarms: str = budget.DEFAULT  # of one machine, in an operator's words
    probation_days: Annotated[float, Field(ge=0, le=365)] = 7.0  # of learning on after an enrolment; 0: none
    on_delay_windows: Annotated[int, Field(ge=1, le=1000)] = 3  # so many at or over the limit raise it
    on_delay_of: Annotated[int, Field(ge=1, le=1000)] | None = None  # out of the latest so many; None: in a row
    off_delay_windows: Annotated[int, Field(ge=1, le=1000)] = 5  # so many under the deadband clear it
    deadband: Annotated[float, Field(ge=0, lt=1)] = 0.05  # a score counts as cleared under 1 - deadband
    alarm_ratio: Annotated[float, Field(gt=1, le=100)] = 2.0  # from this score on it is severe
    latching: bool = False  # once raised, it stays until somebody acknowledges it
    realarm_h: Annotated[float, Field(ge=0, le=8760)] = 0.0  # acknowledged and still there: calls again; 0: never
    max_shelve_h: Annotated[float, Field(gt=0, le=8760)] = 24.0
    suppress_when_stopped: bool = True  # alarms that nothing can raise while the machine stands say so
    priority: Annotated[int, Field(ge=1, le=4)] = 2  # of `anomaly`; 1 is the highest

    @field_validator("false_alarms")
    @classmethod
    def _false_alarms(cls, words: str) -> str:
        budget.parse(words)
        return words

    @property
    def budget(self) -> budget.Budget:
        """What `false_alarms` means."""
        return budget.parse(self.false_alarms)

    @property
    def delay(self) -> tuple[int, int]:
        """(n, m): n of the latest m verdicts at or over the limit raise it."""
        return self.on_delay_windows, self.on_delay_of or self.on_delay_windows

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.on_delay_of is not None and self.on_delay_of < self.on_delay_windows:
            raise ValueError(
                f"on_delay_of = {self.on_delay_of} windows cannot hold on_delay_windows = {self.on_delay_windows}"
            )
        return self


class BearingConfig(Strict):
    """The geometry of a rolling bearing, for its fault frequencies (see `orders`)."""

    id: Id
    balls: Annotated[int, Field(ge=3, le=500)]
    ball_mm: Positive
    pitch_mm: Positive
    contact_deg: Annotated[float, Field(ge=0, lt=90)] = 0.0
    channels: tuple[Id, ...] = ()  # where it can be felt; default: every vibration channel of the machine
