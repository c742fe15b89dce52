"""A machine's memory bank: what was learnt of it, and its bytes.

A bank is immutable and bound to what made it: bundle, precision, window, and each channel's rate, scale, unit and gain.
As bytes it is a safetensors file whose metadata holds the rest as JSON; nothing is ever unpickled.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fisher_agent.calibrate import Doubles
from fisher_agent.config import JudgeBy
from fisher_agent.errors import BadFile
from fisher_agent.exceedance import Calibrated
from fisher_agent.jsontext import loads
from fisher_agent.stages import Floats
from fisher_agent.traits import Traits

FORMAT = "fisher.bank/1"
OTHER_FORMAT = "install the fisher-agent that wrote it, roll back, or enrol again"
NO_FEATURES: Floats = np.zeros((0, 0), np.float32)
NOWHERE: Doubles = np.zeros(0)
UNMEASURED: Floats = np.zeros(0, np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class ChannelBank:
    """What was learnt of one channel: raw embeddings, and indicators where the bank has them.

    A channel that the model does not see has no bands and vectors without columns. A bank that was made before there
    were indicators has features without columns, and is judged by its embeddings alone.
    """

    channel: str
    rate_hz: float
    scale: float
    unit: str
    snapshot: bool
    gain: float  # 0.1 / RMS of the enrolment; the model sees samples x gain
    median_rms: float
    n_bands: int
    limit: float  # largest cosine distance that is still normal
    typical: float  # median left-out distance; both of no meaning without bands
    vectors: Floats  # (n, n_bands * d)
    end_ns: NDArray[np.int64]  # (n,)
    share_median: Doubles  # (n_bands,), parts of a cosine distance
    octave_hz: Doubles  # (k,) centres of third-octave bands
    octave_db: Floats  # (n, k)
    octave_spread_db: Doubles  # (k,) robust standard deviation over the enrolment
    octave_floor: float  # unit², added to every band before the logarithm
    centre: Floats | None = None  # (n_bands * d,), subtracted before comparing; None compares embeddings as they are
    features: Floats = field(default_factory=lambda: NO_FEATURES)  # (n, k)
    feature_centre: Doubles = field(default_factory=lambda: NOWHERE)  # (k,)
    feature_spread: Doubles = field(default_factory=lambda: NOWHERE)  # (k,)
    feature_limit: float = 1.0  # largest distance, in spreads, that is still normal
    typical_ratio: float | None = None  # median left-out ratio of both views; None: typical / limit
    velocity_mm_s: Floats = field(default_factory=lambda: UNMEASURED)  # (n,) RMS, to show beside an alarm's; or empty
    sensor: Traits | None = None  # how its sensor looked; None in banks that were made before this was noted
    quietest: float | None = None  # RMS of a quiet end of a window over `median_rms`; None: not known, or of no use

    @property
    def usual(self) -> float:
        """The ratio of a typical window of the enrolment."""
        return self.typical / self.limit if self.typical_ratio is None else self.typical_ratio


@dataclass(frozen=True, slots=True, eq=False)
class FaultWindows:
    """Labelled windows of faults. A channel that a window lacks has `present` False and zeros."""

    labels: tuple[str, ...]  # (m,)
    end_ns: NDArray[np.int64]  # (m,)
    vectors: Mapping[str, Floats]  # channel -> (m, n_bands * d)
    present: Mapping[str, NDArray[np.bool_]]  # channel -> (m,)
    reach: Mapping[str, float]  # class -> how far its windows lie from one another, in channel limits

    @property
    def counts(self) -> dict[str, int]:
        """Class -> number of its windows, in the order of first use."""
        return {label: self.labels.count(label) for label in dict.fromkeys(self.labels)}


@dataclass(frozen=True, slots=True, eq=False)
class Bank:
    """Everything that a machine is judged by."""

    machine: str
    version: str  # starts with a letter: HMIs turn numeric-looking strings into numbers
    created_ns: int
    mode: str
    bundle_digest: str
    bundle_name: str
    precision: str
    length_s: float
    hop_s: float
    channels: tuple[ChannelBank, ...]
    limit: float  # of the largest channel ratio
    calibration: Doubles  # (n,) sorted left-out machine scores of windows that do not overlap
    faults: FaultWindows | None = None
    judged_by: JudgeBy = "both"  # what decides a channel's ratio; see `compare`
    calibrated: Calibrated | None = None  # what the limit rests on; None of a bank from before there were budgets

    def channel(self, channel_id: str) -> ChannelBank:
        """The channel of that id; KeyError where there is none."""
        for channel in self.channels:
            if channel.channel == channel_id:
                return channel
        raise KeyError(channel_id)

    def to_bytes(self) -> bytes:
        """The bank as one safetensors file."""
        tensors = _tensors(self)
        manifest = _Manifest(
            format=FORMAT,
            machine=self.machine, version=self.version, created_ns=self.created_ns, mode=self.mode,
            bundle_digest=self.bundle_digest, bundle_name=self.bundle_name, precision=self.precision,
            length_s=self.length_s, hop_s=self.hop_s, limit=self.limit,
            channels=[_ChannelEntry(**{k: getattr(c, k) for k in _ChannelEntry.model_fields}) for c in self.channels],
            fault_labels=self.faults.labels if self.faults else (),
            fault_reach=dict(self.faults.reach) if self.faults else {},
            judged_by=self.judged_by, sha256=_digest(tensors),
        )  # fmt: skip
        return bytes(safetensors.numpy.save(tensors, metadata={"bank": manifest.model_dump_json()}))

    @classmethod
    def from_bytes(cls, data: bytes) -> "Bank":
        """The reverse of `to_bytes`. BadFile for anything truncated, foreign, changed, inconsistent or not finite."""
        manifest = _read_manifest(data)
        try:
            tensors = safetensors.numpy.load(data)
        except (safetensors.SafetensorError, KeyError, ValueError) as error:
            raise BadFile(f"the bank file is damaged ({error}); restore it, roll back, or enrol again") from error
        if _digest(tensors) != manifest.sha256:
            raise BadFile("the bank file's contents do not match its checksum; restore it, roll back, or enrol again")
        take = _Taker(tensors)
        bank = cls(
            **{k: getattr(manifest, k) for k in _SHARED_FIELDS},
            channels=tuple(_read_channel(entry, take) for entry in manifest.channels),
            calibration=take("calibration", np.float64, None),
            faults=_read_faults(manifest, take),
            calibrated=Calibrated.read(take) if "budget.facts" in take.tensors else None,
        )
        if (np.diff(bank.calibration) < 0).any():
            raise BadFile("the bank's calibration scores are not sorted; enrol again")
        return bank


# The file ----------------------------------------------------------------------------------------------------------

_Finite = Annotated[float, Field(allow_inf_nan=False)]
_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)


class _ChannelEntry(_Strict):
    channel: str
    rate_hz: _Positive
    scale: _Finite
    unit: str
    snapshot: bool
    gain: _Positive
    median_rms: _Positive
    n_bands: Annotated[int, Field(ge=0)]
    limit: _Positive
    typical: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    octave_floor: _Positive
    feature_limit: _Positive = 1.0
    typical_ratio: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    sensor: Traits | None = None
    quietest: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None


class _Manifest(_Strict):
    format: str
    machine: str
    version: Annotated[str, Field(pattern=r"^[A-Za-z]")]
    created_ns: int
    mode: str
    bundle_digest: str
    bundle_name: str
    precision: str
    length_s: _Positive
    hop_s: _Positive
    limit: _Positive
    channels: Annotated[list[_ChannelEntry], Field(min_length=1)]
    fault_labels: tuple[str, ...]
    fault_reach: dict[str, _Positive]
    judged_by: JudgeBy = "both"
    sha256: str


_SHARED_FIELDS = (
    "machine", "version", "created_ns", "mode", "bundle_digest", "bundle_name", "precision", "length_s", "hop_s",
    "limit", "judged_by",
)  # fmt: skip


def _tensors(bank: Bank) -> dict[str, NDArray[Any]]:
    out: dict[str, NDArray[Any]] = {"calibration": bank.calibration}
    for c in bank.channels:
        arrays = {name: getattr(c, name) for name in ("vectors", "end_ns", "share_median", "octave_hz", "octave_db")}
        out |= {f"channel.{c.channel}.{name}": array for name, array in arrays.items()}
        out[f"channel.{c.channel}.octave_spread_db"] = c.octave_spread_db
        if c.centre is not None:
            out[f"channel.{c.channel}.centre"] = c.centre
        if c.features.size:
            parts = {name: getattr(c, name) for name in ("features", "feature_centre", "feature_spread")}
            out |= {f"channel.{c.channel}.{name}": array for name, array in parts.items()}
        if c.velocity_mm_s.size:
            out[f"channel.{c.channel}.velocity_mm_s"] = c.velocity_mm_s
        if bank.faults and c.n_bands:
            out[f"fault.{c.channel}.vectors"] = bank.faults.vectors[c.channel]
            out[f"fault.{c.channel}.present"] = bank.faults.present[c.channel]
    if bank.faults:
        out["fault.end_ns"] = bank.faults.end_ns
    out |= bank.calibrated.tensors() if bank.calibrated else {}
    return {name: np.ascontiguousarray(array) for name, array in out.items()}


def _digest(tensors: Mapping[str, NDArray[Any]]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(f"{name} {tensors[name].dtype} {tensors[name].shape}\n".encode())
        digest.update(tensors[name].tobytes())
    return digest.hexdigest()


def _read_manifest(data: bytes) -> _Manifest:
    size = int.from_bytes(data[:8], "little")
    if len(data) < 8 or size > len(data) - 8:
        raise BadFile("the file is truncated or no bank; restore it, roll back, or enrol again")
    try:
        document = loads(loads(data[8 : 8 + size])["__metadata__"]["bank"])
        json.dumps(document, ensure_ascii=False).encode()  # half a surrogate pair could never be written again
        found = document["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise BadFile("the file is no bank of fisher-agent; restore it, roll back, or enrol again") from error
    if found != FORMAT:
        raise BadFile(f"the bank's format is {found!r}, this version reads {FORMAT!r}; {OTHER_FORMAT}")
    try:
        return _Manifest.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            why = f"the bank states {where}, which this version does not know; a newer fisher-agent wrote it"
            raise BadFile(f"{why}: {OTHER_FORMAT}") from error
        raise BadFile(f"the bank's manifest is wrong at {where}: {first['msg']}; enrol again") from error


@dataclass(frozen=True, slots=True)
class _Taker:
    """Takes tensors by name, each with the dtype and shape (None: any length) that it must have."""

    tensors: Mapping[str, NDArray[Any]]
    cut: str = field(default="; the file is damaged: restore it, roll back, or enrol again")

    def __call__(self, name: str, dtype: type[np.generic], *shape: int | None) -> NDArray[Any]:
        if name not in self.tensors:
            raise BadFile(f"the bank lacks {name!r}{self.cut}")
        array = self.tensors[name]
        fits = array.ndim == len(shape) and all(want in (None, n) for want, n in zip(shape, array.shape, strict=True))
        if array.dtype != dtype or not fits:
            raise BadFile(
                f"the bank's {name!r} is {array.dtype} {array.shape}, not {np.dtype(dtype)} {shape}{self.cut}"
            )
        if not np.isfinite(array).all():
            raise BadFile(f"the bank's {name!r} holds values that are not finite{self.cut}")
        array.flags.writeable = False
        return array


def _read_channel(entry: _ChannelEntry, take: _Taker) -> ChannelBank:
    at = f"channel.{entry.channel}."
    vectors = take(at + "vectors", np.float32, None, None)
    octave_hz = take(at + "octave_hz", np.float64, None)
    n, width = vectors.shape
    fits = width > 0 and width % entry.n_bands == 0 if entry.n_bands else width == 0
    if n == 0 or not fits:
        raise BadFile(f"the bank's {at}vectors is {vectors.shape}, which is not {entry.n_bands} bands{take.cut}")
    features, feature_centre, feature_spread = _read_features(at, take, n)
    if not entry.n_bands and not features.size:
        raise BadFile(f"the bank's {at}features are missing, and the model does not see this channel{take.cut}")
    return ChannelBank(
        **{name: getattr(entry, name) for name in _ChannelEntry.model_fields},
        vectors=vectors,
        end_ns=take(at + "end_ns", np.int64, n),
        share_median=take(at + "share_median", np.float64, entry.n_bands),
        octave_hz=octave_hz,
        octave_db=take(at + "octave_db", np.float32, n, len(octave_hz)),
        octave_spread_db=take(at + "octave_spread_db", np.float64, len(octave_hz)),
        centre=take(at + "centre", np.float32, width) if at + "centre" in take.tensors else None,
        features=features,
        feature_centre=feature_centre,
        feature_spread=feature_spread,
        velocity_mm_s=take(at + "velocity_mm_s", np.float32, n) if at + "velocity_mm_s" in take.tensors else UNMEASURED,
    )


def _read_features(at: str, take: _Taker, n: int) -> tuple[Floats, Doubles, Doubles]:
    if at + "features" not in take.tensors:
        return NO_FEATURES, NOWHERE, NOWHERE
    features = take(at + "features", np.float32, n, None)
    width = features.shape[1]
    spread = take(at + "feature_spread", np.float64, width)
    if not width or not (spread > 0).all():
        raise BadFile(f"the bank's {at}feature_spread holds values that are not above 0{take.cut}")
    return features, take(at + "feature_centre", np.float64, width), spread


def _read_faults(manifest: _Manifest, take: _Taker) -> FaultWindows | None:
    if not manifest.fault_labels:
        return None
    m = len(manifest.fault_labels)
    if missing := set(manifest.fault_labels) - manifest.fault_reach.keys():
        raise BadFile(f"the bank has no reach for fault {', '.join(sorted(missing))}{take.cut}")
    widths = {
        c.channel: take(f"channel.{c.channel}.vectors", np.float32, None, None).shape[1]
        for c in manifest.channels
        if c.n_bands
    }
    return FaultWindows(
        labels=manifest.fault_labels,
        end_ns=take("fault.end_ns", np.int64, m),
        vectors={c: take(f"fault.{c}.vectors", np.float32, m, width) for c, width in widths.items()},
        present={c: take(f"fault.{c}.present", np.bool_, m) for c in widths},
        reach=manifest.fault_reach,
    )
