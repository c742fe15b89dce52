"""Recordings of several operating modes become one version of a machine's banks; faults join the banks of all modes."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from fisher_agent import enrolment
from fisher_agent.bank import Bank
from fisher_agent.bankset import BankSet
from fisher_agent.config import MachineConfig, WindowConfig
from fisher_agent.coverage import Coverage, EnrolReport
from fisher_agent.errors import NotLearnt
from fisher_agent.gate import most_telling
from fisher_agent.learning import LEAST_RMS
from fisher_agent.learnt import Report
from fisher_agent.split import Split
from fisher_agent.waveforms import Recording

QUIET_MODE = 0.3  # of the level of the other modes: the operator is told, for it may have been a machine that stood


def learn_modes(
    split: Split,
    *,
    previous: BankSet | None,
    keep_others: bool,
    faults: Mapping[str, Recording] | None = None,
    coreset: float = 1.0,
    judge_by: Any = "indicators",
    **common: Any,
) -> tuple[BankSet, EnrolReport]:
    """Learn every part; modes of `previous` that are not among them stay where `keep_others`.

    A mode with too little is left out and named; NotLearnt where none can be learnt. `common` is what `enrolment.learn`
    takes besides. Gains are those of the modes that stay; where none stays, those of the part with most data.
    """
    machine: MachineConfig = common["machine"]
    version: str = common["version"]
    gains = _shared(previous, split, keep_others=keep_others)
    learnt: list[tuple[Bank, Report]] = []
    why: dict[str, str] = dict.fromkeys(split.configured, "nothing of it was heard while it ran steadily")
    for mode, recording in sorted(split.parts.items(), key=lambda p: -p[1].duration_s):
        before = previous.mode(mode) if previous else None
        try:
            bank, report = enrolment.learn(
                recording, previous=before, faults=faults, mode=mode, gains=gains, coreset=coreset, judge_by=judge_by,
                **common,
            )  # fmt: skip
        except NotLearnt as error:
            why[mode] = str(error)
            continue
        why.pop(mode, None)
        gains = gains or {c.channel: c.gain for c in bank.channels}
        learnt.append((bank, report))
    if not learnt:
        if len(split.configured) == 1 and split.parts:
            raise NotLearnt(why[split.configured[0]])
        missing = "; ".join(f"not enough data for mode {m}: {reason}" for m, reason in why.items())
        raise NotLearnt(missing or f"{machine.id} ran in none of its modes ({split.elsewhere_s:.0f} s in others)")
    order = list(split.configured)
    learnt.sort(key=lambda pair: order.index(pair[0].mode) if pair[0].mode in order else len(order))
    banks = [bank for bank, _ in learnt]
    kept = previous if previous is not None and keep_others else None
    result = kept.with_modes(banks, version=version) if kept else BankSet(tuple(banks))
    said = EnrolReport(
        reports=tuple(report for _, report in learnt),
        coverage=tuple(_coverage(result, {b.mode: r for b, r in learnt}, why, window=common["window"])),
        notes=tuple(_notes(result, banks, split, machine)),
    )
    return result, said


def learn_fault(recording: Recording, *, banks: BankSet, fault: str, **common: Any) -> tuple[BankSet, EnrolReport]:
    """Add labelled windows of a fault to the banks of all modes in which the machine ran; NotLearnt where in none."""
    found: list[Bank] = []
    reports: list[Report] = []
    problems: list[NotLearnt] = []
    for bank in banks:
        try:
            labelled, report = enrolment.learn_fault(recording, bank=bank, fault=fault, **common)
        except NotLearnt as error:
            problems.append(error)
            found.append(replace(bank, version=common["version"]))
            continue
        found.append(replace(labelled, created_ns=bank.created_ns))
        reports.append(report)
    if not reports:
        raise problems[0]
    coverage = tuple(Coverage(b.mode, 0.0, 0, enrolled=True) for b in found) if len(found) > 1 else ()
    return BankSet(tuple(found)), EnrolReport(tuple(reports), coverage)


def rebuild(
    recordings: Mapping[str, Recording], old: BankSet, *, faults: Mapping[str, Recording], **common: Any
) -> tuple[BankSet, EnrolReport]:
    """Make every mode again for another bundle, window or precision. NotLearnt where a mode kept no waveforms."""
    if missing := [mode for mode in old.modes if mode not in recordings]:
        raise NotLearnt(
            f"bank {old.version} of {old.machine} kept no waveforms of {', '.join(missing)} (enroll.keep_mb); "
            "enrol it again"
        )
    made = [enrolment.rebuild(recordings[bank.mode], bank, faults=faults, **common) for bank in old]
    banks = BankSet(tuple(replace(new, created_ns=was.created_ns) for (new, _), was in zip(made, old, strict=True)))
    reports = {bank.mode: report for bank, report in made}
    return banks, EnrolReport(tuple(reports.values()), tuple(_coverage(banks, reports, {}, window=common["window"])))


def _shared(previous: BankSet | None, split: Split, *, keep_others: bool) -> dict[str, float] | None:
    if previous is None or not keep_others or set(previous.modes) <= split.parts.keys():
        return None
    return previous.gains


def _coverage(
    banks: BankSet, reports: Mapping[str, Report], why: Mapping[str, str], *, window: WindowConfig
) -> list[Coverage]:
    rows = [
        Coverage(
            mode,
            learnt_s=(report.moments - 1) * window.hop_s + window.length_s if (report := reports.get(mode)) else 0.0,
            independent=report.independent if report else 0,
            enrolled=True,
            note=f"not enough data for mode {mode}, its old bank stays: {why[mode]}" if mode in why else "",
        )
        for mode in banks.modes
    ]
    return rows + [
        Coverage(mode, 0.0, 0, enrolled=False, note=f"not enough data for mode {mode}: {reason}")
        for mode, reason in why.items()
        if mode not in banks.modes
    ]


def _notes(result: BankSet, learnt: list[Bank], split: Split, machine: MachineConfig) -> list[str]:
    notes = []
    if split.elsewhere_s:
        notes.append(
            f"{split.elsewhere_s:.0f} s of running were in no mode that is learnt here; live they are an unknown mode"
        )
    others = [b for b in result if b.mode not in {n.mode for n in learnt}]
    telling = [c.id for c in most_telling(machine.channels)]
    for bank in learnt:
        ratios = [
            float(np.median([bank.channel(c).median_rms / max(o.channel(c).median_rms, LEAST_RMS) for c in telling]))
            for o in others
        ]
        if ratios and max(ratios) < QUIET_MODE:
            notes.append(
                f"mode {bank.mode} has {max(ratios):.0%} of the level of the other modes; if {machine.id} stood still, "
                f"go back with `fisher-agent rollback --machine {machine.id}`"
            )
    return notes
