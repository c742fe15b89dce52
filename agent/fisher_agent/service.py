"""systemd's notify protocol (sd_notify(3)): READY, WATCHDOG, STATUS, STOPPING over a datagram socket."""

import os
import socket
from pathlib import Path


class Systemd:
    """Speaks to the service manager, or to nobody where the process was not started by one."""

    def __init__(self) -> None:
        self._address = os.environ.get("NOTIFY_SOCKET", "")
        usec = os.environ.get("WATCHDOG_USEC", "")
        self.watchdog_s = int(usec) / 1e6 if usec.isdigit() else 0.0

    def tell(self, *lines: str) -> None:
        """Send assignments such as `READY=1`. A service manager that is gone is no reason to stop working."""
        if not self._address:
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
                channel.setblocking(False)
                channel.sendto("\n".join(lines).encode(), address)
        except OSError:
            return


def rss_bytes() -> int:
    """Resident memory of this process, from /proc (proc(5), statm)."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
