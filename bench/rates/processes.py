"""Clips measured by several processes at a time, one thread in each: numbers of quality and rate do not mind."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import TypeVar

import torch

Item = TypeVar("Item")
Made = TypeVar("Made")


def each(work: Callable[[Item], Made], items: Iterable[Item], processes: int) -> list[Made]:
    """What `work` makes of each item, in their order; what it raises is raised here."""
    if processes == 1:
        return [work(item) for item in items]
    with ProcessPoolExecutor(processes, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        return list(pool.map(work, items))
