"""The reference backend: the model in torch, on a CUDA device where there is one. The only runtime use of torch."""

import torch

from fisher_agent.backends.pieces import embed_in_pieces
from fisher_agent.errors import BackendFailed, ConfigError
from fisher_agent.stages import Floats
from fisher_models.bundle import Bundle
from fisher_models.errors import BundleError
from fisher_models.fisher import from_bundle


class TorchEmbedder:
    """Implements `stages.Embedder`. Call it from one thread; `threads` sets torch's process-wide number."""

    name = "torch"

    def __init__(self, bundle: Bundle, *, precision: str = "auto", threads: int | None = None) -> None:
        if precision not in ("auto", "f32"):
            raise ConfigError(f"model.precision: torch has no {precision!r} in this version; use 'auto' or 'f32'")
        self.precision = "f32"
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        if threads is not None:
            torch.set_num_threads(threads)
        try:
            self._model: torch.nn.Module | None = from_bundle(bundle).to(self.device)
        except BundleError as error:
            raise BackendFailed(f"torch: {error}") from error
        self._bundle = bundle

    def embed(self, bands: Floats, centres: Floats) -> Floats:
        """(n, t, f), (n,) -> (n, d); raises BackendFailed. FISHER looks at the bands alone."""
        model = self._model
        if model is None:
            raise BackendFailed("torch: this embedder is closed")

        def run(piece: Floats) -> Floats:
            try:
                out: Floats = model(torch.tensor(piece, device=self.device)).cpu().numpy()
            except RuntimeError as error:
                raise BackendFailed(f"torch failed on bands of shape {piece.shape}: {error}") from error
            return out

        # cuDNN would convolve in TF32, whose 10-bit mantissa is outside the tolerance of f32.
        with torch.inference_mode(), torch.backends.cudnn.flags(allow_tf32=False):
            return embed_in_pieces(run, self._bundle, bands=bands, centres=centres)

    def close(self) -> None:
        """Free the model; calling it again does nothing."""
        self._model = None
