"""What is shipped to be copied is valid, and complete."""

import configparser
import json
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from fisher_agent import config as models
from fisher_agent.configfile import parse
from servers.process import find_binary

DEPLOY = Path(__file__).parents[2] / "deploy"
SHIPPED = DEPLOY / "fisher-agent.toml"
SECTIONS: dict[str, list[type[BaseModel]]] = {
    "": [models.Config],
    "model": [models.ModelConfig],
    "window": [models.WindowConfig],
    "mqtt": [models.MqttConfig],
    "influx": [models.InfluxConfig],
    "sources": [models.MqttSource, models.ZmqSource],
    "machines": [models.MachineConfig],
    "machines.channels": [models.ChannelConfig],
    "machines.alarm": [models.AlarmConfig],
    "machines.bearings": [models.BearingConfig],
    "machines.mode": [models.ModeConfig],
    "machines.defaults": [],
    "enroll": [models.EnrollConfig],
    "outbox": [models.OutboxConfig],
    "backlog": [models.BacklogConfig],
    "capture": [models.CaptureConfig],
    "page": [models.PageConfig],
    "log": [models.LogConfig],
}
TABLES = {"model", "window", "mqtt", "influx", "sources", "machines", "enroll", "outbox", "backlog", "page", "log"} | {
    "channels",
    "alarm",
    "bearings",
    "capture",
    "mode",
}
NO_TABLES = {"machines.channels": {"capture"}, "machines.bearings": {"channels"}}  # keys that bear a table's name


def keys() -> list[tuple[str, str, str, bool]]:
    """(section, key, value as written, whether it is commented out) of every line."""
    section, found = "", []
    for line in SHIPPED.read_text().splitlines():
        if match := re.match(r"(?:# )?\[+([a-z.]+)\]+(?: |$)", line):
            section = match[1]
        elif match := re.match(r"(# )?([a-z0-9_]+) = (.*)", line):
            found.append((section, match[2], match[3], bool(match[1])))
    return found


def test_the_shipped_configuration_is_valid() -> None:
    config = parse(SHIPPED.read_text())
    assert [c.id for c in config.machine("press-07").channels] == ["vib-de", "current"]


def test_every_model_of_the_configuration_has_a_section() -> None:
    bases = {models.Strict, models.MqttLink}  # never a section of their own
    defined = {m for m in vars(models).values() if isinstance(m, type) and issubclass(m, models.Strict)} - bases
    assert {m for section in SECTIONS.values() for m in section} == defined


@pytest.mark.parametrize("section", SECTIONS)
def test_every_key_stands_in_the_shipped_configuration(section: str) -> None:
    written = {key for where, key, _, _ in keys() if where == section}
    tables = TABLES - NO_TABLES.get(section, set())
    expected = {field for model in SECTIONS[section] for field in model.model_fields} - tables
    assert written == expected


def test_a_commented_key_shows_its_default() -> None:
    checked = 0
    for section, key, text, commented in keys():
        value: Any = tomllib.loads(f"value = {text}")["value"]
        for model in SECTIONS[section] if commented else ():
            field = model.model_fields.get(key)
            if field is None or field.default is None or field.is_required():
                continue
            default = field.default
            shown = (
                list(default) if isinstance(default, tuple) else str(default) if isinstance(default, Path) else default
            )
            assert value == shown, f"[{section}] {key}"
            checked += 1
    assert checked > 30


def test_init_writes_the_shipped_configuration() -> None:
    packaged = Path(models.__file__).with_name("fisher-agent.toml")
    assert packaged.read_text() == SHIPPED.read_text()


UNIT = DEPLOY / "fisher-agent.service"


def test_the_unit_restarts_for_ever_but_not_a_wrong_configuration() -> None:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[method-assign,assignment]
    unit.read_string(UNIT.read_text())
    service = unit["Service"]
    assert (service["Type"], service["NotifyAccess"], service["WatchdogSec"]) == ("notify", "main", "30")
    assert (service["Restart"], service["RestartSec"], service["RestartPreventExitStatus"]) == ("always", "5", "2")
    assert unit["Unit"]["StartLimitIntervalSec"] == "0"
    assert float(service["TimeoutStopSec"]) > 10  # draining has 10 s
    assert "MemoryDenyWriteExecute" not in service  # OpenVINO compiles kernels at run time


