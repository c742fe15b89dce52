from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fakes import PRESS, SPEC, T0_NS, WINDOW, FakeEmbedder, bundle, machine, running
from fisher_agent.bank import Bank
from fisher_agent.codes import Quality, Status
from fisher_agent.detect import Judge
from fisher_agent.enrolment import learn
from fisher_agent.errors import BackendFailed
from fisher_agent.pipeline import Pipeline
from fisher_agent.stages import Floats, Moment, Window
from fisher_agent.stats import Stats
from fisher_agent.survey import moments
from fisher_models.frontend import Frontend

FRONTEND = Frontend(SPEC)


@pytest.fixture(scope="module")
def bank() -> Bank:
    return learn(
        running(seconds=12), machine=PRESS, window=WINDOW, bundle=bundle(), frontend=FRONTEND, embedder=FakeEmbedder(),
        version="v1", created_ns=0,
    )[0]  # fmt: skip


def judged(bank: Bank | None, **keys: Any) -> Pipeline:
    judges = {"press-07": Judge(PRESS, WINDOW, bank, frontend=FRONTEND)}
    return Pipeline(frontend=FRONTEND, judges=judges, **({"embedder": FakeEmbedder()} | keys))


def later(seconds: float = 6.0, **keys: Any) -> list[Moment]:
    return list(moments(running(seconds=seconds, seed=9, t_ns=T0_NS + 10**12, **keys), PRESS, WINDOW))


def windows(*rates_hz: float, seconds: float = 1.0) -> list[Window]:
    rng = np.random.default_rng(0)
    return [
        Window("m", f"c{i}", T0_NS, rate, rng.normal(size=round(seconds * rate)).astype(np.float32))
        for i, rate in enumerate(rates_hz)
    ]


def test_a_batch_of_mixed_rates_and_lengths_equals_one_by_one() -> None:
    pipeline = Pipeline(frontend=FRONTEND, embedder=FakeEmbedder(), max_bands=5)
    mixed = windows(8000, 25_600, 4000, 16_000, 11_025, 48_000) + windows(25_600, 8000, seconds=0.3)
    gains = [0.1 * (i + 1) for i in range(len(mixed))]
    together = pipeline.embed(mixed, gains=gains)
    for window, gain, embedding in zip(mixed, gains, together, strict=True):
        (alone,) = pipeline.embed([window], gains=[gain])
        assert embedding.channel == window.channel
        assert embedding.bands == pytest.approx(alone.bands, abs=1e-6)
        assert len(embedding.bands) == len(FRONTEND.band_edges_hz(window.rate_hz))


def test_the_model_sees_samples_times_gain() -> None:
    pipeline = Pipeline(frontend=FRONTEND, embedder=FakeEmbedder())
    (window,) = windows(8000)
    scaled = replace(window, samples=4 * window.samples)
    a, b = pipeline.embed([window, scaled], gains=[1.0, 0.25])
    assert a.bands == pytest.approx(b.bands, abs=1e-6)
    (c,) = pipeline.embed([window], gains=[0.25])
    assert np.abs(c.bands - a.bands).max() > 0.1


def test_a_window_of_several_segments_has_the_mean_of_their_embeddings() -> None:
    frontend = Frontend(replace(SPEC, max_frames=64, longer="mean"))
    embedder, (window,) = FakeEmbedder(), windows(16_000, seconds=1.5)  # 148 frames
    segments, centres = frontend.segments(window.samples, window.rate_hz)
    assert segments.shape == (3, 2, 64, 100)
    expected = np.mean([embedder.embed(bands, centres) for bands in segments], axis=0)
    others = windows(8000, 25_600, seconds=0.655)  # of as many frames: they share its batch
    found = Pipeline(frontend=frontend, embedder=embedder).embed([others[0], window, others[1]], gains=[1.0] * 3)
    assert found[1].bands == pytest.approx(expected, abs=1e-5)
    assert [len(embedding.bands) for embedding in found] == [1, 2, 3]


def test_a_call_of_the_embedder_holds_no_more_bands_than_allowed() -> None:
    embedder = FakeEmbedder()
    Pipeline(frontend=FRONTEND, embedder=embedder, max_bands=7).embed(windows(*[25_600] * 9), gains=[1.0] * 9)
    assert [shape[0] for shape in embedder.calls] == [6, 6, 6, 6, 3]


