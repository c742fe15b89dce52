"""The page over its real server: what it lets in, and what it tells browsers to forbid."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fisher_agent.page import access, web
from fisher_agent.page.guard import HEADERS
from pageplant import Plant, ask, post, running_plant
from private import private

MILL = "mill-01"
TOKEN = "0123456789abcdef-a-token"


@pytest.fixture
async def plant(tmp_path: Path) -> AsyncIterator[Plant]:
    async with running_plant(tmp_path) as running:
        yield running


@pytest.fixture
async def locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Plant]:
    """A page with a token; wrong ones cost a millisecond."""
    monkeypatch.setattr(access, "FIRST_DELAY_S", 0.001)
    private(tmp_path / "token", TOKEN + "\n")
    async with running_plant(tmp_path, page=f'token_file = "{tmp_path}/token"') as running:
        yield running


async def test_every_answer_tells_browsers_to_trust_nothing_else(plant: Plant) -> None:
    for path in ("/", "/login", "/api/overview", "/static/page.css", "/nowhere", "/api/machines/none/charts"):
        answer = await ask(plant.port, path)
        assert {name: answer.headers.get(name) for name in HEADERS} == {n: [v] for n, v in HEADERS.items()}, path
        assert answer.headers["cache-control"] in (["no-store"], ["no-cache"])
        assert "server" not in answer.headers
    policy = HEADERS["content-security-policy"]
    assert "unsafe" not in policy and "default-src 'none'" in policy and "frame-ancestors 'none'" in policy


async def test_another_host_name_is_refused_whatever_is_asked(plant: Plant) -> None:
    for path in ("/", "/api/overview", "/api/live", "/static/main.js", "/login"):
        assert (await ask(plant.port, path, headers={"Host": "evil.example"})).status == 421
    assert (await post(plant.port, f"/api/machines/{MILL}/enroll-stop", {}, Host="evil.example")).status == 421


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": ""},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"},
        {"X-Fisher": ""},
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": ""},
    ],
)
async def test_a_post_that_may_be_forged_does_nothing(plant: Plant, headers: dict[str, str]) -> None:
    occurrence = await plant.raise_alarm(MILL)
    path = f"/api/machines/{MILL}/commands/ack"
    assert (await post(plant.port, path, {"occurrence": occurrence}, **headers)).status == 403
    assert not plant.agent.machines[MILL].alarms.anomaly.acked


async def test_another_site_can_fetch_nothing(plant: Plant) -> None:
    for path in ("/api/overview", "/api/live", f"/api/machines/{MILL}/charts", "/static/main.js"):
        answer = await ask(plant.port, path, headers={"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"})
        assert answer.status == 403
    follow = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert (await ask(plant.port, "/", headers=follow)).status == 200, "a link in a mail must work"


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"])
async def test_other_methods_are_refused(plant: Plant, method: str) -> None:
    assert (await ask(plant.port, "/api/overview", method=method)).status in (400, 405)


async def test_a_body_is_bounded_and_must_be_an_object(plant: Plant) -> None:
    path = f"/api/machines/{MILL}/commands/ack"
    assert (await post(plant.port, path, {"comment": "x" * web.MAX_BODY})).status == 413
    assert (await post(plant.port, path, [1])).status == 400
    ours = {"Content-Type": "application/json", "X-Fisher": "1", "Origin": f"http://127.0.0.1:{plant.port}"}
    for body in (b"{", b"\xff", b"[" * 5000):
        assert (await ask(plant.port, path, method="POST", headers=ours, body=body)).status == 400


async def test_static_files_stay_in_their_folder(plant: Plant) -> None:
    for path in (
        "/static/../web.py",
        "/static/%2e%2e/web.py",
        "/static/..%2fweb.py",
        "/static//etc/passwd",
        "/static/",
    ):
        assert (await ask(plant.port, path)).status == 404


# -- the token --------------------------------------------------------------------------------------------------------


async def test_with_a_token_nothing_is_shown_before_the_login(locked: Plant) -> None:
    for path in ("/api/overview", "/api/live", "/api/trends", f"/api/machines/{MILL}/charts", "/loginx", "/api/loginx"):
        assert (await ask(locked.port, path)).status == 401, path
    answer = await ask(locked.port, "/")
    assert (answer.status, answer.headers["location"]) == (303, ["/login"])
    assert (await ask(locked.port, "/login")).status == 200
    assert (await post(locked.port, f"/api/machines/{MILL}/enroll", {"duration_s": 10})).status == 401


async def test_the_login_gives_a_cookie_that_scripts_and_other_sites_never_see(locked: Plant) -> None:
    answer = await post(locked.port, "/api/login", {"token": TOKEN})
    (cookie,) = answer.headers["set-cookie"]
    assert TOKEN not in cookie
    assert {"HttpOnly", "SameSite=strict", "Path=/"} <= set(cookie.split("; "))
    session = cookie.partition(";")[0]
    assert session.startswith(f"fisher-{locked.port}=")
    assert (await ask(locked.port, "/api/overview", headers={"Cookie": session})).status == 200
    assert (await ask(locked.port, "/api/overview", headers={"Cookie": f"other=1; {session}"})).status == 200
    assert (await ask(locked.port, "/api/overview", headers={"Cookie": session[:-1]})).status == 401
    assert (await ask(locked.port, "/api/overview", headers={"Cookie": f"fisher-{locked.port}={TOKEN}"})).status == 401
    occurrence = await locked.raise_alarm(MILL)
    acked = await post(locked.port, f"/api/machines/{MILL}/commands/ack", {"occurrence": occurrence}, Cookie=session)
    assert acked.status == 200
    (ended,) = (await post(locked.port, "/api/logout", {}, Cookie=session)).headers["set-cookie"]
    assert "Max-Age=0" in ended


async def test_a_wrong_token_is_refused(locked: Plant) -> None:
    for token in ("", "wrong", TOKEN[:-1], None, 5, [TOKEN]):
        answer = await post(locked.port, "/api/login", {"token": token})
        assert answer.status == 401 and "set-cookie" not in answer.headers


async def test_a_program_may_hold_the_token_itself(locked: Plant) -> None:
    right, wrong = {"Authorization": f"Bearer {TOKEN}"}, {"Authorization": "Bearer wrong"}
    assert (await ask(locked.port, "/api/overview", headers=right)).status == 200
    for refused in (wrong, {"Authorization": TOKEN}, {"Authorization": "Basic " + TOKEN}, {"Authorization": "Bearer"}):
        assert (await ask(locked.port, "/api/overview", headers=refused)).status == 401
    occurrence = await locked.raise_alarm(MILL)
    path = f"/api/machines/{MILL}/commands/ack"
    assert (await post(locked.port, path, {"occurrence": occurrence}, Origin="", **wrong)).status == 403
    assert (await post(locked.port, path, {"occurrence": occurrence}, Origin="", **right)).status == 200


async def test_behind_tls_the_cookie_never_goes_in_the_clear(tmp_path: Path) -> None:
    private(tmp_path / "token", TOKEN)
    keys = f'token_file = "{tmp_path}/token"\nbehind_proxy = true\nhosts = ["edge-1.plant.example"]'
    async with running_plant(tmp_path, page=keys) as plant:
        ours = {"Host": "edge-1.plant.example", "Origin": "https://edge-1.plant.example"}
        answer = await post(plant.port, "/api/login", {"token": TOKEN}, **ours)
        assert "Secure" in answer.headers["set-cookie"][0]
