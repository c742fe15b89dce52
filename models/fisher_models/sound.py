"""Samples of sound files whose headers may promise anything."""

from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

BLOCK = 1 << 20  # samples


def decoded(file: soundfile.SoundFile, dtype: str, *, size: int) -> NDArray[Any]:
    """All samples (n, channels) of an open sound file of `size` bytes; fewer than its header says where it is cut.

    A header that promises more samples than the file has bits is believed only as far as it keeps its promise.
    """
    if file.frames * file.channels <= max(BLOCK, 8 * size):
        whole: NDArray[Any] = file.read(dtype=dtype, always_2d=True)
        return whole
    blocks = [np.zeros((0, file.channels), dtype)]
    while len(block := file.read(max(1, BLOCK // file.channels), dtype=dtype, always_2d=True)):
        blocks.append(block)
    return np.concatenate(blocks)
