"""A certificate authority of a test: certificates for servers on the loopback, and for clients, by openssl."""

import subprocess
from pathlib import Path

from servers.process import find_binary

NEW_KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]  # openssl writes it with mode 0600
LEAF = "basicConstraints=CA:FALSE\nsubjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\nsubjectAltName={}\n"


class Authority:
    """`authority.file` is what trusts everything that `issue` made."""

    def __init__(self, folder: Path, name: str = "plant") -> None:
        self._folder = folder
        self._name = name
        self.file = folder / f"{name}-ca.pem"
        self._key = folder / f"{name}-ca.key"
        subject = ["-subj", f"/CN={name} authority", "-addext", "keyUsage=critical,keyCertSign,cRLSign"]
        _openssl("req", "-x509", *NEW_KEY, "-days", "2", *subject, "-keyout", self._key, "-out", self.file)

    def issue(self, name: str, *, names: str = "IP:127.0.0.1,DNS:localhost") -> tuple[Path, Path]:
        """The certificate and the key of a server or a client called `name`, valid for `names`."""
        stem = self._folder / f"{self._name}-{name}"
        key, request, certificate = (stem.with_suffix(s) for s in (".key", ".csr", ".pem"))
        stem.with_suffix(".ext").write_text(LEAF.format(names))
        _openssl("req", *NEW_KEY, "-subj", f"/CN={name}", "-keyout", key, "-out", request)
        signed_by = ["-CA", self.file, "-CAkey", self._key, "-CAcreateserial", "-days", "2"]
        _openssl("x509", "-req", "-in", request, *signed_by, "-extfile", stem.with_suffix(".ext"), "-out", certificate)
        return certificate, key


def _openssl(*arguments: str | Path) -> None:
    subprocess.run([find_binary("openssl", package="openssl"), *arguments], check=True, capture_output=True)
