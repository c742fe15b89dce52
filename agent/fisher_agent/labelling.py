"""Labelled windows of a fault join a bank of normal running."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fisher_agent import calibrate
from fisher_agent.bank import Bank, FaultWindows
from fisher_agent.compare import Enrolled, indices
from fisher_agent.diagnosis import labelled_distances, unit_rows
from fisher_agent.errors import NotLearnt
from fisher_agent.learning import Embedded, Octaves, Setup, channel_report, embed
from fisher_agent.learnt import Report
from fisher_agent.nearest import Index
from fisher_agent.sensor import Reference
from fisher_agent.survey import look
from fisher_agent.waveforms import Recording


def add_fault(bank: Bank, recording: Recording, fault: str, *, setup: Setup) -> tuple[Bank, Report]:
    """The bank with this fault's windows of steady running behind those that it has; NotLearnt without any."""
    machine = setup.machine
    survey = look(
        recording,
        machine,
        setup.window,
        reference_rms={c.channel: c.median_rms for c in bank.channels},
        sensors={c.channel: Reference(c.median_rms, c.sensor) for c in bank.channels},
    )
    if not any(survey.usable(c.id) for c in machine.channels):
        raise NotLearnt(
            f"fault {fault}: {machine.id} gave no window of steady running ({len(survey.steady)} moments heard); "
            "record the fault while the machine runs"
        )
    embedded = embed(
        recording,
        survey,
        setup,
        gains={c.channel: c.gain for c in bank.channels},
        octaves={c.channel: Octaves(c.octave_hz, c.octave_floor) for c in bank.channels},
    )
    enrolled = {c.channel: Enrolled.of(c) for c in bank.channels}
    known = indices(enrolled)
    if not known.keys() & embedded.keys():
        raise NotLearnt(
            f"fault {fault}: nothing was heard of a channel that the model sees (1 kHz or more); "
            "faults are told apart by its embeddings"
        )
    added = np.unique(np.concatenate([e.moment for e in embedded.values()]))
    faults = _joined(bank, fault, added, survey.ends_ns, embedded)
    faults = replace(faults, reach=_reach(faults, known, bank))

    apart = {c: enrolled[c].compare(e.vectors, e.features) for c, e in embedded.items()}
    ratios = np.full((len(bank.channels), len(survey.steady)), np.nan)
    for row, channel in zip(ratios, bank.channels, strict=True):
        if channel.channel in embedded:
            row[embedded[channel.channel].moment] = apart[channel.channel].ratio(
                embedding=channel.limit, indicators=channel.feature_limit, by=bank.judged_by
            )
    scores = np.nanmax(ratios[:, added], axis=0) / bank.limit
    notes = [f"{c.channel} gave nothing" for c in bank.channels if c.channel not in embedded]
    if normal := int((scores < 1).sum()):
        notes.append(f"{normal} of {len(added)} windows look normal (score under 1); the fault is not named there")
    report = Report(
        machine=machine.id,
        version=bank.version,
        mode=bank.mode,
        fault=fault,
        heard_s=recording.duration_s,
        moments=len(added),
        dropped_moments=len(survey.steady) - int(survey.steady.sum()),
        independent=len(calibrate.independent(survey.spans(added))),
        limit=bank.limit,
        channels=tuple(
            channel_report(machine.channel(c), survey, bank.channel(c), d, kept=len(d.position))
            for c, d in apart.items()
        ),
        too_little=tuple(notes),
    )
    return replace(bank, faults=faults), report


def _joined(
    bank: Bank,
    fault: str,
    added: NDArray[np.intp],
    ends_ns: NDArray[np.int64],
    embedded: Mapping[str, Embedded],
) -> FaultWindows:
    """A labelled window for each moment in `added` (positions in `ends_ns`), behind those of the bank; no reach yet."""
    seen = [c for c in bank.channels if c.n_bands]
    new = FaultWindows(
        labels=(fault,) * len(added),
        end_ns=ends_ns[added],
        vectors={c.channel: np.zeros((len(added), c.vectors.shape[1]), dtype=np.float32) for c in seen},
        present={c.channel: np.zeros(len(added), dtype=np.bool_) for c in seen},
        reach={},
    )
    for channel in new.vectors.keys() & embedded.keys():
        e = embedded[channel]
        at = np.searchsorted(added, e.moment)
        new.vectors[channel][at] = e.vectors
        new.present[channel][at] = True
    if (old := bank.faults) is None:
        return new
    return FaultWindows(
        labels=old.labels + new.labels,
        end_ns=np.concatenate([old.end_ns, new.end_ns]),
        vectors={c: np.concatenate([old.vectors[c], v]) for c, v in new.vectors.items()},
        present={c: np.concatenate([old.present[c], p]) for c, p in new.present.items()},
        reach={},
    )


def _reach(faults: FaultWindows, known: Mapping[str, Index], bank: Bank) -> dict[str, float]:
    """Class -> how far a window may lie from its nearest one, in channel limits.

    As far as the limit rule makes of the distances between its own windows that do not overlap, and at least 1:
    nothing that lies as near as normal windows lie to one another is foreign.
    """
    rows = unit_rows(faults, known)
    limits = {c.channel: c.limit for c in bank.channels if c.n_bands}
    labels = np.asarray(faults.labels)
    length_ns = round(bank.length_s * 1e9)
    reach: dict[str, float] = {}
    for label in faults.counts:
        nearest: list[float] = []
        for i in np.flatnonzero(labels == label):
            units = {c: rows[c][i] for c in rows if faults.present[c][i]}
            others = (labels == label) & (np.abs(faults.end_ns - faults.end_ns[i]) >= length_ns)
            distances = labelled_distances(units, rows, faults, limits=limits)[others]
            nearest += [float(distances.min())] if np.isfinite(distances).any() else []
        ends_ns = np.sort(faults.end_ns[labels == label])
        apart = calibrate.independent(np.stack([ends_ns - length_ns, ends_ns], axis=1))
        reach[label] = max(1.0, calibrate.limit(np.asarray(nearest), n_independent=len(apart))) if nearest else 1.0
    return reach
