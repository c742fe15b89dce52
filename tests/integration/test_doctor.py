"""`fisher-agent doctor`: all that support needs in one archive, on a sound box and a broken one; never a secret."""

import json
import os
import stat
import tarfile
from pathlib import Path
from typing import Any

import pytest

from integration.harness import MACHINE, Daemon, cli
from integration.small import call, call_json, small_config
from servers.mosquitto import Mosquitto

SECRETS = {
    name: f"pl4nted-{name}-s3cret"
    for name in ("mqtt", "influx", "page-token", "zmq-key", "inline", "in-url", "in-place-of-a-file", "journal")
}


def unpacked(path: Path) -> dict[str, Any]:
    """Name -> document or text; every member is a plain file under one folder."""
    found = {}
    with tarfile.open(path) as archive:
        for member in archive:
            assert member.isfile() and member.name.startswith("fisher-agent-doctor/")
            file = archive.extractfile(member)
            assert file is not None
            text = file.read().decode()
            name = member.name.removeprefix("fisher-agent-doctor/")
            found[name.removesuffix(".json")] = json.loads(text) if name.endswith(".json") else text
    return found


def everything(path: Path) -> bytes:
    with tarfile.open(path) as archive:
        return b"\n".join(m.name.encode() + b"\n" + (archive.extractfile(m) or archive.fileobj).read() for m in archive)  # type: ignore[union-attr]


def programs(folder: Path, **scripts: str) -> str:
    """A PATH on which these programs come first."""
    folder.mkdir()
    for name, script in scripts.items():
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


def secretive(folder: Path, config: Path) -> None:
    """Plant a known word wherever a secret may stand."""
    for name in ("mqtt", "influx", "page-token", "zmq-key"):
        (folder / name).write_text(SECRETS[name] + "\n")
        (folder / name).chmod(0o600)
    text = config.read_text().replace("[page]\n", f'[page]\ntoken_file = "{folder}/page-token"\n')
    text = text.replace("[mqtt]\n", f'[mqtt]\nusername = "fisher"\npassword_file = "{folder}/mqtt"\n')
    text += f'\n[influx]\nurl = "http://127.0.0.1:1"\ntoken_file = "{folder}/influx"\n'
    text += '\n[[sources]]\nname = "daq"\ntype = "zmq"\nurl = "tcp://127.0.0.1:1"\n'
    text += "".join(f'{k}_key_file = "{folder}/zmq-key"\n' for k in ("server", "public", "secret"))
    config.write_text(text)


@pytest.fixture
def quiet_box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The service manager's programs, as they answer on a box on which all is well."""
    path = programs(
        tmp_path / "bin",
        journalctl=f'echo "Nov 21 fisher-agent[1]: connected mqtt://fisher:{SECRETS["journal"]}@broker"',
        systemctl='printf "ActiveState=active\\nNRestarts=0\\n"',
        timedatectl='printf "NTPSynchronized=yes\\nTimezone=UTC\\n"',
    )
    monkeypatch.setenv("PATH", path)


def test_of_a_running_agent_it_holds_what_support_needs(tmp_path: Path, enrolled: Path, quiet_box: None) -> None:
    with Mosquitto(tmp_path / "broker") as broker:
        config = small_config(tmp_path / "edge", enrolled=enrolled, broker_port=broker.port)
        with Daemon(config):
            said = call_json(config, "doctor", "--out", tmp_path / "out.tar.gz")
            pid = call_json(config, "status")["pid"]
    found = unpacked(tmp_path / "out.tar.gz")
    assert said["archive"] == str(tmp_path / "out.tar.gz")
    assert set(said["not_gathered"]) <= {"gpu"}
    assert found["daemon"]["status"]["pid"] == pid and found["daemon"]["status"]["machines"][MACHINE]["enrolled"]
    assert found["versions"]["packages"]["numpy"] and found["versions"]["fisher-agent"]
    (bank,) = found["banks"]
    assert (bank["machine"], bank["versions"][0]["version"]) == (MACHINE, bank["active"])
    assert bank["versions"][0]["bundle_digest"] == found["bundle"]["digest"]
    assert found["state"]["bytes"]["banks/"] > 10_000 and found["state"]["disk_free"] > 0
    assert found["database"]["version"] == found["database"]["known"]
    assert "CPU" in found["devices"] and found["machine"]["cpu"]["flags"]
    assert found["clock"]["timedatectl"]["NTPSynchronized"] == "yes"
    assert found["journal.txt"].startswith("Nov 21") and found["unit"]["ActiveState"] == "active"
    assert stat.S_IMODE((tmp_path / "out.tar.gz").stat().st_mode) == 0o600
    assert (tmp_path / "out.tar.gz").stat().st_size < 1_000_000, "no waveforms"


