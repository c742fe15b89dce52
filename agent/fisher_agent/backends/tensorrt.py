"""The NVIDIA backend: the bundle's float16 graph as a TensorRT engine, built once per box and cached."""

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from fisher_agent.backends import trt_engine
from fisher_agent.backends.pieces import Piece, embed_in_pieces
from fisher_agent.backends.trt_device import Device, driver_graphs
from fisher_agent.backends.trt_session import Session
from fisher_agent.errors import BackendFailed
from fisher_agent.stages import Floats
from fisher_models.bundle import Bundle


class TensorRtEmbedder:
    """Implements `stages.Embedder`, for one thread at a time.

    Opening it builds the engine where the cache has none for this box (`trt_engine.prepare`): minutes, in a child
    process, until `cancelled` is set. Raises ConfigError for a precision or bundle that cannot be served, BackendFailed
    for a device that cannot be used.
    """

    name = "tensorrt"
    precision = "f16"

    def __init__(
        self,
        bundle: Bundle,
        *,
        precision: str = "auto",
        cache: Path | None = None,
        cancelled: threading.Event | None = None,
    ) -> None:
        trt_engine.check(bundle, precision)
        path = trt_engine.prepare(bundle, cache=cache or trt_engine.default_cache(), cancelled=cancelled)
        plan = path.read_bytes().partition(b"\n")[2]
        device = Device()
        self._take(Session(plan, device, graphs=driver_graphs()), bundle, device)

    @classmethod
    def of(cls, session: Session, bundle: Bundle, device: Device) -> "TensorRtEmbedder":
        """An embedder over an engine that is loaded already."""
        embedder = cls.__new__(cls)
        embedder._take(session, bundle, device)
        return embedder

    def _take(self, session: Session, bundle: Bundle, device: Device) -> None:
        self._session: Session | None = session
        self._bundle = bundle
        self.device = f"cuda: {device.name}"

    def embed(self, bands: Floats, centres: Floats) -> Floats:
        """(n, t, f), (n,) -> (n, d); raises BackendFailed."""
        session = self._session
        if session is None:
            raise BackendFailed("tensorrt: this embedder is closed")
        patch = self._bundle.frontend.patch_frames
        if bands.ndim == 3 and (bands.shape[1] % patch or not 0 < bands.shape[1] <= session.max_frames):
            raise BackendFailed(
                f"bands {bands.shape}: {self._bundle.name} takes whole patches of {patch} frames, up to "
                f"{session.max_frames} frames"
            )

        def run(pieces: Sequence[Piece]) -> Iterator[Floats]:
            for piece, where in pieces:
                yield session.run(piece, where)

        rows_of_frames = session.max_rows * max(1, bands.shape[1] if bands.ndim == 3 else 1)
        return embed_in_pieces(run, self._bundle, bands=bands, centres=centres, max_frames=rows_of_frames)

    def close(self) -> None:
        """Free the device; calling it again does nothing."""
        session, self._session = self._session, None
        if session is not None:
            session.close()
