"""Dictionaries of checkpoints to sizes and weights: what is taken, what is left out, and what is refused by name."""

import copy
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import layouts
from fisher_models import derive
from fisher_models.echo import EchoConfig
from fisher_models.errors import CheckpointError, ModelError
from fisher_models.families import PRESETS, seeded_state
from fisher_models.fisher import POSITIONS, FisherConfig, position_table
from fisher_models.upstream import convert

FISHER = FisherConfig(embed_dim=128, heads=2, band_bins=50, depth=2)
ECHO = EchoConfig(embed_dim=64, heads=1, depth=2, max_frames=320)
PATCH = "modality_encoders.IMAGE.local_encoder.proj.weight"


def _fisher(**image: Any) -> dict[str, Any]:
    """`{"cfg", "model"}` of a small FISHER, with other values in `cfg.modalities.image`."""
    sizes = layouts.fisher_sizes(FISHER)
    sizes["modalities"]["image"] |= image
    return {"cfg": {"model": sizes}, "model": layouts.tensors(seeded_state(FISHER, seed=0))}


def _echo() -> dict[str, Any]:
    return {"encoder": layouts.tensors(seeded_state(ECHO, seed=0))}


def _refused(content: Any, match: str, config: Any = None, *, preset: str | None = None) -> None:
    with pytest.raises(CheckpointError, match=match):
        convert(content, config, preset=preset)


def test_a_fisher_keeps_every_value_and_every_size() -> None:
    found = convert(_fisher())
    assert found.config == FISHER
    assert found.notes == ()
    for key, value in seeded_state(FISHER, seed=0).items():
        assert found.state[key].dtype == np.float32
        assert np.array_equal(found.state[key], value), key


def test_an_echo_keeps_every_value_and_every_size() -> None:
    found = convert(_echo())
    assert found.config == ECHO
    assert {key: value.tobytes() for key, value in found.state.items()} == {
        key: value.tobytes() for key, value in seeded_state(ECHO, seed=0).items()
    }


def test_a_dictionary_saved_by_the_published_class_nests_twice() -> None:
    inner = _fisher()
    found = convert({"cfg": {"model": {"depth": 99}}, "model": inner})  # the inner one is what the class was made of
    assert found.config == FISHER


def test_what_the_checkpoint_says_wins_over_the_config_beside_it() -> None:
    content = _fisher()
    assert convert(content, {"num_heads": 1, "norm_eps": 1e-3}).config == FISHER
    del content["cfg"]["model"]["num_heads"], content["cfg"]["model"]["norm_eps"]
    assert convert(content, {"num_heads": 1, "norm_eps": 1e-3}).config == replace(FISHER, heads=1, eps=1e-3)


@pytest.mark.parametrize("prefix", ["model.", "module.", "_orig_mod.model."])
@pytest.mark.parametrize("config", [FISHER, ECHO], ids=["fisher", "echo"])
def test_a_prefix_is_taken_off_and_said(config: FisherConfig | EchoConfig, prefix: str) -> None:
    state = seeded_state(config, seed=0)
    sizes = layouts.fisher_sizes(config) if isinstance(config, FisherConfig) else layouts.echo_sizes(config)
    found = convert(layouts.tensors(state, prefix=prefix), sizes)
    assert found.config == config
    assert found.state.keys() == state.keys()
    assert found.notes == (f"took {prefix!r} off the keys",)


def test_what_only_training_uses_is_left_out_and_said() -> None:
    content, spare = _fisher(), torch.zeros(3)
    extra = [
        "_ema.blocks.0.attn.qkv.weight", "modality_encoders.IMAGE.decoder.blocks.0.0.weight", "recon_proj.weight",
        "cls_proj.weight", "center", "shared_decoder.proj.weight", "modality_encoders.IMAGE.alibi_scale",
    ]  # fmt: skip
    content["model"] |= dict.fromkeys(extra, spare)
    found = convert(content)
    assert found.state.keys() == seeded_state(FISHER, seed=0).keys()
    assert len(found.notes) == 1
    assert "left out what only training uses: _ema.blocks.0.attn.qkv.weight" in found.notes[0]
    assert found.notes[0].endswith("and 3 more")


def test_a_teacher_beside_the_model_is_not_mistaken_for_it() -> None:
    content = _fisher()
    content["model"] |= {f"_ema.{key}": torch.full_like(value, 7) for key, value in content["model"].items()}
    assert not any((value == 7).all() for value in convert(content).state.values())


