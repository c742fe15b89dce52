"""What every request passes before the page sees it: Host, session, origin; and what every answer says to browsers.

Host names other than our own are refused (DNS rebinding); what changes something must come from our own page, as JSON
and with a header that no form can send (CSRF); nothing of another site may fetch anything (Fetch Metadata).
"""

import time
from collections.abc import Iterable
from http.cookies import CookieError, SimpleCookie
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fisher_agent.page.access import Access, TooManyTries
from fisher_agent.pageconfig import PageConfig

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
OPEN_PATHS = frozenset({"/login", "/api/login"})  # with /static/, what is needed before there is a session
HEADER = "x-fisher"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}


def cookie_name(config: PageConfig) -> str:
    """Cookies know no ports, so the name does: two agents may share a host."""
    return f"fisher-{config.port}"


def allowed_host(header: str, config: PageConfig) -> bool:
    """Whether a Host header names us. An address cannot be rebound; a name must be loopback's or configured."""
    try:
        parts = urlsplit(f"//{header}")
        host = (parts.hostname or "").removesuffix(".")
        valid = parts.port is None or parts.port > 0
    except ValueError:
        return False
    if not valid or not host or parts.username is not None or parts.path or parts.query or parts.fragment:
        return False
    if host in LOOPBACK or host in config.hosts:
        return True
    try:
        ip_address(host)
    except ValueError:
        return False
    return not config.loopback


class Guard:
    """ASGI middleware around the page."""

    def __init__(self, app: ASGIApp, config: PageConfig, access: Access | None) -> None:
        self._app = app
        self._config = config
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, or pass on; either way with the headers."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def dressed(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                headers.setdefault("cache-control", "no-store")
            await send(message)

        refusal = await self._refusal(scope)
        await (refusal or self._app)(scope, receive, dressed)

    async def _refusal(self, scope: Scope) -> Response | None:
        headers, method, path = Headers(scope=scope), scope["method"], scope["path"]
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not allowed_host(hosts[0], self._config):
            return refuse(421, "this host name is not one of the agent's; add it to page.hosts")
        if method not in ("GET", "HEAD", "POST"):
            return refuse(405, "only GET, HEAD and POST")
        site = headers.get("sec-fetch-site", "")
        if site not in ("", "same-origin", "none") and headers.get("sec-fetch-mode") != "navigate":
            return refuse(403, "another site may not ask for this")
        try:
            bearer = await self._bearer(headers)
        except TooManyTries:
            return refuse(429, "too many wrong tokens; try again in a moment")
        if method == "POST" and (problem := self._forged(headers, hosts[0], bearer=bearer)):
            return refuse(403, problem)
        opened = path in OPEN_PATHS or path.startswith("/static/")
        if opened or bearer or self._access is None or self._session(headers):
            return None
        if path == "/":
            return RedirectResponse("/login", status_code=303)
        return refuse(401, "log in first")

    async def _bearer(self, headers: Headers) -> bool:
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if self._access is None or scheme.lower() != "bearer":
            return False
        return await self._access.check(token.strip())

    def _session(self, headers: Headers) -> bool:
        assert self._access is not None
        try:
            cookies = SimpleCookie("; ".join(headers.getlist("cookie")))
        except CookieError:
            return False
        found = cookies.get(cookie_name(self._config))
        return found is not None and self._access.valid(found.value, now_s=time.time())

    @staticmethod
    def _forged(headers: Headers, host: str, *, bearer: bool) -> str:
        """Why a POST may not have come from our own page; "" where it did, or from a program that holds the token."""
        if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            return "send application/json"
        if not headers.get(HEADER):
            return f"send the header {HEADER}"
        site, origins = headers.get("sec-fetch-site"), headers.getlist("origin")
        if site is None and not origins:
            return "" if bearer else "no Origin: only a browser on this page, or a program with the token, may do this"
        if site not in (None, "same-origin"):
            return "another site may not do this"
        return "" if _same(origins, host) else "another origin may not do this"


def _same(origins: Iterable[str], host: str) -> bool:
    try:
        return all(urlsplit(origin).netloc.lower() == host.lower() for origin in origins)
    except ValueError:  # such as an address that is none
        return False


def refuse(status: int, error: str) -> Response:
    """A refusal that a person can read."""
    return JSONResponse({"error": error}, status_code=status)
