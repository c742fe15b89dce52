"""What reaches a running agent: requests of the page, of the control socket, and commands that change something."""

import asyncio
import json
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import unquote

from fisher_agent import control, operators
from fisher_agent.commands import parse
from fisher_agent.page.access import Access
from fisher_agent.page.web import Page
from fuzz.harness import Opened, Target
from fuzz.mutate import JSON_EDGES, damaged, json_of, mixed
from fuzz.targets.commands import DOCUMENTS, NOW_MS, VERBS
from pageplant import Plant, running_plant, write_capture

MILL = "mill-01"
TOKEN = "0123456789abcdef-of-a-test"
ANSWER_S = 0.3  # what waits longer waits on purpose: for samples, or for the next event
REQUESTS = (
    {"verb": "status"}, {"verb": "alarms"}, {"verb": "banks"}, {"verb": "rebuild", "machine": MILL},
    {"verb": "ack", "machine": MILL, "alarm": "anomaly", "occurrence": 3, "by": "ann", "comment": "seen"},
    {"verb": "shelve", "machine": MILL, "until_ms": NOW_MS + 3_600_000}, {"verb": "unshelve", "machine": MILL},
    {"verb": "enroll", "machine": MILL, "duration_s": 60, "fault": "bearing", "mode": "idle", "dry_run": True},
    {"verb": "enroll", "machine": MILL, "files": ["x.wav"], "rate": 8000, "channels": [["vib", "x.csv", "0"]]},
    {"verb": "rollback", "machine": MILL, "dry_run": True}, {"verb": "accept", "machine": MILL},
    {"verb": "rename", "machine": MILL, "names": {"a": "b"}}, {"verb": "confirm", "machine": MILL, "false_alarm": 3},
    {"verb": "forget", "machine": MILL}, {"verb": "suppress", "machine": MILL},
    {"verb": "out-of-service", "machine": MILL},
)  # fmt: skip
PATHS = (
    "/", "/login", "/static/app.js", "/static/%00", "/static/../web.py", "/static/%2e%2e/web.py", "/api/overview",
    "/api/trends", f"/api/machines/{MILL}/charts?span_s=600&points=10&until=0", f"/api/machines/{MILL}/journal?limit=5",
    f"/api/machines/{MILL}/captures", f"/api/machines/{MILL}/captures/7", f"/api/machines/{MILL}/captures/" + "9" * 70,
    f"/api/machines/{MILL}/captures/7/spectrograms/vib", f"/api/machines/{MILL}/captures/7/waveform/cur",
    f"/api/machines/{MILL}/captures/7/waveform/%00", f"/api/machines/{MILL}/captures/" + "9" * 5000,
    "/api/machines/%00/charts", "/api/machines/..%2f/charts", "/static/" + "a" * 5000, "/static/a%ff", "//", "/%",
)  # fmt: skip
COMMANDS = f"/api/machines/{MILL}/commands"
POSTS = (
    (f"{COMMANDS}/ack", {"occurrence": 3, "by": "ann"}), (f"{COMMANDS}/shelve", {"for_s": 600}),
    (f"{COMMANDS}/maintenance", {"until": NOW_MS}), (f"{COMMANDS}/capture", {}),
    (f"{COMMANDS}/unshelve", {"alarm": "x"}), (f"{COMMANDS}/mode", {"mode": "idle"}),
    (f"/api/machines/{MILL}/enroll", {"duration_s": 60, "mode": "idle", "fault": ""}),
    (f"/api/machines/{MILL}/enroll-stop", {}), ("/api/login", {"token": TOKEN}), ("/api/logout", {}),
)  # fmt: skip
HEADERS = (
    ("host", "127.0.0.1"), ("host", "[::1"), ("host", "a:99999"), ("host", ""), ("origin", "http://127.0.0.1"),
    ("origin", "http://[::1"), ("origin", "null"), ("cookie", "fisher-8080=1.2"), ("cookie", "a=\x00; =;;"),
    ("cookie", "fisher-8080=" + "9" * 5000 + ".x"), ("cookie", 'a="\\377'), ("authorization", f"Bearer {TOKEN}"),
    ("sec-fetch-site", "cross-site"), ("content-type", "application/json"), ("content-type", "text/html"),
    ("x-fisher", "1"), ("range", "bytes=0-0,-1"), ("range", "bytes=9-1"), ("range", "bytes=" + "0-1," * 500),
    ("if-none-match", '"x'), ("if-modified-since", "Sat, 99 Nov"), ("content-length", "-1"),
    ("accept-encoding", "\xff"),
)  # fmt: skip


