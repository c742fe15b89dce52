"""Who else could read a secret: what is refused, and that nothing of it is ever said."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fisher_agent.check import _check_files
from fisher_agent.config import MqttLink
from fisher_agent.configfile import parse
from fisher_agent.credentials import located, readable, secret, tls, unused
from fisher_agent.credentials import private as checked
from fisher_agent.errors import ConfigError
from private import private

KEY = "mqtt.password_file"


def problem(path: Path) -> str:
    with pytest.raises(ConfigError) as wrong:
        secret(KEY, path)
    (said,) = wrong.value.problems
    return said


@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_what_only_its_owner_may_read_is_read(tmp_path: Path, mode: int) -> None:
    file = private(tmp_path / "password", "hunter2\n")
    file.chmod(mode)
    assert secret(KEY, file) == "hunter2"


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o620, 0o602, 0o610, 0o666])
def test_a_right_of_anybody_else_is_refused_with_file_mode_and_remedy(tmp_path: Path, mode: int) -> None:
    file = private(tmp_path / "the password", "hunter2")
    file.chmod(mode)
    said = problem(file)
    assert said.startswith(f"{KEY}: {file} has mode {mode:04o}")
    assert f"`chmod 600 '{file}'`" in said
    assert "hunter2" not in said
    for look in (checked, lambda key, path: readable(key, path, secret=True)):
        with pytest.raises(ConfigError, match=f"mode {mode:04o}"):
            look(KEY, file)
    readable(KEY, file, secret=False)
    file.chmod(0o600)  # the remedy mends it
    assert secret(KEY, file) == "hunter2"


def test_the_mode_that_counts_is_that_of_the_file_behind_a_link(tmp_path: Path) -> None:
    file = private(tmp_path / "password", "hunter2")
    (tmp_path / "link").symlink_to(file)
    assert secret(KEY, tmp_path / "link") == "hunter2"
    file.chmod(0o644)
    assert "mode 0644" in problem(tmp_path / "link")


def test_the_owner_must_be_this_user_or_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = private(tmp_path / "password", "hunter2")
    owner, nobody = file.stat().st_uid, 3_999_999_999
    for root, me, accepted in [(owner, nobody, True), (nobody, owner, True), (nobody, nobody - 1, False)]:
        monkeypatch.setattr("fisher_agent.credentials.ROOT", root)
        monkeypatch.setattr(os, "geteuid", lambda me=me: me)
        if accepted:
            assert secret(KEY, file) == "hunter2"
        else:
            said = problem(file)
            assert said.startswith(f"{KEY}: {file} (mode 0600) belongs to ")
            assert f"`chown {me} {file} && chmod 600 {file}`" in said


def test_root_cannot_know_the_user_of_the_service_and_takes_any_owner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = private(tmp_path / "password", "hunter2")
    root = 3_999_999_999
    monkeypatch.setattr("fisher_agent.credentials.ROOT", root)
    monkeypatch.setattr(os, "geteuid", lambda: root)
    assert secret(KEY, file) == "hunter2"


def test_what_is_no_text_is_refused_without_being_quoted(tmp_path: Path) -> None:
    said = problem(private(tmp_path / "password", b"\xfehunter2"))
    assert said.endswith("it holds no UTF-8 text")


def test_a_credential_is_read_from_where_systemd_keeps_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = tmp_path / "credentials"
    kept.mkdir()
    private(kept / "mqtt.password", "hunter2\n").chmod(0o440)  # as systemd shows a file with an ACL
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(kept))
    for path in (Path("credential:mqtt.password"), kept / "mqtt.password"):
        assert secret(KEY, path) == "hunter2"
        assert checked(KEY, path) == kept / "mqtt.password"
    (kept / "mqtt.password").chmod(0o444)
    assert "mode 0444" in problem(Path("credential:mqtt.password"))
    assert f"{kept}/other cannot be read" in problem(Path("credential:other"))
    outside = private(tmp_path / "outside", "x")
    outside.chmod(0o440)
    assert "mode 0440" in problem(outside), "what systemd does not keep has no such right"


@pytest.mark.parametrize("name", ["../outside", "..", ".", "", "a/b", "a b"])
def test_a_credential_is_a_name_and_no_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    with pytest.raises(ConfigError, match="must be credential:NAME"):
        located(KEY, Path(f"credential:{name}"))


def test_without_systemd_a_credential_says_what_the_unit_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    said = problem(Path("credential:mqtt"))
    assert said.startswith(f"{KEY}: credential:mqtt ") and "LoadCredential=mqtt:FILE" in said


def test_a_certificate_that_holds_its_own_key_is_a_secret(tmp_path: Path) -> None:
    both = private(tmp_path / "both.pem", "junk")
    both.chmod(0o644)
    with pytest.raises(ConfigError, match=r"mqtt\.cert_file: .* has mode 0644"):
        tls("mqtt.", MqttLink(url="mqtts://h", cert_file=both))
    key = private(tmp_path / "key.pem", "junk")
    with pytest.raises(ConfigError, match="cannot be used for TLS"):  # it is not at fault beside a key
        tls("mqtt.", MqttLink(url="mqtts://h", cert_file=both, key_file=key))
    key.chmod(0o640)
    with pytest.raises(ConfigError, match=r"mqtt\.key_file: .* has mode 0640"):
        tls("mqtt.", MqttLink(url="mqtts://h", cert_file=both, key_file=key))


def test_check_names_every_open_secret_of_every_section_once(tmp_path: Path) -> None:
    open_to_all = tmp_path / "open"
    open_to_all.write_text("0123456789abcdef-a-token")
    open_to_all.chmod(0o644)
    at = f'"{open_to_all}"'
    config = parse(
        f'site = "s"\nedge = "e"\nstate_dir = "{tmp_path}"\n'
        f'[mqtt]\nurl = "mqtts://h"\nusername = "u"\npassword_file = {at}\nkey_file = {at}\n'
        f"[influx]\ntoken_file = {at}\npassword_file = {at}\n"
        f"[page]\ntoken_file = {at}\ncert_file = {at}\nkey_file = {at}\n"
        f'[[sources]]\nname = "a"\ntype = "mqtt"\npassword_file = {at}\nkey_file = {at}\n'
        f'[[sources]]\nname = "b"\ntype = "zmq"\nurl = "tcp://h:1"\nsecret_key_file = {at}\n'
    )
    with pytest.raises(ConfigError) as wrong:
        _check_files(config)
    useless = unused(config)
    assert len(useless) == 4
    assert [p for p in wrong.value.problems if p in useless] == useless
    shared = [p for p in wrong.value.problems if p not in useless]
    keys = [p.partition(": ")[0] for p in shared]
    assert sorted(keys) == [
        "influx.password_file", "influx.token_file", "mqtt.key_file", "mqtt.password_file", "page.key_file",
        "page.token_file", "sources[0].key_file", "sources[0].password_file", "sources[1].secret_key_file",
    ]  # fmt: skip
    assert all("has mode 0644" in p and f"`chmod 600 {open_to_all}`" in p for p in shared)


DUMPABLE = """
import ctypes, sys
from pathlib import Path
from fisher_agent import app
from fisher_agent.errors import ConfigError
try:
    app.run(Path(sys.argv[1]))
except ConfigError as error:
    print(error)
print("dumpable", ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))
"""


@pytest.mark.parametrize(("level", "dumpable"), [("info", 0), ("debug", 1)])
def test_the_daemon_leaves_no_core_dump_unless_it_is_debugged(tmp_path: Path, level: str, dumpable: int) -> None:
    config = tmp_path / "config.toml"
    missing = f'[influx]\ntoken_file = "{tmp_path}/none"'  # the start ends where the first secret would be read
    config.write_text(f'site = "s"\nedge = "e"\nstate_dir = "{tmp_path}/state"\n{missing}\n[log]\nlevel = "{level}"\n')
    done = subprocess.run([sys.executable, "-c", DUMPABLE, config], capture_output=True, text=True, check=False)
    assert "influx.token_file" in done.stdout, done.stderr
    assert done.stdout.splitlines()[-1] == f"dumpable {dumpable}"
