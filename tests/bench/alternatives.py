"""What ours is measured against: the published recipe in eager torch, its bare matrix products, and ONNX Runtime.

Each is given what makes it fastest: every thread setting, both ways torch has to compute attention, batches or one
window at a time, and a C library that keeps freed memory (eager torch is 10 to 25 % slower where it returns it).
"""

import ctypes
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime as ort
import torch
import torch.nn.functional as F  # noqa: N812 (torch's own convention)
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from bench.products import best_s
from bench.workloads import Embeddings, Workload, per_window
from fisher_models.bundle import Bundle
from fisher_models.families import model_from
from fisher_models.frontend import Floats, Frontend, FrontendSpec

_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1  # of mallopt(3)
_KERNELS = {"fused attention": SDPBackend.FLASH_ATTENTION, "attention as two products": SDPBackend.MATH}
_PRODUCTS = {"aten::linear", "aten::conv2d", "aten::matmul", "aten::bmm", "aten::addmm"}
_ATTENTION = "aten::scaled_dot_product_attention"


@dataclass(frozen=True, slots=True)
class Setting:
    """One way to run an alternative."""

    way: str
    threads: int

    def __str__(self) -> str:
        return f"{self.way}, {self.threads} thread{'s' if self.threads > 1 else ''}"


def keep_freed_memory() -> None:
    """Have glibc never return memory to the kernel; does nothing where the C library has no mallopt."""
    with suppress(AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_MMAP_THRESHOLD, 1 << 30)
        mallopt(_TRIM_THRESHOLD, (1 << 31) - 1)


def thread_counts() -> list[int]:
    """One, and all cores."""
    return sorted({1, len(os.sched_getaffinity(0))})


