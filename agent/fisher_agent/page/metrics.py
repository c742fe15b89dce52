"""What Prometheus is told: the running agent as families of metrics, by base units and bounded labels.

Labels are names of the configuration (machines, channels, links) and words of fixed lists (reasons, kinds): no topic,
version or occurrence, so that the number of series follows from the configuration alone. Digest and versions stand in
the two `_info` metrics, one series each.
"""

import asyncio
import platform
import resource
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path

from fisher_agent.bankset import BankSet
from fisher_agent.lifecycle import Inhibit
from fisher_agent.live import LiveMachine
from fisher_agent.outbox import Counters, Queue
from fisher_agent.page.exposition import Family, Sample, counter, gauge
from fisher_agent.runtime import Agent
from fisher_agent.service import rss_bytes

NS = 1e-9
OPEN_FILES, THREADS = Path("/proc/self/fd"), Path("/proc/self/task")
QUEUES: tuple[Queue, ...] = ("influx", "mqtt")


def families(agent: Agent, queues: Mapping[str, Counters]) -> list[Family]:
    """Everything; `queues` are the counters of the outbox, empty while the disk refuses to tell them."""
    return [*_process(agent), *_windows(agent), *_input(agent), *_outbox(queues), *_machines(agent), *_alarms(agent)]


def _process(agent: Agent) -> Iterator[Family]:
    model, health = agent.engine.model, agent.health()
    build = {"version": version("fisher-agent"), "python": platform.python_version()}
    served = {
        "backend": model.backend, "precision": model.precision, "device": model.device, "bundle": model.bundle,
        "digest": model.digest, "weights": model.weights,
    }  # fmt: skip
    yield gauge("fisher_build_info", "What is installed; always 1.", (build, 1))
    yield gauge("fisher_model_info", "What embeds now; always 1.", (served, 1))
    yield gauge(
        "fisher_backend_fallback", "1 while another backend serves than the one configured.", _one(health["fallback"])
    )
    yield gauge("fisher_uptime_seconds", "Since the start.", _one(health["uptime_s"]))
    yield counter("process_cpu_seconds_total", "CPU time of all threads, user and system.", _one(time.process_time()))
    yield gauge("process_resident_memory_bytes", "Resident memory.", _one(rss_bytes()))
    yield gauge("process_open_fds", "Open file descriptors.", _one(sum(1 for _ in OPEN_FILES.iterdir())))
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    yield gauge("process_max_fds", "How many file descriptors may be open.", _one(most))
    yield gauge("process_threads", "Threads, native ones too.", _one(sum(1 for _ in THREADS.iterdir())))
    yield gauge("fisher_tasks", "Tasks of the event loop.", _one(len(asyncio.all_tasks())))
    links = agent.links.up
    yield gauge(
        "fisher_link_up",
        "Whether a link (a source, influx, plant, commands, page) is connected.",
        *[({"link": name}, float(up)) for name, up in links.items()],
    )
    # "link influx", "bank mill-01", "store 0": the first word is of a fixed list, what follows need not be.
    kinds = Counter(what.partition(" ")[0] for what in agent.degradations())
    yield gauge("fisher_degraded", "1 while anything is not as it should be.", _one(bool(kinds)))
    yield gauge(
        "fisher_degradations",
        "How many things are not as they should be, by kind; `fisher-agent status` says them in words.",
        *[({"kind": kind}, n) for kind, n in sorted(kinds.items())],
    )


def _windows(agent: Agent) -> Iterator[Family]:
    _, balance = agent.account.balance(agent.machines.values())
    yield counter("fisher_windows_made_total", "Windows cut from the samples.", _one(balance["made"]))
    yield counter("fisher_windows_judged_total", "Windows that were embedded and compared.", _one(balance["embedded"]))
    yield counter(
        "fisher_windows_skipped_total", "Windows that needed no embedding, such as of a machine that stands.",
        _one(balance["skipped"]),
    )  # fmt: skip
    yield counter(
        "fisher_windows_dropped_total", "Windows that came too late or found no room.", _one(balance["dropped"])
    )
    yield gauge("fisher_windows_waiting", "Windows that wait to be judged.", _one(balance["waiting"]))
    yield gauge("fisher_backlog_bytes", "Memory that waiting windows take.", _one(agent.waiting.backlog.nbytes))
    p95_s = float(agent.health()["p95_ms"]) / 1000
    yield gauge("fisher_window_latency_p95_seconds", "From complete to judged, of the last 512 moments.", _one(p95_s))


