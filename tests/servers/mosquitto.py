"""A real mosquitto broker on a free loopback port."""

import subprocess
from collections.abc import Mapping
from pathlib import Path

from servers.process import ServerProcess, find_binary, free_port


class Mosquitto(ServerProcess):
    """`with Mosquitto(tmp_path) as broker: ... broker.url`; see `ServerProcess` for stop, kill, freeze and restart."""

    def __init__(
        self,
        folder: Path,
        *,
        port: int | None = None,
        persistence: bool = False,  # retained messages and sessions survive `restart`
        passwords: Mapping[str, str] | None = None,  # user -> password; without it everybody may connect
        max_queued: int | None = None,  # messages kept for a client that is away or slow
        extra: str = "",  # more lines of mosquitto.conf, such as `certfile`
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        port = port or free_port()
        lines = [
            f"listener {port} 127.0.0.1",
            "user root",  # where tests run as root it would drop to a user that cannot read the test's folder
            f"allow_anonymous {'false' if passwords else 'true'}",
            "log_dest stderr",
            "set_tcp_nodelay true",
        ]
        if persistence:
            lines += ["persistence true", f"persistence_location {folder}/", "autosave_interval 1"]
        if max_queued is not None:
            lines.append(f"max_queued_messages {max_queued}")
        if passwords:
            lines.append(f"password_file {_password_file(folder, passwords)}")
        config = folder / "mosquitto.conf"
        config.write_text("\n".join([*lines, extra]) + "\n")
        binary = find_binary("mosquitto", package="mosquitto")
        super().__init__([binary, "-c", config], port=port, log=folder / "mosquitto.log")

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"mqtt://127.0.0.1:{self.port}"


def _password_file(folder: Path, passwords: Mapping[str, str]) -> Path:
    path = folder / "passwords"
    path.touch(mode=0o600)
    tool = find_binary("mosquitto_passwd", package="mosquitto")
    for user, password in passwords.items():
        subprocess.run([tool, "-b", str(path), user, password], check=True, capture_output=True)
    return path
