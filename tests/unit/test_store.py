"""The store: conservation in every order of events, durable alarms, damage, locks, and disks that refuse."""

# Over 400 lines: every promise of one door; a split would repeat the child process and the damage helpers.

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings

from fisher_agent.bankfiles import BankFiles
from fisher_agent.codes import State
from fisher_agent.errors import BadFile, ConfigError, Unavailable
from fisher_agent.lifecycle import Alarm, Event, step
from fisher_agent.outbox import MAX_QUARANTINED, ROW_BYTES, Counters
from fisher_agent.stages import Message, Point
from fisher_agent.store import Store
from fisher_agent.storerows import Score

MB = 2**20


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "state", max_outbox_bytes=MB) as opened:
        yield opened


def again(store: Store, *, max_outbox_bytes: int = MB) -> Store:
    store.close()
    return Store.open(store.state_dir, max_outbox_bytes=max_outbox_bytes)


def point(number: int, *, size: int = 0) -> Point:
    return Point("m", (("machine", "press-07"),), (("x", number), ("pad", "p" * size)), number * 1_000_000)


def event(number: int) -> Message:
    return Message("B/press-07/event", b"%d" % number)


def state(payload: bytes, topic: str = "B/press-07/alarm/anomaly") -> Message:
    return Message(topic, payload, retain=True)


def alarm(seq: int = 1, occurrence: int = 1) -> Alarm:
    return Alarm(machine="press-07", alarm="anomaly", base=State.UNACK, seq=seq, occurrence=occurrence)


def conserved(counters: Counters) -> bool:
    return counters.added == counters.written + counters.rejected + counters.evicted + counters.held


def assert_sound(state_dir: Path) -> None:
    """By a client of its own: the file is intact, and the counters are what the rows say."""
    with sqlite3.connect(state_dir / "state.db") as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        for queue in ("influx", "mqtt"):
            count = "SELECT count(*), coalesce(sum(bytes), 0) FROM outbox WHERE queue = ?"
            rows = db.execute(count, (queue,)).fetchone()
            stated = dict(db.execute("SELECT name, value FROM counter WHERE queue = ?", (queue,)))
            assert rows == (stated["held"], stated["bytes"])
            assert conserved(Counters(**stated))
    db.close()


def test_points_wait_as_lines_until_they_are_done(store):
    store.add_points([point(1), point(2), point(3)])
    (first, line), second, _ = store.peek("influx", 10)
    assert line == 'm,machine=press-07 x=1i,pad="" 1'
    assert store.peek("influx", 1) == [(first, line)]
    store.done([first])
    store.quarantine([second[0]], "400 partial write")
    assert [text.split()[1] for _, text in store.peek("influx", 10)] == ['x=3i,pad=""']
    size = store.outbox_bytes
    assert store.counters("influx") == Counters(added=3, written=1, rejected=1, evicted=0, held=1, bytes=size)
    assert store.quarantined() == [("influx", b'm,machine=press-07 x=2i,pad="" 2', "400 partial write")]


def test_done_twice_counts_once(store):
    store.add_points([point(1)])
    ids = [i for i, _ in store.peek("influx", 10)]
    store.done(ids)
    store.done(ids)
    store.quarantine(ids, "late")
    assert (store.counters("influx").written, store.counters("influx").rejected) == (1, 0)


def test_everything_outlives_the_process(store):
    store.add_points([point(1)])
    store.add_messages([event(1), state(b"1")])
    store.set_meta("key", "value")
    before = (store.peek("influx", 9), store.peek("mqtt", 9), store.counters("mqtt"))
    with again(store) as later:
        assert (later.peek("influx", 9), later.peek("mqtt", 9), later.counters("mqtt")) == before
        assert later.meta("key") == "value"
        assert later.notes == []


def test_what_settles_the_state_is_flushed_and_what_comes_often_is_not(store):
    full, normal = 2, 1
    (flushed,) = store._alarms.execute("PRAGMA synchronous").fetchone()
    (lazy,) = store._points.execute("PRAGMA synchronous").fetchone()
    assert (flushed, lazy) == (full, normal)
    before = store._alarms.total_changes
    store.settle(17)
    assert store._alarms.total_changes == before + 1, "only a connection that flushes settles what others wrote"
    assert store.meta("settled") == "17"


