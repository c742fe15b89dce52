"""This process as the box sees it: systemd's notify protocol (sd_notify(3)) over a datagram socket, and its memory."""

import ctypes
import os
import socket
import time
from contextlib import suppress
from pathlib import Path

import structlog

STALLED_S = 20.0  # a backlog that does not shrink for this long: stop feeding the watchdog
GIVE_UP_S = 60.0  # systemd has acted by then; where nobody watches over us we end by ourselves
GAVE_UP = 1  # the exit code
SEEN_S = 2.0  # between two looks: more was not seen
MMAP_THRESHOLD, TRIM_THRESHOLD, ARENA_MAX = -3, -1, -8  # <malloc.h>
PR_SET_DUMPABLE = 4  # <linux/prctl.h>
HEAP = {MMAP_THRESHOLD: 1 << 20, TRIM_THRESHOLD: 8 << 20, ARENA_MAX: 2}
log = structlog.get_logger()


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


class Progress:
    """Whether the thread that computes gets on. A native call that hangs cannot be cancelled, only ended with all."""

    def __init__(self, systemd: Systemd) -> None:
        self._systemd = systemd
        self._made_s = self._told_s = time.monotonic()

    def made(self) -> float:
        """A batch is done, or there is nothing to do. Returns the time (monotonic)."""
        self._made_s = time.monotonic()
        return self._made_s

    def tell(self, *lines: str, waiting: bool) -> None:
        """Once a second: feed the watchdog, unless work waits and none is done; after a minute of that, end.

        Only what is seen second by second counts: after a pause of the box, or of the disk that the caller waited for,
        nobody knows what the thread could have done meanwhile.
        A container's engine, or a start by hand, has no watchdog: there an agent that hangs would look alive for ever.
        """
        now_s = time.monotonic()
        self._made_s = max(self._made_s + max(0.0, now_s - self._told_s - SEEN_S), now_s if not waiting else 0.0)
        self._told_s = now_s
        stalled_s = now_s - self._made_s
        if stalled_s < STALLED_S:
            self._systemd.tell("WATCHDOG=1", *lines)
        elif stalled_s > GIVE_UP_S:
            log.critical("stalled", seconds=round(stalled_s), meaning="the model does not answer; the agent ends")
            os._exit(GAVE_UP)


def rss_bytes() -> int:
    """Resident memory of this process, from /proc (proc(5), statm)."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def keep_heap_small() -> None:
    """Fix glibc's allocator thresholds (mallopt(3)); does nothing where the C library has none (musl).

    Left alone, glibc raises its mmap threshold to the largest block ever freed, so that after one enrolment the arrays
    of every window come from the heap and fragment it: 460 MB against 290 MB with 16 channels of 25.6 kHz.
    """
    with suppress(AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        for option, value in HEAP.items():
            mallopt(option, value)


def give_back_heap() -> None:
    """Return to the system whatever is free in the heap (malloc_trim(3)); does nothing where the C library cannot.

    glibc by itself returns only what lies above the last block in use: one small block that stays behind after a
    capture kept 12 MB of a soak's agent for good. It takes milliseconds, for which nothing else can allocate.
    """
    with suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def keep_memory_private() -> None:
    """No core dump of this process, and no debugger but root's (prctl(2), PR_SET_DUMPABLE): its memory holds secrets.

    What it starts is dumpable again, and holds none. The watchdog and the notify socket do not depend on it.
    """
    with suppress(AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
