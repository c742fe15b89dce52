"""The composition root: a Config becomes objects here and nowhere else; plus how the daemon is started and stopped."""

import asyncio
import os
import signal
import threading
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import structlog

from fisher_agent import configfile as configuration
from fisher_agent import rebuilding, refining
from fisher_agent.backends import constructor, distance, open_embedder, self_test, trt_engine
from fisher_agent.backends.standby import Standby, open_standby
from fisher_agent.bankfiles import BankFiles
from fisher_agent.banks import BankLibrary, Engine, PastOf
from fisher_agent.canary import watch_database
from fisher_agent.config import Config, SourceConfig
from fisher_agent.control import serve
from fisher_agent.credentials import command_key, unused
from fisher_agent.errors import BadFile, ConfigError, FisherError, Unavailable
from fisher_agent.ledger import Model
from fisher_agent.logs import configure
from fisher_agent.maintenance import watch_maintenance
from fisher_agent.operators import obey
from fisher_agent.page import service as page
from fisher_agent.reload import reload
from fisher_agent.report import Names
from fisher_agent.runtime import Agent, Parts
from fisher_agent.service import keep_heap_small, keep_memory_private
from fisher_agent.signing import Signatures
from fisher_agent.sinks.influx import InfluxSink
from fisher_agent.sinks.mqtt import PlantLink
from fisher_agent.sources import check_topics, open_source, rebind
from fisher_agent.stages import Embedder, Message, Source
from fisher_agent.stats import Stats
from fisher_agent.store import Store
from fisher_agent.tasks import BlockingCalls
from fisher_agent.watching import watch_drift
from fisher_models.bundle import Bundle
from fisher_models.bundle import load as load_bundle
from fisher_models.errors import BundleError
from fisher_models.frontend import Frontend

MB = 1_000_000
KILL_AFTER_S = 10.0  # draining has this long; a blocked native call cannot be cancelled, so the process then just ends
log = structlog.get_logger()


def find_bundle(config: Config) -> Bundle:
    """The configured bundle; ConfigError where it is missing, damaged or not the one, or sees less than a window."""
    try:
        bundle = load_bundle(config.model.bundle, signed_by=config.model.signed_by)
    except BundleError as error:
        raise ConfigError(f"model.bundle: {error}") from error
    if config.model.digest not in (None, bundle.digest):
        raise ConfigError(
            f"model.digest is {config.model.digest}, and {bundle.path} is {bundle.digest}: install the bundle that was "
            "meant, or configure the digest of this one if somebody replaced it on purpose"
        )
    length_s, longest_s = config.window.length_s, bundle.frontend.longest_s
    if length_s > longest_s:
        raise ConfigError(f"window.length_s is {length_s:g}; {bundle.name} sees at most {longest_s:g} s")
    return bundle


def open_engine(config: Config) -> Engine:
    """Load the model and let it prove itself; the calling thread is the one that embeds from now on."""
    bundle = find_bundle(config)
    model, cache = config.model, cache_folder(config)
    embedder, note = open_embedder(
        bundle, backend=model.backend, precision=model.precision, threads=model.threads, cache=cache
    )
    error = self_test(embedder, bundle)
    log.info("self_test", backend=embedder.name, precision=embedder.precision, max_abs_error=float(f"{error:.2g}"))
    return _engine(bundle, embedder, note, distances=distance.kept(cache, bundle, embedder.precision))


def open_serving(config: Config) -> tuple[Engine, Standby | None]:
    """As `open_engine`, for the daemon: where a GPU is configured the CPU serves until it is ready, and after it."""
    if config.model.backend != "tensorrt":
        return open_engine(config), None
    bundle = find_bundle(config)
    standby = open_standby(
        bundle, precision=config.model.precision, threads=config.model.threads, cache=cache_folder(config)
    )
    return _engine(bundle, standby.serving, standby.note, distances=standby.distances), standby


def build_engine(config: Config) -> Path:
    """Build the engine of the configured bundle for this box's GPU, if the cache has none; returns its file."""
    bundle = find_bundle(config)
    trt_engine.check(bundle, config.model.precision if config.model.backend == "tensorrt" else "auto")
    constructor("tensorrt")
    return trt_engine.prepare(bundle, cache=cache_folder(config) / "engines")


def cache_folder(config: Config) -> Path:
    """What was measured or built for this box; it may be deleted at any time."""
    return config.state_dir / "cache"


