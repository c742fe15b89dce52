"""Secrets and TLS files that the configuration names: who else could read them, and what they hold; never logged.

A path may be `credential:NAME`: systemd keeps such a file (LoadCredential= and the like, systemd.exec(5)) and shows it
to the service alone, in the folder that $CREDENTIALS_DIRECTORY names.
"""

import os
import pwd
import re
import shlex
import ssl
import stat
from pathlib import Path

from fisher_agent.config import Config, MqttConfig, MqttLink
from fisher_agent.errors import ConfigError

SCHEME = "credential:"
NAME = re.compile(r"(?!\.\.?$)[A-Za-z0-9._-]{1,255}")
SECRET_KEYS = frozenset({"password_file", "token_file", "key_file", "secret_key_file", "command_key_file"})
OTHERS = stat.S_IRWXG | stat.S_IRWXO
# systemd gives the service's user its right by an ACL, whose mask shows as the group's permission.
OTHERS_OF_CREDENTIAL = stat.S_IWGRP | stat.S_IXGRP | stat.S_IRWXO
ROOT = 0
MIN_COMMAND_KEY = 32
NOT_NOW, OTHER_NAME = {9, 10}, {62, 64}  # X509_V_ERR_* of openssl's x509_vfy.h


def located(key: str, path: Path) -> Path:
    """Where a configured file lies; ConfigError for a credential that systemd did not hand over."""
    text = str(path)
    if not text.startswith(SCHEME):
        return path
    name = text.removeprefix(SCHEME)
    if not NAME.fullmatch(name):
        raise ConfigError(f"{key}: {text!r} must be {SCHEME}NAME, and a name is letters, digits and . _ - alone")
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    if not folder:
        raise ConfigError(
            f"{key}: {text} is kept by systemd, which gave this process none; the unit needs LoadCredential={name}:FILE"
            f", and a command by hand `systemd-run --pipe -p LoadCredential={name}:FILE fisher-agent ...`"
        )
    return Path(folder) / name


def private(key: str, path: Path) -> Path:
    """As `located`, of a file that nobody but its owner may read; ConfigError names key, file, mode and the remedy."""
    file = located(key, path)
    try:
        _refuse_shared(key, file, file.stat())
    except OSError as error:
        raise ConfigError(f"{key}: {file} cannot be read: {error}") from error
    return file


def readable(key: str, path: Path, *, secret: bool) -> None:
    """ConfigError where this user cannot read a file, or others could read one that is `secret`."""
    file = private(key, path) if secret else located(key, path)
    if not os.access(file, os.R_OK):
        raise ConfigError(f"{key}: {file} cannot be read by this user ({_user(os.geteuid())})")


def secret(key: str, path: Path | None) -> str | None:
    """What a private file holds, without the line end; None where no file is named. ConfigError names the key."""
    if path is None:
        return None
    file = located(key, path)
    try:
        with file.open("rb") as opened:
            _refuse_shared(key, file, os.fstat(opened.fileno()))  # of what is read, not of what the name meant before
            return opened.read().decode().strip()
    except OSError as error:
        raise ConfigError(f"{key}: {file} cannot be read: {error}") from error
    except UnicodeDecodeError:
        # Without the cause: it quotes what it could not read.
        raise ConfigError(f"{key}: {file} cannot be read: it holds no UTF-8 text") from None


def command_key(config: MqttConfig) -> bytes | None:
    """The key that commands are signed with; None where they need not be. ConfigError where it could be guessed."""
    text = secret("mqtt.command_key_file", config.command_key_file)
    if text is None:
        return None
    if len(text) < MIN_COMMAND_KEY or not text.isascii() or not text.isprintable():
        raise ConfigError(
            f"mqtt.command_key_file: {config.command_key_file} must hold at least {MIN_COMMAND_KEY} printable ASCII "
            "characters; make them with `openssl rand -hex 32`"
        )
    return text.encode()


