"""A real systemd, first process of namespaces of its own, in which the agent's unit runs as on a box."""

import grp
import os
import pwd
import re
import shutil
import subprocess
import sys
import sysconfig
import time
import uuid
from pathlib import Path
from typing import Self

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
BOOT = Path(__file__).with_name("systemd.sh")
NAMESPACES = ("--mount", "--uts", "--ipc", "--pid", "--cgroup")
PROGRAM = Path("/opt/fisher-agent/bin/fisher-agent")  # as in the unit and the Debian package
STATE = Path("/var/lib/fisher-agent")
SETTINGS = Path("/etc/fisher-agent")
CONFIG = SETTINGS / "config.toml"
UNIT = "fisher-agent.service"
ACCOUNT = "fisher-agent"
READY_S = 30.0
# The source and the interpreter stand outside of /home, /root and /tmp, which the unit hides.
SOURCES = {"agent": "/opt/source/agent", "models": "/opt/source/models"}
INTERPRETER = Path("/opt/python")
ENTRY = "#!/opt/fisher-agent/bin/python3\nfrom fisher_agent.cli import entry\n\nentry()\n"


def refused() -> str | None:
    """Why no systemd can be started here; None where it can."""
    if _own_cgroup() is None:
        return "no cgroups of version 2"
    tried = subprocess.run(
        ["unshare", *NAMESPACES, "--fork", BOOT, "--try"], capture_output=True, text=True, check=False
    )
    return tried.stderr.strip() or f"exit {tried.returncode}" if tried.returncode else None


