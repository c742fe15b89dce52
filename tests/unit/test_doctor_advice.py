"""From what was gathered to advice: each symptom names what mends it; missing parts are passed over."""

from typing import Any

import pytest

from fisher_agent.doctor.advice import advise

SOUND: dict[str, Any] = {
    "config": {"problems": [], "document": {"site": "plant1"}},
    "files": {"influx.token_file": {"mode": "0640", "uid": 0, "gid": 0, "readable": True}},
    "daemon": {
        "status": {
            "degraded": {},
            "machines": {"press-07": {"enrolled": True, "channels": {"vib": "ok"}, "drift_text": ""}},
            "dropped": 0, "rejected": 0, "p95_ms": 40.0, "outbox_bytes": 10_000,
        }
    },
    "database": {"version": 4, "known": 4, "counters": {"influx rejected": 0, "influx evicted": 0}},
    "state": {"disk_free": 50, "disk_total": 100, "inodes_free": 50, "inodes_total": 100, "damaged": []},
    "clock": {"unset": False, "timedatectl": {"NTPSynchronized": "yes"}},
    "banks": [{"machine": "press-07", "active": "v1", "versions": [{"version": "v1", "bundle_digest": "d"}]}],
    "bundle": {"digest": "d"},
    "machine": {"cpu": {"flags": "sse avx avx2"}},
    "unit": {"NRestarts": "0"},
}  # fmt: skip


def changed(path: str, value: Any) -> dict[str, Any]:
    first, *rest = path.split("/")
    copy = dict(SOUND)
    node = copy
    for key in [first, *rest][:-1]:
        node[key] = dict(node[key])
        node = node[key]
    node[[first, *rest][-1]] = value
    return copy


def test_nothing_is_said_of_a_box_that_is_well() -> None:
    assert advise(SOUND, {}) == []


@pytest.mark.parametrize("missing", SOUND)
def test_a_part_that_is_missing_takes_no_other_rule_with_it(missing: str) -> None:
    rest = {k: v for k, v in SOUND.items() if k != missing}
    assert advise(rest, {}) == []
    assert advise({}, {}) == []


@pytest.mark.parametrize(
    ("path", "value", "symptom", "remedy"),
    [
        ("config/problems", ["site: is required and missing"], "configuration", "fisher-agent check"),
        ("files/influx.token_file", {"mode": "0644", "readable": True}, "secret", "chmod"),
        ("files/influx.token_file", {"problem": "No such file or directory"}, "file", "path"),
        ("files/influx.token_file", {"mode": "0600", "readable": False}, "file", "chown"),
        (
            "daemon/status/degraded",
            {"link influx": "answered 401"},
            "a connection does not work (link influx)",
            "check --connect",
        ),
        (
            "daemon/status/degraded",
            {"bank press-07": "other bundle"},
            "a bank cannot be used (bank press-07)",
            "judged",
        ),
        ("daemon/status/degraded", {"clock-unset": "held"}, "the clock is not set (clock-unset)", "NTP"),
        ("daemon/status/degraded", {"something-new": "?"}, "degraded (something-new)", "fisher-agent status"),
        ("daemon/status/dropped", 7, "high load", "fisher-agent bench"),
        ("daemon/status/p95_ms", 9000.0, "high load", "fisher-agent bench"),
        ("daemon/status/rejected", 7, "rejected", "check --connect"),
        ("daemon/status/outbox_bytes", 400_000_000, "outbox grows", "database"),
        ("daemon/status/machines", {"m": {"enrolled": False, "channels": {}}}, "no score", "enroll --machine m"),
        ("daemon/status/machines", {"m": {"enrolled": True, "channels": {"v": "stale"}}}, "sensor", "--connect"),
        ("daemon/status/machines", {"m": {"enrolled": True, "channels": {"v": "noisy"}}}, "sensor", "cable"),
        ("daemon/status/machines", {"m": {"enrolled": True, "channels": {}, "drift_text": "up"}}, "drift", "enroll"),
        ("database/version", 5, "state", "install that version"),
        ("database/counters", {"influx rejected": 3}, "rejected", "quarantine"),
        ("database/counters", {"influx evicted": 3}, "outbox", "outbox.max_mb"),
        ("state/disk_free", 1, "disk full", "max_mb"),
        ("state/inodes_free", 1, "disk full", "max_mb"),
        ("state/damaged", ["1"], "damage", "SMART"),
        ("clock/unset", True, "clock", "NTP"),
        ("clock/timedatectl", {"NTPSynchronized": "no"}, "clock", "timedatectl set-ntp"),
        ("machine/cpu", {"flags": "sse"}, "slow processor", "bench"),
        ("unit/NRestarts", "12", "restarts", "journalctl"),
    ],
)
def test_each_symptom_has_its_remedy(path: str, value: Any, symptom: str, remedy: str) -> None:
    (one,) = advise(changed(path, value), {})
    assert one.symptom == symptom
    assert remedy in one.remedy


def test_a_daemon_that_does_not_run_is_told_from_one_that_may_not_be_asked() -> None:
    parts = {k: v for k, v in SOUND.items() if k != "daemon"}
    (stopped,) = advise(parts, {"daemon": "no daemon runs on /var/lib/fisher-agent"})
    assert "systemctl status" in stopped.remedy
    (forbidden,) = advise(parts, {"daemon": "the control socket may not be used by this user; run as root"})
    assert "sudo" in forbidden.remedy


def test_without_a_daemon_the_banks_say_that_the_model_changed() -> None:
    parts = {k: v for k, v in SOUND.items() if k != "daemon"} | {"bundle": {"digest": "other"}}
    (one,) = advise(parts, {})
    assert (one.symptom, "banks rebuild" in one.remedy) == ("another model", True)
