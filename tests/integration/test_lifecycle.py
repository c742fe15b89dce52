"""What operators do with alarms, through the real daemon and a real broker: every verb, by every way, over a kill."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from integration.harness import BASE, MACHINE, Daemon, Hmi, MqttOutlet, Sensors
from integration.small import HERE, ROTOR, SMALL, call, call_json, small_config, state_db
from servers.mosquitto import Mosquitto

EVERY_VERB = 'commands = ["ack", "shelve", "unshelve", "suppress", "unsuppress", "out-of-service", "in-service"]'
FAST = SMALL + "stale_s = 3600\n[machines.alarm]\non_delay_windows = 2\n"
ALARM = f"{HERE}/alarm/anomaly"


def in_ms(seconds: float) -> int:
    return time.time_ns() // 10**6 + round(seconds * 1000)


def tell(hmi: Hmi, verb: str, *, retain: bool = False, **said: Any) -> dict[str, Any]:
    """Publish a command; returns its result."""
    before = hmi.count(f"{HERE}/cmd/{verb}/result")
    hmi.publish(f"{HERE}/cmd/{verb}", json.dumps(said), retain=retain)
    return hmi.wait_for_json(f"{HERE}/cmd/{verb}/result", after=before)


def events(hmi: Hmi) -> list[tuple[str, str, str]]:
    """Every transition, once: what a kill left unnoted in the outbox is delivered again, with the same `seq`."""
    told = {(e["alarm"], e["seq"]): e for e in map(json.loads, hmi.heard.get(f"{HERE}/event", ()))}
    return [(e["alarm"], e["event"], e["state"]) for e in told.values()]


@contextmanager
def alarmed(tmp_path: Path, enrolled: Path) -> Iterator[tuple[Path, Daemon, Hmi]]:
    """A daemon whose machine has raised its alarm and then fell silent, so that nothing but commands moves it."""
    with Mosquitto(tmp_path) as broker, Hmi(broker.port) as hmi:
        config = small_config(
            tmp_path / "edge", enrolled=enrolled, broker_port=broker.port, machines=FAST, mqtt=EVERY_VERB
        )
        with Daemon(config) as daemon:
            with Sensors(MqttOutlet(broker.port), machine=ROTOR) as sensors:
                hmi.wait_for(f"{HERE}/score")
                sensors.fault_now()
                hmi.wait_for_json(f"{HERE}/event", lambda e: e["event"] == "raise")
            yield config, daemon, hmi


def test_every_verb_moves_the_alarm_once_and_is_on_record(tmp_path: Path, enrolled: Path) -> None:
    with alarmed(tmp_path, enrolled) as (config, _, hmi):
        until = in_ms(600)
        for verb, state, said in (
            ("shelve", "SHELVED", {"until": until, "comment": "waits for a part"}),
            ("unshelve", "UNACK", {}),
            ("suppress", "SUPPRESSED", {}),
            ("unsuppress", "UNACK", {}),
            ("out-of-service", "OOS", {}),
            ("in-service", "UNACK", {}),
            ("ack", "ACKED", {"occurrence": 1}),
        ):
            seen = hmi.count(ALARM)
            result = tell(hmi, verb, id=f"k-{verb}", by="kim", **said)
            assert (result["ok"], result["error"], result["by"]) == (1, "", "kim"), result
            shown = hmi.wait_for_json(ALARM, lambda a, s=state: a["state"] == s, after=seen)
            assert (shown["by"], shown["active"], shown["occurrence"]) == ("kim", 1, 1)
            if verb == "shelve":
                assert (shown["shelved"], shown["shelved_until"], shown["comment"]) == (1, until, "waits for a part")
                hmi.wait_for(f"{HERE}/level", lambda p: p == b"1")
        moves = events(hmi)
        # The same again, by id and without: nothing moves any more.
        assert tell(hmi, "shelve", id="k-shelve", by="kim", until=in_ms(900))["ok"] == 1
        assert tell(hmi, "unshelve")["ok"] == 1
        assert tell(hmi, "ack", occurrence=1)["ok"] == 1
        assert "is not the latest" in tell(hmi, "ack", occurrence=7, by="eve")["error"]
        # What no database could hold is refused like anything else, and the daemon goes on.
        for verb in ("shelve", "ack"):
            refused = tell(hmi, verb, occurrence=1, by="mallory", until=99999999999999999999)
            assert "neither milliseconds nor an ISO time" in refused["error"]
        time.sleep(1.5)
        assert events(hmi) == moves
        with state_db(config) as db:
            rows = db.execute("SELECT verb, by, via, error FROM audit ORDER BY id").fetchall()
        assert [r[0] for r in rows[:7]] == [
            "shelve", "unshelve", "suppress", "unsuppress", "out-of-service", "in-service", "ack",
        ]  # fmt: skip
        assert {r[1:3] for r in rows[:7]} == {("kim", "mqtt")}
        assert rows[-3][:3] == ("ack", "eve", "mqtt") and "is not the latest" in rows[-3][3]
        assert [r[:2] for r in rows[-2:]] == [("shelve", "mallory"), ("ack", "mallory")]


def test_what_was_decided_survives_a_kill_and_is_not_done_again(tmp_path: Path, enrolled: Path) -> None:
    with alarmed(tmp_path, enrolled) as (config, daemon, hmi):
        tell(hmi, "shelve", id="k-1", by="kim", until=in_ms(600))
        hmi.wait_for_json(ALARM, lambda a: a["state"] == "SHELVED")
        hmi.wait_for_json(f"{HERE}/event", lambda e: e["event"] == "shelve")
        before, seen = events(hmi), hmi.count(ALARM)
        daemon.kill()
        daemon.start()
        again = hmi.wait_for_json(ALARM, lambda a: a["state"] == "SHELVED", after=seen)
        assert (again["by"], again["occurrence"]) == ("kim", 1)
        assert tell(hmi, "unshelve", id="k-2", by="kim")["ok"] == 1
        assert tell(hmi, "shelve", id="k-1", by="kim", until=in_ms(600))["ok"] == 1  # an HMI that repeats itself
        assert call_json(config, "alarms")[0]["state"] == "UNACK"
        time.sleep(1.5)
        assert events(hmi) == [*before, ("anomaly", "unshelve", "UNACK")]


def test_shelving_ends_by_itself_also_while_the_agent_is_away(tmp_path: Path, enrolled: Path) -> None:
    with alarmed(tmp_path, enrolled) as (_, daemon, hmi):
        tell(hmi, "shelve", by="kim", until=in_ms(3))
        hmi.wait_for_json(ALARM, lambda a: a["state"] == "SHELVED")
        shown = hmi.wait_for_json(f"{HERE}/event", lambda e: e["event"] == "unshelve")
        assert (shown["state"], shown["by"]) == ("UNACK", "time")
        tell(hmi, "shelve", by="kim", until=in_ms(2))
        seen = hmi.count(f"{HERE}/event")
        daemon.kill()
        time.sleep(2.5)
        daemon.start()
        hmi.wait_for_json(f"{HERE}/event", lambda e: e["event"] == "unshelve", after=seen - 1)


def test_retained_commands_and_reconnects_change_nothing(tmp_path: Path, enrolled: Path) -> None:
    with alarmed(tmp_path, enrolled) as (_, daemon, hmi):
        assert tell(hmi, "shelve", retain=True, by="kim", until=in_ms(600))["ok"] == 1
        hmi.wait_for_json(ALARM, lambda a: a["state"] == "SHELVED")
        assert tell(hmi, "unshelve", retain=True, by="kim")["ok"] == 1
        hmi.wait_for_json(f"{HERE}/event", lambda e: e["event"] == "unshelve")
        before = events(hmi)
        daemon.stop()
        # What an HMI left on the broker while the agent was away.
        hmi.publish(f"{HERE}/cmd/shelve", json.dumps({"by": "template", "until": in_ms(600)}), retain=True)
        hmi.publish(f"{HERE}/cmd/ack", json.dumps({"by": "template", "occurrence": ""}), retain=True)
        for _ in range(2):
            daemon.start()
            hmi.wait_for(f"{HERE}/level", after=hmi.count(f"{HERE}/level"))
            time.sleep(1.5)
            daemon.stop()
        assert events(hmi) == before
        daemon.start()


@pytest.mark.parametrize("daemon_runs", [True, False])
def test_the_same_by_the_command_line_with_a_daemon_and_without(
    tmp_path: Path, enrolled: Path, daemon_runs: bool
) -> None:
    with alarmed(tmp_path, enrolled) as (config, daemon, _):
        if not daemon_runs:
            daemon.stop()
        at = ("--machine", MACHINE)

        def says(*arguments: str, code: int = 0) -> str:
            done = call(config, *arguments)
            assert done.returncode == code, done.stdout + done.stderr
            return done.stderr if code else done.stdout

        assert "is shelved until" in says("shelve", *at, "--for", "8h", "--by", "kim", "--comment", "part ordered")
        row = call_json(config, "alarms")[0]
        assert (row["state"], row["by"], row["comment"]) == ("SHELVED", "kim", "part ordered")
        assert "SHELVED, until " in says("alarms")
        assert "max_shelve_h" in says("shelve", *at, "--for", "48h", code=2)
        assert "has no alarm 'fire'" in says("suppress", *at, "--alarm", "fire", code=2)
        assert "printable text" in says("shelve", *at, "--for", "1h", "--by", "a\nb", code=2)
        says("unshelve", *at)
        says("out-of-service", *at)
        assert call_json(config, "alarms")[0]["state"] == "OOS"
        says("in-service", *at)
        says("suppress", *at, "--alarm", "stale-vib")
        assert [r["state"] for r in call_json(config, "alarms")] == ["UNACK", "SUPPRESSED"]
        if not daemon_runs:
            daemon.start()
            assert [r["state"] for r in call_json(config, "alarms")] == ["UNACK", "SUPPRESSED"]
        with state_db(config) as db:
            by = dict(db.execute("SELECT verb, via FROM audit WHERE error = ''").fetchall())
        assert by["suppress"] == ("socket" if daemon_runs else "offline")


def test_modes_maintenance_captures_and_enrolments_by_command(tmp_path: Path, enrolled: Path) -> None:
    verbs = 'commands = ["ack", "capture", "mode", "maintenance", "enroll-start", "enroll-stop"]'
    with Mosquitto(tmp_path) as broker, Hmi(broker.port) as hmi:
        config = small_config(tmp_path / "edge", enrolled=enrolled, broker_port=broker.port, machines=FAST, mqtt=verbs)
        with Daemon(config) as daemon, Sensors(MqttOutlet(broker.port), machine=ROTOR) as sensors:
            hmi.wait_for(f"{HERE}/score")
            assert "not allowed" in tell(hmi, "suppress")["error"]
            assert tell(hmi, "capture", by="kim")["ok"] == 1
            kept = daemon.wait_for_event("captured", by="kim")["capture"]
            assert (tmp_path / "edge" / "state" / "captures" / kept / "capture.json").is_file()

            assert tell(hmi, "mode", mode="turbo", by="kim")["ok"] == 1
            hmi.wait_for_json(f"{HERE}/alarm/unknown-mode", lambda a: a["state"] == "UNACK")
            assert "must be 1 to 48" in tell(hmi, "mode", mode="a/b")["error"]
            tell(hmi, "mode", mode="default")
            hmi.wait_for_json(f"{HERE}/alarm/unknown-mode", lambda a: a["state"] == "RTNUN")

            assert tell(hmi, "enroll-start", by="kim")["ok"] == 1
            assert "already" in tell(hmi, "enroll-start", by="kim")["error"]
            sensors.wait_until(sensors.now_ns + 20 * 10**9)
            assert tell(hmi, "enroll-stop", by="kim")["ok"] == 1
            learnt = daemon.wait_for_event("enrolled", timeout_s=60)["bank"]
            hmi.wait_for_json(f"{HERE}/state", lambda s: s["bank"] == learnt and s["score"] >= 0)

            assert tell(hmi, "maintenance", until=in_ms(600), by="kim")["ok"] == 1
            hmi.wait_for_json(ALARM, lambda a: (a["state"], a["suppressed_by"]) == ("SUPPRESSED", "maintenance"))
            sensors.fault_now()
            raised = hmi.wait_for_json(f"{HERE}/event", lambda e: (e["alarm"], e["event"]) == ("anomaly", "raise"))
            assert (raised["state"], raised["level"]) == ("SUPPRESSED", 1)
            assert tell(hmi, "maintenance", until=1, by="kim")["ok"] == 1
            hmi.wait_for_json(ALARM, lambda a: a["state"] == "UNACK")


MANY = f"""
[[machines]]
id = "{MACHINE}"
""" + "".join(
    f"""
