"""Key pairs for ZeroMQ: who may read them, and that none is ever lost."""

from pathlib import Path

import pytest
import zmq

from fisher_agent.cli import main
from fisher_agent.errors import ConfigError
from fisher_agent.keys import write_pair


def test_a_pair_fits_together_and_its_secret_is_for_its_owner_alone(tmp_path: Path) -> None:
    secret, public = write_pair(tmp_path, "daq")
    assert (secret, public) == (tmp_path / "daq.key", tmp_path / "daq.pub")
    assert secret.stat().st_mode & 0o777 == 0o600
    assert zmq.curve_public(secret.read_bytes().strip()) == public.read_bytes().strip()
    assert write_pair(tmp_path, "other")[0].read_bytes() != secret.read_bytes()


@pytest.mark.parametrize("there", ["daq.key", "daq.pub"])
def test_nothing_is_overwritten_and_no_half_is_left(tmp_path: Path, there: str) -> None:
    (tmp_path / there).write_text("the only one")
    with pytest.raises(ConfigError, match=f"{there} exists already and is not overwritten"):
        write_pair(tmp_path, "daq")
    assert [f.name for f in tmp_path.iterdir()] == [there]
    assert (tmp_path / there).read_text() == "the only one"


def test_a_dangling_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "daq.key").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="exists already"):
        write_pair(tmp_path, "daq")
    assert not (tmp_path / "elsewhere").exists()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere/daq\.key: cannot be written: No such file or directory"):
        write_pair(tmp_path / "nowhere", "daq")


@pytest.mark.parametrize("name", ["", "../daq", "a b", "a/b", "x" * 49])
def test_a_name_is_a_name_and_no_path(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="must be 1 to 48"):
        write_pair(tmp_path, name)


def test_the_command_says_where_they_are_and_shows_no_secret(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["keys", "--out", str(tmp_path), "daq"]) == 0
    said = capsys.readouterr()
    assert f"{tmp_path}/daq.key" in said.out and f"{tmp_path}/daq.pub" in said.out
    assert (tmp_path / "daq.key").read_text().strip() not in said.out + said.err
    assert main(["keys", "--out", str(tmp_path), "daq"]) == 2
    assert "exists already" in capsys.readouterr().err
