"""Training sees the model that is served: same parameters, same outputs, and every layer's feed-forward part."""

import pytest
import torch

from fisher_models.echo import Echo
from fisher_models.families import PRESETS, Config, frontend_spec, model_from_state
from fisher_models.fisher import FisherConfig
from fisher_models.pretrain.config import CorpusSpec, TargetSpec
from fisher_models.pretrain.data import Feed
from fisher_models.pretrain.encoders import opened, untrained
from fisher_models.pretrain.ranks import Rank
from fisher_models.pretrain.targets import Targets

TOY: dict[str, Config] = {
    "fisher": FisherConfig(embed_dim=64, heads=2, band_bins=100, depth=3),
    "echo": PRESETS["echo-tiny"],
}


def _model(family: str) -> torch.nn.Module:
    return untrained(TOY[family], patch_std=0.065, generator=torch.Generator().manual_seed(0))


def _input(family: str) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(1)
    return torch.randn(5, 48, TOY[family].band_bins, generator=g), torch.rand(5, generator=g)


@pytest.mark.parametrize("family", ["fisher", "echo"])
def test_with_every_patch_kept_the_class_token_is_the_served_embedding(family: str) -> None:
    model, (bands, centres) = _model(family), _input(family)
    encoder = opened(model)
    tokens, layers = encoder.encode(encoder.patches(bands, centres), centres)
    assert torch.allclose(tokens[:, 0], model(bands, centres), atol=1e-5)
    rows, columns = encoder.grid(48)
    assert tokens.shape == (5, 1 + rows * columns, TOY[family].embed_dim)
    assert len(layers) == TOY[family].depth
    assert all(layer.shape == tokens.shape for layer in layers)


@pytest.mark.parametrize("family", ["fisher", "echo"])
def test_what_a_layer_gives_is_its_feed_forward_part_before_the_residual(family: str) -> None:
    model, (bands, centres) = _model(family), _input(family)
    part = model.encoder["layers"][0].linear2 if isinstance(model, Echo) else model.blocks[0].mlp.fc2
    seen: list[torch.Tensor] = []
    part.register_forward_hook(lambda _module, _given, out: seen.append(out))
    encoder = opened(model)
    _, layers = encoder.encode(encoder.patches(bands, centres), centres)
    assert torch.equal(layers[0], seen[0])


@pytest.mark.parametrize("family", ["fisher", "echo"])
def test_state_dicts_are_those_of_the_served_model(family: str) -> None:
    state = {key: value.numpy() for key, value in _model(family).state_dict().items()}
    served = model_from_state(TOY[family], state)
    bands, centres = _input(family)
    assert torch.allclose(served(bands, centres), _model(family)(bands, centres), atol=1e-6)


@pytest.mark.parametrize("family", ["fisher", "echo"])
def test_patches_come_in_any_order_and_any_number(family: str) -> None:
    """Positions are added before patches are dropped, so the class token sees a set."""
    model, (bands, centres) = _model(family), _input(family)
    encoder = opened(model)
    patches = encoder.patches(bands, centres)
    some = torch.tensor([2, 0, 1])
    first, _ = encoder.encode(patches[:, some], centres)
    again, _ = encoder.encode(patches[:, some.flip(0)], centres)
    assert torch.allclose(first[:, 0], again[:, 0], atol=1e-5)


def test_patches_outweigh_positions_where_their_projection_begins_at_its_default() -> None:
    """At 0.02 and with the published targets, position explains nearly all that the student would have to predict."""
    config = PRESETS["fisher-tiny"]
    corpus = CorpusSpec(rates_hz=(8000,), sub_bands=32, crops=1, gain_db=0.0)
    batch = Feed(corpus, frontend_spec(config), seed=0, rank=Rank(0, 1, torch.device("cpu"))).batch(0)
    published = TargetSpec(layer_norm="instance", centre="none", norm="layer")
    share = {}
    for std, spec in ((0.02, published), (0.065, TargetSpec())):
        encoder = opened(untrained(config, patch_std=std, generator=torch.Generator().manual_seed(0)))
        with torch.no_grad():
            _, layers = encoder.encode(encoder.patches(batch.bands, batch.centres), batch.centres)
        share[std] = float(Targets(spec, 192)(layers).position_share)
    assert share[0.02] > 0.8
    assert share[0.065] < 0.4
