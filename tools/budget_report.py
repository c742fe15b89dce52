"""What the budget of false alarms is worth: a table and a plot of observed against promised, and detection delays.

    python tools/budget_report.py --data ../shared/data --out agent/figures

Recordings of normal running that was not enrolled go through the real path (windows, bank, judge, alarms), with the
budget alone and as the agent sets its limit. A month is judged on generated scores only, an hour on generated signals.
"""

import argparse
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import matplotlib as mpl
import numpy as np
from budget_plants import FEMTO_ENROLLED, FEMTO_GROUP, Plant, fan, femto, generated, pump, rig
from matplotlib import pyplot as plt
from numpy.typing import NDArray
from scipy.signal import lfilter
from scipy.stats import chi2

from fisher_agent import calibrate, exceedance
from fisher_agent.alarmconfig import AlarmConfig
from fisher_agent.alarms import Event, MachineAlarms
from fisher_agent.bank import Bank
from fisher_agent.budget import parse
from fisher_agent.codes import Quality
from fisher_agent.detect import Judge
from fisher_agent.enrolment import learn
from fisher_agent.exceedance import Calibrated
from fisher_agent.gather import Gatherer
from fisher_agent.stages import Embedding, Floats, Frame, Verdict
from fisher_agent.waveforms import Recording
from fisher_models.bundle import Bundle, SelfTest
from fisher_models.frontend import Frontend, FrontendSpec

Doubles = NDArray[np.float64]
PROMISES = ("1 per 10 min", "1 per hour")
MONTH = "one per 30 days"
SPEC = FrontendSpec(mean=0.0, divisor=1.0, band_bins=100)
ALARM = AlarmConfig()
ISO_MM_S = 4.5
GENERATED = 4
SIMULATED, SIMULATED_DAYS, ENROLLED_S, HOP_S = 40, 30.0, 600.0, 2.5
STANDING = 0.05  # of the time in alarm: then alarms do not come, they stay


class NoModel(Frontend):
    """A front-end and an embedder that cost nothing: indicators decide."""

    name, precision, device = "none", "f32", "CPU"

    def segments(self, waveform: Floats, rate_hz: float, *, pad_frames: int | None = None) -> tuple[Floats, Floats]:
        """Empty bands, as many as there would be."""
        del waveform, pad_frames
        n = len(self.band_edges_hz(rate_hz))
        return np.zeros((1, n, 2, 2), np.float32), np.zeros(n, np.float32)

    def embed(self, bands: Floats, centres: Floats) -> Floats:
        """One zero for each band."""
        del centres
        return np.zeros((len(bands), 1), np.float32)

    def close(self) -> None:
        """Nothing is open."""


@dataclass(frozen=True, slots=True, eq=False)
class Life:
    """What was judged of a plant, verdict by verdict, with the levels that a simpler alarm would look at."""

    plant: Plant
    calibrated: Calibrated
    ratios: Doubles  # (n,) to the channel limits
    rms: Doubles  # (n,) largest ratio to the enrolled RMS
    velocity: Doubles  # (n,) mm/s, largest of all channels
    enrolled_rms: Doubles  # (m,) the same ratio during the enrolment
    step_s: float

    @property
    def normal(self) -> int:
        """Verdicts of the part that counts as healthy."""
        return round(self.plant.normal_share * len(self.ratios))

    @property
    def hours(self) -> float:
        """Of that part."""
        return self.normal * self.step_s / 3600


def live(plant: Plant) -> Life:
    """Enrol and judge."""
    nothing = NoModel(SPEC)
    test = SelfTest(np.zeros((1, 2, 100), np.float32), np.zeros(1, np.float32), np.zeros((1, 1), np.float32))
    bundle = Bundle(
        name="none", path=Path(), digest="n" * 64, model={}, weights="trained", origin="", frontend=SPEC,
        tolerance={"f32": 1.0}, selftest=test, lower={},
    )  # fmt: skip
    recording = Recording()
    for frame in plant.enrolled():
        recording.add(frame)
    bank, report = learn(
        recording, machine=plant.machine, window=plant.window, bundle=bundle, frontend=nothing, embedder=nothing,
        version="v1", created_ns=1,
    )  # fmt: skip
    assert bank.calibrated is not None
    print(f"{plant.name}: limit {bank.limit:.2f}; {report.promise.sentence if report.promise else ''}", flush=True)
    before = list(_verdicts(plant, bank, nothing, plant.enrolled())) if plant.normal_share < 1 else []
    after = list(_verdicts(plant, bank, nothing, plant.judged()))
    usual = {c.channel: c.median_rms for c in bank.channels}
    return Life(
        plant,
        bank.calibrated,
        ratios=np.asarray([v.score * bank.limit for v in after]),
        rms=_loudest(after, usual),
        velocity=np.asarray([max((r.velocity_rms_mm_s or 0.0) for r in v.readings) for v in after]),
        enrolled_rms=_loudest(before, usual),
        step_s=float(np.median(np.diff([v.t_ns for v in after]))) / 1e9,
    )


