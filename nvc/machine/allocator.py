"""Keep freed memory for the next picture instead of handing it back to the system.

glibc maps large blocks afresh for each tensor, and the system clears every page again: more than half of the time of a
640×360 picture went there. Called once by a process that codes; elsewhere than on glibc it does nothing.
"""

from __future__ import annotations

import ctypes

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4       # malloc.h


def keep_memory() -> bool:
    """Let malloc reuse large blocks. True if the allocator took it."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    return bool(mallopt(M_MMAP_MAX, 0)) and bool(mallopt(M_TRIM_THRESHOLD, 2**31 - 1))
