"""What `--help` says beside each command's own words: an example of every command, and what many options share."""

EXAMPLES = {
    "run": "fisher-agent run --config /etc/fisher-agent/config.toml",
    "check": "fisher-agent check --connect --seconds 30",
    "doctor": "fisher-agent doctor --out /tmp/press-hall.tar.gz",
    "init": "fisher-agent init --output config.toml",
    "enroll": "fisher-agent enroll --machine press-07 --duration 10m",
    "score": "fisher-agent score --machine press-07 monday.wav --channel vib-de=monday.wav",
    "replay": "fisher-agent replay --machine press-07 monday.wav --to mqtt --prefix test",
    "machines": "fisher-agent machines",
    "status": "fisher-agent status --json",
    "alarms": "fisher-agent alarms",
    "topics": "fisher-agent topics --json",
    "banks": "fisher-agent banks rebuild --machine press-07",
    "captures": "fisher-agent captures --machine press-07",
    "rollback": "fisher-agent rollback --machine press-07 --dry-run",
    "confirm": "fisher-agent confirm --machine press-07 --false-alarm 12 --by kim",
    "forget": "fisher-agent forget --machine press-07",
    "ack": "fisher-agent ack --machine press-07 --occurrence 12 --comment 'bearing ordered'",
    "shelve": "fisher-agent shelve --machine press-07 --for 8h --comment 'cleaning'",
    "unshelve": "fisher-agent unshelve --machine press-07",
    "suppress": "fisher-agent suppress --machine press-07 --alarm sensor-vib-de --comment 'cable ordered'",
    "unsuppress": "fisher-agent unsuppress --machine press-07 --alarm sensor-vib-de",
    "out-of-service": "fisher-agent out-of-service --machine press-07 --comment 'overhaul'",
    "in-service": "fisher-agent in-service --machine press-07",
    "build-engine": "fisher-agent build-engine",
    "keys": "fisher-agent keys --out /etc/fisher-agent agent",
    "demo": "fisher-agent demo --once",
    "bench": "fisher-agent bench",
}
SHARED = {
    "--json": "print one JSON document and nothing else",
    "--machine": "the id of a machine in the configuration",
    "--by": "who asks for it",
}
"""Option -> its help, where a command gives it no other."""
EXIT_CODES = "exit codes: 0 done, 1 failed while running, 2 configuration or usage, 3 unavailable, 130 interrupted"
