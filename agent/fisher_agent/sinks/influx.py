"""Writes line protocol over HTTP: influxdb-client (without its batching mode) for v2, a small writer for v1.

One call is one batch and one honest answer: everything stored but what is named in `Rejected`, or Unavailable and the
caller keeps the batch. Writing a batch again is harmless, for a point's series and time identify it.

    2xx                        written
    413                        the batch is halved, and later ones are sent in pieces of that size
    400, 422, "partial write"  bisected; a single line that is still refused is rejected
    401, 403, 404              Unavailable, naming what to change
    429, 503                   Unavailable, with the server's Retry-After
    anything else              Unavailable
"""

import asyncio
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Literal, Self, TypeVar
from urllib.parse import urlencode

import urllib3
from influxdb_client import InfluxDBClient, WritePrecision
from influxdb_client.client.write_api import SYNCHRONOUS
from influxdb_client.rest import ApiException

from fisher_agent.config import InfluxConfig
from fisher_agent.credentials import authority, secret, tls_remedy
from fisher_agent.errors import ConfigError, Unavailable
from fisher_agent.stages import Rejected

Api = Literal["v1", "v2"]
MAX_RETRY_AFTER_S = 3600.0
MAX_LINES = 10_000  # of one request
# What a server answers with 400 although the lines are sound: the configuration is wrong, and no line may pay for it.
MISCONFIGURED = re.compile(r"database is required|retention policy not found|orgID or org|organization .*not found")
LINE_FAULT = re.compile(r"partial write|unable to parse")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server said."""

    status: int
    body: str = ""
    retry_after: str = ""

    @property
    def written(self) -> bool:
        """Whether everything was taken."""
        return 200 <= self.status < 300

    @property
    def refused(self) -> bool:
        """Whether lines of the batch are at fault; InfluxDB 1.x answers some partial writes with 500."""
        if LINE_FAULT.search(self.body):
            return self.status in (400, 422, 500)
        return self.status in (400, 422) and not MISCONFIGURED.search(self.body)

    @property
    def dropped(self) -> int:
        """How many lines a partial write says were not stored; 0 where it does not count them."""
        found = re.search(r"partial write: .*\bdropped=(\d+)", self.body, re.DOTALL)
        return int(found[1]) if found else 0

    def __str__(self) -> str:
        text = " ".join(self.body.split())[:300]
        return f"{self.status} {text}".strip()


class InfluxSink:
    """`async with InfluxSink(config) as sink: rejected = await sink.write(lines)`. Entering finds out which API to use.

    Requests run in a thread, one at a time; each is bounded by `timeout_s`.
    """

    def __init__(self, config: InfluxConfig) -> None:
        self._config = config
        self._api: Api | None = None
        self._connection: _Connection | None = None
        self._max_lines = MAX_LINES
        # What is missing is found before anything runs.
        credentials(config)
        authority("influx.ca_file", config.ca_file)

    @property
    def api(self) -> Api | None:
        """The API in use; None before the first connection."""
        return self._api

    async def __aenter__(self) -> Self:
        try:
            self._connection = _Connection(self._config, credentials(self._config))
        except ConfigError as error:
            # It was there at the start. Ending for good now would leave the machines unwatched.
            raise Unavailable(str(error)) from error
        try:
            self._api = await self._in_thread(self._connection.choose_api)
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *exc: object) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    async def write(self, batch: Sequence[str]) -> Rejected:
        """Store the lines, oldest first; returns those that the server will never take. Unavailable: keep them all."""
        if self._connection is None or self._api is None:
            raise Unavailable(f"not connected to {self._config.url}")
        send = self._connection.write_v2 if self._api == "v2" else self._connection.write_v1
        bad: dict[int, str] = {}
        parts = [range(at, min(at + self._max_lines, len(batch))) for at in range(0, len(batch), self._max_lines)]
        parts.reverse()
        while parts:
            part = parts.pop()
            body = "\n".join(batch[part.start : part.stop]).encode()
            answer = await self._in_thread(partial(send, body))
            if answer.written:
                continue
            if answer.status == 413:
                self._max_lines = max(1, min(self._max_lines, len(part) // 2))
            elif not answer.refused:
                raise Unavailable(self._explained(answer), retry_after_s=_seconds(answer))
            if len(part) == 1 or answer.dropped >= len(part):
                bad.update(dict.fromkeys(part, str(answer)))
            else:
                half = len(part) // 2
                parts += [part[half:], part[:half]]
        return Rejected(tuple(sorted(bad)), bad[min(bad)] if bad else "")

    async def _in_thread(self, call: Callable[[], T]) -> T:
        """Run a blocking request. Its own timeout applies to each read, so a dribbling server meets a second one."""
        try:
            async with asyncio.timeout(2 * self._config.timeout_s):
                return await asyncio.to_thread(call)
        except (urllib3.exceptions.HTTPError, OSError, TimeoutError, UnicodeDecodeError) as error:
            raise Unavailable(
                f"{self._config.url} does not answer: {str(error) or type(error).__name__}{tls_remedy(error)}"
            ) from error

    def _explained(self, answer: Answer) -> str:
        where = f"bucket {self._config.bucket!r} at {self._config.url}"
        hint = {
            401: "check token_file, or username and password_file, of [influx]",
            403: "the token may not write there; give it write permission, or [influx] another token_file",
            404: "create it (on InfluxDB 1.x with CREATE DATABASE), or correct bucket and org of [influx]",
        }.get(answer.status)
        if hint is None and MISCONFIGURED.search(answer.body):
            hint = "correct bucket and org of [influx]"
        return f"{where} answered {answer}" + (f"; {hint}" if hint else "")


class _Connection:
    """The blocking half: one HTTP pool, and influxdb-client for the v2 API. Raises urllib3's errors and OSError."""

    def __init__(self, config: InfluxConfig, secret_text: str) -> None:
        self._config = config
        self._url = config.url.rstrip("/")
        ca_file = authority("influx.ca_file", config.ca_file)
        headers = authorization(secret_text)
        timeout = urllib3.Timeout(total=config.timeout_s)
        self._pool = urllib3.PoolManager(timeout=timeout, retries=False, ca_certs=ca_file, headers=headers)
        self._client = InfluxDBClient(
            self._url, secret_text, org=config.org, timeout=round(config.timeout_s * 1000), ssl_ca_cert=ca_file
        )
        self._v2 = self._client.write_api(write_options=SYNCHRONOUS)

    def close(self) -> None:
        self._client.close()
        self._pool.clear()

    def choose_api(self) -> Api:
        """Which write path there is. Even where it is configured, one request proves that the server answers."""
        self._pool.request("GET", f"{self._url}/ping", redirect=False)
        if self._config.api != "auto":
            return self._config.api
        # An empty batch stores nothing; InfluxDB before 1.8 answers it with a plain 404, for it has no such path, while
        # a missing bucket is a 404 with a JSON document.
        answer = self._post("/api/v2/write", {"org": self._config.org, "bucket": self._config.bucket}, b"")
        if answer.status == 429 or answer.status >= 500:
            raise Unavailable(f"{self._url} is not ready, it answered {answer}", retry_after_s=_seconds(answer))
        return "v1" if answer.status in (404, 405) and '"code"' not in answer.body else "v2"

    def write_v1(self, body: bytes) -> Answer:
        """POST /write; `bucket` is `database` or `database/retention`."""
        database, _, retention = self._config.bucket.partition("/")
        query = {"db": database, "precision": "ms", **({"rp": retention} if retention else {})}
        return self._post("/write", query, body)

    def write_v2(self, body: bytes) -> Answer:
        """POST /api/v2/write, by the client's synchronous API."""
        try:
            self._v2.write(self._config.bucket, self._config.org, body, write_precision=WritePrecision.MS)
        except ApiException as error:
            if not error.status:  # the client's way to say that TLS failed
                raise OSError(error.reason) from error
            headers = error.headers or {}
            return Answer(error.status, str(error.body or ""), headers.get("Retry-After", ""))
        return Answer(204)

    def _post(self, path: str, query: dict[str, str], body: bytes) -> Answer:
        url = f"{self._url}{path}?{urlencode(query)}"
        reply = self._pool.request("POST", url, body=body, redirect=False)
        return Answer(reply.status, reply.data.decode(errors="replace"), reply.headers.get("Retry-After", ""))


def credentials(config: InfluxConfig) -> str:
    """A token, `user:password`, or "" where none is configured; ConfigError where a file cannot be read."""
    if config.username is None:
        return secret("influx.token_file", config.token_file) or ""
    return f"{config.username}:{secret('influx.password_file', config.password_file) or ''}"


def authorization(secret_text: str) -> dict[str, str]:
    """The header that proves who asks; none without credentials."""
    if not secret_text:
        return {}
    if ":" in secret_text:
        return dict(urllib3.make_headers(basic_auth=secret_text))
    return {"Authorization": f"Token {secret_text}"}


def _seconds(answer: Answer) -> float | None:
    """Retry-After, in either of its forms (RFC 9110, 10.2.3); None where there is none that can be read."""
    text = answer.retry_after.strip()
    if text.isascii() and text.isdigit():
        return min(float(text), MAX_RETRY_AFTER_S)
    try:
        wait_s = (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds()
    except (ValueError, TypeError):
        return None
    return min(max(wait_s, 0.0), MAX_RETRY_AFTER_S)
