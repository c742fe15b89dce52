"""Who made a bundle: a signature over its manifest, as `minisign -S -m manifest.json` makes it.

The formats are those of https://jedisct1.github.io/minisign/ ("Public key format", "Signature format"): Ed25519 over
the manifest itself ("Ed") or over its BLAKE2b-512 ("ED", what minisign writes since 0.10), and a second signature over
the first one and the trusted comment. The manifest holds the digests of the bundle's other files: all are covered.
"""

import base64
import binascii
import hashlib
import re
from pathlib import Path

from fisher_models.errors import BundleError

SUFFIX = ".minisig"
PUBLIC_KEY = re.compile(r"RW[QRST][A-Za-z0-9+/]{53}")  # "Ed", 8 bytes of id and 32 of key, in base64
MAX_BYTES = 16_384  # of a signature's file: four short lines
_FORM = re.compile(
    rb"untrusted comment: [^\n]*\n(?P<first>[A-Za-z0-9+/=]+)\r?\n"
    rb"trusted comment: (?P<comment>[^\n]*?)\r?\n(?P<second>[A-Za-z0-9+/=]+)\r?\n?"
)


def verify(manifest: Path, body: bytes, public_key: str) -> None:
    """Check the signature that lies beside a manifest against the bytes that were read from it.

    Raises BundleError where there is none, where it is none, of another key or of another manifest; ValueError for a
    public key that is none.
    """
    if not PUBLIC_KEY.fullmatch(public_key):
        raise ValueError("no minisign public key: 56 characters that begin with RW")
    try:
        from nacl.exceptions import BadSignatureError
        from nacl.signing import VerifyKey
    except ImportError as error:
        raise BundleError("signatures are checked by PyNaCl: pip install 'fisher-agent[signed]'") from error
    path = manifest.with_name(manifest.name + SUFFIX)
    parts = _FORM.fullmatch(_read(path))
    first, second = (_bytes(parts[name]) for name in ("first", "second")) if parts else (b"", b"")
    if parts is None or len(first) != 74 or len(second) != 64 or first[:2] not in (b"Ed", b"ED"):
        raise BundleError(f"{path} is no signature of minisign; sign again: minisign -S -m {manifest.name}")
    key = base64.b64decode(public_key)
    if first[2:10] != key[2:10]:
        raise BundleError(f"{path} was made with another key ({_shown(first)}, not {_shown(key)})")
    signed = hashlib.blake2b(body).digest() if first[:2] == b"ED" else body
    try:
        VerifyKey(key[10:]).verify(signed, first[10:])
        VerifyKey(key[10:]).verify(first[10:] + parts["comment"], second)
    except BadSignatureError as error:
        raise BundleError(f"{path} does not fit {manifest}: one of them was changed since it was signed") from error


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > MAX_BYTES or not path.is_file():  # a pipe would keep the start waiting
            return b""
        return path.read_bytes()
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}; only signed bundles are accepted here") from error


def _bytes(text: bytes) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        return b""


def _shown(key: bytes) -> str:
    """A key's id as minisign shows it."""
    return key[2:10][::-1].hex().upper()
