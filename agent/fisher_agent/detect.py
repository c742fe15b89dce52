"""Embeddings of a machine's channels become a verdict: fused, named, explained."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from weakref import WeakKeyDictionary

import numpy as np

from fisher_agent.bank import NO_FEATURES, Bank, ChannelBank
from fisher_agent.calibrate import Doubles, p_value
from fisher_agent.codes import Quality, Status
from fisher_agent.compare import Enrolled, indices
from fisher_agent.config import JudgeBy, MachineConfig, WindowConfig
from fisher_agent.diagnosis import Diagnosis
from fisher_agent.errors import BankMismatch
from fisher_agent.features import features, long_enough
from fisher_agent.gate import believed, is_running, levels_of, stood_at_an_end
from fisher_agent.indicators import Level, measure, octave_edges, third_octave_levels
from fisher_agent.sensor import FINE, Finding, Reference, because, check
from fisher_agent.stages import ChannelReading, Embedding, Floats, Moment, Peak, Verdict, Window
from fisher_agent.standstill import Standstill
from fisher_models.frontend import Frontend

SPREAD_FLOOR_DB = 1.0  # a line that never moved during the enrolment is not stranger for moving by a tenth of a dB


@dataclass(frozen=True, slots=True, eq=False)
class _Compared:
    """One channel's window beside the bank; what a snapshot channel keeps until it is stale."""

    end_ns: int
    reading: ChannelReading
    excess: float  # ratio beyond the typical one of the enrolment
    vector: Floats  # (n_bands * d,); empty where the model does not see the channel


@dataclass(frozen=True, slots=True, eq=False)
class _Looked:
    """What a moment's windows show before anything is compared."""

    levels: Mapping[str, Level]
    findings: Mapping[str, Finding]
    running: bool


