"""The unit under a real systemd: with every hardening line on it judges, alarms, captures, and comes back.

Where this box allows no namespaces (an ordinary user, most containers) these tests are skipped and say so.
"""

import json
import os
import re
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from integration.harness import BASE, MACHINE, PLAIN_MODEL, Hmi, MqttOutlet, Sensors
from integration.small import HERE, ROTOR, SMALL, small_config
from servers.mosquitto import Mosquitto
from servers.process import free_port
from servers.systemd import CONFIG, PROGRAM, SETTINGS, STATE, UNIT, Systemd, refused

REFUSED = refused()
pytestmark = pytest.mark.skipif(
    REFUSED is not None, reason=f"a systemd of its own needs root and namespaces: {REFUSED}"
)

SECRET = "of the box, not of the file"
SECOND = SMALL.replace(MACHINE, "mill-02")
EXPOSURE = 1.5
# Until systemd notices a silence, and has ended and started what was silent (WatchdogSec, TimeoutStopSec, RestartSec).
WATCHDOG_S = 30 + 15 + 5 + 30


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    folder = tmp_path_factory.mktemp("broker")
    with Mosquitto(folder, passwords={"agent": SECRET}, extra="allow_anonymous true") as broker:
        yield broker


@pytest.fixture(scope="module")
def text(broker: Mosquitto, enrolled: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The configuration, with the folders of an installation."""
    folder = tmp_path_factory.mktemp("config")
    page = f"[page]\nport = {free_port()}\n[capture]\nbefore_s = 2.0\nafter_s = 1.0"
    config = small_config(
        folder, broker_port=broker.port, extra=page, mqtt='username = "agent"\npassword_file = "credential:mqtt"'
    )
    lines = config.read_text().replace(f"{folder}/state/ctl.sock", "/run/fisher-agent/ctl.sock")
    return lines.replace(f"{folder}/state", str(STATE))


@pytest.fixture(scope="module")
def box(text: str, enrolled: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Systemd]:
    box = Systemd(tmp_path_factory.mktemp("box"))
    box.configure(text)
    shutil.copytree(enrolled / "banks", box.path(STATE) / "banks")
    secret = box.path(SETTINGS / "secrets" / "mqtt")
    secret.parent.mkdir(mode=0o700)
    secret.write_text(SECRET)
    secret.chmod(0o600)
    box.path(Path("/root")).mkdir()
    box.path(Path("/root/private")).touch()
    box.drop_in("secrets", f"[Service]\nLoadCredential=mqtt:{SETTINGS}/secrets/mqtt\n")
    with box:
        yield box


@pytest.fixture(scope="module")
def hmi(broker: Mosquitto) -> Iterator[Hmi]:
    with Hmi(broker.port) as hmi:
        yield hmi


@pytest.fixture(scope="module")
def sensors(broker: Mosquitto) -> Iterator[Sensors]:
    with Sensors(MqttOutlet(broker.port), machine=ROTOR, speed=2.0) as sensors:
        yield sensors


def pid(box: Systemd) -> int:
    """The agent's process as it is numbered out here."""
    inside = box.shows("MainPID")
    assert UNIT in box.run("cat", f"/proc/{inside}/cgroup").stdout
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if process.joinpath("ns/pid").readlink() != box.numbers:
                continue
            status = process.joinpath("status").read_text()
        except OSError:  # it has ended
            continue
        if re.search(rf"^NSpid:\t\d+\t{inside}$", status, re.MULTILINE):
            return int(process.name)
    pytest.fail(f"no process has the number {inside} inside")


def judges(hmi: Hmi) -> None:
    """Wait for scores that are newer than this call."""
    hmi.wait_for(f"{HERE}/score", after=hmi.count(f"{HERE}/score") + 3)


def test_it_gets_ready_and_judges_with_every_line_of_the_unit_on(box: Systemd, hmi: Hmi, sensors: Sensors) -> None:
    box.systemctl("start", UNIT)  # returns when the agent said READY=1
    judges(hmi)
    hmi.wait_for(f"{HERE}/level", lambda p: p == b"0")
    said = json.loads(box.run(PROGRAM, "status", "--json").stdout)
    assert said["degraded"] == {}, said["degraded"]
    status = dict(
        line.split(":\t", 1) for line in Path(f"/proc/{pid(box)}/status").read_text().splitlines() if ":\t" in line
    )
    assert status["Uid"].split()[0] != "0" and status["NoNewPrivs"] == "1" and status["Seccomp"] == "2"
    assert int(status["CapBnd"], 16) == int(status["CapEff"], 16) == 0
    # As the agent itself sees the box: it may write to its state, and to nothing else.
    inside = ["nsenter", "--target", box.shows("MainPID"), "--mount", "--"]
    account = [
        "setpriv",
        f"--reuid={status['Uid'].split()[0]}",
        f"--regid={status['Gid'].split()[0]}",
        "--clear-groups",
    ]
    assert box.run(*inside, *account, "touch", f"{STATE}/mine").returncode == 0
    assert "Permission denied" in box.run(*inside, *account, "touch", CONFIG).stderr
    for place in ("/opt/fisher-agent/new", "/var/lib/new"):
        assert "Read-only file system" in box.run(*inside, "touch", place).stderr  # root's command
    assert box.run("ls", "/root").stdout == "private\n" and box.run(*inside, "ls", "/root").stdout == ""


def test_systemd_itself_calls_it_hardened(box: Systemd) -> None:
    done = box.run("systemd-analyze", "security", f"--threshold={EXPOSURE * 10:g}", UNIT)
    assert done.returncode == 0, done.stdout[-500:] + done.stderr


def test_an_alarm_and_its_capture_come_out_of_the_sandbox(box: Systemd, hmi: Hmi, sensors: Sensors) -> None:
    sensors.fault_now()
    alarm = hmi.wait_for_json(f"{HERE}/alarm/anomaly", lambda a: bool(a.get("capture")), timeout_s=90)
    assert alarm["active"]
    written = list(box.path(STATE / "captures" / alarm["capture"]).iterdir())
    assert written and all(file.stat().st_uid == box.path(STATE).stat().st_uid != 0 for file in written)


def test_a_reload_takes_a_new_configuration_and_keeps_the_process(box: Systemd, hmi: Hmi, text: str) -> None:
    before = box.shows("MainPID")
    box.configure(text + SECOND)
    box.systemctl("reload", UNIT)
    hmi.wait_for(f"{BASE}/mill-02/level")
    judges(hmi)
    assert box.shows("MainPID") == before and box.shows("ActiveState") == "active"


def test_a_kill_is_followed_by_a_start(box: Systemd, hmi: Hmi, sensors: Sensors) -> None:
    before, heard = box.shows("MainPID"), hmi.count(f"{BASE}/status")
    os.kill(pid(box), signal.SIGKILL)
    hmi.wait_for(f"{BASE}/status", lambda p: p == b"offline", after=heard)
    judges(hmi)
    assert box.shows("MainPID") != before
    assert box.shows("NRestarts") == "1"


def test_a_hang_is_ended_by_the_watchdog_and_followed_by_a_start(box: Systemd, hmi: Hmi, sensors: Sensors) -> None:
    hung = pid(box)
    os.kill(hung, signal.SIGSTOP)
    began_s = time.monotonic()
    while Path(f"/proc/{hung}").exists():
        assert time.monotonic() - began_s < WATCHDOG_S, "nobody ended it"
        time.sleep(0.5)
    judges(hmi)
    assert box.shows("NRestarts") == "2"
    assert "Watchdog timeout" in box.journal(lines=500)


def test_a_stop_takes_moments_and_is_clean(box: Systemd, hmi: Hmi) -> None:
    began_s = time.monotonic()
    box.systemctl("stop", UNIT)
    assert time.monotonic() - began_s < 12
    assert (box.shows("ActiveState"), box.shows("Result"), box.shows("ExecMainStatus")) == ("inactive", "success", "0")
    assert hmi.last(f"{BASE}/status") == b"stopped" and hmi.last(f"{HERE}/level") == b"-1"


def test_a_wrong_configuration_is_told_and_not_tried_again(box: Systemd, text: str) -> None:
    box.configure(text.replace("hop_s", "hops"))
    assert box.run("systemctl", "start", UNIT).returncode != 0
    box.wait_until("ActiveState", "failed")
    time.sleep(7)  # longer than RestartSec
    assert (box.shows("ActiveState"), box.shows("ExecMainStatus")) == ("failed", "2")
    journal = box.journal(lines=1000)
    assert "hops" in journal and "Traceback" not in journal and SECRET not in journal


def test_what_is_fastest_here_is_measured_in_the_sandbox(box: Systemd, text: str) -> None:
    """In a child of the agent, with kernels compiled for every precision that this processor has."""
    box.configure(text.replace(PLAIN_MODEL, '[model]\nprecision = "auto"'))
    box.systemctl("restart", UNIT)
    journal = box.journal(lines=100)
    assert '"event": "probed"' in journal and "probe_failed" not in journal, journal
    box.systemctl("stop", UNIT)
