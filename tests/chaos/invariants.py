"""What holds whatever was broken. Each check raises AssertionError with what it found."""

import json
import time
from collections import Counter, defaultdict
from collections.abc import Mapping

from chaos.plant import ILL, WELL, Plant
from fisher_agent.bankfiles import BankFiles
from integration.harness import BASE

GROWN_BYTES = 60_000_000  # an enrolment's arenas and caches; a leak of every fault adds up to more
GROWN_FILES = 12
VISIBLE_S = 15.0  # VictoriaMetrics shows what it has taken a moment later


def all_of_them(plant: Plant, before: Mapping[str, int]) -> None:
    """What can be checked while the agent runs. `before` is what it took when it was new."""
    nothing_is_lost_in_the_outbox(plant)
    no_transition_is_lost(plant)
    no_false_alarm(plant)
    banks_are_whole(plant)
    memory_has_returned(plant, before)


def nothing_is_lost_in_the_outbox(plant: Plant) -> None:
    """added = written + rejected + evicted + held, in one reading."""
    with plant.database() as db:
        rows = db.execute("SELECT queue, name, value FROM counter").fetchall()
    for queue in ("influx", "mqtt"):
        count = {name: value for q, name, value in rows if q == queue}
        gone = count["written"] + count["rejected"] + count["evicted"] + count["held"]
        assert count["added"] == gone, f"{queue}: {count}"


def no_transition_is_lost(plant: Plant) -> None:
    """`seq` of every alarm goes up by one, `occurrence` of a machine only up, and an HMI heard what is on the disk."""
    journal = plant.journal()
    seqs: dict[tuple[str, str], list[int]] = defaultdict(list)
    raised: dict[str, list[int]] = defaultdict(list)
    for entry in journal:
        plant.transitions_seen.add((entry["machine"], entry["alarm"], entry["seq"]))
        seqs[entry["machine"], entry["alarm"]].append(entry["seq"])
        if entry["event"] == "raise":
            raised[entry["machine"]].append(entry["occurrence"])
    for alarm, found in seqs.items():
        damaged = plant.journal_from.get(alarm, found[0] - 1)  # of those before it some may be left
        since = [seq for seq in found if seq > damaged]
        assert since == list(range(damaged + 1, damaged + 1 + len(since))), f"{alarm}: transitions {found}"
        assert found == sorted(set(found)), f"{alarm}: transitions {found}"
    for machine, found in raised.items():
        assert found == sorted(found), f"{machine}: occurrences {found}"
    for machine in (WELL, ILL):
        _an_hmi_heard(plant, machine, [(e["alarm"], e["seq"]) for e in journal if e["machine"] == machine])


def _an_hmi_heard(plant: Plant, machine: str, disk: list[tuple[str, int]]) -> None:
    """What is on the disk, in that order; where the HMI was away itself, from the next time on that both agree."""
    heard = [json.loads(p) for p in plant.hmi.heard.get(f"{BASE}/{machine}/event", ())]
    told = list(dict.fromkeys((e["alarm"], e["seq"]) for e in heard))
    if machine in plant.hmi_missed:
        if told[-1:] == disk[-1:]:
            plant.hmi_missed.remove(machine)
            plant.heard_from[machine] = len(told), len(disk)
        return
    n_told, n_disk = plant.heard_from.get(machine, (0, 0))
    told, disk = told[n_told:], disk[n_disk:]
    # What was decided a moment ago may still be on its way.
    assert told == disk[: len(told)] and len(disk) - len(told) <= 2, f"{machine}: heard {told}, stored {disk}"


def no_false_alarm(plant: Plant) -> None:
    """The machine that is well never had an anomaly, a fault or a bad sensor."""
    wrong = [
        (e["alarm"], e["occurrence"], e["score"], e["detail"])
        for e in plant.journal()
        if e["machine"] == WELL and e["event"] == "raise" and not e["alarm"].startswith("stale-")
    ]
    assert not wrong, f"false alarms: {wrong}"


def banks_are_whole(plant: Plant) -> None:
    """Every version that is listed can be read, and the active one is one of them."""
    banks = BankFiles(plant.state_dir / "banks")
    for machine in (WELL, ILL):
        versions = banks.versions(machine)
        assert banks.active(machine) in versions
        for version in versions:
            banks.read(machine, version)


def memory_has_returned(plant: Plant, before: Mapping[str, int]) -> None:
    """Memory and open files are about what they were."""
    now = plant.usage()
    assert now["rss_bytes"] <= before["rss_bytes"] + GROWN_BYTES, f"memory: {before}, now {now}"
    assert now["files"] <= before["files"] + GROWN_FILES, f"open files: {before}, now {now}"


def every_score_is_stored_once(plant: Plant) -> None:
    """After a clean stop: what was judged lies in the database, once, but where the database lied."""
    with plant.database() as db:
        judged = {(machine, t_ns // 1_000_000) for machine, t_ns in db.execute("SELECT machine, t_ns FROM score")}
        count = dict(db.execute("SELECT name, value FROM counter WHERE queue = 'influx'"))
    assert count["held"] == 0, f"{count['held']} points wait after a stop in peace"
    deadline = time.monotonic() + VISIBLE_S
    while True:
        found = [
            (series["metric"]["machine"], t_ms)
            for series in plant.db.series('{__name__="fisher_score_level"}')
            for t_ms in series["timestamps"]
        ]
        if judged <= set(found) or time.monotonic() > deadline:
            break
    assert len(found) == len(set(found)), "a score is stored twice"
    missing = sorted(judged - set(found), key=lambda score: score[1])
    unexplained = [m for m in missing if not any(a <= m[1] <= b for a, b in plant.lost_ms)]
    gone = count["rejected"] + count["evicted"] - plant.evicted_fillers
    assert len(unexplained) <= gone, f"of {len(judged)} scores are lost: {unexplained}"
    plant.scores_seen |= judged & set(found)


def windows_are_accounted_for(plant: Plant) -> None:
    """After a clean stop: every window that was cut is embedded, skipped, dropped or waiting."""
    account = plant.daemon.wait_for_event("windows_account", timeout_s=5)
    assert account["balanced"], account


def no_window_is_judged_twice(plant: Plant) -> None:
    """Scores of a machine are of different windows, over kills too. Their times may go back: a sensor's clock did."""
    with plant.database() as db:
        for machine in (WELL, ILL):
            times = [t for (t,) in db.execute("SELECT t_ns FROM score WHERE machine = ?", (machine,))]
            twice = [t for t, n in Counter(times).items() if n > 1]
            assert not twice, f"{machine}: judged twice: {twice[:10]}"
