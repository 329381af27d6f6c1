"""Freed memory stays with the process, in huge pages: the next tensor of its size takes it back without asking the system.

glibc gives every block above 32 MiB back to the system when it is freed, and the top of the heap likewise; the system then
has to find and clear those pages again for the next one. A training step frees and takes every activation, so on a CPU a
third of a ConvMixer's step went there (256/8, k5, batch 128, whose activations are 33.5 MB: benchmarks/README.md). Bits don't
depend on it, as torch aligns all tensors alike.
"""

from __future__ import annotations

import ctypes
import mmap

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4  # malloc.h
NEVER = -1  # read as the largest size there is
GROWTH = 64 * 2**20  # bytes that the heap grows by at least
IN_HUGE_PAGES = 4 * 2**30  # bytes of addresses, not of memory, at the beginning of the heap


def keep_freed_memory() -> bool:
    """Ask the C library for this, for the rest of the process; False where it is not glibc and nothing was changed."""
    try:
        library = ctypes.CDLL(None)
        mallopt = library.mallopt
    except (AttributeError, OSError):
        return False
    settings = ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, NEVER), (M_TOP_PAD, GROWTH))
    kept = all(mallopt(name, value) == 1 for name, value in settings)
    if kept:
        _ask_for_huge_pages(library)
    return kept


def return_freed_memory() -> bool:
    """Give what is free now back to the system, once, so that a resident peak is of what follows; False without glibc."""
    try:
        library = ctypes.CDLL(None)
        malloc_trim = library.malloc_trim
    except (AttributeError, OSError):
        return False
    malloc_trim(0)
    _ask_for_huge_pages(library)  # the mark went with the addresses; a heap that keeps nothing doesn't keep it either
    return True


def _ask_for_huge_pages(library: ctypes.CDLL) -> None:
    """Grow the heap once, untouched, and mark its addresses; where that can't be had, pages stay small."""
    library.malloc.argtypes, library.malloc.restype = [ctypes.c_size_t], ctypes.c_void_p
    library.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    library.free.argtypes = [ctypes.c_void_p]
    block = library.malloc(IN_HUGE_PAGES)
    if block:
        first = -(-block // mmap.PAGESIZE) * mmap.PAGESIZE
        library.madvise(first, IN_HUGE_PAGES - 2 * mmap.PAGESIZE, mmap.MADV_HUGEPAGE)
        library.free(block)
