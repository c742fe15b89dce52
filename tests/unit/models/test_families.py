"""Families behind one set of functions: published sizes and keys, and what cannot be a model."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from fisher_models import echo, fisher
from fisher_models.cli import PRESETS as OFFERED
from fisher_models.echo import EchoConfig
from fisher_models.errors import BundleError
from fisher_models.families import PRESETS, config_from, frontend_spec, model_from_state, seeded_state
from fisher_models.fisher import FisherConfig

FISHER, ECHO = FisherConfig(embed_dim=128, heads=2, band_bins=50, depth=2), EchoConfig(embed_dim=128, heads=2, depth=2)


def _sizes(preset: str) -> dict[str, int]:
    """Key -> number of values, without any memory for them."""
    config = PRESETS[preset]
    with torch.device("meta"):
        model = fisher.Fisher(config) if isinstance(config, FisherConfig) else echo.Echo(config)
    return {key: value.numel() for key, value in model.state_dict().items()}


@pytest.mark.parametrize(
    ("preset", "keys", "trainable", "positions"),
    [
        ("fisher-tiny", 150, 5_388_288, 1_228_800),
        ("fisher-mini", 150, 9_543_680, 1_638_400),
        ("fisher-small", 150, 21_393_408, 2_457_600),
        ("echo-tiny", 150, 5_437_440, 126 * 192),
        ("echo-small", 150, 21_491_712, 48_384),
        ("echo-base", 150, 85_450_752, 126 * 768),
        ("echo-large", 294, 302_837_760, 126 * 1024),
    ],
)
def test_presets_have_the_published_sizes(preset: str, keys: int, trainable: int, positions: int) -> None:
    sizes = _sizes(preset)
    table = fisher.POSITIONS if preset.startswith("fisher") else echo.POSITIONS
    assert len(sizes) == keys
    assert sizes.pop(table) == positions
    assert sum(sizes.values()) == trainable
    config = PRESETS[preset]
    assert config.embed_dim // config.heads == 64


def test_the_command_line_offers_every_preset() -> None:
    assert set(OFFERED) == set(PRESETS)


def test_fisher_has_the_published_keys() -> None:
    d, image = 192, "modality_encoders.IMAGE"
    expected = {
        f"{image}.extra_tokens": (1, 1, d),
        f"{image}.local_encoder.proj.weight": (d, 1, 16, 16),
        f"{image}.local_encoder.proj.bias": (d,),
        f"{image}.fixed_positional_encoder.positions": (1, 6400, d),
        f"{image}.context_encoder.norm.weight": (d,),
        f"{image}.context_encoder.norm.bias": (d,),
    }
    for i in range(12):
        expected |= {f"blocks.{i}.{norm}.{part}": (d,) for norm in ("norm1", "norm2") for part in ("weight", "bias")}
        linear = {"attn.qkv": (3 * d, d), "attn.proj": (d, d), "mlp.fc1": (4 * d, d), "mlp.fc2": (d, 4 * d)}
        for name, shape in linear.items():
            expected |= {f"blocks.{i}.{name}.weight": shape, f"blocks.{i}.{name}.bias": shape[:1]}
    state = seeded_state(PRESETS["fisher-tiny"], seed=0)
    assert {key: value.shape for key, value in state.items()} == expected


def test_echo_has_the_published_keys() -> None:
    d = 384
    expected = {
        "cls_token": (1, 1, d),
        "pos_embed": (1, 126, d),
        "patch_embed.proj.weight": (d, 1, 32, 16),
        "patch_embed.proj.bias": (d,),
        "norm.weight": (d,),
        "norm.bias": (d,),
    }
    for i in range(12):
        layer = f"encoder.layers.{i}"
        expected |= {f"{layer}.{norm}.{part}": (d,) for norm in ("norm1", "norm2") for part in ("weight", "bias")}
        expected |= {f"{layer}.self_attn.in_proj_weight": (3 * d, d), f"{layer}.self_attn.in_proj_bias": (3 * d,)}
        linear = {"self_attn.out_proj": (d, d), "linear1": (4 * d, d), "linear2": (d, 4 * d)}
        for name, shape in linear.items():
            expected |= {f"{layer}.{name}.weight": shape, f"{layer}.{name}.bias": shape[:1]}
    state = seeded_state(PRESETS["echo-small"], seed=0)
    assert {key: value.shape for key, value in state.items()} == expected


@pytest.mark.parametrize("config", [FISHER, ECHO], ids=["fisher", "echo"])
def test_a_seed_is_one_model(config: FisherConfig | EchoConfig) -> None:
    first, again, other = (seeded_state(config, seed=seed) for seed in (1, 1, 2))
    assert all(np.array_equal(first[key], again[key]) for key in first)
    assert any(not np.array_equal(first[key], other[key]) for key in first)
    assert all(np.array_equal(value, value.astype(np.float16)) for value in first.values())


@pytest.mark.parametrize("config", [FISHER, ECHO], ids=["fisher", "echo"])
def test_sizes_survive_a_manifest(config: FisherConfig | EchoConfig) -> None:
    assert config_from(config.to_dict()) == config


def test_presets_differ_in_size_alone() -> None:
    for preset, config in PRESETS.items():
        spec = frontend_spec(config)
        assert spec.band_bins == config.band_bins
        assert spec.patch_frames == config.patch == 16
        assert spec.min_rate_hz == 1000, preset


@pytest.mark.parametrize("config", [FISHER, ECHO], ids=["fisher", "echo"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"family": "beats"}, "family 'beats' is not known"),
        ({"family": None}, "family None is not known"),
        ({"family": ["fisher"]}, "is not known"),
        ({"embed_dim": "128"}, "embed_dim is '128', expected int"),
        ({"embed_dim": 128.0}, "embed_dim is 128.0, expected int"),
        ({"depth": True}, "depth is True"),
        ({"depth": 0}, "must be positive: depth"),
        ({"heads": 3}, "cannot be shared by 3 heads"),
        ({"eps": math.nan}, "must be positive: eps"),
        ({"mlp_ratio": None}, "mlp_ratio is None"),
        ({"colour": 1}, "missing or unknown: colour"),
    ],
)
def test_a_model_that_cannot_be_is_refused(
    config: FisherConfig | EchoConfig, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(BundleError, match=message):
        config_from({**config.to_dict(), **change})


@pytest.mark.parametrize("config", [FISHER, ECHO], ids=["fisher", "echo"])
def test_a_size_that_is_missing_is_named(config: FisherConfig | EchoConfig) -> None:
    values = config.to_dict()
    del values["heads"]
    with pytest.raises(BundleError, match="missing or unknown: heads"):
        config_from(values)


@pytest.mark.parametrize("change", ["missing", "extra", "misshapen"])
def test_weights_of_another_echo_are_refused_by_key(change: str) -> None:
    state = seeded_state(ECHO, seed=0)
    key = "encoder.layers.1.norm2.weight"
    if change == "missing":
        del state[key]
    elif change == "extra":
        key = "decoder.weight"
        state[key] = np.zeros(3, np.float32)
    else:
        state[key] = state[key][:-1]
    with pytest.raises(BundleError, match=key):
        model_from_state(ECHO, state)


def test_where_a_band_lies_matters_to_echo_and_not_to_fisher() -> None:
    rng = np.random.default_rng(0)
    low, high = torch.tensor([0.1, 0.1]), torch.tensor([0.1, 0.9])
    for config, differs in ((FISHER, False), (ECHO, True)):
        model = model_from_state(config, seeded_state(config, seed=0))
        bands = torch.from_numpy(rng.normal(-1, 0.5, (2, 48, config.band_bins)).astype(np.float32))
        with torch.inference_mode():
            a, b = model(bands, low), model(bands, high)
        assert torch.equal(a[0], b[0])
        assert torch.equal(a[1], b[1]) != differs


def test_echo_keeps_frequencies_in_the_precision_of_the_centres() -> None:
    """Angles reach 25, where bfloat16 is 0.125 apart."""
    model = model_from_state(ECHO, seeded_state(ECHO, seed=0))
    centres = torch.tensor([0.0775, 0.98])
    exact = model.double().frequency(centres.double())
    assert (model.bfloat16().frequency(centres) - exact).abs().max() < 1e-5
    with torch.inference_mode():
        assert model(torch.zeros(2, 16, 32, dtype=torch.bfloat16), centres).dtype == torch.bfloat16
