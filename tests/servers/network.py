"""Two network namespaces of Linux: an edge box and the switch before it, which can lose packets without a word."""

import itertools
import os
import shutil
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from typing import Self

import pytest

from servers.process import find_binary

# RFC 2544's addresses, of no plant, sixteen for each process that tests: here - switch - box, and name servers.
_OURS = int(ip_address("198.18.0.0")) + os.getpid() % 8192 * 16
HERE, SWITCH_HERE, SWITCH_BOX, BOX = (str(ip_address(_OURS + n)) for n in (1, 2, 5, 6))
PREFIX = 30
NET_OF_BOX = f"{ip_address(_OURS + 4)}/30"
NET_OF_NAMES = f"{ip_address(_OURS + 8)}/29"
NAME_SERVERS = [str(ip_address(_OURS + n)) for n in (9, 10, 11)]  # nobody: the box asks them and hears nothing
SETTINGS = Path("/etc/netns")  # what `ip netns exec` shows instead of /etc (ip-netns(8))
FORWARDS = "echo 1 >/proc/sys/net/ipv4/ip_forward"
_NUMBERS = itertools.count()


class Network:
    """`with Network() as plant:` what is started with `plant.inside` is on the box and reaches this one at `HERE`.

    The box resolves no name, and takes minutes to know that.
    """

    def __init__(self) -> None:
        number = f"{os.getpid()}-{next(_NUMBERS)}"  # what was there before may take a moment to vanish
        self._switch, self._box = f"fisher-switch-{number}", f"fisher-box-{number}"
        self._settings = SETTINGS / self._box
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
        _remove_old()
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
        with suppress(OSError):  # others' lie there
            SETTINGS.rmdir()

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
        _ip("netns", "exec", self._switch, "sh", "-c", FORWARDS)
        _ip("-n", self._box, "route", "add", "default", "via", SWITCH_BOX)
        _ip("route", "add", NET_OF_BOX, "via", SWITCH_HERE)
        _ip("-n", self._switch, "route", "add", "blackhole", NET_OF_NAMES)
        self._settings.mkdir(parents=True)
        servers = "".join(f"nameserver {address}\n" for address in NAME_SERVERS)
        (self._settings / "resolv.conf").write_text(f"{servers}options timeout:10 attempts:3\n")
        if Path("/etc/nsswitch.conf").exists():  # a resolver of this box's would answer over its socket
            (self._settings / "nsswitch.conf").write_text("hosts: files dns\n")


def refused() -> str | None:
    """Why no network can be built here; None where it can."""
    steps = f"ip link add name here type veth peer name there && ip route add blackhole 198.18.0.0/29 && {FORWARDS}"
    done = subprocess.run(
        ["unshare", "--net", "--mount", "sh", "-c", f"ip link set lo up && {steps}"],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == 0 and not os.access("/etc", os.W_OK):
        return "/etc is read-only"
    return done.stderr.strip() or f"exit {done.returncode}" if done.returncode else None


def _remove_old() -> None:
    """What tests left behind that were killed."""
    for folder in Path("/run/netns").glob("fisher-*-*-*"):
        if not Path("/proc", folder.name.split("-")[2]).exists():
            _ip("netns", "del", folder.name, fails=True)  # and with it the ends that lead into it
            shutil.rmtree(SETTINGS / folder.name, ignore_errors=True)


def _ip(*arguments: str, fails: bool = False) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode and not fails:
        pytest.fail(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
