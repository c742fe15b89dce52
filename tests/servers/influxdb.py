"""A real InfluxDB 1.x on a free loopback port, and an independent way to query it."""

import json
import ssl
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from servers.process import ServerProcess, find_binary, free_port

CONFIG = """
reporting-disabled = true
bind-address = "127.0.0.1:{rpc}"
[meta]
dir = "{folder}/meta"
logging-enabled = false
[data]
dir = "{folder}/data"
wal-dir = "{folder}/wal"
query-log-enabled = false
[http]
bind-address = "127.0.0.1:{port}"
log-enabled = false
auth-enabled = {auth}
max-body-size = {max_body}
{https}[monitor]
store-enabled = false
"""


class InfluxDB(ServerProcess):
    """`with InfluxDB(tmp_path) as db: db.query("CREATE DATABASE plant"); ... db.url`."""

    def __init__(
        self,
        folder: Path,
        *,
        port: int | None = None,
        auth: bool = False,
        max_body: int = 25_000_000,
        certificate: Path | None = None,  # with `key`: it speaks https alone
        key: Path | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        port = port or free_port()
        config = folder / "influxdb.conf"
        https = f'https-enabled = true\nhttps-certificate = "{certificate}"\nhttps-private-key = "{key}"\n'
        self._scheme = "https" if certificate else "http"
        config.write_text(
            CONFIG.format(
                folder=folder,
                port=port,
                rpc=free_port(),
                auth=str(auth).lower(),
                max_body=max_body,
                https=https if certificate else "",
            )
        )
        command = [find_binary("influxd", package="influxdb"), "run", "-config", str(config)]
        super().__init__(command, port=port, log=folder / "influxdb.log")

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"{self._scheme}://127.0.0.1:{self.port}"

    def query(
        self, query: str, *, db: str = "", user: str = "", password: str = "", trust: ssl.SSLContext | None = None
    ) -> list[dict[str, Any]]:
        """Run InfluxQL; returns the rows of every series as dictionaries, times in ms."""
        login = "?" + urllib.parse.urlencode({"u": user, "p": password}) if user else ""
        form = urllib.parse.urlencode({"q": query, "db": db, "epoch": "ms"}).encode()
        with urllib.request.urlopen(f"{self.url}/query{login}", form, timeout=10, context=trust) as answer:
            (result,) = json.loads(answer.read())["results"]
        assert "error" not in result, result["error"]
        return [
            {**series.get("tags", {}), **dict(zip(series["columns"], row, strict=True))}
            for series in result.get("series", ())
            for row in series.get("values", ())
        ]
