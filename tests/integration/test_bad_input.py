"""What can be wrong around the agent: a clear error where it starts, a declared degradation where it runs."""

# Over 400 lines: a list of wrong inputs that share one daemon and one way to call a command.

import contextlib
import json
import os
import resource
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fakes import SPEC, FakeEmbedder, bundle
from fisher_agent import app
from fisher_agent.banks import BankLibrary, Engine
from fisher_agent.codes import State
from fisher_agent.configfile import load
from fisher_agent.ledger import Model
from fisher_models.bundle import load as load_bundle
from fisher_models.frontend import Frontend
from integration.harness import BASE, MACHINE, PLAIN_MODEL, Daemon, Hmi, MqttOutlet, Sensors, cli
from integration.small import HERE, ROTOR, SMALL, call, call_json, counters, small_config, state_db
from private import private
from servers.influxdb import InfluxDB
from servers.mosquitto import Mosquitto
from servers.process import free_port

NOWHERE = "mqtt://127.0.0.1:1"


def refused(done: subprocess.CompletedProcess[str], code: int) -> str:
    """What a command said that ended with this code; never a traceback."""
    said = done.stdout + done.stderr
    assert "Traceback" not in said, said
    assert done.returncode == code, said
    return done.stderr


def status(config: Path) -> dict[str, str]:
    """What the daemon says is not as it should be."""
    degraded: dict[str, str] = call_json(config, "status")["degraded"]
    return degraded