def test_messages_keep_their_order_and_form(store):
    messages = [event(1), Message("t", b"\x00\xff", qos=0), state(b"1"), event(2)]
    store.add_messages(messages)
    assert [m for _, m in store.peek("mqtt", 9)] == messages


def test_a_retained_message_replaces_its_older_self_and_events_stay(store):
    store.add_messages([state(b"1"), event(1)])
    store.add_messages([state(b"2"), event(2), state(b"3")])
    assert [m.payload for _, m in store.peek("mqtt", 9)] == [b"1", b"2", b"3"]
    assert conserved(store.counters("mqtt"))


def test_a_message_replaced_while_it_was_sent_is_still_sent(store):
    store.add_messages([state(b"old")])
    ((sent, _),) = store.peek("mqtt", 1)
    store.add_messages([state(b"new")])
    store.done([sent])
    assert [m.payload for _, m in store.peek("mqtt", 9)] == [b"new"]
    assert conserved(store.counters("mqtt"))


def test_the_oldest_points_give_way_and_alarms_go_last(tmp_path):
    with Store.open(tmp_path, max_outbox_bytes=20_000) as store:
        store.commit_alarms("press-07", [alarm()], 1, points=[point(0)], messages=[state(b"1"), event(1)])
        for number in range(1, 40):
            store.add_points([point(number, size=1000)])
        kept = [line.split("x=")[1].split("i,")[0] for _, line in store.peek("influx", 100)]
        assert kept[0] == "0"
        assert kept[1:] == [str(n) for n in range(40 - len(kept) + 1, 40)]
        assert store.outbox_bytes <= 20_000
        counters = store.counters("influx")
        assert counters.evicted == 40 - len(kept) > 10
        assert conserved(counters)
        assert len(store.peek("mqtt", 9)) == 2


def test_more_events_than_fit_lose_the_oldest_counted(tmp_path):
    with Store.open(tmp_path, max_outbox_bytes=10 * (ROW_BYTES + 20)) as store:
        for number in range(50):
            store.add_messages([event(number)])
        left = [int(m.payload) for _, m in store.peek("mqtt", 100)]
        assert left == list(range(50 - len(left), 50))
        assert store.counters("mqtt").evicted == 50 - len(left) > 0


ACTS = st.one_of(
    st.tuples(st.just("points"), st.lists(st.integers(0, 300), max_size=6)),
    st.tuples(st.just("events"), st.integers(1, 4)),
    st.tuples(st.just("state"), st.sampled_from(["a", "b"])),
    st.tuples(st.just("done"), st.sampled_from(["influx", "mqtt"]), st.integers(0, 5)),
    st.tuples(st.just("bad"), st.sampled_from(["influx", "mqtt"]), st.integers(0, 3)),
    st.tuples(st.just("reopen"), st.integers(500, 3000)),
)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.lists(ACTS, max_size=25))
def test_conservation_holds_after_any_sequence(tmp_path_factory, script):
    store = Store.open(tmp_path_factory.mktemp("s"), max_outbox_bytes=2000)
    for what in script:
        match what:
            case ("points", sizes):
                store.add_points([point(n, size=size) for n, size in enumerate(sizes)])
            case ("events", n):
                store.add_messages([event(i) for i in range(n)])
            case ("state", topic):
                store.add_messages([state(b"x", topic), state(b"y", topic)])
            case ("done", queue, n):
                store.done([i for i, _ in store.peek(queue, n)])
            case ("bad", queue, n):
                store.quarantine([i for i, _ in store.peek(queue, n)], "no")
            case (_, size):
                store = again(store, max_outbox_bytes=size)
        assert conserved(store.counters("influx"))
        assert conserved(store.counters("mqtt"))
    store.close()
    assert_sound(store.state_dir)


def test_the_quarantine_is_bounded(store):
    for at in range(0, MAX_QUARANTINED + 100, 100):
        store.add_points([point(at + n) for n in range(100)])
        store.quarantine([i for i, _ in store.peek("influx", 100)], "no")
    assert len(store.quarantined(10_000)) == MAX_QUARANTINED
    assert store.counters("influx").rejected == MAX_QUARANTINED + 100


