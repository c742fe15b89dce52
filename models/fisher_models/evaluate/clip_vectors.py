"""Clips of the public benchmarks to vectors, by each benchmark's own rule of cutting and padding."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from fisher_models.errors import RecordingError, SignalError
from fisher_models.evaluate.encoders import Encoder, ModelEncoder, run_segments
from fisher_models.evaluate.features import Store
from fisher_models.evaluate.siren_diagnosis import read_signal
from fisher_models.frontend import Floats, Frontend
from fisher_models.recordings import from_files

RMIS_FRAMES = 1024  # to which RMIS pads or cuts every spectrogram
_REST = 0.05  # of a window: a remainder that is longer adds one window aligned to the end


@dataclass(frozen=True, slots=True)
class Rule:
    """How one benchmark embeds a file."""

    name: str  # part of the cache's key
    embed: Callable[[Encoder, Floats, float], Floats]  # samples (n,), rate -> (d,)
    channels: str = "mix"  # mix: the mean over channels; each: a vector per channel


def rmis_rule(window_s: float, *, normalised: bool) -> Rule:
    """Windows of a set's length, mean removed, zero-padded to 1024 frames; the mean of their embeddings.

    Without `normalised` a model gets the log magnitudes as they are, as half of the sets do in the released code.
    """

    def embed(encoder: Encoder, samples: Floats, rate_hz: float) -> Floats:
        pieces = rmis_windows(samples, round(window_s * rate_hz))
        if not isinstance(encoder, ModelEncoder):
            return np.asarray(encoder.embed(pieces, rate_hz).mean(axis=0))
        spec = encoder.spec if normalised else replace(encoder.spec, mean=0.0, divisor=1.0)
        frontend = Frontend(replace(spec, longer="cut"))
        made = [frontend.segments(piece, rate_hz, pad_frames=RMIS_FRAMES) for piece in pieces]
        return np.asarray(run_segments(encoder.run, made).mean(axis=0))

    return Rule(f"rmis-{window_s:g}-{normalised}", embed)


def rmis_windows(samples: Floats, n: int) -> Floats:
    """(samples,) -> (windows, n), one after the other and each without its mean.

    A remainder of 5 % or more adds the last n samples; a clip that is shorter than a window is padded with zeros.
    """
    if len(samples) <= n:
        one = np.zeros((1, n), np.float32)
        one[0, : len(samples)] = samples - samples.mean(dtype=np.float64)
        return one
    starts = list(range(0, len(samples) - n + 1, n))
    if len(samples) - (starts[-1] + n) >= _REST * n:
        starts.append(len(samples) - n)
    cut = np.stack([samples[at : at + n] for at in starts])
    return np.asarray(cut - cut.mean(axis=1, keepdims=True, dtype=np.float64), np.float32)


def siren_rule(*, each_channel: bool) -> Rule:
    """The whole file: segments of the model's longest input, the last one aligned to the end; the mean of them."""

    def embed(encoder: Encoder, samples: Floats, rate_hz: float) -> Floats:
        if not isinstance(encoder, ModelEncoder):
            return np.asarray(encoder.embed(samples[None], rate_hz)[0])
        made = Frontend(replace(encoder.spec, longer="mean")).segments(samples, rate_hz)
        return np.asarray(run_segments(encoder.run, [made])[0])

    return Rule("siren", embed, "each" if each_channel else "mix")


def clip_vectors(encoder: Encoder, rule: Rule, path: Path, store: Store) -> Floats:
    """(channels, d) of one file; (1, d) where channels are mixed. Kept in the store. SignalError names the file."""
    about = path.stat()
    parts = (rule.name, rule.channels, str(path.resolve()), about.st_size, about.st_mtime_ns)

    def make() -> Floats:
        signal, rate_hz = _read(path)
        if rule.channels == "mix":
            signal = np.asarray(signal.mean(axis=0, keepdims=True, dtype=np.float64), np.float32)
        try:
            return np.stack([rule.embed(encoder, channel, rate_hz) for channel in signal])
        except SignalError as error:
            raise SignalError(f"{path}: {error}") from error

    return store.get(encoder.identity, parts, make)


def _read(path: Path) -> tuple[Floats, float]:
    """(channels, n) and the rate."""
    if path.suffix in (".csv", ".mat"):
        return read_signal(path)
    recordings = list(from_files([path]))
    if not recordings:
        raise RecordingError(f"{path} holds no channel")
    return np.stack([recording.samples() for recording in recordings]), recordings[0].rate_hz
