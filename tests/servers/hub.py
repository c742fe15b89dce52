"""A model hub on a free loopback port: as much of the Hugging Face protocol as the real client's download asks for."""

import hashlib
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, Self
from urllib.parse import unquote, urlsplit

COMMIT = "5e1f" * 10


class Hub:
    """`with Hub("owner/name", {"config.json": b"{}"}) as hub: run(..., env=hub.environment(tmp_path))`."""

    def __init__(self, repository: str, files: dict[str, bytes], *, branches: tuple[str, ...] = ("main",)) -> None:
        self.repository, self.files, self.branches = repository, files, branches
        self.lost: set[str] = set()  # files that are listed, and then are not there
        self.asked_for: list[str] = []  # files whose bytes were sent, in order
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, name="hub")

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def environment(self, home: Path) -> dict[str, str]:
        """What makes the client talk to this hub and keep its cache in `home`."""
        return {"HF_ENDPOINT": self.url, "HF_HOME": str(home), "HF_HUB_DISABLE_TELEMETRY": "1"}

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body."""
        parts = [unquote(part) for part in urlsplit(path).path.strip("/").split("/")]
        of_api = parts[:2] == ["api", "models"]
        owner, name, what, revision, *rest = (parts[2:] if of_api else parts) + [""] * 4
        if f"{owner}/{name}" != self.repository:
            return _error("RepoNotFound")
        if revision not in (COMMIT, *self.branches):
            return _error("RevisionNotFound")
        file = "/".join(part for part in rest if part)
        if of_api and what == "revision":
            return _json({"id": self.repository, "sha": COMMIT, "siblings": [{"rfilename": f} for f in self.files]})
        if of_api and what == "tree":
            return _json([
                {"type": "file", "path": f, "size": len(raw), "oid": hashlib.sha1(raw).hexdigest()}
                for f, raw in self.files.items()
            ])  # fmt: skip
        if what != "resolve" or file not in self.files.keys() - self.lost:
            return _error("EntryNotFound")
        raw = self.files[file]
        return 200, {"ETag": f'"{hashlib.sha1(raw).hexdigest()}"', "X-Repo-Commit": COMMIT}, raw

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self._send(with_body=False)

            def do_GET(self) -> None:
                self._send(with_body=True)

            def _send(self, *, with_body: bool) -> None:
                status, headers, body = hub.answer(self.path)
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                if with_body:
                    if "/resolve/" in self.path and status == 200:
                        hub.asked_for.append(self.path.rpartition("/")[2])
                    self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                """Nothing on the terminal."""

        return Handler


def _json(values: object) -> tuple[int, dict[str, str], bytes]:
    return 200, {"Content-Type": "application/json"}, json.dumps(values).encode()


def _error(code: str) -> tuple[int, dict[str, str], bytes]:
    return 404, {"X-Error-Code": code, "X-Error-Message": code}, b""
