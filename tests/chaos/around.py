"""What can happen around the box: to the broker, the network, the database and the sensors."""

import random
import time
from pathlib import Path

from chaos.plant import ILL, KEEPALIVE_S, STALE_S, WELL, Plant
from fisher_agent.wire import encode
from integration.harness import BASE

FLOOD_S = 5.0
FLOOD_PER_S = 400  # messages, of 0.2 s each: 80 times what two sensors send
SILENT_S = 2 * KEEPALIVE_S + 4
HOUR_NS = 3600 * 10**9


def broker_stopped(plant: Plant, rng: random.Random) -> None:
    """Alarms go on while nobody hears of them."""
    plant.hmi_was_away()
    plant.broker.stop()
    plant.ill(True)
    time.sleep(rng.uniform(2, 8))
    plant.broker.start()
    plant.ill(False)


def broker_without_memory(plant: Plant, rng: random.Random) -> None:
    """It comes back and has forgotten every retained message and session."""
    plant.hmi_was_away()
    plant.broker.kill()
    for left in Path(plant.broker.log.parent).glob("mosquitto.db*"):
        left.unlink()
    time.sleep(rng.uniform(0, 3))
    plant.broker.start()
    plant.hmi.wait_for(f"{BASE}/{WELL}/level", after=plant.hmi.count(f"{BASE}/{WELL}/level"), timeout_s=60)


def broker_frozen(plant: Plant, rng: random.Random) -> None:
    """Its sockets are open and nothing answers."""
    plant.hmi_was_away()
    plant.broker.freeze()
    try:
        time.sleep(rng.uniform(2, SILENT_S))
    finally:
        plant.broker.thaw()


def network_cut(plant: Plant, rng: random.Random) -> None:
    """Connections end, and none can be made."""
    plant.to_broker.cut()
    plant.to_db.cut()
    time.sleep(rng.uniform(2, 8))
    plant.to_broker.open()
    plant.to_db.open()


def network_half_open(plant: Plant, rng: random.Random) -> None:
    """Nothing passes and nobody is told."""
    known = len(plant.daemon.events)
    plant.to_broker.half_open()
    plant.to_db.half_open()
    for link in ("source plant", "plant", "commands"):
        plant.daemon.wait_for_event("unavailable", link=link, timeout_s=2 * SILENT_S, after=known)
    plant.to_broker.open()
    plant.to_db.open()


def network_slow(plant: Plant, rng: random.Random) -> None:
    """Every piece takes a third of a second."""
    plant.to_broker.slow(0.3)
    plant.to_db.slow(0.3)
    time.sleep(rng.uniform(4, 8))
    plant.to_broker.open()
    plant.to_db.open()


def database_down(plant: Plant, rng: random.Random) -> None:
    """It is stopped, and started again on its data."""
    plant.db.stop()
    time.sleep(rng.uniform(2, 8))
    plant.db.start()


def database_refuses(plant: Plant, rng: random.Random) -> None:
    """It answers with an error that is not the fault of the points."""
    status = rng.choice([401, 403, 404, 429, 500, 503])
    plant.to_db.answer(status, headers="Retry-After: 1\r\n" if status in (429, 503) else "")
    time.sleep(rng.uniform(2, 6))
    plant.to_db.open()


def database_finds_it_too_large(plant: Plant, rng: random.Random) -> None:
    """413 to everything: halved down to single lines, which count as rejected or wait."""
    plant.to_db.answer(413)
    time.sleep(rng.uniform(2, 4))
    plant.to_db.open()


def database_hangs(plant: Plant, rng: random.Random) -> None:
    """It takes requests and never answers."""
    plant.to_db.answer(None)
    time.sleep(rng.uniform(3, 8))
    plant.to_db.open()


def database_lies(plant: Plant, rng: random.Random) -> None:
    """204 and nothing stored: no client can tell from the answer, so these points are lost."""
    began_ms = time.time_ns() // 1_000_000
    plant.to_db.answer(204)
    time.sleep(rng.uniform(2, 5))
    plant.to_db.open()
    # Sensors send a second at a time, so that their last sample is ahead of the clock.
    plant.lost_ms.append((began_ms - 60_000, time.time_ns() // 1_000_000 + 2000))


def sensor_sends_twice(plant: Plant, rng: random.Random) -> None:
    """Every block comes twice."""
    outlet = plant.outlets[WELL]
    outlet.twice = True
    time.sleep(rng.uniform(3, 6))
    outlet.twice = False


def sensor_swaps(plant: Plant, rng: random.Random) -> None:
    """Every second block comes before the one before it."""
    outlet = plant.outlets[WELL]
    outlet.swapped = True
    time.sleep(rng.uniform(3, 6))
    outlet.swapped = False


def sensor_clock_steps(plant: Plant, rng: random.Random) -> None:
    """A sensor's clock steps forward or back by minutes to an hour, and back again."""
    outlet = plant.outlets[WELL]
    outlet.clock_off_ns = rng.choice([-1, 1]) * rng.randrange(60 * 10**9, HOUR_NS)
    time.sleep(rng.uniform(3, 6))
    outlet.clock_off_ns = 0


def machine_silent(plant: Plant, rng: random.Random) -> None:
    """A sensor says nothing for longer than it may; that must be said, and taken back."""
    topic = f"{BASE}/{ILL}/alarm/stale-vib"
    heard = plant.hmi.count(topic)
    plant.outlets[ILL].muted = True
    plant.hmi.wait_for_json(topic, lambda a: a["active"] == 1, after=heard, timeout_s=STALE_S + 30)
    heard = plant.hmi.count(topic)
    plant.outlets[ILL].muted = False
    plant.hmi.wait_for_json(topic, lambda a: a["active"] == 0, after=heard, timeout_s=30)


def flooded(plant: Plant, rng: random.Random) -> None:
    """Somebody sends old blocks of one machine as fast as can be."""
    outlet, sensors = plant.outlets[ILL], plant.sensors[ILL]
    frame = sensors.sent[-1]
    payload = encode("fisher-frame/1", frame.samples, t_ns=frame.t_ns, rate_hz=frame.rate_hz, seq=0)
    end_s = time.monotonic() + FLOOD_S
    while time.monotonic() < end_s:
        outlet.send(f"raw/{ILL}/vib", payload)
        time.sleep(1 / FLOOD_PER_S)


def sensor_clock_drifts(plant: Plant, rng: random.Random) -> None:
    """A sensor's clock runs off by some milliseconds with every block, and is set again."""
    outlet = plant.outlets[WELL]
    outlet.drift_ns = rng.choice([-1, 1]) * rng.randrange(10**5, 5 * 10**6)
    time.sleep(rng.uniform(5, 10))
    outlet.drift_ns = outlet.clock_off_ns = 0
