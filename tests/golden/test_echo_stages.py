"""ECHO stage by stage: each from the stored one before it."""

from collections.abc import Mapping

import numpy as np
import pytest
import torch

from fisher_models.echo import POSITIONS, Echo, EchoConfig, from_state, position_table
from fisher_models.golden import Golden

FROM_STORED = 2e-5  # largest error where the stage before is given
pytestmark = pytest.mark.parametrize("golden", ["echo-small"], indirect=True)


def _model(golden: Golden) -> Echo:
    assert isinstance(golden.config, EchoConfig)
    return from_state(golden.config, golden.state)


def _given(golden: Golden, stages: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """The stored bands as our front-end would give them, (n, t, f) with whole patches, and their centres."""
    bands = torch.nn.functional.pad(stages["bands"].transpose(1, 2), (0, 0, 0, -stages["bands"].shape[2] % 16))
    case = golden.index["intermediate_case"]
    return bands, torch.from_numpy(golden.frontend.bands(golden.wave(case), golden.rate_hz(case))[1])


def _error(found: torch.Tensor, expected: torch.Tensor) -> float:
    assert found.shape == expected.shape
    return float((found - expected).abs().max())


def test_every_stage_is_reproduced_from_the_one_before(golden: Golden, stages: Mapping[str, torch.Tensor]) -> None:
    model, (bands, centres) = _model(golden), _given(golden, stages)
    with torch.inference_mode():
        assert _error(model.frequency(centres), stages["freq_pos"]) <= FROM_STORED
        assert _error(model.patch_embed(bands), stages["patch_tokens"]) <= FROM_STORED
        x = model.encoder_input(bands, centres)
        assert _error(x[:, 1:], stages["patch_plus_pos"]) <= FROM_STORED
        assert _error(x, stages["encoder_input"]) <= FROM_STORED
        x = stages["encoder_input"]
        for i, layer in enumerate(model.encoder["layers"]):
            x = layer(x)
            if f"layer{i}_output" in stages:
                assert _error(x, stages[f"layer{i}_output"]) <= FROM_STORED
        assert _error(x, stages["encoder_output_before_norm"]) <= FROM_STORED
        assert _error(model.norm(x), stages["final_tokens"]) <= FROM_STORED
        assert _error(model.tokens(bands, centres), stages["final_tokens"]) <= FROM_STORED
        assert torch.equal(model(bands, centres), model.tokens(bands, centres)[:, 0])


def test_bands_and_centres_are_cut_as_published(golden: Golden, stages: Mapping[str, torch.Tensor]) -> None:
    case = golden.index["intermediate_case"]
    found, centres = golden.frontend.bands(golden.wave(case), golden.rate_hz(case))
    expected, _ = _given(golden, stages)
    assert found.shape == expected.shape
    errors = np.abs(found - expected.numpy())
    assert np.quantile(errors, 0.999) <= 1e-5
    assert errors.max() <= 2e-3
    starts_ends = stages["band_bins"].numpy()
    assert centres == pytest.approx((starts_ends.sum(axis=1) - 1) / 200)  # the unpadded end, over n_fft
    assert not found[-1, :, : 32 - (starts_ends[-1, 1] - starts_ends[-1, 0])].any()  # zeros at the low end


def test_our_position_table_is_the_published_one(golden: Golden) -> None:
    assert isinstance(golden.config, EchoConfig)
    stored = golden.state[POSITIONS]
    assert np.abs(position_table(golden.config) - stored.astype(np.float32)).max() < 2**-11  # stored as float16
