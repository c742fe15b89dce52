"""Secrets and TLS files that the configuration names: read when they are needed, never logged."""

import ssl
from pathlib import Path

from fisher_agent.config import MqttLink
from fisher_agent.errors import ConfigError


def secret(key: str, path: Path | None) -> str | None:
    """What a file holds, without the line end; None where no file is named. ConfigError names the key."""
    if path is None:
        return None
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{key}: {path} cannot be read: {error}") from error


def tls(where: str, link: MqttLink) -> ssl.SSLContext | None:
    """A context that verifies the broker, with our certificate if there is one; None for a link without TLS."""
    if not link.tls:
        return None
    try:
        context = ssl.create_default_context(cafile=str(link.ca_file) if link.ca_file else None)
        if link.cert_file:
            context.load_cert_chain(link.cert_file, link.key_file)
    except OSError as error:  # ssl.SSLError is one
        raise ConfigError(f"{where}: the TLS files cannot be used: {error}") from error
    return context
