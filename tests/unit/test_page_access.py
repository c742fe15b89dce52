"""Who may look and act on the page: tokens, sessions, hosts, origins; each rule by itself."""

import asyncio
import re
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import given

from fisher_agent.check import _check_files
from fisher_agent.configfile import parse
from fisher_agent.errors import ConfigError
from fisher_agent.page import access
from fisher_agent.page.access import MIN_TOKEN, SESSION_S, WAITING, Access, TooManyTries
from fisher_agent.page.guard import allowed_host
from fisher_agent.pageconfig import PageConfig
from private import private

TOKEN = "0123456789abcdef-a-token"
NOW_S = 1_795_000_000.0


def opened(realm: str = "plant1/edge-1", token: str = TOKEN) -> Access:
    return Access(token, realm=realm)


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting is counted in thousandths."""
    monkeypatch.setattr(access, "FIRST_DELAY_S", 0.001)
    monkeypatch.setattr(access, "LONGEST_DELAY_S", 0.01)


def test_a_session_holds_until_it_expires_and_not_a_second_longer() -> None:
    session = opened().session(now_s=NOW_S)
    assert opened().valid(session, now_s=NOW_S + SESSION_S - 1)
    assert not opened().valid(session, now_s=NOW_S + SESSION_S)


def test_a_session_says_nothing_of_the_token() -> None:
    session = opened().session(now_s=NOW_S)
    assert re.fullmatch(r"\d+\.[0-9a-f]{64}", session)
    assert TOKEN not in session


def test_a_session_of_another_token_or_another_agent_is_not_valid() -> None:
    session = opened().session(now_s=NOW_S)
    assert not opened(token=TOKEN + "x").valid(session, now_s=NOW_S)
    assert not opened(realm="plant1/edge-2").valid(session, now_s=NOW_S)


def test_a_session_cannot_be_prolonged() -> None:
    guard = opened()
    expiry, _, signature = guard.session(now_s=NOW_S).partition(".")
    assert not guard.valid(f"{int(expiry) + 1}.{signature}", now_s=NOW_S)


@given(st.text(max_size=100))
def test_no_text_is_a_session(text: str) -> None:
    assert not SHARED.valid(text, now_s=NOW_S)


SHARED = opened()


async def test_only_the_token_is_the_token(fast: None) -> None:
    guard = opened()
    assert await guard.check(TOKEN)
    for wrong in ("", TOKEN[:-1], TOKEN + "x", TOKEN.upper(), "é" * 20, "\udce9"):
        assert not await guard.check(wrong)


async def test_each_wrong_token_waits_longer_and_the_right_one_starts_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []

    async def note(seconds: float) -> None:
        waited.append(seconds)

    monkeypatch.setattr("fisher_agent.page.access.asyncio.sleep", note)
    guard = opened()
    for _ in range(8):
        assert not await guard.check("wrong")
    assert waited == [0.5, 1, 2, 4, 8, 8, 8, 8]
    assert await guard.check(TOKEN)
    assert len(waited) == 8, "the right token must not wait"
    assert not await guard.check("wrong")
    assert waited[-1] == 0.5


async def test_wrong_tokens_cannot_be_tried_side_by_side() -> None:
    guard = opened()
    tries = [asyncio.create_task(guard.check(f"wrong {n}")) for n in range(WAITING)]
    await asyncio.sleep(0)
    with pytest.raises(TooManyTries):
        await guard.check("wrong again")
    assert await asyncio.gather(*tries) == [False] * WAITING


@pytest.mark.parametrize("text", ["", "short", "x" * (MIN_TOKEN - 1), "pässwörter-länger", "line one of it\nline two"])
def test_a_weak_token_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "token"
    private(file, text + "\n")
    with pytest.raises(ConfigError, match=r"page\.token_file.*openssl rand"):
        Access.of(PageConfig(token_file=file), realm="r")


def test_without_a_file_there_is_no_token_and_a_missing_one_is_named(tmp_path: Path) -> None:
    assert Access.of(PageConfig(), realm="r") is None
    with pytest.raises(ConfigError, match=r"page\.token_file: .*nowhere cannot be read"):
        Access.of(PageConfig(token_file=tmp_path / "nowhere"), realm="r")


LOCAL = PageConfig()
OUTSIDE = PageConfig(
    bind="0.0.0.0",
    token_file=Path("t"),
    cert_file=Path("c"),
    key_file=Path("k"),
    hosts=("Edge-1.plant.example",),
)


@pytest.mark.parametrize(
    "header", ["127.0.0.1:8420", "localhost", "LOCALHOST:8420", "[::1]:8420", "127.0.0.1", "localhost."]
)
def test_loopback_names_are_ours(header: str) -> None:
    assert allowed_host(header, LOCAL)


@pytest.mark.parametrize(
    "header",
    ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:8420", "192.168.1.5:8420", "", ":8420", "a b",
     "user@localhost", "localhost/x", "localhost:port", "localhost:99999", "localhost:0", "[::1", "::1:8420", "0x7f.1",
     "localhost?x", "localhost#x", "127.1", "edge-1.plant.example"],
)  # fmt: skip
def test_other_names_are_not(header: str) -> None:
    assert not allowed_host(header, LOCAL)


def test_beyond_loopback_configured_names_and_addresses_are_ours() -> None:
    for header in ("edge-1.plant.example", "EDGE-1.plant.example:8420", "192.168.1.5:8420", "[fe80::1]:8420"):
        assert allowed_host(header, OUTSIDE)
    assert not allowed_host("edge-2.plant.example", OUTSIDE)


@given(st.text(max_size=60))
def test_no_header_breaks_the_check(header: str) -> None:
    allowed_host(header, LOCAL)


HEAD = 'site = "s"\nedge = "e"\n[page]\n'
FILES = 'token_file = "/t"\ncert_file = "/c"\nkey_file = "/k"\n'


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ('bind = "0.0.0.0"', "needs token_file"),
        ('bind = "::"\ntoken_file = "/t"', "in the clear"),
        ('bind = "192.168.1.5"\ncert_file = "/c"\nkey_file = "/k"', "needs token_file"),
        ("behind_proxy = true", "needs token_file"),
        ('behind_proxy = true\ntoken_file = "/t"', "needs hosts"),
        ('cert_file = "/c"', "belong together"),
        ('bind = "edge-1"', "must be an address"),
        ("port = 0", "greater than"),
        ('hosts = ["http://edge-1"]', "name of a host alone"),
        ('password = "secret"', "unknown key"),
    ],
)
def test_a_page_that_would_be_open_is_refused(keys: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as wrong:
        parse(HEAD + keys)
    assert all(problem.startswith("page") for problem in wrong.value.problems)


@pytest.mark.parametrize(
    "keys",
    ["", "enabled = false", 'bind = "localhost"', 'bind = "::1"', 'token_file = "/t"', 'bind = "0.0.0.0"\n' + FILES,
     'bind = "10.0.0.1"\ntoken_file = "/t"\nbehind_proxy = true\nhosts = ["a.b"]'],
)  # fmt: skip
def test_what_is_safe_is_accepted(keys: str) -> None:
    parse(HEAD + keys)


@pytest.mark.parametrize(("text", "said"), [(None, "cannot be read"), ("short", "at least 16")])
def test_check_names_a_token_file_that_cannot_serve_once(tmp_path: Path, text: str | None, said: str) -> None:
    if text is not None:
        private(tmp_path / "token", text)
    config = parse(f'state_dir = "{tmp_path}"\n{HEAD}token_file = "{tmp_path}/token"')
    with pytest.raises(ConfigError) as wrong:
        _check_files(config)
    (problem,) = wrong.value.problems
    assert problem.startswith("page.token_file: ") and said in problem
