"""What Debian 12's Python 3.11.2 does otherwise than later ones, and what a developer's newer one would never show."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_nothing_is_raised_in_an_except_star() -> None:
    """Before 3.11.4 it comes out wrapped in a group, which no `except` of the callers knows (CPython gh-103590)."""
    for file in [*ROOT.glob("agent/**/*.py"), *ROOT.glob("models/**/*.py")]:
        tries = [n for n in ast.walk(ast.parse(file.read_text(encoding="utf-8"))) if isinstance(n, ast.TryStar)]
        for node in (part for one in tries for handler in one.handlers for part in ast.walk(handler)):
            assert not isinstance(node, ast.Raise), f"{file}:{node.lineno}"
