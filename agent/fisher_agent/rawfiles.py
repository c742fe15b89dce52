"""Samples of one channel <-> the bytes of a file, to the bit. Pure.

Samples of a sensor that sends integers are scale x integer; the integers are found again and kept as FLAC, half or less
of the size. That the decoded file gives the very same float32 is verified each time; where it does not, and for sensors
that send floats, the float32 themselves are kept as npz.
"""

import io
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import soundfile
from numpy.typing import NDArray

from fisher_agent.errors import BadFile, BadPayload
from fisher_agent.stages import Floats
from fisher_agent.wire import scaled
from fisher_models.npz import archive
from fisher_models.sound import decoded

RawFormat = Literal["i16", "i24", "f32"]
FLAC_RATES_HZ = (1, 65535)  # what every frame of a FLAC file can state; the true rate stands in the sidecar
SUBTYPES: dict[RawFormat, str] = {"i16": "PCM_16", "i24": "PCM_24"}
DTYPES: dict[RawFormat, type[np.signedinteger[Any]]] = {"i16": np.int16, "i24": np.int32}
LIMITS: dict[RawFormat, int] = {"i16": 2**15, "i24": 2**23}


@dataclass(frozen=True, slots=True)
class RawFile:
    """What `unpack` gives back."""

    format: RawFormat
    body: bytes

    @property
    def suffix(self) -> str:
        """Of the file's name."""
        return ".npz" if self.format == "f32" else ".flac"


def pack(samples: Floats, *, scale: float, rate_hz: float) -> RawFile:
    """Samples (n,) in the channel's unit -> the smallest file that gives them back to the bit; n >= 1."""
    for form in ("i16", "i24"):
        whole = _integers(samples, scale, form)
        if whole is None:
            continue
        body = _flac(whole, rate_hz, form)
        if body is not None and same_bits(unpack(body, form=form, scale=scale), samples):
            return RawFile(form, body)
    return RawFile("f32", npz(samples=samples))


def unpack(body: bytes, *, form: str, scale: float) -> Floats:
    """The samples (n,) of a file; BadFile where it is none of that format."""
    if form == "f32":
        return _floats(body)
    if form not in SUBTYPES:
        raise BadFile(f"{form!r} is no format of samples; known are i16, i24, f32")
    try:
        with soundfile.SoundFile(io.BytesIO(body)) as file:
            if file.subtype != SUBTYPES[form] or file.channels != 1:
                raise BadFile(f"a FLAC file of {file.channels} channels and {file.subtype}, where {form} is expected")
            expected = file.frames
            data = decoded(file, "int16" if form == "i16" else "int32", size=len(body))[:, 0]
    except soundfile.LibsndfileError as error:
        raise BadFile(f"not a readable FLAC file: {error.error_string}") from error
    if len(data) != expected:
        raise BadFile(f"a FLAC file that is cut short: {len(data)} of {expected} samples")
    try:
        return scaled(data if form == "i16" else data >> 8, scale)
    except BadPayload as error:
        raise BadFile(f"samples that do not fit the scale {scale:g}: {error}") from error


def npz(**arrays: Any) -> bytes:
    """Arrays as the bytes of an npz file without compression: noise does not get smaller."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def arrays_of(body: bytes) -> dict[str, NDArray[Any]]:
    """The arrays of an npz file; BadFile where it is damaged, or holds objects."""
    try:
        return archive(body, max_bytes=len(body))  # those of ours are not packed
    except ValueError as error:
        raise BadFile(f"not a readable npz file: {error}") from error


def same_bits(a: Floats, b: Floats) -> bool:
    """Whether two arrays of float32 are equal in every bit: 0.0 is not -0.0."""
    return a.shape == b.shape and bool((a.view(np.uint32) == b.view(np.uint32)).all())


def _integers(samples: Floats, scale: float, form: RawFormat) -> NDArray[Any] | None:
    """What the sensor sent, if these samples are scale x an integer of this width in the live path's arithmetic."""
    with np.errstate(over="ignore", invalid="ignore"):
        nearest = np.rint(samples.astype(np.float64) / scale)
    limit = LIMITS[form]
    if not (np.isfinite(nearest).all() and nearest.min() >= -limit and nearest.max() < limit):
        return None
    whole: NDArray[Any] = nearest.astype(DTYPES[form])
    return whole if same_bits(scaled(whole, scale), np.ascontiguousarray(samples)) else None


def _flac(whole: NDArray[Any], rate_hz: float, form: RawFormat) -> bytes | None:
    buffer = io.BytesIO()
    stated = min(max(round(rate_hz), FLAC_RATES_HZ[0]), FLAC_RATES_HZ[1])
    try:
        data = whole if form == "i16" else whole << 8
        soundfile.write(buffer, data, stated, format="FLAC", subtype=SUBTYPES[form])
    except soundfile.LibsndfileError:
        return None
    return buffer.getvalue()


def _floats(body: bytes) -> Floats:
    samples = arrays_of(body).get("samples")
    if samples is None or samples.dtype != np.float32 or samples.ndim != 1:
        raise BadFile("an npz file without float32 `samples` of one dimension")
    samples.flags.writeable = False
    return samples
