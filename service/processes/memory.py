"""How much memory a codec process may use, and about how much a clip needs: refused before the start, not after an
hour."""

from __future__ import annotations

import os
from pathlib import Path

SHARE = 0.8  # of the machine's memory that codec processes may use together; the rest is the services' and the kernel's

# Bytes that coding takes for each sample of luma, and at rest: measured on 640x360 to 3840x2160 (bench/codec.py),
# rounded up.
BYTES_PER_SAMPLE = {"nvc": 1000}
OTHERS_PER_SAMPLE = 60  # pictures at hand in encoders of other kinds, and those being compared
AT_REST = 700 << 20


def automatic_limit_mb(slots: int) -> int:
    """MiB for each of so many codec processes on this machine, or in this control group."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            total = min(total, int(Path(path).read_text()))
        except (OSError, ValueError):  # no such group, or "max"
            continue
    return max(1, int(total * SHARE / slots) >> 20)


def needed_bytes(codec: str, width: int, height: int) -> int:
    """About how much memory it takes to code and measure pictures of this size."""
    return AT_REST + width * height * BYTES_PER_SAMPLE.get(codec, OTHERS_PER_SAMPLE)
