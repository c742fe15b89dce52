"""Losses: each by its weight, on hidden patches only, and with a gradient for everything that is trained."""

import pytest
import torch

from fisher_models.fisher import FisherConfig
from fisher_models.pretrain import masking
from fisher_models.pretrain.config import DecoderSpec, LossSpec, MaskSpec
from fisher_models.pretrain.decoder import Decoder
from fisher_models.pretrain.encoders import untrained
from fisher_models.pretrain.objective import Sight, Student
from fisher_models.pretrain.targets import Target

CONFIG = FisherConfig(embed_dim=32, heads=1, band_bins=100, depth=2)
DECODER = DecoderSpec(dim=16, layers=2, groups=8)


def _student(losses: LossSpec) -> Student:
    torch.manual_seed(0)
    encoder = untrained(CONFIG, patch_std=0.065, generator=torch.Generator().manual_seed(0))
    return Student(encoder, 32, patch=(16, 16), decoder=DECODER, losses=losses)


def _sight(n: int = 4, clones: int = 2, crops: int = 2) -> tuple[Sight, Target]:
    g = torch.Generator().manual_seed(1)
    kept = masking.kept(n * clones, (3, 6), MaskSpec(ratio=0.5), g)
    bands = torch.randn(n, 48, 100, generator=g)
    noise = torch.randn(n * clones, 18, 32, generator=g)
    target = Target(torch.randn(n, 18, 32, generator=g), torch.randn(n, 32, generator=g), torch.zeros(()))
    return Sight(bands, torch.rand(n, generator=g), kept, noise, crops), target


def test_the_loss_is_the_weighted_sum_and_everything_trained_gets_a_gradient() -> None:
    spec = LossSpec(band=0.5, patch=2.0, pixel=0.25, contrast=0.1, statistics=0.3)
    student = _student(spec)
    found = student(*_sight())
    names = ("band", "patch", "pixel", "contrast", "statistics")
    assert found.keys() == {*names, "loss"}
    assert found["loss"].item() == pytest.approx(
        sum(getattr(spec, name) * found[name].item() for name in names), rel=1e-5
    )
    found["loss"].backward()
    missing = [key for key, value in student.named_parameters() if value.grad is None or not value.grad.abs().sum() > 0]
    assert not missing


def test_a_loss_of_weight_zero_has_no_head() -> None:
    student = _student(LossSpec(pixel=0, contrast=0, statistics=0))
    assert student(*_sight(crops=1)).keys() == {"band", "patch", "loss"}
    heads = {key.partition(".")[0] for key in student.state_dict()}
    assert heads == {"encoder", "decoder", "predict_patch", "predict_band"}


def test_the_patch_loss_looks_at_hidden_patches_only() -> None:
    student, (sight, target) = _student(LossSpec()), _sight(clones=1)
    before = student(sight, target)["patch"].item()
    changed = target.patch.clone()
    changed.scatter_(1, sight.kept[:, :, None].expand(-1, -1, 32), 100.0)
    assert student(sight, Target(changed, target.band, target.position_share))["patch"].item() == pytest.approx(before)
    assert student(sight, Target(target.patch + 100, target.band, target.position_share))["patch"].item() > 1000


def test_the_student_does_not_see_hidden_patches() -> None:
    student, (sight, target) = _student(LossSpec(pixel=0, statistics=0, contrast=0)), _sight(clones=1)
    other = sight.bands.clone()
    for row, kept in enumerate(sight.kept):
        for patch in set(range(18)) - set(kept.tolist()):
            r, c = divmod(patch, 6)
            other[row, 16 * r : 16 * r + 16, 16 * c : 16 * c + 16] = 7.0
    blind = Sight(other, sight.centres, sight.kept, sight.noise, sight.crops)
    assert student(blind, target)["loss"].item() == pytest.approx(student(sight, target)["loss"].item(), rel=1e-6)


def test_pixels_are_cut_into_the_patches_that_the_encoder_cuts() -> None:
    student = _student(LossSpec())
    bands = torch.arange(48 * 100.0).view(1, 48, 100)
    cut = student._pixels(bands)[0]
    scale = (bands - bands.mean()).std()
    expected = (bands[0, 16:32, 32:48] - bands.mean()) / scale  # row 1, column 2 -> patch 8
    assert torch.allclose(cut[8], expected.flatten(), atol=1e-4)


def test_contrast_falls_where_both_crops_are_alike() -> None:
    student, (sight, target) = _student(LossSpec()), _sight(n=8, clones=1)
    half = sight.bands[:4]
    same = Sight(half.repeat(2, 1, 1), sight.centres, sight.kept[:4].repeat(2, 1), sight.noise[:4].repeat(2, 1, 1), 2)
    assert student(same, target)["contrast"].item() < student(sight, target)["contrast"].item()


def test_the_decoder_sees_tokens_where_they_came_from() -> None:
    """Through one convolution of width 3, a token changes the features of its neighbours on the grid and no others."""
    torch.manual_seed(0)
    decoder = Decoder(DecoderSpec(dim=32, layers=1, groups=8, noise=0.0), 32)
    tokens, kept, noise = torch.randn(1, 2, 32), torch.tensor([[7, 17]]), torch.zeros(1, 18, 32)
    moved = tokens.clone()
    moved[0, 0] += 1  # patch 7: row 1, column 1 of a grid of 3 x 6
    changed = (decoder(tokens, kept, (3, 6), noise) - decoder(moved, kept, (3, 6), noise)).abs().sum(2)[0] > 0
    assert torch.nonzero(changed.view(3, 6)).tolist() == [[r, c] for r in range(3) for c in range(3)]
