"""Keeps freed memory in the process, in huge pages, so that the next tensor of its size needs no system call.

glibc returns every block above 32 MiB to the system when it is freed, and the top of the heap likewise; the system then has
to find and clear those pages again for the next one. A training step allocates and frees every activation, so on a CPU a
third of a ConvMixer's step was spent there (256/8, k5, batch 128, whose activations are 33.5 MB: benchmarks/README.md).
Results don't depend on it, as torch aligns all tensors alike.
"""

import ctypes
import mmap

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4  # malloc.h
_NEVER = -1  # read as the largest size there is
_HEAP_GROWTH = 64 * 2**20  # bytes that the heap grows by at least
_HUGE_PAGES = 4 * 2**30  # bytes of addresses, not of memory, at the beginning of the heap


def keep_freed_memory() -> bool:
    """Configure the C library so, for the rest of the process; False if it is not glibc and nothing was changed."""
    settings = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, _NEVER), (_M_TOP_PAD, _HEAP_GROWTH))
    try:
        library = ctypes.CDLL(None)
        if not all(library.mallopt(name, value) == 1 for name, value in settings):
            return False
    except (AttributeError, OSError):
        return False
    _request_huge_pages(library)
    return True


def return_freed_memory() -> bool:
    """Return free memory to the system, once, so that a later resident peak excludes it; False without glibc."""
    try:
        library = ctypes.CDLL(None)
        library.malloc_trim(0)
    except (AttributeError, OSError):
        return False
    _request_huge_pages(library)  # trimming also unmarks the addresses
    return True


def _request_huge_pages(library: ctypes.CDLL) -> None:
    """Grow the heap once, without touching it, and mark its addresses; where that fails, pages stay small."""
    library.malloc.argtypes, library.malloc.restype = [ctypes.c_size_t], ctypes.c_void_p
    library.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    library.free.argtypes = [ctypes.c_void_p]
    block = library.malloc(_HUGE_PAGES)
    if block:
        first = -(-block // mmap.PAGESIZE) * mmap.PAGESIZE
        library.madvise(first, _HUGE_PAGES - 2 * mmap.PAGESIZE, mmap.MADV_HUGEPAGE)
        library.free(block)
