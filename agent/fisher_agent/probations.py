"""The probations of one machine, one for each of its operating modes: each has its own limit, and learns on by itself.

A machine without modes has one. Pure, as `probation`.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any

from fisher_agent.alarmconfig import AlarmConfig
from fisher_agent.bank import Bank
from fisher_agent.errors import ConfigError
from fisher_agent.lifecycle import Alarm
from fisher_agent.probation import REPLACED, Probation, follow, words
from fisher_agent.stages import Verdict

Probations = Mapping[str, Probation]  # by mode


def taken(all_: Probations, verdict: Verdict, anomaly: Alarm) -> Probations:
    """With a verdict learnt by its mode. In the other modes a run of verdicts is broken by it."""
    judged = verdict.mode or ""
    if judged not in all_ or not verdict.scored:
        return all_
    now = {mode: replace(p, recent=()) if p.recent and mode != judged else p for mode, p in all_.items()}
    now[judged] = now[judged].take(verdict, anomaly)
    return now if any(now[mode] is not p for mode, p in all_.items()) else all_


def followed(before: Probations, banks: Iterable[Bank], alarm: AlarmConfig) -> Probations:
    """As `probation.follow`, of every mode that was loaded; a mode that is no more has none.

    A mode with another name takes its probation along. A version that is older in any mode was rolled back to: that
    ends it for all of them.
    """
    known, loaded = dict(before), list(banks)
    for bank in loaded:
        if bank.mode not in known and (was := _renamed(before, bank, {b.mode for b in loaded})):
            known[bank.mode] = known.pop(was)
    found = {bank.mode: follow(known.get(bank.mode), bank, alarm) for bank in loaded}
    back = any(b.mode in known and b.created_ns < known[b.mode].bank_ns for b in loaded)
    return {
        mode: replace(p, ended=REPLACED, settled=True) if back and not p.ended else p
        for mode, p in found.items()
        if p is not None
    }


def _renamed(before: Probations, bank: Bank, modes: Collection[str]) -> str | None:
    """The name that a bank's mode had: that of a mode which is no more, of the same enrolment."""
    new = bank.calibrated
    return next(
        (
            mode
            for mode, p in before.items()
            if mode not in modes
            and new is not None
            and (p.calibrated.since_s, p.calibrated.enrolled_limit) == (new.since_s, new.enrolled_limit)
        ),
        None,
    )


def confirmed(all_: Probations, machine: str, by: str) -> Probations:
    """An operator ends those that go on. ConfigError where none does."""
    if not all_:
        raise ConfigError(f"{machine} is not on probation: its budget of false alarms is supported, or not known")
    if all(p.ended for p in all_.values()):
        raise ConfigError(f"{machine} is not on probation: {'; '.join(dict.fromkeys(p.ended for p in all_.values()))}")
    return {mode: p if p.ended else p.confirmed(by) for mode, p in all_.items()}


def called_false(all_: Probations, machine: str, occurrence: int) -> Probations:
    """An operator says that this alarm was false, in whatever modes it stood; ConfigError where nothing waits."""
    if not all_:
        raise ConfigError(f"{machine} is not on probation: its budget of false alarms is supported, or not known")
    waiting = {mode for mode, p in all_.items() if any(w.occurrence == occurrence for w in p.pending)}
    if not waiting:
        known = ", ".join(map(str, sorted({w.occurrence for p in all_.values() for w in p.pending}))) or "none"
        raise ConfigError(f"no block of occurrence {occurrence} waits to be called normal; those that do: {known}")
    return {mode: p.called_false(occurrence) if mode in waiting else p for mode, p in all_.items()}


def facts(all_: Probations, now_ns: int) -> dict[str, Any]:
    """What `status` and `machines` tell: `words`, what `Probation.facts` tells of all modes together, and of each."""
    each = {mode: p.facts(now_ns) for mode, p in all_.items()}
    if not each:
        return {"words": "", "active": False}
    rows = list(each.values())
    last = max(rows, key=lambda row: float(row["days_left"]))

    def said(key: str) -> str:
        texts = dict.fromkeys(row[key] for row in rows)
        return texts.popitem()[0] if len(texts) == 1 else "; ".join(f"{m}: {row[key]}" for m, row in each.items())

    found = {
        **last,
        "active": any(row["active"] for row in rows),
        "ended": "" if any(row["active"] for row in rows) else said("ended"),
        "false_alarms": said("false_alarms"),
        "learnt_blocks": sum(row["learnt_blocks"] for row in rows),
        "left_out_blocks": sum(row["left_out_blocks"] for row in rows),
        "waiting_occurrences": sorted({o for row in rows for o in row["waiting_occurrences"]}),
        "modes": each,
    }
    return {"words": words(found), **found}