@pytest.fixture(scope="module")
def lonely(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon whose broker is away."""
    config = small_config(tmp_path_factory.mktemp("lonely"), source=NOWHERE)
    with Daemon(config) as daemon:
        yield daemon
        assert call_json(config, "status")["status"] == "degraded"


# -- what ends the start -----------------------------------------------------------------------------------------------


def test_run_names_every_mistake_of_the_configuration_and_ends_with_2(tmp_path: Path) -> None:
    config = small_config(tmp_path, source=NOWHERE, machines=SMALL.replace("8000", "0") + 'colour = "red"\nscale = 0\n')
    said = refused(call(config, "run"), 2)
    for key in ("rate_hz", "colour", "scale"):
        assert f"machines[0].channels[0].{key}: " in said
    assert not (tmp_path / "state").exists(), "nothing is touched before the configuration is right"


def test_a_missing_configuration_names_the_way_to_get_one(tmp_path: Path) -> None:
    assert "fisher-agent init" in refused(call(tmp_path / "none.toml", "run"), 2)


def test_channels_of_one_topic_that_contradict_each_other_end_the_start(tmp_path: Path) -> None:
    twin = SMALL.partition("[[machines.channels]]")[2].replace('"vib"', '"amp"').replace("fisher-frame/1", "f32le")
    config = small_config(tmp_path, source=NOWHERE, machines=f"{SMALL}[[machines.channels]]{twin}index = 1\n")
    for verb in ("run", "check"):
        done = call(config, verb)
        refused(done, 2)
        assert "must have the same format" in done.stdout + done.stderr


def test_a_secret_that_cannot_be_read_ends_the_start(tmp_path: Path) -> None:
    config = small_config(tmp_path, influx='url = "http://127.0.0.1:1"\ntoken_file = "/nowhere/token"', source=NOWHERE)
    assert "influx.token_file: /nowhere/token" in refused(call(config, "run"), 2)


@pytest.mark.parametrize("name", ["manifest.json", "graph.onnx", "weights.safetensors", "selftest.safetensors"])
def test_a_truncated_bundle_ends_the_start_and_says_which_file(tmp_path: Path, name: str) -> None:
    damaged = shutil.copytree(load_bundle("fisher-tiny").path, tmp_path / "bundle")
    cut(damaged / name)
    config = small_config(tmp_path / "edge", source=NOWHERE, extra=f'[model]\nbundle = "{damaged}"')
    said = refused(call(config, "run"), 2)
    assert "model.bundle" in said and name in said
    assert "install the bundle again" in said
    if name == "graph.onnx":
        done = call(config, "check")
        refused(done, 2)
        assert name in done.stdout


def test_a_state_dir_that_cannot_be_written_ends_the_start(tmp_path: Path) -> None:
    config = small_config(tmp_path, source=NOWHERE)
    (tmp_path / "state").write_text("a file")
    said = refused(call(config, "run"), 2)
    assert str(tmp_path / "state") in said and "must be a folder that the agent may write to" in said
    done = call(config, "check")
    refused(done, 2)
    assert "state_dir" in done.stdout


def test_a_second_agent_on_the_same_state_dir_ends_with_3_and_names_the_first(lonely: Daemon) -> None:
    said = refused(cli(lonely.config, "run"), 3)
    assert f"in use by process {lonely.pid}" in said
    assert call_json(lonely.config, "status")["pid"] == lonely.pid  # and the first goes on, its socket too


@pytest.mark.parametrize(
    "arguments",
    [
        ("enroll", "--from", "x.wav"), ("score", "x.wav"), ("replay", "x.wav", "--to", "mqtt", "--prefix", "lab"),
        ("rollback",), ("forget",), ("ack", "--occurrence", "1"), ("banks",), ("banks", "rebuild"),
    ],
)  # fmt: skip
def test_an_unknown_machine_is_answered_with_those_there_are(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    config = small_config(tmp_path, source=NOWHERE)
    said = refused(call(config, *arguments, "--machine", "press-99"), 2)
    assert f"machine 'press-99' is not in the configuration; it has: {MACHINE}" in said


# -- what a running agent declares -------------------------------------------------------------------------------------


def test_without_its_servers_it_runs_says_so_and_connects_when_they_come(tmp_path: Path, enrolled: Path) -> None:
    broker, db = Mosquitto(tmp_path / "broker"), InfluxDB(tmp_path / "db")
    config = small_config(
        tmp_path / "edge", enrolled=enrolled, broker_port=broker.port, influx=f'url = "{db.url}"\nbucket = "condition"'
    )
    with contextlib.ExitStack() as stack, Daemon(config) as daemon:
        assert set(status(config)) == {"link source plant", "link plant", "link commands", "link influx"}
        assert call_json(config, "status")["status"] == "degraded"
        with broker, Hmi(broker.port) as hmi:
            for link in ("plant", "commands", "source plant"):
                daemon.wait_for_event("connected", link=link)
            hmi.wait_for(f"{BASE}/status", lambda p: p == b"degraded")  # for as long as the database is away
            stack.enter_context(db).query("CREATE DATABASE condition")
            daemon.wait_for_event("connected", link="influx")
            hmi.wait_for(f"{BASE}/status", lambda p: p == b"online")
            hmi.wait_for(f"{BASE}/alive", lambda p: p == b"1")
            assert status(config) == {}
            with Sensors(MqttOutlet(broker.port), machine=ROTOR):
                hmi.wait_for(f"{HERE}/score")
            assert daemon.stop() == 0
            assert db.query("SELECT count(level) FROM fisher_score", db="condition")


def test_a_secret_that_goes_away_later_is_declared_and_ends_nothing(tmp_path: Path) -> None:
    token = tmp_path / "token"
    private(token, "secret")
    db = InfluxDB(tmp_path / "db")
    influx = f'url = "{db.url}"\nbucket = "condition"\ntoken_file = "{token}"'
    with Daemon(small_config(tmp_path, source=NOWHERE, influx=influx)) as daemon:
        daemon.wait_for_event("unavailable", link="influx")
        token.unlink()
        gone = f"influx.token_file: {token} cannot be read: [Errno 2] No such file or directory: '{token}'"
        daemon.wait_for_event("unavailable", link="influx", error=gone)
        private(token, "secret")
        with db:
            daemon.wait_for_event("connected", link="influx")


def test_payloads_that_do_not_parse_are_dropped_and_counted_and_the_rest_goes_on(
    tmp_path: Path, enrolled: Path
) -> None:
    bad = [b"", b"x", b"FSH1", b"FSH1" + bytes(28), b"FSH2" + bytes(60), b'{"samples": [1, 2]}', os.urandom(5000)]
    with Mosquitto(tmp_path) as broker, Hmi(broker.port) as hmi:
        config = small_config(tmp_path / "edge", enrolled=enrolled, broker_port=broker.port)
        with Daemon(config) as daemon, Sensors(MqttOutlet(broker.port), machine=ROTOR):
            hmi.wait_for(f"{HERE}/score")
            for payload in bad:
                hmi.publish(f"raw/{MACHINE}/vib", payload)
            scores = hmi.count(f"{HERE}/score")
            hmi.wait_for(f"{HERE}/score", after=scores + 8)
            assert call_json(config, "status")["rejected"] == len(bad)
            assert status(config) == {}
            line = daemon.wait_for_event("payload_rejected")
            assert (line["channel"], line["topic"]) == (f"{MACHINE}/vib", f"raw/{MACHINE}/vib")


def own_bundle(folder: Path) -> Path:
    """The shipped bundle under another digest: another model, as far as a bank can know."""
    other = shutil.copytree(load_bundle("fisher-tiny").path, folder)
    manifest = json.loads((other / "manifest.json").read_text())
    (other / "manifest.json").write_text(json.dumps({**manifest, "origin": "retrained"}))
    return other


def test_a_bank_of_another_model_is_declared_and_made_again_by_itself(tmp_path: Path, enrolled: Path) -> None:
    with Mosquitto(tmp_path) as broker, Hmi(broker.port) as hmi:
        model = f'{PLAIN_MODEL}\nbundle = "{own_bundle(tmp_path / "bundle")}"'
        config = small_config(tmp_path / "edge", enrolled=enrolled, broker_port=broker.port, extra=model)
        (before,) = call_json(config, "banks")
        with Daemon(config) as daemon, Sensors(MqttOutlet(broker.port), machine=ROTOR):
            said = daemon.wait_for_event("ready")["degraded"][f"bank {MACHINE}"]
            assert "banks rebuild" in said or said.startswith("rebuilding: ")
            rebuilt = daemon.wait_for_event("bank_rebuilt", machine=MACHINE)["bank"]
            assert rebuilt != before["version"]
            hmi.wait_for_json(f"{HERE}/state", lambda s: s["enrolled"] == 1 and s["bank"] == rebuilt)
            hmi.wait_for(f"{BASE}/status", lambda p: p == b"online", after=hmi.count(f"{BASE}/status") - 1)
            assert status(config) == {}
            (again,) = call_json(config, "banks", "rebuild")  # asked for, it is done once more
            hmi.wait_for_json(f"{HERE}/state", lambda s: s["bank"] == again["bank"])


def test_a_bank_of_another_model_without_waveforms_says_that_it_must_be_enrolled(
    tmp_path: Path, enrolled: Path
) -> None:
    model = f'{PLAIN_MODEL}\nbundle = "{own_bundle(tmp_path / "bundle")}"'
    config = small_config(tmp_path / "edge", enrolled=enrolled, source=NOWHERE, extra=model)
    folder = only_bank(config).parent
    (folder / "waveforms.safetensors").unlink()
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["files"]["waveforms.safetensors"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with Daemon(config) as daemon:
        daemon.wait_for_event("bank_not_rebuilt", machine=MACHINE)
        assert "kept no waveforms of default (enroll.keep_mb); enrol it again" in status(config)[f"bank {MACHINE}"]
        assert call_json(config, "status")["machines"][MACHINE]["enrolled"] is False


def only_bank(config: Path) -> Path:
    (found,) = (config.parent / "state" / "banks").glob("*/*/bank.safetensors")
    return found


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda bank: cut(bank), "is damaged"),
        (lambda bank: bank.unlink(), "cannot be read"),
        (lambda bank: cut(bank.parent / "manifest.json"), "is damaged"),
        (lambda bank: (bank.parents[1] / "active").write_bytes(b"\xff\x00"), "cannot be read"),
        (lambda bank: shutil.rmtree(bank.parent), "has no bank"),
    ],
    ids=["truncated", "missing", "manifest", "pointer", "gone"],
)
def test_a_damaged_bank_is_no_bank_and_its_damage_is_named(
    tmp_path: Path, enrolled: Path, damage: Callable[[Path], None], says: str
) -> None:
    path = small_config(tmp_path, enrolled=enrolled, source=NOWHERE)
    damage(only_bank(path))
    config = load(path)
    model = Model("fake", "b0", "untrained", "fake", "f32", "cpu")
    library = BankLibrary(config, app.bank_files(config), Engine(bundle(), Frontend(SPEC), FakeEmbedder(), model))
    bank, problem = library.load(config.machine(MACHINE))
    assert bank is None
    assert says in problem


def test_a_truncated_bank_is_declared_and_the_agent_runs(tmp_path: Path, enrolled: Path) -> None:
    config = small_config(tmp_path, enrolled=enrolled, source=NOWHERE)
    cut(only_bank(config))
    with Daemon(config) as daemon:
        assert "is damaged" in daemon.wait_for_event("bank_unusable")["problem"]
        assert "fisher-agent rollback" in status(config)[f"bank {MACHINE}"]
        assert call_json(config, "status")["machines"][MACHINE]["enrolled"] is False


def test_offline_commands_say_what_is_wrong_with_a_bank(tmp_path: Path, enrolled: Path) -> None:
    config = small_config(tmp_path, enrolled=enrolled, source=NOWHERE)
    cut(only_bank(config))
    recording = enrolled.parent / "normal.npz"
    assert "is damaged" in refused(call(config, "score", "--machine", MACHINE, recording), 1)
    assert "is damaged" in refused(call(config, "banks", "rebuild"), 2)
    cut(only_bank(config).parent / "manifest.json")
    assert "is damaged" in refused(call(config, "banks"), 2)


# -- a full disk -------------------------------------------------------------------------------------------------------


@contextmanager
def small_disk(folder: Path) -> Iterator[Callable[[int, bool], None]]:
    """A disk of 8 MB at `folder` that can be filled and freed; a skip where this user may not mount one."""
    folder.mkdir()
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mount.returncode:
        pytest.skip(f"mounting is not allowed here: {mount.stderr.decode()}")
    ballast = folder / "ballast"

    def fill(_pid: int, full: bool) -> None:
        if not full:
            ballast.unlink()
            return
        with ballast.open("wb", buffering=0) as file:
            for size in (65536, 4096, 1):
                try:
                    while True:
                        file.write(bytes(size))
                except OSError:
                    continue

    try:
        yield fill
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@contextmanager
def no_writing(folder: Path) -> Iterator[Callable[[int, bool], None]]:
    """A disk on which this one process can write nothing, by its resource limit; what every user can do."""
    folder.mkdir()

    def fill(pid: int, full: bool) -> None:
        hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)[1]
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (0 if full else hard, hard))

    yield fill


@pytest.mark.parametrize("disk", [small_disk, no_writing])
def test_a_full_disk_is_declared_and_costs_no_judging_and_no_alarm(
    tmp_path: Path, enrolled: Path, disk: Callable[[Path], object]
) -> None:
    with (
        disk(tmp_path / "disk") as fill,  # type: ignore[attr-defined]
        Mosquitto(tmp_path / "broker") as broker,
        Hmi(broker.port) as hmi,
    ):
        config = small_config(
            tmp_path / "disk" / "edge",
            enrolled=enrolled,
            broker_port=broker.port,
            influx=f'url = "http://127.0.0.1:{free_port()}"',
            machines=SMALL + "[machines.alarm]\non_delay_windows = 2\n",
        )
        with (
            Daemon(config, log=tmp_path / "daemon.log") as daemon,
            Sensors(MqttOutlet(broker.port), machine=ROTOR) as sensors,
        ):
            hmi.wait_for(f"{HERE}/score", after=8)
            fill(daemon.pid, True)
            scores = hmi.count(f"{HERE}/score")
            daemon.wait_for_event("state_not_written")
            hmi.wait_for(f"{HERE}/score", after=scores + 10)
            sensors.fault_now()
            raised = hmi.wait_for_json(f"{HERE}/alarm/anomaly", lambda a: a["state_code"] == State.UNACK)
            hmi.wait_for(f"{HERE}/level", lambda p: p in (b"2", b"3"))
            assert "free space" in status(config)["state"]

            fill(daemon.pid, False)
            event = hmi.wait_for_json(f"{HERE}/event", lambda e: e["occurrence"] == raised["occurrence"])
            assert event["state_code"] == State.UNACK
            scores = hmi.count(f"{HERE}/score")
            hmi.wait_for(f"{HERE}/score", after=scores + 3)
            assert "state" not in status(config)
        with state_db(config) as state:
            (judged,) = state.execute("SELECT count(*) FROM score").fetchone()
            events = [json.loads(body)["alarm"] for (body,) in state.execute("SELECT body FROM journal")]
        assert judged == hmi.count(f"{HERE}/score"), "what was judged while the disk was full is written afterwards"
        assert events == ["anomaly"]
        held = counters(config, "influx")
        assert held["added"] == held["held"] >= judged


def test_a_full_disk_does_not_blind_an_hmi_to_what_waited_for_its_broker(tmp_path: Path, enrolled: Path) -> None:
    plant = Mosquitto(tmp_path / "plant")
    with no_writing(tmp_path / "disk") as fill, Mosquitto(tmp_path / "field") as field:
        config = small_config(
            tmp_path / "disk" / "edge",
            enrolled=enrolled,
            broker_port=plant.port,
            source=f"mqtt://127.0.0.1:{field.port}",
            machines=SMALL + "[machines.alarm]\non_delay_windows = 2\n",
        )
        with Daemon(config) as daemon, Sensors(MqttOutlet(field.port), machine=ROTOR) as sensors:
            sensors.wait_until(sensors.start_ns + 3 * 10**9)
            sensors.fault_now()
            daemon.wait_for_event("alarm", alarm="anomaly", state="UNACK")
            fill(daemon.pid, True)
            daemon.wait_for_event("state_not_written")
            with plant, Hmi(plant.port) as hmi:
                hmi.wait_for(f"{HERE}/score", after=10)
                hmi.wait_for(f"{HERE}/level", lambda p: p in (b"2", b"3"))
                assert hmi.count(f"{HERE}/event") == 1, "sent once, though the disk cannot take a note of it"
                fill(daemon.pid, False)
                assert daemon.stop() == 0
                assert counters(config, "mqtt")["held"] == 0
                assert hmi.count(f"{HERE}/event") == 1


def test_a_full_disk_at_the_start_ends_with_3_and_a_clear_word(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as fill:
        config = small_config(tmp_path / "disk" / "edge", source=NOWHERE)
        fill(0, True)
        assert "free space" in refused(call(config, "run"), 3)


def test_a_control_socket_that_was_left_by_a_kill_is_no_hindrance(tmp_path: Path) -> None:
    config = small_config(tmp_path, source=NOWHERE)
    daemon = Daemon(config).start()
    daemon.kill()
    assert (tmp_path / "state" / "ctl.sock").is_socket()
    assert "no daemon" in refused(call(config, "status"), 3)
    with Daemon(config):
        assert status(config)


@pytest.mark.parametrize(
    "request_line", [b"\n", b"[]\n", b"42\n", b'{"verb": 7}\n', b'{"verb": "ack"}\n', b"\xff\n", b"{" * 5000]
)
def test_nonsense_on_the_control_socket_is_answered_and_harms_nothing(lonely: Daemon, request_line: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as channel:
        channel.settimeout(10)
        channel.connect(f"{lonely.config.parent}/state/ctl.sock")
        channel.sendall(request_line)
        channel.shutdown(socket.SHUT_WR)
        answer = json.loads(channel.makefile("rb").readline())
    assert answer["ok"] is False and answer["exit"] == 2
