"""Only bundles that the owner of a key signed: with signatures of the real minisign."""

import base64
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fisher_agent.app import find_bundle
from fisher_agent.configfile import parse
from fisher_agent.errors import ConfigError
from fisher_models import minisign
from fisher_models.bundle import load
from fisher_models.errors import BundleError
from servers.process import find_binary


def run(*arguments: str | Path) -> None:
    subprocess.run([find_binary("minisign", package="minisign"), *map(str, arguments)], check=True, capture_output=True)


def pair(folder: Path, name: str) -> tuple[Path, str]:
    """A secret key's file, and the public key."""
    secret, public = folder / f"{name}.key", folder / f"{name}.pub"
    run("-G", "-W", "-s", secret, "-p", public)
    return secret, public.read_text().splitlines()[1]


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    return pair(tmp_path_factory.mktemp("keys"), "owner")


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    return Path(shutil.copytree(load("fisher-tiny").path, tmp_path / "fisher-tiny"))


@pytest.fixture
def signed(copied: Path, keys: tuple[Path, str]) -> Path:
    run("-S", "-s", keys[0], "-m", copied / "manifest.json", "-t", "fisher-tiny of the press shop")
    return copied


@pytest.mark.parametrize("legacy", [False, True], ids=["prehashed", "legacy"])
def test_a_bundle_that_minisign_signed_is_accepted(copied: Path, keys: tuple[Path, str], legacy: bool) -> None:
    secret, public = keys
    run("-S", *(["-l"] if legacy else []), "-s", secret, "-m", copied / "manifest.json")
    assert load(copied, signed_by=public).digest == load(copied).digest


def test_no_signature_and_that_of_another_key_are_refused(tmp_path: Path, copied: Path, keys: tuple[Path, str]) -> None:
    with pytest.raises(
        BundleError, match=r"manifest\.json\.minisig cannot be read: .*only signed bundles are accepted"
    ):
        load(copied, signed_by=keys[1])
    secret, other = pair(tmp_path, "other")
    run("-S", "-s", secret, "-m", copied / "manifest.json")
    assert load(copied, signed_by=other)
    with pytest.raises(BundleError, match=r"made with another key \([0-9A-F]{16}, not [0-9A-F]{16}\)"):
        load(copied, signed_by=keys[1])
    # The key's id is no secret: somebody else may write it into a signature and a key of his own.
    sigfile = copied / "manifest.json.minisig"
    lines = sigfile.read_bytes().split(b"\n")
    first = base64.b64decode(lines[1])
    lines[1] = base64.b64encode(first[:2] + base64.b64decode(keys[1])[2:10] + first[10:])
    sigfile.write_bytes(b"\n".join(lines))
    with pytest.raises(BundleError, match="changed since it was signed"):
        load(copied, signed_by=keys[1])


def tamper_with_a_file(folder: Path) -> None:
    """As an attacker would who may write the folder: whole and consistent in itself."""
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["origin"] = "somewhere else"
    (folder / "manifest.json").write_text(json.dumps(manifest))


def tamper_with_the_comment(folder: Path) -> None:
    file = folder / "manifest.json.minisig"
    file.write_text(file.read_text().replace("press shop", "paint shop"))


def tamper_with_weights(folder: Path) -> None:
    with (folder / "weights.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x55")


@pytest.mark.parametrize(
    ("tamper", "said"),
    [
        (tamper_with_a_file, "changed since it was signed"),
        (tamper_with_the_comment, "changed since it was signed"),
        (tamper_with_weights, "is damaged"),
    ],
)
def test_what_was_changed_after_it_was_signed_is_refused(
    signed: Path, keys: tuple[Path, str], tamper: Callable[[Path], None], said: str
) -> None:
    assert load(signed, signed_by=keys[1])
    tamper(signed)
    with pytest.raises(BundleError, match=said):
        load(signed, signed_by=keys[1])


def test_the_configuration_names_the_key(signed: Path, keys: tuple[Path, str]) -> None:
    text = f'site = "s"\nedge = "e"\n[model]\nbundle = "{signed}"\nsigned_by = "{keys[1]}"'
    assert find_bundle(parse(text)).name == "fisher-tiny"
    tamper_with_a_file(signed)
    with pytest.raises(ConfigError, match=r"^model\.bundle: .*changed since it was signed"):
        find_bundle(parse(text))


@pytest.mark.parametrize(
    "key", ["", "RWQ", "untrusted comment: minisign public key", "RWU" + "A" * 53, "RWQ" + "A" * 54]
)
def test_a_key_that_is_none_is_refused(key: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"model\.signed_by: must be minisign's public key itself"):
        parse(f'site = "s"\nedge = "e"\n[model]\nsigned_by = {json.dumps(key)}')
    with pytest.raises(ValueError, match="no minisign public key"):
        minisign.verify(tmp_path / "manifest.json", b"", key)


def as_written(parts: tuple[bytes, bytes, bytes]) -> bytes:
    first, second, padding = parts
    lines = [
        b"untrusted comment: x",
        base64.b64encode(first) + padding,
        b"trusted comment: y",
        base64.b64encode(second),
    ]
    return b"\n".join([*lines, b""])


ALMOST = st.tuples(
    st.sampled_from([b"Ed", b"ED", b"XX"]).flatmap(
        lambda kind: st.integers(60, 90).map(lambda n: kind + base64.b64decode("A" * 12)[:8] + bytes(n - 10))
    ),
    st.integers(50, 70).map(bytes),
    st.sampled_from([b"", b"=", b"A"]),
).filter(lambda p: (len(p[0]), len(p[1]), p[0][:1], p[2]) != (74, 64, b"E", b""))


@given(st.binary(max_size=400) | ALMOST.map(as_written))
def test_strange_signatures_are_refused_in_words(tmp_path_factory: pytest.TempPathFactory, body: bytes) -> None:
    folder = tmp_path_factory.mktemp("strange")
    (folder / "manifest.json.minisig").write_bytes(body)
    with pytest.raises(BundleError, match="is no signature of minisign"):
        minisign.verify(folder / "manifest.json", b"{}", "RWQ" + "A" * 53)


def test_without_pynacl_the_message_says_what_to_install(
    signed: Path, keys: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "nacl.signing", None)
    with pytest.raises(BundleError, match=r"pip install 'fisher-agent\[signed\]'"):
        load(signed, signed_by=keys[1])
