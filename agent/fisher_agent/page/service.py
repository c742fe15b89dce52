"""The page inside the daemon: one listening socket, uvicorn in the daemon's own event loop, an end within the drain.

A port that is taken degrades the agent and is tried again (`Links`), as any server that is away; it never ends it.
"""

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Any

import structlog
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from fisher_agent.config import Config
from fisher_agent.credentials import located, private
from fisher_agent.errors import ConfigError, Unavailable
from fisher_agent.page.access import Access
from fisher_agent.page.web import Page
from fisher_agent.pageconfig import PageConfig
from fisher_agent.runtime import Agent
from fisher_agent.tasks import nice

WORK_NICE = 7  # pictures wait for windows, not the other way round
GRACE_S = 1  # an answer that is being sent at the end may take so long
END_S = 1.5  # the drain may have taken 8 of the 10 s that a stop has
MAX_CONNECTIONS = 64
FIRST_REQUEST_S = 10.0
MAX_HEAD = 16_384  # of a request line with its headers
log = structlog.get_logger()


def check(config: Config) -> Access | None:
    """Read what the page needs; ConfigError for a token or TLS files that cannot be used. Connects nothing."""
    page = config.page
    if not page.enabled:
        return None
    if page.tls:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(*_tls_files(page))
        except OSError as error:  # ssl.SSLError is one
            raise ConfigError(f"page: cert_file and key_file cannot be used: {error}") from error
    return Access.of(page, realm=f"{config.site}/{config.edge}")


def url(config: PageConfig) -> str:
    """What to type into a browser on this box."""
    host = config.bind if config.loopback else next(iter(config.hosts), config.bind)
    shown = f"[{host}]" if ":" in host else host
    return f"{'https' if config.tls else 'http'}://{shown}:{config.port}/"


async def serve(agent: Agent) -> None:
    """Show the page until cancelled; returns at once where it is switched off."""
    if agent.config.page.enabled:
        await agent.links.keep("page", partial(_listening, agent.config), partial(_show, agent), has_id=False)


@asynccontextmanager
async def _listening(whole: Config) -> AsyncIterator[tuple[Access | None, socket.socket]]:
    config, access = whole.page, await asyncio.to_thread(check, whole)
    family = socket.AF_INET6 if ":" in config.bind else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((config.bind, config.port))
        listener.listen(MAX_CONNECTIONS)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise Unavailable(
            f"{config.bind} port {config.port} cannot be listened on: {error.strerror}; "
            "free it, or choose another page.port, or set page.enabled = false"
        ) from error
    with listener:
        yield access, listener


async def _show(agent: Agent, opened: tuple[Access | None, socket.socket]) -> None:
    access, listener = opened
    work = ThreadPoolExecutor(1, "page", initializer=partial(nice, WORK_NICE))
    page = Page(agent, access, work=work)
    server = _Server(_settings(agent.config.page, page.app))
    feed = asyncio.create_task(page.feed.run(), name="page feed")
    serving = asyncio.create_task(server.serve([listener]), name="page server")
    log.info("page", url=url(agent.config.page))
    try:
        done, _ = await asyncio.wait([feed, serving], return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
        raise Unavailable("the page's server ended by itself")
    finally:
        page.feed.close()
        server.should_exit = True
        feed.cancel()
        await page.enrolments.close()
        with contextlib.suppress(TimeoutError, asyncio.CancelledError):
            async with asyncio.timeout(END_S):
                await asyncio.gather(serving, return_exceptions=True)
        serving.cancel()
        work.shutdown(wait=False, cancel_futures=True)


def _settings(config: PageConfig, app: Any) -> uvicorn.Config:
    _quiet()
    certificate, key = _tls_files(config) if config.tls else (None, None)
    return uvicorn.Config(
        app,
        http=_Bounded,
        ws="none",
        lifespan="off",
        loop="none",
        interface="asgi3",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # nothing is decided by the peer's address
        timeout_keep_alive=15,
        timeout_graceful_shutdown=GRACE_S,
        limit_concurrency=MAX_CONNECTIONS,
        h11_max_incomplete_event_size=MAX_HEAD,
        ssl_certfile=certificate,
        ssl_keyfile=key,
    )


def _tls_files(config: PageConfig) -> tuple[str, str]:
    """Where certificate and key lie, of a page with TLS."""
    assert config.cert_file is not None and config.key_file is not None
    return str(located("page.cert_file", config.cert_file)), str(private("page.key_file", config.key_file))


class _Server(uvicorn.Server):
    """The daemon handles signals; uvicorn must not."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave them alone."""
        yield


class _Bounded(H11Protocol):
    """Connections that ask nothing are closed, and so are those beyond the bound: sensors need file handles, too."""

    _silent: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > MAX_CONNECTIONS:
            transport.abort()
        else:
            self._silent = self.loop.call_later(FIRST_REQUEST_S, self._still_silent)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._silent is not None:
            self._silent.cancel()
        super().connection_lost(exc)

    def _still_silent(self) -> None:
        if self.cycle is None:  # set with the first whole request
            self.transport.abort()


class _Defects(logging.Handler):
    """What uvicorn reports at level ERROR is a defect of ours; it goes to the log as one line."""

    def emit(self, record: logging.LogRecord) -> None:
        """One line."""
        kind, error = (record.exc_info or (None, None))[:2]
        log.error("page_failed", message=record.getMessage(), error=f"{kind.__name__}: {error}" if kind else None)


def _quiet() -> None:
    logger = logging.getLogger("uvicorn.error")
    logger.setLevel(logging.ERROR)
    logger.propagate = False
    if not any(isinstance(handler, _Defects) for handler in logger.handlers):
        logger.addHandler(_Defects())
