"""What surrounds the agent in a plant: images, compose.yaml, provisioning. Names that two files share are the same."""

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from fisher_agent.configfile import parse

DEPLOY = Path(__file__).parents[2] / "deploy"
DOCKER = DEPLOY / "docker"
COMPOSE: dict[str, Any] = yaml.safe_load((DOCKER / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
DOCKERFILES = sorted(DOCKER.glob("Dockerfile*[!e]"))
DASHBOARDS = sorted((DEPLOY / "grafana").glob("*.json"))


SERVICE_UID = re.search(r"^USER (\d+):", (DOCKER / "Dockerfile").read_text(), re.MULTILINE)[1]  # type: ignore[index]


def test_compose_has_the_four_parts() -> None:
    assert SERVICES.keys() == {"agent", "broker", "influxdb", "grafana"}


def test_the_agent_of_compose_may_do_little() -> None:
    agent = SERVICES["agent"]
    assert agent["read_only"] is True
    assert agent["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in agent["security_opt"]
    assert "agent:/var/lib/fisher-agent" in agent["volumes"]  # or it forgets its banks with its container


@pytest.mark.parametrize("name", [n for n in SERVICES if n != "agent"])
def test_every_other_part_is_asked_whether_it_is_well(name: str) -> None:
    assert SERVICES[name]["healthcheck"]["test"][0] == "CMD"


@pytest.mark.parametrize("name", SERVICES)
def test_a_part_mounts_files_that_exist_and_declared_volumes_and_secrets(name: str) -> None:
    for mount in SERVICES[name]["volumes"]:
        source = mount.split(":")[0]
        if source.startswith("."):
            assert (DOCKER / source).exists(), mount
        else:
            assert source in COMPOSE["volumes"]
    assert set(SERVICES[name].get("secrets", ())) <= COMPOSE["secrets"].keys()


def test_nothing_listens_beyond_this_box_unless_asked() -> None:
    for name, service in SERVICES.items():
        for port in service.get("ports", ()):
            assert port.startswith(("127.0.0.1:", "${FISHER_LISTEN:-127.0.0.1}:")), f"{name}: {port}"


def test_every_secret_is_made_by_the_script() -> None:
    script = (DOCKER / "secrets.sh").read_text()
    for name, where in COMPOSE["secrets"].items():
        assert where["file"] == f"./secrets/{name}"
        assert name in script


def test_the_agent_of_compose_knows_its_broker_and_its_database() -> None:
    text = (DOCKER / "agent.toml").read_text()
    config = parse(text)
    environment = SERVICES["influxdb"]["environment"]
    assert config.influx is not None
    assert config.influx.org == environment["DOCKER_INFLUXDB_INIT_ORG"]
    assert config.influx.bucket == environment["DOCKER_INFLUXDB_INIT_BUCKET"]
    secrets = {line.split('"/run/secrets/')[1].rstrip('"') for line in text.splitlines() if "/run/secrets/" in line}
    assert secrets == set(SERVICES["agent"]["secrets"])
    # The agent refuses what others may read, and those of the other containers are readable by all.
    assert all(name.startswith("agent_") for name in secrets)
    script = (DOCKER / "secrets.sh").read_text()
    assert f"agent={SERVICE_UID}\n" in script and "install -m 0600" in script
    users = set(re.findall(r"^user (\S+)", (DEPLOY / "mosquitto" / "acl.example").read_text(), re.MULTILINE))
    assert {tomllib.loads(text)["mqtt"]["username"], tomllib.loads(text)["sources"][0]["username"]} <= users
    assert f"for user in {' '.join(sorted(users))}; do" in (DOCKER / "secrets.sh").read_text()


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda p: p.name)
def test_an_image_runs_without_rights_and_is_asked_whether_it_is_well(path: Path) -> None:
    last = path.read_text().split("\nFROM ")[-1]
    assert re.search(r"^USER 970:970$", last, re.MULTILINE)
    assert re.search(r"^HEALTHCHECK .*\"fisher-agent\", \"status\"", last, re.MULTILINE)
    assert re.search(r"^VOLUME /var/lib/fisher-agent$", last, re.MULTILINE)
    assert "--require-hashes" in path.read_text()


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda p: p.name)
def test_an_image_copies_what_its_context_has(path: Path) -> None:
    ignored = path.with_name(path.name + ".dockerignore").read_text().splitlines()
    for line in re.findall(r"^COPY (?!--)(.*)", path.read_text(), re.MULTILINE):
        for source in line.split()[:-1]:
            assert (DEPLOY.parent / source).exists()
            assert f"!{source}" in ignored


def test_grafana_is_told_where_its_data_and_its_dashboards_are() -> None:
    (source,) = yaml.safe_load((DOCKER / "grafana/datasources/influxdb.yaml").read_text())["datasources"]
    (provider,) = yaml.safe_load((DOCKER / "grafana/dashboards/fisher.yaml").read_text())["providers"]
    assert f"../grafana:{provider['options']['path']}:ro" in SERVICES["grafana"]["volumes"]
    assert source["jsonData"]["organization"] == SERVICES["influxdb"]["environment"]["DOCKER_INFLUXDB_INIT_ORG"]
    home = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert Path(home).name in {d.name for d in DASHBOARDS}
    for path in DASHBOARDS:
        for panel in json.loads(path.read_text())["panels"]:
            assert {panel["datasource"]["uid"], *(t["datasource"]["uid"] for t in panel["targets"])} == {source["uid"]}
