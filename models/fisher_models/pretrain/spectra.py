"""The front-end of `fisher_models.frontend` in torch, for many waveforms at once, on any device.

Same recipe, same constants, same rules for edges; a test holds the two within 1e-4 of each other.
"""

import torch
from torch import Tensor

from fisher_models.errors import SignalError
from fisher_models.frontend import Frontend, FrontendSpec

_TINY = 1e-36  # under the square root: its gradient-free derivative is not needed, its value is below every log floor


class Spectra:
    """Waveforms of one rate to log spectrograms and bands. Holds nothing but the spec; safe to share."""

    def __init__(self, spec: FrontendSpec) -> None:
        self.spec = spec
        self._sizes = Frontend(spec)

    def n_fft(self, rate_hz: float) -> int:
        """Samples of one transform."""
        return int(self.spec.win_ms * rate_hz // 1000)

    def bins(self, rate_hz: float) -> int:
        """Bins from 0 to Nyquist."""
        return self.n_fft(rate_hz) // 2 + 1

    def samples(self, frames: int, rate_hz: float) -> int:
        """How many samples give so many frames."""
        return self.n_fft(rate_hz) + (frames - 1) * int(self.spec.hop_ms * rate_hz // 1000)

    def count(self, rate_hz: float) -> int:
        """Bands of a spectrogram at this rate."""
        return len(self._sizes.band_edges_hz(rate_hz))

    def log_spectrograms(self, waveforms: Tensor, rate_hz: float) -> Tensor:
        """(n, samples) -> (n, T, F): normalised log magnitudes. Raises SignalError for too few samples."""
        spec, n_fft = self.spec, self.n_fft(rate_hz)
        frames = self._sizes.frames(waveforms.shape[1], rate_hz)
        if frames == 0:
            raise SignalError(f"{waveforms.shape[1]} samples at {rate_hz:g} Hz are less than one frame of {n_fft}")
        hop = int(spec.hop_ms * rate_hz // 1000)
        used = waveforms[:, : n_fft + (frames - 1) * hop] - waveforms.mean(1, keepdim=True, dtype=torch.float64).float()
        window = torch.hann_window(n_fft, periodic=True, device=used.device)
        transform = torch.fft.rfft(used.unfold(1, n_fft, hop) * window)  # (n, T, F)
        power = torch.addcmul(transform.real.square(), transform.imag, transform.imag)
        seen = power.clamp_(min=_TINY).sqrt_().add_(spec.log_floor).log_()
        return seen.sub_(spec.mean).div_(spec.divisor)

    def bands(self, seen: Tensor, rate_hz: float) -> tuple[Tensor, Tensor]:
        """(n, T, F) -> bands (n, b, t, band_bins), low band first, and their centres (b,) as fractions of Nyquist.

        Frames that fill no patch are dropped or padded, bins that fill no band too, as the spec says.
        """
        spec, (n, frames, bins) = self.spec, seen.shape
        patch, width = spec.patch_frames, spec.band_bins
        t = max(frames, patch)
        t = t - t % patch if spec.trailing == "drop" else -(-t // patch) * patch
        count = max(1, bins // width) if spec.remainder == "drop" else -(-bins // width)
        out = seen.new_zeros(n, count, t, width)
        whole, kept = min(bins // width, count), min(frames, t)
        out[:, :whole, :kept] = seen[:, :kept, : whole * width].unflatten(2, (whole, width)).transpose(1, 2)
        if whole < count:  # the last band is too short
            rest = seen[:, :kept, whole * width :]
            low = 0 if spec.remainder == "drop" else width - rest.shape[2]
            out[:, whole, :kept, low : low + rest.shape[2]] = rest
        first = torch.arange(count, device=seen.device) * width
        ends = torch.clamp(first + width, max=bins)  # without padding
        return out, ((first + ends - 1) / self.n_fft(rate_hz)).float()

    def gain(self, factor: Tensor) -> Tensor:
        """What multiplying a waveform adds to its normalised log magnitudes (but at the log floor)."""
        return torch.log(factor) / self.spec.divisor