def test_no_planted_secret_is_anywhere_in_the_archive_or_on_the_screen(tmp_path: Path, quiet_box: None) -> None:
    config = small_config(tmp_path / "edge", broker_port=1)
    secretive(tmp_path, config)
    text = config.read_text()
    variants = {
        "sound": text,
        "a secret under an unknown key": text.replace("[mqtt]\n", f'[mqtt]\npassword = "{SECRETS["inline"]}"\n'),
        "a secret in a url": text.replace("mqtt://127", f"mqtt://fisher:{SECRETS['in-url']}@127"),
        "a secret for a file": text.replace(f"{tmp_path}/influx", SECRETS["in-place-of-a-file"]),
        "no TOML at all": text + f"\npassword = {SECRETS['inline']}\n",
    }
    for n, (name, variant) in enumerate(variants.items()):
        config.write_text(variant)
        out = tmp_path / f"{n}.tar.gz"
        done = call(config, "doctor", "--out", out)
        assert done.returncode == 0, name
        content = everything(out) + done.stdout.encode() + done.stderr.encode()
        for secret in SECRETS.values():
            assert secret.encode() not in content, f"{name}: {secret}"
        said = "configuration: " in done.stdout or "influx.token_file: No such file" in done.stdout
        assert said == (name != "sound"), name


def test_a_broken_configuration_is_in_it_with_what_is_wrong(tmp_path: Path, enrolled: Path, quiet_box: None) -> None:
    config = small_config(tmp_path / "edge", enrolled=enrolled, broker_port=1)
    config.write_text(config.read_text().replace('kind = "vibration"', 'kind = "wobble"'))
    done = call(config, "doctor", "--out", tmp_path / "out.tar.gz")
    assert done.returncode == 0
    assert "configuration: machines[0].channels[0].kind: " in done.stdout
    found = unpacked(tmp_path / "out.tar.gz")
    assert found["config"]["document"]["machines"][0]["id"] == MACHINE
    assert found["banks"][0]["machine"] == MACHINE, "state_dir is known although the rest is wrong"
    assert {"daemon", "bundle", "files"} <= found["problems"].keys()


def test_without_daemon_state_or_service_manager_each_missing_part_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", programs(tmp_path / "bin", systemctl="echo no bus >&2; exit 1").partition(":")[0])
    config = small_config(tmp_path / "edge", broker_port=1)
    done = call(config, "doctor", "--out", tmp_path / "out.tar.gz")
    assert done.returncode == 0
    assert "Traceback" not in done.stdout + done.stderr
    assert "daemon: no daemon runs on " in done.stdout
    problems = unpacked(tmp_path / "out.tar.gz")["problems"]
    assert problems["journal"] == "journalctl is not installed"
    assert problems["unit"] == "systemctl ended with 1: no bus"
    assert "No such file" in problems["state"]
    for name in problems:
        assert f"not gathered: {name}: " in done.stdout


def test_damaged_state_is_described_and_nothing_is_repaired(tmp_path: Path, enrolled: Path, quiet_box: None) -> None:
    config = small_config(tmp_path / "edge", enrolled=enrolled, broker_port=1)
    state = config.parent / "state"
    (manifest,) = (state / "banks").glob("*/*/manifest.json")
    manifest.write_text("{")
    (state / "state.db").write_bytes(b"SQLite format 3\x00" + b"\xff" * 5000)
    before = (state / "state.db").read_bytes()
    assert call(config, "doctor", "--out", tmp_path / "out.tar.gz").returncode == 0
    found = unpacked(tmp_path / "out.tar.gz")
    assert "is damaged" in found["banks"][0]["versions"][0]["problem"]
    assert found["problems"]["database"]
    assert (state / "state.db").read_bytes() == before
    assert not (state / "lock").exists() and not (state / "damaged").exists()


def test_an_archive_is_never_overwritten_and_a_folder_that_refuses_is_named(tmp_path: Path, quiet_box: None) -> None:
    config = small_config(tmp_path / "edge", broker_port=1)
    (tmp_path / "here").write_text("mine")
    for out, says in ((tmp_path / "here", "is not overwritten"), (tmp_path / "no" / "x", "name another place")):
        done = cli(config, "doctor", "--out", out)
        assert (done.returncode, "Traceback" in done.stderr) == (2, False)
        assert says in done.stderr
    assert (tmp_path / "here").read_text() == "mine"
