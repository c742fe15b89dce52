"""The shipped model card says what is so: digest and figures. The script that writes it refuses what does not fit."""

import importlib
import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from fisher_models.bundle import MANIFEST, Bundle, load
from fisher_models.cli import main as fisher_models
from fisher_models.pretrain import config

ROOT = Path(__file__).resolve().parents[3]
REFERENCE, UNTRAINED, BUNDLE = "indicators", "fisher-tiny-untrained", "fisher-tiny"
Written = Callable[[str, object], Path]


def _text() -> str:
    return (load(BUNDLE).path / "MODEL_CARD.md").read_text(encoding="utf-8")


def _block(text: str) -> dict[str, Any]:
    (found,) = re.findall(r"```json\n(.*?)```", text, re.DOTALL)
    block: dict[str, Any] = json.loads(found)
    return block


def _holds(text: str, bundle: Bundle) -> bool:
    """Whether a card is of this bundle: every digest that it names, and how its weights stand."""
    named = set(re.findall(r"b[0-9a-f]{64}", text))
    untrained = "**untrained** weights: it is random features" in text
    return named == {bundle.digest, _block(text)["digest"]} and len(named) == 1 and untrained == (
        bundle.weights == "untrained"
    )  # fmt: skip


def test_the_card_is_of_the_bundle_beside_it() -> None:
    bundle, text = load(BUNDLE), _text()
    assert _holds(text, bundle), "the bundle has changed: write its card anew, see tools/model_card.py"
    assert not _holds(text.replace(bundle.digest, "b" + "0" * 64), bundle)
    assert not _holds(text.replace(bundle.digest, "b" + "0" * 64, 1), bundle)
    assert str(ROOT) not in text


def test_the_card_states_figures_of_both_tasks_for_the_bundle_and_the_indicators() -> None:
    text = _text()
    block = _block(text)
    assert {one["metric"] for one in block["checks"]} == {"auc", "accuracy"}
    assert block["tolerance"] == 0.005
    for one in block["checks"]:
        assert one["figures"].keys() == {REFERENCE, BUNDLE}
        assert " | ".join(f"{value:.3f}" for value in one["figures"].values()) in text
        assert one["arguments"] in text


@pytest.mark.parametrize("number", [0, 1])
def test_the_figures_of_the_card_are_reproduced(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    block = _block(_text())
    check = block["checks"][number]
    contestants = ["--contestant", REFERENCE, "--contestant", BUNDLE]
    given = ["evaluate", "manifest", str(ROOT / block["manifest"]), *check["arguments"].split(), *contestants]
    assert fisher_models([*given, "--json"]) == 0
    (one,) = json.loads(capsys.readouterr().out)["protocols"]
    found = {name: result[check["metric"]] for name, result in one["results"].items()}
    assert one["windows"] == check["windows"]
    assert found == pytest.approx(check["figures"], abs=block["tolerance"])


# The script


@pytest.fixture(scope="module")
def tool() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "tools")
        yield importlib.import_module("model_card")


@pytest.fixture
def written(tmp_path: Path) -> Written:
    def write(name: str, value: object) -> Path:
        (tmp_path / name).write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
        return tmp_path / name

    return write


def _copy(folder: Path, weights: str) -> Bundle:
    """The shipped bundle under another name, without its card."""
    made = folder / "fisher-own"
    shutil.copytree(load(BUNDLE).path, made, ignore=shutil.ignore_patterns("MODEL_CARD.md"))
    manifest = json.loads((made / MANIFEST).read_text())
    (made / MANIFEST).write_text(json.dumps(manifest | {"name": made.name, "weights": weights}))
    return load(made)


def _apart(value: float, others: list[str]) -> dict[str, Any]:
    mark = "+" if value > 0.1 else "-" if value < -0.1 else ""
    return {other: {"value": value, "low": value - 0.1, "high": value + 0.1, "mark": mark} for other in others}


def _results(bundle: Bundle) -> dict[str, Any]:
    """As `evaluate recorded` writes them, with two protocols, one of which no model sees."""
    names = [REFERENCE, UNTRAINED, bundle.name]
    seen = {
        name: {"auc": 0.7, "low": 0.6, "high": 0.8, "differences": _apart(apart, [n for n in names if n != name])}
        for name, apart in zip(names, (0.0, -0.2, 0.3), strict=True)
    }
    slow = dict.fromkeys(names) | {REFERENCE: seen[REFERENCE] | {"differences": {}}}
    means = {name: {"value": 0.7, "protocols": 1, "differences": one["differences"]} for name, one in seen.items()}
    identities = ("indicators-2", "fisher-tiny-seed0-1.000", f"{bundle.digest[:17]}-openvino")
    protocols = [("motor", seen), ("fan", slow)]
    return {
        "reference": REFERENCE,
        "protocols": [{"name": n, "headline": "auc", "units": 8, "results": r} for n, r in protocols],
        "means": means,
        "encoders": {name: {name: identity} for name, identity in zip(names, identities, strict=True)},
    }


