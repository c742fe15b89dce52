"""Counter-based seeds: what a step draws depends on the run's seed, the step and the rank, and on nothing before it.

That makes a resumed run draw what an uninterrupted one would have drawn, and several processes draw different things,
without any generator's state being kept.
"""

from typing import Literal

import torch

Stream = Literal["shape", "machines", "noise", "crops", "masks"]
_STREAMS: tuple[Stream, ...] = ("shape", "machines", "noise", "crops", "masks")
_WORD = 2**32  # torch's generator on the CPU takes 32 bits of a seed


def of(seed: int, stream: Stream, *, counter: int) -> int:
    """A seed of 32 bits; for one `seed`, no two (stream, counter) share one while counter < 2**32 / 5.

    Counting is mixed by a bijection (the finaliser of MurmurHash3, A. Appleby 2011), which spreads neighbouring counts
    over all bits and cannot collide. Raises ValueError past that many counts.
    """
    place = counter * len(_STREAMS) + _STREAMS.index(stream)
    if not 0 <= place < _WORD:
        raise ValueError(f"counter {counter} is not between 0 and {_WORD // len(_STREAMS)}")
    x = (place + _mix(seed % _WORD ^ _mix(seed // _WORD % _WORD))) % _WORD
    return _mix(x)


def generator(seed: int, stream: Stream, *, counter: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A fresh generator on a device; see `of`."""
    made = torch.Generator(device)
    made.manual_seed(of(seed, stream, counter=counter))
    return made


def _mix(x: int) -> int:
    x ^= x >> 16
    x = x * 0x85EBCA6B % _WORD
    x ^= x >> 13
    x = x * 0xC2B2AE35 % _WORD
    return x ^ x >> 16