def _input(agent: Agent) -> Iterator[Family]:
    channels = [(m, c.id) for m in agent.machines.values() for c in m.config.channels]
    rejected: Counter[tuple[str, str, str]] = Counter()
    for key, n in agent.stats.by_key("rejected").items():
        label, colon, reason = key.rpartition(":")
        machine, _, channel = label.partition("/")
        known = (live := agent.machines.get(machine)) is not None and live.hears(channel)
        if colon:  # without one: points that the database refused, which the outbox counts
            rejected[(machine, channel, reason) if known else ("", "", reason)] += n
    yield counter(
        "fisher_messages_rejected_total",
        "Messages that did not parse, by reason; machine and channel are empty for topics that several channels share.",
        *[({"machine": m, "channel": c, "reason": r}, n) for (m, c, r), n in sorted(rejected.items())],
    )
    dropped = agent.stats.by_key("source_dropped")
    yield counter(
        "fisher_source_dropped_total",
        "Messages that a source dropped because they came faster than they were read.",
        *[({"source": s.name}, dropped.get(s.name, 0)) for s in agent.config.sources],
    )
    heard = {live.config.id: live.inputs() for live in agent.machines.values()}
    for name, key, text in (
        ("fisher_channel_gaps_total", "gaps", "Holes in the samples of a channel."),
        ("fisher_channel_late_total", "late", "Blocks of samples that came too late to be used."),
    ):
        yield counter(name, text, *[(_of(m, c), float(heard[m.config.id][c][key])) for m, c in channels])
    yield gauge(
        "fisher_channel_status_code",
        "What is known of a channel's input: 0 ok, 1 stale, 2 flat, 3 clipped, 4 gap, 5 rate-mismatch, 6 noisy, "
        "7 stuck, 8 unplugged, 9 clock-drift.",
        *[(_of(m, c), m.status(c).code) for m, c in channels],
    )
    yield gauge(
        "fisher_channel_clock_offset_seconds",
        "The sensor's clock less this box's.",
        *[(_of(m, c), float(heard[m.config.id][c]["clock_offset_ms"]) / 1000) for m, c in channels],
    )


def _outbox(queues: Mapping[str, Counters]) -> Iterator[Family]:
    def each(field: str) -> list[Sample]:
        return [({"queue": queue}, getattr(counters, field)) for queue, counters in queues.items()]

    yield gauge("fisher_outbox_rows", "What waits on disk for the database and the broker.", *each("held"))
    yield gauge("fisher_outbox_bytes", "Bytes of what waits on disk.", *each("bytes"))
    for field, text in (
        ("added", "Rows ever put into a queue, over the life of the state database."),
        ("written", "Rows delivered."),
        ("rejected", "Rows that the other side will never take."),
        ("evicted", "Rows lost because the outbox was full."),
    ):
        yield counter(f"fisher_outbox_{field}_total", text, *each(field))


def _machines(agent: Agent) -> Iterator[Family]:
    now_s = time.monotonic()
    machines = list(agent.machines.values())
    judges = agent.pipeline.judges
    banks = {m.config.id: j.bank for m in machines if (j := judges.get(m.config.id)) is not None}
    scored = [(m, m.verdict.score) for m in machines if m.verdict is not None and m.verdict.scored]
    yield gauge(
        "fisher_machine_level",
        "-1 unknown, 0 normal, 1 advisory, 2 alarm, 3 severe.",
        *[(_of(m), m.level(mono_s=now_s)) for m in machines],
    )
    yield gauge(
        "fisher_machine_score",
        "The latest score, as a ratio of the limit; absent where the latest window was not scored.",
        *[(_of(m), score) for m, score in scored],
    )
    yield gauge(
        "fisher_machine_running",
        "Whether the machine ran in the latest window.",
        *[(_of(m), float(m.verdict is not None and m.verdict.running)) for m in machines],
    )
    yield gauge(
        "fisher_machine_enrolled",
        "Whether there is a bank to judge by.",
        *[(_of(m), float(banks.get(m.config.id) is not None)) for m in machines],
    )
    yield counter(
        "fisher_machine_verdicts_total", "Verdicts, scored or not.", *[(_of(m), m.verdicts) for m in machines]
    )
    yield gauge(
        "fisher_machine_judged_timestamp_seconds",
        "Event time of the latest verdict, since 1970.",
        *[(_of(m), m.judged_ns * NS) for m in machines if m.judged_ns],
    )
    yield gauge(
        "fisher_bank_created_timestamp_seconds",
        "When the bank that judges was made, since 1970; its age is time() less this.",
        *[(_of(m), b.created_ns * NS) for m in machines if isinstance(b := banks.get(m.config.id), BankSet)],
    )


def _alarms(agent: Agent) -> Iterator[Family]:
    every = {m.config.id: m.alarms.alarms for m in agent.machines.values()}
    for name, text, counted in (
        ("active", "Alarms whose condition holds, shown or not.", lambda a: a.active),
        ("unacknowledged", "Alarms that call an operator.", lambda a: a.waiting),
        ("shelved", "Alarms put aside for some time.", lambda a: a.has(Inhibit.SHELVED)),
    ):
        found = {machine: sum(map(counted, alarms)) for machine, alarms in every.items()}
        yield gauge(f"fisher_alarms_{name}", text, *[({"machine": m}, n) for m, n in found.items()])


def _one(value: object) -> Sample:
    assert isinstance(value, int | float)
    return {}, value


def _of(machine: LiveMachine, channel: str | None = None) -> dict[str, str]:
    where = {"machine": machine.config.id}
    return where if channel is None else {**where, "channel": channel}
