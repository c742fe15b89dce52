"""`fisher-models evaluate`: tables, JSON, plots, exit codes, and what is refused with a clear message."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from evaluate_plants import write_set

from fisher_models.cli import main
from fisher_models.evaluate import cli, protocol
from fisher_models.evaluate.local import LOCAL

SPLIT = ("--train", "split_hint=train", "--test", "split_hint=test", "--window-s", "0.5", "--draws", "20")
TWO = ("--contestant", "indicators", "--contestant", "indicators-no-envelope")


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    return write_set(tmp_path / "pump")


def _manifest(*arguments: object) -> int:
    return main(["evaluate", "manifest", *map(str, arguments)])


def test_a_labelled_set_gives_a_table_with_intervals(manifest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _manifest(manifest, "--task", "diagnosis", *SPLIT, *TWO) == 0
    out = capsys.readouterr().out
    assert "pump" in out
    assert out.count("1.000 1.00-1.00") == 2
    assert "[2] indicators-no-envelope" in out
    assert "mean of 1 seen by all" in out


def test_json_is_one_document_and_files_are_written(manifest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib", reason="plots need matplotlib")
    out = manifest.parent / "out"
    out.mkdir()
    assert _manifest(manifest, "--task", "anomaly", *SPLIT, *TWO, "--json", "--out", out) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == json.loads((out / "results.json").read_text())
    (one,) = found["protocols"]
    assert (one["name"], one["headline"], one["windows"], one["units"]) == ("pump", "auc", 36, 6)
    assert one["results"]["indicators"]["auc"] == 1
    assert one["results"]["indicators-no-envelope"]["difference"]["mark"] == ""
    assert found["means"]["indicators"]["protocols"] == 1
    assert found["means"]["indicators"]["differences"].keys() == {"indicators-no-envelope"}
    reverse = one["results"]["indicators"]["differences"]["indicators-no-envelope"]
    assert reverse["value"] == -one["results"]["indicators-no-envelope"]["difference"]["value"]
    assert found["encoders"]["indicators"] == {"indicators": "indicators-2"}
    assert "pump" in (out / "table.txt").read_text()
    assert (out / "pump.png").read_bytes().startswith(b"\x89PNG")


def test_plots_without_matplotlib_say_what_to_install(
    manifest: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    arguments = (manifest, "--task", "anomaly", *SPLIT, *TWO, "--out", manifest.parent)
    assert _manifest(*arguments) == 2
    assert "pip install matplotlib, or leave them out with --no-plots" in capsys.readouterr().err
    assert _manifest(*arguments, "--no-plots") == 0


def test_a_stricter_split_leaves_specimens_out(manifest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("--task", "anomaly", "--leave-out", "recording_id", "--folds", 2, "--window-s", 0.5, "--json")
    assert _manifest(manifest, *arguments, "--draws", 5, *TWO) == 0
    (one,) = json.loads(capsys.readouterr().out)["protocols"]
    assert len(one["results"]["indicators"]["episodes"]) == 2


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--task", "diagnosis", "--window-s", "0.5"), "train and test, or a column to leave out"),
        (("--task", "diagnosis", "--window-s", "0.5", "--train", "label=worn"), "go together"),
        (("--task", "diagnosis", "--window-s", "0", "--leave-out", "specimen"), "must be positive"),
        (("--task", "onset", "--window-s", "0.5"), "needs normal_s"),
        (("--task", "diagnosis", *SPLIT, "--channels", "x,q"), "has no channel q"),
        (("--task", "diagnosis", *SPLIT, "--where", "label"), "no condition"),
        (("--task", "diagnosis", *SPLIT, "--contestant", "nothing"), "nothing"),
        (("--task", "diagnosis", *SPLIT, "--contestant", "foo-bar-untrained"), "no preset"),
        (("--task", "diagnosis", *SPLIT, *TWO, "--reference", "me"), "'me' is not among the contestants"),
        (("--task", "diagnosis", *SPLIT, *TWO, *TWO), "given twice"),
        (("--task", "diagnosis", *SPLIT, *TWO, "--out", "/dev/null/results"), "cannot be made a folder"),
        (("--task", "diagnosis", *SPLIT, *TWO, "--draws", "0"), "1 or more"),
        (("--task", "anomaly", *SPLIT, *TWO, "--normal", "perfect"), "no windows to learn from"),
    ],
)
def test_what_cannot_be_done_is_said_and_ends_with_2(
    manifest: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], says: str
) -> None:
    assert _manifest(manifest, *arguments) == 2
    assert says in capsys.readouterr().err


def test_protocols_of_the_recorded_sets_are_chosen_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "recorded", "--data", str(tmp_path), "--protocol", "fan,nonsense"]) == 2
    assert "'nonsense' is no protocol" in capsys.readouterr().err
    assert main(["evaluate", "recorded", "--data", str(tmp_path / "none")]) == 2
    assert "is not a folder" in capsys.readouterr().err
    assert main(["evaluate", "recorded", "--data", str(tmp_path), "--protocol", "fan", *TWO]) == 2
    assert "ceiling_fan/manifest.csv cannot be read" in capsys.readouterr().err


def test_a_figure_that_is_not_reproduced_ends_with_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = write_set(tmp_path / "ceiling_fan", noise=20.0)  # nothing can be told apart
    lines = [line for line in manifest.read_text().splitlines() if ",y," not in line]
    rows = [lines[0], *(row for line in lines[1:] for row in _three_axes(line))]
    manifest.write_text("\n".join(rows).replace("worn", "imbalance") + "\n")
    for path in tmp_path.glob("ceiling_fan/worn*"):
        path.rename(path.with_name(path.name.replace("worn", "imbalance")))
    assert LOCAL["fan"].reached == {"accuracy": 0.966}
    run = ["evaluate", "recorded", "--data", str(tmp_path), "--protocol", "fan", "--draws", "5"]
    assert main([*run, "--check"]) == 1
    out = capsys.readouterr().out
    assert "reproduced within 0.03: 0 of 1" in out
    assert "published 0.966" in out
    assert main([*run, "--contestant", "fisher-tiny", "--check"]) == 2
    assert "--check needs indicators" in capsys.readouterr().err


def _three_axes(line: str) -> list[str]:
    file, _, _, *rest = line.split(",")
    return [",".join([file, axis, "0", *rest]) for axis in "xyz"]


def test_the_parser_knows_every_task() -> None:
    assert cli.TASKS == protocol.TASKS


def test_the_command_line_loads_nothing_of_the_evaluation_before_it_is_asked_to() -> None:
    code = "import sys, fisher_models.cli as c; c.parser(); print([m for m in sys.modules if 'evaluate.' in m])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "['fisher_models.evaluate.cli']"