[[machines.channels]]
id = "c{n}"
rate_hz = 8000
source = "plant"
topic = "raw/{MACHINE}/c{n}"
stale_s = 2
"""
    for n in range(12)
)


def test_a_flood_is_one_alarm_and_says_so_in_the_measures(tmp_path: Path) -> None:
    with Mosquitto(tmp_path) as broker, Hmi(broker.port) as hmi:
        config = small_config(tmp_path / "edge", broker_port=broker.port, machines=MANY)
        with Daemon(config) as daemon:
            flood = hmi.wait_for_json(f"{HERE}/alarm/flood", lambda a: a["state"] == "UNACK")
            assert "stale-c0" in flood["text"] and "stale-c11" in flood["text"]
            for n in range(12):
                topic = f"{HERE}/alarm/stale-c{n}"
                hmi.wait_for_json(topic, lambda a: (a["state"], a["suppressed_by"]) == ("SUPPRESSED", "flood"))
            kpi = hmi.wait_for_json(f"{BASE}/alarms/kpi", lambda k: k["flood"] == 1)
            assert (kpi["active"], kpi["unacknowledged"], kpi["rate_10min"]) == (13, 1, 13)
            before = events(hmi)
            daemon.kill()
            daemon.start()
            hmi.wait_for_json(f"{BASE}/alarms/kpi", after=hmi.count(f"{BASE}/alarms/kpi"))
            time.sleep(2.5)
            assert events(hmi) == before, "a restart alone ends no flood"
