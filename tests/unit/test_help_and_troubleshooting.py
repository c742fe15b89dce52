"""Help needs no manual, and the troubleshooting page quotes only commands and messages that there are."""

import argparse
import ast
import re
import shlex
from functools import cache
from pathlib import Path

import pytest

import fisher_agent
from fisher_agent import clihelp
from fisher_agent.cli import parser
from fisher_agent.doctor.advice import DEGRADED

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "deploy" / "docs" / "troubleshooting.md").read_text()
README = (ROOT / "README.md").read_text()


def commands() -> dict[str, argparse.ArgumentParser]:
    found = next(a for a in parser()._actions if isinstance(a, argparse._SubParsersAction))
    return dict(found.choices)


def parses(command: str) -> argparse.Namespace:
    program, *arguments = shlex.split(command)
    assert program == "fisher-agent"
    return parser().parse_args(arguments)


# -- help -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", commands())
def test_every_command_and_every_option_is_described(name: str) -> None:
    sub = commands()[name]
    assert sub.description and len(sub.description) > 10
    for action in sub._actions:
        assert action.help and action.help != argparse.SUPPRESS, f"{name} {action.option_strings or action.dest}"


@pytest.mark.parametrize("name", commands())
def test_every_command_shows_an_example_that_works(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    example = clihelp.EXAMPLES[name]
    assert example.startswith(f"fisher-agent {name}")
    assert parses(example).act
    with pytest.raises(SystemExit) as end:
        parser().parse_args([name, "--help"])
    assert end.value.code == 0
    assert f"example: {example}" in capsys.readouterr().out


def test_no_example_is_of_a_command_that_is_gone() -> None:
    assert clihelp.EXAMPLES.keys() == commands().keys()


# -- the page ---------------------------------------------------------------------------------------------------------


def unwrapped(text: str) -> str:
    return " ".join(text.split())


def quoted_commands() -> list[str]:
    return sorted(
        {unwrapped(c) for c in re.findall(r"`(fisher-agent(?:\s[^`]+)?)`", re.sub(r"(?m)^\s*> .*$", "", PAGE))}
    )


def quoted_messages() -> list[str]:
    return re.findall(r"(?m)^\s*(?:- )?> (.+)$", PAGE)


@cache
def said() -> str:
    """Every piece of text in the agent's source, as it is put together; pieces are kept apart."""
    pieces = []
    for path in Path(fisher_agent.__file__).parent.rglob("*.py"):
        found = (node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant))
        pieces += [text for text in found if isinstance(text, str)]
    return "\0".join(pieces)


def test_there_is_something_to_check() -> None:
    assert len(quoted_commands()) > 15 and len(quoted_messages()) > 25


@pytest.mark.parametrize("command", quoted_commands())
def test_every_command_that_is_named_parses(command: str) -> None:
    if command != "fisher-agent":
        assert parses(command).act


@pytest.mark.parametrize("message", quoted_messages())
def test_every_message_that_is_quoted_is_one_of_ours(message: str) -> None:
    pieces = [piece.strip() for piece in message.split("...") if len(piece.strip(" ;:(),`")) > 3]
    assert pieces, "nothing but gaps"
    for piece in pieces:
        assert piece in said(), piece


def test_every_kind_of_degradation_has_an_entry() -> None:
    for kind in DEGRADED.keys() - {"store"}:
        assert f"`degraded: {kind}" in PAGE, kind
    assert "was damaged (" in PAGE, "which is what `store` says"


@pytest.mark.parametrize(
    "symptom",
    ["does not start", "not enrolled", "level is -1", "stale", "rejected", "false alarms", "Too sensitive",
     "mode is unknown", "broker refuses", "Acknowledging", "401", "outbox grows", "disk is full", "clock is not set",
     "High CPU", "page cannot be reached", "GPU is not used"],
)  # fmt: skip
def test_every_symptom_has_a_heading_and_a_command_that_shows_it(symptom: str) -> None:
    (entry,) = [e for e in re.split(r"(?m)^## ", PAGE)[1:] if symptom in e.partition("\n")[0]]
    assert "Shown by `" in entry


def test_keys_that_are_named_exist() -> None:
    shipped = (ROOT / "deploy" / "fisher-agent.toml").read_text()
    for key in re.findall(r"`(?:[a-z]+\.)?([a-z]+_[a-z_]+)(?: = [^`]*)?`", PAGE):
        known = re.search(rf"(?m)^(# )?{key} = ", shipped) or key in said()
        assert known, key


def test_the_readme_leads_to_it() -> None:
    assert "deploy/docs/troubleshooting.md" in README
