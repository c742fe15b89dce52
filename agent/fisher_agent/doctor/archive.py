"""Gather, hide what must not leave the box, advise, and write it all into one archive."""

import io
import json
import os
import sqlite3
import tarfile
import time
import tomllib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fisher_agent import configfile as configuration
from fisher_agent.config import Config
from fisher_agent.doctor.advice import Advice, advise
from fisher_agent.doctor.parts import PARTS, Box
from fisher_agent.doctor.redact import Hidden
from fisher_agent.errors import ConfigError, FisherError
from fisher_agent.sources import check_topics

README = """What `fisher-agent doctor` found. Each part is a file; problems.json says what was not gathered, and why.
No secret is in here: files that hold one are never opened, and of the configuration only known keys are shown.
Look it through before you pass it on: names of machines, hosts and topics are in it.
"""
# A part may meet anything on a box that is broken, and a broken box is what this is for.
EXPECTED = (
    FisherError, OSError, sqlite3.Error, ValueError, ArithmeticError, LookupError, TypeError, AttributeError,
    ImportError,
)  # fmt: skip


@dataclass(slots=True)
class Findings:
    """What was found, part by part, and why a part is missing."""

    parts: dict[str, Any] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)


def examine(path: Path) -> tuple[Findings, list[Advice]]:
    """Gather everything that the configuration at `path` leads to, nothing hidden yet left out, and what to do."""
    hidden, findings = Hidden(), Findings()
    box, config_part = _box(path, hidden)
    findings.parts["config"] = config_part
    for name, part in PARTS.items():
        try:
            findings.parts[name] = _clean(part(box), hidden)
        except EXPECTED as error:
            findings.problems[name] = hidden.scrub(str(error) or type(error).__name__)
    return findings, advise(findings.parts, findings.problems)


def write(findings: Findings, advice: list[Advice], out: Path) -> None:
    """One tar.gz, readable by its owner alone; ConfigError where it is there already or cannot be written."""
    try:
        descriptor = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise ConfigError(f"{out} exists already; it is not overwritten") from error
    except OSError as error:
        raise ConfigError(f"{out} cannot be written: {error.strerror}; name another place with --out") from error
    root = "fisher-agent-doctor/"
    try:
        with os.fdopen(descriptor, "wb") as file, tarfile.open(fileobj=file, mode="w:gz") as archive:
            _add(archive, root + "README", README)
            _add(archive, root + "advice.json", [asdict(one) for one in advice])
            _add(archive, root + "problems.json", findings.problems)
            for name, content in findings.parts.items():
                _add(archive, f"{root}{name}.{'txt' if isinstance(content, str) else 'json'}", content)
    except OSError as error:
        with suppress(OSError):
            out.unlink()
        raise ConfigError(f"{out} cannot be written: {error.strerror}; name another place with --out") from error


def default_out() -> Path:
    """In the present folder, named by the time."""
    return Path(time.strftime("fisher-agent-doctor-%Y%m%dT%H%M%SZ.tar.gz", time.gmtime()))


def document(findings: Findings, advice: list[Advice], out: Path) -> dict[str, Any]:
    """What `--json` prints."""
    return {"archive": str(out), "advice": [asdict(one) for one in advice], "not_gathered": findings.problems}


def lines(document: Mapping[str, Any]) -> list[str]:
    """What a person reads: the advice, and where the archive is."""
    said = []
    for one in document["advice"]:
        said += [f"{one['symptom']}: {one['found']}", f"    {one['remedy']}"]
    said = said or ["nothing wrong was found"]
    said += [f"not gathered: {name}: {why}" for name, why in document["not_gathered"].items()]
    return [*said, f"written to {document['archive']}; it holds no secrets, but names of machines, hosts and topics"]


def _box(path: Path, hidden: Hidden) -> tuple[Box, dict[str, Any]]:
    """Where to look, and what may be shown of the configuration."""
    config: Config | None = None
    document: dict[str, Any] = {}
    problems: list[str] = []
    with suppress(OSError, ValueError):  # `load` says what is wrong with it
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    shown = hidden.config(document)  # first, so that no problem can quote what is hidden
    try:
        config = configuration.load(path)
        check_topics(config)
    except ConfigError as error:
        problems += error.problems
    except EXPECTED as error:
        problems.append(f"it could not be checked: {error}")
    stated = document.get("state_dir")
    state_dir = Path(stated) if isinstance(stated, str) else Config.model_fields["state_dir"].default
    box = Box(config, document, config.state_dir if config else state_dir)
    return box, {"path": str(path), "problems": [hidden.scrub(p) for p in problems], "document": shown}


def _clean(node: Any, hidden: Hidden) -> Any:
    """Every text in it scrubbed; what JSON cannot hold, as text."""
    if isinstance(node, dict):
        return {hidden.scrub(str(key)): _clean(value, hidden) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return [_clean(one, hidden) for one in node]
    return node if isinstance(node, int | float | bool | None) else hidden.scrub(str(node))


def _add(archive: tarfile.TarFile, name: str, content: Any) -> None:
    text = content if isinstance(content, str) else json.dumps(content, indent=1, ensure_ascii=False, default=str)
    body = text.encode(errors="replace")
    info = tarfile.TarInfo(name)
    info.size, info.mtime, info.mode = len(body), int(time.time()), 0o600
    archive.addfile(info, io.BytesIO(body))