def test_alarms_come_back_with_their_occurrence_and_every_transition_is_in_the_journal(store):
    first = step(Alarm(machine="press-07", alarm="anomaly"), Event.RAISE, t_ms=5, occurrence=7)
    second = step(first, Event.ACK, t_ms=6, by="\ud800 kim")
    store.commit_alarms("press-07", [first, second], 7, points=[point(1)], messages=[event(1)])
    store.commit_alarms("press-07", [second], 7)
    with again(store) as later:
        assert later.load_alarms("press-07") == ([second], 7)
        assert later.load_alarms("other") == ([], 0)
        assert later.journal("press-07") == [second, first]
        assert later.journal("press-07", limit=1) == [second]
        assert (later.counters("influx").held, later.counters("mqtt").held) == (1, 1)


def test_the_occurrence_never_goes_back(store):
    store.commit_alarms("press-07", [], 7)
    store.commit_alarms("press-07", [], 3)
    assert store.load_alarms("press-07")[1] == 7


def test_fault_codes_are_stable_and_of_one_machine(store):
    assert [store.fault_code("m", f) for f in (None, "", "unknown", "x", "y", "x")] == [0, 0, 1, 2, 3, 2]
    assert store.fault_code("n", "y") == 2
    with again(store) as later:
        assert later.fault_table("m") == {"x": 2, "y": 3}
        assert later.fault_code("m", "z") == 4


