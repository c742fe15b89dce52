"""JSON of unknown origin: whatever is wrong with it is a ValueError, and what it gives can be shown, copied and kept.

Python's own parser raises RecursionError, too, and takes documents that nobody can write again: a few levels short of
its limit they fail in whoever looks at them next.
"""

import json
from typing import Any

MAX_DEPTH = 50  # our own documents have at most eight levels


def loads(text: str | bytes) -> Any:
    """The document; ValueError where it is none, or is nested deeper than `MAX_DEPTH`."""
    try:
        document = json.loads(text)
    except RecursionError as error:
        raise ValueError(f"nested deeper than {MAX_DEPTH} levels") from error
    level = [document] if isinstance(document, dict | list) else []
    for _ in range(MAX_DEPTH):
        inner = (child for node in level for child in (node.values() if isinstance(node, dict) else node))
        level = [child for child in inner if isinstance(child, dict | list)]
    if level:
        raise ValueError(f"nested deeper than {MAX_DEPTH} levels")
    return document


def shown(value: object) -> str:
    """A value as a message may repeat it: short, and of containers only what they are."""
    return f"a {type(value).__name__}" if isinstance(value, dict | list) else repr(value)[:42]
