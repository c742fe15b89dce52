"""Waveform to embedding: ours against plain eager torch float32, the published way, on the same windows, in pairs."""

import argparse
import json
import time
from collections.abc import Callable

import numpy as np
import torch

from fisher_agent.backends.openvino import OpenVinoEmbedder
from fisher_models.bundle import load
from fisher_models.fisher import from_bundle
from fisher_models.frontend import Frontend

RATE_HZ, WINDOW_S, WINDOWS, PAIRS = 25_600, 5.0, 16, 5


def eager(model: torch.nn.Module, mean: float, divisor: float, waves: torch.Tensor) -> torch.Tensor:
    """The published recipe, one recording at a time: torch.stft, log, normalise, split into bands, ViT."""
    n_fft, hop = RATE_HZ * 25 // 1000, RATE_HZ // 100
    window = torch.hann_window(n_fft)
    out = []
    for wave in waves:
        spectrum = torch.stft(wave - wave.mean(), n_fft, hop, window=window, center=False, return_complex=True).abs()
        spec = ((spectrum + 1e-10).log().T - mean) / divisor
        bands = spec[:1024].unfold(1, 100, 100).permute(1, 0, 2)
        out.append(model(bands[:, : bands.shape[1] // 16 * 16].contiguous()).flatten())
    return torch.stack(out)


def main() -> None:
    """Measure, check that both give the same embeddings, print the medians and the ratio."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--json", action="store_true")
    as_json = arguments.parse_args().json
    bundle = load("fisher-tiny")
    frontend, ours, model = Frontend(bundle.frontend), OpenVinoEmbedder(bundle), from_bundle(bundle).eval()
    noise = np.random.default_rng(0).standard_normal((WINDOWS, round(RATE_HZ * WINDOW_S))).astype(np.float32) * 0.1
    waves = torch.from_numpy(noise)

    def run_ours() -> np.ndarray:
        cut = [frontend.bands(wave, RATE_HZ) for wave in noise]
        bands, centres = np.concatenate([b for b, _ in cut]), np.concatenate([c for _, c in cut])
        return ours.embed(bands, centres).reshape(WINDOWS, -1)

    def run_torch() -> np.ndarray:
        with torch.inference_mode():
            return eager(model, bundle.frontend.mean, bundle.frontend.divisor, waves).numpy()

    difference = float(np.abs(run_ours() - run_torch()).max())
    times = [(_timed(run_ours), _timed(run_torch)) for _ in range(PAIRS)]
    result = {
        "name": "embed_fisher_tiny_f32",
        "alternative": "torch eager f32, one window at a time",
        "windows_per_s": WINDOWS / float(np.median([a for a, _ in times])),
        "alternative_windows_per_s": WINDOWS / float(np.median([b for _, b in times])),
        "speedup": float(np.median([b / a for a, b in times])),
        "max_abs_difference": difference,
    }
    if as_json:
        print(json.dumps(result))
    else:
        for key, value in result.items():
            print(f"{key:28} {value}")


def _timed(act: Callable[[], object]) -> float:
    began_s = time.perf_counter()
    act()
    return time.perf_counter() - began_s


if __name__ == "__main__":
    main()
