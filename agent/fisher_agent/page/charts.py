"""A machine's history as columns for the charts: scores thinned to what a screen can show, shares beside them."""

import math
from collections.abc import Sequence
from typing import Any

from fisher_agent.history import History, Thinned, with_gaps
from fisher_agent.shares import Share

MS = 1_000_000
MIN_SPAN_S, MAX_SPAN_S = 10, 40 * 86_400
MAX_POINTS = 1500
MAX_SHARES = 300
TREND_SPAN_NS = 3600 * 10**9
TREND_POINTS = 120


def charts(history: History, machine: str, *, until_ns: int, span_ns: int, points: int) -> dict[str, Any]:
    """Columns over [until - span, until), from the first score on; `until_ns` 0: up to the latest. Blocking."""
    until_ns = until_ns or history.latest_ns(machine) + 1
    since_ns = max(until_ns - span_ns, min(history.earliest_ns(machine), until_ns - MIN_SPAN_S * 10**9))
    rows = history.scores(machine, since_ns=since_ns, until_ns=until_ns, points=min(points, MAX_POINTS))
    shares = history.shares(machine, since_ns=since_ns, until_ns=until_ns, points=MAX_SHARES)
    return {
        "since": since_ns // MS,
        "until": until_ns // MS,
        "scores": _scores(with_gaps(rows)),
        "shares": _shares(shares),
    }


def trend(history: History, machine: str, *, until_ns: int) -> list[list[float]]:
    """[ms, largest score] over the last hour; for a line a centimetre high. Blocking."""
    until_ns = until_ns or history.latest_ns(machine) + 1
    rows = history.scores(machine, since_ns=until_ns - TREND_SPAN_NS, until_ns=until_ns, points=TREND_POINTS)
    return [[row.t_ns // MS, round(row.high, 4)] for row in rows if math.isfinite(row.high)]


def _scores(rows: Sequence[Thinned | None]) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {"t": [], "low": [], "high": [], "mean": [], "level": []}
    last_ms = 0
    for row in rows:
        if row is None:
            values: tuple[Any, ...] = (last_ms + 1, None, None, None, None)  # a hole begins right after the last score
        else:
            last_ms = row.t_ns // MS
            values = (last_ms, _shown(row.low), _shown(row.high), _shown(row.mean), row.level)
        for column, value in zip(columns.values(), values, strict=True):
            column.append(value)
    return columns


def _shown(value: float) -> float | None:
    """Null for what JSON cannot hold: a score may be infinite, where nothing that was enrolled is like it."""
    return round(value, 4) if math.isfinite(value) else None


def _shares(rows: Sequence[Share]) -> dict[str, Any]:
    """Per channel, and per band of each channel, a column as long as `t`; null where the row does not have it."""
    channels = sorted({c for row in rows for c in row.channels})
    bands = sorted({(c, b) for row in rows for c, found in row.bands.items() for b in found}, key=_order)
    return {
        "t": [row.t_ns // MS for row in rows],
        "channels": {c: [row.channels.get(c) for row in rows] for c in channels},
        "bands": [{"channel": c, "band": b, "values": [row.bands.get(c, {}).get(b) for row in rows]} for c, b in bands],
    }


def _order(key: tuple[str, str]) -> tuple[str, float]:
    channel, band = key
    low = band.partition("-")[0]
    return channel, float(low) if low.replace(".", "", 1).isdigit() else 0.0