def _refused(tool: ModuleType, capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """What it says, which is one line, and nothing is written."""
    card = load(BUNDLE).path / "MODEL_CARD.md"
    before = card.read_bytes()
    assert tool.main([str(one) for one in arguments]) == 2
    assert card.read_bytes() == before
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("model_card: ")
    assert said.err.count("\n") == 1
    return said.err


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "Expecting value"),
        ("[]", "is not a results.json"),
        ("{}", "'encoders' is missing"),
        ('{"encoders": []}', "is not a results.json"),
        ('{"encoders": {}, "means": {}, "reference": "indicators"}', "'protocols' is missing"),
        ('{"encoders": {}, "means": {}, "reference": "a", "protocols": [1]}', "is not a results.json"),
        ('{"encoders": {}, "means": {}, "reference": "a", "protocols": NaN}', "NaN is no number"),
        ('{"encoders": {}, "means": {"a": 1}, "reference": "a", "protocols": []}', "is not a results.json"),
        ('{"encoders": {}, "means": {}, "reference": "a", "protocols": []}', "says nothing of fisher-tiny"),
    ],
)
def test_results_of_another_form_are_refused(
    text: str, says: str, tool: ModuleType, written: Written, capsys: pytest.CaptureFixture[str]
) -> None:
    assert says in _refused(tool, capsys, "--bundle", BUNDLE, "--results", written("r.json", text))


def test_results_of_other_weights_are_refused(
    tool: ModuleType, written: Written, capsys: pytest.CaptureFixture[str]
) -> None:
    results = _results(load(BUNDLE))
    results["encoders"][BUNDLE][BUNDLE] = "b0123456789abcdef-openvino"
    path = written("results.json", results)
    assert "is of another fisher-tiny (b0123456789abcdef" in _refused(
        tool, capsys, "--bundle", BUNDLE, "--results", path
    )
    del results["encoders"][BUNDLE]
    path = written("results.json", results)
    assert "says nothing of fisher-tiny" in _refused(tool, capsys, "--bundle", BUNDLE, "--results", path)


