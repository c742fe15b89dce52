"""Counters of everything made, dropped, rejected and written; thread-safe, read as one snapshot."""

import threading
from collections import Counter
from collections.abc import Mapping


class Stats:
    """Named counters, each with an optional key: a channel, a source, a reason (`key="press-07/vib:length"`)."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[tuple[str, str]] = Counter()

    def count(self, name: str, n: int = 1, *, key: str = "") -> None:
        """Add `n` to a counter."""
        with self._lock:
            self._counts[name, key] += n

    def total(self, name: str) -> int:
        """The sum of a counter over its keys."""
        with self._lock:
            return sum(n for (counter, _), n in self._counts.items() if counter == name)

    def by_key(self, name: str) -> Mapping[str, int]:
        """One counter, per key."""
        with self._lock:
            return {key: n for (counter, key), n in self._counts.items() if counter == name}