def test_the_unit_lets_the_page_listen() -> None:
    lines = UNIT.read_text().splitlines()
    (families,) = [line for line in lines if line.startswith("RestrictAddressFamilies=")]
    assert {"AF_INET", "AF_INET6"} <= set(families.partition("=")[2].split())
    forbidding = ("PrivateNetwork=", "IPAddressDeny=", "SocketBindDeny=")
    assert not [line for line in lines if line.startswith(forbidding)]
    assert models.PageConfig().port >= 1024, "CapabilityBoundingSet= leaves no right to bind lower ports"


def test_the_unit_is_hardly_exposed() -> None:
    done = subprocess.run(
        [find_binary("systemd-analyze", package="systemd"), "security", "--offline=true", "--no-pager", UNIT],
        capture_output=True,
        text=True,
        check=True,
    )
    found = re.search(r"Overall exposure level for fisher-agent\.service: ([0-9.]+)", done.stdout)
    assert found, done.stdout + done.stderr
    assert float(found[1]) <= 1.5


def test_the_unit_keeps_the_memory_of_the_agent_to_itself() -> None:
    lines = UNIT.read_text().splitlines()
    assert {"LimitCORE=0", "UMask=0027", "KeyringMode=private", "ProtectProc=invisible"} <= set(lines)


def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    text = re.sub(r"^ExecStart=\S+", f"ExecStart={shutil.which('true')}", UNIT.read_text(), flags=re.MULTILINE)
    copy = tmp_path / "fisher-agent.service"
    copy.write_text(text)
    verified = subprocess.run(
        [find_binary("systemd-analyze", package="systemd"), "verify", copy], capture_output=True, text=True, check=False
    )
    complaints = [line for line in verified.stderr.splitlines() if "fisher-agent.service" in line]
    assert not complaints


def flow() -> list[dict[str, Any]]:
    nodes: list[dict[str, Any]] = json.loads((DEPLOY / "node-red" / "flow.json").read_text())
    return nodes


def test_the_node_red_flow_is_of_core_nodes_and_wired_to_what_exists() -> None:
    nodes = flow()
    ids = {node["id"] for node in nodes}
    assert len(ids) == len(nodes)
    core = {"tab", "comment", "mqtt-broker", "mqtt in", "mqtt out", "function", "http in", "http response", "debug"}
    for node in nodes:
        assert node["type"] in core | {"template", "json", "inject"}
        assert {target for output in node.get("wires", []) for target in output} <= ids
        assert node.get("z", "tab") in ids | {"tab"}
        if node["type"].startswith("mqtt "):
            assert node["broker"] in ids


def test_the_node_red_flow_writes_commands_only() -> None:
    (out,) = [node for node in flow() if node["type"] == "mqtt out"]
    assert out["topic"] == ""  # set by the function before it, which knows the machine
    assert out["retain"] == "false"
    functions = " ".join(node["func"] for node in flow() if node["type"] == "function")
    assert re.findall(r"topic: (`.*?`)", functions) == ["`${known.base}/${known.machine}/cmd/ack`"]


def test_the_example_acl_lets_an_hmi_write_commands_only() -> None:
    lines = [line.split() for line in (DEPLOY / "mosquitto" / "acl.example").read_text().splitlines()]
    rules: dict[str, list[list[str]]] = {}
    user = ""
    for words in lines:
        if words[:1] == ["user"]:
            user = words[1]
        elif words[:1] == ["topic"]:
            rules.setdefault(user, []).append(words[1:])
    assert rules["hmi"] == [["read", "fisher/v1/plant1/#"], ["write", "fisher/v1/plant1/+/+/cmd/+"]]
    assert ["read", "plant1/#"] in rules["fisher"]
    assert "" not in rules  # nobody without a name
