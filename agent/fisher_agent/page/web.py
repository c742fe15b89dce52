"""The page's addresses: static files, JSON for the views, server-sent events, and what an operator may do."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from fisher_agent.commands import RefusedCommand, parse
from fisher_agent.enrolling import enrolments
from fisher_agent.errors import BadFile, ConfigError, FisherError, Unavailable
from fisher_agent.history import History
from fisher_agent.jsontext import loads
from fisher_agent.operators import perform
from fisher_agent.outbox import Counters
from fisher_agent.page import charts, pictures
from fisher_agent.page.access import SESSION_S, Access, TooManyTries
from fisher_agent.page.evidence import Evidence, Shown
from fisher_agent.page.exposition import CONTENT_TYPE, render
from fisher_agent.page.feed import Feed, TooManyWatchers
from fisher_agent.page.guard import Guard, cookie_name, refuse
from fisher_agent.page.metrics import QUEUES, families
from fisher_agent.page.overview import OFFERED, Overview
from fisher_agent.runtime import Agent

T = TypeVar("T")
STATIC = Path(__file__).with_name("static")
MAX_BODY = 8192
BODY_S = 10.0
MAX_JOURNAL = 100
WAVE_COLUMNS = 1200
TRENDS_S = 20.0  # how long the trends of all machines are good for everybody who asks
MIN_SHELVE_S, MAX_SHELVE_S = 60, 7 * 86_400
MIN_ENROLL_S, MAX_ENROLL_S = 5, 7 * 86_400
LABEL = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")


class Page:
    """The application for one agent. `feed.run` must run beside it; `work` is where files and queries are read."""

    def __init__(self, agent: Agent, access: Access | None, *, work: ThreadPoolExecutor) -> None:
        self._agent = agent
        self._access = access
        self._config = agent.config.page
        self._work = work
        self._history = History(agent.config.state_dir)
        self._evidence = Evidence(agent.config.state_dir)
        self.enrolments = enrolments(agent)
        self._overview = Overview(agent, self.enrolments)
        self.feed = Feed(self._overview.snapshot)
        self._trends: tuple[float, dict[str, Any]] = (-TRENDS_S, {})
        self._trends_lock = asyncio.Lock()
        get, post = ["GET"], ["POST"]
        here = "/api/machines/{machine}"
        capture = here + "/captures/{occurrence}"
        self.app = Guard(
            Starlette(
                routes=[
                    Route("/", self._file("index.html"), methods=get),
                    Route("/login", self._file("login.html"), methods=get),
                    Mount("/static", _Static(directory=STATIC)),
                    Route("/metrics", self._metrics, methods=get),
                    Route("/api/login", self._login, methods=post),
                    Route("/api/logout", self._logout, methods=post),
                    Route("/api/overview", self._snapshot, methods=get),
                    Route("/api/live", self._live, methods=get),
                    Route("/api/trends", self._all_trends, methods=get),
                    Route(here + "/charts", self._charts, methods=get),
                    Route(here + "/journal", self._journal, methods=get),
                    Route(here + "/captures", self._list_captures, methods=get),
                    Route(capture, self._capture, methods=get),
                    Route(capture + "/spectrograms/{channel}", self._spectrograms, methods=get),
                    Route(capture + "/waveform/{channel}", self._waveform, methods=get),
                    Route(here + "/commands/{verb}", self._command, methods=post),
                    Route(here + "/enroll", self._enroll, methods=post),
                    Route(here + "/enroll-stop", self._enroll_stop, methods=post),
                ],
                exception_handlers={FisherError: _explain, HTTPException: _explain_http},
            ),
            self._config,
            access,
        )

    async def _in_work(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._work, partial(function, *args, **kwargs))

    # -- looking ----------------------------------------------------------------------------------------------------

    @staticmethod
    def _file(name: str) -> Callable[[Request], Awaitable[Response]]:
        async def send(_request: Request) -> Response:
            return FileResponse(STATIC / name, headers={"cache-control": "no-cache"})

        return send

    async def _snapshot(self, _request: Request) -> Response:
        return answer(self._overview.snapshot())

    async def _live(self, _request: Request) -> Response:
        if self.feed.full:
            raise HTTPException(503, "too many browsers look at this agent")

        async def events() -> AsyncIterator[bytes]:
            try:
                async with self.feed.watch() as watched:
                    async for event in watched:
                        yield event
            except TooManyWatchers:
                return

        # Proxies must not collect events (nginx: X-Accel-Buffering).
        headers = {"x-accel-buffering": "no", "cache-control": "no-store"}
        return StreamingResponse(events(), media_type="text/event-stream", headers=headers)

    async def _metrics(self, _request: Request) -> Response:
        queues: dict[str, Counters] = {}
        with suppress(Unavailable, BadFile):  # a disk that refuses is degradation enough; the rest must still be seen
            queues = {q: await self._agent.in_store(self._agent.store.counters, q) for q in QUEUES}
        return Response(render(families(self._agent, queues)), media_type=CONTENT_TYPE)

    async def _all_trends(self, _request: Request) -> Response:
        async with self._trends_lock:
            at_s, found = self._trends
            if time.monotonic() - at_s >= TRENDS_S:
                machines = {m: live.judged_ns for m, live in self._agent.machines.items()}
                found = await self._in_work(
                    lambda: {
                        m: charts.trend(self._history, m, until_ns=t_ns + 1 if t_ns else 0)
                        for m, t_ns in machines.items()
                    }
                )
                self._trends = time.monotonic(), found
        return answer(found)

    async def _charts(self, request: Request) -> Response:
        machine = self._machine(request)
        span_s = _whole(request, "span_s", 3600, low=charts.MIN_SPAN_S, high=charts.MAX_SPAN_S)
        points = _whole(request, "points", 600, low=10, high=charts.MAX_POINTS)
        until_ms = _whole(request, "until", 0, low=0, high=2**52)
        until_ns = until_ms * 1_000_000 or self._agent.machines[machine].judged_ns
        made = await self._in_work(
            charts.charts, self._history, machine,
            until_ns=until_ns + 1 if until_ns else 0, span_ns=span_s * 10**9, points=points,
        )  # fmt: skip
        return answer(made)

    async def _journal(self, request: Request) -> Response:
        machine = self._machine(request)
        limit = _whole(request, "limit", 50, low=1, high=MAX_JOURNAL)
        alarms = await self._in_work(self._history.journal, machine, limit=limit)
        return answer([self._overview.alarm(alarm) for alarm in alarms])

    # -- the evidence of an alarm -------------------------------------------------------------------------------------

    async def _list_captures(self, request: Request) -> Response:
        return answer(await self._in_work(self._evidence.occurrences, self._machine(request)))

    async def _capture(self, request: Request) -> Response:
        machine, occurrence = self._machine(request), _occurrence(request)
        return answer(await self._in_work(self._evidence.document, machine, occurrence))

    async def _spectrograms(self, request: Request) -> Response:
        return answer(await self._in_work(self._panels, *self._captured(request)))

    def _panels(self, machine: str, occurrence: int, channel: str) -> dict[str, Any]:
        """The alarmed window, and the nearest enrolled one where it is there."""
        alarmed = self._evidence.alarmed(machine, occurrence, channel)
        shown: dict[str, Shown] = {"alarmed": alarmed}
        missing = {}
        try:
            shown["nearest"] = self._evidence.nearest(machine, occurrence, channel)
        except BadFile as error:
            missing["nearest"] = str(error)
        panels = {}
        for name, one in shown.items():
            if (found := pictures.levels(one.samples, one.rate_hz)) is not None:
                panels[name] = found
            else:
                missing[name] = f"{len(one.samples)} samples are too few for a spectrogram"
        unit = f"dB re 1 {alarmed.unit}²/Hz" if alarmed.unit else "dB"
        return {**pictures.side_by_side(panels), "unit": unit, "missing": missing}

    async def _waveform(self, request: Request) -> Response:
        return answer(await self._in_work(self._wave, *self._captured(request)))

    def _wave(self, machine: str, occurrence: int, channel: str) -> dict[str, Any]:
        captured = self._evidence.whole(machine, occurrence, channel)
        low, high = pictures.extremes(captured.samples, WAVE_COLUMNS)
        seconds = len(captured.samples) / captured.rate_hz
        return {"t": captured.t_ns / 1e6, "seconds": seconds, "unit": captured.unit, "low": low, "high": high}

    def _captured(self, request: Request) -> tuple[str, int, str]:
        return self._machine(request), _occurrence(request), request.path_params["channel"]

    # -- acting -----------------------------------------------------------------------------------------------------

    async def _login(self, request: Request) -> Response:
        document = await _document(request)
        token = document.get("token")
        if self._access is None:
            return answer({"ok": True})
        try:
            right = isinstance(token, str) and await self._access.check(token.strip())
        except TooManyTries:
            return refuse(429, "too many wrong tokens; try again in a moment")
        if not right:
            return refuse(401, "that is not the token")
        response = answer({"ok": True})
        self._set_cookie(response, self._access.session(now_s=time.time()), SESSION_S)
        return response

    async def _logout(self, _request: Request) -> Response:
        response = answer({"ok": True})
        self._set_cookie(response, "", 0)
        return response

    def _set_cookie(self, response: Response, value: str, max_age_s: int) -> None:
        secure = self._config.tls or self._config.behind_proxy
        response.set_cookie(
            cookie_name(self._config), value, max_age=max_age_s, httponly=True, secure=secure, samesite="strict"
        )

    async def _command(self, request: Request) -> Response:
        machine, verb = self._machine(request), request.path_params["verb"]
        if verb not in OFFERED:
            raise ConfigError(f"{verb!r} is not offered on the page; it has: {', '.join(OFFERED)}")
        document = await _document(request)
        now_ms = time.time_ns() // 1_000_000
        if verb == "shelve":
            for_s = document.pop("for_s", None)
            if not isinstance(for_s, int) or isinstance(for_s, bool) or not MIN_SHELVE_S <= for_s <= MAX_SHELVE_S:
                raise ConfigError(f"for_s must be whole seconds, {MIN_SHELVE_S} to {MAX_SHELVE_S}")
            document["until"] = now_ms + for_s * 1000
        document.setdefault("by", "")
        document["by"] = document["by"] or "page"
        try:
            command = parse(machine, verb, json.dumps(document).encode(), now_ms=now_ms)
        except RefusedCommand as refused:
            raise ConfigError(str(refused)) from refused
        assert command is not None
        if error := await perform(self._agent, command, via="page"):
            raise ConfigError(error)
        return answer({"ok": True})

    async def _enroll(self, request: Request) -> Response:
        machine = self._machine(request)
        document = await _document(request)
        duration_s, mode, fault = document.get("duration_s"), document.get("mode", ""), document.get("fault", "")
        if not isinstance(duration_s, int | float) or not MIN_ENROLL_S <= duration_s <= MAX_ENROLL_S:
            raise ConfigError(f"duration_s must be a number, {MIN_ENROLL_S} to {MAX_ENROLL_S}")
        for name, value in (("mode", mode), ("fault", fault)):
            if not isinstance(value, str) or len(value) > 48 or not LABEL.issuperset(value):
                raise ConfigError(f"{name} must be at most 48 of A-Z a-z 0-9 _ -")
        self.enrolments.start(machine, duration_s=duration_s, mode=mode, fault=fault)
        return answer({"ok": True})

    async def _enroll_stop(self, request: Request) -> Response:
        machine = self._machine(request)
        await _document(request)
        self.enrolments.stop(machine)
        return answer({"ok": True})

    def _machine(self, request: Request) -> str:
        machine: str = request.path_params["machine"]
        if machine not in self._agent.machines:
            raise HTTPException(404, "this agent has no such machine")
        return machine


class _Static(StaticFiles):
    """Browsers ask each time whether a file changed, so that an update shows at once."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        response = super().file_response(*args, **kwargs)
        response.headers["cache-control"] = "no-cache"
        return response


