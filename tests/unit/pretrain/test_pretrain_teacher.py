"""The teacher is the moving average of the student, and targets are what their spec says."""

import pytest
import torch
from torch import nn

from fisher_models.pretrain.config import TargetSpec
from fisher_models.pretrain.targets import Running, Targets
from fisher_models.pretrain.teacher import follow, tau_at, teacher_of


def test_the_teacher_is_the_exponential_moving_average_of_the_student() -> None:
    torch.manual_seed(0)
    student = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4))
    teacher = teacher_of(student)
    expected = {key: value.clone() for key, value in student.named_parameters()}
    for step in range(5):
        with torch.no_grad():
            for value in student.parameters():
                value += torch.randn_like(value)
        tau = tau_at(step, start=0.5, end=0.9, steps=4)
        assert tau == pytest.approx([0.5, 0.6, 0.7, 0.8, 0.9][step])
        follow(teacher, student, tau=tau)
        for key, value in student.named_parameters():
            expected[key] = tau * expected[key] + (1 - tau) * value.detach()
    for key, value in teacher.named_parameters():
        assert torch.allclose(value, expected[key], atol=1e-6)
        assert not value.requires_grad


def _layers(n: int = 64, patches: int = 12, dim: int = 16) -> list[torch.Tensor]:
    """Layers whose patches hold a strong pattern of position, a weaker one of the sub-band, and noise."""
    g = torch.Generator().manual_seed(0)
    position, band = torch.randn(1, patches, dim, generator=g), torch.randn(n, 1, dim, generator=g)
    made = []
    for _ in range(3):
        patch = 3 * position + band + 0.5 * torch.randn(n, patches, dim, generator=g)
        made.append(torch.cat([torch.full((n, 1, dim), 100.0), patch], 1))
    return made


def test_the_class_token_is_no_part_of_the_target() -> None:
    target = Targets(TargetSpec(layer_norm="none", centre="none", norm="none"), 16)(_layers())
    assert target.patch.shape == (64, 12, 16)
    assert target.patch.abs().max() < 50
    assert torch.allclose(target.band, target.patch.mean(1), atol=1e-5)


def test_the_share_of_position_is_measured_and_centring_removes_it() -> None:
    raw = Targets(TargetSpec(centre="none", norm="none"), 16)(_layers())
    assert 0.8 < raw.position_share < 0.95  # 9 of 9 + 1 + 0.25 / 3
    centred = Targets(TargetSpec(centre="position", norm="none"), 16)(_layers())
    assert centred.patch.mean(0).abs().max() < 1e-5
    assert centred.band.var() > 0.5 * centred.patch.var()


def test_instance_norm_over_tokens_empties_the_band_target_and_the_z_score_does_not() -> None:
    published = Targets(TargetSpec(layer_norm="instance", centre="none", norm="layer"), 16)(_layers())
    assert published.band.var(0).mean() < 0.01
    pilot = Targets(TargetSpec(), 16)(_layers())
    assert pilot.band.var(0).mean() == pytest.approx(1.0, abs=0.05)
    assert pilot.patch.var((0, 1)).mean() == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("layer_norm", ["instance", "layer", "batch"])
def test_each_layer_norm_gives_unit_variance_over_its_axes(layer_norm: str) -> None:
    target = Targets(TargetSpec(layers=1, layer_norm=layer_norm, centre="none", norm="none"), 16)(_layers())  # type: ignore[arg-type]
    axes = {"instance": 1, "layer": 2, "batch": (0, 1)}[layer_norm]
    assert torch.allclose(target.patch.var(axes, correction=0), torch.ones(()), atol=0.01)


def test_running_statistics_are_those_of_the_stream() -> None:
    running, g = Running(4), torch.Generator().manual_seed(0)
    for _ in range(40):
        running(5 + 2 * torch.randn(500, 4, generator=g))
    running.eval()
    before = running.mean.clone()
    assert torch.allclose(running(torch.full((1, 4), 7.0)), torch.ones(1, 4), atol=0.1)
    assert torch.equal(running.mean, before)
