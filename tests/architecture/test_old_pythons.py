"""What Debian 12's Python 3.11.2 does otherwise than later ones, and what a developer's newer one would never show."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_there_is_no_except_star() -> None:
    """Before 3.11.4 what is raised in it comes out wrapped in a group, which no caller expects (CPython gh-103590)."""
    for file in [*ROOT.glob("agent/**/*.py"), *ROOT.glob("models/**/*.py")]:
        lines = [n.lineno for n in ast.walk(ast.parse(file.read_text(encoding="utf-8"))) if isinstance(n, ast.TryStar)]
        assert not lines, f"{file}:{lines[0]}"
