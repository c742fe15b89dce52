"""Waveform to the bands that a model sees: log-magnitude spectrogram, normalised, cut into sub-bands.

Follows the published inference recipes of FISHER (arXiv 2507.16696) and ECHO (arXiv 2508.14689), which agree but for
their constants and for what becomes of the edges: no resampling, a periodic Hann window of 25 ms every 10 ms, natural
logarithm, one affine normalisation. All constants and rules come from the bundle's `FrontendSpec`.
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

# What becomes of bins above the last whole band, of frames after the last whole patch, of frames above `max_frames`.
# Padding is zeros in the normalised domain; a band that is too short gets them at its low end (pad-front).
RULES = {"remainder": ("drop", "pad-front"), "trailing": ("drop", "pad"), "longer": ("cut", "mean")}
LARGEST = 1e9  # of any constant
_LATER = {"trailing", "longer"}  # manifests from before these rules existed hold none of them, and mean the first


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
    max_frames: int = 1024  # of one pass through the model
    remainder: str = "drop"  # drop | pad-front: bins above the last whole band
    trailing: str = "drop"  # drop | pad: frames after the last whole patch
    longer: str = "cut"  # cut | mean: of input above max_frames the first, or the mean embedding of all segments
    min_rate_hz: float = 1000.0

    def __post_init__(self) -> None:
        sizes = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("mean", *RULES)}
        if wrong := [f"{name} = {value}" for name, value in sizes.items() if not value > 0]:
            raise BundleError(f"front-end: must be positive: {', '.join(wrong)}")
        if self.hop_ms * self.min_rate_hz < 1000 or self.win_ms < self.hop_ms:
            raise BundleError("front-end: a step is less than one sample at min_rate_hz, or longer than the window")
        for rule, known in RULES.items():
            if (found := getattr(self, rule)) not in known:
                raise BundleError(f"front-end: {rule} {found!r} is not known to this version ({', '.join(known)})")
        if self.max_frames % self.patch_frames and self.trailing == "pad":
            raise BundleError("front-end: with trailing 'pad', max_frames must be a multiple of patch_frames")
        if self.band_bins < self.patch_bins or self.max_frames < self.patch_frames:
            raise BundleError("front-end: a band or the longest input is smaller than one patch")

    @property
    def longest_s(self) -> float:
        """The longest input that is seen to its end; infinite where longer input is segmented."""
        one_pass = (self.win_ms + (self.max_frames - 1) * self.hop_ms) / 1000
        return one_pass if self.longer == "cut" else math.inf

    def to_dict(self) -> dict[str, Any]:
        """As the manifest stores it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: object) -> Self:
        """The reverse of `to_dict`; BundleError names what is missing, unknown or of the wrong type."""
        if not isinstance(values, dict):
            raise BundleError(f"front-end: expected an object, found {type(values).__name__}")
        known = {f.name: f.type for f in fields(cls) if f.name in values or f.name not in _LATER}
        if wrong := sorted(known.keys() ^ values.keys()):
            raise BundleError(f"front-end: missing or unknown: {', '.join(wrong)}")
        for name, kind in known.items():
            value = values[name]
            if isinstance(value, bool) or not isinstance(value, (int, float) if kind is float else kind):  # type: ignore[arg-type]
                raise BundleError(f"front-end: {name} is {value!r}, expected {getattr(kind, '__name__', kind)}")
            if not isinstance(value, str) and not abs(value) < LARGEST:  # NaN and infinity, too
                raise BundleError(f"front-end: {name} is beyond what a front-end can be made of")
        return cls(**values)


