"""Windows of steady running become a bank: embedded a batch at a time, then calibrated against one another."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fisher_agent import calibrate, exceedance
from fisher_agent.bank import Bank, ChannelBank
from fisher_agent.calibrate import Doubles, Spans
from fisher_agent.compare import Distances, Enrolled
from fisher_agent.config import SPARSE_BELOW, ChannelConfig, JudgeBy, MachineConfig, WindowConfig
from fisher_agent.coreset import coreset
from fisher_agent.errors import NotLearnt
from fisher_agent.exceedance import Calibrated
from fisher_agent.features import Scale, features
from fisher_agent.indicators import measure, third_octave_levels, third_octaves
from fisher_agent.learnt import ChannelReport, Report
from fisher_agent.nearest import Index
from fisher_agent.pipeline import Pipeline
from fisher_agent.stages import Embedder, Floats, Window
from fisher_agent.survey import Survey, moments, span
from fisher_agent.waveforms import Recording
from fisher_models.bundle import Bundle
from fisher_models.frontend import Frontend

UNSEEN = np.zeros((0, 0), np.float32)  # bands of a channel that the model does not see
BATCH_WINDOWS = 32  # in memory at a time, and the step of the progress bar
GOOD_INDEPENDENT = 30  # below it the report says that p-values are coarse and limits wide
OCTAVE_FLOOR = 1e-8  # of the mean square: 80 dB down there is nothing to explain
LEAST_RMS = 1e-12  # a slow value may stand at 0
MAD_TO_SIGMA = 1.4826
LEAST_DEVIATION = 1.0
"""Spreads: nothing that lies as near as windows scatter is foreign, however alike an enrolment of one tone was."""
LEAST_VALUE_DEVIATION = 3.0
"""The same of values: temperatures and pressures wander by the hour, and ten minutes of them show little of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What every kind of enrolment needs: of whom, cut how, embedded by what, under which name."""

    machine: MachineConfig
    window: WindowConfig
    bundle: Bundle
    frontend: Frontend
    embedder: Embedder
    version: str
    created_ns: int
    coreset: float = 1.0  # share of a channel's windows that those it keeps stand for
    judge_by: JudgeBy = "indicators"
    progress: Callable[[int, int], None] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Octaves:
    """How a channel's third-octave levels are taken."""

    centres_hz: Doubles  # (k,)
    floor: float  # unit²


class _Row(NamedTuple):
    """What is kept of a window."""

    moment: int
    span: tuple[int, int]
    bands: Floats  # (n_bands, d)
    octave_db: Floats
    features: Floats
    velocity_mm_s: float | None


@dataclass(frozen=True, slots=True, eq=False)
class Embedded:
    """One channel's usable windows of steady running, embedded."""

    moment: NDArray[np.intp]  # (n,) position in the survey
    spans: Spans  # (n, 2)
    vectors: Floats  # (n, n_bands * d)
    octave_db: Floats  # (n, k)
    features: Floats  # (n, m)
    velocity_mm_s: Floats  # (n,), empty where the unit allows none
    n_bands: int  # 0 where the model does not see the channel; then vectors have no columns

    def only(self, kept: NDArray[np.intp]) -> "Embedded":
        """Some of the windows, by position."""
        return replace(
            self,
            moment=self.moment[kept],
            spans=self.spans[kept],
            vectors=self.vectors[kept],
            octave_db=self.octave_db[kept],
            features=self.features[kept],
            velocity_mm_s=self.velocity_mm_s[kept] if self.velocity_mm_s.size else self.velocity_mm_s,
        )


