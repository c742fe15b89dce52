"""A recording of a machine becomes its bank: normal running, a labelled fault, or the old bank for another model.

Windows are cut twice, once to look at and once to embed, so that only a batch of them is in memory at a time.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace

from fisher_agent.bank import Bank
from fisher_agent.bankcheck import Setting, check
from fisher_agent.codes import UNKNOWN_FAULT
from fisher_agent.config import JudgeBy, MachineConfig, WindowConfig
from fisher_agent.errors import ConfigError
from fisher_agent.labelling import add_fault
from fisher_agent.learning import Setup, normal_bank
from fisher_agent.learnt import Report
from fisher_agent.stages import Embedder
from fisher_agent.survey import look, refuse
from fisher_agent.waveforms import Recording
from fisher_models.bundle import Bundle
from fisher_models.frontend import Frontend

__all__ = ["Recording", "Report", "learn", "learn_fault", "rebuild"]

Progress = Callable[[int, int], None]

GAIN_RMS = 0.1
FAULT_CLASS = re.compile(r"[A-Za-z0-9_-]{1,42}")  # with "fault-" before it, it is an alarm's id of at most 48


def learn(
    recording: Recording,
    *,
    machine: MachineConfig,
    window: WindowConfig,
    bundle: Bundle,
    frontend: Frontend,
    embedder: Embedder,
    version: str,
    created_ns: int,
    previous: Bank | None = None,
    faults: Mapping[str, Recording] | None = None,
    mode: str = "default",
    gains: Mapping[str, float] | None = None,
    coreset: float = 1.0,
    judge_by: JudgeBy = "indicators",
    progress: Progress | None = None,
) -> tuple[Bank, Report]:
    """Learn normal running. `faults` are recordings of labelled faults, to be learnt anew with its gains.

    `gains` are those of the machine's other modes, with which it shares them; without any it has its own.

    Under a `coreset` of 1 each channel keeps fewer windows, which stand for that share of all (`learning`). NotLearnt,
    saying what to do, for a machine that does not run (flat; under `running_rms`; far under the level of `previous`;
    mostly stopped) or too few windows. `progress(done, total)` counts windows.
    """
    setup = Setup(
        machine=machine, window=window, bundle=bundle, frontend=frontend, embedder=embedder, version=version,
        created_ns=created_ns, coreset=coreset, judge_by=judge_by, progress=progress,
    )  # fmt: skip
    survey = look(recording, machine, window)
    refuse(survey, recording, machine, window, previous=previous)
    rms = {c.id: survey.rms(c.id) for c in machine.channels}
    own = {c.id: 1.0 if c.valued else GAIN_RMS / rms[c.id] for c in machine.channels}
    bank, report = normal_bank(recording, survey, setup, rms=rms, gains=gains or own, mode=mode)
    return _with_faults(bank, report, faults or {}, setup=setup, before=previous)


def learn_fault(
    recording: Recording,
    *,
    bank: Bank,
    fault: str,
    machine: MachineConfig,
    window: WindowConfig,
    bundle: Bundle,
    frontend: Frontend,
    embedder: Embedder,
    version: str,
    created_ns: int,
    progress: Progress | None = None,
) -> tuple[Bank, Report]:
    """Add labelled windows of a fault to a bank of normal running.

    ConfigError for a class name that cannot be an alarm's, BankMismatch for a bank of another model or machine,
    NotLearnt where the machine did not run.
    """
    if not FAULT_CLASS.fullmatch(fault) or fault == UNKNOWN_FAULT:
        raise ConfigError(f"fault class {fault!r}: use 1 to 42 of A-Z a-z 0-9 _ -, and not {UNKNOWN_FAULT!r}")
    check(bank, Setting(bundle.digest, embedder.precision, window, machine, judged_by=bank.judged_by))
    setup = Setup(
        machine=machine, window=window, bundle=bundle, frontend=frontend, embedder=embedder, version=version,
        created_ns=created_ns, progress=progress,
    )  # fmt: skip
    return add_fault(replace(bank, version=version, created_ns=created_ns), recording, fault, setup=setup)


def rebuild(
    recording: Recording,
    old: Bank,
    *,
    machine: MachineConfig,
    window: WindowConfig,
    bundle: Bundle,
    frontend: Frontend,
    embedder: Embedder,
    version: str,
    created_ns: int,
    faults: Mapping[str, Recording] | None = None,
    coreset: float = 1.0,
    judge_by: JudgeBy = "indicators",
    progress: Progress | None = None,
) -> tuple[Bank, Report]:
    """Make a bank again for another bundle, window or precision; its gains and levels stay, for they are the machine's.

    NotLearnt as `learn`; BankMismatch where the machine's channels are no longer those of the old bank.
    """
    for_window = replace(old, length_s=window.length_s, hop_s=window.hop_s)
    check(for_window, Setting(old.bundle_digest, old.precision, window, machine, judged_by=old.judged_by))
    setup = Setup(
        machine=machine, window=window, bundle=bundle, frontend=frontend, embedder=embedder, version=version,
        created_ns=created_ns, coreset=coreset, judge_by=judge_by, progress=progress,
    )  # fmt: skip
    rms = {c.channel: c.median_rms for c in old.channels}
    gains = {c.channel: c.gain for c in old.channels}
    survey = look(recording, machine, window, reference_rms=rms)
    refuse(survey, recording, machine, window)
    bank, report = normal_bank(recording, survey, setup, rms=rms, gains=gains, mode=old.mode)
    return _with_faults(bank, report, faults or {}, setup=setup, before=old)


def _with_faults(
    bank: Bank, report: Report, faults: Mapping[str, Recording], *, setup: Setup, before: Bank | None
) -> tuple[Bank, Report]:
    """Learn the labelled faults too, and say which of the bank before are lost."""
    notes = list(report.too_little)
    for fault, recording in faults.items():
        bank, learnt = add_fault(bank, recording, fault, setup=setup)
        notes += [f"fault {fault}: {note}" for note in learnt.too_little]
    if before is not None and before.faults is not None:
        lost = [fault for fault in before.faults.counts if fault not in faults]
        notes += [f"fault {fault} of bank {before.version} is not in this one; enrol it again" for fault in lost]
    return bank, replace(report, too_little=tuple(notes))