def test_two_models_in_one_are_refused() -> None:
    state = seeded_state(ECHO, seed=0)
    both = layouts.tensors(state, prefix="student.") | layouts.tensors(state, prefix="teacher.")
    _refused(both, "holds two models, echo under 'student.' and echo under 'teacher.'")
    doubled = layouts.tensors(state, prefix="model.") | {"cls_token": torch.zeros(1, 1, 64)}
    _refused(doubled, "holds 'cls_token' twice")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floats_become_float32(dtype: torch.dtype) -> None:
    content = _fisher()
    content["model"] = {key: value.to(dtype) for key, value in content["model"].items()}
    found = convert(content)
    for key, value in content["model"].items():
        assert found.state[key].dtype == np.float32
        assert np.array_equal(found.state[key], value.float().numpy()), key


# Positions


def test_the_table_and_its_shape_come_from_the_checkpoint() -> None:
    """Of 64 rows of 20 columns, scaled: nothing that could have been computed."""
    content = _fisher(max_length=64, max_freq=20)
    table = position_table(replace(FISHER, positions=1280)) * np.float32(0.5)
    content["model"][POSITIONS] = torch.from_numpy(table)
    found = convert(content)
    assert found.config == replace(FISHER, positions=1280)
    assert np.array_equal(found.state[POSITIONS], table)


def test_a_table_that_is_not_of_the_shape_it_is_said_to_be_is_refused() -> None:
    _refused(_fisher(max_length=768, max_freq=400), "max_length 768 and max_freq 400, its table 6400 rows")
    content = _echo()
    _refused(content, "pos_embed has 21 rows, one per 16 frames; spec_len is 2000", {"spec_len": 2000})


def test_a_table_too_short_for_the_longest_input_is_refused() -> None:
    content = _fisher(max_length=3)
    content["model"][POSITIONS] = content["model"][POSITIONS][:, :150]
    _refused(content, "positions has 150 rows; 1024 frames need 192")


# Sizes that are not said


@pytest.mark.parametrize("name", ["fisher-tiny", "fisher-mini", "fisher-small"])
def test_without_a_config_the_published_model_of_that_size_gives_the_band_width(name: str) -> None:
    config = replace(PRESETS[name], depth=1)  # type: ignore[type-var]
    found = convert(layouts.tensors(seeded_state(config, seed=0)))
    assert found.config == config
    assert found.notes == (f"it does not say its band width: took {PRESETS[name].band_bins} bins, as {name} has",)


def test_a_band_width_that_nothing_tells_is_asked_for() -> None:
    state = layouts.tensors(seeded_state(FISHER, seed=0))
    _refused(state, "does not say its band width, and no published FISHER has an embed_dim of 128")
    assert convert(state, {"band_width": 64}).config == replace(FISHER, band_bins=64)
    assert convert(state, {"modalities": {"image": {"band_width": 64}}}).config == replace(FISHER, band_bins=64)


def test_a_preset_gives_what_is_not_said_and_may_not_contradict() -> None:
    tiny = layouts.tensors(seeded_state(PRESETS["fisher-tiny"], seed=0))
    found = convert(tiny, preset="fisher-tiny")
    assert found.config == PRESETS["fisher-tiny"]
    assert found.notes == ()
    _refused(
        tiny, "is no fisher-small: it has embed_dim 192 instead of 384, heads 3 instead of 6", preset="fisher-small"
    )
    _refused(tiny, "holds a model of family 'fisher', no echo-small", preset="echo-small")
    _refused(tiny, "band_bins 50 instead of 100", {"band_width": 50}, preset="fisher-tiny")


def test_heads_that_nothing_tells_are_asked_for() -> None:
    config = FisherConfig(embed_dim=96, heads=2, band_bins=50, depth=1)
    state = layouts.tensors(seeded_state(config, seed=0))
    _refused(state, "does not say its num_heads, and its embed_dim of 96 is no multiple of 64", {"band_width": 50})
    assert convert(state, {"band_width": 50, "num_heads": 2}).config == config


def test_an_echo_says_all_but_its_heads_by_its_weights() -> None:
    config = EchoConfig(embed_dim=128, heads=4, depth=1, band_bins=24, patch=8, max_frames=80, mlp_ratio=2.5)
    state = layouts.tensors(seeded_state(config, seed=0))
    assert convert(state, {"num_heads": 4}).config == config
    assert convert(state, layouts.echo_sizes(config)).config == config
    assert convert(state, {"num_heads": 4, "final_norm_eps": 1e-5, "freq_scale": 10}).config == replace(
        config, final_eps=1e-5, gamma=10.0
    )


