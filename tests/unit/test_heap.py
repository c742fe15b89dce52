"""What a moment needed goes back to the system, although a small block above it lives on."""

import ctypes
import subprocess
import sys

import pytest

BLOCK, BLOCKS = 64 << 10, 400
CODE = f"""
import ctypes, sys
from fisher_agent.service import give_back_heap, keep_heap_small, rss_bytes

keep_heap_small()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
before = rss_bytes()
held = [libc.malloc({BLOCK}) for _ in range({BLOCKS})]
for block in held:
    ctypes.memset(block, 1, {BLOCK})
for block in held[:-1]:
    libc.free(block)
kept = rss_bytes() - before
give_back_heap()
left = rss_bytes() - before
print(kept, left)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="this C library has no malloc_trim")
def test_what_glibc_keeps_below_a_block_in_use_is_returned() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    kept, left = map(int, done.stdout.split())
    assert kept > 0.8 * BLOCK * BLOCKS, "glibc returned it by itself"
    assert left < 0.1 * BLOCK * BLOCKS
