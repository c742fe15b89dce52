"""The database sink against a real VictoriaMetrics (v2), a real InfluxDB 1.x (v1), and every answer a server gives."""

# Over 400 lines: one contract for three servers; a split would repeat them and the scripted answers.

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from fisher_agent.config import InfluxConfig
from fisher_agent.errors import ConfigError, Unavailable
from fisher_agent.lines import lines
from fisher_agent.sinks.influx import InfluxSink
from fisher_agent.stages import Point, Rejected
from private import private
from servers.influxdb import InfluxDB
from servers.process import free_port
from servers.victoria import VictoriaMetrics

NOW_MS = int(time.time() * 1000)


@pytest.fixture(scope="module")
def victoria(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VictoriaMetrics]:
    with VictoriaMetrics(tmp_path_factory.mktemp("victoria")) as server:
        yield server


@pytest.fixture(scope="module")
def influx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InfluxDB]:
    with InfluxDB(tmp_path_factory.mktemp("influx"), max_body=20_000) as server:
        yield server


def points(measurement: str, n: int, *, start_ms: int = NOW_MS) -> list[str]:
    tags = (("machine", "press 07, line=1"), ("mode", 'the "slow" one'))
    return lines(
        Point(measurement, tags, (("score", k / 8), ("level", k), ("ok", True)), (start_ms + k) * 1_000_000)
        for k in range(n)
    )


# Real servers.


async def test_victoria_takes_the_v2_path_and_stores_what_was_said(victoria):
    async with InfluxSink(InfluxConfig(url=victoria.url)) as sink:
        assert sink.api == "v2"
        assert await sink.write(points("vm_plain", 100)) == Rejected()
        (series,) = victoria.series('{__name__="vm_plain_score"}', points=100)
    assert series["metric"]["machine"] == "press 07, line=1"
    assert series["metric"]["mode"] == 'the "slow" one'
    assert dict(zip(series["timestamps"], series["values"], strict=True)) == {NOW_MS + k: k / 8 for k in range(100)}


async def test_writing_a_batch_twice_stores_it_once(victoria):
    async with InfluxSink(InfluxConfig(url=victoria.url)) as sink:
        batch = points("vm_twice", 50)
        await sink.write(batch)
        await sink.write(batch)
        await sink.write(points("vm_mark", 1))
        victoria.series('{__name__="vm_mark_score"}')
    assert victoria.values('{__name__="vm_twice_level"}', points=50) == {NOW_MS + k: k for k in range(50)}


async def test_influxdb_1_takes_the_v1_path_with_native_types(influx):
    influx.query("CREATE DATABASE plant")
    async with InfluxSink(InfluxConfig(url=influx.url, bucket="plant")) as sink:
        assert sink.api == "v1"
        assert await sink.write(points("m", 10)) == Rejected()
        assert await sink.write(points("m", 10)) == Rejected()
    rows = influx.query("SELECT * FROM m", db="plant")
    assert [r["time"] for r in rows] == [NOW_MS + k for k in range(10)]
    assert rows[3] == {
        "time": NOW_MS + 3,
        "level": 3,
        "ok": True,
        "score": 3 / 8,
        "machine": "press 07, line=1",
        "mode": 'the "slow" one',
    }
    assert isinstance(rows[3]["level"], int)


async def test_a_retention_policy_stands_after_the_slash(influx):
    influx.query("CREATE DATABASE archive")
    influx.query("CREATE RETENTION POLICY hour ON archive DURATION 1h REPLICATION 1")
    async with InfluxSink(InfluxConfig(url=influx.url, bucket="archive/hour")) as sink:
        old = points("m", 3, start_ms=NOW_MS - 7_200_000)
        rejected = await sink.write([old[0], *points("m", 4), *old[1:]])
    assert rejected.positions == (0, 5, 6)
    assert "retention policy" in rejected.reason
    assert len(influx.query("SELECT * FROM archive.hour.m")) == 4


async def test_a_retention_policy_that_is_missing_costs_no_point(influx):
    influx.query("CREATE DATABASE archive2")
    async with InfluxSink(InfluxConfig(url=influx.url, bucket="archive2/nix")) as sink:
        with pytest.raises(Unavailable, match="correct bucket"):
            await sink.write(points("m", 4))


async def test_influxdb_names_the_bad_lines_of_a_batch_and_stores_the_others(influx):
    influx.query("CREATE DATABASE mixed")
    batch = [*points("m", 20), "m score=nonsense 1", *points("n", 20), f"m level=1.5 {NOW_MS}", "garbage"]
    async with InfluxSink(InfluxConfig(url=influx.url, bucket="mixed")) as sink:
        rejected = await sink.write(batch)
    assert rejected.positions == (20, 41, 42)
    assert rejected.reason.startswith("400 ")
    assert len(influx.query("SELECT * FROM m", db="mixed")) == len(influx.query("SELECT * FROM n", db="mixed")) == 20


