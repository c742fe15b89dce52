"""The torch backend on a CUDA device: `pytest tests/gpu` runs all that needs one."""

import numpy as np
import pytest
import torch

from fisher_agent.backends import open_embedder, self_test
from fisher_models.bundle import load

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not torch.cuda.is_available(), reason="this machine has no CUDA device, or torch is a CPU build"
    ),
]


def test_torch_serves_on_the_device_and_reproduces_the_self_test() -> None:
    bundle = load("fisher-tiny")
    embedder, note = open_embedder(bundle, backend="torch")
    assert (embedder.device, note) == ("cuda", "")
    assert self_test(embedder, bundle) < 1e-4


def test_the_device_agrees_with_openvino_on_the_cpu() -> None:
    bundle = load("fisher-tiny")
    bands = np.random.default_rng(0).normal(-1, 0.5, (20, 496, 100)).astype(np.float32)
    centres = np.zeros(20, np.float32)
    there, here = (open_embedder(bundle, backend=name)[0].embed(bands, centres) for name in ("torch", "openvino"))
    assert np.abs(there - here).max() < 1e-3
