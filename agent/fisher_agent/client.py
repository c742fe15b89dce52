"""The command line's side of the control socket: ask the running daemon, or say that none runs."""

import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fisher_agent.config import Config
from fisher_agent.control import RUN_DIR, SOCKET
from fisher_agent.errors import BadFile, ConfigError, FisherError, NotLearnt, Unavailable

CONNECT_S = 5.0
SEE = "See `journalctl -u fisher-agent`"
Progress = Callable[[int, int], None]


def _socket_of(config: Config) -> Path:
    """Where the daemon listens; it chose by what its own user may write, which may be more or less than ours."""
    if config.control_socket is not None:
        return config.control_socket
    service = config.state_dir == Config.model_fields["state_dir"].default
    places = [RUN_DIR / SOCKET] * service + [config.state_dir / SOCKET]
    return next((p for p in places if os.access(p, os.F_OK)), places[-1])


def daemon_answers(config: Config) -> bool:
    """Whether a daemon listens on this configuration's control socket."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(CONNECT_S)
        try:
            probe.connect(str(_socket_of(config)))
        except PermissionError as error:
            raise Unavailable(
                f"the daemon's control socket {_socket_of(config)} may not be used by this user; "
                "run as root or as a member of its group"
            ) from error
        except OSError:
            return False
    return True


def ask(
    config: Config, verb: str, *, progress: Progress | None = None, timeout_s: float | None = None, **arguments: Any
) -> Any:
    """Send one request and wait for its result, at most so long for each line; raises the error that it reports."""
    with socket.socket(socket.AF_UNIX) as channel:
        channel.settimeout(timeout_s)
        try:
            channel.connect(str(_socket_of(config)))
        except OSError as error:
            raise Unavailable(f"no daemon answers on {_socket_of(config)}: {error}") from error
        try:
            channel.sendall(json.dumps({"verb": verb, **arguments}).encode() + b"\n")
            with channel.makefile("rb") as lines:
                for line in lines:
                    answer = json.loads(line)
                    if "progress" in answer:
                        if progress:
                            progress(*answer["progress"])
                    elif answer["ok"]:
                        return answer["result"]
                    else:
                        raise _error(answer)
        except TimeoutError as error:
            raise Unavailable(f"the daemon does not answer within {timeout_s:g} s; is it stuck? {SEE}") from error
    raise Unavailable("the daemon ended before it answered; see its journal")


def _error(answer: dict[str, Any]) -> FisherError:
    kinds: dict[int, type[FisherError]] = {1: NotLearnt, 2: ConfigError, 3: Unavailable}
    return kinds.get(answer["exit"], BadFile)(answer["error"])
