"""FISHER stage by stage: each from the stored one before it."""

from collections.abc import Mapping

import numpy as np
import pytest
import torch

from fisher_models.fisher import POSITIONS, Fisher, FisherConfig, from_state, position_table
from fisher_models.golden import Golden

FROM_STORED = 2e-5  # largest error where the stage before is given
FISHER = pytest.mark.parametrize("golden", ["fisher-tiny", "fisher-small"], indirect=True)


def _model(golden: Golden) -> Fisher:
    assert isinstance(golden.config, FisherConfig)
    return from_state(golden.config, golden.state)


def _error(found: torch.Tensor, expected: torch.Tensor) -> float:
    assert found.shape == expected.shape
    return float((found - expected).abs().max())


@FISHER
def test_every_stage_is_reproduced_from_the_one_before(golden: Golden, stages: Mapping[str, torch.Tensor]) -> None:
    model = _model(golden)
    image = model.modality_encoders["IMAGE"]
    bands = stages["bands"][:, 0]  # (n, t, f), with the frames that fill no patch
    with torch.inference_mode():
        assert _error(image.patches(bands), stages["patch_tokens"]) <= FROM_STORED
        assert _error(image(bands), stages["block_input"]) <= FROM_STORED
        x = stages["block_input"]
        for i, block in enumerate(model.blocks):
            x = block(x)
            if f"block{i}_output" in stages:
                assert _error(x, stages[f"block{i}_output"]) <= FROM_STORED
        assert _error(x, stages["final_tokens"]) <= FROM_STORED
        assert _error(model(bands, torch.zeros(len(bands))), stages["final_tokens"][:, 0]) <= FROM_STORED


@FISHER
def test_bands_are_cut_as_published(golden: Golden, stages: Mapping[str, torch.Tensor]) -> None:
    case = golden.index["intermediate_case"]
    found, _ = golden.frontend.bands(golden.wave(case), golden.rate_hz(case))
    expected = stages["bands"][:, 0, : found.shape[1]].numpy()
    assert found.shape == expected.shape
    errors = np.abs(found - expected)
    assert np.quantile(errors, 0.999) <= 1e-5
    assert errors.max() <= 2e-3


@FISHER
def test_our_position_table_is_the_published_one(golden: Golden) -> None:
    assert isinstance(golden.config, FisherConfig)
    stored = golden.state[POSITIONS]
    assert np.abs(position_table(golden.config) - stored.astype(np.float32)).max() < 2**-11  # stored as float16