def unused(config: Config) -> list[str]:
    """What is configured to protect a link and does nothing: whoever wrote it believes that it does."""
    links: list[tuple[str, MqttLink]] = [("mqtt", config.mqtt)] if config.mqtt is not None else []
    links += [(f"sources[{n}]", source) for n, source in enumerate(config.sources) if isinstance(source, MqttLink)]
    said = []
    for where, link in links:
        if link.password_file is not None and link.username is None:
            said.append(f"{where}.password_file needs username")
        if link.key_file is not None and link.cert_file is None:
            said.append(f"{where}.key_file needs cert_file")
        files = [key for key in ("ca_file", "cert_file") if getattr(link, key) is not None and not link.tls]
        said += [f"{where}.{key} does nothing for {link.url}, which is not encrypted; write mqtts://" for key in files]
    if (db := config.influx) is not None:
        if db.password_file is not None and db.username is None:
            said.append("influx.password_file needs username")
        if db.token_file is not None and db.username is not None:
            said.append("influx.token_file does nothing beside username; leave one of them out")
        if db.ca_file is not None and db.url.startswith("http:"):
            said.append(f"influx.ca_file does nothing for {db.url}, which is not encrypted; write https://")
    return said


def tls(where: str, link: MqttLink) -> ssl.SSLContext | None:
    """A context that verifies the broker, with our certificate if there is one; None for a link without TLS.

    `where` goes before the names of keys: "mqtt.", "source 'plant': ".
    """
    if not link.tls:
        return None
    context = ssl.create_default_context(cafile=authority(f"{where}ca_file", link.ca_file))
    context.sslsocket_class = _ClosedIfRefused
    if link.cert_file:
        # A certificate's file may hold the key as well, and then is the secret.
        own_key = private(f"{where}key_file", link.key_file) if link.key_file else None
        place = located if own_key else private
        try:
            context.load_cert_chain(place(f"{where}cert_file", link.cert_file), own_key)
        except OSError as error:  # ssl.SSLError is one
            raise ConfigError(f"{where}cert_file and key_file cannot be used for TLS: {error}") from error
    return context


def authority(key: str, path: Path | None) -> str | None:
    """The file of authorities that servers are verified by; None: those of the system. ConfigError if it is none."""
    if path is None:
        return None
    file = str(located(key, path))
    try:
        ssl.create_default_context(cafile=file)
    except OSError as error:
        raise ConfigError(f"{key}: {file} cannot be used for TLS: {error}") from error
    return file


class _ClosedIfRefused(ssl.SSLSocket):
    """paho forgets the socket of a failed handshake; it would stay open until the garbage collector comes."""

    def do_handshake(self, block: bool = False) -> None:
        """As the base class, which leaves the socket open where it fails."""
        try:
            super().do_handshake(block)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except OSError:
            self.close()
            raise


def tls_remedy(error: BaseException) -> str:
    """What to change where TLS failed, as `; ...`; "" where something else did. Looks behind what wraps the error."""
    seen: list[BaseException] = [error]
    for outer in seen:
        behind = (outer.__cause__, outer.__context__, getattr(outer, "reason", None), *outer.args)
        seen += [e for e in behind if isinstance(e, BaseException) and e not in seen]
    unverified = next((e for e in seen if isinstance(e, ssl.SSLCertVerificationError)), None)
    if unverified is not None:
        if unverified.verify_code in NOT_NOW:
            return "; its certificate is not valid today: renew it there, or set this box's clock"
        if unverified.verify_code in OTHER_NAME:
            return "; its certificate is for another name: use that name in url, or have one made for this one"
        return "; if it is the right server, name the authority that signed its certificate in ca_file"
    if "_ALERT_" in str(error):
        return "; if it wants a client certificate, name one that it trusts in cert_file and key_file"
    return ""


def _refuse_shared(key: str, file: Path, found: os.stat_result) -> None:
    kept = os.environ.get("CREDENTIALS_DIRECTORY")
    by_systemd = bool(kept) and file.resolve().parent == Path(str(kept)).resolve()
    mode, quoted = stat.S_IMODE(found.st_mode), shlex.quote(str(file))
    if mode & (OTHERS_OF_CREDENTIAL if by_systemd else OTHERS):
        raise ConfigError(
            f"{key}: {file} has mode {mode:04o}: others on this box may use this secret; `chmod 600 {quoted}`"
        )
    # Root runs `check` and `enroll` for a service whose user it cannot know, and may read everything as it is.
    me = os.geteuid()
    if found.st_uid not in (ROOT, me) and me != ROOT:
        raise ConfigError(
            f"{key}: {file} (mode {mode:04o}) belongs to {_user(found.st_uid)}, who may read and replace this secret; "
            f"`chown {_user(me)} {quoted} && chmod 600 {quoted}`"
        )


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
