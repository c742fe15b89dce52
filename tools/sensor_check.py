"""What the sensor check calls every window of every recorded set, healthy or failing.

    python tools/sensor_check.py SHARED/data [SET ...]

Each channel is enrolled from what its set calls normal (of runs to failure, the first fifth of each run). Of recorded
faults none may be called a bad sensor: the exit code is 1 where one of a set in `MUST_BE_FINE` is.
"""

import argparse
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from fisher_agent.config import ChannelConfig, Kind
from fisher_agent.gate import level_of
from fisher_agent.recordings import RecordedFile, load_manifest
from fisher_agent.sensor import Reference, check
from fisher_agent.stages import Floats, Window
from fisher_agent.standstill import Standstill
from fisher_agent.traits import Traits, measure, traits_of

KINDS: dict[str, Kind] = {
    "cwru_bearing": "vibration", "femto_bearing": "vibration", "ims_bearing_healthy": "vibration",
    "ceiling_fan": "vibration", "mcsa_misalignment": "current", "itsc_stator_short": "current",
    "skab_water_pump": "process", "esc_machine_sounds": "sound", "esc_machine_sounds_nc": "sound",
}  # fmt: skip
MUST_BE_FINE = ("cwru_bearing", "femto_bearing", "ims_bearing_healthy", "ceiling_fan", "mcsa_misalignment",
                "itsc_stator_short", "skab_water_pump")  # fmt: skip
NORMAL = frozenset({"normal", "healthy", "aligned"})
WINDOW_S, SLOW_WINDOW_S = 5.0, 20.0
FIRST_PART = 0.2
VALUE_GAP_NS = 10**12


@dataclass(frozen=True, slots=True)
class Cut:
    """The windows of one channel of one file."""

    config: ChannelConfig
    label: str
    normal: int  # so many from the beginning count as normal
    windows: tuple[Floats, ...]
    run: str  # windows of one run follow on one another


def cuts(folder: Path) -> Iterator[Cut]:
    """Every channel of every file of a set."""
    for file in load_manifest(folder / "manifest.csv"):
        stored = (
            np.load(file.path)
            if file.path.suffix == ".npy"
            else soundfile.read(file.path, dtype="int16", always_2d=True)[0]
        )
        for channel, column in file.channels.items():
            samples = (stored[:, int(column.column)] * np.float64(column.scale or 1.0)).astype(np.float32)
            yield _cut(folder.name, file, channel, samples)


def _cut(name: str, file: RecordedFile, channel: str, samples: Floats) -> Cut:
    rate_hz = float(file.rate_hz or 0)
    kind: Kind = "process" if "temp" in channel else KINDS[name]
    config = ChannelConfig.model_validate(
        {"id": "".join(c if c.isalnum() else "-" for c in channel), "kind": kind, "rate_hz": rate_hz}
    )
    length = round((SLOW_WINDOW_S if config.valued else WINDOW_S) * rate_hz)
    length = min(file.snapshots.length if file.snapshots else length, len(samples))
    windows = tuple(samples[i : i + length] for i in range(0, len(samples) - length + 1, length))
    normal = round(FIRST_PART * len(windows)) if file.label == "run_to_failure" else len(windows)
    if file.label not in NORMAL | {"run_to_failure"}:
        normal = 0
    return Cut(config, file.label, normal, windows, file.path.name)


def references(found: Sequence[Cut]) -> dict[tuple[str, str], Reference]:
    """What is normal of each channel; of a run to failure, of each channel in each run."""
    rows: dict[tuple[str, str], list[Floats]] = defaultdict(list)
    configs: dict[tuple[str, str], ChannelConfig] = {}
    for cut in found:
        configs[_key(cut)] = cut.config
        rows[_key(cut)] += cut.windows[: cut.normal]
    return {key: _reference(configs[key], windows) for key, windows in rows.items() if windows}


def _reference(config: ChannelConfig, windows: Sequence[Floats]) -> Reference:
    levels = [level_of(config, w) for w in windows]
    median_rms = max(float(np.median([level.rms for level in levels])), 1e-12)
    if not config.valued:
        seen = [measure(w, config.rate_hz, level=n, config=config) for w, n in zip(windows, levels, strict=True)]
        return Reference(median_rms, traits_of(seen))
    still = Standstill(gap_ns=VALUE_GAP_NS)
    for window in _in_time(config, windows):
        still.take(window)
    return Reference(median_rms, Traits(longest_hold_s=still.longest_s))


def _key(cut: Cut) -> tuple[str, str]:
    return cut.config.id, cut.run if cut.label == "run_to_failure" else ""


def _in_time(config: ChannelConfig, windows: Sequence[Floats]) -> Iterator[Window]:
    at_ns = 0
    for samples in windows:
        yield Window("m", config.id, at_ns, config.rate_hz, samples)
        at_ns += round(len(samples) * 1e9 / config.rate_hz)


def words(cut: Cut, known: dict[tuple[str, str], Reference]) -> list[str]:
    """The status of every window."""
    still = Standstill(gap_ns=VALUE_GAP_NS)
    out = []
    for window in _in_time(cut.config, cut.windows):
        found = check(
            window.samples, window.rate_hz, level=level_of(cut.config, window.samples), config=cut.config,
            reference=known.get(_key(cut)), still_s=still.take(window) if cut.config.valued else 0.0,
        )  # fmt: skip
        out.append(str(found.status))
        if found.bad:
            print(f"  {cut.run} {cut.config.id}: {found.status}, {found.text}", file=sys.stderr)
    return out


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("sets", nargs="*", default=list(KINDS))
    options = parser.parse_args()
    print("| set | condition | windows | called bad | as |")
    print("|---|---|---:|---:|---|")
    failed = False
    for name in options.sets:
        found = list(cuts(options.data / name))
        known = references(found)
        counts: dict[str, Counter[str]] = {about: Counter() for about in ("normal", "fault", "run to failure", "any")}
        for cut in found:
            about = {"run_to_failure": "run to failure", **dict.fromkeys(NORMAL, "normal")}.get(
                cut.label, "fault" if name in MUST_BE_FINE else "any"
            )
            counts[about].update(words(cut, known))
        for about, count in counts.items():
            if not count:
                continue
            bad = {word: n for word, n in count.items() if word != "ok"}
            failed |= bool(bad) and name in MUST_BE_FINE
            said = ", ".join(f"{n} {word}" for word, n in bad.items())
            print(f"| {name} | {about} | {count.total()} | {sum(bad.values())} | {said} |", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
