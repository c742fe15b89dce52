"""The int8 graph: what is quantised, by which ranges, and that it stays close to float32."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from fisher_models import lower, proof, quantize
from fisher_models.bundle import Bundle
from fisher_models.cpu import core
from fisher_models.errors import BundleError, SignalError
from fisher_models.export import export
from fisher_models.fisher import FisherConfig, seeded_state
from fisher_models.nodes import linear_weights
from fisher_models.recordings import Recording, from_files

SMALL = FisherConfig(embed_dim=128, heads=2, band_bins=50, depth=2)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    out = tmp_path_factory.mktemp("bundles") / "small"
    return export(SMALL, seeded_state(SMALL, seed=0), out=out, weights="untrained", origin="a test")


def graph(path: Path) -> onnx.ModelProto:
    return onnx.load(path, load_external_data=False)


def test_every_linear_layer_of_the_int8_graph_reads_quantised_inputs_and_weights(bundle: Bundle) -> None:
    wanted = set(linear_weights(graph(bundle.graph_path)))
    nodes = {node.name: node for node in graph(bundle.lower["int8"]).graph.node}
    assert len(wanted) == 7  # four of each block but the queries, keys and values of the last one's single token
    for name in wanted:
        assert all(nodes[source].op_type == "DequantizeLinear" for source in nodes[name].input)


def test_weights_keep_to_seven_bits_so_that_16_bit_sums_cannot_saturate(bundle: Bundle) -> None:
    model, state = graph(bundle.lower["int8"]), bundle.state()
    scales = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer if t.name.endswith("/scale")}
    for key in linear_weights(graph(bundle.graph_path)).values():
        codes = np.rint(state[key].astype(np.float32) / scales[f"{key}/t/scale"][:, None])
        assert np.abs(codes).max() == 63


def test_int8_keeps_the_direction_of_the_embeddings(bundle: Bundle) -> None:

    bands, _ = proof.bands(bundle.frontend, seed=5)  # not those of the calibration
    run = [core().compile_model(path, "CPU") for path in (bundle.graph_path, bundle.lower["int8"])]
    exact, found = (np.array(model([bands])[0]) for model in run)
    assert 0 < np.abs(exact - found).max() < 0.5
    assert proof.quality(exact, found).cosine > 0.99


def test_ranges_hold_zero_and_everything_that_was_seen(bundle: Bundle) -> None:
    bands, centres = proof.bands(bundle.frontend, seed=0)
    few = quantize.activation_ranges(bundle.graph_path, bands[:2], centres[:2])
    many = quantize.activation_ranges(bundle.graph_path, bands, centres)
    assert few.keys() == many.keys() and len(many) == 7
    for name, (low, high) in many.items():
        assert low <= min(0.0, few[name][0]) and high >= max(0.0, few[name][1])


def test_a_range_does_not_depend_on_the_last_bits() -> None:
    exact = quantize._upward(1.2345678)
    assert exact == quantize._upward(1.2345678 * (1 + 1e-6)) >= 1.2345678
    assert quantize._upward(0.0) == 0.0


def test_a_missing_range_is_named(bundle: Bundle) -> None:
    with pytest.raises(BundleError, match="no range was measured for"):
        quantize.quantize(graph(bundle.graph_path), bundle.state(), {})


def test_real_recordings_join_the_calibration(bundle: Bundle, tmp_path: Path) -> None:
    np.savez(tmp_path / "loud.npz", a=np.random.default_rng(0).normal(0, 9, 48_000).astype(np.float32), rate_hz=16000.0)
    generated, _ = lower.calibration(bundle.frontend, [])
    both, centres = lower.calibration(bundle.frontend, from_files([tmp_path / "loud.npz"]))
    assert len(both) == len(centres) == len(generated) + 4  # 16 kHz: four bands of 2 kHz
    assert np.array_equal(both[: len(generated)], generated)


def test_a_recording_that_cannot_be_seen_is_named(bundle: Bundle, tmp_path: Path) -> None:
    np.savez(tmp_path / "slow.npz", a=np.zeros(100, np.float32), rate_hz=10.0)
    slow: list[Recording] = list(from_files([tmp_path / "slow.npz"]))
    with pytest.raises(SignalError, match=r"slow\.npz, channel a: a rate of 10 Hz"):
        lower.calibration(bundle.frontend, slow)