def _engine(bundle: Bundle, embedder: Embedder, note: str, *, distances: Mapping[str, float]) -> Engine:
    model = Model(bundle.name, bundle.digest, bundle.weights, embedder.name, embedder.precision, embedder.device, note)
    return Engine(bundle, Frontend(bundle.frontend), embedder, model, distances)


def open_store(config: Config) -> Store:
    """Lock and open the state directory."""
    return Store.open(config.state_dir, max_outbox_bytes=round(config.outbox.max_mb * MB))


def bank_files(config: Config) -> BankFiles:
    """The banks on disk; reading them needs no lock, for versions are immutable."""
    return BankFiles(config.state_dir / "banks")


def library(config: Config, *, past: PastOf | None = None) -> BankLibrary:
    """The banks, for commands that run without a daemon."""
    return BankLibrary(config, bank_files(config), open_engine(config), past=past)


def build(config: Config, store: Store) -> Agent:
    """Wire the daemon; nothing connects yet."""
    names, stats = Names.of(config), Stats()
    mqtt, influx = config.mqtt, config.influx

    def plant(role: str, will: Message) -> PlantLink:
        assert mqtt is not None
        return PlantLink(mqtt, client_id=names.client_id(role), will=will)

    def source(wanted: SourceConfig, now: Config) -> Source:
        return open_source(wanted, now, client_id=names.client_id(f"raw-{wanted.name}"), stats=stats)

    key = command_key(mqtt) if mqtt else None
    signatures = Signatures(key, started_s=time.monotonic()) if key else None
    # Constructors check and do not connect: what is wrong with a file or a binding shows here, before any I/O.
    for wanted in config.sources:
        source(wanted, config)
    if mqtt:
        plant("check", Message("check", b""))
    if influx:
        InfluxSink(influx)
    page.check(config)
    return Agent(
        Parts(
            config=config,
            store=store,
            stats=stats,
            banks=bank_files(config),
            open_engine=partial(open_serving, config),
            open_source=source,
            open_influx=partial(InfluxSink, influx) if influx else None,
            open_plant=plant if mqtt else None,
            rebind=rebind,
            obey=partial(obey, signatures=signatures),
            services=(
                serve,
                page.serve,
                watch_maintenance,
                watch_drift,
                watch_database,
                refining.serve,
                rebuilding.serve,
            ),
        )
    )


def run(path: Path) -> None:
    """The daemon: returns after a clean stop; raises a FisherError, whose exit code the command line knows."""
    config = configuration.load(path)
    check_topics(config)
    configure(config.log.level)
    keep_heap_small()
    if config.log.level != "debug":  # who looks for a defect may want a core dump
        keep_memory_private()
    for text in unused(config):  # said, and it runs: what an upgrade learnt to see must not end the watching
        log.warning("configuration", problem=text)
    find_bundle(config)
    store = open_store(config)
    try:
        asyncio.run(_run(config, store, path))
    except (FisherError, ExceptionGroup) as raised:
        # Not `except*`: before Python 3.11.4 (Debian 12 has 3.11.2) what is raised in it comes out wrapped in a group.
        error = _declared(raised)
        if error is None:
            raise
        if isinstance(error, BadFile):
            # The next start sets a damaged database aside; 2 would tell the service manager that there must be none.
            raise Unavailable(str(error)) from raised
        raise error from raised
    finally:
        store.close()


async def _run(config: Config, store: Store, path: Path) -> None:
    agent = build(config, store)
    loop = asyncio.get_running_loop()
    loop.set_default_executor(BlockingCalls())
    # Libraries' callbacks fail with a socket that has just been closed: one line, and the link notices by itself.
    loop.set_exception_handler(
        lambda _, met: log.error("callback", message=met["message"], error=repr(met.get("exception")))
    )

    def stop() -> None:
        log.info("stopping")
        agent.stop()
        killer = threading.Timer(KILL_AFTER_S, os._exit, args=(1,))
        killer.daemon = True
        killer.start()

    hangup = asyncio.Event()

    async def reloads(agent: Agent) -> None:
        """One at a time, and what goes wrong half-way ends the process: no machine may be forgotten silently."""
        while await hangup.wait():
            hangup.clear()
            await reload(agent, path)

    agent.parts.services = (*agent.parts.services, reloads)
    loop.add_signal_handler(signal.SIGHUP, hangup.set)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    await agent.run()


def _declared(raised: FisherError | ExceptionGroup[Exception]) -> FisherError | None:
    """The first of our own errors; None where anything else went wrong too: a defect, which wants its traceback."""
    error: BaseException = raised
    if isinstance(raised, ExceptionGroup) and raised.split(FisherError)[1] is not None:
        return None
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, FisherError)
    return error
