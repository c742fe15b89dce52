"""The library of a plant's banks: load, learn, rebuild, roll back, forget; the same for the daemon and for commands.

Blocking: the daemon calls it outside the event loop. Versions are immutable; the active one is a pointer.
"""

import secrets
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np
import safetensors.numpy

from fisher_agent.bank import Bank, check
from fisher_agent.bankfiles import BankFiles
from fisher_agent.config import Config, MachineConfig
from fisher_agent.detect import Judge
from fisher_agent.enrolment import learn, learn_fault, rebuild
from fisher_agent.errors import BadFile, BankMismatch, NotLearnt
from fisher_agent.learnt import Report
from fisher_agent.ledger import Model
from fisher_agent.pipeline import Pipeline
from fisher_agent.probation import Probation
from fisher_agent.stages import Embedder
from fisher_agent.stats import Stats
from fisher_agent.waveforms import Recording
from fisher_models.bundle import Bundle
from fisher_models.frontend import Frontend

MB = 1_000_000
Progress = Callable[[int, int], None]
OWN_OF_FILES = frozenset({"files", "number", "created_ms"})  # what `BankFiles` writes into a manifest by itself
NORMAL = ""  # the label of recordings of normal running


@dataclass(frozen=True, slots=True)
class Engine:
    """A proven model: bundle, front-end and the embedder that reproduced the bundle's self-test."""

    bundle: Bundle
    frontend: Frontend
    embedder: Embedder
    model: Model
    distances: Mapping[str, float] = field(default_factory=dict)  # other precision -> measured cosine distance

    def pipeline(self, stats: Stats) -> Pipeline:
        """A pipeline with no machines yet."""
        return Pipeline(frontend=self.frontend, embedder=self.embedder, judges={}, stats=stats)