def test_a_value_that_was_never_resolved_counts_as_not_said() -> None:
    content = _fisher(max_length="???", band_width="${model.band_width}")
    content["cfg"]["model"] |= {"num_heads": None, "norm_eps": "${oc.env:EPS}"}
    assert convert(content).config == FISHER


# What is refused


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("prenet_depth", 2), ("num_extra_tokens", 4), ("use_alibi_encoder", True), ("in_chans", 2),
        ("patch_size", 8), ("fixed_positions", False), ("flatten", "time"),
    ],
)  # fmt: skip
def test_an_image_encoder_that_is_not_implemented_is_refused_by_name(name: str, value: object) -> None:
    _refused(
        _fisher(**{name: value}), rf"cfg.modalities.image asks for {name} = {value!r}; this version knows {name} ="
    )


@pytest.mark.parametrize(("name", "value"), [("layer_norm_first", True), ("norm_affine", False)])
def test_a_block_that_is_not_implemented_is_refused_by_name(name: str, value: object) -> None:
    content = _fisher()
    content["cfg"]["model"][name] = value
    _refused(content, rf"cfg asks for {name} = {value}; this version knows {name} = {not value} only")


def test_an_echo_that_is_not_implemented_is_refused_by_name() -> None:
    _refused(
        _echo(), "cfg asks for in_chans = 2, norm_first = True; this version knows", {"in_chans": 2, "norm_first": True}
    )


@pytest.mark.parametrize(
    ("name", "value", "match"),
    [
        ("embed_dim", 192, "cfg has embed_dim 192, its weights 128"),
        ("depth", 12, "cfg has depth 12, its weights 2"),
        ("mlp_ratio", 2.0, "cfg has mlp_ratio 2, its weights 4"),
        ("mlp_ratio", 1e308, "mlp_ratio is 1e.308, expected a positive number"),
        ("num_heads", 3, "a dimension of 128 cannot be shared by 3 heads"),
        ("num_heads", "two", "cfg: num_heads is 'two', expected a positive whole number"),
        ("num_heads", 2.0, "cfg: num_heads is 2.0, expected a positive whole number"),
        ("num_heads", True, "cfg: num_heads is True"),
        ("num_heads", -2, "cfg: num_heads is -2"),
        ("num_heads", [2], "cfg: num_heads is a list"),
        ("band_width", 100, "cfg.modalities.image has band_width 50, its weights 100|band_width"),
        ("norm_eps", "small", "cfg: norm_eps is 'small', expected a positive number"),
        ("norm_eps", float("nan"), "cfg: norm_eps is nan"),
        ("layer_norm_first", torch.ones(2), "cfg: layer_norm_first is a Tensor"),
        ("modalities", {"image": "here"}, "modalities.image is a str, expected a dictionary"),
    ],
)
def test_a_setting_that_cannot_be_right_is_refused_by_name(name: str, value: object, match: str) -> None:
    content = _fisher()
    content["cfg"]["model"][name] = value
    with pytest.raises(ModelError, match=match):
        convert(content)


def test_an_echo_of_another_size_than_its_type_is_refused() -> None:
    _refused(_echo() | {"model_type": "small"}, "says model_type 'small', but has embed_dim 64 and depth 2")
    assert convert(_echo() | {"model_type": "nano"}).config == ECHO  # a type that nobody published says nothing


@pytest.mark.parametrize("make", [_fisher, _echo])
def test_keys_that_are_missing_extra_or_misshapen_are_all_named(make: Callable[[], dict[str, Any]]) -> None:
    content = make()
    state = content["model"] if "model" in content else content["encoder"]
    missing, misshapen, text = sorted(key for key in state if re.search(r"\.1\..*(bias|weight)$", key))[:3]
    del state[missing]
    state[misshapen] = torch.zeros(3, 1)
    state[text] = "a string"
    state["blocks.1.extra.weight"] = torch.zeros(1)
    with pytest.raises(CheckpointError) as caught:
        convert(content)
    message = str(caught.value)
    assert f"1 missing: {missing}" in message
    assert "1 not known: blocks.1.extra.weight" in message
    assert re.search(rf"2 of another shape: .*{re.escape(misshapen)} is \(3, 1\), expected \(\d+", message)
    assert f"{text} is no tensor, expected (" in message


@pytest.mark.parametrize("key", [PATCH, POSITIONS, "blocks.0.mlp.fc1.weight", "blocks.0.attn.qkv.weight"])
@pytest.mark.parametrize("change", ["missing", "flat", "empty", "longer"])
@pytest.mark.parametrize("said", [True, False])
def test_a_key_that_sizes_are_told_by_is_named_too(key: str, change: str, said: bool) -> None:
    content = _fisher()
    state, band = content["model"], {"band_width": 50}
    value = state.pop(key)
    if change != "missing":
        longer = torch.cat([value, value], dim=-1)
        state[key] = {"flat": value.flatten(), "empty": torch.zeros(0), "longer": longer}[change]
    _refused(content if said else state, re.escape(key), None if said else band)