def _loudest(verdicts: Sequence[Verdict], usual: Mapping[str, float]) -> Doubles:
    return np.asarray([max(r.rms / usual[r.channel] for r in v.readings) for v in verdicts])


def _verdicts(plant: Plant, bank: Bank, frontend: Frontend, frames: Iterable[Frame]) -> Iterator[Verdict]:
    judge, gatherer = Judge(plant.machine, plant.window, bank, frontend=frontend), Gatherer(plant.machine, plant.window)

    def moments() -> Iterator[Verdict]:
        for frame in frames:
            yield from map(judged, gatherer.push(frame))
        yield from map(judged, gatherer.flush())

    def judged(moment: object) -> Verdict:
        wanted = judge.wants(moment)  # type: ignore[arg-type]
        zeros = {
            w.channel: Embedding("", w.channel, 0, np.zeros((bank.channel(w.channel).n_bands, 1), np.float32))
            for w in wanted
        }
        return judge.judge(moment, zeros)  # type: ignore[arg-type]

    return (v for v in moments() if v.scored)


# Counting


def watched(values: Doubles, limit: float) -> tuple[list[int], int]:
    """Positions at which the agent's own alarm is raised by values at or over a limit, and for how many it stands."""
    alarms = MachineAlarms("m", ["c"], ALARM)
    found, standing = [], 0
    for k, value in enumerate(values.tolist()):
        verdict = Verdict("m", k * 10**9, value / limit, 0.5, "", True, True, None, 0.0, Quality.GOOD)
        if any(t.event is Event.RAISE for t in alarms.verdict(verdict, fault_code=0)):
            found.append(k)
        standing += alarms.anomaly.active
    return found, standing


def raises(values: Doubles, limit: float) -> list[int]:
    """Only the positions."""
    return watched(values, limit)[0]


def garwood(n: int, hours: float, confidence: float = 0.95) -> tuple[float, float]:
    """The exact interval of a Poisson rate (Garwood 1936), per hour."""
    tail = (1 - confidence) / 2
    low = float(chi2.ppf(tail, 2 * n)) / 2 if n else 0.0
    return low / hours, float(chi2.ppf(1 - tail, 2 * n + 2)) / 2 / hours


def budget_alone(calibrated: Calibrated) -> float:
    """The limit that the budget asks for, without the margin for other days: what exchangeability alone would allow."""
    blocks, allowed = calibrated.blocks, calibrated.allowed
    return max(blocks.quantile(allowed) if calibrated.supported else blocks.extrapolated(allowed), 1e-6)


RULES: Mapping[str, Callable[[Calibrated], float]] = {"budget alone": budget_alone, "as set": Calibrated.limit}


@dataclass(frozen=True, slots=True)
class Count:
    """False alarms of a group of plants under one rule."""

    alarms: int
    hours: float
    share: float  # of the time that an alarm stood

    @property
    def rate(self) -> str:
        """Per hour, with its interval."""
        low, high = garwood(self.alarms, self.hours)
        return f"{self.alarms}: {_number(self.alarms / self.hours)}/h ({_number(low)} to {_number(high)})"

    def kept(self, per_h: float) -> str:
        """Whether the promise held, as far as so few hours can tell."""
        low, high = garwood(self.alarms, self.hours)
        if low > per_h or self.share > STANDING:
            return "**broken**"
        return "kept" if high <= per_h else "not refuted"


def _number(x: float) -> str:
    return f"{x:.0f}" if x >= 10 else f"{x:.2g}"


def counted(lives: Sequence[Life], words: str, rule: Callable[[Calibrated], float]) -> Count:
    """All plants of a group."""
    alarms, standing, n = 0, 0, 0
    for life in lives:
        limit = rule(replace(life.calibrated, budget=parse(words)))
        ratios = life.ratios[: life.normal]
        found, stood = watched(ratios, limit)
        alarms, standing, n = alarms + len(found), standing + stood, n + len(ratios)
    return Count(alarms, sum(life.hours for life in lives), standing / n)


