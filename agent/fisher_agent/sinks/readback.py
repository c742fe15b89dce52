"""Reads one value back that was just written, by whatever query API the database has and the credentials allow.

Flux           POST /api/v2/query     InfluxDB 2.x, 1.8 where it is switched on
InfluxQL       GET  /query            InfluxDB 1.x, 2.x with a mapping, 3
export         GET  /api/v1/export    VictoriaMetrics
"""

import json
from collections.abc import Callable, Iterable
from urllib.parse import urlencode

import urllib3

from fisher_agent.config import InfluxConfig
from fisher_agent.credentials import authority
from fisher_agent.jsontext import loads
from fisher_agent.sinks.influx import authorization, credentials

REQUEST_S = 5.0
AROUND_S = 3600  # looked at before and after the point's time
APIS = 3
MAX_ANSWER = 1_000_000  # bytes: an hour has a handful of points
LATER = {408, 425, 429, 500}  # not now, of those up to NOT_IMPLEMENTED
NOT_IMPLEMENTED = 501


class ReadBack:
    """Blocking; `close` when done. Looks at the field `value` of a measurement, an hour around a time.

    An API that is not there, or may not be used, is not asked again (`refusals`); one that only failed is (`failures`).
    """

    def __init__(self, config: InfluxConfig) -> None:
        self._config = config
        self._url = config.url.rstrip("/")
        self._pool = urllib3.PoolManager(
            timeout=urllib3.Timeout(total=min(REQUEST_S, config.timeout_s)),
            retries=False,
            ca_certs=authority("influx.ca_file", config.ca_file),
            headers=authorization(credentials(config)),
        )
        self.refusals: dict[str, str] = {}  # API -> why it cannot be asked
        self.failures: dict[str, str] = {}  # API -> why the latest question had no answer

    def close(self) -> None:
        """Close its connections."""
        self._pool.clear()

    def found(self, measurement: str, value: int, *, t_ns: int) -> str:
        """The API by which the value was found; "" where none has it yet, or none answers."""
        ways: tuple[tuple[str, Callable[[str, int], Iterable[object]]], ...] = (
            ("Flux", self._flux),
            ("InfluxQL", self._influxql),
            ("export", self._export),
        )
        self.failures = {}
        for name, ask in ways:
            if name in self.refusals:
                continue
            try:
                if any(_number(seen) == value for seen in ask(measurement, t_ns // 10**9)):
                    return name
            except _Refused as refused:
                self.refusals[name] = str(refused)
            except (ValueError, LookupError, TypeError, AttributeError) as error:
                self.refusals[name] = f"it answers something else ({type(error).__name__})"
            except (urllib3.exceptions.HTTPError, _Failed) as error:
                self.failures[name] = str(error)
        return ""

    @property
    def answers(self) -> bool:
        """Whether any API is left that may be asked."""
        return len(self.refusals) < APIS

    @property
    def answered(self) -> bool:
        """Whether any API answered the latest question."""
        return len(self.refusals.keys() | self.failures.keys()) < APIS

    def _flux(self, measurement: str, t_s: int) -> Iterable[object]:
        # The point's own time, not the server's: a box whose clock is off is no reason to call a database a liar.
        query = (
            f"from(bucket: {json.dumps(self._config.bucket)}) "
            f"|> range(start: {t_s - AROUND_S}, stop: {t_s + AROUND_S}) "
            f'|> filter(fn: (r) => r._measurement == {json.dumps(measurement)} and r._field == "value")'
        )
        body = json.dumps({"query": query, "type": "flux"}).encode()
        headers = {**self._pool.headers, "Content-Type": "application/json", "Accept": "application/csv"}
        path = f"/api/v2/query?{urlencode({'org': self._config.org})}"
        rows = [row.split(",") for row in self._ask("POST", path, body=body, headers=headers).splitlines()]
        if any("error" in row for row in rows[:1]):
            raise _Refused(" ".join(",".join(row) for row in rows[1:2])[:200])
        header = next((row for row in rows if "_value" in row), None)
        if header is None:
            return []
        at = header.index("_value")
        return [row[at] for row in rows if len(row) == len(header) and row is not header]

    def _influxql(self, measurement: str, t_s: int) -> Iterable[object]:
        database, _, retention = self._config.bucket.partition("/")
        table = f'"{retention}"."{measurement}"' if retention else f'"{measurement}"'
        when = f"time > {t_s - AROUND_S}s AND time < {t_s + AROUND_S}s"
        select = f"SELECT value FROM {table} WHERE {when}"  # noqa: S608 (of the user's own configuration)
        query = {"db": database, "q": select, "epoch": "ms"}
        (result,) = loads(self._ask("GET", f"/query?{urlencode(query)}"))["results"]
        if "error" in result:
            raise _Refused(str(result["error"])[:200])
        series = result.get("series", ())
        if any(one.get("name") != measurement for one in series):
            raise _Refused("it does not answer what was asked")  # VictoriaMetrics lists its databases, whatever that is
        return [row[one["columns"].index("value")] for one in series for row in one.get("values", ())]

    def _export(self, measurement: str, t_s: int) -> Iterable[object]:
        match = {
            "match[]": f'{{__name__="{measurement}_value"}}', "start": t_s - AROUND_S, "end": t_s + AROUND_S,
        }  # fmt: skip
        text = self._ask("GET", f"/api/v1/export?{urlencode(match)}")
        return [value for line in text.splitlines() for value in loads(line)["values"]]

    def _ask(self, method: str, path: str, *, body: bytes | None = None, headers: dict[str, str] | None = None) -> str:
        reply = self._pool.request(
            method, self._url + path, body=body, headers=headers, redirect=False, preload_content=False
        )
        try:
            text = reply.read(MAX_ANSWER + 1).decode()
        finally:
            reply.close()
        if len(text) > MAX_ANSWER:
            raise _Refused(f"it answers with more than {MAX_ANSWER} bytes")
        said = f"{reply.status} {' '.join(text.split())[:200]}".strip()
        if reply.status in LATER or reply.status > NOT_IMPLEMENTED:
            raise _Failed(said)
        if reply.status != 200:
            raise _Refused(said)
        return text


class _Refused(Exception):
    """The API is not there, or may not be used."""


class _Failed(Exception):
    """The API cannot answer now."""


def _number(seen: object) -> float | None:
    try:
        return float(str(seen))
    except ValueError:
        return None
