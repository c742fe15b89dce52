"""The library of a plant's banks: load, learn, rebuild, roll back, forget; the same for the daemon and for commands.

Blocking: the daemon calls it outside the event loop. Versions are immutable; the active one is a pointer.
"""

import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Literal

from fisher_agent.backtest import BACK_NS, Past, Raises, factors, kept_sentence, recounted, stored_sentence
from fisher_agent.bankcheck import PRECISION, Setting
from fisher_agent.bankfiles import WAITS, BankFiles
from fisher_agent.bankset import BankSet
from fisher_agent.config import Config, MachineConfig
from fisher_agent.coverage import EnrolReport
from fisher_agent.errors import BadFile, BankMismatch, ConfigError, NotLearnt
from fisher_agent.keptrecordings import NORMAL, is_mode, joined, label_of, mode_of, pack, unpack
from fisher_agent.ledger import Model
from fisher_agent.machinejudge import MachineJudge
from fisher_agent.modeconfig import UNKNOWN_MODE
from fisher_agent.modelearning import learn_fault, learn_modes, rebuild
from fisher_agent.pipeline import Pipeline
from fisher_agent.probations import Probations
from fisher_agent.split import split
from fisher_agent.stages import Embedder
from fisher_agent.stats import Stats
from fisher_agent.survey import moments
from fisher_agent.tags import MODE_ID
from fisher_agent.waveforms import Recording
from fisher_models.bundle import Bundle
from fisher_models.frontend import Frontend

