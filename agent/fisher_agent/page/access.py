"""Who may look and act: the token, sessions derived from it, and what guessing costs.

A session is `<expiry>.<HMAC>` under a key derived from the token (scrypt, RFC 7914): the token itself is in no cookie,
nothing is stored, a session outlives a restart, and another token ends every session.
"""

import asyncio
import hashlib
import hmac
import time
from contextlib import suppress

from fisher_agent.credentials import secret
from fisher_agent.errors import ConfigError
from fisher_agent.pageconfig import PageConfig

MIN_TOKEN = 16
SESSION_S = 12 * 3600
FIRST_DELAY_S = 0.5
LONGEST_DELAY_S = 8.0
FORGIVEN_AFTER_S = 60.0
WAITING = 4  # wrong tokens that wait for their answer at a time; more are not even looked at


class TooManyTries(Exception):
    """Others are being refused right now; try again in a moment."""


class Access:
    """Checks tokens and sessions. `realm` tells the agents of one host apart."""

    def __init__(self, token: str, *, realm: str) -> None:
        self._digest = hashlib.sha256(token.encode()).digest()
        self._key = hashlib.scrypt(token.encode(), salt=f"fisher-agent {realm}".encode(), n=2**14, r=8, p=1, dklen=32)
        self._failures = 0
        self._failed_s = 0.0
        self._waiting = 0

    @classmethod
    def of(cls, config: PageConfig, *, realm: str) -> "Access | None":
        """From the token file; None where none is named. ConfigError where it cannot be a token."""
        token = secret("page.token_file", config.token_file)
        if token is None:
            return None
        if len(token) < MIN_TOKEN or not token.isascii() or not token.isprintable():
            raise ConfigError(
                f"page.token_file: {config.token_file} must hold at least {MIN_TOKEN} printable ASCII characters; "
                "make one with `openssl rand -hex 32`"
            )
        return cls(token, realm=realm)

    async def check(self, token: str) -> bool:
        """Whether it is the token. A wrong one is answered late, the later the more there were; TooManyTries."""
        if self._waiting >= WAITING:
            raise TooManyTries
        if hmac.compare_digest(hashlib.sha256(token.encode(errors="replace")).digest(), self._digest):
            self._failures = 0
            return True
        now_s = time.monotonic()
        self._failures = self._failures + 1 if now_s - self._failed_s < FORGIVEN_AFTER_S else 1
        self._failed_s = now_s
        self._waiting += 1
        try:
            await asyncio.sleep(min(LONGEST_DELAY_S, FIRST_DELAY_S * 2 ** min(self._failures - 1, 10)))
        finally:
            self._waiting -= 1
        return False

    def session(self, *, now_s: float) -> str:
        """A new session's value."""
        expiry = str(int(now_s) + SESSION_S)
        return f"{expiry}.{self._sign(expiry)}"

    def valid(self, session: str, *, now_s: float) -> bool:
        """Whether a session's value was issued with this token and has not expired."""
        expiry, _, signature = session.partition(".")
        if not hmac.compare_digest(signature.encode(errors="replace"), self._sign(expiry).encode()):
            return False
        with suppress(ValueError):
            return now_s < int(expiry)
        return False

    def _sign(self, expiry: str) -> str:
        return hmac.new(self._key, f"session {expiry}".encode(errors="replace"), hashlib.sha256).hexdigest()
