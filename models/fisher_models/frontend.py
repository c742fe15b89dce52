"""Waveform to the bands that a model sees: log-magnitude spectrogram, normalised, cut into sub-bands.

Follows the published FISHER inference recipe (arXiv 2507.16696): no resampling, a periodic Hann window of 25 ms every
10 ms, natural logarithm, one affine normalisation. All constants come from the bundle's `FrontendSpec`.
"""

import math
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy import fft

from fisher_models.errors import BundleError, SignalError

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontendSpec:
    """The constants of one model's front-end, as its bundle stores them."""

    mean: float  # of the log magnitudes the model was trained on
    divisor: float  # 2 x their standard deviation
    band_bins: int  # width of a sub-band in bins of the transform
    win_ms: float = 25.0
    hop_ms: float = 10.0
    log_floor: float = 1e-10
    patch_frames: int = 16
    patch_bins: int = 16
    max_frames: int = 1024  # later frames are not seen
    remainder: str = "drop"  # what becomes of the bins above the last whole band
    min_rate_hz: float = 1000.0

    def __post_init__(self) -> None:
        sizes = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("mean", "remainder")}
        if wrong := [f"{name} = {value}" for name, value in sizes.items() if not value > 0]:
            raise BundleError(f"front-end: must be positive: {', '.join(wrong)}")
        if self.hop_ms * self.min_rate_hz < 1000 or self.win_ms < self.hop_ms:
            raise BundleError("front-end: a step is less than one sample at min_rate_hz, or longer than the window")
        if self.remainder != "drop":
            raise BundleError(f"front-end: remainder {self.remainder!r} is not known to this version (it knows 'drop')")
        if self.band_bins < self.patch_bins or self.max_frames < self.patch_frames:
            raise BundleError("front-end: a band or the longest input is smaller than one patch")

    def to_dict(self) -> dict[str, Any]:
        """As the manifest stores it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: object) -> Self:
        """The reverse of `to_dict`; BundleError names what is missing, unknown or of the wrong type."""
        if not isinstance(values, dict):
            raise BundleError(f"front-end: expected an object, found {type(values).__name__}")
        known = {f.name: f.type for f in fields(cls)}
        if wrong := sorted(known.keys() ^ values.keys()):
            raise BundleError(f"front-end: missing or unknown: {', '.join(wrong)}")
        for name, kind in known.items():
            value = values[name]
            if isinstance(value, bool) or not isinstance(value, (int, float) if kind is float else kind):  # type: ignore[arg-type]
                raise BundleError(f"front-end: {name} is {value!r}, expected {getattr(kind, '__name__', kind)}")
        return cls(**values)


class Frontend:
    """Waveforms of any sampling rate to the bands of one model. Holds nothing but the spec; safe to share."""

    def __init__(self, spec: FrontendSpec) -> None:
        self.spec = spec

    def bands(self, waveform: Floats, rate_hz: float, *, pad_frames: int | None = None) -> tuple[Floats, Floats]:
        """(samples,) -> bands (n, t, band_bins) and their centres (n,), low band first.

        A centre is a fraction of the Nyquist frequency. `t` is a multiple of the patch; trailing frames that fill no
        patch are dropped. With `pad_frames` the normalised spectrogram is first zero-padded to that many frames;
        input shorter than one patch always is. Raises SignalError for what the model cannot see.
        """
        spec = self.spec
        seen = self.log_spectrogram(waveform, rate_hz)  # (T, F)
        t = max(len(seen), spec.patch_frames, min(pad_frames or 0, spec.max_frames))
        t -= t % spec.patch_frames
        n, width = self._band_count(rate_hz), spec.band_bins
        used = seen[:t, : n * width]
        if used.shape != (t, n * width):
            padded = np.zeros((t, n * width), np.float32)
            padded[: used.shape[0], : used.shape[1]] = used
            used = padded
        bands = np.ascontiguousarray(used.reshape(t, n, width).transpose(1, 0, 2))  # (n, t, width)
        ends = np.minimum(np.arange(1, n + 1) * width, seen.shape[1])
        return bands, ((np.arange(n) * width + ends - 1) / self._sizes(rate_hz)[0]).astype(np.float32)

    def log_spectrogram(self, waveform: Floats, rate_hz: float) -> Floats:
        """(samples,) -> (T, F): normalised log magnitudes of at most `max_frames` frames, bins from 0 to Nyquist."""
        spec = self.spec
        samples = np.asarray(waveform)
        if samples.ndim != 1:
            raise SignalError(f"a waveform has one axis, this one has {samples.ndim}; pass one channel at a time")
        n_frames = self.frames(len(samples), rate_hz)
        if n_frames == 0:
            n_fft = self._sizes(rate_hz)[0]
            raise SignalError(f"{len(samples)} samples at {rate_hz:g} Hz are less than one frame of {n_fft}")
        n_fft, hop = self._sizes(rate_hz)
        mean = samples.mean(dtype=np.float64)  # NaN or infinite as soon as one sample is
        if not math.isfinite(mean):
            raise SignalError("the waveform holds NaN or infinite samples; drop or repair them first")
        with np.errstate(over="ignore", invalid="ignore"):  # judged by its result, below
            used = samples[: n_fft + (n_frames - 1) * hop].astype(np.float32) - np.float32(mean)
            # scipy's transform stays in float32 throughout; numpy's takes six times as long.
            seen = np.abs(fft.rfft(sliding_window_view(used, n_fft)[::hop] * _periodic_hann(n_fft), axis=1))
        seen += np.float32(spec.log_floor)
        np.log(seen, out=seen)
        seen -= np.float32(spec.mean)
        seen /= np.float32(spec.divisor)
        if not np.isfinite(seen).all():
            raise SignalError("the waveform's samples are too large for float32; check the channel's format and scale")
        return np.asarray(seen, np.float32)

    def frames(self, n_samples: int, rate_hz: float) -> int:
        """How many frames the model gets from so many samples (0: too few for one)."""
        n_fft, hop = self._sizes(rate_hz)
        return min(1 + (n_samples - n_fft) // hop, self.spec.max_frames) if n_samples >= n_fft else 0

    def min_samples(self, rate_hz: float) -> int:
        """The fewest samples that fill one patch without padding."""
        n_fft, hop = self._sizes(rate_hz)
        return n_fft + (self.spec.patch_frames - 1) * hop

    def band_edges_hz(self, rate_hz: float) -> tuple[tuple[float, float], ...]:
        """(low, high) of each band. A rate too low for one whole band has one band, up to Nyquist."""
        width_hz = self.spec.band_bins * rate_hz / self._sizes(rate_hz)[0]
        nyquist = rate_hz / 2
        return tuple((b * width_hz, min((b + 1) * width_hz, nyquist)) for b in range(self._band_count(rate_hz)))

    def unseen_hz(self, rate_hz: float) -> tuple[float, float] | None:
        """The range between the last whole band and Nyquist, which the model never sees; None where there is none.

        Bins that fill no patch at the top of each band (4 of 100 in fisher-tiny) are not seen either.
        """
        top, nyquist = self.band_edges_hz(rate_hz)[-1][1], rate_hz / 2
        return (top, nyquist) if top < nyquist else None

    def _band_count(self, rate_hz: float) -> int:
        n_bins = self._sizes(rate_hz)[0] // 2 + 1
        return max(1, n_bins // self.spec.band_bins)

    def _sizes(self, rate_hz: float) -> tuple[int, int]:
        """Samples of the transform and of the step."""
        if not (math.isfinite(rate_hz) and rate_hz >= self.spec.min_rate_hz):
            raise SignalError(f"a rate of {rate_hz:g} Hz: the model sees nothing under {self.spec.min_rate_hz:g} Hz")
        return int(self.spec.win_ms * rate_hz // 1000), int(self.spec.hop_ms * rate_hz // 1000)


def _periodic_hann(n: int) -> Floats:
    return (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n) / n)).astype(np.float32)
