"""Several processes: they train one model on different signals, and only the first writes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fisher_models.errors import TrainingError
from fisher_models.pretrain import checkpoint
from fisher_models.pretrain.ranks import any_rank, joined, mean_over_ranks, wait_for_all

TOY = """
[run]
out = "{out}"
bundle = "toy"
steps = 4
device = "cpu"
threads = 1
[model]
preset = "fisher-tiny"
embed_dim = 32
heads = 1
depth = 1
[corpus]
rates_hz = [2000]
sub_bands = 4
min_frames = 32
max_frames = 32
[mask]
clones = 1
[decoder]
dim = 16
layers = 1
groups = 8
[monitor]
log_every = 1
save_every = 2
look_every = 1000
bands = 32
[monitor.knn]
machines = 1
windows = 2
rates_hz = [4000]
frames = 32
"""


def test_a_single_process_needs_no_group() -> None:
    with joined("cpu") as rank:
        assert (rank.index, rank.world, rank.first, rank.device.type) == (0, 1, True, "cpu")
    assert torch.equal(mean_over_ranks(torch.ones(2)), torch.ones(2))
    assert any_rank(True, torch.device("cpu"))
    wait_for_all()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_that_is_asked_for_and_absent_is_an_error() -> None:
    with pytest.raises(TrainingError, match="torch sees no CUDA device"), joined("cuda"):
        pass


@pytest.mark.slow
def test_two_processes_train_one_model(tmp_path: Path) -> None:
    out, file = tmp_path / "run", tmp_path / "run.toml"
    file.write_text(TOY.format(out=out))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*launcher, "-m", "fisher_models.cli", "pretrain", "--config", str(file)],
        env=environment, capture_output=True, text=True, check=False, timeout=110,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("(trained)") == 1, "one process exports"
    records = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [r["step"] for r in records if "loss" in r] == [1, 2, 3, 4]
    alone = tmp_path / "alone"
    file.write_text(TOY.format(out=alone))
    subprocess.run([sys.executable, "-m", "fisher_models.cli", "pretrain", "--config", str(file)], env=environment,
                   check=True, capture_output=True, timeout=110)  # fmt: skip
    both, one = load_file(out / checkpoint.NAME), load_file(alone / checkpoint.NAME)
    assert both.keys() == one.keys()
    assert not torch.equal(both["student.predict_band.weight"], one["student.predict_band.weight"])
    assert both["targets.patch.seen"] == 4
