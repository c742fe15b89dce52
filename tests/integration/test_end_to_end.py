"""A generated machine with ground truth, from its sensors to the HMI and the database, and the same from a file."""

import json
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pytest

from fisher_agent.sources.synthetic import RESONANCE_HZ
from fisher_agent.stages import Frame
from integration.harness import (
    BASE,
    EDGE,
    MACHINE,
    SITE,
    Daemon,
    Hmi,
    MqttOutlet,
    Outlet,
    Sensors,
    ZmqOutlet,
    cli_json,
    write_config,
)
from servers.influxdb import InfluxDB
from servers.mosquitto import Mosquitto
from servers.victoria import VictoriaMetrics

SECOND_NS = 1_000_000_000
ENROLL_S, NORMAL_S, ALARM_S, ALARMED_S = 60, 30, 20, 5
GROWN_S = 6  # the fault's growth, and a window that sees all of it
# The same samples in every run; and in the past, so that event time never gets ahead of the clock that stamps an ack.
START_NS = 1_760_000_000 * SECOND_NS
CHANNELS = ("vib", "cur", "mic")
ALARM, LEVEL = f"{BASE}/{MACHINE}/alarm/anomaly", f"{BASE}/{MACHINE}/level"
# Contract, section 4. A field's type is the database's: an integer has an i.
SCORED = {"score": "float", "p_value": "float"}
SCORE = {
    "level": "integer",
    "fault_code": "integer",
    "fault_confidence": "float",
    "running": "integer",
    "quality_code": "integer",
    "latency_ms": "float",
}
COMPARED = {"distance": "float", "deviation": "float", "contribution": "float"}
VELOCITY = {"velocity_rms_mm_s": "float"}
CHANNEL = {
    "rms": "float",
    "peak": "float",
    "crest": "float",
    "kurtosis": "float",
    "status_code": "integer",
    "rate_hz": "float",
    "gaps": "integer",
    "late": "integer",
    "clock_offset_ms": "float",
}
BAND = {"contribution": "float"}
ALARM_FIELDS = {"state_code": "integer", "occurrence": "integer", "priority": "integer", "severity": "integer"}
AGENT = {
    "windows": "integer",
    "dropped": "integer",
    "rejected": "integer",
    "outbox_bytes": "integer",
    "queue": "integer",
    "fallback": "integer",
    "p95_ms": "float",
    "rss_bytes": "integer",
}
FIELDS = {
    "fisher_score": SCORED | SCORE,
    "fisher_channel": COMPARED | VELOCITY | CHANNEL,
    "fisher_band": BAND,
    "fisher_alarm": ALARM_FIELDS,
    "fisher_agent": AGENT,
}
WHERE = {"site": SITE, "edge": EDGE}
Key = tuple[tuple[tuple[str, str], ...], int]
"""Tags, sorted, and the time in ms: what makes a point one point."""


def key(t_ms: int, **tags: str) -> Key:
    return tuple(sorted((WHERE | tags).items())), t_ms


class Database(Protocol):
    """A real database: how the agent is told of it, and what an independent client finds in it."""

    settings: str

    def stored(self, measurement: str) -> dict[Key, dict[str, float]]: ...


class Victoria:
    """VictoriaMetrics: the v2 path; a series per field."""

    def __init__(self, server: VictoriaMetrics) -> None:
        self._server = server
        self.settings = f'url = "{server.url}"\norg = "plant"\nbucket = "condition"'

    def stored(self, measurement: str) -> dict[Key, dict[str, float]]:
        found: dict[Key, dict[str, float]] = defaultdict(dict)
        for series in self._server.series(f'{{__name__=~"{measurement}_.*"}}'):
            tags = dict(series["metric"])
            field = tags.pop("__name__").removeprefix(f"{measurement}_")
            for t_ms, value in zip(series["timestamps"], series["values"], strict=True):
                at = tuple(sorted(tags.items())), t_ms
                assert field not in found[at], f"{measurement} {at} is stored twice"
                found[at][field] = value
        return found


