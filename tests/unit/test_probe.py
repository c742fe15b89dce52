"""The probe of the CPU backend: what it chooses, what it refuses, and what it keeps."""

import json
import struct
from dataclasses import asdict
from pathlib import Path

import onnx
import pytest
from structlog.testing import capture_logs

from fisher_agent.backends import open_embedder, probe
from fisher_agent.backends.openvino import OpenVinoEmbedder, precisions
from fisher_agent.backends.probe import Choice, choose, measure
from fisher_agent.errors import ConfigError
from fisher_models.bundle import Bundle, load
from fisher_models.export import export
from fisher_models.fisher import FisherConfig, seeded_state

SMALL = FisherConfig(embed_dim=64, heads=1, band_bins=50, depth=1)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    out = tmp_path_factory.mktemp("bundles") / "small"
    return export(SMALL, seeded_state(SMALL, seed=0), out=out, weights="untrained", origin="a test")


def entry(cache: Path) -> Path:
    (path,) = cache.iterdir()
    return path


def test_what_was_measured_is_kept_and_read_again(bundle: Bundle, tmp_path: Path) -> None:
    with capture_logs() as first:
        choice = choose(bundle, cache=tmp_path / "cache")
    with capture_logs() as second:
        again = choose(bundle, cache=tmp_path / "cache")
    assert [log["event"] for log in first] == ["probed"] and second == []
    assert again == choice
    assert choice.precision in precisions(bundle) and "f32" in choice.ms_per_band
    assert set(choice.quality) | {"f32"} == set(precisions(bundle))  # every lower precision was judged
    embedder = choice.open(bundle)
    assert (embedder.precision, embedder.name) == (choice.precision, "openvino")


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"choice": {"colour": 1}, "identity": {}}'])
def test_a_damaged_entry_is_said_and_measured_again(bundle: Bundle, tmp_path: Path, damage: bytes) -> None:
    choose(bundle, cache=tmp_path / "cache")
    good = entry(tmp_path / "cache").read_bytes()
    entry(tmp_path / "cache").write_bytes(damage)
    with capture_logs() as logs:
        choose(bundle, cache=tmp_path / "cache")
    assert [log["event"] for log in logs] == ["probe_unreadable", "probed"]
    assert json.loads(entry(tmp_path / "cache").read_bytes()).keys() == json.loads(good).keys()


def test_another_box_measures_for_itself_and_keeps_the_precision_of_its_banks(bundle: Bundle, tmp_path: Path) -> None:
    choose(bundle, cache=tmp_path / "cache")
    path = entry(tmp_path / "cache")
    kept = json.loads(path.read_bytes())
    kept["identity"]["cpu"] = "another"
    kept["choice"]["precision"] = "int8"  # good enough and fast there; here it may only be good enough
    path.write_text(json.dumps(kept))
    with capture_logs() as logs:
        choice = choose(bundle, cache=tmp_path / "cache")
    assert [log["event"] for log in logs] == ["probed"]
    assert (choice.precision == "int8") == ("int8" not in choice.refused)


def test_with_float32_and_threads_given_nothing_is_measured(bundle: Bundle, tmp_path: Path) -> None:
    choice = choose(bundle, precision="f32", threads=1, cache=tmp_path / "cache")
    assert (choice.precision, choice.threads) == ("f32", 1)
    assert not (tmp_path / "cache").exists()


def test_a_probe_that_fails_costs_speed_and_not_the_start(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "TIMEOUT_S", 0.001)
    with capture_logs() as logs:
        assert choose(bundle) == Choice()
    assert [log["event"] for log in logs] == ["probe_failed"]


def test_a_full_or_missing_folder_is_said_and_no_error(bundle: Bundle, tmp_path: Path) -> None:
    with capture_logs() as logs:
        choose(bundle, threads=1, cache=tmp_path / "missing" / "cache")
    assert [log["event"] for log in logs] == ["probed", "probe_not_kept"]


def test_a_precision_that_spoils_the_embeddings_is_refused_in_words(bundle: Bundle, tmp_path: Path) -> None:
    path = bundle.lower["int8"]
    spoilt = Bundle(**{**{f: getattr(bundle, f) for f in Bundle.__slots__}, "lower": {"int8": tmp_path / "bad.onnx"}})
    (tmp_path / "weights.safetensors").write_bytes(bundle.weights_path.read_bytes())
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        if tensor.name.endswith("/scale") and not tensor.dims:  # of an activation: everything saturates
            tensor.raw_data = struct.pack("<f", 1e-4)
    (tmp_path / "bad.onnx").write_bytes(model.SerializeToString())
    for wanted in ("auto", "int8"):  # whoever asks for it
        choice = measure(spoilt, precision=wanted, threads=1)
        assert choice.precision != "int8" and set(choice.ms_per_band) <= {"f32", "bf16"}
        assert "int8" in choice.refused
    assert choice.precision == "f32"


def test_a_configured_precision_that_was_refused_is_a_declared_degradation(bundle: Bundle, tmp_path: Path) -> None:
    choose(bundle, precision="int8", cache=tmp_path)
    path = entry(tmp_path)
    kept = json.loads(path.read_bytes())
    kept["choice"] |= {"precision": "f32", "refused": {"int8": "nearest 0.7 is under 0.9"}}
    path.write_text(json.dumps(kept))
    embedder, note = open_embedder(bundle, precision="int8", cache=tmp_path)
    assert embedder.precision == "f32"
    assert note == "int8 is configured and does not serve: nearest 0.7 is under 0.9; f32 serves"


def test_a_lower_precision_must_be_worth_it_and_one_once_chosen_stays() -> None:
    def times(f32: float, int8: float) -> dict[str, tuple[float, Choice]]:
        return {"f32": (f32, Choice()), "int8": (int8, Choice(precision="int8"))}

    assert probe._best(times(10.0, 5.0), "") == "int8"
    assert probe._best(times(10.0, 9.0), "") == "f32"
    assert probe._best(times(10.0, 5.0), "f32") == "f32"
    assert probe._best(times(10.0, 9.0), "int8") == "int8"
    assert probe._best(times(10.0, 5.0), "bf16") == "int8"  # refused now, or no longer there


def test_a_choice_survives_json() -> None:
    choice = Choice(precision="int8", quality={"int8": {"cosine": 1.0}}, refused={"bf16": "why"})
    assert Choice(**json.loads(json.dumps(asdict(choice)))) == choice


@pytest.mark.parametrize(
    ("precision", "says"),
    [("f16", "openvino has no 'f16'; use auto, f32, bf16, int8"), ("int8", "fisher-tiny has no int8 graph")],
)
def test_a_precision_that_is_not_there_is_a_configuration_error(precision: str, says: str) -> None:
    tiny = load("fisher-tiny")
    without = Bundle(**{**{f: getattr(tiny, f) for f in Bundle.__slots__}, "lower": {}})
    with pytest.raises(ConfigError, match=says):
        OpenVinoEmbedder(without, precision=precision)
