"""Keeping freed memory instead of returning it to the system after every layer."""

import ctypes
import functools
import sys

__all__ = ["keep_freed_memory"]

# From glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_LARGEST = 2**31 - 1


@functools.cache
def keep_freed_memory() -> bool:
    """Tells glibc's allocator to keep what is freed, for the rest of the process.

    A network's feature maps are tens of megabytes. By default glibc maps each anew and the kernel
    fills it with zeros page by page, which costs a CPU as much time as the convolutions.

    Returns:
        Whether it was done; False on systems without glibc, where nothing changes.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _LARGEST)) and bool(mallopt(_TRIM_THRESHOLD, _LARGEST))
