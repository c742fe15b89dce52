"""What the backends share: a batch of any size goes through the model in pieces, and what comes out is checked."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from fisher_agent.errors import BackendFailed
from fisher_agent.stages import Floats
from fisher_models.bundle import Bundle

# About eight 5 s windows. Larger pieces are no faster (15 ms per band on two cores from 4 to 48 bands), and activations
# would grow with the plant, by about 10 KB per frame.
MAX_FRAMES = 4096
Piece = tuple[Floats, Floats]  # contiguous bands (n, t, f) and their centres (n,)


def embed_in_pieces(
    run: Callable[[Sequence[Piece]], Iterable[Floats]],
    bundle: Bundle,
    *,
    bands: Floats,
    centres: Floats,
    max_frames: int = MAX_FRAMES,
) -> Floats:
    """(n, t, f), (n,) -> (n, d) by `run`, which gives one (n, d) per piece, in order.

    BackendFailed where the input does not fit the bundle, or the output is not finite.
    """
    fits = bands.ndim == 3 and bands.shape[2] == bundle.frontend.band_bins
    if not fits or centres.shape != bands.shape[:1]:
        raise BackendFailed(f"bands {bands.shape} and centres {centres.shape} do not fit together or to {bundle.name}")
    step = max(1, max_frames // max(1, bands.shape[1]))
    starts = range(0, len(bands), step)
    pieces = [
        (np.ascontiguousarray(bands[i : i + step], np.float32), np.ascontiguousarray(centres[i : i + step], np.float32))
        for i in starts
    ]
    out = np.empty((len(bands), bundle.embed_dim), np.float32)
    for i, found in zip(starts, run(pieces), strict=True):
        out[i : i + step] = found
    if not np.isfinite(out).all():
        raise BackendFailed(f"{bundle.name} gave embeddings that are not finite")
    return out
