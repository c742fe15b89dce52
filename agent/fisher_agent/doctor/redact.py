"""A configuration as it may leave the box. Pure but for a look at whether a named file is there.

What is shown is chosen by what is known, not by what looks secret: an unknown key may hold a password under any name.
Whatever was hidden is also taken out of every other text (`Hidden.scrub`), for a message may quote it.
"""

import os
import re
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel

from fisher_agent.config import Config

HIDDEN = "(hidden)"
UNKNOWN = "(hidden: not a key of the configuration)"
NO_FILE = "(hidden: no such file; it may be the secret itself)"
NAME_SET = "(set)"  # user names are half of a credential, and that there is one is all that matters
FREE = frozenset({"values", "bands"})  # tables whose keys the user chooses
SHORTEST = 5  # what is shorter stands in innocent words, too
USERINFO = re.compile(r"(?<=://)[^\s'\"]+(?=@)")  # up to the last @: a password may hold / and @
NOT_A_URL = re.compile(r"(?<=:)[^\s'\"/:]+(?=@)")  # `mqtt:user:password@host`, which is refused, and quoted so


class Hidden:
    """What was hidden so far."""

    def __init__(self) -> None:
        self._values: set[str] = set()

    def config(self, document: dict[str, Any]) -> dict[str, Any]:
        """A copy of the TOML document that may be shown."""
        copy: dict[str, Any] = self._shown(document, known_keys(Config) | {"defaults"}, free=False)
        return copy

    def scrub(self, text: str) -> str:
        """A text without anything that was hidden, and without user and password in a URL."""
        for value in sorted(self._values, key=len, reverse=True):
            text = text.replace(value, HIDDEN)
        return NOT_A_URL.sub(HIDDEN, USERINFO.sub(HIDDEN, text))

    def _shown(self, node: Any, known: frozenset[str], *, free: bool) -> Any:
        if isinstance(node, list):
            return [self._shown(one, known, free=free) for one in node]
        if not isinstance(node, dict):
            return self._text(node) if isinstance(node, str) else node
        copy: dict[str, Any] = {}
        for key, value in node.items():
            if not free and key not in known:
                copy[key] = self._hide(value, UNKNOWN)
            elif key == "username":
                copy[key] = NAME_SET
            elif key.endswith("_file") and not _is_there(value):
                copy[key] = self._hide(value, NO_FILE)
            else:
                copy[key] = self._shown(value, known, free=free or key in FREE)
        return copy

    def _text(self, value: str) -> str:
        for pattern in (USERINFO, NOT_A_URL):
            for found in pattern.findall(value):
                self._hide(found.partition(":")[2] or found, "")
        return self.scrub(value)

    def _hide(self, value: Any, why: str) -> str:
        if isinstance(value, dict | list):
            for one in value.values() if isinstance(value, dict) else value:
                self._hide(one, why)
        elif len(text := str(value).strip("/")) >= SHORTEST:
            self._values.add(text)
        return why


def known_keys(model: type[BaseModel]) -> frozenset[str]:
    """Every key of a model and of the models in it, whatever section it stands in."""
    found: set[str] = set()
    for name, field in model.model_fields.items():
        found.add(name)
        for inner in _models(field.annotation):
            found |= known_keys(inner)
    return frozenset(found)


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in get_args(annotation) for model in _models(inner)]


def _is_there(value: Any) -> bool:
    """Whether it names a file, or a place in a folder that is there: people write the secret itself by mistake."""
    if not isinstance(value, str) or not value:
        return False
    path = Path(value)
    if os.access(path, os.F_OK):
        return True
    return path.is_absolute() and path.parent != Path("/") and os.access(path.parent, os.F_OK)