@pytest.mark.parametrize("alone", derive.FISHER_DIM)
def test_any_one_of_the_keys_that_show_the_dimension_shows_it(alone: str) -> None:
    content = _fisher()
    del content["cfg"]["model"]["embed_dim"]
    content["model"] |= {key: torch.zeros(7) for key in derive.FISHER_DIM if key != alone}
    _refused(content, "the weights do not fit a model of embed_dim 128, depth 2: 3 of another shape")


def test_many_wrong_keys_are_counted_and_some_are_named() -> None:
    content = _fisher()
    content["model"] |= {f"adapter.{i}": torch.zeros(1) for i in range(40)}
    _refused(content, r"40 not known: adapter.0, adapter.1, adapter.10, adapter.11 and 36 more")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e39])
def test_weights_that_are_not_finite_are_refused_by_key(value: float) -> None:
    content = _fisher()
    content["model"]["blocks.1.norm2.bias"] = torch.zeros(128, dtype=torch.float64).index_fill(
        0, torch.tensor(5), value
    )
    _refused(content, "blocks.1.norm2.bias holds values that are not finite")


@pytest.mark.parametrize(
    "wrong",
    [
        torch.zeros(128, dtype=torch.int64), torch.zeros(128, dtype=torch.complex64), torch.zeros(128).to_sparse(),
        torch.zeros(128).to(torch.float8_e4m3fn), torch.zeros(128, dtype=torch.bool), torch.zeros(128, device="meta"),
    ],
    ids=["int", "complex", "sparse", "float8", "bool", "meta"],
)  # fmt: skip
def test_weights_that_are_no_plain_floats_are_refused_by_key(wrong: torch.Tensor) -> None:
    content = _fisher()
    content["model"]["blocks.1.norm2.bias"] = wrong
    _refused(content, "blocks.1.norm2.bias holds (no values|values of torch)")


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ({}, "is neither a FISHER nor an ECHO; its keys: none"),
        ({"model": {}}, "its keys: none"),
        ({"fc.weight": torch.zeros(1), "fc.bias": torch.zeros(1)}, "its keys: fc.bias, fc.weight"),
        ({"blocks.0.attn.qkv.weight": torch.zeros(3, 1)}, "is neither a FISHER nor an ECHO"),  # as many models have
        ({"cls_token": 1, "pos_embed": 2, "patch_embed.proj.weight": "x"}, "its sizes cannot be told"),
        ({"cfg": "tiny", "model": {"a": torch.zeros(1)}}, "cfg is a str, expected a dictionary"),
        ({0: torch.zeros(1)}, "names for keys, not 0"),
    ],
)
def test_what_is_no_checkpoint_of_ours_is_refused(content: dict[Any, Any], match: str) -> None:
    _refused(content, match)


def test_a_table_that_only_claims_to_be_huge_costs_no_memory() -> None:
    content = _echo()
    content["encoder"]["pos_embed"] = torch.zeros(1, 1, 1).expand(1, 2**40, 64)
    _refused(content, r"pos_embed has shape \(1, 1099511627776, 64\)")
    content = _echo()
    content["encoder"]["norm.weight"] = torch.zeros(1).expand(2**40)
    _refused(content, r"norm.weight is \(1099511627776,\), expected \(64,\)")


_VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.sampled_from([1, 2, 64, 128, "freq"]),
    st.lists(st.integers(), max_size=2), st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)  # fmt: skip
_NAMES = st.sampled_from(
    sorted(layouts.fisher_sizes(FISHER))
    + sorted(layouts.fisher_sizes(FISHER)["modalities"]["image"])
    + ["cfg", "model"]
)


@settings(max_examples=150)
@given(st.dictionaries(_NAMES, _VALUES, max_size=4), st.dictionaries(_NAMES, _VALUES, max_size=4))
def test_whatever_it_says_of_itself_it_is_read_or_refused(model: dict[str, Any], image: dict[str, Any]) -> None:
    content = _SEEDED | {"cfg": copy.deepcopy(_SEEDED["cfg"])}
    content["cfg"]["model"]["modalities"]["image"] |= image
    content["cfg"]["model"] |= model
    try:
        found = convert(content)
    except ModelError:
        return
    assert (found.config.embed_dim, found.config.depth) == (128, 2)


_SEEDED = _fisher()
