"""Pre-training on a GPU: signals are made there, in bf16 the loss falls, and a resumed run goes on."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from fisher_models.families import PRESETS, frontend_spec
from fisher_models.pretrain import config, train
from fisher_models.pretrain.config import CorpusSpec
from fisher_models.pretrain.data import Feed
from fisher_models.pretrain.ranks import Rank

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def test_batches_made_on_the_gpu_are_like_those_made_on_the_cpu() -> None:
    """The machines are the same, their noise is not: levels and spectra agree on the average."""
    spec, front = CorpusSpec(rates_hz=(16000,), sub_bands=64, crops=1, gain_db=0), frontend_spec(PRESETS["fisher-tiny"])
    made = [
        Feed(spec, front, seed=0, rank=Rank(0, 1, torch.device(device))).batch(3).bands.cpu()
        for device in ("cpu", "cuda")
    ]
    assert made[0].shape == made[1].shape
    assert torch.isfinite(made[1]).all()
    assert (made[0].mean((1, 2)) - made[1].mean((1, 2))).abs().median() < 0.05


def test_the_loss_falls_in_bf16_and_a_run_resumes(tmp_path: Path) -> None:
    base = config.load("cpu-demo")
    run = base.run.model_copy(update={"out": tmp_path / "run", "steps": 120, "device": "cuda", "precision": "bf16"})
    settings = base.model_copy(update={"run": run})
    first = train.run(settings, minutes=1e-9)
    assert 0 < first.step < 120
    last = train.run(settings)
    assert last.step == 120
    assert last.bundle is not None
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert np.mean(losses[-2:]) < losses[0]
