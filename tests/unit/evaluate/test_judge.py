"""Judging side by side: results, intervals, the cache, and what a contestant that cannot see a set gets."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from evaluate_plants import RATE, write_set

from fisher_models.errors import RecordingError
from fisher_models.evaluate.bootstrap import Draws, drawn_episodes, drawn_units, interval
from fisher_models.evaluate.encoders import ModelEncoder, load_encoder
from fisher_models.evaluate.features import Store
from fisher_models.evaluate.fusion import Contestant, Part, contestant
from fisher_models.evaluate.judge import Judged, check_names, judge
from fisher_models.evaluate.protocol import Protocol, Sides
from fisher_models.evaluate.takes import Cut, rules
from fisher_models.frontend import Floats, FrontendSpec

HINT = Sides(rules("split_hint=train"), rules("split_hint=test"))
DIAGNOSIS = Protocol(name="p", task="diagnosis", folders=("set",), channels=("x", "y"), cut=Cut(0.5), sides=HINT)
ANOMALY = replace(DIAGNOSIS, task="anomaly")


@dataclass(slots=True)
class Counting:
    """An encoder that counts what it was asked, and sees the loudness alone."""

    asked: int = 0
    gains: frozenset[float] = frozenset()
    name: str = "counting"
    identity: str = "counting-1"
    space: str = "standard"
    levelled: bool = True

    __hash__ = object.__hash__

    def sees(self, rate_hz: float, n_samples: int) -> bool:
        return True

    def embed(self, windows: Floats, rate_hz: float) -> Floats:
        self.asked += len(windows)
        assert rate_hz == RATE
        return windows.std(axis=1, keepdims=True)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_set(tmp_path / "set")
    return tmp_path


def _judge(protocol: Protocol, data: Path, *names: str, store: Store | None = None) -> Judged:
    return judge(
        protocol, [contestant(name, load_encoder) for name in names], data=data, store=store or Store(), draws=50
    )


def test_tones_are_told_apart_by_the_indicators_and_not_by_loudness(data: Path) -> None:
    counting = Contestant("counting", (Part(Counting(), "standard"),))
    judged = judge(DIAGNOSIS, [contestant("indicators", load_encoder), counting], data=data, store=Store(), draws=50)
    good, blind = judged.results["indicators"], judged.results["counting"]
    assert good is not None
    assert blind is not None
    assert good.metrics == {"accuracy": 1.0, "macro_f1": 1.0, "macro_recall": 1.0, "recording_accuracy": 1.0}
    assert blind.metrics["accuracy"] < 0.7
    assert (judged.windows, judged.recordings, judged.units) == (36, 6, 6)
    assert interval(good.replicates) == (1, 1)
    assert interval(blind.replicates)[0] < blind.metrics["accuracy"] < interval(blind.replicates)[1]


def test_faults_are_strange(data: Path) -> None:
    judged = _judge(ANOMALY, data, "indicators", "indicators+indicators-no-envelope@max")
    for result in judged.results.values():
        assert result is not None
        assert result.metrics["auc"] == 1
        assert result.metrics["pauc"] == 1
    assert judged.headline == "auc"


def test_untrained_models_run_through_the_same_path(data: Path) -> None:
    pytest.importorskip("torch", reason="untrained models need torch")
    judged = _judge(ANOMALY, data, "fisher-tiny-untrained", "fisher-tiny", "indicators+fisher-tiny:centred@z")
    found = judged.results["fisher-tiny-untrained"]
    assert found is not None
    assert found.metrics["auc"] > 0.6


def test_vectors_are_made_once_and_kept_in_the_folder(data: Path, tmp_path: Path) -> None:
    first, second, third = Counting(), Counting(), Counting(identity="counting-2")
    for counting in (first, second, third):
        contestants = [Contestant("c", (Part(counting, "standard"),)), Contestant("d", (Part(counting, "cosine"),))]
        judge(DIAGNOSIS, contestants, data=data, store=Store(tmp_path / "kept"), draws=5)
    assert first.asked == 12 * 6 * 2  # recordings, windows, channels
    assert second.asked == 0
    assert third.asked == first.asked
    write_set(data / "set", noise=0.5)  # other samples under the same names
    judge(DIAGNOSIS, [Contestant("c", (Part(second, "standard"),))], data=data, store=Store(tmp_path / "kept"), draws=5)
    assert second.asked == first.asked


def test_a_damaged_file_of_the_cache_is_made_again(data: Path, tmp_path: Path) -> None:
    before = _judge(ANOMALY, data, "indicators", store=Store(tmp_path / "kept")).results["indicators"]
    kept = sorted((tmp_path / "kept" / "indicators-2").glob("*.npy"))
    assert kept
    kept[0].write_bytes(kept[0].read_bytes()[:20])
    kept[1].write_bytes(b"")
    after = _judge(ANOMALY, data, "indicators", store=Store(tmp_path / "kept")).results["indicators"]
    assert before is not None
    assert after is not None
    assert before.metrics == after.metrics


def test_a_gain_brings_training_windows_to_one_level(data: Path) -> None:
    levels: list[float] = []

    class Listening(Counting):
        def embed(self, windows: Floats, rate_hz: float) -> Floats:
            levels.extend(windows.std(axis=1).tolist())
            return windows[:, :4]

    judge(DIAGNOSIS, [Contestant("l", (Part(Listening(), "cosine"),))], data=data, store=Store(), draws=5)
    assert 0.1 / 2**0.5 < np.sqrt(np.mean(np.square(levels))) < 0.1 * 2**0.5


def test_slow_channels_are_not_seen_unless_stretched_and_a_fusion_does_without(data: Path) -> None:
    spec = FrontendSpec(mean=-3.0, divisor=4.3, band_bins=100, min_rate_hz=4000.0)
    seen = lambda bands, _: bands.mean(axis=1)  # noqa: E731
    deaf, stretched = (ModelEncoder(f"m{s}", f"m-{s}", spec, seen, stretch=s) for s in (False, True))
    indicators = contestant("indicators", load_encoder)
    contestants = [
        indicators,
        Contestant("deaf", (Part(deaf, "cosine"),)),
        Contestant("fused", (*indicators.parts, Part(deaf, "cosine"))),
        Contestant("stretched", (Part(stretched, "cosine"),)),
    ]
    judged = judge(ANOMALY, contestants, data=data, store=Store(), draws=5)
    assert judged.results["deaf"] is None
    assert judged.results["fused"] is not None
    assert judged.results["indicators"] is not None
    assert judged.results["fused"].metrics == judged.results["indicators"].metrics
    assert judged.results["stretched"] is not None
    assert not deaf.sees(0.0, 100)
    assert not stretched.sees(1.0, 10)


def test_a_bootstrap_draws_whole_units_and_the_same_ones_every_time() -> None:
    units = np.array(["a", "a", "b", "c", "c", "c"])
    classes = np.array(["n", "n", "n", "f", "f", "f"])
    drawn = list(drawn_units(units, classes, Draws(200)))
    assert all((w[0] == w[1]) and (w[3] == w[4] == w[5]) for w in drawn)
    assert all(w[0] + w[2] == 2 and w[3] == 1 for w in drawn)  # two units of one class, one of the other
    assert {float(w[0]) for w in drawn} == {0, 1, 2}
    again = list(drawn_units(units, classes, Draws(200)))
    assert all((a == b).all() for a, b in zip(drawn, again, strict=True))
    other = list(drawn_units(np.char.add(units, "x"), classes, Draws(200)))
    assert not all((a == b).all() for a, b in zip(drawn, other, strict=True))


def test_the_interval_of_a_mean_shrinks_with_the_number_of_runs() -> None:
    values = np.random.default_rng(0).random(400)
    few, many = (interval(drawn_episodes(values[:n], np.arange(n).astype(str), Draws(2000))) for n in (16, 400))
    assert few[1] - few[0] == pytest.approx(2 * 1.96 * values[:16].std() / 4, rel=0.1)
    assert many[1] - many[0] == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.1)


def test_one_name_twice_is_refused(data: Path) -> None:
    one = contestant("indicators", load_encoder)
    with pytest.raises(RecordingError, match="'indicators' is given twice"):
        check_names([one, one])
    with pytest.raises(RecordingError, match=r"manifest\.csv cannot be read"):
        _judge(replace(ANOMALY, folders=("elsewhere",)), data, "indicators")