class BankLibrary:
    """Banks of one state directory, for one model and one window."""

    def __init__(self, config: Config, files: BankFiles, engine: Engine) -> None:
        self._config = config
        self._files = files
        self._engine = engine
        self._saving = threading.Lock()  # an enrolment and a refined limit come from different threads

    def reconfigure(self, config: Config) -> None:
        """Go on under another configuration of the machines."""
        self._config = config

    def serve(self, engine: Engine) -> None:
        """Go on with another engine of the same bundle."""
        self._engine = engine

    def judge(self, machine: MachineConfig, bank: Bank | None) -> Judge:
        """The judge of a machine; without a bank it says `not enrolled`."""
        return Judge(machine, self._config.window, bank, frontend=self._engine.frontend)

    def load(self, machine: MachineConfig) -> tuple[Bank | None, str]:
        """The active bank, and why it cannot be used ("" where there is none, or it can)."""
        try:
            version = self._files.active(machine.id)
            if version is None:
                return None, ""
            bank = Bank.from_bytes(self._files.read(machine.id, version))
            self._check(bank, machine)
        except (BadFile, BankMismatch) as error:
            return None, str(error)
        return bank, ""

    def learn(
        self,
        machine: MachineConfig,
        recording: Recording,
        *,
        fault: str | None = None,
        mode: str = "default",
        embedder: Embedder | None = None,
        progress: Progress | None = None,
    ) -> tuple[Bank, Report]:
        """Enrol a recording and make it the active bank; NotLearnt leaves the old one. A fault needs a normal bank."""
        previous, problem = self.load(machine)
        kept = self._recordings(machine.id, previous.version) if previous else {}
        faults = {label: r for label, r in kept.items() if label != NORMAL}
        common: dict[str, Any] = {
            "machine": machine,
            "window": self._config.window,
            "bundle": self._engine.bundle,
            "frontend": self._engine.frontend,
            "embedder": embedder or self._engine.embedder,
            "progress": progress,
            "version": new_version(),
            "created_ns": time.time_ns(),
        }
        if fault is None:
            bank, report = learn(
                recording,
                previous=previous,
                faults=faults,
                mode=mode,
                coreset=self._config.enroll.coreset,
                judge_by=self._config.model.judge_by,
                **common,
            )
            recordings = {NORMAL: recording, **faults}
        else:
            if previous is None:
                why = f" ({problem})" if problem else ""
                raise NotLearnt(f"{machine.id} has no usable bank of normal running{why}; enrol that first")
            bank, report = learn_fault(recording, bank=previous, fault=fault, **common)
            recordings = {**kept, fault: _joined(faults.get(fault), recording)}
        self._save(bank, recordings, report)
        return bank, report

    def rebuild(
        self, machine: MachineConfig, *, embedder: Embedder | None = None, progress: Progress | None = None
    ) -> tuple[Bank, Report]:
        """Make the active bank again, from its kept waveforms, for the present bundle, window and precision."""
        version = self._files.active(machine.id)
        if version is None:
            raise NotLearnt(f"{machine.id} has no bank to rebuild; enrol it first")
        old = Bank.from_bytes(self._files.read(machine.id, version))
        recordings = self._recordings(machine.id, version)
        if NORMAL not in recordings:
            raise NotLearnt(
                f"bank {version} of {machine.id} kept no waveforms (enroll.keep_mb = {self._config.enroll.keep_mb:g}); "
                "enrol it again"
            )
        bank, report = rebuild(
            recordings[NORMAL],
            old,
            faults={k: v for k, v in recordings.items() if k != NORMAL},
            coreset=self._config.enroll.coreset,
            judge_by=self._config.model.judge_by,
            machine=machine,
            window=self._config.window,
            bundle=self._engine.bundle,
            frontend=self._engine.frontend,
            embedder=embedder or self._engine.embedder,
            progress=progress,
            version=new_version(),
            created_ns=time.time_ns(),
        )
        self._save(bank, recordings, report)
        return bank, report

    def refine(self, probation: Probation, limit: float) -> bool:
        """Make and activate a version with another limit; False where another bank has taken over meanwhile."""
        with self._saving:
            machine, before = probation.machine, probation.bank
            if self._files.active(machine) != before:
                return False
            old = Bank.from_bytes(self._files.read(machine, before))
            bank = probation.bank_of(old, limit, version=new_version(), created_ns=time.time_ns())
            manifest = {k: v for k, v in self._files.manifest(machine, before).items() if k not in OWN_OF_FILES}
            manifest |= _born(bank) | {"refined": {"from": before, "limit": limit, "blocks": probation.learnt}}
            self._files.save(machine, bank.version, data=bank.to_bytes(), manifest=manifest, like=before)
            self._files.activate(machine, bank.version)
        return True

    def _check(self, bank: Bank, machine: MachineConfig) -> None:
        check(
            bank,
            bundle_digest=self._engine.bundle.digest,
            precision=self._engine.embedder.precision,
            window=self._config.window,
            machine=machine,
            judged_by=self._config.model.judge_by,
            cross_precision_distance=self._engine.distances.get(bank.precision),
        )

    def _save(self, bank: Bank, recordings: Mapping[str, Recording], report: Report) -> None:
        total = sum(r.nbytes for r in recordings.values())
        keep = round(self._config.enroll.keep_mb * MB)
        kept = {k: r.thinned(keep * r.nbytes // total) if total > keep else r for k, r in recordings.items() if total}
        manifest = {
            "machine": bank.machine,
            **_born(bank),
            "bundle": bank.bundle_name,
            "bundle_digest": bank.bundle_digest,
            "faults": sorted(k for k in recordings if k != NORMAL),
            "waveform_bytes_kept": sum(r.nbytes for r in kept.values()),
            "waveform_bytes_heard": total,
            "report": report.as_dict(),
        }
        packed, data = _pack(kept) if keep else None, bank.to_bytes()
        with self._saving:
            self._files.save(bank.machine, bank.version, data=data, manifest=manifest, waveforms=packed)
            self._files.activate(bank.machine, bank.version)

    def _recordings(self, machine: str, version: str) -> dict[str, Recording]:
        waveforms = self._files.waveforms(machine, version)
        return {} if waveforms is None else _unpack(waveforms)


def _born(bank: Bank) -> dict[str, str]:
    created = datetime.fromtimestamp(bank.created_ns / 1e9, UTC).isoformat(timespec="seconds")
    return {"version": bank.version, "created": created}


def new_version() -> str:
    """`v20261121T013000-3f2a`: sorts by time, begins with a letter so that no HMI takes it for a number."""
    return f"v{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(2)}"


def list_banks(config: Config, files: BankFiles) -> list[dict[str, Any]]:
    """Every version of every machine, with its manifest; needs no model."""
    rows = []
    for machine in config.machines:
        active = files.active(machine.id)
        for version in files.versions(machine.id):
            manifest = files.manifest(machine.id, version)
            rows.append({"machine": machine.id, "version": version, "active": version == active, **manifest})
    return rows


def _joined(older: Recording | None, newer: Recording) -> Recording:
    """A class that is enrolled again keeps what was recorded of it before."""
    if older is None:
        return newer
    both = Recording()
    for recording in (older, newer):
        for frame in recording.frames():
            both.add(frame)
    return both


def _pack(recordings: Mapping[str, Recording]) -> bytes:
    arrays = {
        f"{label}/{name}": np.ascontiguousarray(array)
        for label, recording in recordings.items()
        for name, array in recording.to_arrays().items()
    }
    packed: bytes = safetensors.numpy.save(arrays)
    return packed


def _unpack(data: bytes) -> dict[str, Recording]:
    try:
        arrays = safetensors.numpy.load(data)
    except (safetensors.SafetensorError, ValueError) as error:
        raise BadFile(f"the kept waveforms cannot be read: {error}") from error
    grouped: dict[str, dict[str, Any]] = {}
    for key, array in arrays.items():
        label, _, name = key.partition("/")
        grouped.setdefault(label, {})[name] = array
    return {label: Recording.from_arrays(group) for label, group in grouped.items()}
