"""Batches: signals made or cut for a step, as crops of normalised bands. What a step gets depends on the step alone.

One rate and one length are drawn for each batch (the batch-specific resampling of FISHER: here signals are made at the
rate). Every process of a run draws the same rate and length, so that none waits, and different signals.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from fisher_models.frontend import FrontendSpec
from fisher_models.pretrain import seeds
from fisher_models.pretrain.config import CorpusSpec
from fisher_models.pretrain.corpus import machine, recorded, rows, signals
from fisher_models.pretrain.corpus.draws import Draws
from fisher_models.pretrain.corpus.span import Span
from fisher_models.pretrain.ranks import Rank
from fisher_models.pretrain.spectra import Spectra

_GROUP_SAMPLES = {"cpu": 2**20, "gpu": 2**27}


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Crops of sub-bands: all first crops, then all second ones of the same sub-bands."""

    bands: Tensor  # (crops x n, t, f)
    centres: Tensor  # (crops x n,) fractions of Nyquist
    rate_hz: float
    crops: int


class Feed:
    """Batches by step, on the device of this process."""

    def __init__(self, spec: CorpusSpec, frontend: FrontendSpec, *, seed: int, rank: Rank) -> None:
        self.spec = spec
        self.spectra = Spectra(frontend)
        self._seed = seed
        self._rank = rank
        self._shares: dict[machine.Kind, float] = {
            "vibration": spec.vibration, "sound": spec.sound, "current": spec.current,
        }  # fmt: skip
        self._recorded = recorded.load(spec.recorded, min_rate_hz=frontend.min_rate_hz) if spec.recorded.share else None

    def batch(self, step: int) -> Batch:
        """The batch of a step: `crops` x `sub_bands` sub-bands of one rate and one length."""
        spec, patch = self.spec, self.spectra.spec.patch_frames
        shape = Draws(seeds.generator(self._seed, "shape", counter=step))
        count = step * self._rank.world + self._rank.index
        frames = int(shape.whole(1, low=-(-spec.min_frames // patch), high=spec.max_frames // patch)) * patch
        from_recordings = bool(shape.uniform(1) < spec.recorded.share)
        rates = list(self._recorded.stretches) if self._recorded and from_recordings else list(spec.rates_hz)
        rate_hz = float(rates[int(shape.whole(1, low=0, high=len(rates) - 1))])
        wide = min(self._width(rate_hz), spec.bands_per_signal)
        n = math.ceil(spec.sub_bands / wide)
        longer = round(frames * spec.crop_spread) if spec.crops == 2 else 0
        whole = min(frames + longer, self.spectra.spec.max_frames)
        if self._recorded and from_recordings:
            room = self._recorded.longest(rate_hz)
            while self.spectra.samples(frames, rate_hz) > room and frames > patch:
                frames -= patch
            while self.spectra.samples(whole, rate_hz) > room and whole > frames:
                whole -= 1
            seen = self._cut(n, whole, rate_hz, count)
        else:
            seen = self._made(n, whole, rate_hz, count)
        draws = Draws(seeds.generator(self._seed, "crops", counter=count))
        chosen, centres = self._choice(draws, len(seen), wide, rate_hz)
        cuts = [self._crop(seen, frames, chosen, draws) for _ in range(spec.crops)]
        bands = torch.cat([cut[: spec.sub_bands] for cut in cuts])
        return Batch(bands, centres[: spec.sub_bands].repeat(spec.crops), rate_hz, spec.crops)

    def _made(self, n: int, frames: int, rate_hz: float, count: int) -> Tensor:
        """(n, T, F) of generated machines."""
        draws = Draws(seeds.generator(self._seed, "machines", counter=count))
        noise = seeds.generator(self._seed, "noise", counter=count, device=self._rank.device)
        span = Span.holding(self.spectra.samples(frames, rate_hz), rate_hz=rate_hz, noise=noise)
        machines = machine.draw(draws, n, rate_hz=rate_hz, shares=self._shares)
        return log_spectrograms(machines, span, self.spectra)[:, :frames]

    def _cut(self, n: int, frames: int, rate_hz: float, count: int) -> Tensor:
        """(n, T, F) of recordings."""
        assert self._recorded is not None
        generator = seeds.generator(self._seed, "machines", counter=count)
        waves = self._recorded.windows(n, self.spectra.samples(frames, rate_hz), rate_hz, generator)
        return self.spectra.log_spectrograms(waves.to(self._rank.device), rate_hz)

    def _width(self, rate_hz: float) -> int:
        """How many different bands a signal of this rate can give."""
        if self.spec.random_bands and self.spectra.bins(rate_hz) > self.spectra.spec.band_bins:
            return max(2, self.spectra.count(rate_hz))  # they may overlap
        return self.spectra.count(rate_hz)

    def _choice(self, draws: Draws, n: int, wide: int, rate_hz: float) -> tuple["_Choice", Tensor]:
        """Which bands of each signal, and their centres (n x wide,)."""
        width, bins, device = self.spectra.spec.band_bins, self.spectra.bins(rate_hz), self._rank.device
        if self.spec.random_bands and bins > width:
            first = draws.whole(n, wide, low=0, high=bins - width).to(device)
            centres = (2 * first + width - 1) / self.spectra.n_fft(rate_hz)  # as of a band [first, first + width)
            return _Choice(first[:, :, None] + torch.arange(width, device=device), None), centres.flatten().float()
        # What is chosen from is the bins themselves, with one more that stands for padding.
        numbered = torch.arange(1.0, bins + 1, device=device).expand(1, self.spectra.spec.patch_frames, -1)
        grid, grid_centres = self.spectra.bands(numbered, rate_hz)  # (1, b, t, width)
        places = grid[0, :, 0].long() - 1  # (b, width); -1 is padding
        chosen = draws.uniform(n, len(places)).argsort(1)[:, :wide].to(device)
        at = places[chosen]  # (n, wide, width)
        padding = (at < 0) if bool((places < 0).any()) else None
        return _Choice(at.clamp(min=0), padding), grid_centres[chosen].flatten()

    def _crop(self, seen: Tensor, frames: int, choice: "_Choice", draws: Draws) -> Tensor:
        """One crop of each signal, at a random place and gain: (n x wide, t, f)."""
        n, whole, bins = seen.shape
        starts = draws.whole(n, low=0, high=whole - frames).to(seen.device)
        gain = draws.decibels(n, low=-self.spec.gain_db, high=self.spec.gain_db).to(seen.device)
        lines = (torch.arange(n, device=seen.device) * whole + starts)[:, None] + torch.arange(
            frames, device=seen.device
        )
        cut = seen.reshape(n * whole, bins)[lines] + self.spectra.gain(gain)[:, None, None]  # (n, t, F)
        wide, width = choice.bins.shape[1:]
        out = torch.empty(n, wide, frames, width, device=seen.device)
        for band in range(wide):
            out[:, band] = cut.gather(2, choice.bins[:, None, band].expand(-1, frames, -1))
        if choice.padding is not None:
            out.masked_fill_(choice.padding[:, :, None], 0.0)
        return out.flatten(0, 1)


@dataclass(frozen=True, slots=True, eq=False)
class _Choice:
    """The bins of the chosen bands of each signal."""

    bins: Tensor  # (n, wide, f)
    padding: Tensor | None  # the same shape, where a bin is padding; None: nowhere


def log_spectrograms(machines: machine.Machines, span: Span, spectra: Spectra) -> Tensor:
    """(n, T, F): machines heard over a span, in groups that fit a cache (1.6 times as fast on a CPU as all at once)."""
    n, device = len(machines.scale), span.device
    group = max(2, _GROUP_SAMPLES["cpu" if device.type == "cpu" else "gpu"] // span.samples)
    made = []
    for start in range(0, n, group):
        some = rows.pick(machines, torch.arange(start, min(n, start + group)))
        made.append(spectra.log_spectrograms(signals.render(some, span), span.rate_hz))
    return torch.cat(made)