def embed(
    recording: Recording, survey: Survey, setup: Setup, *, gains: Mapping[str, float], octaves: Mapping[str, Octaves]
) -> dict[str, Embedded]:
    """Cut the recording again and embed what the survey found usable; channels without any are left out."""
    pipeline = Pipeline(frontend=setup.frontend, embedder=setup.embedder)
    slow = {c.id: c.slow for c in setup.machine.channels}
    valued = {c.id: c.valued for c in setup.machine.channels}
    total = sum(len(survey.usable(c.id)) for c in setup.machine.channels)
    rows: dict[str, list[_Row]] = {c.id: [] for c in setup.machine.channels}
    done = 0
    for batch in _batches(recording, survey, setup):
        seen = [w for _, w in batch if not slow[w.channel]]
        embeddings = iter(pipeline.embed(seen, gains=[gains[w.channel] for w in seen]))
        for position, w in batch:
            bands = UNSEEN if slow[w.channel] else next(embeddings).bands
            taken = octaves[w.channel]
            levels = third_octave_levels(w.samples, w.rate_hz, centres_hz=taken.centres_hz, floor=taken.floor)
            found = features(w.samples, w.rate_hz, gain=gains[w.channel], valued=valued[w.channel])
            config = setup.machine.channel(w.channel)
            velocity = measure(w.samples, w.rate_hz, kind=config.kind, unit=config.unit).velocity_rms_mm_s
            rows[w.channel].append(_Row(position, span(w), bands, levels, found, velocity))
        done += len(batch)
        if setup.progress is not None:
            setup.progress(done, total)
    return {
        channel: Embedded(
            moment=np.asarray([row.moment for row in kept], dtype=np.intp),
            spans=np.asarray([row.span for row in kept], dtype=np.int64),
            vectors=np.stack([row.bands.reshape(-1) for row in kept]).astype(np.float32),
            octave_db=np.stack([row.octave_db for row in kept]),
            features=np.stack([row.features for row in kept]),
            velocity_mm_s=_velocities(kept),
            n_bands=len(kept[0].bands),
        )
        for channel, rows_of in rows.items()
        if (kept := _of_one_kind(rows_of))
    }


def _velocities(rows: list[_Row]) -> Floats:
    """(n,), or empty unless every window has one."""
    found = [row.velocity_mm_s for row in rows]
    return np.asarray([v for v in found if v is not None] if None not in found else [], dtype=np.float32)


def _of_one_kind(rows: list[_Row]) -> list[_Row]:
    """Those with as many features as most have: of snapshots shorter than the others, some may have fewer."""
    usual = Counter(len(row.features) for row in rows).most_common(1)
    return [row for row in rows if len(row.features) == usual[0][0]]


def _batches(recording: Recording, survey: Survey, setup: Setup) -> Iterator[list[tuple[int, Window]]]:
    batch: list[tuple[int, Window]] = []
    for position, moment in enumerate(moments(recording, setup.machine, setup.window)):
        if survey.steady[position]:
            batch += [(position, w) for w in moment.windows if survey.seen[position][w.channel].usable]
        if len(batch) >= BATCH_WINDOWS:
            yield batch
            batch = []
    if batch:
        yield batch


