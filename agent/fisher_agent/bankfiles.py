"""Bank files on disk: immutable versions written atomically, and a pointer to the active one.

    banks/<machine>/<version>/bank.safetensors
                             /waveforms.safetensors     what it was made from; may be missing
                             /manifest.json             sha256 of both, number, created_ms, and the caller's report
    banks/<machine>/active                              the name of a version

A version is complete or not there: it is written beside its place, flushed to the disk and renamed. Names that start
with a dot are unfinished or being removed, and are swept away at the next start. Reading needs no lock; who
writes holds the lock of state_dir (an open Store).
"""

import json
import re
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from fisher_agent.durable import sha256, sync, write
from fisher_agent.errors import BadFile, ConfigError, Unavailable
from fisher_agent.jsontext import loads

NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,63}")
BANK, WAVEFORMS, MANIFEST, ACTIVE = "bank.safetensors", "waveforms.safetensors", "manifest.json", "active"
LAST = 2**31
WAITS = "waits"  # in a manifest: the version was saved to be accepted, and was not active from the start
ACCEPTED = "accepted"  # an empty file beside such a manifest: it was made active since


class BankFiles:
    """The versions of every machine's bank. Machine and version names match `NAME`; ValueError otherwise."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def sweep(self) -> None:
        """Create the folder and remove what a crash left unfinished."""
        self._root.mkdir(mode=0o750, exist_ok=True)
        for left in (*self._root.glob(".*"), *self._root.glob("*/.*")):
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)

    def save(
        self,
        machine: str,
        version: str,
        *,
        data: bytes,
        manifest: Mapping[str, Any],
        waveforms: bytes | None = None,
        like: str | None = None,
    ) -> None:
        """Write a new version; it is not active yet. BadFile where it exists, Unavailable where the disk refuses.

        `like` is a version whose waveforms it shares, on the disk too, where it has any.
        """
        final = self._path(machine, version)
        if final.exists():
            raise BadFile(f"bank {version} of {machine} exists, and versions are immutable; save under another name")
        contents = {BANK: data} if waveforms is None else {BANK: data, WAVEFORMS: waveforms}
        document: dict[str, Any] = {
            **manifest,
            "version": version,
            "number": 1 + max((n for v in self.versions(machine) if (n := self._number(machine, v)) < LAST), default=0),
            "created_ms": time.time_ns() // 1_000_000,
            "files": {name: {"sha256": sha256(body), "bytes": len(body)} for name, body in contents.items()},
        }
        shared = self.manifest(machine, like)["files"].get(WAVEFORMS) if like else None
        if shared is not None:
            document["files"][WAVEFORMS] = shared
        contents[MANIFEST] = json.dumps(document, indent=1, ensure_ascii=False).encode()
        draft = final.with_name(f".{version}.draft")
        try:
            shutil.rmtree(draft, ignore_errors=True)
            draft.mkdir(mode=0o750, parents=True)
            for name, body in contents.items():
                write(draft / name, body)
            if like and shared is not None:
                (draft / WAVEFORMS).hardlink_to(self._path(machine, like) / WAVEFORMS)
            sync(draft)
            draft.rename(final)
            sync(final.parent)
            sync(self._root)
        except OSError as error:
            shutil.rmtree(draft, ignore_errors=True)
            raise Unavailable(f"bank {version} of {machine} cannot be written to {final}: {error}") from error

    def activate(self, machine: str, version: str) -> None:
        """Make a version the active one, atomically. BadFile where it is not there."""
        folder = self._path(machine, version)
        if not folder.is_dir():
            known = ", ".join(self.versions(machine)) or "none"
            raise BadFile(f"{machine} has no bank {version!r}; it has: {known}")
        draft = folder.parent / f".{ACTIVE}"
        try:
            if self._waits(machine, version):
                write(folder / ACCEPTED, b"")
                sync(folder)
            write(draft, version.encode())
            draft.replace(folder.parent / ACTIVE)
            sync(folder.parent)
        except OSError as error:
            raise Unavailable(f"bank {version} of {machine} cannot be made active: {error}") from error

    def active(self, machine: str) -> str | None:
        """The active version; None where the machine has none."""
        pointer = self._machine(machine) / ACTIVE
        try:
            version = pointer.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as error:
            raise BadFile(f"{pointer} cannot be read: {error}") from error
        if not NAME.fullmatch(version):
            raise BadFile(f"{pointer} names no version ({version[:40]!r}); choose one with `fisher-agent rollback`")
        return version

    def versions(self, machine: str) -> list[str]:
        """Every version, oldest first; those whose manifest is damaged stand last, so no rollback leads to one."""
        folder = self._machine(machine)
        if not folder.is_dir():
            return []
        names = [p.name for p in folder.iterdir() if p.is_dir() and NAME.fullmatch(p.name)]
        return sorted(names, key=lambda v: (self._number(machine, v), v))

    def manifest(self, machine: str, version: str) -> dict[str, Any]:
        """What was saved with it, and number, created_ms, files. BadFile where it is missing or damaged."""
        path = self._path(machine, version) / MANIFEST
        try:
            document = loads(path.read_bytes())
        except FileNotFoundError as error:
            raise BadFile(f"{machine} has no bank {version!r} ({path} is missing)") from error
        except (OSError, ValueError) as error:
            raise BadFile(f"{path} is damaged: {error}") from error
        if not isinstance(document, dict) or not isinstance(document.get("files"), dict):
            raise BadFile(f"{path} is damaged: it lists no files")
        return document

    def read(self, machine: str, version: str) -> bytes:
        """The bank, its digest verified; BadFile where it is missing, truncated or changed."""
        return self._verified(machine, version, BANK)

    def waveforms(self, machine: str, version: str) -> bytes | None:
        """The waveforms it was made from, verified; None where none were kept."""
        if WAVEFORMS not in self.manifest(machine, version)["files"]:
            return None
        return self._verified(machine, version, WAVEFORMS)

    def waveforms_file(self, machine: str, version: str) -> Path | None:
        """Where these waveforms lie, to read a part of them (`keptwaves`); None where none were kept."""
        path = self._path(machine, version) / WAVEFORMS
        return path if path.is_file() else None

    def before(self, machine: str) -> str:
        """The version that judged before the active one; ConfigError where there is none."""
        active = self.active(machine)
        if active is None:
            raise ConfigError(f"{machine} has no active bank; enrol it with `fisher-agent enroll --machine {machine}`")
        versions = [v for v in self.versions(machine) if v == active or not self._waits(machine, v)]
        at = versions.index(active) if active in versions else len(versions)
        if at == 0:
            raise ConfigError(f"{machine} has no bank before {active}; nothing to roll back to")
        return versions[at - 1]

    def waiting(self, machine: str) -> str | None:
        """The newest version that was saved to be accepted and is newer than the active one; None where none is.

        A version whose limits alone were refined is as new as the one that was enrolled.
        """
        base, versions = self.active(machine), self.versions(machine)
        if base not in versions:
            return next((v for v in reversed(versions) if self._waits(machine, v)), None)
        since = self.root(machine, base)
        newer = [v for v in versions if self._number(machine, v) > since]
        return next((v for v in reversed(newer) if v != base and self._waits(machine, v)), None)

    def root(self, machine: str, version: str) -> int:
        """The number of the version that a refined one goes back to; its own where it is none."""
        for _ in range(len(self.versions(machine))):  # not longer, or a damaged manifest could lead in a circle
            try:
                refined = self.manifest(machine, version).get("refined")
                before = refined.get("from") if isinstance(refined, dict) else None
                known = isinstance(before, str) and NAME.fullmatch(before) and self._path(machine, before).is_dir()
            except BadFile:
                break
            if not known:
                root = refined.get("root") if isinstance(refined, dict) else None
                return root if isinstance(root, int) else self._number(machine, version)
            version = str(before)
        return self._number(machine, version)

    def rollback(self, machine: str) -> str:
        """Make the version before the active one active and return it; ConfigError where there is none."""
        version = self.before(machine)
        self.activate(machine, version)
        return version

    def prune(self, machine: str, *, keep: int) -> list[str]:
        """Remove the oldest versions beyond so many; returns them. Where the disk refuses, they go another time.

        What judges, what judged before it, what waits to be accepted and what is damaged stay.
        """
        try:
            versions = [v for v in self.versions(machine) if self._number(machine, v) < LAST]
            stay = {self.active(machine), self.waiting(machine)}
            with suppress(ConfigError):
                stay.add(self.before(machine))
        except BadFile:  # nothing goes while it is unclear what is needed
            return []
        gone = [v for v in versions[: max(0, len(versions) - keep)] if v not in stay]
        for version in gone:
            path = self._path(machine, version)
            grave = path.with_name(f".{version}.gone")
            with suppress(OSError):
                path.rename(grave)
            shutil.rmtree(grave, ignore_errors=True)
        return [v for v in gone if not self._path(machine, v).exists()]

    def forget(self, machine: str) -> None:
        """Remove every version of a machine. It is gone in one step, even if the removal is cut short."""
        folder = self._machine(machine)
        grave = self._root / f".{machine}.forgotten"
        try:
            shutil.rmtree(grave, ignore_errors=True)
            folder.rename(grave)
            sync(self._root)
        except FileNotFoundError:
            return
        except OSError as error:
            raise Unavailable(f"the banks of {machine} cannot be removed from {folder}: {error}") from error
        shutil.rmtree(grave, ignore_errors=True)

    def _machine(self, machine: str) -> Path:
        if not NAME.fullmatch(machine):
            raise ValueError(f"{machine!r} is not a machine id")
        return self._root / machine

    def _path(self, machine: str, version: str) -> Path:
        if not NAME.fullmatch(version):
            raise ValueError(f"{version!r} is not a version: 1 to 64 of A-Z a-z 0-9 _ - .")
        return self._machine(machine) / version

    def _waits(self, machine: str, version: str) -> bool:
        """Whether it was saved to be accepted, and never was."""
        if (self._path(machine, version) / ACCEPTED).exists():
            return False
        try:
            return bool(self.manifest(machine, version).get(WAITS, False))
        except BadFile:
            return False

    def _number(self, machine: str, version: str) -> int:
        try:
            number = self.manifest(machine, version)["number"]
        except (BadFile, KeyError):
            return LAST
        return number if isinstance(number, int) else LAST

    def _verified(self, machine: str, version: str, name: str) -> bytes:
        path = self._path(machine, version) / name
        stated = self.manifest(machine, version)["files"].get(name)
        try:
            body = path.read_bytes()
        except OSError as error:
            raise BadFile(f"{path} cannot be read: {error}") from error
        if not isinstance(stated, dict) or stated.get("sha256") != sha256(body):
            size = stated.get("bytes") if isinstance(stated, dict) else "unknown"
            raise BadFile(
                f"{path} is damaged ({len(body)} bytes, written were {size}); "
                f"go back with `fisher-agent rollback --machine {machine}` or enrol again"
            )
        return body