def answer(document: Any) -> Response:
    """JSON, compact."""
    body = json.dumps(document, separators=(",", ":"), allow_nan=False).encode()
    return Response(body, media_type="application/json")


async def _document(request: Request) -> dict[str, Any]:
    """The body as one JSON object, bounded in bytes and in time."""
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_S):
            async for chunk in request.stream():
                body += chunk
                if len(body) > MAX_BODY:
                    raise HTTPException(413, f"at most {MAX_BODY} bytes")
        document = loads(bytes(body) or b"{}")
    except TimeoutError as error:
        raise HTTPException(408, "the request did not arrive in time") from error
    except ValueError as error:
        raise HTTPException(400, "the body must be one JSON object") from error
    if not isinstance(document, dict):
        raise HTTPException(400, "the body must be one JSON object")
    return document


def _occurrence(request: Request) -> int:
    text = request.path_params["occurrence"]
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise HTTPException(404, "an occurrence is a whole number")
    return int(text)


def _whole(request: Request, name: str, default: int, *, low: int, high: int) -> int:
    text = request.query_params.get(name)
    if text is None:
        return default
    if not text.isascii() or not text.isdigit() or len(text) > 16 or not low <= int(text) <= high:
        raise HTTPException(400, f"{name} must be a whole number, {low} to {high}")
    return int(text)


async def _explain(_request: Request, error: Exception) -> Response:
    if isinstance(error, Unavailable):
        return refuse(503, str(error))
    return refuse(404 if isinstance(error, BadFile) else 409, str(error))


async def _explain_http(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return refuse(error.status_code, error.detail)
