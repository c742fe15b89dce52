"""Runs end to end at toy size: the loss falls, a resumed run is the uninterrupted one bit for bit."""

import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from fisher_models import bundle as bundles
from fisher_models.cli import main
from fisher_models.errors import TrainingError
from fisher_models.families import model_from
from fisher_models.pretrain import checkpoint, config, train
from fisher_models.pretrain.checkpoint import Parts, Progress
from fisher_models.pretrain.config import OptimizerSpec, Settings
from fisher_models.pretrain.data import Batch
from fisher_models.pretrain.report import Report
from fisher_models.pretrain.schedule import rate_at
from fisher_models.pretrain.trainer import Trainer

TOY = """
[run]
out = "{out}"
bundle = "toy"
steps = {steps}
device = "cpu"
[model]
preset = "{preset}"
embed_dim = 32
heads = 1
depth = 2
[corpus]
rates_hz = [2000, 8000]
sub_bands = 8
min_frames = 32
max_frames = 48
{corpus}
[mask]
clones = 2
{mask}
[decoder]
dim = 16
layers = 2
groups = 8
[teacher]
start = 0.95
end = 0.99
[optimizer]
rate = 2e-3
[monitor]
log_every = 5
look_every = 1000
save_every = 4
bands = 32
[monitor.knn]
machines = 1
windows = 2
rates_hz = [4000]
frames = 32
"""


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _settings(out: Path, *, steps: int = 12, preset: str = "fisher-tiny", corpus: str = "", mask: str = "") -> Settings:
    return config.parse(TOY.format(out=out, steps=steps, preset=preset, corpus=corpus, mask=mask))


def _records(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def test_the_loss_falls_on_a_toy_corpus(tmp_path: Path) -> None:
    done = train.run(_settings(tmp_path / "run", steps=120))
    assert done.step == 120
    losses = [r["loss"] for r in _records(tmp_path / "run") if "loss" in r]
    assert np.mean(losses[-4:]) < 0.8 * losses[0]
    assert {"band", "patch", "pixel", "contrast", "statistics", "position_share", "sub_bands_per_s"} <= _records(
        tmp_path / "run"
    )[1].keys()


def test_a_run_ends_with_a_verified_bundle_of_the_teacher(tmp_path: Path) -> None:
    out = tmp_path / "run"
    done = train.run(_settings(out))
    assert done.bundle is not None
    assert (done.bundle.name, done.bundle.weights) == ("toy", "trained")
    assert "12 steps" in done.bundle.origin
    stored = load_file(out / checkpoint.NAME)
    bands, centres = torch.from_numpy(done.bundle.selftest.bands), torch.from_numpy(done.bundle.selftest.centres)
    found = model_from(bundles.load(done.bundle.path))(bands, centres)
    state = {key.removeprefix("teacher."): value for key, value in stored.items() if key.startswith("teacher.")}
    model = model_from(done.bundle)
    rows = model.state_dict()["modality_encoders.IMAGE.fixed_positional_encoder.positions"].shape[1]
    state["modality_encoders.IMAGE.fixed_positional_encoder.positions"] = state[
        "modality_encoders.IMAGE.fixed_positional_encoder.positions"
    ][:, :rows]
    model.load_state_dict(state)
    assert torch.allclose(found, model(bands, centres), atol=0.02)  # the bundle's weights are rounded to float16
    assert done.bundle.weights_path.stat().st_size < 2.2 * sum(v.numel() for v in state.values())


@pytest.mark.parametrize("preset", ["fisher-tiny", "echo-tiny"])
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(tmp_path: Path, preset: str) -> None:
    echo = {"corpus": "random_bands = true", "mask": 'kind = "random"\nratio = 0.75'} if preset == "echo-tiny" else {}
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train.run(_settings(whole, preset=preset, **echo))
    first = train.run(_settings(parts, preset=preset, **echo), minutes=1e-9)
    assert 0 < first.step < 12
    assert first.bundle is None
    last = train.run(_settings(parts, preset=preset, **echo))
    assert last.step == 12
    one, other = load_file(whole / checkpoint.NAME), load_file(parts / checkpoint.NAME)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert [r["loss"] for r in _records(whole) if r["step"] == 12 and "loss" in r] == [
        r["loss"] for r in _records(parts) if r["step"] == 12 and "loss" in r
    ]


def test_the_same_seed_gives_the_same_run_and_another_does_not(tmp_path: Path) -> None:
    states = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        settings = _settings(tmp_path / name, steps=3)
        train.run(settings.model_copy(update={"run": settings.run.model_copy(update={"seed": seed})}))
        states.append(load_file(tmp_path / name / checkpoint.NAME))
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert not all(torch.equal(states[0][key], states[2][key]) for key in states[0])


def test_a_finished_run_is_only_exported_again(tmp_path: Path) -> None:
    settings = _settings(tmp_path / "run", steps=2)
    first = train.run(settings)
    again = train.run(settings)
    assert first.bundle is not None
    assert again.bundle is not None
    assert first.bundle.digest == again.bundle.digest


def test_a_signal_ends_the_sitting_with_a_checkpoint_and_the_exit_code_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = signal.getsignal(signal.SIGINT)  # ignored in a shell's background, else Python's own
    out, file = tmp_path / "run", tmp_path / "run.toml"
    file.write_text(TOY.format(out=out, steps=50, preset="fisher-tiny", corpus="", mask=""))
    step = Trainer.step

    def interrupted(self: Trainer, number: int, batch: Batch) -> Any:
        if number == 6:
            signal.raise_signal(signal.SIGINT)
        return step(self, number, batch)

    monkeypatch.setattr(Trainer, "step", interrupted)
    assert main(["pretrain", "--config", str(file), "--json"]) == 130
    said = json.loads(capsys.readouterr().out)
    assert said == {"step": 7, "steps": 50, "interrupted": True, "bundle": "", "digest": ""}
    assert signal.getsignal(signal.SIGINT) is usual
    monkeypatch.undo()
    assert train.run(_settings(out, steps=50), minutes=1e-9).step == 8


def test_a_run_that_dies_in_a_step_leaves_the_last_checkpoint_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = Trainer.step

    def dying(self: Trainer, number: int, batch: Batch) -> Any:
        if number == 6:
            raise RuntimeError("power cut")
        return step(self, number, batch)

    monkeypatch.setattr(Trainer, "step", dying)
    with pytest.raises(RuntimeError, match="power cut"):
        train.run(_settings(tmp_path / "run"))
    monkeypatch.undo()
    (tmp_path / "run" / ".last.safetensors.part").write_bytes(b"half of one")  # as a cut while writing leaves it
    train.run(_settings(tmp_path / "whole"))
    train.run(_settings(tmp_path / "run"))
    one, other = load_file(tmp_path / "run" / checkpoint.NAME), load_file(tmp_path / "whole" / checkpoint.NAME)
    assert all(torch.equal(one[key], other[key]) for key in one)
    steps = [r["step"] for r in _records(tmp_path / "run") if "loss" in r]
    assert steps == sorted(set(steps)), "what is done again is recorded once"


def test_a_loss_that_is_not_finite_ends_the_run(tmp_path: Path) -> None:
    settings = _settings(tmp_path / "run")
    wild = settings.model_copy(update={"optimizer": OptimizerSpec(rate=1e30, clip=1e30, warmup=0.0)})
    with pytest.raises(TrainingError, match="is not finite"):
        train.run(wild)


def test_a_checkpoint_of_another_configuration_is_refused_with_the_keys(tmp_path: Path) -> None:
    train.run(_settings(tmp_path / "run", steps=4))
    with pytest.raises(TrainingError, match=r"run\.steps \(4, now 5\)"):
        train.run(_settings(tmp_path / "run", steps=5))


@pytest.mark.parametrize("damage", [b"", b"\x10\x00\x00\x00\x00\x00\x00\x00{not json", b"\xff" * 64])
def test_a_damaged_checkpoint_is_refused(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / checkpoint.NAME).write_bytes(damage)
    with pytest.raises(TrainingError, match="damaged or of another version"):
        train.run(_settings(tmp_path))


def test_a_foreign_safetensors_file_is_no_checkpoint(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(1)}, tmp_path / checkpoint.NAME)
    with pytest.raises(TrainingError, match="no checkpoint of pre-training"):
        train.run(_settings(tmp_path))


