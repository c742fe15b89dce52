"""The one retry loop's arithmetic: exponential backoff with full jitter, capped (AWS Architecture Blog, 2015). Pure."""

import random

FIRST_S = 0.5
CAP_S = 30.0
STEADY_S = 30.0  # a connection that lived this long had nothing wrong with it: the next failure starts over


class Backoff:
    """How long to wait before the next try."""

    def __init__(self, seed: int | None = None) -> None:
        self._random = random.Random(seed)  # noqa: S311  (jitter, not a secret)
        self._failures = 0

    def after(self, lived_s: float, *, told_s: float | None = None) -> float:
        """Seconds to wait after a connection that lived `lived_s`; `told_s` is what the other side asked for."""
        self._failures = 1 if lived_s >= STEADY_S else self._failures + 1
        ceiling = min(CAP_S, FIRST_S * 2 ** min(self._failures, 10))
        delay = self._random.uniform(ceiling / 2, ceiling)
        return delay if told_s is None else max(delay, told_s)
