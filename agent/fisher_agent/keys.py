"""`fisher-agent keys`: a CURVE key pair for a ZeroMQ link, in Z85 (zmq_curve_keypair(3)), as the sources read it."""

import os
import re
from pathlib import Path

import zmq

from fisher_agent.errors import ConfigError, Unavailable

NAME = re.compile(r"[A-Za-z0-9_-]{1,48}")


def write_pair(folder: Path, name: str) -> tuple[Path, Path]:
    """Make NAME.key, which its owner alone may read, and NAME.pub; returns both. Neither is ever overwritten."""
    if not NAME.fullmatch(name):
        raise ConfigError(f"{name!r} must be 1 to 48 of A-Z a-z 0-9 _ -; it becomes the name of two files")
    if not zmq.has("curve"):
        raise Unavailable("this libzmq was built without CURVE; install pyzmq from PyPI")
    files = folder / f"{name}.key", folder / f"{name}.pub"
    for file in files:
        if os.path.lexists(file):
            raise ConfigError(f"{file} exists already and is not overwritten; take another name, or move it away")
    public, secret = zmq.curve_keypair()
    try:
        for file, key, mode in zip(files, (secret, public), (0o600, 0o644), strict=True):
            # The mode is there from the first byte on, and O_EXCL follows no link that was laid here meanwhile.
            with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as opened:
                opened.write(key + b"\n")
    except OSError as error:
        raise ConfigError(f"{error.filename}: cannot be written: {error.strerror}") from error
    return files


def lines(files: tuple[Path, Path]) -> list[str]:
    """What to do with them."""
    secret, public = files
    return [
        f"{secret}  the secret key: for this side alone (of the agent: secret_key_file)",
        f"{public}  the public key: for the other side (of an agent that connects to this one: server_key_file)",
    ]
