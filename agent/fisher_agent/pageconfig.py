"""The configuration of what is shown and kept as evidence: the local page, captures."""

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator

from fisher_agent.configtypes import Strict

HOST_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")


class CaptureConfig(Strict):
    """The raw waveform around an alarm: what is remembered for it in memory, and kept on disk."""

    enabled: bool = True
    before_s: Annotated[float, Field(ge=0, le=3600)] = 60.0  # before the onset
    after_s: Annotated[float, Field(ge=0, le=3600)] = 30.0  # after the alarm was raised
    max_mb: Annotated[float, Field(ge=1, le=1_000_000)] = 1000.0  # on disk, over all machines
    ring_mb: Annotated[float, Field(ge=1, le=100_000)] = 64.0  # in memory, over all machines


class PageConfig(Strict):
    """The local page. Beyond loopback it needs a token, and TLS of its own or of a proxy before it."""

    enabled: bool = True
    bind: str = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65535)] = 8420
    token_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    behind_proxy: bool = False  # a proxy that ends TLS passes requests on
    hosts: tuple[str, ...] = ()  # names by which browsers reach it, beside loopback's and addresses

    @field_validator("bind")
    @classmethod
    def _bind(cls, bind: str) -> str:
        if bind == "localhost":
            return "127.0.0.1"
        try:
            return str(ipaddress.ip_address(bind))
        except ValueError as error:
            raise ValueError("must be an address of this box, such as 127.0.0.1, 0.0.0.0 or ::1") from error

    @field_validator("hosts")
    @classmethod
    def _hosts(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        for host in hosts:
            if not HOST_NAME.fullmatch(host.lower()):
                raise ValueError(f"{host!r} must be the name of a host alone, such as 'edge-1.plant.example'")
        return tuple(host.lower() for host in hosts)

    @model_validator(mode="after")
    def _exposure(self) -> Self:
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("cert_file and key_file belong together; give both or none")
        if not self.loopback and self.token_file is None:
            raise ValueError(f"bind = '{self.bind}' lets the network in: it needs token_file")
        if not self.loopback and not self.tls and not self.behind_proxy:
            raise ValueError(
                f"bind = '{self.bind}' would send the token in the clear: give cert_file and key_file, or set "
                "behind_proxy = true where a proxy ends TLS"
            )
        if self.behind_proxy and self.token_file is None:
            raise ValueError("behind_proxy = true lets in whoever reaches the proxy: it needs token_file")
        if self.behind_proxy and not self.hosts:
            raise ValueError("behind_proxy = true needs hosts, the names by which browsers reach the proxy")
        return self

    @property
    def loopback(self) -> bool:
        """Whether only this box can connect."""
        return ipaddress.ip_address(self.bind).is_loopback

    @property
    def tls(self) -> bool:
        """Whether the page itself speaks https."""
        return self.cert_file is not None