def test_windows_of_all_machines_and_rates_share_a_call(bank: Bank) -> None:
    embedder = FakeEmbedder()
    pipeline = judged(bank, embedder=embedder)
    pipeline.judges["other"] = Judge(
        machine(*PRESS.channels, id="other"), WINDOW, replace(bank, machine="other"), frontend=FRONTEND
    )
    pipeline.process([later()[0], replace(later()[1], machine="other")])
    assert [shape[0] for shape in embedder.calls] == [4]


def test_verdicts_come_in_the_order_of_the_moments_and_do_not_depend_on_the_batch(bank: Bank) -> None:
    given = later(tone_hz=1230.37)
    together = judged(bank).process(given)
    one_by_one = judged(bank)
    alone = [one_by_one.process([m])[0] for m in given]
    assert [v.t_ns for v in together] == [m.end_ns for m in given]
    assert [v.score for v in together] == pytest.approx([v.score for v in alone], abs=1e-4)


def test_every_window_is_counted_embedded_or_skipped(bank: Bank) -> None:
    stats = Stats()
    pipeline = judged(bank, stats=stats)
    given = later()
    stopped = [replace(m, windows=tuple(replace(w, samples=0.01 * w.samples) for w in m.windows)) for m in later()[:3]]
    foreign = replace(given[0], machine="gone")
    verdicts = pipeline.process([*given, *stopped, foreign])
    assert len(verdicts) == len(given) + len(stopped)
    assert stats.total("windows_embedded") == 2 * len(given)
    assert stats.total("windows_skipped") == 2 * len(stopped) + 2


def test_a_machine_that_is_not_enrolled_costs_no_inference() -> None:
    embedder = FakeEmbedder()
    verdicts = judged(None, embedder=embedder).process(later())
    assert embedder.calls == []
    assert not any(v.enrolled for v in verdicts)


class Broken(FakeEmbedder):
    """A backend that went wrong."""

    def __init__(self, result: Floats) -> None:
        super().__init__()
        self._result = result

    def embed(self, bands: Floats, centres: Floats) -> Floats:
        return self._result


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_backend_that_gives_no_numbers_is_never_believed(bank: Bank, value: float) -> None:
    result = np.zeros((2, 24), np.float32)
    result[1, 3] = value
    with pytest.raises(BackendFailed, match="not finite"):
        judged(bank, embedder=Broken(result)).process(later()[:1])


def test_a_backend_that_loses_a_band_is_never_believed(bank: Bank) -> None:
    with pytest.raises(BackendFailed, match="2 bands"):
        judged(bank, embedder=Broken(np.zeros((1, 24), np.float32))).process(later()[:1])


def test_a_garbage_sample_does_not_bring_the_model_down(bank: Bank) -> None:
    (first, *_) = later()
    samples = first.windows[0].samples.copy()
    samples[100] = 3e38
    spoilt = replace(first, windows=(replace(first.windows[0], samples=samples), *first.windows[1:]))
    (verdict,) = judged(bank).process([spoilt])
    assert (verdict.readings[0].status, verdict.quality) == (Status.NOISY, Quality.PARTIAL)
    assert verdict.score < 1, "a lone garbage sample is the sensor's affair"
    samples[100:4100] = 3e38 * np.sin(np.arange(4000))  # no lone one, and no sensor that is known to be bad
    (verdict,) = judged(bank).process([spoilt])
    assert np.isfinite(verdict.score)
    assert verdict.score > 1


def test_a_replaced_judge_is_used_from_the_next_moment_on(bank: Bank) -> None:
    pipeline = judged(None)
    assert not pipeline.process(later()[:1])[0].enrolled
    pipeline.judges["press-07"] = Judge(PRESS, WINDOW, bank, frontend=FRONTEND)
    assert pipeline.process(later()[1:2])[0].bank == "v1"


def test_a_channel_under_the_rate_of_a_whole_band_is_judged_in_one_band() -> None:
    (embedding,) = Pipeline(frontend=FRONTEND, embedder=FakeEmbedder()).embed(windows(1000), gains=[1.0])
    assert len(embedding.bands) == 1