def normal_bank(
    recording: Recording,
    survey: Survey,
    setup: Setup,
    *,
    rms: Mapping[str, float],
    gains: Mapping[str, float],
    mode: str,
) -> tuple[Bank, Report]:
    """The bank of normal running from a survey that was not refused."""
    machine = setup.machine
    octaves = {c.id: _octaves(survey, c.id, rms=rms[c.id]) for c in machine.channels}
    embedded = embed(recording, survey, setup, gains=gains, octaves=octaves)
    steady = np.flatnonzero(survey.steady)
    spans = survey.spans(steady)
    blocks = calibrate.blocks(spans)
    block_spans = calibrate.block_spans(spans, blocks)

    channels: list[ChannelBank] = []
    reports: list[ChannelReport] = []
    ratios: list[Doubles] = []
    for config in machine.channels:
        e, octave = embedded[config.id], octaves[config.id]
        mine = blocks[np.searchsorted(steady, e.moment)]
        scale = Scale.of(e.features, valued=config.valued)
        apart = _left_out(e, e, scale, mine, block_spans, where=f"{machine.id}/{config.id}")
        kept = e
        if setup.coreset < 1 and e.n_bands:
            kept = _fewer(e, mine, block_spans, typical=float(np.median(apart.embedding)), coverage=setup.coreset)
            # What judges is what must be calibrated: every window, kept or not, beside the kept ones.
            apart = _left_out(e, kept, scale, mine, block_spans, where=f"{machine.id}/{config.id}")
        count = len(calibrate.independent(e.spans))
        limit = calibrate.limit(apart.embedding, n_independent=count) if e.n_bands else 1.0
        # Of squares, as a cosine distance is one: the same margin means the same change of amplitude.
        squared = calibrate.limit(np.square(apart.indicators), n_independent=count)
        feature_limit = max(LEAST_VALUE_DEVIATION if config.valued else LEAST_DEVIATION, squared**0.5)
        ratio = apart.ratio(embedding=limit, indicators=feature_limit, by=setup.judge_by)
        channel = ChannelBank(
            channel=config.id,
            rate_hz=config.rate_hz,
            scale=config.scale,
            unit=config.unit,
            snapshot=config.snapshot,
            gain=gains[config.id],
            median_rms=max(rms[config.id], LEAST_RMS),
            n_bands=e.n_bands,
            limit=limit,
            typical=float(np.median(apart.embedding)) if e.n_bands else 0.0,
            vectors=kept.vectors,
            end_ns=survey.ends_ns[kept.moment],
            share_median=np.median(apart.shares, axis=0),
            octave_hz=octave.centres_hz,
            octave_db=kept.octave_db,
            octave_spread_db=_spread(e.octave_db),
            octave_floor=octave.floor,
            features=kept.features,
            feature_centre=scale.centre,
            feature_spread=scale.spread,
            feature_limit=feature_limit,
            typical_ratio=float(np.median(ratio)),
            velocity_mm_s=kept.velocity_mm_s,
            sensor=survey.traits.get(config.id),
            quietest=survey.quietest(config.id),
        )
        channels.append(channel)
        reports.append(channel_report(config, survey, channel, apart, kept=len(kept.vectors)))
        ratios.append(_by_moment(config, setup.window, survey, e, ratio)[steady])

    fused = np.nanmax(ratios, axis=0)  # a steady moment has a usable window, or it would not have run
    lone = calibrate.independent(spans)
    # Never under 1, so that an alarm always has a channel that is beyond its own limit.
    margin = max(1.0, calibrate.limit(fused, n_independent=len(lone)))
    calibrated = _calibrated(setup, fused, survey.ends_ns[steady], margin=margin)
    limit = margin if calibrated is None else calibrated.enrolled_limit
    bank = Bank(
        machine=machine.id,
        version=setup.version,
        created_ns=setup.created_ns,
        mode=mode,
        bundle_digest=setup.bundle.digest,
        bundle_name=setup.bundle.name,
        precision=setup.embedder.precision,
        length_s=setup.window.length_s,
        hop_s=setup.window.hop_s,
        channels=tuple(channels),
        limit=limit,
        calibration=np.sort(fused[lone] / limit),
        judged_by=setup.judge_by,
        calibrated=calibrated,
    )
    report = Report(
        machine=machine.id,
        version=setup.version,
        mode=mode,
        fault="",
        heard_s=recording.duration_s,
        moments=len(steady),
        dropped_moments=len(survey.steady) - len(steady),
        independent=len(lone),
        limit=limit,
        channels=tuple(reports),
        too_little=tuple(_too_little(len(lone), reports, setup.window)),
        promise=calibrated.promise(limit) if calibrated else None,
    )
    return bank, report


def _calibrated(setup: Setup, ratios: Doubles, ends_ns: NDArray[np.int64], *, margin: float) -> Calibrated | None:
    """What the machine's limit rests on, from its ratios (m,) at grid times (m,); None where no alarm could come."""
    alarm = setup.machine.alarm
    n, m = alarm.delay
    step_s = float(np.median(np.diff(ends_ns))) / 1e9
    memory_s = max(setup.window.memory_s(c) for c in setup.machine.channels)
    windows = exceedance.block_windows(memory_s=memory_s, step_s=step_s, m=m)
    blocks = exceedance.cut(ratios, n=n, m=m, windows=windows, step_s=step_s)
    if not blocks.count:
        return None
    found = Calibrated(
        alarm.budget, blocks, margin, enrolled_limit=margin, least_apart=m + alarm.off_delay_windows,
        since_s=setup.created_ns / 1e9,
    )  # fmt: skip
    return replace(found, enrolled_limit=found.limit())


def channel_report(
    config: ChannelConfig, survey: Survey, bank: ChannelBank, apart: Distances, *, kept: int
) -> ChannelReport:
    """What was learnt of one channel, given the distances of its windows and how many of them the bank keeps.

    Of a channel that the model does not see they are those of its indicators, in spreads.
    """
    distances, limit = (apart.embedding, bank.limit) if bank.n_bands else (apart.indicators, bank.feature_limit)
    return ChannelReport(
        channel=config.id,
        unit=config.unit,
        windows=len(distances),
        kept=kept,
        flat=sum(not w.usable for w in survey.of_steady(config.id)),
        bad=dict(Counter(str(w.sensor.status) for w in survey.of_steady(config.id) if w.sensor.bad)),
        rms=survey.rms(config.id),
        gain=bank.gain,
        median_distance=float(np.median(distances)),
        p95_distance=float(np.quantile(distances, 0.95)),
        limit=limit,
        seen=bank.n_bands > 0,
        median_deviation=float(np.median(apart.indicators)),
        deviation_limit=bank.feature_limit,
    )


