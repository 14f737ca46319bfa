"""Where compiled kernels are kept: never in a place that other sources have compiled into."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import nvc

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    (tmp_path / "nvc" / "entropy").mkdir(parents=True)
    (tmp_path / "nvc" / "a.py").write_text("SHIFT = 4\n")
    (tmp_path / "nvc" / "entropy" / "b.py").write_text("from nvc.a import SHIFT\n")
    return tmp_path / "nvc"


def test_the_cache_of_kernels_moves_when_any_source_changes(sources: Path) -> None:
    before = nvc.kernel_cache("/var/cache/numba", sources)
    assert nvc.kernel_cache("/var/cache/numba", sources) == before
    (sources / "a.py").write_text("SHIFT = 5\n")  # b.py, whose kernel calls it, is as it was
    after = nvc.kernel_cache("/var/cache/numba", sources)
    assert Path(before).parent == Path(after).parent == Path("/var/cache/numba")
    assert before != after


def test_a_process_that_is_started_by_another_keeps_its_cache_beside_and_not_inside(sources: Path) -> None:
    of_parent = nvc.kernel_cache("/var/cache/numba", sources)
    (sources / "a.py").write_text("SHIFT = 5\n")
    assert Path(nvc.kernel_cache(of_parent, sources)).parent == Path("/var/cache/numba")


@pytest.mark.parametrize("imports", ["import nvc, numba", "import numba, nvc"])
def test_numba_uses_it_whichever_is_imported_first(imports: str, tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", f"{imports}; print(numba.config.CACHE_DIR)"], cwd=ROOT, check=True,
                          capture_output=True, text=True, env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)})
    assert done.stdout.strip() == nvc.kernel_cache(str(tmp_path), ROOT / "nvc")


ALL_KERNELS = """
import importlib, pkgutil, sys
from numba.core.registry import CPUDispatcher
import nvc
from coding.interface import Settings
from nvc.codec import Nvc
from video import library
from video.files import open_clip

def kernels():
    for module in pkgutil.walk_packages(nvc.__path__, "nvc."):
        for name, kernel in vars(importlib.import_module(module.name)).items():
            if isinstance(kernel, CPUDispatcher):
                yield from ((kernel.py_func.__module__, kernel.py_func.__name__, str(s)) for s in kernel.signatures)

Nvc().warm()
before = set(kernels())
with open_clip(library.find("carphone")) as clip:
    info, pictures = clip.info, [picture for picture, _ in zip(clip, range(18))]
for structure, effort in (("random_access", 0), ("low_delay", 0), ("intra", 0), ("random_access", 3)):
    encoded = Nvc().encode(pictures, info, Settings(quality=20, structure=structure, effort=effort))
    sum(1 for _ in Nvc().decode(encoded.data))
print(*sorted(set(kernels()) - before), sep="\\n")
"""


def test_no_experiment_waits_for_a_kernel_to_be_compiled() -> None:
    done = subprocess.run([sys.executable, "-c", ALL_KERNELS], cwd=ROOT, check=True, capture_output=True, text=True)
    assert done.stdout.strip() == ""