@contextmanager
def _plant(work: Path) -> Iterator[tuple[Plant, asyncio.AbstractEventLoop]]:
    """A running agent whose loop turns while an input is looked at."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    running = running_plant(work)
    plant = loop.run_until_complete(running.__aenter__())
    write_capture(plant.agent.config.state_dir, MILL, 7)
    loop.run_until_complete(plant.raise_alarm(MILL))
    try:
        yield plant, loop
    finally:
        loop.run_until_complete(running.__aexit__(None, None, None))
        loop.close()


async def _answered(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """What it gives, or None where it goes on waiting. What tasks of ours failed with counts, too."""
    failed: list[BaseException] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(
        lambda _loop, context: failed.append(context.get("exception") or RuntimeError(str(context)))
    )
    try:
        async with asyncio.timeout(ANSWER_S):
            found = await coroutine
    except TimeoutError:
        found = None
    await asyncio.sleep(0)
    if failed:
        raise failed[0]
    return found


class _Writer:
    """The other end of the control socket."""

    def __init__(self) -> None:
        self.sent = b""

    def write(self, data: bytes) -> None:
        self.sent += data

    async def drain(self) -> None: ...

    def close(self) -> None: ...

    async def wait_closed(self) -> None: ...


@contextmanager
def _control(work: Path) -> Iterator[Opened]:
    """One line; the answer must be one JSON object that says whether it was done."""
    with _plant(work) as (plant, loop):

        async def ask(data: bytes) -> None:
            reader, writer = asyncio.StreamReader(limit=control.MAX_REQUEST), _Writer()
            reader.feed_data(data)
            reader.feed_eof()
            session = control._session(plant.agent, reader, writer)  # type: ignore[arg-type]
            try:
                async with asyncio.timeout(ANSWER_S):
                    await session
            except TimeoutError:
                return
            answers = [json.loads(line) for line in writer.sent.splitlines()]
            assert answers, "no answer was sent"
            assert isinstance(answers[-1]["ok"], bool)

        def run(data: bytes) -> None:
            loop.run_until_complete(_answered(ask(data)))

        whole = [json.dumps(r).encode() + b"\n" for r in (REQUESTS[0], REQUESTS[1], REQUESTS[4])]
        make = mixed((0.9, lambda rng: json_of(rng, REQUESTS) + b"\n"), (0.1, lambda rng: damaged(rng, whole)))
        yield Opened(whole, make, run)


@contextmanager
def _page(work: Path) -> Iterator[Opened]:
    """A request as text: method and path, headers, an empty line, the body. Any answer will do but a defect of ours."""
    with _plant(work) as (plant, loop):
        pages = [
            Page(plant.agent, access, work=ThreadPoolExecutor(1)).app
            for access in (None, Access(TOKEN, realm="plant1/edge-1"))
        ]

        async def ask(data: bytes) -> int:
            head, _, body = data.partition(b"\r\n\r\n")
            first, *lines = head.split(b"\r\n")
            method, _, target = first.decode("latin-1").partition(" ")
            path, _, query = target.partition("?")
            headers = [(k.strip().lower(), v.strip()) for k, _, v in (line.partition(b":") for line in lines)]
            scope = {
                "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http",
                "path": unquote(path), "raw_path": path.encode("latin-1"), "root_path": "", "headers": headers,
                "query_string": query.encode("latin-1"), "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 8080),
            }  # fmt: skip
            sent: list[Any] = []
            begun = iter([{"type": "http.request", "body": body, "more_body": False}])

            async def receive() -> Any:
                return next(begun, None) or await asyncio.sleep(3600, {"type": "http.disconnect"})

            async def send(message: Any) -> None:
                sent.append(message)

            await pages[len(data) % 2](scope, receive, send)
            status = int(sent[0]["status"])
            assert status < 500 or status == 503, f"the page answered {status}"
            return status

        def run(data: bytes) -> None:
            loop.run_until_complete(_answered(ask(data)))

        whole = [_request("GET", p, ()) for p in PATHS[:3]] + [
            _request("POST", p, (), json.dumps(d)) for p, d in POSTS[:2]
        ]
        yield Opened(whole, mixed((0.8, _asked), (0.2, lambda rng: damaged(rng, whole))), run)


def _request(method: str, path: str, headers: tuple[tuple[str, str], ...], body: str = "") -> bytes:
    ours = {"host": "127.0.0.1", "content-type": "application/json", "x-fisher": "1", "origin": "http://127.0.0.1"}
    lines = [f"{k}: {v}" for k, v in (*ours.items(), *headers)]
    return "\r\n".join([f"{method} {path}", *lines, "", ""]).encode("latin-1") + body.encode("latin-1", "replace")


def _asked(rng: Random) -> bytes:
    """A request with one thing that is strange: its path, a value in it, a header, or the body."""
    kind = rng.randrange(4)
    if kind == 0:
        path, document = rng.choice(POSTS)
        return _request("POST", path, (), "") + json_of(rng, [document])
    path = rng.choice(PATHS)
    if kind == 1:
        parts = path.split("/")
        parts[rng.randrange(len(parts))] = rng.choice(
            ("%00", "..", "", "9" * 5000, "-1", "%ff%fe", "%ed%a0%80", "1e9", "é")
        )
        path = "/".join(parts)
    elif kind == 2:
        edge = rng.choice(JSON_EDGES).strip('"')
        path = path.partition("?")[0] + "?" + rng.choice(("span_s", "points", "until", "limit")) + "=" + edge
    headers = (rng.choice(HEADERS),) if kind == 3 else ()
    if rng.random() < 0.2:
        return _request("POST", rng.choice(POSTS)[0], headers, "{}")
    return _request(rng.choice(("GET", "GET", "HEAD", "PUT")), path, headers)


@contextmanager
def _operator(work: Path) -> Iterator[Opened]:
    """The first byte chooses the verb, the rest is what came over MQTT; what is obeyed is obeyed."""
    with _plant(work) as (plant, loop):

        def run(data: bytes) -> None:
            verb = VERBS[(data[0] if data else 0) % len(VERBS)]
            command = parse(MILL, verb, data[1:], now_ms=NOW_MS)
            if command is not None:
                error = loop.run_until_complete(_answered(operators.perform(plant.agent, command, via="mqtt")))
                json.dumps(command.result(error or "", now_ms=NOW_MS)).encode()

        whole = [b"\x00" + json.dumps(DOCUMENTS[0]).encode(), b"\x02{}"]
        yield Opened(whole, lambda rng: rng.randbytes(1) + json_of(rng, DOCUMENTS), run)


TARGETS = (
    Target("control", _control, share=0.02),
    Target("page", _page, share=0.05),
    Target("operator", _operator, share=0.02),
)