def _octaves(survey: Survey, channel: str, *, rms: float) -> Octaves:
    """The third octaves that the channel's shortest window resolves."""
    usable = survey.usable(channel)
    shortest_s = min(w.span[1] - w.span[0] for w in usable) / 1e9
    if shortest_s * usable[0].rate_hz < SPARSE_BELOW:
        return Octaves(np.zeros(0), OCTAVE_FLOOR)
    return Octaves(third_octaves(usable[0].rate_hz, shortest_s), OCTAVE_FLOOR * max(rms, LEAST_RMS) ** 2)


def _spread(octave_db: Floats) -> Doubles:
    deviation = np.abs(octave_db - np.median(octave_db, axis=0))
    return np.asarray(MAD_TO_SIGMA * np.median(deviation, axis=0), dtype=np.float64)


def _left_out(
    e: Embedded, kept: Embedded, scale: Scale, blocks: NDArray[np.intp], block_spans: Spans, *, where: str
) -> Distances:
    """How far every window lies from the kept ones outside its block."""
    enrolled = Enrolled(vectors=kept.vectors, n_bands=e.n_bands, centre=None, features=kept.features, scale=scale)
    n = len(e.moment)
    out = Distances(np.empty(n, np.intp), np.empty(n), np.empty((n, e.n_bands)), np.empty(n))
    for block in np.unique(blocks):
        touching = calibrate.touches(kept.spans, block_spans[block])
        if touching.all():
            raise NotLearnt(f"the windows of {where} lie too close together to tell normal variation; enrol for longer")
        mine = blocks == block
        found = enrolled.compare(e.vectors[mine], e.features[mine], left_out=touching)
        for whole, part in zip(out.arrays, found.arrays, strict=True):
            whole[mine] = part
    return out


def _fewer(e: Embedded, blocks: NDArray[np.intp], block_spans: Spans, *, typical: float, coverage: float) -> Embedded:
    """The windows that are kept: a share `coverage` of all lies as near to a kept one as normal windows typically lie.

    The middle of every block is kept in any case, so that calibrating finds windows outside each block; where it would
    still find none, all are kept.
    """
    middles = np.asarray([np.median(np.flatnonzero(blocks == b)) for b in np.unique(blocks)], dtype=np.intp)
    rows = Index(e.vectors, n_bands=e.n_bands).shifted
    kept = e.only(coreset(rows, start=middles, radius=max(typical, calibrate.LIMIT_FLOOR), coverage=coverage))
    if any(calibrate.touches(kept.spans, block_spans[b]).all() for b in np.unique(blocks)):
        return e
    return kept


def _by_moment(config: ChannelConfig, window: WindowConfig, survey: Survey, e: Embedded, ratios: Doubles) -> Doubles:
    """Ratios (n,) of a channel's windows -> (m,) over all moments, NaN where it has none; some hold, as in life."""
    out = np.full(len(survey.ends_ns), np.nan)
    out[e.moment] = ratios
    if window.held(config):
        out = calibrate.held(out, survey.ends_ns, stale_ns=window.hold_ns(config))
    return out


def _too_little(independent: int, channels: list[ChannelReport], window: WindowConfig) -> Iterator[str]:
    if independent < GOOD_INDEPENDENT:
        yield (
            f"only {independent} windows do not overlap, so p-values cannot go under {1 / (1 + independent):.2g} and "
            f"limits are wide; {GOOD_INDEPENDENT * window.length_s:g} s of steady running would be better"
        )
    most = max(c.windows for c in channels)
    for c in channels:
        if c.windows < GOOD_INDEPENDENT <= most:
            yield f"{c.channel} gave only {c.windows} windows"
        if c.flat:
            words = ", ".join(f"{n} {word}" for word, n in c.bad.items())
            yield f"{c.flat} windows of {c.channel} are of a bad sensor ({words}) and were left out; see to it"