class Systemd:
    """`with Systemd(folder) as box:`; the box has this one's network, and nothing that is enabled but the agent's unit.

    Before it boots, `root` may be written to: the state and the configuration of the agent lie there.
    """

    def __init__(self, folder: Path) -> None:
        self.root = folder / "root"
        self._log = folder / "systemd.log"
        cgroup = _own_cgroup()
        assert cgroup is not None
        self._cgroup = cgroup / f"fisher-{uuid.uuid4().hex}"
        self._process: subprocess.Popen[bytes] | None = None
        before = os.umask(0o022)
        self._lay_out()
        os.umask(before)

    def path(self, inside: Path) -> Path:
        """Where a path of the box lies out here."""
        return self.root / inside.relative_to("/")

    def configure(self, text: str) -> None:
        """Write the agent's configuration, which its account may read."""
        path = self.path(CONFIG)
        path.write_text(text)
        os.chown(path, 0, path.parent.stat().st_gid)
        path.chmod(0o640)

    def drop_in(self, name: str, text: str) -> None:
        """Add lines to the agent's unit; a running systemd must be told (`systemctl daemon-reload`)."""
        path = self.path(Path(f"/etc/systemd/system/{UNIT}.d/{name}.conf"))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def run(self, *command: str | Path, timeout_s: float = 120.0) -> subprocess.CompletedProcess[str]:
        """A command inside, as root; returns whatever comes of it."""
        entered = ["nsenter", "--target", str(self._init()), *NAMESPACES, "--", *map(str, command)]
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", **_environment()}
        return subprocess.run(
            entered,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            env=environment,
            check=False,
        )

    def systemctl(self, *arguments: str) -> None:
        """`systemctl ...`; the test fails, with the journal, where it ends with another code than 0."""
        done = self.run("systemctl", *arguments)
        assert done.returncode == 0, f"systemctl {' '.join(arguments)}: {done.stderr}\n{self.journal()}"

    def shows(self, name: str) -> str:
        """A property of the agent's unit, such as MainPID."""
        return self.run("systemctl", "show", "--value", "--property", name, UNIT).stdout.strip()

    def wait_until(self, name: str, *values: str, timeout_s: float = 60.0) -> str:
        """Return when a property has one of the values; fails, with the journal, where it never has."""
        deadline = time.monotonic() + timeout_s
        while (value := self.shows(name)) not in values:
            if time.monotonic() > deadline:
                pytest.fail(f"{name} is {value!r}, never one of {values} within {timeout_s} s:\n{self.journal()}")
            time.sleep(0.2)
        return value

    def journal(self, lines: int = 60) -> str:
        """The end of what the agent's unit and systemd said."""
        return self.run("journalctl", "--no-pager", "--output=cat", f"--lines={lines}").stdout

    def __enter__(self) -> Self:
        if not Path("/lib/systemd/systemd").exists():
            pytest.fail("systemd is missing; install it with `apt-get install systemd`")
        shows = [sys.base_prefix, str(INTERPRETER).lstrip("/"), sysconfig.get_path("purelib"), _packages().lstrip("/")]
        for name, place in SOURCES.items():
            shows += [str(REPOSITORY / name), place.lstrip("/")]
        self._cgroup.mkdir()
        # It dies with this process, and has a cgroup that can be removed after it.
        entered = ["sh", "-c", 'echo $$ >"$0/cgroup.procs" && exec "$@"', str(self._cgroup)]
        started = ["setpriv", "--pdeathsig=KILL", "unshare", *NAMESPACES, "--fork", "--kill-child"]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [*entered, *started, str(BOOT), str(self.root), *shows],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + READY_S
        while not self._up():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.__exit__()
                pytest.fail(f"systemd did not start within {READY_S:g} s:\n{self._log.read_text()[-3000:]}")
            time.sleep(0.1)
        return self

    def __exit__(self, *exc: object) -> None:
        if self._process is not None:
            self._process.kill()  # and with it the first process inside, and all others with that
            self._process.wait()
            self._process = None
        deadline = time.monotonic() + READY_S
        while self._cgroup.exists():
            try:
                for folder in sorted(self._cgroup.glob("**/"), reverse=True):
                    folder.rmdir()
            except OSError:  # something in it has not ended yet
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    @property
    def numbers(self) -> Path:
        """What the box's numbers of processes are known by (pid_namespaces(7))."""
        return Path(f"/proc/{self._init()}/ns/pid").readlink()

    def _up(self) -> bool:
        try:
            return self.run("systemctl", "is-active", "tested.target").stdout.strip() == "active"
        except LookupError:
            return False

    def _init(self) -> int:
        assert self._process is not None, "systemd is not running"
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        if not children:
            raise LookupError
        return int(children[0])

    def _lay_out(self) -> None:
        """What the Debian package puts on a box, with the code from where it is developed."""
        settings, units = self.path(SETTINGS), self.path(Path("/etc/systemd/system"))
        for folder in (settings, units, self.path(STATE), self.path(PROGRAM.parent)):
            folder.mkdir(parents=True)
        for name in ("ld.so.cache", "ld.so.conf", "localtime"):
            if Path("/etc", name).exists():
                shutil.copy(Path("/etc", name), self.path(Path("/etc", name)))
        number = next(n for n in range(999, 100, -1) if not _taken(n))
        accounts = f"{ACCOUNT}:x:{number}:{number}::{STATE}:/usr/sbin/nologin\n"
        self.path(Path("/etc/passwd")).write_text(Path("/etc/passwd").read_text() + accounts)
        self.path(Path("/etc/group")).write_text(Path("/etc/group").read_text() + f"{ACCOUNT}:x:{number}:\n")

        os.chown(settings, 0, number)
        settings.chmod(0o750)
        shutil.copy(REPOSITORY / "deploy" / UNIT, units / UNIT)
        assignments = " ".join(f"{name}={value}" for name, value in _environment().items())
        self.drop_in("source", f"[Service]\nEnvironment={assignments}\n")
        interpreter = INTERPRETER / "bin" / f"python{_version()}"
        self.path(PROGRAM).with_name("python3").symlink_to(interpreter)
        self.path(PROGRAM).write_text(ENTRY)
        self.path(PROGRAM).chmod(0o755)
        self.path(PROGRAM.parent.with_name("pyvenv.cfg")).write_text(
            f"home = {INTERPRETER}/bin\ninclude-system-site-packages = false\n"
        )


def _own_cgroup() -> Path | None:
    """Where this process is among the cgroups of version 2; None where there are none."""
    of_mounts = (line.split() for line in Path("/proc/self/mounts").read_text().splitlines())
    mounted = next((fields[1] for fields in of_mounts if fields[2] == "cgroup2"), None)
    here = re.search("^0::/(.*)$", Path("/proc/self/cgroup").read_text(), re.MULTILINE)
    return Path(mounted, here[1]) if mounted and here else None


def _version() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def _packages() -> str:
    return f"/opt/fisher-agent/lib/python{_version()}/site-packages"


def _environment() -> dict[str, str]:
    """What the agent needs to be found from where it is developed.

    An interpreter that is linked to its own libpython looks for it where it was built. That place is hidden, and
    what it finds instead is Debian's, of another patch release.
    """
    return {"PYTHONPATH": ":".join(SOURCES.values()), "LD_LIBRARY_PATH": f"{INTERPRETER}/lib"}


def _taken(number: int) -> bool:
    return number in {u.pw_uid for u in pwd.getpwall()} | {g.gr_gid for g in grp.getgrall()}
