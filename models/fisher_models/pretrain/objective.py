"""The student and its losses: from a fifth of a band, predict the teacher's average for the rest and the whole.

Both are mean squared errors per dimension: the published ones differ by the constant factor sqrt(d), which Adam divides
out. Added losses, each off at weight 0: the hidden pixels themselves (MAE, arXiv 2111.06377), InfoNCE between two crops
of one band (SimCLR, arXiv 2002.05709), and simple statistics of the band.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own convention)
from torch import Tensor, nn

from fisher_models.pretrain import statistics
from fisher_models.pretrain.config import DecoderSpec, LossSpec
from fisher_models.pretrain.decoder import Decoder
from fisher_models.pretrain.encoders import opened
from fisher_models.pretrain.masking import hidden
from fisher_models.pretrain.targets import Running, Target

_CONTRAST_DIM = 128


@dataclass(frozen=True, slots=True, eq=False)
class Sight:
    """What the student is given: sub-bands, crop-major (all first crops, then all second ones), and their masks."""

    bands: Tensor  # (n, t, f)
    centres: Tensor  # (n,)
    kept: Tensor  # (n x clones, kept), clones of a sub-band side by side
    noise: Tensor  # (n x clones, L, d)
    crops: int


class Student(nn.Module):
    """The encoder with what only training needs: decoder and heads. `encoder` is the model that is shipped."""

    def __init__(
        self, encoder: nn.Module, dim: int, *, patch: tuple[int, int], decoder: DecoderSpec, losses: LossSpec
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.losses = losses
        self._patch = patch
        self.decoder = Decoder(decoder, dim)
        self.predict_patch = nn.Linear(decoder.dim, dim)
        self.predict_band = nn.Linear(dim, dim)
        if losses.pixel:
            self.predict_pixels = nn.Linear(decoder.dim, patch[0] * patch[1])
        if losses.contrast:
            self.contrast = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, _CONTRAST_DIM))
        if losses.statistics:
            self.predict_statistics = nn.Sequential(
                nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, len(statistics.NAMES))
            )
            self.usual = Running(len(statistics.NAMES))

    def forward(self, sight: Sight, target: Target) -> dict[str, Tensor]:
        """Losses by name, unweighted, and their weighted sum as "loss"."""
        encoder, clones = opened(self.encoder), len(sight.kept) // len(sight.bands)
        grid = encoder.grid(sight.bands.shape[1])
        patches = encoder.patches(sight.bands, sight.centres).repeat_interleave(clones, 0)  # (m, L, d)
        seen = patches.gather(1, sight.kept[:, :, None].expand(-1, -1, patches.shape[2]))
        tokens, _ = encoder.encode(seen, sight.centres.repeat_interleave(clones, 0))
        summary = tokens[:, 0]  # (m, d)
        places = hidden(sight.kept, patches.shape[1])
        decoded = _at(self.decoder(tokens[:, 1:], sight.kept, grid, sight.noise), places)  # (m, hidden, dim)
        of_clones = target.band.repeat_interleave(clones, 0)
        out = {
            "band": F.mse_loss(self.predict_band(summary).float(), of_clones),
            "patch": F.mse_loss(
                self.predict_patch(decoded).float(), _at(target.patch.repeat_interleave(clones, 0), places)
            ),
        }
        if self.losses.pixel:
            wanted = _at(self._pixels(sight.bands).repeat_interleave(clones, 0), places)
            out["pixel"] = F.mse_loss(self.predict_pixels(decoded).float(), wanted)
        if self.losses.contrast and sight.crops == 2:
            first, second = self.contrast(summary).float().unflatten(0, (-1, clones)).mean(1).chunk(2)
            out["contrast"] = _contrast(first, second, self.losses.temperature)
        if self.losses.statistics:
            wanted = self.usual(statistics.statistics(sight.bands)).clamp(-5, 5).repeat_interleave(clones, 0)
            out["statistics"] = F.mse_loss(self.predict_statistics(summary).float(), wanted)
        total = torch.stack([getattr(self.losses, name) * value for name, value in out.items()]).sum()
        return {**out, "loss": total}

    def _pixels(self, bands: Tensor) -> Tensor:
        """(n, t, f) -> (n, L, pixels of a patch), less the band's mean and over the batch's deviation."""
        high, wide = self._patch
        less = bands - bands.mean((1, 2), keepdim=True)
        cut = (less / (less.std() + 1e-6))[:, :, : bands.shape[2] // wide * wide]
        return cut.unfold(1, high, high).unfold(2, wide, wide).flatten(3).flatten(1, 2)


def _at(values: Tensor, places: Tensor) -> Tensor:
    """(m, L, d), (m, k) -> (m, k, d)."""
    return values.gather(1, places[:, :, None].expand(-1, -1, values.shape[2]))


def _contrast(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """(n, d), (n, d): the same band's other crop among the batch's others, both ways."""
    a, b = F.normalize(first, dim=1), F.normalize(second, dim=1)
    with torch.autocast(a.device.type, enabled=False):  # small differences between neighbours decide
        scores = a @ b.T / temperature
    same = torch.arange(len(a), device=a.device)
    return (F.cross_entropy(scores, same) + F.cross_entropy(scores.T, same)) / 2
