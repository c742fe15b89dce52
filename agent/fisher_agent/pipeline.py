"""Window, bands, embedding, verdict: the one path of data, shared by every command."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from fisher_agent.errors import BackendFailed
from fisher_agent.stages import Embedder, Embedding, Floats, Moment, Verdict, Window
from fisher_agent.stats import Stats
from fisher_models.frontend import Frontend

MAX_BANDS = 64  # of one call of the embedder: bounds its memory; larger batches gain nothing on a CPU
MAX_AMPLITUDE = 1e6  # 140 dB over the enrolled level: beyond it a garbage sample would overflow the transform


class Judging(Protocol):
    """A `Judge` of one bank, or a `MachineJudge` over all modes of a machine. `bank` is what it judges by."""

    @property
    def bank(self) -> object | None:
        """None: not enrolled."""
        ...

    def gain(self, channel: str) -> float:
        """What samples are multiplied by before the model sees them."""
        ...

    def wants(self, moment: Moment) -> list[Window]:
        """The windows that must be embedded to judge this moment."""
        ...

    def judge(self, moment: Moment, embeddings: Mapping[str, Embedding]) -> Verdict:
        """The verdict, given those embeddings by channel."""
        ...


class Pipeline:
    """Moments in, verdicts out. `judges` is read at every call: replacing an entry takes effect at the next moment."""

    def __init__(
        self,
        *,
        frontend: Frontend,
        embedder: Embedder,
        judges: dict[str, Judging] | None = None,
        stats: Stats | None = None,
        max_bands: int = MAX_BANDS,
    ) -> None:
        self.frontend = frontend
        self.embedder = embedder
        self.judges = {} if judges is None else judges
        self._stats = stats or Stats()
        self._max_bands = max_bands

    def process(self, moments: Sequence[Moment]) -> list[Verdict]:
        """Judge moments in their order; a moment whose machine has no judge any more gives no verdict.

        The bands of all windows go through the model together. BackendFailed where it does not give finite numbers.
        """
        judged = [(m, self.judges[m.machine]) for m in moments if m.machine in self.judges]
        wanted = [judge.wants(moment) for moment, judge in judged]
        windows = [w for ws in wanted for w in ws]
        gains = [judge.gain(w.channel) for (_, judge), ws in zip(judged, wanted, strict=True) for w in ws]
        embeddings = iter(self.embed(windows, gains=gains))
        verdicts = [
            judge.judge(moment, {w.channel: next(embeddings) for w in ws})
            for (moment, judge), ws in zip(judged, wanted, strict=True)
        ]
        self._stats.count("windows_embedded", len(windows))
        self._stats.count("windows_skipped", sum(len(m.windows) for m in moments) - len(windows))
        return verdicts

    def embed(self, windows: Sequence[Window], *, gains: Sequence[float]) -> list[Embedding]:
        """Embed windows of any channels and rates, each multiplied by its gain. BackendFailed as in `process`."""
        out: list[Embedding | None] = [None] * len(windows)
        for batch in self._batches(windows, gains):
            for position, vectors in zip(batch.positions, self._run(batch), strict=True):
                w = windows[position]
                out[position] = Embedding(w.machine, w.channel, w.t_ns, vectors)
        return [e for e in out if e is not None]

    def _batches(self, windows: Sequence[Window], gains: Sequence[float]) -> Iterator["_Batch"]:
        """Windows of the same number of frames together, never more bands than allowed unless one window has more."""
        open_batches: dict[tuple[int, ...], _Batch] = {}
        for position, (window, gain) in enumerate(zip(windows, gains, strict=True)):
            scaled = np.clip(window.samples * np.float64(gain), -MAX_AMPLITUDE, MAX_AMPLITUDE)
            segments, centres = self.frontend.segments(scaled.astype(np.float32), window.rate_hz)  # (s, n, t, f)
            bands = segments.reshape(-1, *segments.shape[2:])
            batch = open_batches.setdefault(bands.shape[1:], _Batch())
            if batch.n_bands and batch.n_bands + len(bands) > self._max_bands:
                yield batch
                batch = open_batches[bands.shape[1:]] = _Batch()
            batch.positions.append(position)
            batch.bands.append(bands)
            batch.centres.append(np.tile(centres, len(segments)))
            batch.segments.append(len(segments))
        yield from open_batches.values()

    def _run(self, batch: "_Batch") -> list[Floats]:
        bands = np.concatenate(batch.bands)
        vectors = self.embedder.embed(bands, np.concatenate(batch.centres))
        if vectors.ndim != 2 or len(vectors) != len(bands):
            raise BackendFailed(f"{self.embedder.name} gave {vectors.shape} for {len(bands)} bands")
        if not np.isfinite(vectors).all():
            raise BackendFailed(f"{self.embedder.name} ({self.embedder.precision}) gave values that are not finite")
        parts = np.split(vectors, np.cumsum([len(b) for b in batch.bands])[:-1])
        return [
            p if s == 1 else p.reshape(s, len(p) // s, -1).mean(axis=0)
            for p, s in zip(parts, batch.segments, strict=True)
        ]


@dataclass(slots=True)
class _Batch:
    positions: list[int] = field(default_factory=list)
    bands: list[Floats] = field(default_factory=list)
    centres: list[Floats] = field(default_factory=list)
    segments: list[int] = field(default_factory=list)  # of each window; its embedding is the mean over them

    @property
    def n_bands(self) -> int:
        return sum(len(b) for b in self.bands)