def test_a_checkpoint_brings_back_the_optimizer(tmp_path: Path) -> None:
    def parts() -> Parts:
        torch.manual_seed(0)
        student = torch.nn.Linear(3, 2)
        optimizer = torch.optim.AdamW(student.parameters(), fused=True)
        return Parts(student, torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2), optimizer)

    first = parts()
    for _ in range(3):
        first.optimizer.zero_grad()
        first.student(torch.ones(4, 3)).square().sum().backward()
        first.optimizer.step()
    checkpoint.save(tmp_path, first, Progress(3, 12, 1.5), {"a": 1})
    second = parts()
    assert checkpoint.load(tmp_path, second, {"a": 1}) == Progress(3, 12, 1.5)
    for mine, theirs in zip(second.student.parameters(), first.student.parameters(), strict=True):
        assert torch.equal(mine, theirs)
        for key, value in first.optimizer.state[theirs].items():
            assert torch.equal(second.optimizer.state[mine][key], value), key
    assert list(tmp_path.iterdir()) == [tmp_path / checkpoint.NAME]


def test_the_rate_warms_up_holds_and_falls_to_zero_over_the_last_quarter() -> None:
    spec = OptimizerSpec(rate=1.0, warmup=0.1, decay=0.25)
    rates = [rate_at(step, 400, spec) for step in range(400)]
    assert rates[0] == pytest.approx(1 / 40)
    assert rates[39:300] == pytest.approx([1.0] * 261)
    assert rates[350] == pytest.approx(0.5)
    assert 0 < rates[399] <= 0.01
    cosine = [rate_at(s, 400, OptimizerSpec(rate=1.0, warmup=0.1, schedule="cosine", decay=0.0)) for s in range(400)]
    assert cosine[220] == pytest.approx(0.5, abs=0.01)
    assert cosine[-1] < 0.001


def test_what_is_told_names_the_step_and_stays_silent_in_other_processes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Report(tmp_path, steps=9, step=0) as report:
        report.record(3, {"loss": 1.23456789}, shown=True)
    assert "step 3 of 9  loss 1.2346" in capsys.readouterr().err
    with Report(tmp_path / "other", steps=9, step=0, silent=True) as report:
        report.record(3, {"loss": 1.0}, shown=True)
        report.note("nothing")
    assert capsys.readouterr().err == ""
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["--minutes", "0"], "--minutes 0 must be above 0"), (["--seed", "-1"], "--seed -1 must lie between")],
)
def test_wrong_arguments_are_refused(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pretrain", "--config", "toy", *arguments]) == 2
    assert said in capsys.readouterr().err
