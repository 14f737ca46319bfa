"""Compiles the integer loops into numba's cache, so that no experiment waits for it: python -m nvc.warm

The cache lies beside the sources, in __pycache__, or where NUMBA_CACHE_DIR says. A module joins by having a function
``warm()`` that calls its compiled functions once.
"""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path


def compile_all() -> list[str]:
    """Call warm() of every module of nvc that has it; their names. Quick where the cache is full."""
    warmed = []
    for module in pkgutil.walk_packages([str(Path(__file__).parent)], "nvc."):
        if module.name != "nvc.warm":
            warm = getattr(importlib.import_module(module.name), "warm", None)
            if warm is not None:
                warm()
                warmed.append(module.name)
    return warmed


if __name__ == "__main__":
    print("compiled:", ", ".join(compile_all()))