class Influx:
    """InfluxDB 1.6: the v1 path; it also knows the type of each field."""

    def __init__(self, server: InfluxDB) -> None:
        server.query("CREATE DATABASE condition")
        self._server = server
        self.settings = f'url = "{server.url}"\nbucket = "condition"'

    def stored(self, measurement: str) -> dict[Key, dict[str, float]]:
        types = {r["fieldKey"]: r["fieldType"] for r in self._query(f"SHOW FIELD KEYS FROM {measurement}")}
        assert types == FIELDS[measurement]
        found: dict[Key, dict[str, float]] = {}
        for row in self._query(f"SELECT * FROM {measurement} GROUP BY *"):
            t_ms = row.pop("time")
            fields = {k: row.pop(k) for k in types}
            at = tuple(sorted(row.items())), t_ms
            assert at not in found, f"{measurement} {at} is stored twice"
            found[at] = {k: v for k, v in fields.items() if v is not None}
        return found

    def _query(self, query: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self._server.query(query, db="condition")
        return rows


@contextmanager
def database(kind: str, folder: Path) -> Iterator[Database]:
    if kind == "victoria":
        with VictoriaMetrics(folder / "victoria") as victoria:
            yield Victoria(victoria)
    else:
        with InfluxDB(folder / "influx") as influx:
            yield Influx(influx)


@contextmanager
def closing(outlet: Outlet) -> Iterator[None]:
    try:
        yield
    finally:
        outlet.close()


@pytest.mark.slow
@pytest.mark.parametrize(("transport", "store"), [("mqtt", "victoria"), ("zmq", "influx")])
def test_a_fault_is_alarmed_acknowledged_stored_and_found_again_in_the_file(
    transport: str, store: str, tmp_path: Path
) -> None:
    with Mosquitto(tmp_path / "broker") as broker, database(store, tmp_path) as db, Hmi(broker.port) as hmi:
        outlet = ZmqOutlet() if transport == "zmq" else MqttOutlet(broker.port)
        url = outlet.url if isinstance(outlet, ZmqOutlet) else None
        config = write_config(tmp_path, broker_port=broker.port, source=url, influx=db.settings)
        daemon = Daemon(config)
        sensors = Sensors(outlet, speed=4, start_ns=START_NS)
        with closing(outlet), daemon:
            if isinstance(outlet, ZmqOutlet):
                outlet.wait_for_subscriptions(len(CHANNELS))
            with sensors:
                enrolled = cli_json(config, "enroll", "--machine", MACHINE, "--duration", f"{ENROLL_S}s")
                bank = enrolled["bank"]
                enrolled_ns = sensors.now_ns
                sensors.wait_until(enrolled_ns + NORMAL_S * SECOND_NS)
                onset_ns = sensors.fault_now()
                raised = hmi.wait_for_json(ALARM, lambda a: a["state"] == "UNACK")
                hmi.wait_for(LEVEL, lambda level: level in (b"2", b"3"))
                ack = {"id": "op-1", "alarm": "anomaly", "occurrence": raised["occurrence"], "by": "jane"}
                hmi.publish(f"{BASE}/{MACHINE}/cmd/ack", json.dumps(ack))
                result = hmi.wait_for_json(f"{BASE}/{MACHINE}/cmd/ack/result")
                acked = hmi.wait_for_json(ALARM, lambda a: a["state"] == "ACKED")
                sensors.wait_until(sensors.now_ns + ALARMED_S * SECOND_NS)
            end_ms = sensors.now_ns // 1_000_000
            hmi.wait_for_json(f"{BASE}/{MACHINE}/state", lambda s: s["ts"] == end_ms)
            assert daemon.stop() == 0
        assert daemon.wait_for_event("windows_account")["balanced"]

        assert_the_hmi_saw_the_truth(hmi, raised, onset_ns=onset_ns, bank=bank)
        assert result | {"ts": 0} == ack | {"ok": 1, "error": "", "ts": 0}
        assert (acked["by"], acked["occurrence"], acked["ts_acked"]) == ("jane", raised["occurrence"], acked["ts"])
        grid_ms = range(sensors.start_ns // 1_000_000 + 2000, end_ms + 1, 1000)
        scores = assert_every_point_is_stored_once(db, hmi, grid_ms=grid_ms, enrolled_ms=enrolled_ns // 1_000_000)
        assert_the_file_gives_the_same(
            config, write_npz(tmp_path / "same.npz", sensors.sent), scores, onset_ms=onset_ns // 1_000_000
        )


def assert_the_hmi_saw_the_truth(hmi: Hmi, raised: dict[str, Any], *, onset_ns: int, bank: str) -> None:
    """No alarm before the fault; then one, on the channel and in the band where the fault is; shown in order."""
    alarms = [json.loads(p) for p in hmi.heard[ALARM]]
    early = [a for a in alarms if a["ts"] * 1_000_000 <= onset_ns]
    assert {a["state"] for a in early} <= {"UNKNOWN", "NORM"}
    assert (raised["active"], raised["acked"], raised["occurrence"], raised["state_code"]) == (1, 0, 1, 1)
    assert raised["level"] in (2, 3)
    assert raised["score"] >= 1
    assert (raised["machine"], raised["quality"], raised["bank"]) == (MACHINE, "good", bank)
    assert raised["top_channel"] == "vib"
    assert raised["top_band_hz_low"] <= RESONANCE_HZ <= raised["top_band_hz_high"] < 1.3 * raised["top_band_hz_low"]
    assert onset_ns < raised["ts_raised"] * 1_000_000 < onset_ns + ALARM_S * SECOND_NS
    # An HMI that looks up the alarm when the level rises must find it there.
    first_level = next(i for i, m in enumerate(hmi.order) if m[0] == LEVEL and m[1] in (b"2", b"3"))
    first_alarm = next(i for i, m in enumerate(hmi.order) if m[0] == ALARM and json.loads(m[1])["state"] == "UNACK")
    assert first_alarm < first_level
    assert hmi.last(LEVEL) == b"-1"
    assert hmi.last(f"{BASE}/alive") == b"0"
    assert hmi.last(f"{BASE}/status") == b"stopped"
    shown_ms = [json.loads(p)["ts"] for p in hmi.heard[f"{BASE}/{MACHINE}/state"]]
    assert shown_ms == sorted(shown_ms)  # one comes again where the run met the renewal of every minute
    assert all(s["weights"] == "trained" for s in (json.loads(p) for p in hmi.heard[f"{BASE}/health"]))


def assert_every_point_is_stored_once(db: Database, hmi: Hmi, *, grid_ms: range, enrolled_ms: int) -> dict[int, float]:
    """The points of each grid time, with exactly the tags and fields of the contract. Returns time -> score."""
    stored = db.stored("fisher_score")
    times = {t_ms for _, t_ms in stored}
    assert times == set(grid_ms)
    scores = {t_ms: fields["score"] for (_, t_ms), fields in stored.items() if "score" in fields}
    # Judged from the enrolment on, but for what was in flight while it learnt, and without a hole from then on.
    begun_ms = min(scores)
    assert begun_ms - grid_ms[0] + 2000 >= ENROLL_S * 1000
    assert begun_ms <= enrolled_ms + 3000
    judged = [t_ms for t_ms in grid_ms if t_ms >= begun_ms]
    assert set(stored) == {key(t_ms, machine=MACHINE, mode="default") for t_ms in grid_ms}
    for (_, t_ms), fields in stored.items():
        assert set(fields) == set(SCORE | SCORED if t_ms >= begun_ms else SCORE)

    channels = db.stored("fisher_channel")
    assert set(channels) == {key(t_ms, machine=MACHINE, channel=c) for t_ms in grid_ms for c in CHANNELS}
    for (tags, t_ms), fields in channels.items():
        wanted = CHANNEL | (VELOCITY if ("channel", "vib") in tags else {}) | (COMPARED if t_ms >= begun_ms else {})
        assert set(fields) == set(wanted)
        assert fields["gaps"] == fields["late"] == fields["status_code"] == 0

    bands = db.stored("fisher_band")
    seen = {"vib": ("0-4000", "4000-8000", "8000-12000"), "cur": ("0-4000",), "mic": ("0-4000", "4000-8000")}
    assert set(bands) == {
        key(t_ms, machine=MACHINE, channel=c, band=b) for t_ms in judged for c, bs in seen.items() for b in bs
    }
    assert all(set(fields) == {"contribution"} for fields in bands.values())
    for t_ms in judged:
        shares = [bands[key(t_ms, machine=MACHINE, channel="vib", band=b)]["contribution"] for b in seen["vib"]]
        assert sum(shares) == pytest.approx(1, abs=1e-4) or not any(shares)

    journal = [json.loads(p) for p in hmi.heard[f"{BASE}/{MACHINE}/event"]]
    transitions = db.stored("fisher_alarm")
    assert {at: fields["state_code"] for at, fields in transitions.items()} == {
        key(a["ts"], machine=MACHINE, alarm=a["alarm"]): a["state_code"] for a in journal
    }
    assert all(set(fields) == set(ALARM_FIELDS) for fields in transitions.values())
    assert [a["state"] for a in journal if a["alarm"] == "anomaly" and a["occurrence"]] == ["UNACK", "ACKED"]

    agent = db.stored("fisher_agent")
    assert {tags for tags, _ in agent} == {key(0)[0]}
    assert all(set(fields) == set(AGENT) for fields in agent.values())
    assert all(fields["dropped"] == fields["rejected"] == 0 for fields in agent.values())
    return scores


def assert_the_file_gives_the_same(config: Path, npz: Path, scores: dict[int, float], *, onset_ms: int) -> None:
    """`score` on the same samples from a file: the same verdict at every time that was judged live."""
    rows = {round(r["t"] * 1000): r for r in cli_json(config, "score", "--machine", MACHINE, npz)}
    judged = {t_ms: rows[t_ms] for t_ms in scores}
    worst = max(abs(row["score"] - scores[t_ms]) for t_ms, row in judged.items())
    normal, grown = (
        [s for t_ms, s in scores.items() if t_ms <= onset_ms],
        [s for t_ms, s in scores.items() if t_ms > onset_ms + GROWN_S * 1000],
    )
    print(
        f"\n{len(scores)} verdicts, live against file at most {worst:.1e} apart; normal up to {max(normal):.2f}, "
        f"with the fault {min(grown):.2f} to {max(grown):.2f}"
    )
    assert worst <= 1e-4
    assert {(row["quality"], row["running"]) for row in judged.values()} == {("good", True)}
    assert {row["top_channel"] for t_ms, row in judged.items() if t_ms > onset_ms + GROWN_S * 1000} == {"vib"}


def write_npz(path: Path, frames: list[Frame]) -> Path:
    """What was sent, as one recording: an array per channel, stamped with its first sample."""
    arrays: dict[str, Any] = {}
    for channel in CHANNELS:
        own = [f for f in frames if f.channel == channel]
        arrays |= {
            channel: np.concatenate([f.samples for f in own]),
            f"{channel}.rate_hz": own[0].rate_hz,
            f"{channel}.t_ns": own[0].t_ns,
        }
    np.savez(path, **arrays)
    return path
