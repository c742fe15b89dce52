"""The errors of the agent, and what each one makes the process do.

FisherError
├── ConfigError      the user must change something           exit 2, before any I/O
├── BadPayload       one message does not parse               dropped, counted by `reason`
├── BadFile          a recording or a bank file is unusable   exit 2, or the file is left out, declared
├── BankMismatch     a bank was made for something else       that machine is not scored, declared
├── NotLearnt        an enrolment cannot be used              exit 1, the old bank stays
├── Unavailable      a server, device or lock is away         retried by the runtime; exit 3 in a command
└── BackendFailed    the model cannot be trusted              the process ends non-zero
"""

from collections.abc import Sequence


class FisherError(Exception):
    """Anything the agent raises on purpose; the message says what, which and what to do."""


class ConfigError(FisherError):
    """The configuration or the command line is wrong; `problems` holds every mistake, one line each."""

    def __init__(self, problems: str | Sequence[str]) -> None:
        self.problems = (problems,) if isinstance(problems, str) else tuple(problems)
        super().__init__("\n".join(self.problems))


class BadPayload(FisherError):
    """A message does not parse; `reason` is one of a bounded list of words, for counters."""

    def __init__(self, reason: str, detail: str) -> None:
        self.reason = reason
        super().__init__(f"{reason}: {detail}")


class BadFile(FisherError):
    """A file (recording, bank) cannot be read as what it should be."""


class BankMismatch(FisherError):
    """A bank belongs to another bundle, window, rate, scale, unit or precision.

    `outdated` says what differs where making it again from its kept waveforms mends all of it; else it is empty.
    """

    def __init__(self, message: str, *, outdated: Sequence[str] = ()) -> None:
        self.outdated = tuple(outdated)
        super().__init__(message)


class NotLearnt(FisherError):
    """An enrolment gave nothing that can be trusted: the machine did not run, or there is too little data."""


class Unavailable(FisherError):
    """A server, device or lock is away for now; `retry_after_s` is set where the other side named a time."""

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(message)


class BackendFailed(FisherError):
    """The inference backend gave an error or a wrong result: nothing it says can be trusted."""
