"""Hand-written stand-ins that keep the real contracts, and a machine whose truth is known."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from fisher_agent.config import ChannelConfig, MachineConfig, WindowConfig
from fisher_agent.errors import BackendFailed
from fisher_agent.stages import Floats, Frame
from fisher_agent.waveforms import Recording
from fisher_models.bundle import Bundle, SelfTest
from fisher_models.frontend import FrontendSpec

SPEC = FrontendSpec(mean=-3.017344307886898, divisor=4.306327031075961, band_bins=100)
T0_NS = 1_795_000_000_000_000_000


class FakeEmbedder:
    """A fixed random projection of each band's mean spectrum, with a large common part as real embeddings have."""

    name = "fake"
    device = "CPU"

    def __init__(self, *, d: int = 24, precision: str = "f32") -> None:
        self.precision = precision
        self.calls: list[tuple[int, ...]] = []
        rng = np.random.default_rng(0)
        self._projection = rng.normal(size=(SPEC.band_bins, d)) / np.sqrt(SPEC.band_bins)
        self._common = 3 * rng.normal(size=d)

    def embed(self, bands: Floats, centres: Floats) -> Floats:
        assert len(bands) == len(centres)
        self.calls.append(bands.shape)
        spectra = bands.astype(np.float64).mean(axis=1)
        return (np.einsum("nf,fd->nd", spectra, self._projection) + self._common).astype(np.float32)

    def close(self) -> None:
        pass


class FakeGpu(FakeEmbedder):
    """The same model in float16, until it is `dead`, or gives `nan`; `off` is added to everything."""

    name = "tensorrt"
    device = "cuda: a test"

    def __init__(self, *, off: float = 0.0) -> None:
        super().__init__(precision="f16")
        self.off = off
        self.dead = self.nan = self.closed = False

    def embed(self, bands: Floats, centres: Floats) -> Floats:
        if self.dead:
            raise BackendFailed("the GPU failed: cuStreamSynchronize failed: unspecified launch failure")
        found = super().embed(bands, centres).astype(np.float16).astype(np.float32) + np.float32(self.off)
        return np.full_like(found, np.nan) if self.nan else found

    def close(self) -> None:
        self.closed = True


def proven_bundle() -> Bundle:
    """A bundle whose self-test `FakeEmbedder` and `FakeGpu` reproduce."""
    bands = np.random.default_rng(3).normal(-1, 0.5, (4, 32, SPEC.band_bins)).astype(np.float32)
    centres = np.zeros(4, np.float32)
    test = SelfTest(bands, centres, FakeEmbedder().embed(bands, centres))
    return replace(bundle(), selftest=test, tolerance={"f32": 1e-3, "f16": 0.02})


def bundle(*, digest: str = "b" + "0" * 64) -> Bundle:
    """A bundle in name only: enough for what binds a bank."""
    nothing = SelfTest(np.zeros((1, 16, 100), np.float32), np.zeros(1, np.float32), np.zeros((1, 24), np.float32))
    return Bundle(
        name="fake", path=Path("/nowhere"), digest=digest, model={"family": "fake"}, weights="trained",
        origin="a test", frontend=SPEC, tolerance={"f32": 1e-3}, selftest=nothing, lower={},
    )  # fmt: skip


def channel(name: str, rate_hz: float, **keys: object) -> ChannelConfig:
    return ChannelConfig.model_validate({"id": name, "rate_hz": rate_hz, **keys})


def machine(*channels: ChannelConfig, **keys: object) -> MachineConfig:
    return MachineConfig.model_validate({"id": "press-07", "channels": list(channels), **keys})


VIBRATION = channel("vib", 8000, kind="vibration", unit="g")
CURRENT = channel("amp", 4000, kind="current", unit="A")
PRESS = machine(VIBRATION, CURRENT)
WINDOW = WindowConfig(length_s=1.0, hop_s=0.5, lateness_s=1.0)

# No line is a multiple of the grid's or the spectrogram's rate, as none is in life: its phase would be the same in
# every window of a recording and another one in the next.
LINES_HZ: Mapping[str, Sequence[float]] = {"vib": (119.83, 700.31, 2300.77), "amp": (49.93, 149.79)}


def signal(
    config: ChannelConfig,
    seconds: float,
    *,
    seed: int,
    level: float = 1.0,
    tone_hz: float | None = None,
    tone: float = 0.5,
) -> Floats:
    """Lines, locked to one another as those of a machine are, and noise; `tone_hz` adds the line of a fault."""
    rng = np.random.default_rng([seed, len(config.id), round(config.rate_hz)])
    t = rng.uniform(0, 10) + np.arange(round(seconds * config.rate_hz)) / config.rate_hz
    x = 0.3 * rng.normal(size=len(t))
    for hz in LINES_HZ.get(config.id, (203.17,)):
        x += np.sin(2 * np.pi * hz * t)
    if tone_hz is not None:
        x += tone * np.sin(2 * np.pi * tone_hz * t)
    return (level * x).astype(np.float32)


def frames(
    config: ChannelConfig, samples: Floats, *, t_ns: int = T0_NS, block_s: float = 0.5, machine_id: str = "press-07"
) -> Iterator[Frame]:
    """Contiguous stamped blocks."""
    step = round(block_s * config.rate_hz)
    for first in range(0, len(samples), step):
        at_ns = t_ns + round(first * 1e9 / config.rate_hz)
        yield Frame(machine_id, config.id, at_ns, config.rate_hz, samples[first : first + step])


def recording(parts: Mapping[ChannelConfig, Floats], *, t_ns: int = T0_NS, block_s: float = 0.5) -> Recording:
    """All channels starting together."""
    out = Recording()
    for config, samples in parts.items():
        for frame in frames(config, samples, t_ns=t_ns, block_s=block_s):
            out.add(frame)
    return out


def running(
    config: MachineConfig = PRESS, seconds: float = 40.0, *, seed: int = 1, t_ns: int = T0_NS, **fault: float
) -> Recording:
    """The machine in normal running, or with a fault on its first channel."""
    first = config.channels[0]
    return recording(
        {c: signal(c, seconds, seed=seed, **(fault if c is first else {})) for c in config.channels}, t_ns=t_ns
    )
