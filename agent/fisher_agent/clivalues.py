"""What options of the command line hold: parsed, or refused with what would be right."""

import argparse
import re
from collections.abc import Sequence

from fisher_agent.errors import ConfigError


def renames(pairs: Sequence[str]) -> dict[str, str]:
    """MODE=NAME ... -> old name to new one."""
    if wrong := [p for p in pairs if p.count("=") != 1]:
        raise ConfigError(f"--rename {wrong[0]!r}: write MODE=NAME, such as m1=idle")
    return dict(p.split("=") for p in pairs)


def duration(text: str) -> float:
    """Seconds, of `90s`, `10m` or `1h`."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|m|h)?", text)
    if not found or float(found[1]) <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a duration; write 90s, 10m or 1h")
    return float(found[1]) * {"s": 1, "m": 60, "h": 3600, None: 1}[found[2]]


def seconds(text: str) -> float:
    """As `duration`, of an hour at most."""
    value = duration(text)
    if value > 3600:
        raise argparse.ArgumentTypeError("at most an hour")
    return value
