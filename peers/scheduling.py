"""Keeps SVT-AV1 from making this process a real-time one, which it does as root: nothing else would get to run."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

CAP_SYS_NICE = 1 << 23          # of <linux/capability.h>
VERSION_3 = 0x20080522


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Sets(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


@contextmanager
def ordinary_scheduling() -> Iterator[None]:
    """While it lasts, this thread and those that it starts may not raise their priority (capabilities(7))."""
    libc = ctypes.CDLL(None, use_errno=True)
    header, sets = _Header(VERSION_3, 0), (_Sets * 2)()
    known = hasattr(libc, "capget") and libc.capget(ctypes.byref(header), sets) == 0
    had = known and bool(sets[0].effective & CAP_SYS_NICE)
    if had:
        sets[0].effective &= ~CAP_SYS_NICE
        libc.capset(ctypes.byref(header), sets)
    try:
        yield
    finally:
        if had:
            sets[0].effective |= CAP_SYS_NICE
            libc.capset(ctypes.byref(header), sets)
