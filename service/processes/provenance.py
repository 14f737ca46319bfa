"""What made the numbers of a result: code, weights, libraries, machine, memory."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np

from coding.interface import Codec, Encoded
from service.runtime.version import VERSION, commit

SEED = 0  # nothing here draws at random, but a codec's encoder may, and must then draw the same every time


def provenance(encoder: Codec, encoded: Encoded, threads: int) -> dict[str, Any]:
    """What made the numbers: code, weights, libraries, machine."""
    described = encoder.describe()
    torch = sys.modules.get("torch")
    return {
        "version": VERSION,
        "commit": commit(),
        "codec": described,
        "model_sha256": encoded.details.get("model_sha256") or described.get("model_sha256"),
        "torch": str(torch.__version__) if torch else _installed("torch"),
        "numpy": np.__version__,
        "python": platform.python_version(),
        "cpu": cpu_name(),
        "threads": torch.get_num_threads() if torch else threads or len(os.sched_getaffinity(0)),
        "seed": SEED,
        "peak_memory_bytes": peak_memory_bytes(),
    }


def _installed(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def cpu_name() -> str:
    """The processor's name as the kernel tells it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def device() -> str:
    """The best device here, of what is loaded already: "cuda" or "cpu"."""
    torch = sys.modules.get("torch")
    return "cuda" if torch and torch.cuda.is_available() else "cpu"


def reset_peak_memory() -> None:
    """Let the kernel's high-water mark of this process begin here, so that it is this run's and not the last one's."""
    with contextlib.suppress(OSError):  # without /proc the mark is that of the process's whole life
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory_bytes() -> int | None:
    """The most memory that this process has had in RAM at once since `reset_peak_memory`."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return None


def seed_everything() -> None:
    random.seed(SEED)
    np.random.seed(SEED)
    if torch := sys.modules.get("torch"):
        torch.manual_seed(SEED)
