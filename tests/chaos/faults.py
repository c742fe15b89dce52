"""What can happen to an agent and its box. Each fault breaks one thing, lets it be broken for a while, and mends it."""

import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping

from chaos.around import (
    broker_frozen,
    broker_stopped,
    broker_without_memory,
    database_down,
    database_finds_it_too_large,
    database_hangs,
    database_lies,
    database_refuses,
    flooded,
    machine_silent,
    network_cut,
    network_half_open,
    network_slow,
    sensor_clock_drifts,
    sensor_clock_steps,
    sensor_sends_twice,
    sensor_swaps,
)
from chaos.invariants import every_score_is_stored_once
from chaos.plant import ILL, STALE_S, WELL, Plant
from fisher_agent.service import GIVE_UP_S
from integration.harness import BASE, environment

START_S = 60.0
LOST_S = 2.0  # until the command notices that its agent is gone
DAMAGED = 3  # the exit code
FAILED = 1
FILLERS = 15_000  # points: more than a megabyte


def killed(plant: Plant, rng: random.Random) -> None:
    """SIGKILL at any moment, in the start too, while alarms, points and an enrolment flow."""
    plant.ill(rng.random() < 0.5)
    learning = _enrolling(plant) if rng.random() < 0.2 else None
    # Long enough to raise an alarm, or in the middle of a start.
    time.sleep(rng.uniform(4.0, 9.0) if rng.random() < 0.3 else rng.uniform(0.0, 4.0))
    plant.daemon.kill()
    if learning is not None:
        time.sleep(LOST_S)
        learning.terminate()  # one that found no agent to talk to listens by itself
        learning.communicate(timeout=60)
        assert learning.returncode != 0, "an enrolment ended well though the agent was killed under it"
    time.sleep(rng.uniform(0.0, 0.5))
    plant.daemon.launch()


