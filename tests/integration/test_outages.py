"""What an outage and a kill may cost: nothing of what was written down, and no occurrence twice."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fisher_agent.codes import Level, State
from integration.harness import BASE, Daemon, Hmi, MqttOutlet, Sensors
from integration.small import HERE, ROTOR, SMALL, counters, small_config, state_db
from servers.influxdb import InfluxDB
from servers.mosquitto import Mosquitto
from servers.victoria import VictoriaMetrics

Identity = tuple[str, str, int]  # measurement, tags as they are written, time in ms
# A field of each measurement that every point of it has.
ALWAYS = {
    "fisher_score": "level",
    "fisher_channel": "rms",
    "fisher_band": "contribution",
    "fisher_fault": "confidence",
    "fisher_alarm": "state_code",
    "fisher_agent": "windows",
}
KEEPALIVE_S = 4


def identity(line: str) -> Identity:
    """What makes a point itself; the tags of this plant hold no spaces and commas."""
    head, _, t_ms = line.rsplit(" ", 2)
    measurement, _, tags = head.partition(",")
    return measurement, ",".join(sorted(tags.split(","))), int(t_ms)


def tagged(measurement: str, labels: dict[str, Any], t_ms: int) -> Identity:
    return measurement, ",".join(sorted(f"{k}={v}" for k, v in labels.items())), t_ms


def in_victoria(db: VictoriaMetrics) -> list[Identity]:
    found = []
    for measurement, field in ALWAYS.items():
        for series in db.series(f'{{__name__="{measurement}_{field}"}}', points=0):
            labels = {k: v for k, v in series["metric"].items() if k not in ("__name__", "db")}
            found += [tagged(measurement, labels, t_ms) for t_ms in series["timestamps"]]
    return found


def in_influxdb(db: InfluxDB) -> list[Identity]:
    found: list[Identity] = []
    for measurement in ALWAYS:
        tags = [row["tagKey"] for row in db.query(f"SHOW TAG KEYS FROM {measurement}", db="condition")]
        rows = db.query(f"SELECT * FROM {measurement}", db="condition")
        found += [tagged(measurement, {k: row[k] for k in tags}, row["time"]) for row in rows]
    return found


@pytest.mark.parametrize("kind", ["victoria", "influxdb"])
def test_a_kill_in_an_outage_of_the_database_costs_no_point_and_doubles_none(
    tmp_path: Path, enrolled: Path, kind: str
) -> None:
    db = VictoriaMetrics(tmp_path / "db") if kind == "victoria" else InfluxDB(tmp_path / "db")
    stored: Callable[[], list[Identity]] = lambda: (  # noqa: E731
        in_victoria(db) if isinstance(db, VictoriaMetrics) else in_influxdb(db)
    )
    with Mosquitto(tmp_path / "broker") as broker, db, Hmi(broker.port) as hmi:
        if isinstance(db, InfluxDB):
            db.query("CREATE DATABASE condition")
        config = small_config(
            tmp_path / "edge",
            enrolled=enrolled,
            broker_port=broker.port,
            influx=f'url = "{db.url}"\nbucket = "condition"\ntimeout_s = 2.0',
        )
        daemon = Daemon(config).start()
        # Sent faster than real time, from the past on: a database shows no points of the future.
        with Sensors(MqttOutlet(broker.port), machine=ROTOR, start_ns=time.time_ns() - 600 * 10**9):
            hmi.wait_for(f"{HERE}/score", after=15)
            db.stop()
            daemon.wait_for_event("unavailable", link="influx")
            hmi.wait_for(f"{HERE}/score", after=hmi.count(f"{HERE}/score") + 30)
            daemon.kill()

        before = counters(config, "influx")
        with state_db(config) as state:
            held = [identity(p.decode()) for (p,) in state.execute("SELECT payload FROM outbox WHERE queue = 'influx'")]
            judged = {t_ns // 1_000_000 for (t_ns,) in state.execute("SELECT t_ns FROM score")}
        assert before["written"] > 20 and len(held) == before["held"] > 60

        db.start()
        daemon.launch()
        daemon.wait_for_event("connected", link="influx")
        daemon.kill()  # perhaps between the database's answer and its note in the outbox
        daemon.start()
        assert daemon.stop() == 0

        after = counters(config, "influx")
        assert after["held"] == after["rejected"] == after["evicted"] == 0
        assert after["added"] == after["written"] >= before["added"]
        found = stored()
        deadline = time.monotonic() + 10
        while len(found) < after["added"] and time.monotonic() < deadline:
            found = stored()  # what VictoriaMetrics has taken is seen a moment later
        assert len(set(found)) == len(found) == after["added"]
        assert set(held) <= set(found)
        assert judged <= {t_ms for measurement, _, t_ms in found if measurement == "fisher_score"}


def journal(config: Path) -> list[tuple[str, int, int]]:
    """(alarm, seq, occurrence) of every transition on the disk, oldest first."""
    with state_db(config) as state:
        bodies = [json.loads(body) for (body,) in state.execute("SELECT body FROM journal ORDER BY id")]
    return [(b["alarm"], b["seq"], b["occurrence"]) for b in bodies]


def announced(payload: bytes) -> tuple[str, int, int]:
    event = json.loads(payload)
    return event["alarm"], event["seq"], event["occurrence"]


def without_repetition(events: list[tuple[str, int, int]]) -> list[tuple[str, int, int]]:
    return list(dict.fromkeys(events))


def test_a_kill_in_an_outage_of_the_broker_costs_no_alarm(tmp_path: Path, enrolled: Path) -> None:
    plant = Mosquitto(tmp_path / "plant")
    machines = SMALL + "stale_s = 2.5\n[machines.alarm]\non_delay_windows = 2\n"
    with Mosquitto(tmp_path / "field") as field, plant:
        config = small_config(
            tmp_path / "edge",
            enrolled=enrolled,
            broker_port=plant.port,
            source=f"mqtt://127.0.0.1:{field.port}",
            machines=machines,
        )
        daemon = Daemon(config)
        with Hmi(plant.port) as hmi, Sensors(MqttOutlet(field.port), machine=ROTOR) as sensors:
            daemon.start()
            hmi.wait_for(f"{HERE}/score")
            plant.stop()
            sensors.fault_now()
            raised = daemon.wait_for_event("alarm", alarm="anomaly", state="UNACK")
        daemon.wait_for_event("alarm", alarm="stale-vib", state="UNACK")
        daemon.wait_for_event("alarm", alarm="anomaly", state="UNKNOWN")
        daemon.kill()

        on_disk = journal(config)
        assert [(a, s) for a, s, _ in on_disk] == [("anomaly", 1), ("stale-vib", 1), ("anomaly", 2)]
        plant.start()
        with Hmi(plant.port) as hmi:
            daemon.start()
            last = hmi.wait_for_json(f"{HERE}/alarm/anomaly")
            hmi.wait_for(f"{HERE}/alarm/stale-vib/state", lambda p: p == b"1")
            hmi.wait_for(f"{HERE}/event", lambda p: announced(p) == on_disk[-1])
            assert without_repetition([announced(p) for p in hmi.heard[f"{HERE}/event"]]) == on_disk
            assert (last["state"], last["active"], last["occurrence"]) == ("UNKNOWN", 1, raised["occurrence"])
            # The alarm object comes before the level that belongs to it.
            hmi.wait_for(f"{HERE}/level")
            topics = [topic for topic, _ in hmi.order]
            assert topics.index(f"{HERE}/alarm/anomaly") < topics.index(f"{HERE}/level")
            assert hmi.last(f"{HERE}/level") == b"-1"
            seen = hmi.count(f"{HERE}/event")

            hmi.publish(f"{HERE}/cmd/ack", json.dumps({"occurrence": raised["occurrence"], "by": "anna"}))
            acked = hmi.wait_for_json(f"{HERE}/event", after=seen)
            assert (acked["alarm"], acked["seq"], acked["acked"], acked["by"]) == ("anomaly", 3, 1, "anna")
            with Sensors(MqttOutlet(field.port), machine=ROTOR, start_ns=sensors.now_ns):
                back = hmi.wait_for_json(f"{HERE}/event", after=seen + 1)
                assert (back["alarm"], back["seq"], back["state"]) == ("stale-vib", 2, "RTNUN")
            again = hmi.wait_for_json(
                f"{HERE}/event", lambda e: e["alarm"] == "stale-vib" and e["state"] == "UNACK", after=seen + 1
            )
            assert again["seq"] == 3
            assert again["occurrence"] == max(o for *_, o in on_disk) + 1
            assert daemon.stop() == 0
            assert without_repetition([announced(p) for p in hmi.heard[f"{HERE}/event"]]) == journal(config)

        # A clean end and a start add nothing to the journal, and the counting goes on.
        before = journal(config)
        with Hmi(plant.port) as hmi:
            daemon.start()
            hmi.wait_for(f"{HERE}/level")
            assert daemon.stop() == 0
            assert hmi.count(f"{HERE}/event") == 0
        assert journal(config) == before
        held = counters(config, "mqtt")
        assert held["held"] == 0 and held["added"] == held["written"]


def test_a_broker_that_freezes_is_found_within_two_keepalives_and_used_again(tmp_path: Path, enrolled: Path) -> None:
    with Mosquitto(tmp_path) as broker, Hmi(broker.port) as hmi:
        config = small_config(tmp_path / "edge", enrolled=enrolled, broker_port=broker.port)
        text = config.read_text().replace('url = "mqtt:', f'keepalive_s = {KEEPALIVE_S}\nurl = "mqtt:')
        config.write_text(text)
        assert text.count("keepalive_s") == 2
        with Daemon(config) as daemon, Sensors(MqttOutlet(broker.port), machine=ROTOR):
            hmi.wait_for(f"{HERE}/score", after=3)
            connected = len(daemon.events)
            frozen_s = time.monotonic()
            broker.freeze()
            try:
                for link in ("source plant", "plant", "commands"):
                    daemon.wait_for_event("unavailable", link=link, timeout_s=2 * KEEPALIVE_S + 2)
                found_s = time.monotonic() - frozen_s
            finally:
                broker.thaw()
            assert found_s <= 2 * KEEPALIVE_S + 1
            scores = hmi.count(f"{HERE}/score")
            hmi.wait_for(f"{HERE}/score", after=scores + 5, timeout_s=40)
            hmi.wait_for(f"{BASE}/alive", lambda p: p == b"1", after=hmi.count(f"{BASE}/alive") - 1)
            again = [e["link"] for e in daemon.events[connected:] if e["event"] == "connected"]
            assert {"source plant", "plant"} <= set(again)


def test_a_machine_that_falls_silent_is_stale_and_unknown_until_it_speaks(tmp_path: Path, enrolled: Path) -> None:
    with Mosquitto(tmp_path) as broker, Hmi(broker.port) as hmi:
        config = small_config(
            tmp_path / "edge", enrolled=enrolled, broker_port=broker.port, machines=SMALL + "stale_s = 2.0\n"
        )
        with Daemon(config):
            with Sensors(MqttOutlet(broker.port), machine=ROTOR) as sensors:
                hmi.wait_for(f"{HERE}/level", lambda p: p == b"%d" % Level.NORMAL)
                hmi.wait_for(f"{HERE}/channel/vib/status", lambda p: p == b"ok")
            stale = hmi.wait_for_json(f"{HERE}/alarm/stale-vib", lambda a: a["state_code"] == State.UNACK)
            assert (stale["quality"], stale["active"], stale["occurrence"]) == ("bad", 1, 1)
            anomaly = hmi.wait_for_json(f"{HERE}/alarm/anomaly", lambda a: a["state_code"] == State.UNKNOWN)
            assert anomaly["quality"] == "bad"
            hmi.wait_for(f"{HERE}/level", lambda p: p == b"-1", after=hmi.count(f"{HERE}/level") - 1)
            hmi.wait_for(f"{HERE}/channel/vib/status", lambda p: p == b"stale")

            levels = hmi.count(f"{HERE}/level")
            with Sensors(MqttOutlet(broker.port), machine=ROTOR, start_ns=sensors.now_ns + 10**9):
                hmi.wait_for_json(f"{HERE}/alarm/stale-vib", lambda a: a["state_code"] == State.RTNUN)
                hmi.wait_for_json(f"{HERE}/alarm/anomaly", lambda a: a["state_code"] == State.NORM and a["seq"] == 2)
                hmi.wait_for(f"{HERE}/level", lambda p: p == b"0", after=levels)
                hmi.wait_for(f"{HERE}/channel/vib/status", lambda p: p == b"ok", after=2)
