"""A real VictoriaMetrics on a free loopback port, and an independent way to read it back."""

import json
import time
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from servers.process import ServerProcess, find_binary, free_port


class VictoriaMetrics(ServerProcess):
    """`with VictoriaMetrics(tmp_path) as db: ... db.url ... db.series('{__name__=~"fisher_.*"}')`."""

    def __init__(self, folder: Path, *, port: int | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        port = port or free_port()
        command = [
            find_binary("victoria-metrics", package="victoria-metrics"),
            f"-storageDataPath={folder}/data",
            f"-httpListenAddr=127.0.0.1:{port}",
            "-retentionPeriod=100y",
            "-dedup.minScrapeInterval=1ms",
            "-search.latencyOffset=0s",
            "-memory.allowedBytes=64MB",
            "-loggerLevel=ERROR",
        ]
        super().__init__(command, port=port, log=folder / "victoria.log")

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def series(self, match: str, *, points: int = 1) -> list[dict[str, Any]]:
        """Every stored series of a selector, once it holds so many points: `metric` (labels), `values`, `timestamps`.

        A point that was answered with 204 becomes visible a moment later, even after a flush; the wait ends after 10 s.
        """
        query = "/api/v1/export?" + urllib.parse.urlencode({"match[]": match})
        deadline = time.monotonic() + 10
        while True:
            self._get("/internal/force_flush")
            found = [json.loads(row) for row in self._get(query).splitlines()]
            if sum(len(series["values"]) for series in found) >= points or time.monotonic() > deadline:
                return found

    def values(self, match: str, *, points: int = 1) -> dict[int, float]:
        """Time in ms -> value, of the only series that matches."""
        (series,) = self.series(match, points=points)
        return dict(zip(series["timestamps"], series["values"], strict=True))

    def _get(self, path: str) -> bytes:
        with urllib.request.urlopen(self.url + path, timeout=10) as answer:
            body: bytes = answer.read()
            return body
