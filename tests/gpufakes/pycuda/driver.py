"""`pycuda.driver` over host memory: every copy is done at once, and a stream is only a number."""

import ctypes
import os
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np

_pushed = threading.local()


def fails(what: str) -> bool:
    """Whether FAKE_TRT, or the file that FAKE_TRT_FILE names, names this failure; the file may change at any time."""
    named = os.environ.get("FAKE_TRT", "")
    file = Path(os.environ.get("FAKE_TRT_FILE", "/nonexistent"))
    if file.is_file():
        named += "," + file.read_text()
    return what in named.split(",")


class Error(Exception):
    pass


class MemoryError(Error):  # noqa: A001 (its name in pycuda)
    pass


class RuntimeError(Error):  # noqa: A001
    pass


class Context:
    def push(self) -> None:
        _pushed.n = getattr(_pushed, "n", 0) + 1

    @staticmethod
    def pop() -> None:
        _need_context()
        _pushed.n -= 1


class Device:
    def __init__(self, ordinal: int) -> None:
        if fails("no-device"):
            raise RuntimeError("cuInit failed: no CUDA-capable device is detected")

    def name(self) -> str:
        return os.environ.get("FAKE_GPU", "Fake GPU")

    def compute_capability(self) -> tuple[int, int]:
        return 8, 7

    def retain_primary_context(self) -> Context:
        return Context()


class DeviceAllocation:
    def __init__(self, nbytes: int) -> None:
        self._memory = ctypes.create_string_buffer(nbytes)
        self.nbytes = nbytes

    def __int__(self) -> int:
        return ctypes.addressof(self._memory)


class Stream:
    def __init__(self) -> None:
        _need_context()
        self.handle = 4242

    def synchronize(self) -> "Stream":
        _need_context()
        if fails("lost"):
            raise RuntimeError("cuStreamSynchronize failed: unspecified launch failure")
        return self


def init() -> None:
    pass


def get_driver_version() -> int:
    return 12060


def pagelocked_empty(shape: int | Sequence[int], dtype: type, order: str = "C", mem_flags: int = 0) -> np.ndarray:
    _need_context()
    return np.full(shape, np.nan, dtype, order)


def mem_alloc(nbytes: int) -> DeviceAllocation:
    _need_context()
    return DeviceAllocation(nbytes)


def memcpy_htod_async(dest: DeviceAllocation, src: np.ndarray, stream: Stream | None = None) -> None:
    _need_context()
    assert src.nbytes <= dest.nbytes
    ctypes.memmove(int(dest), src.ctypes.data, src.nbytes)


def memcpy_dtoh_async(dest: np.ndarray, src: DeviceAllocation, stream: Stream | None = None) -> None:
    _need_context()
    assert dest.nbytes <= src.nbytes
    ctypes.memmove(dest.ctypes.data, int(src), dest.nbytes)


def _need_context() -> None:
    if getattr(_pushed, "n", 0) < 1:
        raise Error("invalid device context: none is current in this thread")