class Judge:
    """Judges one machine by one bank (None: not enrolled). Remembers only the last snapshot of snapshot channels, and
    since when slow values stand still.

    Pure in event time: the same moments in the same order give the same verdicts.
    """

    def __init__(self, machine: MachineConfig, window: WindowConfig, bank: Bank | None, *, frontend: Frontend) -> None:
        self.machine = machine
        self.window = window
        self.bank = bank
        self._frontend = frontend
        channels = bank.channels if bank else ()
        self._channels = {c.channel: c for c in channels}
        self._enrolled = {c.channel: Enrolled.of(c) for c in channels}
        self._reference_rms = {c.channel: c.median_rms for c in channels}
        self._diagnosis = Diagnosis(bank, indices(self._enrolled)) if bank else None
        self._sensors = {c.channel: Reference(c.median_rms, c.sensor) for c in channels}
        self._still = {
            c.id: Standstill(gap_ns=max(window.hold_ns(c), round(3e9 / c.rate_hz)))
            for c in machine.channels
            if c.valued
        }
        self._looked_at: WeakKeyDictionary[Moment, _Looked] = WeakKeyDictionary()
        self._held: dict[str, _Compared] = {}

    def gain(self, channel: str) -> float:
        """What samples of an enrolled channel are multiplied by before the model sees them."""
        return self._channels[channel].gain

    def wants(self, moment: Moment) -> list[Window]:
        """The windows that must be embedded to judge this moment; none of a machine that is stopped or not enrolled."""
        looked = self._looked(moment)
        if self.bank is None or not looked.running:
            return []
        return [w for w in self._comparable(moment, looked) if self._channels[w.channel].n_bands]

    def _looked(self, moment: Moment) -> _Looked:
        """As `_look`, once for each moment."""
        if moment not in self._looked_at:
            self._looked_at[moment] = self._look(moment)
        return self._looked_at[moment]

    def _look(self, moment: Moment) -> _Looked:
        levels = levels_of(self.machine, moment)
        findings = {w.channel: self._sensor(w, levels[w.channel]) for w in moment.windows if w.channel in levels}
        findings |= {c: Finding(*why) for c, why in moment.distrusted.items() if c in findings}
        speaking = believed(self.machine, levels, findings)
        running = is_running(self.machine, speaking, reference_rms=self._reference_rms)
        if not running:  # where all stands still, nothing tells a sensor that is unplugged
            findings = {c: FINE if f.status is Status.UNPLUGGED else f for c, f in findings.items()}
        return _Looked(levels, findings, running)

    def _sensor(self, window: Window, level: Level) -> Finding:
        still_s = self._still[window.channel].take(window) if window.channel in self._still else 0.0
        config, reference = self.machine.channel(window.channel), self._sensors.get(window.channel)
        return check(window.samples, window.rate_hz, level=level, config=config, reference=reference, still_s=still_s)

    def _comparable(self, moment: Moment, looked: _Looked) -> list[Window]:
        """Windows of enrolled channels that hold a signal, and enough of it for the indicators that were enrolled, from
        sensors that can be believed."""
        return [
            w
            for w in moment.windows
            if w.channel in self._channels
            and w.channel in looked.levels
            and looked.levels[w.channel].usable
            and not looked.findings[w.channel].bad
            and long_enough(w.samples, self._channels[w.channel].features)
        ]

    def judge(self, moment: Moment, embeddings: Mapping[str, Embedding]) -> Verdict:
        """Judge a moment, given the embeddings by channel of what `wants` named. BankMismatch where they do not fit."""
        looked = self._looked(moment)
        levels, running, wrong = looked.levels, looked.running, because(looked.findings)
        plain = self._plain(moment, looked)
        if self.bank is None:
            return self._unscored(
                moment, plain, running=running, enrolled=False, quality=Quality.BAD, note="not enrolled"
            )
        if not running:
            dead = not any(now.usable for now in levels.values())
            return self._unscored(
                moment,
                plain,
                running=False,
                enrolled=True,
                quality=Quality.BAD if dead else Quality.GOOD,
                note="every channel is flat or invalid" if dead else "the machine is not running",
            )
        compared = self._compare(moment, self._comparable(moment, looked), self.bank.judged_by, plain, embeddings)
        missing = [c for c in self._channels if c not in compared]
        note = f"nothing to compare of {', '.join(missing)}" if missing else ""
        note = "; ".join(part for part in (note, wrong) if part)
        if not compared:
            return self._unscored(moment, plain, running=True, enrolled=True, quality=Quality.BAD, note=note)
        return self._fuse(moment, plain, compared, self.bank, note=note)

    def runs(self, moment: Moment) -> bool:
        """Whether the machine runs, by the levels that were enrolled."""
        return self._looked(moment).running

    def stood_at_an_end(self, moment: Moment) -> bool:
        """Whether a machine that runs only began, or ended, to do so within this moment."""
        return stood_at_an_end(
            self.machine, moment, reference_rms=self._reference_rms,
            quietest={c: b.quietest for c, b in self._channels.items() if b.quietest is not None},
        )  # fmt: skip

    def unscored(self, moment: Moment, *, note: str) -> Verdict:
        """What is seen of a machine that runs but is not compared with its bank."""
        return self._unscored(
            moment,
            self._plain(moment, self._looked(moment)),
            running=True,
            enrolled=True,
            quality=Quality.GOOD,
            note=note,
        )

    def _unscored(
        self,
        moment: Moment,
        readings: Mapping[str, ChannelReading],
        *,
        running: bool,
        enrolled: bool,
        quality: Quality,
        note: str,
    ) -> Verdict:
        return Verdict(
            machine=moment.machine,
            t_ns=moment.end_ns,
            score=0.0,
            p_value=1.0,
            mode=None,
            running=running,
            enrolled=enrolled,
            fault=None,
            fault_confidence=0.0,
            quality=quality,
            readings=self._in_order(readings),
            bank=self.bank.version if self.bank else "",
            note=note,
        )

    def _compare(
        self,
        moment: Moment,
        comparable: Sequence[Window],
        judged_by: JudgeBy,
        plain: Mapping[str, ChannelReading],
        embeddings: Mapping[str, Embedding],
    ) -> dict[str, _Compared]:
        """This moment's channels beside the bank, with the snapshots that still hold."""
        compared: dict[str, _Compared] = {}
        for window in moment.windows:
            if window.snapshot:
                self._held.pop(window.channel, None)
        for window in comparable:
            one = self._beside_bank(window, plain[window.channel], embeddings.get(window.channel), by=judged_by)
            compared[window.channel] = one
            if window.snapshot:
                self._held[window.channel] = one
        for channel, held in list(self._held.items()):
            if moment.end_ns - held.end_ns > self.window.hold_ns(self.machine.channel(channel)):
                del self._held[channel]
            else:
                compared[channel] = held
        return compared

    def _beside_bank(
        self, window: Window, plain: ChannelReading, embedding: Embedding | None, *, by: JudgeBy
    ) -> _Compared:
        bank = self._channels[window.channel]
        vector = self._vector(window, bank, embedding)
        taken = NO_FEATURES
        if bank.features.size:
            valued = self.machine.channel(window.channel).valued
            taken = features(window.samples, window.rate_hz, gain=bank.gain, valued=valued)[None]
        found = self._enrolled[window.channel].compare(vector[None], taken)
        ratio = float(found.ratio(embedding=bank.limit, indicators=bank.feature_limit, by=by)[0])
        shares = _normalised(np.maximum(found.shares[0] - bank.share_median, 0))
        # Where the indicators found it, it may lie in any band.
        where = shares if by != "indicators" and found.embedding[0] / bank.limit >= ratio else None
        nearest = int(found.position[0] if where is not None or not len(found.measured) else found.measured[0])
        peak = self._peak(window, bank, nearest, where) if ratio >= 1 else None
        reading = replace(
            plain,
            distance=float(found.embedding[0]),
            deviation=float(found.indicators[0]),
            ratio=ratio,
            bands=tuple(shares.tolist()),
            peak_band=peak,
            nearest_ns=int(bank.end_ns[nearest]),
        )
        return _Compared(window.end_ns, reading, max(0.0, ratio - bank.usual), vector)

    def _vector(self, window: Window, bank: ChannelBank, embedding: Embedding | None) -> Floats:
        """(n_bands * d,)"""
        if not bank.n_bands:
            return np.zeros(0, np.float32)
        if embedding is None:
            raise BankMismatch(f"channel {window.channel} of machine {window.machine} was not embedded")
        if embedding.bands.shape[0] != bank.n_bands or embedding.bands.size != bank.vectors.shape[1]:
            raise BankMismatch(
                f"channel {window.channel} of machine {window.machine} gave an embedding of {embedding.bands.shape}, "
                f"its bank holds {bank.n_bands} bands of {bank.vectors.shape[1] // bank.n_bands}; "
                "run `fisher-agent banks rebuild`"
            )
        vector: Floats = embedding.bands.reshape(-1)
        return vector

    def _peak(self, window: Window, bank: ChannelBank, position: int, shares: Doubles | None) -> Peak | None:
        """The third octave that moved most against the nearest enrolled window, in units of its usual spread.

        It is weighted by the share of the model's band that it lies in, so that what is named is what was scored;
        without shares all count alike.
        """
        if not len(bank.octave_hz):
            return None
        levels = third_octave_levels(window.samples, window.rate_hz, centres_hz=bank.octave_hz, floor=bank.octave_floor)
        change = np.nan_to_num(levels - bank.octave_db[position]).astype(np.float64)
        weight = np.ones(len(change)) if shares is None else np.zeros(len(change))
        edges = self._edges(window.channel, window.rate_hz)
        for share, (low, high) in () if shares is None else zip(shares, edges, strict=True):
            weight[(bank.octave_hz >= low) & (bank.octave_hz < high)] = share
        strength = weight * np.abs(change) / np.maximum(bank.octave_spread_db, SPREAD_FLOOR_DB)
        if not strength.any():
            return None
        k = int(strength.argmax())
        return Peak(*octave_edges(float(bank.octave_hz[k])), change_db=float(change[k]))

    def _fuse(
        self,
        moment: Moment,
        plain: Mapping[str, ChannelReading],
        compared: Mapping[str, _Compared],
        bank: Bank,
        *,
        note: str,
    ) -> Verdict:
        score = max(c.reading.ratio for c in compared.values()) / bank.limit
        excess = _normalised(np.asarray([c.excess for c in compared.values()]))
        readings = dict(plain) | {
            channel: replace(c.reading, contribution=float(part))
            for (channel, c), part in zip(compared.items(), excess, strict=True)
        }
        named = None
        if score >= 1 and self._diagnosis is not None:
            named = self._diagnosis.name(
                {channel: c.vector for channel, c in compared.items() if len(c.vector)},
                ratios={
                    channel: c.reading.distance / self._channels[channel].limit
                    for channel, c in compared.items()
                    if len(c.vector)
                },
            )
        return Verdict(
            machine=moment.machine,
            t_ns=moment.end_ns,
            score=score,
            p_value=p_value(score, bank.calibration),
            mode=bank.mode,
            running=True,
            enrolled=True,
            fault=named.fault if named else None,
            fault_confidence=named.confidence if named else 0.0,
            quality=Quality.GOOD if len(compared) == len(self._channels) else Quality.PARTIAL,
            readings=self._in_order(readings),
            faults=named.votes if named else {},
            bank=bank.version,
            note=note,
        )

    def _plain_reading(self, window: Window, now: Level, sensor: Finding) -> ChannelReading:
        config = self.machine.channel(window.channel)
        seen = measure(window.samples, window.rate_hz, kind=config.kind, unit=config.unit)
        return ChannelReading(
            channel=window.channel,
            distance=-1.0,
            ratio=-1.0,
            contribution=0.0,
            rms=seen.rms,
            peak=seen.peak,
            crest=seen.crest,
            kurtosis=seen.kurtosis,
            velocity_rms_mm_s=seen.velocity_rms_mm_s,
            flat=now.flat,
            clipped=seen.clipped,
            bands=(),
            band_edges_hz=self._edges(window.channel, window.rate_hz),
            peak_band=None,
            mean=float(window.samples.mean(dtype=np.float64)) if config.valued and now.valid else None,
            status=sensor.status,
            status_text=sensor.text,
        )

    def _plain(self, moment: Moment, looked: _Looked) -> dict[str, ChannelReading]:
        return {
            w.channel: self._plain_reading(w, looked.levels[w.channel], looked.findings[w.channel])
            for w in moment.windows
            if w.channel in looked.levels
        }

    def _in_order(self, readings: Mapping[str, ChannelReading]) -> tuple[ChannelReading, ...]:
        return tuple(readings[c.id] for c in self.machine.channels if c.id in readings)

    def _edges(self, channel: str, rate_hz: float) -> tuple[tuple[float, float], ...]:
        """The model's bands; none of a channel that it does not see."""
        return () if self.machine.channel(channel).slow else self._frontend.band_edges_hz(rate_hz)


def _normalised(parts: Doubles) -> Doubles:
    total = float(parts.sum())
    return parts / total if total > 0 else np.zeros_like(parts)
