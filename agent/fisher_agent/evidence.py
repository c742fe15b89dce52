"""Why a verdict is what it is, in what an engineer knows: the explanation that goes with a capture. Pure.

Every number stands beside what the enrolment had: its median, and the 5 % and 95 % quantiles. What is not known is
null, and `notes` say why.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fisher_agent import orders
from fisher_agent.bank import Bank, ChannelBank
from fisher_agent.calibrate import Doubles
from fisher_agent.config import MachineConfig
from fisher_agent.features import FEW
from fisher_agent.indicators import third_octave_levels
from fisher_agent.stages import ChannelReading, Verdict, Window
from fisher_models.indicators import POWER_BANDS

QUANTILES = (0.05, 0.5, 0.95)
FEATURE_FLOOR = 1e-12  # added to the mean square before its logarithm; see fisher_models.indicators
LOOKED_AT = 15  # enrolled windows whose envelope spectra are taken: a median of fewer wanders

Windows = Mapping[str, Window]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """What there is to explain with."""

    machine: MachineConfig
    verdict: Verdict
    windows: Windows  # those of the verdict, by channel
    bank: Bank | None = None  # that it was judged by
    enrolled: Sequence[Windows] = ()  # some moments of the enrolment
    notes: tuple[str, ...] = ()


def look_at(bank: Bank) -> list[int]:
    """Grid times of the enrolment whose waveforms are wanted: evenly spread ones."""
    ends_ns = np.unique(np.concatenate([c.end_ns for c in bank.channels]))
    spread = ends_ns[np.linspace(0, len(ends_ns) - 1, min(LOOKED_AT, len(ends_ns))).round().astype(int)]
    return sorted(set(spread.tolist()))


def explain(scene: Scene, *, files: Mapping[str, str]) -> dict[str, Any]:
    """The explanation, ready for JSON; `files` name the nearest enrolled window's waveform by channel."""
    verdict = scene.verdict
    top = verdict.top if verdict.scored else None
    peak = top.peak_band if top else None
    peaks, notes = _peaks(scene)
    return {
        "top_channel": top.channel if top else "",
        "top_share": top.contribution if top else 0.0,
        "top_band_hz": [peak.hz_low, peak.hz_high] if peak else [],
        "top_change_db": peak.change_db if peak else 0.0,
        "fault": verdict.fault or "",
        "fault_confidence": verdict.fault_confidence,
        "faults": dict(verdict.faults),
        "nearest": [_nearest(r, scene.bank, files) for r in verdict.readings if r.nearest_ns],
        "indicators": {r.channel: _indicators(r, scene) for r in verdict.readings},
        "octaves": {c: o for c, w in scene.windows.items() if (o := _octaves(w, verdict, scene.bank))},
        "peaks": peaks,
        "notes": [*scene.notes, *notes],
    }


def unexplained(*notes: str) -> dict[str, Any]:
    """An explanation of nothing, with every key, and why."""
    return {
        "top_channel": "",
        "top_share": 0.0,
        "top_band_hz": [],
        "top_change_db": 0.0,
        "fault": "",
        "fault_confidence": 0.0,
        "faults": {},
        "nearest": [],
        "indicators": {},
        "octaves": {},
        "peaks": [],
        "notes": list(notes),
    }


def reading_object(reading: ChannelReading) -> dict[str, Any]:
    """What a channel contributed, ready for JSON."""
    return {
        "distance": reading.distance,
        "deviation": reading.deviation,
        "ratio": reading.ratio,
        "contribution": reading.contribution,
        "rms": reading.rms,
        "peak": reading.peak,
        "crest": reading.crest,
        "kurtosis": reading.kurtosis,
        "velocity_rms_mm_s": reading.velocity_rms_mm_s,
        "mean": reading.mean,
        "flat": reading.flat,
        "clipped": reading.clipped,
        "bands": list(reading.bands),
        "band_edges_hz": [list(edges) for edges in reading.band_edges_hz],
        "nearest_ns": reading.nearest_ns,
    }


def verdict_object(verdict: Verdict | None, *, window_s: float) -> dict[str, Any]:
    """The verdict, ready for JSON; score -1 where there is none."""
    scored = verdict is not None and verdict.scored
    return {
        "t_ns": verdict.t_ns if verdict else 0,
        "score": verdict.score if verdict and scored else -1.0,
        "p_value": verdict.p_value if verdict and scored else -1.0,
        "window_s": window_s,
        "mode": (verdict.mode or "") if verdict else "",
        "quality": str(verdict.quality) if verdict else "",
        "readings": {r.channel: reading_object(r) for r in verdict.readings} if verdict else {},
    }


def _nearest(reading: ChannelReading, bank: Bank | None, files: Mapping[str, str]) -> dict[str, Any]:
    """The nearest enrolled window; its distance is that of the view that decided, with its limit beside it."""
    known = _channel(bank, reading.channel)
    seen = reading.distance / known.limit if known and known.n_bands else -1.0
    by_embedding = reading.deviation < 0 or (
        bank is not None and bank.judged_by != "indicators" and seen >= reading.ratio
    )
    return {
        "channel": reading.channel,
        "t_ns": reading.nearest_ns,
        "distance": reading.distance if by_embedding else reading.deviation,
        "limit": None if known is None else known.limit if by_embedding else known.feature_limit,
        "view": "embedding" if by_embedding else "indicators",
        "file": files.get(reading.channel, ""),
    }