async def test_a_batch_too_large_for_influxdb_goes_in_pieces(influx):
    influx.query("CREATE DATABASE large")
    async with InfluxSink(InfluxConfig(url=influx.url, bucket="large")) as sink:
        assert await sink.write(points("m", 1000)) == Rejected()
        assert await sink.write([f'm text="{"x" * 30_000}" {NOW_MS}', *points("n", 2)]) == Rejected(
            (0,), '413 {"error":"Request Entity Too Large"}'
        )
    assert influx.query("SELECT count(score) FROM m", db="large")[0]["count"] == 1000
    assert influx.query("SELECT count(score) FROM n", db="large")[0]["count"] == 2


async def test_a_missing_database_holds_the_points_and_says_what_to_do(influx):
    async with InfluxSink(InfluxConfig(url=influx.url, bucket="later")) as sink:
        with pytest.raises(Unavailable, match=r"404.*database not found.*CREATE DATABASE"):
            await sink.write(points("m", 5))
        influx.query("CREATE DATABASE later")
        assert await sink.write(points("m", 5)) == Rejected()


async def test_influxdb_with_users_wants_and_takes_a_password(tmp_path):
    secret = tmp_path / "secret"
    with InfluxDB(tmp_path / "influx", auth=True) as server:
        server.query("CREATE USER boss WITH PASSWORD 'se:cret' WITH ALL PRIVILEGES")
        server.query("CREATE DATABASE plant", user="boss", password="se:cret")
        async with InfluxSink(InfluxConfig(url=server.url, bucket="plant")) as sink:
            with pytest.raises(Unavailable, match=r"401.*token_file"):
                await sink.write(points("m", 1))
        private(secret, "se:cret\n")
        by_name = InfluxConfig(url=server.url, bucket="plant", username="boss", password_file=secret)
        async with InfluxSink(by_name) as sink:
            assert await sink.write(points("m", 1)) == Rejected()
        token = tmp_path / "token"
        private(token, "boss:se:cret\n")
        async with InfluxSink(InfluxConfig(url=server.url, bucket="plant", token_file=token)) as sink:
            assert await sink.write(points("n", 1)) == Rejected()
        assert len(server.query("SELECT * FROM m,n", db="plant", user="boss", password="se:cret")) == 2


async def test_a_server_that_went_away_and_came_back_is_used_again(tmp_path):
    server = InfluxDB(tmp_path / "influx")
    config = InfluxConfig(url=server.url, bucket="plant", timeout_s=2)
    with pytest.raises(Unavailable, match="does not answer"):
        await InfluxSink(config).__aenter__()
    with server:
        server.query("CREATE DATABASE plant")
        async with InfluxSink(config) as sink:
            await sink.write(points("m", 1))
            server.kill()
            with pytest.raises(Unavailable, match="does not answer"):
                await sink.write(points("m", 2))
            server.start()
            assert await sink.write(points("m", 2)) == Rejected()
        assert len(server.query("SELECT * FROM m", db="plant")) == 2


# Every answer a server can give.

Reply = bytes | None  # None: hang
Script = Callable[[str, dict[str, str], str], Reply]  # path, query, body


def http(status: int, body: str = "", **headers: str) -> bytes:
    head = "".join(f"{k.replace('_', '-')}: {v}\r\n" for k, v in headers.items())
    return f"HTTP/1.1 {status} X\r\n{head}Content-Length: {len(body)}\r\n\r\n{body}".encode()


OK = http(204)
BAD_LINE = http(400, '{"code":"invalid","message":"unable to parse \'bad\': missing fields"}')


class ScriptedServer:
    """A small HTTP server whose write path answers by a function; it keeps what it took and every request body."""

    def __init__(self, reply: Script) -> None:
        self.url = ""
        self.bodies: list[str] = []
        self.heads: list[str] = []
        self.stored: set[str] = set()
        self._reply = reply
        self._open: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def end(self) -> None:
        """Hang up on everybody and wait until the last conversation is over."""
        for writer in self._open.values():
            writer.close()
        await asyncio.gather(*self._open)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open[asyncio.current_task()] = writer
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                text = head.decode()
                length = int(next((v for k, _, v in _headers(text) if k == "content-length"), "0"))
                body = (await reader.readexactly(length)).decode()
                url = urlsplit(text.split(" ")[1])
                reply: Reply = OK
                if url.path.endswith("/write") and body:
                    self.bodies.append(body)
                    self.heads.append(text)
                    query = {k: v[0] for k, v in parse_qs(url.query).items()}
                    reply = self._reply(url.path, query, body)
                if reply is None:
                    await reader.read()
                    return
                if reply == OK:
                    self.stored.update(body.splitlines())
                writer.write(reply)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


