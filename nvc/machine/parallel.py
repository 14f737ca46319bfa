"""Pictures that do not need each other, at the same time: each thread takes a share of them and one core.

Between a network's layers are loops that run on one core, so two pictures on a core each are done sooner than both on
two cores one layer after the other. Numbers do not depend on it: everything that is shared is exact.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import TypeVar

import torch

SMALL = 1 << 16             # pixels of pictures that are coded together
T = TypeVar("T")
R = TypeVar("R")
_pools: dict[int, ThreadPoolExecutor] = {}
_lock = threading.Lock()


def _pool(threads: int) -> ThreadPoolExecutor:
    with _lock:
        if threads not in _pools:
            started = threading.Barrier(threads)

            def start() -> None:
                torch.set_num_threads(1)
                torch.get_num_threads()         # a thread's first question sets its number to what was set last
                started.wait()

            pool = ThreadPoolExecutor(threads, "pictures")
            for made in [pool.submit(start) for _ in range(threads)]:
                made.result()
            torch.set_num_threads(threads)      # for other threads to come
            _pools[threads] = pool
        return _pools[threads]


def shares(items: Sequence[T], pixels: int) -> list[Sequence[T]]:
    """Pictures of that many pixels in their order, in as many parts of like size as torch has threads here, none empty;
    small ones stay together: theirs is the time of calls, which wait for each other in Python."""
    parts = max(1, min(torch.get_num_threads(), len(items))) if pixels > SMALL else 1
    ends = [len(items) * k // parts for k in range(parts + 1)]
    return [items[a:b] for a, b in pairwise(ends)]


def each(work: Callable[[T], R], items: Sequence[T]) -> list[R]:
    """[work(item) for item in items], at the same time, on as many cores as torch has threads here; a single one has
    them all. The first error passes, after all have ended."""
    if len(items) == 1 or torch.get_num_threads() == 1:
        return [work(item) for item in items]
    waiting = [_pool(torch.get_num_threads()).submit(work, item) for item in items]
    errors = [error for future in waiting if (error := future.exception())]
    if errors:
        raise errors[0]
    return [future.result() for future in waiting]
