"""Two network namespaces of Linux: an edge box and the switch before it, which can lose packets without a word."""

import itertools
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import pytest

from servers.process import find_binary

# RFC 2544's addresses, of no plant: here - switch - box.
HERE, SWITCH_HERE, SWITCH_BOX, BOX = "198.18.77.1", "198.18.77.2", "198.18.77.5", "198.18.77.6"
PREFIX = 30
NET_OF_BOX = "198.18.77.4/30"
NAME_SERVERS = ("198.18.78.1", "198.18.78.2", "198.18.78.3")  # nobody: the box asks them and hears nothing
NET_OF_NAMES = "198.18.78.0/24"
_NUMBERS = itertools.count()


class Network:
    """`with Network() as plant:` what is started with `plant.inside` is on the box and reaches this one at `HERE`.

    The box resolves no name; it takes some 10 s to know that.
    """

    def __init__(self) -> None:
        number = f"{os.getpid()}-{next(_NUMBERS)}"  # what was there before may take a moment to vanish
        self._switch, self._box = f"fisher-switch-{number}", f"fisher-box-{number}"
        self._settings = Path("/etc/netns", self._box)  # what `ip netns exec` shows instead of /etc (ip-netns(8))
        self._port = f"fa{number}"  # a network interface has a name of 15 characters at most

    @property
    def inside(self) -> Sequence[str]:
        """What comes before a command that is to run on the box."""
        return ["ip", "netns", "exec", self._box]

    def silent(self) -> None:
        """Packets vanish in both directions; no end is told."""
        for address in (HERE, BOX):
            _ip("-n", self._switch, "route", "add", "blackhole", f"{address}/32")

    def pull(self) -> None:
        """The box's cable is out: its interface has no carrier."""
        _ip("-n", self._switch, "link", "set", "box", "down")

    def mend(self) -> None:
        """Everything passes again."""
        _ip("-n", self._switch, "link", "set", "box", "up")
        for address in (HERE, BOX):
            _ip("-n", self._switch, "route", "del", "blackhole", f"{address}/32", fails=True)

    def __enter__(self) -> Self:
        find_binary("ip", package="iproute2")
        try:
            self._build()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        _ip("link", "del", self._port, fails=True)
        for name in (self._box, self._switch):
            _ip("netns", "del", name, fails=True)
        shutil.rmtree(self._settings, ignore_errors=True)

    def _build(self) -> None:
        for name in (self._switch, self._box):
            _ip("netns", "add", name)
            _ip("-n", name, "link", "set", "lo", "up")
        _ip("link", "add", self._port, "type", "veth", "peer", "name", "here", "netns", self._switch)
        _ip("-n", self._switch, "link", "add", "box", "type", "veth", "peer", "name", "plant", "netns", self._box)
        for ends, interface, address in (
            ((), self._port, HERE),
            (("-n", self._switch), "here", SWITCH_HERE),
            (("-n", self._switch), "box", SWITCH_BOX),
            (("-n", self._box), "plant", BOX),
        ):
            _ip(*ends, "address", "add", f"{address}/{PREFIX}", "dev", interface)
            _ip(*ends, "link", "set", interface, "up")
        _ip("netns", "exec", self._switch, "sysctl", "-qw", "net.ipv4.ip_forward=1")
        _ip("-n", self._box, "route", "add", "default", "via", SWITCH_BOX)
        _ip("route", "add", NET_OF_BOX, "via", SWITCH_HERE)
        _ip("-n", self._switch, "route", "add", "blackhole", NET_OF_NAMES)
        self._settings.mkdir(parents=True)
        servers = "".join(f"nameserver {address}\n" for address in NAME_SERVERS)
        (self._settings / "resolv.conf").write_text(f"{servers}options timeout:2 attempts:1\n")


def refused() -> str | None:
    """Why no namespace can be made here; None where it can."""
    find_binary("ip", package="iproute2")
    done = subprocess.run(["unshare", "--net", "--mount", "true"], capture_output=True, text=True, check=False)
    return done.stderr.strip() or None


def _ip(*arguments: str, fails: bool = False) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode and not fails:
        pytest.fail(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