def _enrolling(plant: Plant) -> subprocess.Popen[str]:
    command = ["enroll", "--machine", WELL, "--duration", "600s", "--config", str(plant.config)]
    return subprocess.Popen(
        [sys.executable, "-m", "fisher_agent.cli", *command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment(),
    )


def suspended(plant: Plant, rng: random.Random) -> None:
    """The box sleeps."""
    plant.daemon.signal(signal.SIGSTOP)
    time.sleep(rng.uniform(3, 10))
    plant.daemon.signal(signal.SIGCONT)


def disk_full(plant: Plant, rng: random.Random) -> None:
    """No byte can be written, by the process's own limit."""
    known = len(plant.daemon.events)
    hard = resource.prlimit(plant.daemon.pid, resource.RLIMIT_FSIZE)[1]
    resource.prlimit(plant.daemon.pid, resource.RLIMIT_FSIZE, (0, hard))
    plant.daemon.wait_for_event("state_not_written", after=known)
    time.sleep(rng.uniform(0, 5))
    resource.prlimit(plant.daemon.pid, resource.RLIMIT_FSIZE, (hard, hard))


def configuration_broken(plant: Plant, rng: random.Random) -> None:
    """Somebody saves half a configuration and has it reloaded; the agent goes on with what it has."""
    text = plant.config.read_text()
    plant.config.write_text(text[: rng.randrange(1, len(text) // 2)] + '\nsite = "')
    try:
        heard = plant.scores(WELL)
        plant.daemon.signal(signal.SIGHUP)
        plant.hmi.wait_for(f"{BASE}/{WELL}/score", after=heard + 3)
    finally:
        plant.config.write_text(text)
    plant.daemon.signal(signal.SIGHUP)


def state_damaged(plant: Plant, rng: random.Random) -> None:
    """Pages of the database are overwritten while the agent is down; what can be read is taken over."""
    code = plant.daemon.stop()
    assert code in (0, DAMAGED)
    if code == 0:
        every_score_is_stored_once(plant)
    before = {(e["machine"], e["alarm"]): e["seq"] for e in plant.journal()}
    path = plant.state_dir / "state.db"
    size = path.stat().st_size
    with path.open("r+b") as file:
        for _ in range(3):
            file.seek(rng.randrange(1, max(2, size // 4096)) * 4096)
            file.write(rng.randbytes(4096))
    _restarted(plant)
    plant.journal_from = before
    plant.hmi_was_away()
    plant.lost_ms.append((0, time.time_ns() // 1_000_000))
    assert plant.daemon.stop() == 0
    plant.daemon.start()  # until then it is degraded, to say what was repaired


def _restarted(plant: Plant) -> None:
    """As a service manager does: what meets damage while it runs ends with 3, and repairs it at the next start."""
    for _ in range(3):
        plant.daemon.launch()
        end_s = time.monotonic() + START_S
        while plant.daemon.running and time.monotonic() < end_s:
            if plant.scores(WELL) and any(e["event"] == "ready" for e in plant.daemon.events):
                heard = plant.scores(WELL)
                time.sleep(STALE_S)
                if plant.daemon.running and plant.scores(WELL) > heard:
                    return
        assert not plant.daemon.running, f"it neither runs nor ends:\n{plant.daemon.tail()}"
        assert plant.daemon.wait() == DAMAGED
    raise AssertionError(f"it does not run in three starts:\n{plant.daemon.tail()}")


def bank_damaged(plant: Plant, rng: random.Random) -> None:
    """A byte of a bank is another one: its machine is not judged, and says so, until the bank is as it was."""
    path = next((plant.state_dir / "banks" / ILL).glob("v*/bank.safetensors"))
    whole = path.read_bytes()
    at = rng.randrange(len(whole))
    assert plant.daemon.stop() == 0
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
    plant.daemon.start()
    plant.hmi.wait_for(f"{BASE}/status", lambda word: word == b"degraded", after=plant.hmi.count(f"{BASE}/status") - 1)
    assert plant.daemon.stop() == 0
    path.write_bytes(whole)
    plant.daemon.start()


def measured_anew(plant: Plant, rng: random.Random) -> None:
    """What the agent keeps only to be quick is gone or damaged."""
    assert plant.daemon.stop() == 0
    for path in (plant.state_dir / "cache").rglob("*") if (plant.state_dir / "cache").is_dir() else ():
        if path.is_file():
            path.write_bytes(rng.randbytes(100))
    plant.daemon.start()


def memory_wanted(plant: Plant, rng: random.Random) -> None:
    """Another process takes a gigabyte and reads all over it."""
    code = "import time; b = bytearray(10**9); b[::4096] = bytes(len(b[::4096])); time.sleep(3)"
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ)


def backend_gives_nan(plant: Plant, rng: random.Random) -> None:
    """The model answers with what is no number: the agent ends, says why, and does not start while that lasts."""
    plant.rig(backend="nan")
    assert plant.daemon.wait(timeout_s=30) == FAILED
    assert "not finite" in plant.daemon.tail()
    plant.daemon.launch()
    assert plant.daemon.wait(timeout_s=START_S) != 0
    plant.rig()
    plant.daemon.launch()


def backend_fails_its_self_test(plant: Plant, rng: random.Random) -> None:
    """The model answers with something else than its bundle says: nothing is judged by it."""
    assert plant.daemon.stop() == 0
    plant.rig(backend="wrong")
    heard = plant.scores(WELL)
    plant.daemon.launch()
    assert plant.daemon.wait(timeout_s=START_S) != 0
    assert plant.scores(WELL) == heard
    plant.rig()
    plant.daemon.launch()


def backend_hangs(plant: Plant, rng: random.Random) -> None:
    """The model does not answer any more: an HMI is told that nothing is known, and the agent ends by itself."""
    told = plant.hmi.count(f"{BASE}/{WELL}/level")
    plant.rig(backend="hang")
    plant.hmi.wait_for(f"{BASE}/{WELL}/level", lambda level: level == b"-1", after=told, timeout_s=STALE_S + 20)
    assert plant.daemon.wait(timeout_s=GIVE_UP_S + 20) == FAILED
    assert "the model does not answer" in plant.daemon.tail()
    plant.rig()
    plant.daemon.launch()


def clock_unset(plant: Plant, rng: random.Random) -> None:
    """The box starts in 1972, as one without a battery does: judged all the same, points wait for the time."""
    assert plant.daemon.stop() == 0
    plant.rig(clock_off_s=-1.7e9)
    plant.daemon.start()
    heard = plant.scores(WELL)
    plant.hmi.wait_for(f"{BASE}/{WELL}/score", after=heard + 3)
    plant.hmi.wait_for(f"{BASE}/status", lambda word: word == b"degraded", after=plant.hmi.count(f"{BASE}/status") - 1)
    written = plant.counter("influx", "written")
    time.sleep(rng.uniform(2, 5))
    assert plant.counter("influx", "written") == written, "points went out with a time that is none"
    plant.rig()


def clock_steps(plant: Plant, rng: random.Random) -> None:
    """The box's clock steps by a minute to a day, and back."""
    plant.rig(clock_off_s=rng.choice([-1, 1]) * rng.uniform(60, 86_400))
    time.sleep(rng.uniform(3, 10))
    plant.rig()


def outbox_overflows(plant: Plant, rng: random.Random) -> None:
    """The database is away for longer than the outbox holds: the oldest points go, counted, and nothing else."""
    assert plant.daemon.stop() == 0
    assert plant.counter("influx", "held") == 0
    plant.to_db.cut()
    before = plant.counter("influx", "evicted")
    plant.fill_outbox(FILLERS)
    text = plant.config.read_text()
    plant.config.write_text(text + "\n[outbox]\nmax_mb = 1\n")
    plant.daemon.start()
    plant.hmi.wait_for(f"{BASE}/{WELL}/score", after=plant.scores(WELL) + 5)
    evicted = plant.counter("influx", "evicted") - before
    assert 0 < evicted < FILLERS, "the oldest points are those that filled it"
    plant.evicted_fillers += evicted
    assert plant.daemon.stop() == 0
    plant.config.write_text(text)
    plant.to_db.open()
    plant.daemon.launch()


def many_at_once(plant: Plant, rng: random.Random) -> None:
    """The network is cut, the database hangs and the agent is killed."""
    timer = threading.Timer(rng.uniform(0.5, 3), plant.to_broker.open)
    plant.to_broker.cut()
    plant.to_db.answer(None)
    timer.start()
    killed(plant, rng)
    timer.join()
    plant.to_db.open()


Fault = Callable[[Plant, random.Random], None]
FAULTS: Mapping[str, Fault] = {
    fault.__name__: fault
    for fault in (
        killed, suspended, broker_stopped, broker_without_memory, broker_frozen, network_cut, network_half_open,
        network_slow, database_down, database_refuses, database_finds_it_too_large, database_hangs, database_lies,
        disk_full, sensor_sends_twice, sensor_swaps, sensor_clock_steps, machine_silent, flooded, configuration_broken,
        state_damaged, bank_damaged, measured_anew, memory_wanted, backend_gives_nan, backend_fails_its_self_test,
        backend_hangs, clock_unset, clock_steps, sensor_clock_drifts, outbox_overflows, many_at_once,
    )
}  # fmt: skip
