"""All that a machine is judged by: a bank per operating mode, as one version and one file.

A machine with one mode has the file that it always had. With several, the file is a safetensors file whose tensors
are the files of the modes, byte for byte; each is read, and verified, as a bank of its own.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import safetensors
import safetensors.numpy

from fisher_agent.bank import OTHER_FORMAT, Bank
from fisher_agent.bankcheck import Setting, check
from fisher_agent.errors import BadFile, BankMismatch
from fisher_agent.jsontext import loads

FORMAT = "fisher.banks/1"
PREFIX = "mode."


@dataclass(frozen=True, slots=True, eq=False)
class BankSet:
    """The banks of one version of one machine, one per mode, in the order of their enrolment; at least one.

    Gains, channels and everything that binds a bank are shared, so that a window is embedded once for all of them.
    """

    banks: tuple[Bank, ...]

    def __post_init__(self) -> None:
        if not self.banks or len({b.mode for b in self.banks}) != len(self.banks):
            raise ValueError(f"a set of banks has one per mode; these are of {[b.mode for b in self.banks]}")

    @property
    def machine(self) -> str:
        """Whose they are."""
        return self.banks[0].machine

    @property
    def version(self) -> str:
        """The version that all of them bear."""
        return self.banks[0].version

    @property
    def created_ns(self) -> int:
        """When the newest of them was learnt."""
        return max(b.created_ns for b in self.banks)

    @property
    def modes(self) -> tuple[str, ...]:
        """The enrolled modes."""
        return tuple(b.mode for b in self.banks)

    @property
    def gains(self) -> dict[str, float]:
        """Channel -> what its samples are multiplied by, whatever the mode."""
        return {c.channel: c.gain for c in self.banks[0].channels}

    @property
    def faults(self) -> tuple[str, ...]:
        """The labelled classes of any of them."""
        return tuple(dict.fromkeys(f for b in self.banks if b.faults for f in b.faults.counts))

    def __iter__(self) -> Iterator[Bank]:
        return iter(self.banks)

    def mode(self, mode: str) -> Bank | None:
        """The bank of a mode; None where it was not enrolled."""
        return next((b for b in self.banks if b.mode == mode), None)

    def with_modes(self, learnt: Sequence[Bank], *, version: str) -> "BankSet":
        """A new version: these replace the banks of their modes, the others stay as they are."""
        new = {b.mode: b for b in learnt}
        banks = [new.pop(b.mode, b) for b in self.banks]
        return BankSet(tuple(replace(b, version=version) for b in (*banks, *new.values())))

    def renamed(self, names: Mapping[str, str], *, version: str) -> "BankSet":
        """A new version in which modes have other names; ValueError where two would have the same."""
        return BankSet(tuple(replace(b, version=version, mode=names.get(b.mode, b.mode)) for b in self.banks))

    def check(self, now: Setting) -> None:
        """BankMismatch, as `bankcheck.check`, unless every one was made for exactly this."""
        for bank in self.banks:
            check(bank, now)
            if {c.channel: c.gain for c in bank.channels} != self.gains:
                raise BankMismatch(
                    f"the modes of bank {self.version} of machine {self.machine} have unlike gains; "
                    f"enrol again: `fisher-agent enroll --machine {now.machine.id}`"
                )

    def to_bytes(self) -> bytes:
        """As one file."""
        if len(self.banks) == 1:
            return self.banks[0].to_bytes()
        tensors = {PREFIX + b.mode: np.frombuffer(b.to_bytes(), np.uint8) for b in self.banks}
        metadata = {"banks": json.dumps({"format": FORMAT, "modes": list(self.modes)})}
        return bytes(safetensors.numpy.save(tensors, metadata=metadata))

    @classmethod
    def from_bytes(cls, data: bytes) -> "BankSet":
        """The reverse of `to_bytes`; a file of one bank, of whatever age, is a set of one. BadFile as `Bank`."""
        modes = _modes(data)
        if modes is None:
            return cls((Bank.from_bytes(data),))
        try:
            tensors = safetensors.numpy.load(data)
            parts = [tensors[PREFIX + mode] for mode in modes]
        except (safetensors.SafetensorError, KeyError, ValueError) as error:
            raise BadFile(f"the bank file is damaged ({error}); restore it, roll back, or enrol again") from error
        banks = tuple(Bank.from_bytes(part.tobytes()) for part in parts)
        if (
            [b.mode for b in banks] != modes
            or len(set(modes)) < len(modes)
            or len({(b.machine, b.version) for b in banks}) != 1
        ):
            raise BadFile("the banks in the file do not belong together; restore it, roll back, or enrol again")
        return cls(banks)


def _modes(data: bytes) -> list[str] | None:
    """The modes that a file of several banks names; None where it is of one, or no such file at all."""
    size = int.from_bytes(data[:8], "little")
    if len(data) < 8 or size > len(data) - 8:
        return None
    try:
        document = loads(loads(data[8 : 8 + size])["__metadata__"]["banks"])
        found, modes = document["format"], document["modes"]
    except (ValueError, KeyError, TypeError):
        return None
    if found != FORMAT:
        raise BadFile(f"the bank's format is {found!r}, this version reads {FORMAT!r}; {OTHER_FORMAT}")
    if not isinstance(modes, list) or not modes or not all(isinstance(m, str) for m in modes):
        raise BadFile("the bank file names no modes; restore it, roll back, or enrol again")
    return modes