def test_scores_come_back_oldest_first_and_old_ones_leave(store):
    day = 86_400 * 10**9
    store.add_scores([Score("m", day * d, d / 10, 0.5, 0, 0, 0) for d in range(5)])
    assert [s.t_ns // day for s in store.scores("m", since_ns=day, limit=3)] == [2, 3, 4]
    store.add_scores([Score("m", day * 32 + n, 1.0, 0.5, 0, 0, 0) for n in range(1000)])
    assert store.scores("m")[0].t_ns == day * 3
    assert store.scores("other") == []


def test_the_folder_is_private(store):
    assert store.state_dir.stat().st_mode & 0o777 == 0o750


def test_two_threads_may_take_turns(store):
    def work() -> None:
        for number in range(50):
            store.add_points([point(number)])
            store.add_messages([event(number)])

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (store.counters("influx").held, store.counters("mqtt").held) == (100, 100)


# Locks and folders that cannot be used.


def test_a_second_agent_is_told_who_has_the_folder(store):
    with pytest.raises(Unavailable, match=f"in use by process {os.getpid()}"):
        Store.open(store.state_dir, max_outbox_bytes=MB)
    with again(store):
        pass


def test_a_second_process_is_refused_until_the_first_is_killed(tmp_path):
    child = start(HOLD, tmp_path)
    assert child.stdout is not None
    child.stdout.readline()
    with pytest.raises(Unavailable, match=f"in use by process {child.pid}"):
        Store.open(tmp_path, max_outbox_bytes=MB)
    finish(child)
    Store.open(tmp_path, max_outbox_bytes=MB).close()


def test_a_state_dir_that_cannot_be_made_is_a_configuration_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be used"):
        Store.open(tmp_path / "file" / "state", max_outbox_bytes=MB)
    with pytest.raises(ConfigError, match="cannot be used"):
        Store.open(Path("/proc/fisher-agent"), max_outbox_bytes=MB)


def test_a_database_of_a_newer_agent_is_refused_and_left_alone(store):
    store.close()
    with sqlite3.connect(store.state_dir / "state.db") as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    before = (store.state_dir / "state.db").read_bytes()
    for _ in range(2):
        with pytest.raises(ConfigError, match="newer fisher-agent"):
            Store.open(store.state_dir, max_outbox_bytes=MB)
    assert (store.state_dir / "state.db").read_bytes() == before


# Damage.


@pytest.mark.parametrize("damage", [b"", b"this is no database at all", b"SQLite format 3\x00" + b"\xff" * 5000])
def test_a_database_that_is_none_is_set_aside_and_said_so(store, damage):
    store.commit_alarms("press-07", [alarm()], 3)
    store.close()
    (store.state_dir / "state.db").write_bytes(damage)
    with Store.open(store.state_dir, max_outbox_bytes=MB) as later:
        later.add_points([point(1)])
        assert "was damaged" in later.notes[0]
        (kept,) = (store.state_dir / "damaged").glob("*/state.db")
        assert not damage or kept.read_bytes() == damage
        assert later.load_alarms("press-07")[1] > 1_700_000_000  # no occurrence ever comes twice
    with Store.open(store.state_dir, max_outbox_bytes=MB) as third:
        assert third.notes == []
        assert third.counters("influx").held == 1
    assert_sound(store.state_dir)


def test_alarms_and_fault_codes_are_taken_over_from_a_damaged_database(store):
    store.commit_alarms("press-07", [alarm()], 3)
    store.fault_code("press-07", "misalignment")
    store.add_points([point(n, size=1000) for n in range(200)])
    store.close()
    path = store.state_dir / "state.db"
    body = bytearray(path.read_bytes())
    body[len(body) // 2 : len(body) // 2 + 40_000] = os.urandom(40_000)  # in the middle of the points
    path.write_bytes(bytes(body))
    (store.state_dir / "state.db.suspect").touch()
    with Store.open(store.state_dir, max_outbox_bytes=MB) as later:
        alarms, occurrence = later.load_alarms("press-07")
        assert alarms == [alarm()]
        assert occurrence > 3
        assert later.fault_table("press-07") == {"misalignment": 2}
        assert len(later.notes) == 1
        assert not (store.state_dir / "state.db.suspect").exists()


def test_damage_met_while_running_ends_the_run_and_the_next_start_repairs_it(store):
    store.add_points([point(n, size=1000) for n in range(500)])
    store = again(store)
    path = store.state_dir / "state.db"
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(8192)
        file.write(os.urandom(size - 8192))
    with pytest.raises(BadFile, match="start the agent again"):
        for _ in range(20):
            store.done([i for i, _ in store.peek("influx", 100)])
            store.add_points([point(1)])
    store.close()
    with Store.open(store.state_dir, max_outbox_bytes=MB) as later:
        assert "was damaged" in later.notes[0]
        later.add_points([point(1)])


# A process that is killed, and disks that are full.

PRELUDE = """
import json, os, resource, signal, sys
from pathlib import Path
from fisher_agent.lifecycle import Alarm, Event, step
from fisher_agent.errors import Unavailable
from fisher_agent.stages import Message, Point
from fisher_agent.store import Store
state_dir = Path(sys.argv[1])
def point(n, size=0): return Point("m", (), (("x", n), ("pad", "p" * size)), n * 1_000_000)
def say(*what): print(json.dumps(what), flush=True)
store = Store.open(state_dir, max_outbox_bytes=int(sys.argv[2]) if len(sys.argv) > 2 else 2**30)
"""

HOLD = PRELUDE + "say('held'); signal.pause()"

WRITE = (
    PRELUDE
    + """
alarm, n = Alarm(machine="m", alarm="anomaly"), 0
while True:
    store.add_points([point(n + i) for i in range(20)])
    n += 20
    event = {"NORM": Event.RAISE, "UNACK": Event.ACK, "ACKED": Event.CLEAR}[alarm.base.name]
    alarm = step(alarm, event, t_ms=n, occurrence=n)
    store.commit_alarms("m", [alarm], n, messages=[Message("event", str(alarm.seq).encode())])
    ids = [i for i, _ in store.peek("influx", 7)]
    store.done(ids[:-1])
    store.quarantine(ids[-1:], "no")
    say(n, alarm.seq)
"""
)


def start(script: str, *arguments: Any) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", script, *map(str, arguments)], stdout=subprocess.PIPE, text=True)


def finish(child: subprocess.Popen[str]) -> str:
    """Kill -9; returns the last complete line that it had said."""
    assert child.stdout is not None
    child.send_signal(signal.SIGKILL)
    said = child.stdout.read()
    child.stdout.close()
    child.wait()
    return said[: said.rfind("\n") + 1]


@pytest.mark.parametrize("turns", [1, 7, 30])
def test_a_kill_loses_nothing_that_was_accepted_and_counts_nothing_twice(tmp_path, turns):
    child = start(WRITE, tmp_path)
    assert child.stdout is not None
    said = "".join(child.stdout.readline() for _ in range(turns))
    said += finish(child)
    points, seq = json.loads(said.splitlines()[-1])
    with Store.open(tmp_path, max_outbox_bytes=2**30) as store:
        assert store.notes == []
        counters = store.counters("influx")
        assert counters.added >= points
        assert conserved(counters)
        # The state, its journal and its message are one transaction.
        ((stored,), occurrence) = store.load_alarms("m")
        assert stored.seq >= seq
        assert occurrence == stored.occurrence or stored.base is not State.UNACK
        assert [a.seq for a in store.journal("m", limit=10**6)] == list(range(stored.seq, 0, -1))
        assert [int(m.payload) for _, m in store.peek("mqtt", 10**6)] == list(range(1, stored.seq + 1))
        waiting = [int(line.split("x=")[1].split("i")[0]) for _, line in store.peek("influx", 10**6)]
        gone = counters.written + counters.rejected
        assert waiting == list(range(gone, counters.added))
    assert_sound(tmp_path)


FULL = (
    PRELUDE
    + """
store.commit_alarms("m", [Alarm(machine="m", alarm="anomaly", seq=1)], 1, messages=[Message("event", b"1")])
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))
n, refused = 0, ""
while not refused:
    try:
        store.add_points([point(n, 1000)])
        n += 1
    except Unavailable as error:
        refused = str(error)
held = store.counters("influx")
try:
    store.commit_alarms("m", [Alarm(machine="m", alarm="anomaly", seq=2)] * 200, 2,
                        messages=[Message("event", b"x" * 300_000)])
    alarm_refused = False
except Unavailable:
    alarm_refused = True
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
seq_then = store.load_alarms("m")[0][0].seq
store.add_points([point(n)])
store.commit_alarms("m", [Alarm(machine="m", alarm="anomaly", seq=2)], 2, messages=[Message("event", b"2")])
say(refused, n, held.held, alarm_refused, seq_then)
store.close()
"""
)


def test_a_disk_that_takes_no_more_is_declared_and_nothing_is_half_done(tmp_path):
    said = subprocess.run([sys.executable, "-c", FULL, tmp_path], capture_output=True, text=True, check=True).stdout
    refused, accepted, held, alarm_refused, seq_then = json.loads(said)
    assert "free space" in refused
    assert accepted == held > 10
    assert (alarm_refused, seq_then) == (True, 1)
    with Store.open(tmp_path, max_outbox_bytes=2**30) as store:
        assert store.notes == []
        assert store.counters("influx").held == accepted + 1
        assert [m.payload for _, m in store.peek("mqtt", 9)] == [b"1", b"2"]
    assert_sound(tmp_path)


def test_a_start_on_a_full_disk_is_unavailable(tmp_path):
    script = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\ntry:\n{indent(PRELUDE)}\n"
    script = script.replace("try:\n", "from fisher_agent.errors import Unavailable\ntry:\n", 1)
    script += "except Unavailable as error: print(error)"
    done = subprocess.run([sys.executable, "-c", script, tmp_path], capture_output=True, text=True, check=True)
    assert "free space" in done.stdout
    Store.open(tmp_path, max_outbox_bytes=MB).close()


def indent(script: str) -> str:
    return "\n".join("    " + line for line in script.splitlines())


def test_a_real_disk_that_is_full_is_unavailable(tmp_path):
    """On a file system of its own, which needs the right to mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], capture_output=True, text=True)
    if mount.returncode != 0:
        pytest.skip(f"no right to mount: {mount.stderr.strip()}")
    try:
        with Store.open(disk / "state", max_outbox_bytes=2**30) as store:
            accepted = 0
            with pytest.raises(Unavailable, match="full"):
                for number in range(5000):
                    store.add_points([point(number, size=1000)])
                    accepted = number + 1
            assert store.counters("influx").held == accepted > 10
            banks = BankFiles(disk / "state" / "banks")
            with pytest.raises(Unavailable, match="cannot be written"):
                banks.save("m", "v1", data=b"x" * 2 * MB, manifest={})
            assert banks.versions("m") == []
    finally:
        subprocess.run(["umount", disk], check=True)


def test_an_alarm_that_cannot_be_read_begins_anew_and_is_declared(tmp_path: Path) -> None:
    with Store.open(tmp_path, max_outbox_bytes=10**6) as store:
        good = Alarm(machine="m", alarm="stale-c", occurrence=3, seq=1)
        store.commit_alarms("m", [good, Alarm(machine="m", alarm="anomaly", occurrence=4, seq=1)], 4)
        with sqlite3.connect(tmp_path / "state.db") as db:
            db.execute("UPDATE alarm SET body = '{\"nothing\": 1}' WHERE alarm = 'anomaly'")
        db.close()
        alarms, occurrence = store.load_alarms("m")
        assert [a.alarm for a in alarms] == ["stale-c"]
        assert occurrence == 4, "an occurrence must never come twice"
        assert ["m cannot be read" in note for note in store.notes] == [True]
