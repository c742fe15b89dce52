"""What the backends share: a batch of any size goes through the model in pieces, and what comes out is checked."""

from collections.abc import Callable

import numpy as np

from fisher_agent.errors import BackendFailed
from fisher_agent.stages import Floats
from fisher_models.bundle import Bundle

# About eight 5 s windows. Larger pieces are no faster (15 ms per band on two cores from 4 to 48 bands), and activations
# would grow with the plant, by about 10 KB per frame.
MAX_FRAMES = 4096


def embed_in_pieces(run: Callable[[Floats], Floats], bundle: Bundle, *, bands: Floats, centres: Floats) -> Floats:
    """(n, t, f), (n,) -> (n, d) by `run`, which takes contiguous bands; BackendFailed where something does not fit."""
    fits = bands.ndim == 3 and bands.shape[2] == bundle.frontend.band_bins
    if not fits or centres.shape != bands.shape[:1]:
        raise BackendFailed(f"bands {bands.shape} and centres {centres.shape} do not fit together or to {bundle.name}")
    out = np.empty((len(bands), bundle.embed_dim), np.float32)
    step = max(1, MAX_FRAMES // max(1, bands.shape[1]))
    for i in range(0, len(bands), step):
        out[i : i + step] = run(np.ascontiguousarray(bands[i : i + step], np.float32))
    if not np.isfinite(out).all():
        raise BackendFailed(f"{bundle.name} gave embeddings that are not finite")
    return out
