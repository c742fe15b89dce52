"""What the packages are made of: the lock, the control file, the scripts that run as root."""

import re
import subprocess
import tomllib
from importlib.metadata import requires, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from fisher_agent.configfile import parse
from fisher_agent.errors import ConfigError

ROOT = Path(__file__).parents[2]
DEBIAN = ROOT / "deploy" / "debian"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
SCRIPTS = sorted(
    [
        *(DEBIAN / name for name in ("postinst", "prerm", "postrm")),
        *(ROOT / "tools").glob("*.sh"),
        *(ROOT / "deploy").rglob("*.sh"),
        *(ROOT / "tests").rglob("*.sh"),
    ]
)


def locked(name: str) -> dict[Requirement, str]:
    """Every pin of a lock, with the lines of its hashes."""
    text = re.sub(r"^ *#.*\n", "", (ROOT / "deploy" / name).read_text(), flags=re.MULTILINE)
    return {Requirement(entry.split(" \\\n")[0]): entry for entry in re.split(r"\n(?=\S)", text.strip())}


def control() -> dict[str, str]:
    lines = (DEBIAN / "control").read_text().splitlines()
    return dict(line.split(": ", 1) for line in lines if not line.startswith(" "))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_shell_script_is_sound(script: Path) -> None:
    for checker in (["sh", "-n"], ["shellcheck", "--external-sources", "--source-path=SCRIPTDIR/.."]):
        done = subprocess.run([*checker, str(script)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("script", [s for s in SCRIPTS if s.name != "platform.sh"], ids=lambda path: path.name)
def test_a_shell_script_stops_at_the_first_error(script: Path) -> None:
    assert re.search(r"^set -eu?$", script.read_text(), re.MULTILINE)


@pytest.mark.parametrize("name", ["requirements.lock", "pip.lock"])
def test_every_pin_of_a_lock_is_one_version_with_hashes(name: str) -> None:
    for requirement, entry in locked(name).items():
        assert [s.operator for s in requirement.specifier] == ["=="], entry
        assert re.search(r"--hash=sha256:[0-9a-f]{64}\b", entry), entry


def test_the_lock_satisfies_what_the_agent_asks_for() -> None:
    pins = {r.name: r for r in locked("requirements.lock") if r.marker is None or r.marker.evaluate()}
    for wanted in map(Requirement, PROJECT["dependencies"]):
        (pin,) = pins[wanted.name].specifier
        assert wanted.specifier.contains(pin.version), f"{wanted} is locked to {pin.version}: run `make lock`"


def test_the_lock_holds_what_the_dependencies_need_in_turn() -> None:
    pins = {r.name for r in locked("requirements.lock") if r.marker is None or r.marker.evaluate()}
    for name in pins:
        for needed in map(Requirement, requires(name) or ()):
            if needed.marker is None or needed.marker.evaluate({"extra": ""}):
                locked_as = re.sub(r"[-_.]+", "-", needed.name).lower()
                assert locked_as in pins, f"{name} needs {needed}, which is not locked: run `make lock`"


def test_the_control_file_has_what_dpkg_requires() -> None:
    fields = control()
    assert fields["Package"] == PROJECT["name"]
    assert {"Version", "Architecture", "Maintainer", "Description"} <= fields.keys()
    for name in ("Description", "Maintainer"):
        assert len(fields[name]) < 80
    # Byte code and shared libraries fit one version of Python only.
    assert "python3 (>= @PYTHON@~), python3 (<< @NEXT_PYTHON@~)" in fields["Depends"]
    assert "libc6 (>= @GLIBC@)" in fields["Depends"]


def test_every_placeholder_of_the_templates_is_filled_in() -> None:
    for template, filler in (
        (DEBIAN / "control", ROOT / "tools" / "build_deb.sh"),
        (ROOT / "deploy" / "wheelhouse" / "install.sh", ROOT / "tools" / "wheelhouse.sh"),
    ):
        for placeholder in set(re.findall(r"@[A-Z_]+@", template.read_text())):
            assert f"s/{placeholder}/" in filler.read_text(), f"{filler.name} does not fill in {placeholder}"


def test_the_unwritten_configuration_of_the_package_starts_nothing() -> None:
    with pytest.raises(ConfigError) as refused:
        parse((DEBIAN / "config.toml").read_text())
    assert refused.value.problems == ("site: is required and missing", "edge: is required and missing")


def test_the_unit_names_paths_that_the_package_has() -> None:
    unit = (ROOT / "deploy" / "fisher-agent.service").read_text()
    assert "ExecStart=/opt/fisher-agent/bin/fisher-agent run --config /etc/fisher-agent/config.toml" in unit
    assert "User=fisher-agent" in unit
    assert "RestartPreventExitStatus=2" in unit  # or an unwritten configuration would be tried for ever


def test_the_release_is_the_one_of_the_project() -> None:
    assert version("fisher-agent") == PROJECT["version"]
