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