MB = 1_000_000
Progress = Callable[[int, int], None]
PastOf = Callable[[str, int], Iterator[Past]]  # machine, since (ns)
Activate = Literal["now", "later", "never"]
OWN_OF_FILES = frozenset({"files", "number", "created_ms"})  # what `BankFiles` writes into a manifest by itself


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
    """Banks of one state directory, for one model and one window. `past` gives a machine's stored scores."""

    def __init__(self, config: Config, files: BankFiles, engine: Engine, *, past: PastOf | None = None) -> None:
        self._config = config
        self._files = files
        self._engine = engine
        self._past = past
        self._saving = threading.Lock()  # an enrolment and a refined limit come from different threads

    def reconfigure(self, config: Config) -> None:
        """Go on under another configuration of the machines."""
        self._config = config

    def serve(self, engine: Engine) -> None:
        """Go on with another engine of the same bundle."""
        self._engine = engine

    def judge(self, machine: MachineConfig, bank: BankSet | None) -> MachineJudge:
        """The judge of a machine; without a bank it says `not enrolled`."""
        return MachineJudge(machine, self._config.window, bank, frontend=self._engine.frontend)

    def load(self, machine: MachineConfig, version: str | None = None) -> tuple[BankSet | None, str]:
        """A version (default: the active one), and why it cannot be used ("" where there is none, or it can)."""
        try:
            version = version or self._files.active(machine.id)
            if version is None:
                return None, ""
            bank = BankSet.from_bytes(self._files.read(machine.id, version))
            bank.check(self._setting(machine, bank))
        except (BadFile, BankMismatch) as error:
            return None, str(error)
        return bank, ""

    def outdated(self, machine: MachineConfig) -> str:
        """How the active version differs from the present model or window, where `rebuild` mends it; "" otherwise.

        With a GPU the precision changes with what serves, so that alone makes no version outdated.
        """
        try:
            version = self._files.active(machine.id)
            if version is not None:
                bank = BankSet.from_bytes(self._files.read(machine.id, version))
                bank.check(self._setting(machine, bank))
        except BankMismatch as error:
            passing = self._config.model.backend == "tensorrt" and all(d.startswith(PRECISION) for d in error.outdated)
            return "" if passing else "; ".join(error.outdated)
        except BadFile:
            return ""
        return ""

    def _setting(self, machine: MachineConfig, bank: BankSet) -> Setting:
        return Setting(
            bundle_digest=self._engine.bundle.digest,
            precision=self._engine.embedder.precision,
            window=self._config.window,
            machine=machine,
            judged_by=self._config.model.judge_by,
            cross_precision_distance=self._engine.distances.get(bank.banks[0].precision),
        )

    def learn(
        self,
        machine: MachineConfig,
        recording: Recording,
        *,
        fault: str | None = None,
        mode: str | None = None,
        activate: Activate = "now",
        embedder: Embedder | None = None,
        progress: Progress | None = None,
    ) -> tuple[BankSet, EnrolReport]:
        """Enrol a recording as a new version; NotLearnt leaves the old one. A fault needs a normal bank.

        `mode` is the only one that is learnt; without it all that the recording shows. The version is back-tested,
        then made active (`now`), saved to be accepted (`later`), or not saved at all (`never`).
        """
        if mode is not None and (not MODE_ID.fullmatch(mode) or mode == UNKNOWN_MODE):
            raise ConfigError(f"mode {mode!r} must be 1 to 48 of A-Z a-z 0-9 _ -, and not {UNKNOWN_MODE!r}")
        previous, problem = self.load(machine)
        previous = _configured(previous, machine)
        kept = self._recordings(machine.id, previous) if previous else {}
        faults = {label: r for label, r in kept.items() if not is_mode(label)}
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
            parts = split(recording, machine, self._config.window, mode=mode)
            bank, report = learn_modes(
                parts,
                previous=previous,
                keep_others=mode is not None or not (machine.mode and machine.mode.cluster),
                faults=faults,
                coreset=self._config.enroll.coreset,
                judge_by=self._config.model.judge_by,
                **common,
            )
            learnt = {label_of(r.mode): parts.parts[r.mode] for r in report.reports}
            recordings = {**{k: r for k, r in kept.items() if k in map(label_of, bank.modes)}, **learnt, **faults}
        else:
            if previous is None:
                why = f" ({problem})" if problem else ""
                raise NotLearnt(f"{machine.id} has no usable bank of normal running{why}; enrol that first")
            bank, report = learn_fault(recording, banks=previous, fault=fault, **common)
            recordings = {**kept, fault: joined(faults.get(fault), recording)}
        report = report.with_backtest(self.backtest(machine, bank, embedder=embedder))
        if activate != "never":
            self._save(bank, recordings, report, activate=activate == "now")
        return bank, report

    def rebuild(
        self, machine: MachineConfig, *, embedder: Embedder | None = None, progress: Progress | None = None
    ) -> tuple[BankSet, EnrolReport]:
        """Make the active version again, from its kept waveforms, for the present bundle, window and precision.

        NotLearnt where it kept none, or where another version was made active meanwhile: that one stays.
        """
        version = self._files.active(machine.id)
        if version is None:
            raise NotLearnt(f"{machine.id} has no bank to rebuild; enrol it first")
        old = BankSet.from_bytes(self._files.read(machine.id, version))
        recordings = self._recordings(machine.id, old)
        bank, report = rebuild(
            {mode_of(label): r for label, r in recordings.items() if is_mode(label)},
            old,
            faults={k: v for k, v in recordings.items() if not is_mode(k)},
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
        self._save(bank, recordings, report, replaces=version)
        return bank, report

    def rename(self, machine: MachineConfig, names: Mapping[str, str]) -> BankSet:
        """Call modes by other names, as a new version; ConfigError for modes that it does not have, or names in use."""
        bank, problem = self.load(machine)
        if bank is None:
            raise NotLearnt(problem or f"{machine.id} is not enrolled; there is no mode to name")
        if machine.mode is not None and machine.mode.names:
            raise ConfigError(f"the modes of {machine.id} are named by the configuration: machines.mode")
        after = [names.get(m, m) for m in bank.modes]
        if unknown := names.keys() - set(bank.modes):
            raise ConfigError(f"{machine.id} has no mode {', '.join(sorted(unknown))}; it has: {', '.join(bank.modes)}")
        if len(set(after)) != len(after):
            raise ConfigError(f"two modes of {machine.id} would have the same name: {', '.join(after)}")
        if wrong := [n for n in names.values() if not MODE_ID.fullmatch(n) or n == UNKNOWN_MODE]:
            raise ConfigError(f"{wrong[0]!r} cannot name a mode: use 1 to 48 of A-Z a-z 0-9 _ -, not {UNKNOWN_MODE!r}")
        labels = {label_of(m): label_of(names.get(m, m)) for m in bank.modes}
        recordings = {labels.get(k, k): r for k, r in self._recordings(machine.id, bank).items()}
        renamed = bank.renamed(names, version=new_version())
        self._save(renamed, recordings, None)
        return renamed

    def rollback(
        self, machine: MachineConfig, *, activate: bool = True, embedder: Embedder | None = None
    ) -> tuple[str, list[str]]:
        """Go back to the version before the active one; returns it and what the back-test says. ConfigError without."""
        return self._choose(machine, self._files.before(machine.id), activate=activate, embedder=embedder)

    def accept(
        self, machine: MachineConfig, *, activate: bool = True, embedder: Embedder | None = None
    ) -> tuple[str, list[str]]:
        """Judge by the newest version that was saved to be accepted; ConfigError where none waits."""
        version = self._files.waiting(machine.id)
        if version is None:
            raise ConfigError(f"no bank of {machine.id} waits to be accepted")
        return self._choose(machine, version, activate=activate, embedder=embedder)

    def backtest(self, machine: MachineConfig, bank: BankSet, *, embedder: Embedder | None = None) -> list[str]:
        """What a version that is not active yet would have made of the past, in sentences."""
        old, _ = self.load(machine)
        if old is None:
            return []
        stated = machine.mode is not None and not machine.mode.cluster
        told = factors(old, bank, stated=stated)
        if told is not None:
            return [self._recounted(machine, old, told)]
        sentences = ["its windows are not those that the stored scores are of, so only kept waveforms can tell"]
        kept = self._recordings(machine.id, old)
        if not kept:
            return [*sentences, f"none were kept with bank {old.version} (enroll.keep_mb)"]
        normal = {k: r for k, r in kept.items() if is_mode(k)}
        counts = {k: self._rejudged(machine, bank, k, r, embedder=embedder) for k, r in kept.items()}
        if normal:
            seconds = sum(r.duration_s for r in normal.values())
            sentences.append(kept_sentence({k: counts[k] for k in normal}, seconds=seconds, version=old.version))
        for fault in kept.keys() - normal.keys():
            seconds = kept[fault].duration_s
            sentences.append(kept_sentence({fault: counts[fault]}, seconds=seconds, version=old.version, fault=fault))
        return sentences

    def _recounted(self, machine: MachineConfig, old: BankSet, told: Mapping[str, float]) -> str:
        if self._past is None:
            return "there are no stored scores here to test it by"
        since_ns = time.time_ns() - BACK_NS
        first_ns = last_ns = 0

        def noted() -> Iterator[Past]:
            nonlocal first_ns, last_ns
            assert self._past is not None
            for one in self._past(machine.id, since_ns):
                first_ns, last_ns = first_ns or one.t_ns, one.t_ns
                yield one

        was, would, others = recounted(noted(), by={old.version: told}, alarm=machine.alarm)
        sentence = stored_sentence(was, would, span_ns=max(last_ns - first_ns, 0))
        return sentence + (f"; {others} scores of other versions take no part" if others else "")

    def _rejudged(
        self, machine: MachineConfig, bank: BankSet, label: str, recording: Recording, *, embedder: Embedder | None
    ) -> Raises:
        pipeline = Pipeline(frontend=self._engine.frontend, embedder=embedder or self._engine.embedder)
        pipeline.judges[machine.id] = self.judge(machine, bank)
        tagged = machine.mode is not None and machine.mode.topic is not None and is_mode(label)
        raises = Raises(machine.alarm)
        for moment in moments(recording, machine, self._config.window):
            known = replace(moment, mode=mode_of(label)) if tagged else moment
            for verdict in pipeline.process([known]):
                if verdict.scored:
                    raises.take(verdict.score)
        return raises

    def _choose(
        self, machine: MachineConfig, version: str, *, activate: bool, embedder: Embedder | None
    ) -> tuple[str, list[str]]:
        bank, problem = self.load(machine, version)
        sentences = (
            self.backtest(machine, bank, embedder=embedder) if bank is not None else [f"it cannot be used: {problem}"]
        )
        if activate:
            self._files.activate(machine.id, version)
        return version, sentences

    def refine(self, machine: str, probations: Probations, limits: Mapping[str, float]) -> bool:
        """Make and activate a version with other limits, by mode; False where another bank has taken over meanwhile."""
        with self._saving:
            before = self._files.active(machine)
            if before is None or any(probations[mode].bank != before for mode in limits):
                return False
            old = BankSet.from_bytes(self._files.read(machine, before))
            version, now_ns = new_version(), time.time_ns()
            moved = ((b, probations[b.mode], limits[b.mode]) for b in old if b.mode in limits)
            refined = [p.bank_of(b, limit, version=version, created_ns=now_ns) for b, p, limit in moved]
            bank = old.with_modes(refined, version=version)
            manifest = {k: v for k, v in self._files.manifest(machine, before).items() if k not in OWN_OF_FILES}
            blocks, root = sum(probations[mode].learnt for mode in limits), self._files.root(machine, before)
            manifest["refined"] = {"from": before, "root": root, "limits": dict(limits), "blocks": blocks}
            manifest |= _born(bank)
            self._files.save(machine, bank.version, data=bank.to_bytes(), manifest=manifest, like=before)
            self._files.activate(machine, bank.version)
            self._files.prune(machine, keep=self._config.enroll.keep_versions)
        return True

    def _save(
        self,
        bank: BankSet,
        recordings: Mapping[str, Recording],
        report: EnrolReport | None,
        *,
        activate: bool = True,
        replaces: str | None = None,
    ) -> None:
        """`replaces` must still be the active version, and has the same waveforms: they are shared on the disk."""
        total = sum(r.nbytes for r in recordings.values())
        keep = round(self._config.enroll.keep_mb * MB)
        kept = {k: r.thinned(keep * r.nbytes // total) if total > keep else r for k, r in recordings.items() if total}
        manifest = {
            "machine": bank.machine,
            **_born(bank),
            "bundle": bank.banks[0].bundle_name,
            "bundle_digest": bank.banks[0].bundle_digest,
            "modes": list(bank.modes),
            "faults": sorted(k for k in recordings if not is_mode(k)),
            "waveform_bytes_kept": sum(r.nbytes for r in kept.values()),
            "waveform_bytes_heard": total,
            "report": report.as_dict() if report else {},
            WAITS: not activate,
        }
        like = replaces if total <= keep else None
        packed, data = pack(kept) if keep and like is None else None, bank.to_bytes()
        with self._saving:
            if replaces is not None and (active := self._files.active(bank.machine)) != replaces:
                raise NotLearnt(f"bank {active} of {bank.machine} was made active while {replaces} was made again")
            self._files.save(bank.machine, bank.version, data=data, manifest=manifest, waveforms=packed, like=like)
            if activate:
                self._files.activate(bank.machine, bank.version)
            self._files.prune(bank.machine, keep=self._config.enroll.keep_versions)

    def _recordings(self, machine: str, bank: BankSet) -> dict[str, Recording]:
        """What was kept with a version: by label, those of modes and those of faults."""
        waveforms = self._files.waveforms(machine, bank.version)
        found = {} if waveforms is None else unpack(waveforms)
        if NORMAL in found and len(bank.modes) == 1:  # kept before there were modes
            found[label_of(bank.modes[0])] = found.pop(NORMAL)
        return found


def _configured(bank: BankSet | None, machine: MachineConfig) -> BankSet | None:
    """Without the modes that the configuration no longer knows, where it names them."""
    names = machine.mode.names if machine.mode is not None else ()
    if bank is None or not names:
        return bank
    kept = tuple(b for b in bank if b.mode in names)
    return BankSet(kept) if kept else None


def _born(bank: BankSet) -> dict[str, str]:
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