def test_what_is_missing_is_named(
    tool: ModuleType, written: Written, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = written("results.json", _results(load(BUNDLE)))
    results = ("--bundle", BUNDLE, "--results", good)
    untrained = _copy(tmp_path, "untrained")
    other = ("--bundle", untrained.path, "--results", written("other.json", _results(untrained)))
    for says, arguments in {
        "absent.json cannot be read: No such file": ("--bundle", BUNDLE, "--results", tmp_path / "absent.json"),
        "no bundle named 'nothing' is installed": ("--bundle", "nothing", "--results", good),
        "is not a folder; a bundle is a folder": ("--bundle", tmp_path / "nothing", "--results", good),
        "--out: ": (*results, "--out", tmp_path / "absent" / "card.md"),
        "its weights are untrained; no run made them": (*other, "--run", tmp_path),
        "it needs --run": (*results, "--device", "a GPU"),
    }.items():
        assert says in _refused(tool, capsys, *arguments)


# A card of a trained bundle: the shipped one, as if a run had made its weights


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return _copy(tmp_path_factory.mktemp("bundles"), "trained")


@pytest.fixture
def run(trained: Bundle, tmp_path: Path) -> Path:
    """Its folder, as `fisher-models pretrain` leaves it."""
    tensors = {f"teacher.{key}": value.astype(np.float32) for key, value in trained.state().items()}
    _save(tmp_path, tensors, config.load("toy").identity())
    lines = [
        {"step": 0, "rank": 20.0, "diagnosis": 0.25},
        {"step": 1, "band": 1.5, "contrast": 2.5, "loss": 4.0, "gradient": 1.0},
        {"step": 60, "band": 0.5, "contrast": 1.25, "loss": 1.75, "gradient": 2.0},
        {"step": 60, "rank": 55.0, "diagnosis": 0.5, "knn_pump_8000": 0.75},
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tmp_path


def _save(folder: Path, tensors: dict[str, Any], settings: dict[str, Any], **changes: object) -> None:
    said = {"step": 60, "sub_bands": 960, "seconds": 7200.0, "identity": settings} | changes
    metadata = {"schema": "fisher.pretrain/1", "progress": json.dumps(said)}
    save_file(tensors, folder / "last.safetensors", metadata=metadata)


def test_a_card_states_the_run_and_breaks_nothing(
    tool: ModuleType, trained: Bundle, run: Path, written: Written, capsys: pytest.CaptureFixture[str]
) -> None:
    results = written("results.json", _results(trained))
    given = ["--bundle", str(trained.path), "--results", str(results), "--run", str(run), "--device", "two cores"]
    assert tool.main(given) == 0
    assert trained.digest in capsys.readouterr().out
    assert load(trained.path).digest == trained.digest
    text = (trained.path / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert _holds(text, trained)
    for said in (
        "The FISHER architecture with our own recipe.",
        "| data | generated signals (50% vibration, 30% sound, 20% current; 8 to 16 kHz) and nothing else",
        "| compute | 2.0 hours of training |\n| device | two cores |",
        "|  | weight | step 1 | step 60 |",
        "| contrast | 0.3 | 2.5 | 1.25 |\n| loss |  | 4 | 1.75 |",
        "| effective rank of the embeddings | 20 | 55 |",
        "| pump_8000 Hz, macro accuracy of 5 neighbours | 0.75 | 0.75 |",
        "| motor | AUC | 8 | 0.700 (0.60 to 0.80) | 0.700 (0.60 to 0.80) - | 0.700 (0.60 to 0.80) + u+ |",
        "| fan | AUC | 8 | 0.700 (0.60 to 0.80) | not seen | not seen |",
        "| its difference to fisher-tiny-untrained |  |  | +0.000 (-0.10 to +0.10) |  | +0.300 (+0.20 to +0.40) |",
        "- Bins are 40 Hz wide",
        "- The top 160 Hz of each band",
    ):
        assert said in text
    shipped = _block(_text())["checks"][0]["figures"]
    assert _block(text)["checks"][0]["figures"] == pytest.approx(
        {REFERENCE: shipped[REFERENCE], "fisher-own": shipped[BUNDLE]}, abs=0.005
    )
    assert not any(place in text for place in (str(trained.path.parent), str(run), str(ROOT)))


def test_recordings_that_were_trained_on_are_named_with_their_licence(
    tool: ModuleType, trained: Bundle, run: Path
) -> None:
    tensors = {f"teacher.{key}": value for key, value in trained.state().items()}
    manifests = [str(ROOT / tool.RECORDINGS), "/elsewhere/pump/manifest.csv"]
    mixed = {"corpus.recorded.share": 0.25, "corpus.recorded.manifests": manifests}
    _save(run, tensors, config.load("toy").identity() | mixed)
    data = tool.read_run(run, trained).facts["data"]
    assert "recordings in 25% of the batches: mcsa_misalignment (train/pretrain), CC BY-SA 4.0, Ghent Univ" in data
    assert "pump (train/pretrain), licences beginning with CC BY 3.0 or" in data
    assert "/" not in data.replace("train/pretrain", "")


def test_a_run_that_is_not_of_the_bundle_is_refused(
    tool: ModuleType, trained: Bundle, run: Path, written: Written, capsys: pytest.CaptureFixture[str]
) -> None:
    tensors = {f"teacher.{key}": value for key, value in trained.state().items()}
    settings, key = config.load("toy").identity(), next(iter(tensors))
    good = ("--bundle", trained.path, "--results", written("results.json", _results(trained)), "--run", run)

    _save(run, tensors | {key: tensors[key] + 1}, settings)
    assert "the weights of fisher-own are not those of" in _refused(tool, capsys, *good)
    _save(run, tensors, settings, step=59)
    assert "is at step 59 of 60; a card is of a finished run" in _refused(tool, capsys, *good)
    _save(run, tensors, {"run.steps": 60})
    assert "is not a checkpoint of `fisher-models pretrain`" in _refused(tool, capsys, *good)
    _save(run, tensors, settings)
    (run / "metrics.jsonl").write_text('{"step": 1, "rank": 2.0}\n')
    assert "no line has a loss" in _refused(tool, capsys, *good)
    (run / "metrics.jsonl").write_text("step 1\n")
    assert "a JSON object per line: Expecting value" in _refused(tool, capsys, *good)
    (run / "metrics.jsonl").unlink()
    assert "metrics.jsonl cannot be read" in _refused(tool, capsys, *good)
    (run / "last.safetensors").write_bytes(b"nothing")
    assert "is not a checkpoint of `fisher-models pretrain`" in _refused(tool, capsys, *good)
    (run / "last.safetensors").unlink()
    assert "last.safetensors is missing" in _refused(tool, capsys, *good)
