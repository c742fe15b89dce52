"""From what was gathered to what is wrong, by symptom, and what mends it. Pure: it reads no clock and no file.

Every rule looks at one part and passes over parts that are missing; deploy/docs/troubleshooting.md has the same
symptoms at more length.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from fisher_agent.codes import Status

LOW_DISK = 0.05
FULL_OUTBOX = 0.5
MANY_RESTARTS = 5
MANY_DROPPED = 1
SLOW_SHARE = 1.0  # of the hop: windows that take longer than one hop from complete to judged are falling behind
Parts = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Advice:
    """A symptom, what shows it here, and what to do."""

    symptom: str
    found: str
    remedy: str


DEGRADED = {
    "link": (
        "a connection does not work",
        "`fisher-agent check --connect` tries every connection and says what each answers",
    ),
    "bank": ("a bank cannot be used", "the message names the command; until then the machine is not judged"),
    "broker": ("the broker refuses topics", "allow them in its ACL (deploy/mosquitto/acl.example)"),
    "state": ("the state cannot be written", "free space on the disk of state_dir, and check that it is writable"),
    "captures": ("captures cannot be written", "free space on the disk of state_dir, or lower capture.max_mb"),
    "backend": ("another backend serves", "the message says why; until it is mended the CPU serves"),
    "clock-unset": ("the clock is not set", "`timedatectl` shows it; set up NTP, points are held until then"),
    "store": ("the state was repaired", "what is lost is named; look at the disk (`dmesg`, SMART)"),
}
SENSOR = {
    Status.STALE: "nothing arrives: is the sensor powered, its topic right? `fisher-agent check --connect` listens",
    Status.RATE_MISMATCH: "set rate_hz to what is measured: `fisher-agent check --connect`",
    Status.GAP: "samples are lost on the way: look at the network and at the sender's buffers",
    Status.CLOCK_DRIFT: "give the sender NTP, or use clock = 'arrival'",
}
LOOK_AT_SENSOR = "look at the sensor and its cable; README.md, Sensors, says what the word means"


def advise(parts: Parts, problems: Mapping[str, str]) -> list[Advice]:
    """What is wrong, the gravest first; `problems` says why parts are missing."""
    return [
        *_configuration(parts.get("config", {})),
        *_files(parts.get("files", {})),
        *_life(parts, problems),
        *_database(parts.get("database", {})),
        *_disk(parts.get("state", {})),
        *_clock(parts.get("clock", {})),
        *_degraded(parts),
        *_machines(parts),
        *_load(parts),
        *_banks(parts),
        *_processor(parts.get("machine", {})),
    ]


def _configuration(config: Mapping[str, Any]) -> Iterator[Advice]:
    for problem in config.get("problems", ()):
        yield Advice("configuration", problem, "correct it; `fisher-agent check` names every mistake at once")


def _files(files: Mapping[str, Any]) -> Iterator[Advice]:
    for key, seen in files.items():
        if "problem" in seen or not seen["readable"]:
            why = seen.get("problem", "this user may not read it")
            yield Advice("file", f"{key}: {why}", "correct the path, or `chown fisher-agent` the file")
        public = key.endswith(("ca_file", "cert_file", "server_key_file", "public_key_file"))
        if not public and int(str(seen.get("mode", "0")), 8) & 0o007:
            remedy = "`chmod o-rwx` it; a secret is for the agent's user and group alone"
            yield Advice("secret", f"{key} may be used by every account of the box (mode {seen['mode']})", remedy)


def _life(parts: Parts, problems: Mapping[str, str]) -> Iterator[Advice]:
    unit = parts.get("unit", {})
    if "daemon" in problems:
        why = problems["daemon"]
        if "may not be used by this user" in why:
            yield Advice("no access", why, "run it again with sudo")
        elif parts.get("config", {}).get("document"):
            shows = "`systemctl status fisher-agent` and `journalctl -u fisher-agent -n 50` show why; start it"
            yield Advice("daemon", why, shows)
    restarts = str(unit.get("NRestarts", "0"))
    if restarts.isdigit() and int(restarts) >= MANY_RESTARTS:
        yield Advice(
            "restarts",
            f"the service was restarted {restarts} times",
            "`journalctl -u fisher-agent` shows what ended it",
        )


def _database(database: Mapping[str, Any]) -> Iterator[Advice]:
    version, known = database.get("version", 0), database.get("known", 0)
    if version > known:
        found = f"the state is of a newer fisher-agent (version {version}, this one knows {known})"
        yield Advice("state", found, "install that version again, or put back the copy that the upgrade left beside it")
    rejected = {k: n for k, n in database.get("counters", {}).items() if k.endswith(" rejected") and n}
    for queue, n in rejected.items():
        yield Advice(
            "rejected", f"{n} rows of the queue {queue.partition(' ')[0]} were refused for good",
            "database.json, quarantine, says by what reason",
        )  # fmt: skip
    if n := database.get("counters", {}).get("influx evicted", 0):
        remedy = "bring the database back, or raise outbox.max_mb"
        yield Advice("outbox", f"{n} points were lost because the outbox was full", remedy)


def _disk(state: Mapping[str, Any]) -> Iterator[Advice]:
    for what in ("disk", "inodes"):
        free, total = state.get(f"{what}_free", 1), state.get(f"{what}_total", 1)
        if total and free / total < LOW_DISK:
            yield Advice(
                "disk full",
                f"{free / total:.1%} of the {what} of state_dir is free",
                "make room; capture.max_mb and outbox.max_mb bound what the agent keeps",
            )
    if damaged := state.get("damaged"):
        yield Advice(
            "damage", f"a damaged database was set aside {len(damaged)} times",
            "power cuts on a worn disk do this: look at the disk (`dmesg`, SMART)",
        )  # fmt: skip


def _clock(clock: Mapping[str, Any]) -> Iterator[Advice]:
    if clock.get("unset"):
        yield Advice("clock", "the clock is before the release was built; points are held", "set up NTP")
    elif clock.get("timedatectl", {}).get("NTPSynchronized") == "no":
        yield Advice("clock", "the clock is not synchronized", "`timedatectl set-ntp true`, or name a time server")


def _degraded(parts: Parts) -> Iterator[Advice]:
    for what, why in _status(parts).get("degraded", {}).items():
        symptom, remedy = DEGRADED.get(what.partition(" ")[0], ("degraded", "see `fisher-agent status`"))
        yield Advice(f"{symptom} ({what})", why, remedy)


def _machines(parts: Parts) -> Iterator[Advice]:
    status = _status(parts)
    for name, machine in status.get("machines", {}).items():
        if not machine["enrolled"] and f"bank {name}" not in status.get("degraded", {}):
            yield Advice("no score", f"{name} is not enrolled", f"`fisher-agent enroll --machine {name}`")
        for channel, word in machine["channels"].items():
            if word != Status.OK:
                yield Advice("sensor", f"{name}/{channel} is {word}", SENSOR.get(word, LOOK_AT_SENSOR))
        if machine.get("drift_text"):
            yield Advice("drift", f"{name}: {machine['drift_text']}", f"`fisher-agent enroll --machine {name}`")


def _load(parts: Parts) -> Iterator[Advice]:
    status = _status(parts)
    hop_s = parts.get("config", {}).get("document", {}).get("window", {}).get("hop_s", 2.5)
    if status.get("dropped", 0) >= MANY_DROPPED:
        yield Advice(
            "high load", f"{status['dropped']} windows or messages were dropped",
            "`fisher-agent bench` says what this box can carry; a longer window.hop_s halves the work",
        )  # fmt: skip
    elif isinstance(hop_s, int | float) and status.get("p95_ms", 0) > SLOW_SHARE * hop_s * 1000:
        found = f"windows wait {status['p95_ms']:.0f} ms (p95), more than one hop"
        yield Advice("high load", found, "`fisher-agent bench` says what this box can carry")
    if n := status.get("rejected", 0):
        yield Advice("rejected", f"{n} messages did not parse", "`fisher-agent check --connect` guesses what they are")
    held = status.get("outbox_bytes", 0)
    limit = parts.get("config", {}).get("document", {}).get("outbox", {}).get("max_mb", 512.0)
    if isinstance(limit, int | float) and held > FULL_OUTBOX * limit * 1e6:
        found = f"{held / 1e6:.0f} MB wait in the outbox, of {limit:g}"
        yield Advice("outbox grows", found, "bring the database back before the oldest points are lost")


def _banks(parts: Parts) -> Iterator[Advice]:
    """With a daemon its own words say the same; this is for one that does not run."""
    digest = parts.get("bundle", {}).get("digest")
    for row in () if _status(parts) else parts.get("banks", ()):
        for version in row["versions"]:
            made_for = version.get("bundle_digest", digest)
            if version["version"] == row.get("active") and digest and made_for != digest:
                yield Advice(
                    "another model", f"the bank of {row['machine']} was made for another bundle",
                    "`fisher-agent banks rebuild`, or start the daemon: it rebuilds from the kept waveforms",
                )  # fmt: skip
    for row in parts.get("banks", ()):
        if "problem" in row:
            yield Advice("bank", row["problem"], f"`fisher-agent rollback --machine {row['machine']}`")


def _processor(machine: Mapping[str, Any]) -> Iterator[Advice]:
    flags = machine.get("cpu", {}).get("flags", "").split()
    if flags and "avx2" not in flags:
        yield Advice("slow processor", "it has no AVX2", "expect a fraction of the channels: `fisher-agent bench`")


def _status(parts: Parts) -> Mapping[str, Any]:
    found: Mapping[str, Any] = parts.get("daemon", {}).get("status", {})
    return found