def observed(lives: Sequence[Life]) -> tuple[list[str], dict[tuple[str, str, str], Count]]:
    """The table of observed against promised, and its numbers by (group, promise, rule)."""
    found: dict[tuple[str, str, str], Count] = {}
    lines = [
        "| normal running that was not enrolled | hours | promised | budget alone | in alarm | as set | in alarm | |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for group in dict.fromkeys(life.plant.group for life in lives):
        mine = [life for life in lives if life.plant.group == group]
        for words in PROMISES:
            alone, as_set = (counted(mine, words, rule) for rule in RULES.values())
            found |= {(group, words, name): c for name, c in zip(RULES, (alone, as_set), strict=True)}
            lines.append(
                f"| {group} | {_number(alone.hours)} | {words} = {parse(words).per_h:g}/h | {alone.rate} | "
                f"{100 * alone.share:.0f} % | {as_set.rate} | {100 * as_set.share:.0f} % | "
                f"{as_set.kept(parse(words).per_h)} |"
            )
    return lines, found


# A month, generated


def month(made: Sequence[Life]) -> list[str]:
    """30 days of scores for each of many machines that enrolled 10 minutes; they scatter as those of generated signals.

    As the agent sets it, the limit of a channel and of the machine have their margins; here there is one channel.
    """
    sd = float(np.mean([np.log(life.ratios).std() for life in made]))
    first, hours = round(ENROLLED_S / HOP_S), SIMULATED * SIMULATED_DAYS * 24
    lines = [
        (f"| scores of {SIMULATED} machines for {SIMULATED_DAYS:g} days, {SIMULATED} alarms promised | tail alone | "
         "machines with none | as set | machines with none | limit as set / median score |"),
        "| --- | --- | --- | --- | --- | --- |",
    ]  # fmt: skip
    for law, rho in (("log-normal", 0.5), ("log-normal", 0.95), ("log-normal", 0.98), ("heavy (Student, 5)", 0.5)):
        rng = np.random.default_rng([round(100 * rho), len(law)])
        alarms: dict[str, list[int]] = {name: [] for name in RULES}
        over_median = []
        for _ in range(SIMULATED):
            scores = _scores(rng, law, rho, sd, first + round(SIMULATED_DAYS * 86_400 / HOP_S))
            apart = first // 2  # windows of 5 s every 2.5 s
            scores /= math.sqrt(calibrate.limit(np.square(scores[:first]), n_independent=apart))
            margin = max(1.0, calibrate.limit(scores[:first], n_independent=apart))
            blocks = exceedance.cut(scores[:first], n=3, m=3, windows=5, step_s=HOP_S)
            found = Calibrated(parse(MONTH), blocks, margin, margin, least_apart=8)
            lived = exceedance.sustained(scores[first:], n=3, m=3)
            for name, rule in RULES.items():
                over = lived >= rule(found)
                alarms[name].append(int((over[1:] & ~over[:-1]).sum()))
            over_median.append(found.limit() / float(np.median(scores)))
        cells = []
        for of in alarms.values():
            low, high = (_number(x * hours) for x in garwood(sum(of), hours))
            cells += [f"{sum(of)} ({low} to {high})", str(sum(a == 0 for a in of))]
        lines.append(f"| {law}, autocorrelation {rho:g} | {' | '.join(cells)} | {np.median(over_median):.2f} |")
    return lines


def _scores(rng: np.random.Generator, law: str, rho: float, sd: float, n: int) -> Doubles:
    drawn = rng.standard_normal(n) if law.startswith("log") else rng.standard_t(5, n) / math.sqrt(5 / 3)
    walked, _ = lfilter([math.sqrt(1 - rho * rho)], [1, -rho], drawn, zi=[rho * rng.standard_normal()])  # stationary
    return np.asarray(np.exp(sd * walked))


# Detection


def alarmed(life: Life) -> dict[str, list[int]]:
    """Positions of raises on a run to failure, by way of alarming; all with the agent's delays."""
    month_limit = replace(life.calibrated, budget=parse(MONTH)).limit()
    sigma = float(life.enrolled_rms.mean() + 3 * life.enrolled_rms.std())
    return {
        f"agent, {MONTH}": raises(life.ratios, month_limit),
        "agent, without a budget": raises(life.ratios, life.calibrated.margin_limit),
        "RMS, mean + 3 deviations": raises(life.rms, sigma),
        "RMS, 3 times enrolled": raises(life.rms, 3.0),
        f"velocity, {ISO_MM_S:g} mm/s": raises(life.velocity, ISO_MM_S),
    }


def detection(lives: Sequence[Life]) -> tuple[list[str], dict[str, list[float]]]:
    """The table of run-to-failure, and by method the share of life at which its first alarm after 60 % stood."""
    shares: dict[str, list[float]] = {}
    falses: dict[str, int] = {}
    for life in lives:
        for method, found in alarmed(life).items():
            early = [k for k in found if k < life.normal]
            first = found[0] if found else len(life.ratios)
            shares.setdefault(method, []).append(FEMTO_ENROLLED + (1 - FEMTO_ENROLLED) * first / len(life.ratios))
            falses[method] = falses.get(method, 0) + len(early)
    names = [life.plant.name.removeprefix("FEMTO ") for life in lives]
    lines = [
        f"| first alarm, share of life | {' | '.join(names)} | median | false alarms before 60 % |",
        "| --- |" + " --- |" * (len(names) + 2),
    ]
    for method, of in shares.items():
        cells = " | ".join("none" if x >= 1 else f"{x:.2f}" for x in of)
        lines.append(f"| {method} | {cells} | {np.median(of):.2f} | {falses[method]} |")
    return lines, shares


# The plot


def plot(counts: Mapping[tuple[str, str, str], Count], shares: Mapping[str, Sequence[float]], path: Path) -> None:
    """Left: observed over promised, with exact intervals. Right: when run-to-failure is alarmed."""
    mpl.rcParams.update({"svg.hashsalt": "budget", "svg.fonttype": "none", "font.size": 8})
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.2), width_ratios=(1.25, 1), layout="constrained")
    groups = list(dict.fromkeys(group for group, _, _ in counts))
    colours = dict(zip(PROMISES, ("#0072b2", "#d55e00"), strict=True))
    for row, group in enumerate(groups):
        for shift, (words, rule) in zip(
            (-0.27, -0.09, 0.09, 0.27), ((w, r) for w in PROMISES for r in RULES), strict=True
        ):
            count, promised = counts[group, words, rule], parse(words).per_h
            low, high = (x / promised for x in garwood(count.alarms, count.hours))
            left.plot([max(low, 3e-3), high], [row + shift] * 2, color=colours[words], lw=1)
            marker, filled = ("o", colours[words]) if rule == "as set" else ("s", "white")
            label = f"{words}, {rule}" if not row else None
            at = max(count.alarms / count.hours / promised, 3e-3)
            left.plot(at, row + shift, marker, ms=4, mfc=filled, mec=colours[words], label=label, ls="")
        standing = counts[group, PROMISES[-1], "as set"].share
        if standing > STANDING:
            left.text(300, row, f"in alarm {100 * standing:.0f} %", va="center", fontsize=6.5)
    left.axvline(1, color="black", lw=0.8)
    left.set(xscale="log", xlabel="false alarms, observed / promised (95 % exact Poisson interval)", xlim=(2.5e-3, 1e4))
    left.set_yticks(range(len(groups)), groups)
    left.set_ylim(len(groups) - 0.5, -1.4)
    left.legend(fontsize=6.5, loc="upper right", ncols=2)
    for row, (_, of) in enumerate(shares.items()):
        right.plot(of, np.full(len(of), row) + np.linspace(-0.2, 0.2, len(of)), "o", ms=4, color="#0072b2", alpha=0.7)
        right.plot([float(np.median(of))] * 2, [row - 0.3, row + 0.3], color="#d55e00", lw=1.5)
    right.axvspan(FEMTO_ENROLLED, 0.6, color="#eeeeee", lw=0)
    right.set(xlabel="FEMTO: first alarm, share of life\n(grey: counts as healthy; bar: median)", xlim=(0.24, 1.02))
    right.set_yticks(range(len(shares)), list(shares))
    right.invert_yaxis()
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    """Write false_alarms.md and false_alarms.svg."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    root = arguments.data
    bearings = [live(p) for p in femto(root)]
    made = [live(generated(seed, enrolled_s=600, judged_s=3600)) for seed in range(1, GENERATED + 1)]
    lives = bearings + [live(p) for plants in (rig(root), fan(root), pump(root)) for p in plants] + made
    table, counts = observed(lives)
    delays, shares = detection(bearings)
    hours = sum(life.hours for life in made)
    at_month = counted(made, MONTH, Calibrated.limit)
    arguments.out.mkdir(parents=True, exist_ok=True)
    text = [
        "## Observed against promised", "", *table, "",
        f"## {MONTH}, generated only", "", *month(made), "",
        f"Generated signals through the whole path, {hours:.0f} h, limit as set: {at_month.rate}.", "",
        f"## Detection on {FEMTO_GROUP.split(',')[0]} run to failure, at {MONTH}", "", *delays, "",
    ]  # fmt: skip
    (arguments.out / "false_alarms.md").write_text("\n".join(text), encoding="utf-8")
    plot(counts, shares, arguments.out / "false_alarms.svg")
    print("\n".join(text))


if __name__ == "__main__":
    main()
