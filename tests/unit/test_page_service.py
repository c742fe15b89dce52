"""The feed that keeps pages live, and the page's life inside the daemon: ports, signals, connections, its end."""

import asyncio
import signal
import socket
import subprocess
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from fisher_agent.configfile import parse
from fisher_agent.errors import ConfigError
from fisher_agent.page import feed as feeds
from fisher_agent.page.feed import BEHIND, MAX_WATCHERS, Feed, TooManyWatchers, difference
from fisher_agent.page.service import check, url
from fisher_agent.pageconfig import PageConfig
from pageplant import ask, running_plant
from private import private

MILL = "mill-01"

SECTIONS = st.dictionaries(
    st.sampled_from(["a", "b", "c"]), st.dictionaries(st.sampled_from("xyz"), st.integers(0, 3)), max_size=3
)


@given(SECTIONS, SECTIONS)
def test_what_changed_turns_one_snapshot_into_the_other(before: Any, after: Any) -> None:
    after = {section: after.get(section, {}) for section in ("a", "b", "c")}
    before = {section: before.get(section, {}) for section in ("a", "b", "c")}
    state = {section: dict(entries) for section, entries in before.items()}
    for section, entries in difference(before, after).items():
        for key, value in entries.items():
            if value is None:
                del state[section][key]
            else:
                assert state[section].get(key) != value, "what did not change is not sent"
                state[section][key] = value
    assert state == after


async def test_a_browser_that_is_too_slow_is_let_go_and_the_others_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    feed = Feed(dict, push_s=0)
    async with feed.watch() as slow, feed.watch() as quick:
        task = asyncio.create_task(feed.run())
        seen = [await anext(quick) for _ in range(3 * BEHIND)]
        task.cancel()
        assert len(seen) == 3 * BEHIND
        assert len([event async for event in slow]) <= BEHIND
    assert feed.watched == 0


async def test_only_so_many_may_look() -> None:
    feed = Feed(dict)
    watching = [feed.watch() for _ in range(MAX_WATCHERS)]
    for one in watching:
        await one.__aenter__()
    with pytest.raises(TooManyWatchers):
        await feed.watch().__aenter__()
    for one in watching:
        await one.__aexit__(None, None, None)
    async with feed.watch() as events:
        feed.close()
        assert [event.split(b"\n")[0] async for event in events] == [b"event: all", b"event: bye"]
    with pytest.raises(TooManyWatchers):
        await feed.watch().__aenter__()
    assert feeds.PUSH_S >= 1, "at most one event a second"


async def test_a_port_that_is_taken_degrades_and_is_taken_when_it_is_free(tmp_path: Path) -> None:
    blocker = socket.create_server(("127.0.0.1", 0))
    port = blocker.getsockname()[1]
    with blocker:
        async with running_plant(tmp_path, page="", port=port) as plant:
            problem = plant.agent.degradations()["link page"]
            assert str(port) in problem and "page.port" in problem
            await plant.hop({MILL: 0.5})
            blocker.close()
            async with asyncio.timeout(20):
                while "link page" in plant.agent.degradations():
                    await asyncio.sleep(0.05)
            assert (await ask(port, "/api/overview")).json["machines"][MILL]["score"] == 0.5


async def test_the_page_leaves_signals_alone_and_ends_with_browsers_connected(tmp_path: Path) -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    async with running_plant(tmp_path) as plant:
        reader, writer = await asyncio.open_connection("127.0.0.1", plant.port)
        writer.write(f"GET /api/live HTTP/1.1\r\nHost: 127.0.0.1:{plant.port}\r\n\r\n".encode())
        _, idle = await asyncio.open_connection("127.0.0.1", plant.port)
        assert await reader.readuntil(b"event: all")
        assert {number: signal.getsignal(number) for number in before} == before
    async with asyncio.timeout(5):
        assert b"event: bye" in await reader.read()
    writer.close()
    idle.close()


async def test_a_page_that_is_switched_off_listens_nowhere(tmp_path: Path) -> None:
    async with running_plant(tmp_path, page="enabled = false") as plant:
        assert "link page" not in plant.agent.degradations()
        with pytest.raises(ConnectionRefusedError):
            await ask(plant.port, "/")


async def test_connections_that_ask_nothing_are_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fisher_agent.page.service.FIRST_REQUEST_S", 0.1)
    monkeypatch.setattr("fisher_agent.page.service.MAX_CONNECTIONS", 3)
    async with running_plant(tmp_path) as plant:
        opened = [await asyncio.open_connection("127.0.0.1", plant.port) for _ in range(6)]
        opened[0][1].write(b"GET / HTTP/1.1\r\nHost: 127")
        async with asyncio.timeout(10):
            for reader, _ in opened:
                with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
                    await reader.readexactly(1)
        for _, writer in opened:
            writer.close()
        assert (await ask(plant.port, "/api/overview")).status == 200


async def test_a_defect_costs_one_answer_and_is_logged_as_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async with running_plant(tmp_path) as plant:
        monkeypatch.setattr("fisher_agent.page.overview.Overview.snapshot", lambda self: 1 / 0)
        assert (await ask(plant.port, "/api/overview")).status == 500
        assert (await ask(plant.port, "/api/trends")).status == 200
    said = capsys.readouterr()
    assert "page_failed" in said.out + said.err and "ZeroDivisionError" in said.out + said.err
    assert "Traceback" not in said.out + said.err


def test_tls_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    for name in ("cert", "key", "token"):
        private(tmp_path / name, "0123456789abcdef junk")
    config = parse(
        f'site = "s"\nedge = "e"\n[page]\nbind = "0.0.0.0"\ntoken_file = "{tmp_path}/token"\n'
        f'cert_file = "{tmp_path}/cert"\nkey_file = "{tmp_path}/key"'
    )
    with pytest.raises(ConfigError, match="page: cert_file and key_file cannot be used"):
        check(config)


async def test_with_tls_the_page_speaks_https_alone(tmp_path: Path) -> None:
    import ssl

    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", cert],
        check=True, capture_output=True,
    )  # fmt: skip
    private(tmp_path / "token", "0123456789abcdef-token")
    keys = f'token_file = "{tmp_path}/token"\ncert_file = "{cert}"\nkey_file = "{key}"'
    async with running_plant(tmp_path, page=keys) as plant:
        context = ssl.create_default_context(cafile=str(cert))
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", plant.port, ssl=context, server_hostname="localhost"
        )
        writer.write(f"GET /login HTTP/1.1\r\nHost: localhost:{plant.port}\r\nConnection: close\r\n\r\n".encode())
        assert (await reader.read()).startswith(b"HTTP/1.1 200")
        writer.close()
        plain_reader, plain = await asyncio.open_connection("127.0.0.1", plant.port)
        plain.write(b"GET /login HTTP/1.1\r\nHost: localhost\r\n\r\n")
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await plain_reader.readexactly(12)
        plain.close()


def test_the_address_is_one_that_a_browser_takes() -> None:
    assert url(PageConfig()) == "http://127.0.0.1:8420/"
    assert url(PageConfig(bind="::1")) == "http://[::1]:8420/"
    files = {"token_file": "t", "cert_file": "c", "key_file": "k"}
    outside = PageConfig.model_validate({"bind": "0.0.0.0", "hosts": ["edge-1.plant"], "port": 443, **files})
    assert url(outside) == "https://edge-1.plant:443/"