class Frontend:
    """Waveforms of any sampling rate to the bands of one model. Holds nothing but the spec; safe to share."""

    def __init__(self, spec: FrontendSpec) -> None:
        self.spec = spec

    def bands(self, waveform: Floats, rate_hz: float, *, pad_frames: int | None = None) -> tuple[Floats, Floats]:
        """(samples,) -> bands (n, t, band_bins) and their centres (n,), low band first, of input that is one segment.

        A centre is a fraction of the Nyquist frequency. `t` is a multiple of the patch; trailing frames that fill no
        patch are dropped or padded, as the spec says. With `pad_frames` the normalised spectrogram is first
        zero-padded to that many frames; input shorter than one patch always is. Raises SignalError for what the model
        cannot see, and for input of several segments.
        """
        segments, centres = self.segments(waveform, rate_hz, pad_frames=pad_frames)
        if len(segments) > 1:
            raise SignalError(f"{len(waveform)} samples at {rate_hz:g} Hz are {len(segments)} segments; use segments()")
        return segments[0], centres

    def segments(self, waveform: Floats, rate_hz: float, *, pad_frames: int | None = None) -> tuple[Floats, Floats]:
        """(samples,) -> the bands (s, n, t, band_bins) of each segment and their centres (n,); otherwise as `bands`.

        The embedding of the input is the mean over its segments. There is one, unless `longer` is "mean" and there
        are more than `max_frames` frames: then each holds `max_frames`, and the last one the last of them, so that it
        may overlap its predecessor.
        """
        seen, longest = self.log_spectrogram(waveform, rate_hz), self.spec.max_frames  # (T, F)
        starts = list(range(0, len(seen) - longest + 1, longest)) or [0]
        if len(seen) > longest and len(seen) % longest:
            starts.append(len(seen) - longest)
        cut = [self._cut(seen[start : start + longest], pad_frames or 0) for start in starts]
        n, width = cut[0].shape[0], self.spec.band_bins
        ends = np.minimum(np.arange(1, n + 1) * width, seen.shape[1])  # without padding
        bands = np.stack(cut) if len(cut) > 1 else cut[0][None]
        return bands, ((np.arange(n) * width + ends - 1) / self._sizes(rate_hz)[0]).astype(np.float32)

    def _cut(self, seen: Floats, pad_frames: int) -> Floats:
        """(T, F) -> (n, t, band_bins)."""
        spec, width, patch = self.spec, self.spec.band_bins, self.spec.patch_frames
        t = max(len(seen), patch, min(pad_frames, spec.max_frames))
        t = t - t % patch if spec.trailing == "drop" else -(-t // patch) * patch
        n, frames = self._count(seen.shape[1]), min(len(seen), t)
        whole = min(seen.shape[1] // width, n)
        out = np.zeros((n, t, width), np.float32)
        out[:whole, :frames] = seen[:frames, : whole * width].reshape(frames, whole, width).transpose(1, 0, 2)
        if whole < n:  # the last band is too short
            rest = seen[:frames, whole * width :]
            low = 0 if spec.remainder == "drop" else width - rest.shape[1]
            out[whole, :frames, low : low + rest.shape[1]] = rest
        return out

    def log_spectrogram(self, waveform: Floats, rate_hz: float) -> Floats:
        """(samples,) -> (T, F): normalised log magnitudes of the frames that count, bins from 0 to Nyquist."""
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
        """How many frames the model gets from so many samples (0: too few for one); cut where the spec says so."""
        n_fft, hop = self._sizes(rate_hz)
        frames = 1 + (n_samples - n_fft) // hop if n_samples >= n_fft else 0
        return min(frames, self.spec.max_frames) if self.spec.longer == "cut" else frames

    def min_samples(self, rate_hz: float) -> int:
        """The fewest samples that fill one patch without padding."""
        n_fft, hop = self._sizes(rate_hz)
        return n_fft + (self.spec.patch_frames - 1) * hop

    def band_edges_hz(self, rate_hz: float) -> tuple[tuple[float, float], ...]:
        """(low, high) of each band, none above Nyquist; a band that is padded ends there."""
        width_hz = self.spec.band_bins * rate_hz / self._sizes(rate_hz)[0]
        nyquist = rate_hz / 2
        n = self._count(self._sizes(rate_hz)[0] // 2 + 1)
        return tuple((b * width_hz, min((b + 1) * width_hz, nyquist)) for b in range(n))

    def unseen_hz(self, rate_hz: float) -> tuple[float, float] | None:
        """The range between the last band and Nyquist, which the model never sees; None where there is none.

        Bins that fill no patch at the top of each band (4 of 100 in fisher-tiny) are not seen either.
        """
        top, nyquist = self.band_edges_hz(rate_hz)[-1][1], rate_hz / 2
        return (top, nyquist) if top < nyquist else None

    def _count(self, n_bins: int) -> int:
        """Bands of a spectrum of so many bins."""
        width = self.spec.band_bins
        return max(1, n_bins // width) if self.spec.remainder == "drop" else -(-n_bins // width)

    def _sizes(self, rate_hz: float) -> tuple[int, int]:
        """Samples of the transform and of the step."""
        if not (math.isfinite(rate_hz) and rate_hz >= self.spec.min_rate_hz):
            raise SignalError(f"a rate of {rate_hz:g} Hz: the model sees nothing under {self.spec.min_rate_hz:g} Hz")
        return int(self.spec.win_ms * rate_hz // 1000), int(self.spec.hop_ms * rate_hz // 1000)


def _periodic_hann(n: int) -> Floats:
    return (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n) / n)).astype(np.float32)