class TorchEager:
    """The published recipe, one recording at a time: torch.stft, log, normalise, split into bands, ViT."""

    def __init__(self, bundle: Bundle) -> None:
        self.spec, self.model = bundle.frontend, model_from(bundle).eval()
        self.settings = [Setting(way, threads) for way in _KERNELS for threads in thread_counts()]

    def run(self, workload: Workload, setting: Setting) -> Embeddings:
        """Every window of it."""
        torch.set_num_threads(setting.threads)
        with torch.inference_mode(), sdpa_kernel(_KERNELS[setting.way]):
            return [self._embed(torch.from_numpy(wave), rate_hz).numpy() for wave, rate_hz in workload.windows]

    def flops(self, workload: Workload) -> int:
        """Floating point operations of the model's products, as torch counts them."""
        with torch.inference_mode(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            for wave, rate_hz in workload.windows:
                self._embed(torch.from_numpy(wave), rate_hz)
        return int(counter.get_total_flops())

    def matmul_rate(self, *, size: int = 2048) -> tuple[float, str]:
        """Operations per second of a large float32 product, the faster of torch's and numpy's, and that type."""
        torch.set_num_threads(max(thread_counts()))
        a = torch.ones(size, size)
        taken_s = min(best_s(lambda: a @ a, repeats=3), best_s(lambda: a.numpy() @ a.numpy(), repeats=3))
        return 2 * size**3 / taken_s, "f32"

    def operators(self, workload: Workload, setting: Setting) -> list[tuple[str, float]]:
        """(operator, its share of the time) of one run, the largest first."""
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
            self.run(workload, setting)
        spent = [(entry.key, entry.self_cpu_time_total) for entry in profile.key_averages()]
        total = sum(taken for _, taken in spent)
        return sorted(((key, taken / total) for key, taken in spent), key=lambda item: -item[1])

    def _embed(self, wave: Tensor, rate_hz: float) -> Tensor:
        out: Tensor = self.model(*torch_bands(wave, rate_hz, self.spec)).flatten()
        return out


class TorchProducts:
    """The products of `TorchEager` and its STFT, same shapes, strides, weights and order, and nothing else.

    What is left out is what eager torch spends on everything but products: its distance from `TorchEager` shows that
    the recipe is no straw man, and being faster than this is being faster than any eager torch could be.
    """

    def __init__(self, bundle: Bundle) -> None:
        self.eager = TorchEager(bundle)
        self.settings = [Setting("products and STFT", threads) for threads in thread_counts()]
        self._calls: dict[tuple[float, int], list[Callable[[], object]]] = {}

    def run(self, workload: Workload, setting: Setting) -> Embeddings:
        """Gives no embeddings: nothing is computed but products."""
        torch.set_num_threads(setting.threads)
        with torch.inference_mode():
            for wave, rate_hz in workload.windows:
                samples, calls = torch.from_numpy(wave), self._recorded(wave, rate_hz)
                _stft(samples, rate_hz, self.eager.spec)
                for call in calls:
                    call()
        return []

    def _recorded(self, wave: Floats, rate_hz: float) -> list[Callable[[], object]]:
        key = (rate_hz, len(wave))
        if key not in self._calls:
            with _Recorder() as recorder:
                self.eager.model(*torch_bands(torch.from_numpy(wave), rate_hz, self.eager.spec))
            self._calls[key] = recorder.calls
        return self._calls[key]


class _Recorder(TorchDispatchMode):
    """Notes every product that passes, to be done again."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Callable[[], object]] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        name = func.name().partition(".")[0]
        if name in _PRODUCTS:
            self.calls.append(lambda: func(*args, **(kwargs or {})))
        elif name == _ATTENTION:
            q, k, v = args[:3]
            weights = torch.softmax(q @ k.transpose(-2, -1), -1)
            self.calls += [lambda: q @ k.transpose(-2, -1), lambda: weights @ v]
        return func(*args, **(kwargs or {}))


def torch_bands(wave: Tensor, rate_hz: float, spec: FrontendSpec) -> tuple[Tensor, Tensor]:
    """(samples,) -> bands (n, t, f) and centres (n,) as published, in torch; of at most `max_frames` frames."""
    seen = ((_stft(wave - wave.mean(), rate_hz, spec).abs() + spec.log_floor).log().T - spec.mean) / spec.divisor
    seen = seen[: spec.max_frames]  # (T, F)
    frames, bins = seen.shape
    width, patch = spec.band_bins, spec.patch_frames
    if spec.trailing == "pad":
        seen = F.pad(seen, (0, 0, 0, -frames % patch))
    if spec.remainder == "drop":
        seen = F.pad(seen, (0, max(0, width - bins)))
    elif bins % width:  # the last band is padded at its low end
        whole = bins - bins % width
        seen = torch.cat([seen[:, :whole], F.pad(seen[:, whole:], (-bins % width, 0))], dim=1)
    bands = seen[: len(seen) // patch * patch].unfold(1, width, width).permute(1, 0, 2).contiguous()
    ends = torch.clamp((torch.arange(len(bands)) + 1) * width, max=bins)
    centres = (torch.arange(len(bands)) * width + ends - 1) / int(spec.win_ms * rate_hz // 1000)
    return bands, centres


def _stft(wave: Tensor, rate_hz: float, spec: FrontendSpec) -> Tensor:
    n_fft, hop = int(spec.win_ms * rate_hz // 1000), int(spec.hop_ms * rate_hz // 1000)
    window = torch.hann_window(n_fft)
    return torch.stft(wave, n_fft, hop, window=window, center=False, return_complex=True)


class OnnxRuntime:
    """The bundle's own graph in ONNX Runtime, float32, after our front-end (which is faster than torch's)."""

    def __init__(self, bundle: Bundle) -> None:
        self.frontend, self._dim = Frontend(bundle.frontend), bundle.embed_dim
        self._frames = {"a window at a time": 0, "4096 frames at a time": 4096, "all at once": 1 << 40}
        self.settings = [Setting(way, threads) for way in self._frames for threads in thread_counts()]
        self._sessions = {threads: self._session(bundle, threads) for threads in thread_counts()}
        self._inputs = {given.name for given in self._sessions[1].get_inputs()}

    def run(self, workload: Workload, setting: Setting) -> Embeddings:
        """Every window of it."""
        cut = [self.frontend.bands(wave, rate_hz) for wave, rate_hz in workload.windows]
        session, frames = self._sessions[setting.threads], self._frames[setting.way]
        if frames == 0:
            found = np.concatenate([self._infer(session, bands, centres) for bands, centres in cut])
        else:
            bands, centres = (np.concatenate(parts) for parts in zip(*cut, strict=True))
            step = max(1, frames // bands.shape[1])
            steps = [slice(i, i + step) for i in range(0, len(bands), step)]
            found = np.concatenate([self._infer(session, bands[s], centres[s]) for s in steps])
        return per_window(found, [len(bands) for bands, _ in cut])

    def _infer(self, session: ort.InferenceSession, bands: Floats, centres: Floats) -> Floats:
        given = {"bands": bands, "centres": centres}
        out: Floats = session.run(None, {name: given[name] for name in self._inputs})[0]
        return out

    @staticmethod
    def _session(bundle: Bundle, threads: int) -> ort.InferenceSession:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        return ort.InferenceSession(str(bundle.graph_path), options, providers=["CPUExecutionProvider"])
