"""Masks: how many patches stay, that they hang together, and how many clones a sub-band gets."""

import pytest
import torch

from fisher_models.pretrain import masking
from fisher_models.pretrain.config import MaskSpec


def _draw(n: int, grid: tuple[int, int], spec: MaskSpec, seed: int = 0) -> torch.Tensor:
    return masking.kept(n, grid, spec, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kind", ["inverse-block", "random"])
@pytest.mark.parametrize(("grid", "count"), [((64, 6), 76), ((20, 6), 23), ((3, 6), 3), ((64, 3), 38), ((64, 5), 63)])
def test_a_fifth_of_the_patches_stays_rounded_as_published(kind: str, grid: tuple[int, int], count: int) -> None:
    kept = _draw(50, grid, MaskSpec(kind=kind))  # type: ignore[arg-type]
    assert kept.shape == (50, count)
    assert kept.min() >= 0
    assert kept.max() < grid[0] * grid[1]
    assert (kept.diff(dim=1) > 0).all()  # ascending, none twice


def test_what_an_inverse_block_mask_keeps_hangs_together() -> None:
    def neighbours(spec: MaskSpec) -> float:
        grid = torch.zeros(200, 64 * 6)
        grid.scatter_(1, _draw(200, (64, 6), spec), 1.0)
        grid = grid.view(200, 64, 6)
        return float((grid[:, 1:] * grid[:, :-1]).sum() / grid.sum())

    assert neighbours(MaskSpec(kind="random")) == pytest.approx(0.2, abs=0.03)
    assert neighbours(MaskSpec()) > 0.6


def test_one_block_is_five_by_five_and_clamped_at_the_border() -> None:
    spec = MaskSpec(ratio=0.75, adjust=0.0)  # 10 x 10: one centre, 25 kept; whatever is kept beyond the block is random
    for seed in range(30):
        kept = _draw(1, (10, 10), spec, seed)[0]
        rows, columns = kept // 10, kept % 10
        full = [
            (r, c)
            for r in range(10)
            for c in range(10)
            if all(
                bool(((rows == i) & (columns == j)).any())
                for i in range(max(0, r - 2), min(10, r + 3))
                for j in range(max(0, c - 2), min(10, c + 3))
            )
        ]
        assert full, f"seed {seed}: no whole block around any centre"


def test_masks_differ_between_clones_and_repeat_with_the_seed() -> None:
    first = _draw(8, (20, 6), MaskSpec(), 3)
    assert torch.equal(first, _draw(8, (20, 6), MaskSpec(), 3))
    assert not torch.equal(first, _draw(8, (20, 6), MaskSpec(), 4))
    assert len({tuple(row.tolist()) for row in first}) == 8


def test_hidden_patches_are_all_the_others() -> None:
    kept = _draw(5, (4, 6), MaskSpec())
    both = torch.cat([kept, masking.hidden(kept, 24)], 1).sort(1).values
    assert torch.equal(both, torch.arange(24).expand(5, 24))


@pytest.mark.parametrize(("sub_bands", "count"), [(4, 8), (16, 4), (48, 1), (100, 1)])
def test_clones_stay_under_the_cap(sub_bands: int, count: int) -> None:
    assert masking.clones(sub_bands, most=8, cap=64) == count
