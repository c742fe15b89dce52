"""What a database may answer to the question for one point: found, not found, cannot be asked, cannot answer now."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from fisher_agent import canary
from fisher_agent.canary import _Canary
from fisher_agent.config import InfluxConfig
from fisher_agent.links import Links
from fisher_agent.roundtrip import Seen
from fisher_agent.sinks.readback import MAX_ANSWER, ReadBack

Answer = tuple[int, str]
GONE: Answer = (404, "not found")
FLUX, INFLUXQL, EXPORT = "/api/v2/query", "/query", "/api/v1/export"
T_NS = 1_795_000_000 * 10**9
Opens = Callable[[dict[str, Answer]], ReadBack]


@pytest.fixture
def database() -> Iterator[Opens]:
    """A server that gives one answer to each path, and 404 to others."""
    answers: dict[str, Answer] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = answers.get(self.path.partition("?")[0], GONE)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.do_GET()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()

        def opened(given: dict[str, Answer]) -> ReadBack:
            answers.update(given)
            return ReadBack(InfluxConfig(url=f"http://127.0.0.1:{server.server_port}"))

        yield opened
        server.shutdown()


def rows(*columns: str, values: Any) -> Answer:
    series = {"name": "fisher_check", "columns": columns, "values": values}
    return 200, json.dumps({"results": [{"series": [series]}]})


@pytest.mark.parametrize(
    ("path", "answer", "api"),
    [
        (FLUX, (200, ",result,table,_time,_value\r\n,_result,0,2026-11-21T00:00:00Z,7\r\n"), "Flux"),
        (INFLUXQL, rows("time", "value", values=[[1, 6], [2, 7]]), "InfluxQL"),
        (EXPORT, (200, '{"metric": {}, "values": [6, 7], "timestamps": [1, 2]}\n'), "export"),
    ],
)
def test_the_point_is_found(database: Opens, path: str, answer: Answer, api: str) -> None:
    reader = database({path: answer})
    assert reader.found("fisher_check", 7, t_ns=T_NS) == api
    assert reader.found("fisher_check", 8, t_ns=T_NS) == ""
    assert reader.answers and reader.answered
    reader.close()


@pytest.mark.parametrize(
    ("path", "answer", "why"),
    [
        (INFLUXQL, rows("time", "value", values=[[1]]), "something else (IndexError)"),
        (INFLUXQL, (200, "[" * 200_000), "something else"),
        (INFLUXQL, (200, '{"results": [{"series": [{"name": "databases"}]}]}'), "does not answer what was asked"),
        (INFLUXQL, (200, '{"results": [{"error": "no such database"}]}'), "no such database"),
        (INFLUXQL, (200, "7"), "something else"),
        (EXPORT, (200, "null\n"), "something else"),
        (EXPORT, (200, " " * (MAX_ANSWER + 9)), "more than"),
        (FLUX, (200, "error,reference\r\nunauthorised,1\r\n"), "unauthorised"),
        (FLUX, (401, "who are you"), "401 who are you"),
    ],
)
def test_what_cannot_be_asked_is_not_asked_again(database: Opens, path: str, answer: Answer, why: str) -> None:
    reader = database({path: answer})
    assert reader.found("fisher_check", 7, t_ns=T_NS) == ""
    assert not reader.answers
    assert any(why in said for said in reader.refusals.values()), reader.refusals
    reader.close()


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_what_cannot_answer_now_is_neither(database: Opens, status: int) -> None:
    reader = database({INFLUXQL: (status, "busy")})
    assert reader.found("fisher_check", 7, t_ns=T_NS) == ""
    assert reader.answers and not reader.answered
    assert reader.failures == {"InfluxQL": f"{status} busy"}
    database({INFLUXQL: rows("time", "value", values=[[1, 7]])})
    assert reader.found("fisher_check", 7, t_ns=T_NS) == "InfluxQL"
    assert reader.answered
    reader.close()


async def test_a_question_without_an_answer_neither_excuses_nor_accuses(monkeypatch: pytest.MonkeyPatch) -> None:
    come = [Seen(by="export"), Seen(), Seen(failures="export: 503"), Seen(), Seen(failures="x"), Seen(by="export")]

    async def given(*_: object) -> tuple[str, Seen]:
        return "v2", come.pop(0)

    monkeypatch.setattr(canary, "write_and_read", given)
    links = Links()
    work = links.keep("influx", None, None, has_id=False)  # type: ignore[arg-type]
    work.close()  # type: ignore[attr-defined]
    links._links["influx"].problem = ""
    agent: Any = type("Agent", (), {"links": links, "names": None})()
    flown = _Canary(agent, InfluxConfig())
    doubts = []
    while come:
        await flown.fly()
        doubts.append("influx" in links.problems)
    assert doubts == [False, False, False, True, True, False]
    assert "was read back by export" in links.proofs["influx"]