def _indicators(reading: ChannelReading, scene: Scene) -> dict[str, Any]:
    config = scene.machine.channel(reading.channel)
    known = enrolled_indicators(scene.bank, reading.channel)
    now: dict[str, tuple[float | None, str]] = {
        "mean": (reading.mean, config.unit),
        "rms": (reading.rms, config.unit),
        "velocity_rms": (reading.velocity_rms_mm_s, "mm/s"),
        "crest": (reading.crest, ""),
        "kurtosis": (reading.kurtosis, ""),
    }
    found: dict[str, Any] = {}
    for name, (value, unit) in now.items():
        if value is None or not math.isfinite(value):
            continue
        low, median, high = np.quantile(known[name], QUANTILES).tolist() if name in known else (None, None, None)
        found[name] = {
            "now": value, "enrolled": median, "enrolled_low": low, "enrolled_high": high, "unit": unit
        }  # fmt: skip
    return found


def enrolled_indicators(bank: Bank | None, channel: str) -> dict[str, Doubles]:
    """Name -> values (n,) over the enrolled windows, in the channel's unit, as far as the bank holds them."""
    known = _channel(bank, channel)
    if known is None:
        return {}
    found: dict[str, Doubles] = {}
    features = known.features.astype(np.float64)  # (n, k)
    k = features.shape[1]
    if k == FEW:
        found = {"mean": features[:, 0] / known.gain, "rms": features[:, 1] / known.gain}
    elif k > FEW:
        at = k - 3  # level, kurtosis and crest stand last; the mean, where it counts, first
        if at > POWER_BANDS:
            found["mean"] = features[:, 0] / known.gain
        square = np.maximum(10 ** (2 * features[:, at]) - FEATURE_FLOOR, 0)
        found |= {"rms": np.sqrt(square) / known.gain, "kurtosis": features[:, at + 1], "crest": features[:, at + 2]}
    if known.velocity_mm_s.size:
        found["velocity_rms"] = known.velocity_mm_s.astype(np.float64)
    return found


def _octaves(window: Window, verdict: Verdict, bank: Bank | None) -> dict[str, Any]:
    """Third-octave levels now, usually, and in the nearest enrolled window, in dB re unit²."""
    known = _channel(bank, window.channel)
    if known is None or not len(known.octave_hz):
        return {}
    now = third_octave_levels(
        window.samples, window.rate_hz, centres_hz=known.octave_hz, floor=known.octave_floor
    )  # fmt: skip
    nearest_ns = next((r.nearest_ns for r in verdict.readings if r.channel == window.channel), 0)
    at = np.flatnonzero(known.end_ns == nearest_ns) if nearest_ns else np.zeros(0, np.intp)
    return {
        "hz": _rounded(known.octave_hz),
        "now_db": _rounded(now),
        "enrolled_db": _rounded(np.median(known.octave_db, axis=0)),
        "nearest_db": _rounded(known.octave_db[at[0]]) if len(at) else [],
        "spread_db": _rounded(known.octave_spread_db),
    }


def _peaks(scene: Scene) -> tuple[list[dict[str, Any]], list[str]]:
    """Envelope-spectrum levels at the frequencies of shafts and bearings, with the median of the enrolled windows."""
    lines = orders.lines_of(scene.machine)
    wanted = {c: ls for c, ls in lines.items() if c in scene.windows}
    if not wanted:
        return [], []
    speed_hz = orders.shaft_hz(scene.machine, scene.windows)
    if speed_hz is None:
        return [], [f"the speed channel {scene.machine.speed_channel} gave nothing; no peaks are shown"]
    notes: list[str] = []
    usual: dict[tuple[str, str], list[float]] = {}
    for windows in scene.enrolled:
        then_hz = orders.shaft_hz(scene.machine, windows)
        for channel in wanted.keys() & windows.keys() if then_hz else ():
            for level in _levels(scene.machine, windows[channel], wanted[channel], then_hz or 0.0)[0]:
                usual.setdefault((channel, level.name), []).append(level.db)
    if not usual:
        notes.append("the bank kept no waveforms; the enrolled level of the peaks is not known")
    found = []
    for channel, mine in wanted.items():
        due_hz = {line.name: line.hz(speed_hz) for line in mine}
        now, band = _levels(scene.machine, scene.windows[channel], mine, speed_hz)
        for level in now:
            then = usual.get((channel, level.name))
            found.append(
                {
                    "channel": channel,
                    "name": level.name,
                    "hz": round(level.hz, 3),
                    "expected_hz": round(due_hz[level.name], 3),
                    "now_db": round(level.db, 2),
                    "enrolled_db": round(float(np.median(then)), 2) if then else None,
                    "band_hz": _rounded(band),
                }
            )
    return found, notes


def _levels(
    machine: MachineConfig, window: Window, lines: list[orders.Line], speed_hz: float
) -> tuple[list[orders.Level], tuple[float, float]]:
    return orders.levels(
        window.samples, window.rate_hz, lines=lines, speed_hz=speed_hz, tolerance=machine.speed_tolerance
    )


def _channel(bank: Bank | None, channel: str) -> ChannelBank | None:
    return next((c for c in bank.channels if c.channel == channel), None) if bank else None


def _rounded(values: Any) -> list[float | None]:
    return [round(float(v), 2) if math.isfinite(v) else None for v in values]