def _headers(head: str) -> list[tuple[str, str, str]]:
    rows = (row.partition(": ") for row in head.split("\r\n")[1:])
    return [(k.lower(), s, v) for k, s, v in rows]


@asynccontextmanager
async def scripted(reply: Script) -> AsyncIterator[ScriptedServer]:
    script = ScriptedServer(reply)
    server = await asyncio.start_server(script.serve, "127.0.0.1", 0)
    script.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        yield script
        await script.end()


@pytest.fixture(params=["v1", "v2"])
def api(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def config(server: ScriptedServer, api: str, **more: object) -> InfluxConfig:
    return InfluxConfig.model_validate(
        {"url": server.url, "api": api, "org": "o", "bucket": "b", "timeout_s": 1, **more}
    )


async def test_requests_name_the_destination_the_precision_and_the_token(tmp_path, api):
    token = tmp_path / "token"
    private(token, "abc\n")
    seen = []
    async with scripted(lambda path, query, _: seen.append((path, query)) or OK) as server:
        async with InfluxSink(config(server, api, token_file=token)) as sink:
            await sink.write(["m x=1i 1"])
        assert "Authorization: Token abc\r\n" in server.heads[0]
    assert seen == [
        ("/write", {"db": "b", "precision": "ms"})
        if api == "v1"
        else ("/api/v2/write", {"org": "o", "bucket": "b", "precision": "ms"})
    ]


async def test_without_a_token_none_is_sent(api):
    async with scripted(lambda *_: OK) as server:
        async with InfluxSink(config(server, api)) as sink:
            await sink.write(["m x=1i 1"])
        assert "authorization" not in server.heads[0].lower()


@pytest.mark.parametrize("status", [400, 422])
@pytest.mark.parametrize("bad", [[], [0], [6], [2, 3], [0, 3, 6], list(range(7))])
async def test_a_refused_batch_is_bisected_to_its_bad_lines(api, status, bad):
    batch = [f"bad {n}" if n in bad else f"good {n}" for n in range(7)]
    refuse = http(status, '{"code":"invalid","message":"unable to parse it"}')
    async with scripted(lambda _p, _q, body: refuse if "bad" in body else OK) as server:
        async with InfluxSink(config(server, api)) as sink:
            rejected = await sink.write(batch)
        assert server.stored == {line for line in batch if "good" in line}
    assert rejected.positions == tuple(bad)
    assert bool(rejected.reason) == bool(bad)


async def test_a_few_bad_lines_among_many_cost_few_requests(api):
    batch = [f"bad {n}" if n == 617 else f"good {n}" for n in range(1000)]
    async with scripted(lambda _p, _q, body: BAD_LINE if "bad" in body else OK) as server:
        async with InfluxSink(config(server, api)) as sink:
            assert (await sink.write(batch)).positions == (617,)
        assert len(server.bodies) <= 22


@pytest.mark.parametrize("status", [400, 500])
async def test_a_partial_write_is_narrowed_to_what_was_dropped(api, status):
    partial = http(status, '{"error":"partial write: points beyond retention policy dropped=1"}')
    async with scripted(lambda _p, _q, body: partial if "old" in body else OK) as server:
        async with InfluxSink(config(server, api)) as sink:
            rejected = await sink.write(["good 1", "old 2", "good 3"])
        assert server.stored == {"good 1", "good 3"}
    assert rejected.positions == (1,)


async def test_a_partial_write_that_dropped_everything_is_not_taken_apart(api):
    all_of_it = http(400, '{"error":"partial write: field type conflict: x dropped=100"}')
    async with scripted(lambda *_: all_of_it) as server:
        async with InfluxSink(config(server, api)) as sink:
            assert (await sink.write([f"m {n}" for n in range(100)])).positions == tuple(range(100))
        assert len(server.bodies) == 1


async def test_a_batch_that_is_too_large_is_halved_and_the_size_remembered(api):
    too_large = http(413, "too large")
    async with (
        scripted(lambda _p, _q, body: too_large if body.count("\n") >= 25 else OK) as server,
        InfluxSink(config(server, api)) as sink,
    ):
        batch = [f"m {n}" for n in range(100)]
        assert await sink.write(batch) == Rejected()
        assert server.stored == set(batch)
        before = len(server.bodies)
        assert await sink.write(batch) == Rejected()
        assert len(server.bodies) - before == 4


async def test_one_line_that_is_too_large_is_rejected_alone(api):
    async with scripted(lambda _p, _q, body: http(413) if "huge" in body else OK) as server:
        async with InfluxSink(config(server, api)) as sink:
            assert (await sink.write(["a", "huge", "b"])).positions == (1,)
        assert server.stored == {"a", "b"}


@pytest.mark.parametrize(
    ("status", "hint"), [(401, "token_file"), (403, "write permission"), (404, "create it"), (500, "500"), (307, "307")]
)
async def test_every_other_answer_keeps_the_batch(api, status, hint):
    async with scripted(lambda *_: http(status, '{"message":"the reason"}', Location="http://127.0.0.1:9/")) as server:
        async with InfluxSink(config(server, api)) as sink:
            with pytest.raises(Unavailable, match=hint) as caught:
                await sink.write(["m 1", "m 2"])
        assert "the reason" in str(caught.value)
        assert caught.value.retry_after_s is None
        assert len(server.bodies) == 1


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(("stated", "expected_s"), [("17", 17), ("999999", 3600), ("soon", None), ("", None)])
async def test_a_busy_server_is_given_the_time_it_asks_for(api, status, stated, expected_s):
    async with (
        scripted(lambda *_: http(status, "busy", Retry_After=stated)) as server,
        InfluxSink(config(server, api)) as sink,
    ):
        with pytest.raises(Unavailable) as caught:
            await sink.write(["m 1"])
    assert caught.value.retry_after_s == expected_s


async def test_retry_after_may_be_a_date(api):
    async with (
        scripted(lambda *_: http(503, Retry_After="Fri, 31 Dec 2999 23:59:59 GMT")) as server,
        InfluxSink(config(server, api)) as sink,
    ):
        with pytest.raises(Unavailable) as caught:
            await sink.write(["m 1"])
    assert caught.value.retry_after_s == 3600


@pytest.mark.parametrize(
    "body", ['{"error":"database is required"}', '{"message":"please provide either orgID or org"}']
)
async def test_a_wrong_configuration_rejects_no_line(api, body):
    async with scripted(lambda *_: http(400, body)) as server, InfluxSink(config(server, api)) as sink:
        with pytest.raises(Unavailable, match=r"correct bucket and org"):
            await sink.write(["m 1", "m 2"])


async def test_a_server_that_hangs_is_unavailable_after_the_timeout(api):
    async with scripted(lambda *_: None) as server, InfluxSink(config(server, api, timeout_s=0.5)) as sink:
        began = time.monotonic()
        with pytest.raises(Unavailable, match="does not answer"):
            await sink.write(["m 1"])
        assert time.monotonic() - began < 3


async def test_a_server_that_talks_nonsense_is_unavailable(api):
    async with (
        scripted(lambda *_: b"\x00\x01 this is not HTTP\r\n\r\n") as server,
        InfluxSink(config(server, api)) as sink,
    ):
        with pytest.raises(Unavailable):
            await sink.write(["m 1"])


async def test_an_outage_in_the_middle_of_bisecting_keeps_the_batch(api):
    replies = iter([BAD_LINE, OK, http(503, "busy")])
    async with scripted(lambda *_: next(replies)) as server, InfluxSink(config(server, api)) as sink:
        with pytest.raises(Unavailable, match="busy"):
            await sink.write([f"m {n}" for n in range(8)])


async def test_nobody_there_is_unavailable_and_closing_is_safe(api):
    sink = InfluxSink(InfluxConfig(url=f"http://127.0.0.1:{free_port()}", api=api, timeout_s=1))
    with pytest.raises(Unavailable, match="does not answer"):
        await sink.__aenter__()
    await sink.__aexit__()
    with pytest.raises(Unavailable, match="not connected"):
        await sink.write(["m 1"])


async def test_an_empty_batch_asks_nobody(api):
    async with scripted(lambda *_: OK) as server:
        async with InfluxSink(config(server, api)) as sink:
            assert await sink.write([]) == Rejected()
        assert server.bodies == []


def test_a_secret_that_is_missing_is_a_configuration_error(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"influx\.token_file: .*nix"):
        InfluxSink(InfluxConfig(token_file=tmp_path / "nix"))
    with pytest.raises(ConfigError, match=r"influx\.password_file"):
        InfluxSink(InfluxConfig(username="u", password_file=tmp_path / "nix"))


async def test_a_secret_that_vanishes_later_is_unavailable(tmp_path: Path):
    token = tmp_path / "token"
    private(token, "abc")
    sink = InfluxSink(InfluxConfig(token_file=token))
    token.unlink()
    with pytest.raises(Unavailable, match="token_file"):
        await sink.__aenter__()
